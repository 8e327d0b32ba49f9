"""Visibility masks: how much of a row each pixel shows, so that the image looks as before.

A mask is a threshold of just noticeable differences, computed from the image that a row is added
to: smooth areas get little of the row, texture more, and no pixel more than all of it.

``"jnd-1"`` is the model of Chou & Li (IEEE Trans. CSVT 5(6), 1995): of the thresholds of luminance
adaptation and of texture masking, whose background and gradients are theirs, the larger one. It
differs in three points. Large photos are seen at a reduced size, about as a screen shows them,
since sensor noise would pass for texture. A gradient counts as far as there are such on four sides:
next to a lone edge one sees more than in texture. And by luminance alone the threshold rises from
three levels in middle grey to no more than four: on today's screens those of sRGB are seen about
equally well from dark to bright.

All arithmetic is on integers: weights are the same bytes in every version and on every machine. A
mask never changes; another algorithm gets another name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.image import Images
from .quantize import Levels

VISIBILITIES = ("low", "medium", "high", "full")
MASK = "jnd-1"
ONE = 256  # the weight of a pixel that shows all of its row; none is below 1
FINE = 256  # parts of a level, in which rows that were enlarged are given
Ints = NDArray[np.int32]
# Sixteenths of the thresholds by luminance and by texture that a row of 8/255 may reach.
_SHARES = {"low": (5, 48), "medium": (8, 96), "high": (16, 192)}
_FULL_ROW = 8  # levels
_SEEN = 19  # bits of the number of pixels of a photo as it is seen
_CACHED = 1 << 17  # pixels that are worked on at once
_PART = 16  # parts of a level in luminance, gradients and thresholds
_MOST = 4 * _PART  # threshold by luminance
# 17 * (1 - sqrt(background / 127)) + 3 up to 127, 3 / 128 * (background - 127) + 3 above.
_LUMINANCE = np.array(
    [
        20 * _PART - math.isqrt((17 * _PART) ** 2 * level // 127)
        if level <= 127
        else 3 * _PART + 3 * _PART * (level - 127) // 128
        for level in range(256)
    ],
    np.int32,
).clip(max=_MOST)
_DIAGONAL = ((-2, 0, 1), (-1, -1, 8), (-1, 0, 3), (0, -2, 1), (0, -1, 3))  # row, column, weight


def check_visibility(visibility: str | None) -> str | None:
    """A level with a mask; None for ``"full"`` and None, which have no mask."""
    if visibility is not None and visibility not in VISIBILITIES:
        raise ValueError(
            f"expected visibility to be one of {VISIBILITIES} or None, got {visibility!r}"
        )
    return None if visibility == "full" else visibility


def with_mask(config: Mapping[str, Any], visibility: str | None) -> dict[str, Any]:
    """A config with the mask of a level, or without one; see :func:`check_visibility`."""
    level = check_visibility(visibility)
    bare = {name: value for name, value in config.items() if name != "visibility"}
    return bare if level is None else bare | {"visibility": {"level": level, "mask": MASK}}


class VisibilityMask:
    """The visibility mask of a level.

    Args:
        level: ``"low"``, ``"medium"`` or ``"high"``.
    """

    def __init__(self, level: str) -> None:
        self.level = level
        self._shares = _SHARES[level]

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> VisibilityMask | None:
        """The mask in an artefact's config, or None."""
        stated = config.get("visibility")
        if stated is None:
            return None
        known = isinstance(stated, dict) and stated.keys() == {"level", "mask"}
        if not known or stated["mask"] != MASK or stated["level"] not in [*_SHARES]:
            raise ValueError(
                f"expected visibility with mask {MASK!r} and one of the levels {[*_SHARES]}, got "
                f"{stated!r:.80}; a newer release of unlearnable may have it"
            )
        return cls(stated["level"])

    def __str__(self) -> str:
        return f"{self.level} ({MASK})"

    def on(self, images: Images) -> Shown:
        """Computes the mask for images, uint8 (B, 1 or 3, H, W)."""
        return Shown(images, self._shares)

    def lower(self, images: Images, levels: Levels) -> Levels:
        """Lowers rows, int8 (B, …), to what is added to images (B, C, H, W)."""
        shown = self.on(images)
        everywhere = slice(0, images.shape[2])
        return shown.change(levels.astype(np.int32), everywhere).astype(np.int8)


