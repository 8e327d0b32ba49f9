"""A perturbation learned at one size, applied to photos of any size.

A perturbation belongs to the region of a photo that remains after resizing and cropping it to the
learned size. It is enlarged to that region by bicubic interpolation, of which a later resize keeps
more than of bilinear. In the margins that the crop removes it continues mirrored: without a seam,
and as strong as inside, so that other crops of the photo contain it too.

As in the kinds, all arithmetic is on integers, or rounded alike everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..data.image import Images, Pixels, as_batch, pixels_of, to_pil
from .kinds.additive import Additive
from .kinds.base import Kind, RowRef
from .kinds.convolution import Convolution
from .kinds.pixel import Pixel
from .kinds.procedural import Procedural
from .kinds.stack import Stack, parts_of
from .visibility import FINE, VisibilityMask

_BITS = 11  # of a weight: 255 levels times two weights stay below 2^31
_ONE = 1 << _BITS
_AREA = 1 << 15  # pixels that are computed at once: they stay in the cache
_SHARPNESS = -0.5  # of the cubic, as Pillow's


def check_full_size(kind: Kind) -> None:
    """Raises ``ValueError`` for a kind that works only at the size at which it was learned.

    This is the case for overwritten pixels: each would become a visible block, and would lose its
    exact value as soon as resizing mixes it with its neighbours.
    """
    if any(isinstance(part, Pixel) for part in parts_of(kind)):
        raise ValueError(
            f"expected a perturbation that can be enlarged, got {kind.config['method']}, which "
            f"overwrites single pixels: enlarged to a photo's own size, they would be visible "
            f"blocks; write copies at the learned size, without full_size=True (--resize)"
        )


def apply_full_size(kind: Kind, images: Images, rows: Sequence[RowRef]) -> Images:
    """Perturbed uint8 pixels at the photos' own size, (B, 1 or 3, H, W).

    For Linf, no value changes by more than the budget. For L2, the strength per pixel is kept: the
    norm is at most ``epsilon * sqrt(H * W / (h * w))`` before rounding, where h and w are the
    learned size, for which the budget was given. A mask is computed from the photo itself and
    reduces each value accordingly. Shifts have no size and do not change.
    """
    if isinstance(kind, Stack):
        for part, own in zip(kind.parts, zip(*rows, strict=True), strict=True):
            images = apply_full_size(part, images, own)
        return images
    images = kind.prepare(images, full_size=True)
    if images.shape[2:] == kind.shape[1:] or not kind.sized:
        return kind.apply(images, list(rows))
    return as_batch([_apply(kind, *pair) for pair in zip(images, rows, strict=True)])


def _apply(kind: Kind, pixels: Pixels, row: RowRef) -> Pixels:
    if isinstance(kind, Convolution):
        return _convolve(kind, pixels, row)
    assert isinstance(kind, (Additive, Procedural))
    size = (pixels.shape[1], pixels.shape[2])
    enlarged = _Enlarged(kind.rows([row])[0], size, _region(kind.shape[1:], size))
    epsilon, norm = kind.config["epsilon"], kind.config["norm"]
    if norm == "L2":
        most = 255 * epsilon * math.sqrt(math.prod(size) / math.prod(kind.shape[1:]))
        scale = most / max(enlarged.norm(), 1e-12)
        return _add(pixels, enlarged, 127, scale=scale, mask=kind.mask)
    most = 127 if epsilon is None else math.floor(255 * epsilon + 1e-6)
    return _add(pixels, enlarged, most, mask=kind.mask)


def _convolve(kind: Convolution, pixels: Pixels, row: RowRef) -> Pixels:
    """Adds the enlarged change that the kernel makes to the whole photo at reduced size.

    So a photo that is resized to the learned size is convolved, and detail beyond that size is
    kept. The zeros of the convolution lie beyond the photo's border, not that of the crop.
    """
    size = (pixels.shape[1], pixels.shape[2])
    vertical, _ = _region(kind.shape[1:], size)
    side = [max(1, round(side * kind.shape[1] / vertical.span)) for side in size]
    small = pixels_of(to_pil(pixels).resize((side[1], side[0]), Image.Resampling.BICUBIC))
    change = kind.change(small[None], [row])[0].astype(np.int16) - small
    everywhere = (_Span(0, size[0]), _Span(0, size[1]))
    return _add(pixels, _Enlarged(change, size, everywhere), 255)


def _add(
    pixels: Pixels,
    enlarged: _Enlarged,
    limit: int,
    scale: float = 1,
    mask: VisibilityMask | None = None,
) -> Pixels:
    changed = np.empty_like(pixels)
    shown, unit = (None, 1) if mask is None else (mask.on(pixels[None]), FINE)
    for rows, values in enlarged.blocks():
        if scale < 1:
            levels = np.rint(values * (unit * scale / _ONE**2)).astype(np.int32)
        elif shown is None:
            levels = (values + _ONE**2 // 2) >> 2 * _BITS
        else:  # where all is shown, rounded just as without a mask
            levels = values >> (_ONE**2 // FINE).bit_length() - 1
        np.clip(levels, -limit * unit, limit * unit, out=levels)
        if shown is not None:
            levels = shown.change(levels[None], rows, unit)[0]
        changed[:, rows] = np.clip(pixels[:, rows] + levels, 0, 255)
    return changed


class _Span(NamedTuple):
    """Part of an axis, in pixels of the photo."""

    start: float
    span: float


def _region(learned: tuple[int, ...], size: tuple[int, int]) -> tuple[_Span, _Span]:
    """The rows and columns of a photo that remain after ``ResizeCrop``."""
    (h, w), (height, width) = learned, size
    if width * h >= height * w:
        spans = (float(height), height * w / h)
    else:
        spans = (width * h / w, float(width))
    rows, columns = (_Span((side - span) / 2, span) for side, span in zip(size, spans, strict=True))
    return rows, columns


def _cubic(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    a, d = _SHARPNESS, np.abs(distance)
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = (((d - 5) * d + 8) * d - 4) * a
    return np.where(d < 1, near, np.where(d < 2, far, 0.0))


def _taps(learned: int, side: int, at: _Span) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Indices of the learned values that each pixel of an axis is made of, and weights, (side, T).

    Weights are in multiples of 1 / _ONE and sum to one exactly. Where the photo is smaller than the
    learned size they average, as a resize with antialiasing does.
    """
    ratio = learned / at.span
    centre = (np.arange(side) + 0.5 - at.start) * ratio - 0.5
    width = max(ratio, 1.0)
    reach = math.ceil(2 * width)
    index = np.floor(centre).astype(np.int64)[:, None] + np.arange(1 - reach, reach + 1)
    weights = _cubic((index - centre[:, None]) / width)
    rounded = np.rint(weights / weights.sum(axis=1, keepdims=True) * _ONE).astype(np.int32)
    largest = rounded.argmax(axis=1)
    rounded[np.arange(side), largest] += _ONE - rounded.sum(axis=1)
    index %= 2 * learned
    return np.where(index < learned, index, 2 * learned - 1 - index), rounded


