"""COIN: every pixel is moved at random. (Li et al., AAAI 2025, 2311.18403)"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from ...engine.numbers import integer
from .base import Countermeasure, as_number


@dataclass(frozen=True)
class Displacement(Countermeasure):
    """Each pixel takes its value from a random place near it, interpolated linearly.

    Args:
        distance: Largest move along each axis, in pixels; beyond the image's edge, the pixels of
            the edge are repeated.
        seed: Of the moves, which are drawn once.
        test_images: Move the pixels of the test images too.
    """

    distance: float = 2.0
    seed: int = 0
    test_images: bool = field(default=False, kw_only=True)

    name = "displacement"
    description = "a victim that moves every pixel of its training images at random (COIN)"

    def __post_init__(self) -> None:
        self._set(distance=as_number("distance", self.distance), seed=integer("seed", self.seed))

    def on_images(self, images: Tensor, labels: Tensor) -> Tensor:
        rng = torch.Generator().manual_seed(self.seed)
        return torch.cat([self._move(image, rng) for image in images.split(1)])

    def _move(self, image: Tensor, rng: torch.Generator) -> Tensor:
        height, width = image.shape[2:]
        moves = torch.empty(height, width, 2).uniform_(-self.distance, self.distance, generator=rng)
        return displaced(image, moves[None])


def displaced(images: Tensor, moves: Tensor) -> Tensor:
    """Images whose pixels come from elsewhere, interpolated linearly, uint8 (B, C, H, W).

    Args:
        images: uint8, (B, C, H, W).
        moves: How far right and how far down each pixel's value is taken from, (B, H, W, 2).
    """
    height, width = images.shape[2:]
    x = torch.arange(width) + 0.5 + moves[..., 0]
    y = torch.arange(height)[:, None] + 0.5 + moves[..., 1]
    grid = torch.stack((2 * x / width - 1, 2 * y / height - 1), dim=-1)
    moved = F.grid_sample(images.float(), grid, "bilinear", "border", align_corners=False)
    return moved.round().to(torch.uint8)
