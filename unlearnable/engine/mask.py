"""What becomes of rows where each pixel shows only a part of them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

_ONE = 256  # weights are multiples of 1 / _ONE


class Mask(NamedTuple):
    """How much of its row each pixel of a batch of images shows.

    Attributes:
        weights: Share of its row that each pixel shows, float (B, 1, H, W), from 1 / 256 to 1.
        grey: Which images show the mean of a row's channels in all of them, bool (B, 1, 1, 1).
    """

    weights: Tensor
    grey: Tensor

    def change(self, rows: Tensor) -> Tensor:
        """What is added to the images instead of rows: float (B, C, H, W), both in [0, 1] units.

        Rows and their visible part are rounded to levels, as when they are applied.
        """
        levels = (255 * rows).round()
        # Integers below 2^24, and quotients that lie further from one than they are rounded by.
        total = torch.where(self.grey, levels.sum(1, keepdim=True), levels)
        parts = torch.where(self.grey, levels.shape[1] * _ONE, _ONE)
        return ((total * (_ONE * self.weights) + parts // 2) / parts).floor() / 255

    def pull(self, slope: Tensor) -> Tensor:
        """The gradient for rows from that for images, (B, C, H, W), ignoring rounding."""
        slope = slope * self.weights
        return torch.where(self.grey, slope.mean(1, keepdim=True), slope)


def protected(images: Tensor, rows: Tensor, mask: Mask | None) -> Tensor:
    """The images as published, float (B, C, H, W) in [0, 1].

    Args:
        images: Float images in [0, 1], (B, C, H, W).
        rows: Rows of the images, in [0, 1] units, (B, C, H, W).
        mask: Mask of the images, or None if rows are added unmasked.
    """
    return (images + (rows if mask is None else mask.change(rows))).clamp(0, 1)
