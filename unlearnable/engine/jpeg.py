"""JPEG that gradients go through: what libjpeg computes, step by step, on a batch of tensors.

Only what loses something is computed (ITU-T T.81, 1992): colours to luminance and chrominance,
halved chrominance, the 8x8 cosine transform, quantisation, and back. Forward all rounding is
libjpeg's own; Reich et al. (WACV 2024, 2309.06978) found that such details count. Backward pixels
are rounded straight through (Bengio et al., 1308.3432). Of coefficients the gradient is a mean of
that and of smooth rounding's (Shin & Song, 2017): 3 r^2, where rounding took r. So what will hardly
be written counts less, and yet a search can raise what is rounded to zero.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from .device import send

SUBSAMPLINGS = ("4:2:0", "4:4:4")
# Quantisation at quality 50, row by row: tables K.1 and K.2 of the standard.
_LUMINANCE = (
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55,
    14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62,
    18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92,
    49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99,
)  # fmt: skip
_CHROMINANCE = (
    17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99,
    24, 26, 56, 99, 99, 99, 99, 99, 47, 66, 99, 99, 99, 99, 99, 99,
    *[99] * 32,
)  # fmt: skip
_SMOOTH = 0.75  # share of smooth rounding in the gradient of quantisation
_BELOW_HALF = 0.5 - 1e-4  # halves of chrominance are rounded down


def jpeg(images: Tensor, quality: Tensor, *, subsampling: str = "4:2:0") -> Tensor:
    """Differentiable JPEG compression.

    Computed in float32, even under autocast, and without waiting for a GPU.

    Args:
        images: Float (B, C, H, W) in [0, 1] of any size; rounded to 8 bits first. If there are not
            three channels, each is compressed like a grey image.
        quality: Quality of each image, integers (B,) from 1 to 100, as in Pillow and libjpeg.
        subsampling: ``"4:2:0"`` (colours at half resolution, Pillow's default) or ``"4:4:4"``.

    Returns:
        (B, C, H, W) in [0, 1], of the images' dtype.

    Raises:
        ValueError: The subsampling is unknown.
    """
    if subsampling not in SUBSAMPLINGS:
        raise ValueError(
            f"expected subsampling to be one of {list(SUBSAMPLINGS)}, got {subsampling!r}"
        )
    with torch.autocast(images.device.type, enabled=False):
        pixels = _rounded(255 * images.float().clamp(0, 1))
        tables = send(_tables(quality), images.device)  # (B, 2, 64)
        if images.shape[1] != 3:
            decoded = _coded(pixels, tables[:, :1])
        elif subsampling == "4:4:4":
            of_each = torch.cat((tables, tables[:, 1:]), dim=1)
            decoded = _to_rgb(_coded(_to_ycc(pixels), of_each))
        else:
            height, width = images.shape[2:]
            luma, chroma = _to_ycc(pixels).split([1, 2], dim=1)
            halved = _coded(_halved(chroma), tables[:, 1:])
            halved = halved[:, :, : -(-height // 2), : -(-width // 2)]
            chroma = _doubled(halved)[:, :, :height, :width]
            decoded = _to_rgb(torch.cat((_coded(luma, tables[:, :1]), chroma), dim=1))
    return (decoded / 255).to(images.dtype)


class _Straight(torch.autograd.Function):
    """Values in place of others, to which their gradient goes as it is."""

    @staticmethod
    def forward(ctx: Any, exact: Tensor, stepped: Tensor) -> Tensor:
        return stepped.view_as(stepped)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None]:
        return slope, None


def _rounded(values: Tensor, half: Tensor | float = 0.5) -> Tensor:
    """The integers below ``values + half``."""
    found: Tensor = _Straight.apply(values, (values.detach() + half).floor_())
    return found


def _tables(quality: Tensor) -> Tensor:
    """Steps of quantisation, luminance and chrominance, float32 (B, 2, 64), where quality is."""
    base = send(torch.tensor((_LUMINANCE, _CHROMINANCE)), quality.device)
    low = torch.div(5000, quality, rounding_mode="floor")
    percent = torch.where(quality < 50, low, 200 - 2 * quality)[:, None, None]
    steps = torch.div(base * percent + 50, 100, rounding_mode="floor")
    return steps.clamp(1, 255).float()


def _cosines() -> Tensor:
    """The cosine transform of eight values, times the root of 8: values @ this, (8, 8)."""
    rows = [[math.cos((2 * x + 1) * u * math.pi / 16) for u in range(8)] for x in range(8)]
    cosines = torch.tensor(rows, dtype=torch.float64) * math.sqrt(2)
    cosines[:, 0] = 1
    return cosines.float()


_COSINES = _cosines()


def _coded(planes: Tensor, steps: Tensor) -> Tensor:
    """Planes after transform, quantisation and back.

    Args:
        planes: Levels from 0 to 255, (B, c, H, W).
        steps: Of each plane, or of all planes of an image, (B, c or 1, 64).
    """
    height, width = planes.shape[2:]
    padded = _extended(_extended(planes, 2, 8), 3, 8)
    steps = steps.unflatten(2, (8, 8)).transpose(2, 3)[:, :, None, None]  # across, then down
    found: Tensor = _Quantised.apply(padded, steps, send(_COSINES, planes.device))
    return found[:, :, :height, :width].clamp(0, 255)


class _Quantised(torch.autograd.Function):
    """What quantisation leaves of levels, with the fixed-point numbers of libjpeg in between."""

    @staticmethod
    def forward(ctx: Any, planes: Tensor, steps: Tensor, cosines: Tensor) -> Tensor:
        def rounded(values: Tensor) -> Tensor:
            return values.add_(0.5).floor_()

        across = rounded((planes - 128).unflatten(3, (-1, 8)) @ (4 * cosines))  # (B, c, H, w, 8)
        both = rounded(_columns(across) @ (cosines / 4))  # (B, c, h, w, 8, 8)
        quotients = both.div_(8 * steps)  # both are eight times the coefficients
        nearest = quotients.abs().add_(0.5).floor_().copysign_(quotients)  # halves: from zero
        ctx.save_for_backward(_passed_on(quotients.sub_(nearest)), cosines)
        down = rounded(nearest.mul_(steps) @ (4 * cosines.T))
        return rounded(_rows(down) @ (cosines.T / 32)).add_(128).flatten(3)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None, None]:
        passed_on, cosines = ctx.saved_tensors
        with torch.autocast(slope.device.type, enabled=False):
            slopes = _columns(slope.unflatten(3, (-1, 8)) @ cosines) @ (cosines / 64)
            slope = (_rows(slopes.mul_(passed_on) @ cosines.T) @ cosines.T).flatten(3)
        return slope, None, None


def _passed_on(remainders: Tensor) -> Tensor:
    """The share of its gradient that rounding passes on, given what it took away."""
    return remainders.square_().mul_(3 * _SMOOTH).add_(1 - _SMOOTH)


def _columns(blocks: Tensor) -> Tensor:
    """Blocks of rows, (B, c, H, w, 8), by columns: (B, c, h, w, 8, 8), the place in them last."""
    return blocks.unflatten(2, (-1, 8)).movedim(3, -1)


def _rows(blocks: Tensor) -> Tensor:
    """The other way round."""
    return blocks.movedim(-1, 3).flatten(2, 3)


def _extended(planes: Tensor, dim: int, multiple: int) -> Tensor:
    """Planes whose last row or column is repeated up to a multiple of some length."""
    missing = -planes.shape[dim] % multiple
    if not missing:
        return planes
    last = planes.narrow(dim, -1, 1)
    sides = [-1] * 4
    sides[dim] = missing
    return torch.cat((planes, last.expand(sides)), dim=dim)


def _to_ycc(pixels: Tensor) -> Tensor:
    """Luminance and chrominance of RGB, levels (B, 3, H, W)."""
    red, green, blue = pixels.unbind(1)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    bluish = 128 - 0.168735892 * red - 0.331264108 * green + 0.5 * blue
    reddish = 128 + 0.5 * red - 0.418687589 * green - 0.081312411 * blue
    chroma = torch.stack((bluish, reddish), dim=1)
    return torch.cat((_rounded(luma)[:, None], _rounded(chroma, _BELOW_HALF)), dim=1)


def _to_rgb(planes: Tensor) -> Tensor:
    """RGB of luminance and chrominance, levels (B, 3, H, W)."""
    luma, bluish, reddish = planes.unbind(1)
    bluish, reddish = bluish - 128, reddish - 128
    red = luma + 1.402 * reddish
    green = luma - 0.344136286 * bluish - 0.714136286 * reddish
    blue = luma + 1.772 * bluish
    return _rounded(torch.stack((red, green, blue), dim=1)).clamp(0, 255)


def _halved(planes: Tensor) -> Tensor:
    """Means of 2x2 pixels; halves are rounded up in every second column, as libjpeg does it."""
    planes = _extended(_extended(planes, 2, 2), 3, 16)
    means = planes.unflatten(3, (-1, 2)).unflatten(2, (-1, 2)).mean((3, 5))
    return _rounded(means, _alternating(means, 0.25, 0.5))


def _doubled(planes: Tensor) -> Tensor:
    """Planes at twice the size, by libjpeg's triangle filter."""
    if planes.shape[3] <= 2:  # where it has none
        return planes.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    doubled = _interpolated(_interpolated(planes, 2), 3)
    return _rounded(doubled, _alternating(doubled, 8 / 16, 7 / 16))


def _interpolated(planes: Tensor, dim: int) -> Tensor:
    """Each row or column becomes two, which hold 3/4 of it and 1/4 of their other neighbour."""
    length = planes.shape[dim]
    first, last = planes.narrow(dim, 0, 1), planes.narrow(dim, -1, 1)
    before = torch.cat((first, planes.narrow(dim, 0, length - 1)), dim=dim)
    after = torch.cat((planes.narrow(dim, 1, length - 1), last), dim=dim)
    both = torch.stack((0.75 * planes + 0.25 * before, 0.75 * planes + 0.25 * after), dim=dim + 1)
    return both.flatten(dim, dim + 1)


def _alternating(planes: Tensor, even: float, odd: float) -> Tensor:
    """One number in the even columns, another one in the odd ones, (W,)."""
    columns = torch.arange(planes.shape[3], device=planes.device)
    return torch.where(columns % 2 == 0, even, odd).to(planes.dtype)
