"""The augmentation of contrastive learning (SimCLR's, 2002.05709): batched and differentiable."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .augment import centres, jittered, luma, per_image, resample
from .random import Draws

_DRAWS = 11  # uniform numbers that an image takes


class ContrastiveAugment(NamedTuple):
    """Resized crop, flip, colour jitter and greyscale, each drawn per image.

    A factor of 1 and a rotation of 0 leave an image unchanged, so transformations that are not
    applied need no branch. Images without three channels get no saturation, hue or greyscale
    changes.

    Attributes:
        centres: Centre of each crop, (y, x) in [-1, 1], float of shape (B, 2).
        sides: Height and width of each crop as shares of the image's, float of shape (B, 2).
        flips: Whether each image is mirrored, bool of shape (B,).
        brightness: Factor of the pixels, (B,).
        contrast: Factor of the distance to the image's mean luma, (B,).
        saturation: Factor of the distance to the pixel's luma, (B,).
        hue: Rotation of the colours around the grey axis, as a share of a full turn, (B,).
        grey: Whether each image loses its colour, bool of shape (B,).
    """

    centres: Tensor
    sides: Tensor
    flips: Tensor
    brightness: Tensor
    contrast: Tensor
    saturation: Tensor
    hue: Tensor
    grey: Tensor

    @classmethod
    def draw(cls, count: int, draws: Draws, strength: float) -> ContrastiveAugment:
        """Draws for ``count`` images.

        For strength s: crops of 1 - 0.9 s up to the full area, with an aspect ratio of 3/4 to 4/3
        relative to the image's; a fair flip; with probability 0.8 s, a jitter of brightness,
        contrast and saturation by up to 0.4 s and of hue by up to 0.1 s; and greyscale with
        probability 0.2 s. At 0 only the flip remains.

        Args:
            count: Number of images.
            draws: Draws for the current batch.
            strength: 0 to 1.
        """
        (
            area,
            ratio,
            down,
            right,
            flip,
            jitter,
            brightness,
            contrast,
            saturation,
            hue,
            grey,
        ) = draws.uniform((count, _DRAWS), 0, 1).unbind(1)
        area = 1 - 0.9 * strength * area
        # Where a crop of 4:3 would be wider than the image, ratios that fit are drawn. Torchvision
        # draws again until one fits, which at full area would never end but in the whole image.
        widest = torch.minimum((1 / area).log(), torch.full_like(area, 4 / 3).log())
        ratio = (widest * (2 * ratio - 1)).exp()
        sides = torch.stack(((area / ratio).sqrt(), (area * ratio).sqrt()), dim=1).clamp_max(1)
        centres = (1 - sides) * (2 * torch.stack((down, right), dim=1) - 1)
        applied = (jitter < 0.8 * strength).to(area.dtype)

        def around_zero(uniform: Tensor, spread: float) -> Tensor:
            return applied * spread * strength * (2 * uniform - 1)

        return cls(
            centres=centres,
            sides=sides,
            flips=flip < 0.5,
            brightness=1 + around_zero(brightness, 0.4),
            contrast=1 + around_zero(contrast, 0.4),
            saturation=1 + around_zero(saturation, 0.4),
            hue=around_zero(hue, 0.1),
            grey=grey < 0.2 * strength,
        )

    def __call__(self, images: Tensor) -> Tensor:
        """Augments float ``images`` in [0, 1] of shape (B, C, H, W); the result stays in [0, 1]."""
        images = jittered(
            self._crop(images), self.brightness, self.contrast, self.saturation, self.hue
        )
        if images.shape[1] != 3:
            return images
        return torch.where(per_image(self.grey), luma(images), images)

    def _crop(self, images: Tensor) -> Tensor:
        """Crops, resizes and flips by one bilinear gather."""
        height, width = images.shape[2:]
        rows = centres(torch.arange(height, device=images.device), height)
        across = centres(torch.arange(width, device=images.device), width)
        across = torch.where(self.flips[:, None], -across, across)  # (B, W)
        y = self.centres[:, :1] + self.sides[:, :1] * rows  # (B, H)
        x = self.centres[:, 1:] + self.sides[:, 1:] * across
        # Crops lie inside the image; "border" matters for the half pixel at its very edge.
        return resample(images, y, x, "bilinear", "border")
