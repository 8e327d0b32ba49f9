"""What becomes of pictures that are shared: smaller and back, compressed, grey; differentiable.

Draws of these are part of an expectation over transformations (EOT: Athalye et al., ICML 2018,
1707.07397), so that what is learned withstands them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .augment import luma
from .device import send
from .jpeg import jpeg
from .names import suggestion
from .numbers import number
from .random import Draws

DEGRADATIONS = ("resize", "jpeg", "grayscale")  # in this order draws are shared out among them
_QUALITIES = (10, 95)  # from what an audit's countermeasures save to what cameras do
_SMALLEST = 0.5  # of the sides
_DRAWS = 4  # uniform numbers that an image takes


class Degradation(NamedTuple):
    """Resizing, JPEG compression or greyscale, at most one of them for each image.

    Draws are on the CPU, so that each image costs only what is done to it, and nothing waits for a
    GPU.

    Attributes:
        kinds: Which of :data:`DEGRADATIONS` each image gets, or their number for none, int64 (B,).
        qualities: Of JPEG files with 4:2:0 subsampling, 10 to 95, int64 (B,).
        shares: Sides of the smaller image over the image's own, 0.5 to 1, float32 (B,).
        bicubic: Whether it is resized by bicubic filters, or else by bilinear ones, bool (B,).
    """

    kinds: Tensor
    qualities: Tensor
    shares: Tensor
    bicubic: Tensor

    @classmethod
    def draw(cls, count: int, draws: Draws, probabilities: Mapping[str, float]) -> Degradation:
        """Draws for ``count`` images.

        Args:
            count: Images.
            draws: Of the current batch.
            probabilities: Of each of :data:`DEGRADATIONS`, as :func:`check_probabilities` gives
                them; what is left of 1 is that of none.
        """
        kind, quality, share, filter = draws.on_cpu().uniform((count, _DRAWS), 0, 1).unbind(1)
        ends = list(itertools.accumulate(probabilities.get(name, 0.0) for name in DEGRADATIONS))
        low, high = _QUALITIES
        return cls(
            kinds=(kind[:, None] >= torch.tensor(ends)).sum(1),
            qualities=low + (quality * (high + 1 - low)).long().clamp_max(high - low),
            shares=_SMALLEST + (1 - _SMALLEST) * share,
            bicubic=filter < 0.5,
        )

    def __call__(self, images: Tensor) -> Tensor:
        """Degrades float ``images`` in [0, 1] of shape (B, C, H, W), and stays in [0, 1]."""
        order = self.kinds.argsort(stable=True)
        counts = self.kinds.bincount(minlength=len(DEGRADATIONS) + 1).tolist()
        parts = images.index_select(0, send(order, images.device)).split(counts)
        seen = [
            self._degraded(kind, part, which) if len(part) else part
            for kind, (part, which) in enumerate(zip(parts, order.split(counts), strict=True))
        ]
        return torch.cat(seen).index_select(0, send(order.argsort(), images.device))

    def _degraded(self, kind: int, images: Tensor, which: Tensor) -> Tensor:
        """Some of the images, those with the indices ``which``, all by one kind."""
        name = DEGRADATIONS[kind] if kind < len(DEGRADATIONS) else None
        if name == "resize":
            return resized_and_back(images, self.shares[which], self.bicubic[which])
        if name == "jpeg":
            return jpeg(images, self.qualities[which])
        return luma(images).expand_as(images) if name == "grayscale" else images


def check_probabilities(name: str, value: Any) -> dict[str, float] | None:
    """Probabilities of :data:`DEGRADATIONS` above 0, in their order; None where there are none.

    Args:
        name: Of the argument, for errors.
        value: A mapping from names to probabilities, which are 1 or less together.

    Raises:
        ValueError: It is something else.
    """
    known = sorted(DEGRADATIONS)
    if not isinstance(value, Mapping):
        raise ValueError(
            f"expected {name} to give the probabilities of some of {known}, such as "
            f'{{"jpeg": 0.3}}, got {value!r}'
        )
    for key in value:
        if key not in DEGRADATIONS:
            raise ValueError(
                f"expected {name} to name some of {known}, got {key!r}{suggestion(key, known)}"
            )
    found = {key: number(f"{name}[{key!r}]", value[key]) for key in DEGRADATIONS if key in value}
    for key, probability in found.items():
        if not 0 <= probability <= 1:
            raise ValueError(f"expected {name}[{key!r}] from 0 to 1, got {probability:g}")
    total = math.fsum(found.values())
    if total > 1 + 1e-9:
        raise ValueError(
            f"expected probabilities in {name} that are 1 or less together, since an image gets at "
            f"most one of them at a time, got {total:g}"
        )
    return {key: probability for key, probability in found.items() if probability} or None


def resized_and_back(images: Tensor, shares: Tensor, bicubic: Tensor) -> Tensor:
    """Images that were made smaller and large again, by Pillow's filters with antialiasing.

    Both resizes are one product of matrices for each axis; what a bicubic filter overshoots is
    clipped once, at the end.

    Args:
        images: Float (B, C, H, W) in [0, 1].
        shares: Sides of the smaller images over those of the images, above 0 and up to 1, (B,).
        bicubic: Whether the filter is bicubic, or else bilinear, bool (B,).
    """
    with torch.autocast(images.device.type, enabled=False):
        rows, columns = (
            send(_there_and_back(side, shares, bicubic), images.device)[:, None]
            for side in images.shape[2:]
        )
        seen: Tensor = _Product.apply(images.float(), rows, columns)
    return seen.clamp(0, 1).to(images.dtype)


class _Product(torch.autograd.Function):
    """Images times a matrix for each axis, in float32 also where the gradient is under autocast."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        ctx.save_for_backward(rows, columns)
        return rows @ images @ columns.transpose(2, 3)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None, None]:
        rows, columns = ctx.saved_tensors
        with torch.autocast(slope.device.type, enabled=False):
            return rows.transpose(2, 3) @ slope @ columns, None, None


def _there_and_back(side: int, shares: Tensor, bicubic: Tensor) -> Tensor:
    """Weights by which a row of ``side`` pixels is resized and back, (B, side, side)."""
    smaller = (side * shares).round().clamp_min(1)[:, None, None]  # pixels
    cubic = bicubic[:, None, None]
    own, less = torch.full_like(smaller, side), smaller
    return _weights(side, less, own, cubic) @ _weights(side, own, less, cubic)


def _weights(room: int, before: Tensor, after: Tensor, cubic: Tensor) -> Tensor:
    """How much of each pixel of a row each pixel of the resized row holds, (B, room, room).

    Rows have ``before`` and then ``after`` pixels, up to ``room``; weights of others are 0.
    """
    pixels = torch.arange(room)
    scale = before / after
    distances = pixels + 0.5 - (pixels[:, None] + 0.5) * scale
    x = (distances / scale.clamp_min(1)).abs()
    near = (1.5 * x - 2.5) * x * x + 1  # Keys' cubic with a = -0.5
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    weights = torch.where(cubic, torch.where(x < 1, near, torch.where(x < 2, far, 0)), 1 - x)
    weights = torch.where(cubic, weights, weights.clamp_min(0))
    weights = weights * ((pixels < before) & (pixels[:, None] < after))
    return weights / weights.sum(2, keepdim=True).where(pixels[:, None] < after, 1)
