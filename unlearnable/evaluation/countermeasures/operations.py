"""Operations on a batch of images in [0, 1], each with one magnitude per image, (B,).

The definitions are those of ``torchvision.transforms.v2.functional`` for float images, which takes
one magnitude for all.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as v2

from ...engine.device import send
from ...engine.random import Draws


def columns(values: Tensor) -> Tensor:
    """Reshapes one value per image so that it broadcasts over images."""
    return values[:, None, None, None]


def warp(images: Tensor, matrices: Tensor, mode: str = "nearest") -> Tensor:
    """Warps images (B, C, H, W); pixels from outside the image are black.

    Matrices (B, 2, 3) map a pixel's position (x, y, 1), in pixels from the image's centre, to the
    position of its value.
    """
    _, _, height, width = images.shape
    x = torch.arange(width, device=images.device) + (1 - width) / 2
    y = torch.arange(height, device=images.device) + (1 - height) / 2
    across, down = torch.meshgrid(x, y, indexing="xy")
    places = torch.stack((across, down, torch.ones_like(across)), dim=-1)
    sources = torch.einsum("bij,hwj->bhwi", matrices, places)
    half = send(torch.tensor([width / 2, height / 2]), images.device)
    return F.grid_sample(images, sources / half, mode, "zeros", align_corners=False)


def _matrices(*entries: Tensor | float, like: Tensor) -> Tensor:
    """(B, 2, 3) from six entries, (B,) or numbers, row by row."""
    full = [e if isinstance(e, Tensor) else torch.full_like(like, e) for e in entries]
    return torch.stack(full, dim=1).unflatten(1, (2, 3))


def shear_x(images: Tensor, amount: Tensor) -> Tensor:
    """Shears: shifts rows to the left, lower rows further."""
    half = images.shape[2] / 2  # the top edge stays
    return warp(images, _matrices(1, amount, amount * half, 0, 1, 0, like=amount))


def shear_y(images: Tensor, amount: Tensor) -> Tensor:
    """Shears: shifts columns up, those on the right further."""
    half = images.shape[3] / 2  # the left edge stays
    return warp(images, _matrices(1, 0, 0, amount, 1, amount * half, like=amount))


def translate_x(images: Tensor, pixels: Tensor) -> Tensor:
    """Shifts to the right by whole pixels, rounded towards zero."""
    return warp(images, _matrices(1, 0, -pixels.trunc(), 0, 1, 0, like=pixels))


def translate_y(images: Tensor, pixels: Tensor) -> Tensor:
    """Shifts down by whole pixels, rounded towards zero."""
    return warp(images, _matrices(1, 0, 0, 0, 1, -pixels.trunc(), like=pixels))


def rotate(images: Tensor, degrees: Tensor) -> Tensor:
    """Rotates clockwise about the centre."""
    turn = torch.deg2rad(degrees)
    cos, sin = turn.cos(), turn.sin()
    return warp(images, _matrices(cos, -sin, 0, sin, cos, 0, like=degrees))


def turned(images: Tensor, degrees: Tensor, shear: Tensor, scale: Tensor) -> Tensor:
    """Rotates, shears along the rows (also in degrees) and scales about the centre."""
    turn, slope = torch.deg2rad(degrees), torch.deg2rad(shear).tan()
    cos, sin = turn.cos() / scale, turn.sin() / scale
    entries = (cos - slope * sin, -sin - slope * cos, 0, sin, cos, 0)
    return warp(images, _matrices(*entries, like=degrees), "bilinear")


def _blend(images: Tensor, others: Tensor, factor: Tensor) -> Tensor:
    return torch.lerp(others, images, columns(factor)).clamp(0, 1)


def grey(images: Tensor) -> Tensor:
    """The luma of every pixel, (B, 1, H, W)."""
    return images if images.shape[1] == 1 else v2.rgb_to_grayscale(images)


def brightness(images: Tensor, factor: Tensor) -> Tensor:
    """Multiplies the values by a factor."""
    return (images * columns(factor)).clamp(0, 1)


def saturation(images: Tensor, factor: Tensor) -> Tensor:
    """Multiplies the difference from each pixel's luma."""
    return _blend(images, grey(images), factor)


def hue(images: Tensor, turn: Tensor) -> Tensor:
    """Rotates every pixel's hue (HSV) by a share of a full turn; grey images do not change."""
    if images.shape[1] != 3:
        return images
    red, green, blue = images.unbind(1)
    value, low = images.amax(1), images.amin(1)
    span = value - low
    divisor = torch.where(span > 0, span, 1.0)
    sixths = torch.where(  # where a pixel's hue lies on a circle of length 6
        value == red,
        (green - blue) / divisor,
        torch.where(value == green, 2 + (blue - red) / divisor, 4 + (red - green) / divisor),
    )
    sixths = sixths + 6 * turn[:, None, None]
    channels = []
    for place in (5, 3, 1):
        away = (place + sixths).remainder(6)
        channels.append(value - span * torch.minimum(away, 4 - away).clamp(0, 1))
    return torch.stack(channels, dim=1)


def contrast(images: Tensor, factor: Tensor) -> Tensor:
    """Multiplies the difference from the image's mean luma."""
    return _blend(images, grey(images).mean((1, 2, 3), keepdim=True), factor)


def sharpness(images: Tensor, factor: Tensor) -> Tensor:
    """Multiplies the difference from a smoothed image; the outermost pixels do not change."""
    if min(images.shape[2:]) < 3:
        return images
    kernel = torch.ones(3, 3, device=images.device)
    kernel[1, 1] = 5
    channels = images.shape[1]
    weights = (kernel / kernel.sum()).expand(channels, 1, 3, 3)
    smooth = images.clone()
    smooth[:, :, 1:-1, 1:-1] = F.conv2d(images, weights, groups=channels)
    return _blend(images, smooth, factor)


def posterize(images: Tensor, bits: Tensor) -> Tensor:
    """Rounds values down to this many bits."""
    levels = 2 ** columns(bits)
    return (images * levels).floor().minimum(levels - 1) / levels


def solarize(images: Tensor, threshold: Tensor) -> Tensor:
    """Inverts all pixels at or above a threshold."""
    return torch.where(images >= columns(threshold), 1 - images, images)


def autocontrast(images: Tensor) -> Tensor:
    """Stretches every channel to the range from 0 to 1; a constant channel does not change."""
    low, high = images.amin((2, 3), keepdim=True), images.amax((2, 3), keepdim=True)
    flat = low == high
    span = torch.where(flat, 1.0, high - low)
    return ((images - torch.where(flat, 0.0, low)) / span).clamp(0, 1)


def shuffle_channels(images: Tensor, draws: Draws, probability: float) -> Tensor:
    """Shuffles each image's channels with a given probability."""
    count, channels = images.shape[:2]
    order = draws.uniform((count, channels), 0, 1).argsort(1)
    chosen = draws.uniform((count, 1), 0, 1) < probability
    order = torch.where(chosen, order, torch.arange(channels, device=images.device))
    return images.gather(1, order[:, :, None, None].expand_as(images))
