"""Pixels that are the same in all images of a class, found and repaired."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from .base import Countermeasure
from .channels import to_levels


@dataclass(frozen=True)
class PixelRepair(Countermeasure):
    """Replaces pixels that hardly vary within a class by the mean of their surroundings.

    Args:
        ratio: A position counts as fixed if its standard deviation over the class's images is below
            this share of the median over all positions.
    """

    ratio: float = 0.25

    name = "pixel-repair"
    description = "a victim that finds pixels that are the same throughout a class and repairs them"
    knows_method = True

    def __post_init__(self) -> None:
        self._numbers("ratio")
        if not 0 < self.ratio < 1:
            raise ValueError(f"expected a ratio between 0 and 1, got {self.ratio}")

    def on_images(self, images: Tensor, labels: Tensor) -> Tensor:
        spread = _spread(images)
        for label in labels.unique().tolist():
            mine = labels == label
            own = images[mine]
            fixed = self.fixed(own, spread)
            if fixed.any():
                images[mine] = to_levels(repaired(own.double(), fixed))
        return images

    def fixed(self, images: Tensor, spread: Tensor) -> Tensor:
        """Which positions are fixed in images of one class, but not in those of all, bool (H, W).

        Args:
            images: Of one class, (B, C, H, W).
            spread: Of each position among the images of all classes, (H, W).
        """
        own = _spread(images)
        free = own[own > 0]
        if not len(free):
            return torch.zeros_like(own, dtype=torch.bool)
        # Positions of a common background are as fixed, but in every class.
        limit = self.ratio * free.median()
        return (own < limit) & (spread >= limit)


def _spread(images: Tensor) -> Tensor:
    """The standard deviation of each position, over the channels, float64 (H, W)."""
    total = torch.zeros(images.shape[1:], dtype=torch.float64)
    squares = torch.zeros_like(total)
    for part in images.split(1000):  # no copy of all images as floats
        levels = part.double()
        total += levels.sum(0)
        squares += levels.square().sum(0)
    mean = total / len(images)
    return (squares / len(images) - mean.square()).clamp_min(0).mean(0).sqrt()


def repaired(images: Tensor, fixed: Tensor) -> Tensor:
    """Replaces fixed positions in float images (B, C, H, W) by the mean of free neighbours."""
    free = (~fixed).to(images.dtype)
    kernel = torch.ones(1, 1, 3, 3, dtype=images.dtype)

    def around(values: Tensor) -> Tensor:
        flat = values.reshape(-1, 1, *values.shape[-2:])
        return F.conv2d(flat, kernel, padding=1).view_as(values)

    left = free
    while (left == 0).any() and left.any():  # from the edges of a fixed patch inwards
        images = images * left
        count = around(left)
        filled = around(images) / count.clamp_min(1)
        images = torch.where(left == 0, filled, images)
        left = (count > 0).to(images.dtype)
    return images
