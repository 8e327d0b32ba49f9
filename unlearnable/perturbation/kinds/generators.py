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
_LANES = np.arange(0, 64, 16, dtype=np.uint64)
_LANE = np.uint64(0xFFFF)
_CACHED = 1 << 15  # values that are worked on at once
_PRECISION = 20  # bits that a field is rounded to before its norm is taken


def _mix(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """A bijection of 64-bit words without pattern: the last step of SplitMix64 (Steele 2014)."""
    words = words + _STEP
    words = (words ^ (words >> _SHIFTS[0])) * _FACTORS[0]
    words = (words ^ (words >> _SHIFTS[1])) * _FACTORS[1]
    return words ^ (words >> _SHIFTS[2])


def normals(seed: int, labels: Labels, keys: Keys, count: int) -> NDArray[np.int64]:
    """Standard normal draws in multiples of 1 / UNIT, (B, count).

    Each is the centred sum of twelve 16-bit uniforms: variance 1, no value beyond 6, and no
    logarithm, whose last bit depends on the processor.
    """
    start = np.array([seed % (1 << 64)], np.uint64)
    start = _mix(keys.astype(np.uint64) + _mix(labels.astype(np.uint64) + _mix(start)))
    counter = np.arange(3 * count, dtype=np.uint64) * _STEP
    words = _mix(start[:, None] + counter)
    lanes = (words[..., None] >> _LANES) & _LANE  # (B, 3 * count, 4)
    return lanes.reshape(len(words), count, 12).sum(-1).astype(np.int64) - 6 * int(_LANE)


def levels(fields: Floats, epsilon: float) -> Levels:
    """Finite fields (B, C, H, W) of any scale as int8 pixel levels of the L2 norm ``epsilon``."""
    rows = np.empty(fields.shape, np.int8)
    step = max(1, _CACHED * len(fields) // max(1, fields.size))
    for start in range(0, len(fields), step):
        some, axes = fields[start : start + step], (1, 2, 3)
        largest = np.maximum(some.max(axes), -some.min(axes))
        if not np.isfinite(largest).all():
            raise ValueError("expected a process that stays finite, got one that explodes")
        exponent = np.frexp(largest)[1]
        scaled = np.ldexp(some, (_PRECISION - exponent)[:, None, None, None])
        np.rint(scaled, out=scaled)
        squares = scaled.astype(np.int64)
        np.square(squares, out=squares)
        total = squares.sum(axes)  # of integers: the same in any order
        factor = 255 * epsilon / np.sqrt(np.maximum(total, 1).astype(np.float64))
        scaled *= factor[:, None, None, None]
        np.rint(scaled, out=scaled)
        rows[start : start + step] = np.clip(scaled, -127, 127, out=scaled)
    return rows


def autoregress(coefficients: Floats, start: Floats) -> Floats:
    """Fields (N, H, W) whose every value is the weighted sum of the 3x3 window that ends there.

    ``coefficients`` are (N, 3, 3), of which the last of a window is not used, nor more than the
    first two rows and columns of ``start``, (N, H, W). Values of one diagonal depend only on
    earlier diagonals, and are computed at once.
    """
    number, height, width = start.shape
    # skewed[t, n, i] is field n at row i and column t - i: a diagonal is a row.
    skewed = np.zeros((height + width - 1, number, height))
    by_time, by_field, by_row = skewed.strides
    field = np.lib.stride_tricks.as_strided(
        skewed, (number, height, width), (by_field, by_time + by_row, by_time)
    )
    field[...] = start
    field[:, 2:, 2:] = 0
    lags = coefficients[:, ::-1, ::-1].transpose(1, 2, 0)[..., None].copy()  # [a, b]: a up, b left
    lags[0, 0] = 0
    for time in range(4, height + width - 1):
        low, high = max(2, time - width + 1), min(height - 1, time - 2)
        diagonal = skewed[time, :, low : high + 1]
        window = np.lib.stride_tricks.as_strided(
            diagonal, (3, 3, *diagonal.shape), (-by_time - by_row, -by_time, by_field, by_row)
        )
        terms = window * lags
        columns = terms[0] + terms[1] + terms[2]
        diagonal[...] = columns[0] + columns[1] + columns[2]
    return field.copy()


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
    """Cells of an image: channels, rows, columns; the last ones may be cut off."""
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


class Generator(NamedTuple):
    """An algorithm that computes rows: shapes of its int64 tensors, and fields (B, C, H, W)."""

    shapes: Callable[[Settings, int, Shape], TensorShapes]
    fields: Callable[[Arrays, Settings, Shape, Labels, Keys], Floats]


GENERATORS = {
    "ar-1": Generator(
        lambda _, num_classes, shape: {"coefficients": (num_classes, shape[0], 3, 3)}, _ar_fields
    ),
    "lsp-1": Generator(_lsp_shapes, _lsp_fields),
}
