"""Filters of images as products with matrices: resizing, blur, and what a spectrum keeps.

All are linear and differentiable, and drawn per image: each has matrices of its own.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from .device import send

BANDS = 8  # of the frequencies of each axis
_REACH = 3.0  # standard deviations of a blur, beyond which its weights are left out


def resized_and_back(images: Tensor, shares: Tensor, bicubic: Tensor) -> Tensor:
    """Reduces images and enlarges them again, with Pillow's antialiasing filters.

    Both resizes form one matrix product per axis; overshoots of bicubic filters are clipped once,
    at the end.

    Args:
        images: Float (B, C, H, W) in [0, 1].
        shares: Sides of the reduced images relative to the originals, above 0 and up to 1, (B,).
        bicubic: Whether the filter is bicubic instead of bilinear, bool (B,).
    """
    with torch.autocast(images.device.type, enabled=False):
        matrices = [_there_and_back(side, shares, bicubic) for side in images.shape[2:]]
        return _filtered(images.float(), matrices).clamp(0, 1).to(images.dtype)


def blurred(images: Tensor, sigmas: Tensor) -> Tensor:
    """Applies a Gaussian blur, mirroring images at their edges without repeating edge pixels.

    Args:
        images: Float (B, C, H, W).
        sigmas: Standard deviation of each image's blur in pixels, above 0, (B,). The weights extend
            to three standard deviations.
    """
    with torch.autocast(images.device.type, enabled=False):
        matrices = [_gaussian(side, sigmas) for side in images.shape[2:]]
        return _filtered(images.float(), matrices).to(images.dtype)


def without_bands(images: Tensor, kept: Tensor) -> Tensor:
    """Removes part of the spectrum (cosine transform) of whole images.

    Args:
        images: Float (B, C, H, W) in [0, 1].
        kept: Which frequency bands are kept, bool (B, 8, 8): vertically and horizontally, each an
            eighth of the axis's frequencies, lowest first.
    """
    height, width = images.shape[2:]
    down, across = (torch.arange(side) * BANDS // side for side in (height, width))
    mask = send(kept[:, down][:, :, across][:, None].float(), images.device)
    transforms = [_cosine_transform(side) for side in (height, width)]
    with torch.autocast(images.device.type, enabled=False):
        spectrum = _filtered(images.float(), transforms) * mask
        seen = _filtered(spectrum, [matrix.transpose(1, 2) for matrix in transforms])
        return seen.clamp(0, 1).to(images.dtype)


def _filtered(images: Tensor, matrices: list[Tensor]) -> Tensor:
    """Images times a matrix (B or 1, n, n) for rows and one for columns, float32 as all of them."""
    rows, columns = (send(matrix, images.device)[:, None] for matrix in matrices)
    seen: Tensor = _Product.apply(images, rows, columns)
    return seen


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


def _gaussian(side: int, sigmas: Tensor) -> Tensor:
    """Weights by which a row of ``side`` pixels is blurred, (B, side, side)."""
    reaches = (_REACH * sigmas).ceil().long()
    reach = int(reaches.max()) if len(sigmas) else 0
    offsets = torch.arange(-reach, reach + 1)
    weights = (-0.5 * (offsets / sigmas[:, None]) ** 2).exp() * (offsets.abs() <= reaches[:, None])
    weights = weights / weights.sum(1, keepdim=True)
    turn = max(1, 2 * (side - 1))  # pixels there and back, where the row is mirrored
    read = (torch.arange(side)[:, None] + offsets).remainder(turn)
    read = torch.minimum(read, turn - read) if side > 1 else torch.zeros_like(read)
    blank = weights.new_zeros((len(sigmas), side, side))
    return blank.scatter_add_(
        2, read.expand(len(sigmas), -1, -1), weights[:, None].expand(-1, side, -1)
    )


def _cosine_transform(side: int) -> Tensor:
    """The orthonormal cosine transform (type II) of a row of ``side`` pixels, (1, side, side)."""
    places = torch.arange(side, dtype=torch.float64)
    matrix = (math.pi / side * (places + 0.5) * places[:, None]).cos() * math.sqrt(2 / side)
    matrix[0] = math.sqrt(1 / side)
    return matrix.float()[None]
