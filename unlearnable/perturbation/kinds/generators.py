"""Rows that are computed instead of stored: from a seed, a class and an image's key.

Only integers, and elementwise additions, products and square roots in float64, are used: they are
rounded alike everywhere, so rows are the same bytes in every version and on every machine. A
generator never changes; another algorithm gets another name.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..quantize import UNIT, Levels

TURN = 1 << 20  # parts of a turn that phases are counted in
MARGIN = 4  # rows and columns of an autoregressive field that are dropped with its start
Floats = NDArray[np.float64]
Labels = NDArray[np.int64]
Keys = NDArray[np.uint64]
Arrays = Mapping[str, NDArray[Any]]
Settings = Mapping[str, Any]
Shape = tuple[int, int, int]  # (C, H, W)
TensorShapes = dict[str, tuple[int, ...]]
_STEP = np.uint64(0x9E3779B97F4A7C15)
_FACTORS = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
_SHIFTS = (np.uint64(30), np.uint64(27), np.uint64(31))
_LANE = np.uint64(0xFFFF)  # 16 bits
_LANES = np.uint64(0x0000FFFF0000FFFF)  # every other 16 bits of a word
_LANE_BITS, _HALF_BITS, _HALF = np.uint64(16), np.uint64(32), np.uint64(0xFFFFFFFF)
_CACHED = 1 << 15  # values that are worked on at once
_FIELDS = 1 << 14  # rows of fields that are computed at once
_PRECISION = 20  # bits that a field is rounded to before its norm is taken


def _mix(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """A bijection of 64-bit words without pattern: the last step of SplitMix64 (Steele 2014)."""
    words = words + _STEP
    shifted = words >> _SHIFTS[0]
    for shift, factor in zip(_SHIFTS[1:], _FACTORS, strict=True):
        words ^= shifted
        words *= factor
        np.right_shift(words, shift, out=shifted)
    words ^= shifted
    return words


def normals(seed: int, labels: Labels, keys: Keys, count: int) -> NDArray[np.int64]:
    """Standard normal draws in multiples of 1 / UNIT, (B, count).

    Each is the centred sum of twelve 16-bit uniforms: variance 1, no value beyond 6, and no
    logarithm, because its last bit depends on the processor.
    """
    start = np.array([seed % (1 << 64)], np.uint64)
    start = _mix(keys.astype(np.uint64) + _mix(labels.astype(np.uint64) + _mix(start)))
    counter = np.arange(3 * count, dtype=np.uint64) * _STEP
    words = _mix(start[:, None] + counter)
    # Four 16-bit lanes of a word are two 32-bit sums, and those of three words are added at once.
    pairs = (words & _LANES) + ((words >> _LANE_BITS) & _LANES)
    pairs = pairs.reshape(len(words), count, 3)
    pairs = pairs[..., 0] + pairs[..., 1] + pairs[..., 2]
    total = (pairs & _HALF) + (pairs >> _HALF_BITS)
    return total.astype(np.int64) - 6 * int(_LANE)


def levels(fields: Floats, epsilon: float) -> Levels:
    """Scales finite fields (B, C, H, W) to int8 pixel levels with L2 norm ``epsilon``."""
    rows = np.empty((len(fields), math.prod(fields.shape[1:])), np.int8)
    step = max(1, _CACHED // max(1, rows.shape[1]))
    for start in range(0, len(fields), step):
        some = fields[start : start + step].reshape(-1, rows.shape[1])
        largest = np.maximum(some.max(1), -some.min(1))
        if not np.isfinite(largest).all():
            raise ValueError("expected a process that stays finite, got one that explodes")
        power = _PRECISION - np.frexp(largest)[1]
        # In two exact factors, each within the range of float64 whatever the power.
        scaled = some * np.ldexp(1.0, power // 2)[:, None]
        scaled *= np.ldexp(1.0, power - power // 2)[:, None]
        np.rint(scaled, out=scaled)
        squares = scaled.astype(np.int64)
        total = np.einsum("bi,bi->b", squares, squares)  # of integers: the same in any order
        scaled *= (255 * epsilon / np.sqrt(np.maximum(total, 1).astype(np.float64)))[:, None]
        np.rint(scaled, out=scaled)
        rows[start : start + step] = np.clip(scaled, -127, 127, out=scaled)
    return rows.reshape(fields.shape)


def autoregress(coefficients: Floats, start: Floats) -> Floats:
    """Fields (N, H, W) in which every value is the weighted sum of the 3x3 window that ends there.

    ``coefficients`` are (N, 3, 3); the last one of a window is not used. Of ``start``, (N, H, W),
    only the first two rows and columns are used.
    """
    fields = np.empty(start.shape)
    step = max(1, _FIELDS // max(1, start.shape[1]))
    for first in range(0, len(start), step):
        some = slice(first, first + step)
        fields[some] = _autoregress(coefficients[some], start[some])
    return fields


def _autoregress(coefficients: Floats, start: Floats) -> Floats:
    """The same. Values of one diagonal depend only on earlier ones, and are computed at once."""
    number, height, width = start.shape
    # skewed[t, i, n] is field n at row i and column t - i: a diagonal is a plane, and any run of
    # its rows lies in one piece.
    skewed = np.zeros((height + width - 1, height, number))
    by_time, by_row, by_field = skewed.strides
    field = np.lib.stride_tricks.as_strided(
        skewed, (number, height, width), (by_field, by_time + by_row, by_time)
    )
    field[:, :2] = start[:, :2]
    field[:, 2:, :2] = start[:, 2:, :2]
    lags = coefficients[:, ::-1, ::-1].transpose(1, 2, 0)  # [a, b]: a up, b left
    lags = np.repeat(lags[:, :, None], height, axis=2).reshape(3, 3, -1)
    lags[0, 0] = 0
    terms = np.empty_like(lags)
    for time in range(4, height + width - 1):
        low, high = max(2, time - width + 1), min(height - 1, time - 2)
        size = (high + 1 - low) * number
        at = time * by_time + low * by_row
        diagonal = np.ndarray(size, np.float64, skewed, at)
        window = np.ndarray(
            (3, 3, size), np.float64, skewed, at, (-by_time - by_row, -by_time, by_field)
        )
        some = terms[:, :, :size]
        np.multiply(window, lags[:, :, :size], out=some)
        columns = some[0]
        columns += some[1]
        columns += some[2]
        np.add(columns[0], columns[1], out=diagonal)
        diagonal += columns[2]
    return field


def starts(seed: int, labels: Labels, keys: Keys, shape: Shape) -> Floats:
    """Normal first two rows and columns of fields, (B, C, H + MARGIN, W + MARGIN)."""
    channels, height, width = shape[0], shape[1] + MARGIN, shape[2] + MARGIN
    drawn = normals(seed, labels, keys, channels * 2 * (height + width)) / UNIT
    parts = np.split(drawn.reshape(len(labels), channels, -1), [2 * width], axis=2)
    start = np.zeros((len(labels), channels, height, width))
    start[:, :, :2] = parts[0].reshape(len(labels), channels, 2, width)
    start[:, :, 2:, :2] = parts[1].reshape(len(labels), channels, height, 2)[:, :, 2:]
    return start


def _ar_fields(
    tensors: Arrays, settings: Settings, shape: Shape, labels: Labels, keys: Keys
) -> Floats:
    start = starts(settings["seed"], labels, keys, shape)
    coefficients = (tensors["coefficients"][labels] / UNIT).reshape(-1, 3, 3)
    with np.errstate(over="ignore", invalid="ignore"):  # found in levels()
        fields = autoregress(coefficients, start.reshape(-1, *start.shape[2:]))
    return fields.reshape(start.shape)[:, :, MARGIN:, MARGIN:]


def grid_shape(cell: int, shape: Shape) -> Shape:
    """Number of cells of an image: channels, rows, columns; the last ones may be smaller."""
    return shape[0], math.ceil(shape[1] / cell), math.ceil(shape[2] / cell)


def _lsp_fields(
    tensors: Arrays, settings: Settings, shape: Shape, labels: Labels, keys: Keys
) -> Floats:
    centres, mixing = tensors["centres"][labels], tensors["mixing"][labels]
    drawn = normals(settings["seed"], labels, keys, centres.shape[1])
    mixed = (drawn[:, None] @ mixing)[:, 0]  # int64: exact, in multiples of 1 / UNIT^2
    values = (mixed + centres * UNIT).reshape(-1, *grid_shape(settings["cell"], shape))
    cells = values.astype(np.float64).repeat(settings["cell"], 2).repeat(settings["cell"], 3)
    return cells[:, :, : shape[1], : shape[2]]


def _lsp_shapes(settings: Settings, num_classes: int, shape: Shape) -> TensorShapes:
    cell = settings["cell"]
    if isinstance(cell, bool) or not isinstance(cell, int) or not 1 <= cell <= 1 << 14:
        raise ValueError(f"expected a cell of 1 to 16,384 pixels, got {cell!r}")
    features = math.prod(grid_shape(cell, shape))
    return {"centres": (num_classes, features), "mixing": (num_classes, features, features)}


def _grating_fields(
    tensors: Arrays, settings: Settings, shape: Shape, labels: Labels, keys: Keys
) -> Floats:
    """Products of two square waves, down and right, the same in all channels: 1 or -1."""
    drawn = normals(settings["seed"], labels, keys, 2)
    starts = (drawn & 0xFFFF) * (TURN >> 16)  # the low bits of a sum of uniforms are uniform
    field = np.ones((len(labels), 1, 1, 1))
    for axis, side in enumerate(shape[1:]):
        places = np.arange(side, dtype=np.int64)
        steps = tensors["steps"][labels, axis, None]
        phases = (starts[:, axis, None] + steps * places) % TURN
        waves = np.where(phases < TURN // 2, 1.0, -1.0)
        field = field * (waves[:, None, :, None] if axis == 0 else waves[:, None, None, :])
    return np.broadcast_to(field, (len(labels), *shape))


class Generator(NamedTuple):
    """An algorithm that computes rows: shapes of its int64 tensors, and fields (B, C, H, W)."""

    shapes: Callable[[Settings, int, Shape], TensorShapes]
    fields: Callable[[Arrays, Settings, Shape, Labels, Keys], Floats]


GENERATORS = {
    "ar-1": Generator(
        lambda _, num_classes, shape: {"coefficients": (num_classes, shape[0], 3, 3)}, _ar_fields
    ),
    "gratings-1": Generator(
        lambda _, num_classes, shape: {"steps": (num_classes, 2)}, _grating_fields
    ),
    "lsp-1": Generator(_lsp_shapes, _lsp_fields),
}