class Shown:
    """The mask for particular images, computed for a stripe of pixel rows at a time.

    Attributes:
        grey: Which images have three equal channels, bool (B,); these stay equal.
    """

    def __init__(self, images: Images, shares: tuple[int, int]) -> None:
        count, _, height, width = images.shape
        self._width = width
        self._step = max(1, math.isqrt((height * width) >> _SEEN))
        batch = max(1, _CACHED // (height * width))
        parts = (images[first : first + batch] for first in range(0, max(1, count), batch))
        seen = [_weights(shares, *_masking(_luminance(part, self._step))) for part in parts]
        self._seen = np.concatenate(seen)
        self.grey = are_grey(images)

    def weights(self, rows: slice) -> Ints:
        """Weights of some rows of pixels in multiples of 1 / ONE, from 1 to ONE, (B, rows, W)."""
        found = self._seen[:, np.arange(rows.start, rows.stop) // self._step]
        return found.repeat(self._step, axis=2)[:, :, : self._width].astype(np.int32)

    def change(self, levels: Ints, rows: slice, unit: int = 1) -> Ints:
        """The change of rows of pixels, in levels, with halves rounded up.

        Args:
            levels: Levels of the perturbation in multiples of 1 / ``unit``, (B, C, rows, W).
            rows: The rows of the images that they belong to.
            unit: 1, or FINE.
        """
        weights = self.weights(rows)[:, None]
        changes = _rounded(levels * weights, ONE * unit)
        if levels.shape[1] == 3:
            for place in np.flatnonzero(self.grey):
                total = levels[place].sum(axis=0, dtype=np.int32)
                changes[place] = _rounded(total * weights[place], 3 * ONE * unit)
        return changes


def _rounded(values: Ints, divisor: int) -> Ints:
    values += divisor // 2
    if divisor & (divisor - 1):
        return values // divisor
    values >>= divisor.bit_length() - 1
    return values


def are_grey(images: Images) -> NDArray[np.bool_]:
    """Which images (B, C, H, W) have three equal channels, bool (B,)."""
    count, channels, height, width = images.shape
    found = np.full(count, channels == 3)
    rows = max(1, _CACHED // max(1, count * width))
    for top in range(0, height, rows):
        if not found.any():
            break
        part = images[:, :, top : top + rows]
        found &= (part[:, 1:] == part[:, :1]).all(axis=(1, 2, 3))
    return found


def _luminance(images: Images, step: int) -> Ints:
    """Means over squares of ``step`` pixels of the luminance, in parts of a level, (B, h, w)."""
    shares = (77, 150, 29) if images.shape[1] == 3 else (ONE,)  # of 256: ITU-R BT.601
    if step == 1:
        planes = [images[:, c].astype(np.int32) * share for c, share in enumerate(shares)]
        return sum(planes[1:], planes[0]) // (ONE // _PART)
    height, width = images.shape[2:]
    tops, lefts = np.arange(0, height, step), np.arange(0, width, step)
    total = np.zeros((len(images), len(tops), len(lefts)), np.int32)
    for place, top in enumerate(tops.tolist()):
        rows = images[:, :, top : top + step].sum(axis=2, dtype=np.int32)
        squares = np.add.reduceat(rows, lefts, axis=2)
        for channel, share in enumerate(shares):
            total[:, place] += share * squares[:, channel]
    pixels = np.minimum(step, height - tops)[:, None] * np.minimum(step, width - lefts)
    return (total // (ONE // _PART * pixels)).astype(np.int32)


def _padded(values: Ints, by: int) -> Ints:
    return np.pad(values, ((0, 0), (by, by), (by, by)), "edge")


def _sums(values: Ints, size: int) -> Ints:
    """Sums over each square of ``size`` values, (B, h - size + 1, w - size + 1)."""
    height, width = (side - size + 1 for side in values.shape[1:])
    rows = sum((values[:, k : k + height] for k in range(1, size)), values[:, :height])
    return sum((rows[:, :, k : k + width] for k in range(1, size)), rows[:, :, :width])


def _masking(luminance: Ints) -> tuple[Ints, Ints]:
    """The background in levels, and the gradient around each pixel in parts of one, (B, h, w)."""
    around = _padded(luminance, 2)
    inner = around[:, 1:-1, 1:-1]
    background = (_sums(around, 5) + _sums(inner, 3) - 2 * luminance) // (32 * _PART)
    spread = _sums(_padded(_gradients(around), 1), 3) // 9
    height, width = spread.shape[1:]
    far = _padded(spread, 3)
    rows, columns = far[:, 3 : 3 + height], far[:, :, 3 : 3 + width]
    sides = (rows[:, :, :width], rows[:, :, 6:], columns[:, :height], columns[:, 6:])
    least = np.minimum(sides[0], sides[1])
    for side in sides[2:]:
        np.minimum(least, side, out=least)
    return background, least


def _gradients(around: Ints) -> Ints:
    """The largest of four directional gradients of each pixel, of pixels with two more around."""
    height, width = (side - 4 for side in around.shape[1:])

    def at(row: int, column: int) -> Ints:
        return around[:, 2 + row : 2 + row + height, 2 + column : 2 + column + width]

    def smoothed(values: Ints) -> Ints:
        """Along the last axis."""
        ends, near = values[..., :-4] + values[..., 4:], values[..., 1:-3] + values[..., 3:-1]
        return ends + 3 * near + 8 * values[..., 2:-2]

    across = smoothed(around)
    largest = np.abs(across[:, 1:-3] - across[:, 3:-1])
    down = smoothed(around.swapaxes(1, 2)).swapaxes(1, 2)
    np.maximum(largest, np.abs(down[:, :, 1:-3] - down[:, :, 3:-1]), out=largest)
    for mirror in (1, -1):
        slope = np.zeros_like(largest)
        for row, column, weight in _DIAGONAL:
            slope += weight * (at(row, mirror * column) - at(-row, -mirror * column))
        np.maximum(largest, np.abs(slope, out=slope), out=largest)
    return largest // 16


def _weights(shares: tuple[int, int], background: Ints, gradient: Ints) -> NDArray[np.int16]:
    """Weights from what :func:`_masking` gives, (B, h, w)."""
    # gradient * (0.0001 * background + 0.115) + 0.5 - 0.01 * background, of which the share is one
    # of the product; in sixteenths of parts of a level.
    product, rest = gradient * (background + 1150), 16 * _PART * (5000 - 100 * background)
    texture = (shares[1] * product + rest) // 10000
    largest = np.maximum(shares[0] * _LUMINANCE[background], texture)
    return np.clip(largest * ONE // (16 * _PART * _FULL_ROW), 1, ONE).astype(np.int16)
