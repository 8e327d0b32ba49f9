"""Augmentation of a batch: drawn per image, differentiable in the images."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from .random import Draws

# Numbers of grid_sample's modes.
_MODES = {"bilinear": 0, "nearest": 1}
_OUTSIDE = {"zeros": 0, "border": 1, "reflection": 2}
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as greyscale conversions use


class CropFlip(NamedTuple):
    """One random crop and horizontal flip per image, applied with a single gather.

    Attributes:
        shifts: Pixels down and right that each crop is moved by, int64 of shape (B, 2).
        flips: Whether each image is mirrored, bool of shape (B,).
    """

    shifts: Tensor
    flips: Tensor

    @classmethod
    def draw(cls, count: int, draws: Draws, padding: int = 4, share: float = 1.0) -> CropFlip:
        """Draws for ``count`` images, like RandomCrop(padding=padding) and a fair flip.

        With a ``share`` below 1, each image is left unchanged with the remaining probability.
        """
        shifts = draws.integers((count, 2), -padding, padding + 1)
        flips = draws.integers((count,), 0, 2).bool()
        if share < 1:
            changed = draws.uniform((count,), 0, 1) < share
            shifts, flips = shifts * changed[:, None], flips & changed
        return cls(shifts, flips)

    def __call__(self, images: Tensor, *, mirrored: bool = False) -> Tensor:
        """Crops and flips float ``images`` of shape (B, C, H, W).

        Pixels from outside are black or, with ``mirrored``, those of the mirrored image.
        """
        height, width = images.shape[2:]
        rows = torch.arange(height, device=images.device) + self.shifts[:, :1]  # (B, H)
        across = torch.arange(width, device=images.device).expand(len(images), width)
        across = torch.where(self.flips[:, None], width - 1 - across, across)
        across = across + self.shifts[:, 1:]  # (B, W)
        # "nearest" copies pixels exactly, and its kernels beat an index gather twofold, forward
        # and backward.
        outside = "reflection" if mirrored else "zeros"
        return resample(images, centres(rows, height), centres(across, width), "nearest", outside)


def luma(images: Tensor) -> Tensor:
    """The perceived brightness of each pixel of images (B, C, H, W), (B, 1, H, W)."""
    if images.shape[1] != 3:
        return images.mean(1, keepdim=True)
    red, green, blue = images.split(1, dim=1)
    return _LUMA[0] * red + _LUMA[1] * green + _LUMA[2] * blue


def jittered(
    images: Tensor, brightness: Tensor, contrast: Tensor, saturation: Tensor, hue: Tensor
) -> Tensor:
    """Changes the colours of images, float (B, C, H, W) in [0, 1].

    The steps have a fixed order, brightness first. The hue is changed by a rotation of RGB space
    around its grey axis, which keeps each pixel's mean and has a gradient everywhere; a third of a
    turn swaps the channels, as in HSV. Images without three channels keep saturation and hue.

    Args:
        images: Float (B, C, H, W) in [0, 1].
        brightness: Factor of the pixels, (B,).
        contrast: Factor of the distance to the image's mean luma, (B,).
        saturation: Factor of the distance to the pixel's luma, (B,).
        hue: Rotation of the colours around the grey axis, as a share of a full turn, (B,).
    """
    images = (per_image(brightness) * images).clamp(0, 1)
    mean = luma(images).mean((2, 3), keepdim=True)
    images = torch.lerp(mean, images, per_image(contrast)).clamp(0, 1)
    if images.shape[1] != 3:
        return images
    images = torch.lerp(luma(images), images, per_image(saturation)).clamp(0, 1)
    angle = 2 * torch.pi * per_image(hue)
    grey = images.mean(1, keepdim=True)
    across = images.roll(1, dims=1) - images.roll(-1, dims=1)  # (1, 1, 1) x (r, g, b)
    return (grey + angle.cos() * (images - grey) + angle.sin() / 3**0.5 * across).clamp(0, 1)


def per_image(values: Tensor) -> Tensor:
    """Reshapes one value per image to broadcast over images: (B, 1, 1, 1)."""
    return values[:, None, None, None]


def centres(pixels: Tensor, size: int) -> Tensor:
    """Positions of pixel centres along a side of ``size`` pixels, from -1 to 1."""
    return (2 * pixels + 1) / size - 1


def resample(images: Tensor, y: Tensor, x: Tensor, mode: str, outside: str) -> Tensor:
    """Samples each image at its own grid of rows and columns, with a single gather.

    Args:
        images: Float, (B, C, H, W).
        y: Positions of the rows, from -1 to 1 over the image's height, (B, h).
        x: Positions of the columns, from -1 to 1 over the image's width, (B, w).
        mode: ``"nearest"`` or ``"bilinear"``.
        outside: ``"zeros"``, ``"border"`` or ``"reflection"``, as in grid_sample's padding_mode.
    """
    grid = torch.stack(torch.broadcast_tensors(x[:, None, :], y[:, :, None]), dim=-1)
    found: Tensor = _Gather.apply(images, grid.to(images.dtype), _MODES[mode], _OUTSIDE[outside])
    return found


class _Gather(torch.autograd.Function):
    """``grid_sample``, which keeps only the grid for its gradient, and not the images."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, grid: Tensor, mode: int, outside: int) -> Tensor:
        ctx.save_for_backward(grid)
        ctx.shape, ctx.options = images.shape, (mode, outside, False)
        return torch.grid_sampler(images, grid, *ctx.options)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None, None, None]:
        (grid,) = ctx.saved_tensors
        unread = slope.new_empty(()).expand(ctx.shape)  # images count only in a grid's gradient
        found, _ = torch.ops.aten.grid_sampler_2d_backward(
            slope, unread, grid, *ctx.options, [True, False]
        )
        return found, None, None, None
