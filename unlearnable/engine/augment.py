"""Augmentation of a batch: drawn per image, differentiable in the images."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from .random import Draws


class CropFlip(NamedTuple):
    """One random crop and horizontal flip per image, applied by one gather.

    Attributes:
        shifts: Whole pixels down and right that each crop is moved by, int64 of shape (B, 2).
        flips: Whether each image is mirrored, bool of shape (B,).
    """

    shifts: Tensor
    flips: Tensor

    @classmethod
    def draw(cls, count: int, draws: Draws, padding: int = 4) -> CropFlip:
        """Draws for ``count`` images what RandomCrop(padding=padding) and a fair flip would."""
        shifts = draws.integers((count, 2), -padding, padding + 1)
        flips = draws.integers((count,), 0, 2).bool()
        return cls(shifts, flips)

    def __call__(self, images: Tensor) -> Tensor:
        """Crops and flips float ``images`` of shape (B, C, H, W); what was outside is black."""
        batch, _, height, width = images.shape
        rows = torch.arange(height, device=images.device) + self.shifts[:, :1]  # (B, H)
        columns = torch.arange(width, device=images.device).expand(batch, width)
        columns = torch.where(self.flips[:, None], width - 1 - columns, columns)
        columns = columns + self.shifts[:, 1:]  # (B, W)
        # Pixel centres in grid_sample's [-1, 1]; "nearest" then copies pixels exactly, and its
        # kernels beat an index gather twofold, forward and backward.
        y = (2 * rows + 1) / height - 1
        x = (2 * columns + 1) / width - 1
        grid = torch.stack(
            (
                x[:, None, :].expand(batch, height, width),
                y[:, :, None].expand(batch, height, width),
            ),
            dim=-1,
        ).to(images.dtype)
        return F.grid_sample(
            images, grid, mode="nearest", padding_mode="zeros", align_corners=False
        )
