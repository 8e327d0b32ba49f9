"""The visibility masks of the images of a fit, where its search needs them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data.cache import ImageStore
from ..engine.mask import Mask
from ..perturbation.perturbation import Perturbation
from ..perturbation.visibility import ONE, VisibilityMask

_CHUNK = 256  # images whose masks are computed at once
_LOOKED_AT = 64  # images, to see whether anything shows


class Masks:
    """Masks by image index.

    Args:
        images: uint8, (N, C, H, W), on the CPU, in memory or memory-mapped.
        mask: The perturbation's visibility mask.
        device: Device for the masks.
        resident: Compute all masks at once and hold them there, in a third of the memory of colour
            images; otherwise each is computed on demand.
    """

    def __init__(
        self, images: Tensor, mask: VisibilityMask, device: torch.device, *, resident: bool
    ) -> None:
        self._images, self._mask, self._device = images, mask, device
        self._held: tuple[Tensor, Tensor] | None = None
        if resident:
            parts = [self._compute(part) for part in images.split(_CHUNK)]
            weights, grey = (torch.cat(kind).to(device) for kind in zip(*parts, strict=True))
            self._held = weights, grey

    def __call__(self, index: Tensor) -> Mask:
        """The mask of a batch, with indices int64 (B,)."""
        if self._held is None:
            weights, grey = (m.to(self._device) for m in self._compute(self._images[index.cpu()]))
        else:
            weights, grey = (kept[index] for kept in self._held)
        return Mask((weights.float() + 1) / ONE, grey)

    def _compute(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Weights less one, uint8 (B, 1, H, W), and which images are grey, bool (B, 1, 1, 1)."""
        shown = self._mask.on(images.numpy())
        weights = torch.from_numpy(shown.weights(slice(0, images.shape[2])) - 1)
        return weights.to(torch.uint8)[:, None], torch.from_numpy(shown.grey)[:, None, None, None]


def masks_of(
    config: Mapping[str, Any], images: Tensor, device: torch.device, *, resident: bool
) -> Masks | None:
    """The masks named in an artefact's config, or None; arguments as in :class:`Masks`."""
    mask = VisibilityMask.of(config)
    return None if mask is None else Masks(images, mask, device, resident=resident)


def warn_if_hidden(title: str, perturbation: Perturbation, images: ImageStore) -> None:
    """Warns if a mask leaves nothing of the rows in half of the images."""
    masked = perturbation.parts[0]
    places = np.unique(np.linspace(0, len(images.images) - 1, _LOOKED_AT).astype(int)).tolist()
    pixels, labels = images.images[places].numpy(), images.labels[places].tolist()
    rows = places if masked.keyed else masked.find(pixels, labels)
    same = (masked.apply(pixels, rows) == pixels).all(axis=(1, 2, 3))
    if 2 * same.sum() >= len(places):
        warnings.warn(
            f"{title} changes nothing in {same.sum()} of {len(places)} images at this visibility, "
            f"so they are not protected; choose a higher visibility or a larger epsilon",
            stacklevel=3,
        )
