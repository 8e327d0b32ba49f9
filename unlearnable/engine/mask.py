"""What becomes of rows where each pixel shows only a part of them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

_ONE = 256  # weights are multiples of 1 / _ONE


class Mask(NamedTuple):
    """How much of a row the pixels of a batch of images show.

    Attributes:
        weights: Share of its row that a pixel shows, float (B, 1, H, W), from 1 / 256 to 1.
        grey: Which images show the mean of a row's channels in all of them, bool (B, 1, 1, 1).
    """

    weights: Tensor
    grey: Tensor

    def change(self, rows: Tensor) -> Tensor:
        """What is added to the images in place of rows: float (B, C, H, W), both in [0, 1] units.

        Rows are rounded to levels, and so is what is shown of them, just as where they are applied.
        """
        levels = (255 * rows).round()
        # Integers below 2^24, and quotients that lie further from one than they are rounded by.
        total = torch.where(self.grey, levels.sum(1, keepdim=True), levels)
        parts = torch.where(self.grey, levels.shape[1] * _ONE, _ONE)
        return ((total * (_ONE * self.weights) + parts // 2) / parts).floor() / 255

    def pull(self, slope: Tensor) -> Tensor:
        """The gradient at rows, from that at the images, (B, C, H, W); rounding passes it on."""
        slope = slope * self.weights
        return torch.where(self.grey, slope.mean(1, keepdim=True), slope)


def protected(images: Tensor, rows: Tensor, mask: Mask | None) -> Tensor:
    """Images as they are published, float (B, C, H, W) in [0, 1].

    Args:
        images: Float images in [0, 1], (B, C, H, W).
        rows: Of the images, in [0, 1] units, (B, C, H, W).
        mask: Of the images, or None where rows are added as they are.
    """
    return (images + (rows if mask is None else mask.change(rows))).clamp(0, 1)
