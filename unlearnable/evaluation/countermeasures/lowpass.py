"""Removal of fine detail: only the lowest spatial frequencies are kept."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .channels import to_levels
from .images import Filter


@dataclass(frozen=True)
class LowPass(Filter):
    """Keeps only the lowest frequencies of the discrete cosine transform of the whole image.

    Args:
        share: Share of the frequencies of each axis to keep, above 0 and up to 1; the mean of the
            image is always kept.
    """

    share: float = 0.5

    _name = "low-pass"
    _description = "a victim that removes the fine detail from its training images"

    def __post_init__(self) -> None:
        self._numbers("share")
        if not 0 < self.share <= 1:
            raise ValueError(f"expected a share above 0 and up to 1, got {self.share}")

    def _filter(self, images: Tensor) -> Tensor:
        return to_levels(low_frequencies(images.double(), self.share))


def cosines(size: int) -> Tensor:
    """The matrix of the orthonormal discrete cosine transform (DCT-II), float64 (N, N)."""
    place = torch.arange(size, dtype=torch.float64)
    waves = torch.cos(math.pi / size * place[:, None] * (place + 0.5))
    scale = torch.full((size, 1), math.sqrt(2 / size), dtype=torch.float64)
    scale[0] = math.sqrt(1 / size)
    return scale * waves


def low_frequencies(images: Tensor, share: float) -> Tensor:
    """The part of float64 images (…, H, W) in the lowest share of each axis's frequencies."""
    for axis in (-2, -1):
        size = images.shape[axis]
        kept = cosines(size)[: max(1, round(share * size))]
        images = (images.movedim(axis, -1) @ kept.T @ kept).movedim(-1, axis)
    return images