class _Enlarged:
    """Levels (C, h, w) at a photo's size, in multiples of 1 / _ONE², a block of rows at a time."""

    def __init__(
        self, levels: NDArray[np.integer], size: tuple[int, int], region: tuple[_Span, _Span]
    ) -> None:
        self._height, self._width = size
        self._index, self._weights = _taps(levels.shape[1], size[0], region[0])
        index, weights = _taps(levels.shape[2], size[1], region[1])
        self._rows: NDArray[np.int32] = np.zeros((*levels.shape[:2], size[1]), np.int32)
        for tap in range(index.shape[1]):
            self._rows += levels[:, :, index[:, tap]] * weights[:, tap]

    def blocks(self) -> Iterator[tuple[slice, NDArray[np.int32]]]:
        """Rows of the photo, and int32 values of them, (C, B, W)."""
        step = max(1, _AREA // self._width)
        for start in range(0, self._height, step):
            rows = slice(start, min(start + step, self._height))
            index, weights = self._index[rows], self._weights[rows]
            values = np.zeros((len(self._rows), len(index), self._width), np.int32)
            for tap in range(index.shape[1]):
                values += self._rows[:, index[:, tap]] * weights[:, tap, None]
            yield rows, values

    def norm(self) -> float:
        """L2 norm in levels."""
        # To 1/256 of a level, so that sums of squares are of integers: the same in any order.
        coarse = (values >> (2 * _BITS - 8) for _, values in self.blocks())
        return math.sqrt(sum(int(np.square(v, dtype=np.int64).sum()) for v in coarse)) / 256
