"""COIN: every pixel is moved at random. (Li et al., AAAI 2025, 2311.18403)"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from .base import Countermeasure


@dataclass(frozen=True)
class Displacement(Countermeasure):
    """Each pixel takes its value from a random nearby position, linearly interpolated.

    Args:
        distance: Largest displacement along each axis, in pixels; edge pixels are repeated beyond
            the image.
        seed: Seed of the displacements, which are drawn once.
        test_images: Also displace the pixels of the test images.
    """

    distance: float = 2.0
    seed: int = 0
    test_images: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        self._numbers("distance")
        self._integers(seed=None)
        if self.distance < 0:
            raise ValueError(f"expected a distance of at least 0, got {self.distance}")

    @property
    def name(self) -> str:
        return "displacement-everywhere" if self.test_images else "displacement"

    @property
    def description(self) -> str:
        which = "all images that it sees" if self.test_images else "its training images"
        return f"a victim that moves every pixel of {which} at random (COIN)"

    def on_images(self, images: Tensor, labels: Tensor) -> Tensor:
        rng = torch.Generator().manual_seed(self.seed)
        moves = torch.empty(1, *images.shape[2:], 2)
        moved = [
            displaced(image, moves.uniform_(-self.distance, self.distance, generator=rng))
            for image in images.split(1)
        ]
        return torch.cat(moved)


def displaced(images: Tensor, moves: Tensor) -> Tensor:
    """Displaces the pixels of uint8 images (B, C, H, W), with linear interpolation.

    ``moves`` (B, H, W, 2) are the distances to the right and down.
    """
    height, width = images.shape[2:]
    x = torch.arange(width) + 0.5 + moves[..., 0]
    y = torch.arange(height)[:, None] + 0.5 + moves[..., 1]
    grid = torch.stack((2 * x / width - 1, 2 * y / height - 1), dim=-1)
    moved = F.grid_sample(images.float(), grid, "bilinear", "border", align_corners=False)
    return moved.round().to(torch.uint8)
