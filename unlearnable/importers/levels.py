"""Values of other programs' files: what they stand for, and as integer levels within the budget."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from ..perturbation.quantize import Levels, quantize
from ..perturbation.summary import format_epsilon

ROWS = 512  # converted at once
Deltas: TypeAlias = Iterator[NDArray[Any]]  # levels, (B, C, H, W): integers where exact, or floats
# Floats up to the one can only be in [0, 1] units, since as levels they would round to nothing;
# floats above the other can only be levels.
_UNIT, _LEVELS = 0.5, 1.0
_ALIKE = 0.9  # correlation with the images beyond that of any perturbation


def value_format(arrays: Sequence[NDArray[Any]], given: str | None) -> str:
    """Which of ``VALUE_FORMATS`` the values of all arrays have."""
    dtype = arrays[0].dtype
    if dtype.kind in "iu":
        usual = "images" if dtype == np.uint8 else "levels"
        if given == "unit" or (given not in (None, usual) and dtype.itemsize == 1):
            raise ValueError(f"expected {usual} in an array of {dtype.name}, got format={given!r}")
        return given or usual
    most = 0.0
    for array in arrays:
        for start in range(0, len(array), ROWS):
            part = array[start : start + ROWS]
            if not np.isfinite(part).all():
                raise ValueError(
                    f"expected finite numbers, got NaN or infinity in or after row {start}"
                )
            most = max(most, float(np.abs(part).max()))
    if given is None and _UNIT < most <= _LEVELS:
        raise ValueError(
            f'expected floats with a clear unit, got values up to {most:g}; pass format="levels", '
            f'"unit" or, for protected images, "images"'
        )
    return given or ("unit" if most <= _UNIT else "levels")


def check_not_images(rows: NDArray[Any], images: NDArray[Any]) -> None:
    """Raises ``ValueError`` for normalised images, whose values may be as small as a budget's."""
    if rows.dtype.kind != "f":
        return
    shape = (rows.shape[0] * rows.shape[1], -1)
    pairs = [array.reshape(shape).astype(np.float64) for array in (rows, images)]
    one, other = (array - array.mean(axis=1, keepdims=True) for array in pairs)
    sizes = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    alike = (one * other).sum(axis=1)[sizes > 0] / sizes[sizes > 0]
    if len(alike) and np.median(alike) > _ALIKE:
        raise ValueError(
            "expected perturbations, got values that follow the images themselves: they seem to "
            "be normalised images. Undo that (images * std + mean), save them with numpy.save and "
            'pass format="images"; pass format="levels" if they are perturbations'
        )


class _Sizes(NamedTuple):
    """Of each row, in levels."""

    norm: NDArray[np.float64]
    beyond: NDArray[np.bool_]  # whether it exceeds the budget
    far: NDArray[np.bool_]  # whether by more than rounding, or cutting decimals off, can add


def checked_rows(
    deltas: Deltas, shape: tuple[int, ...], epsilon: float, norm: str, values: str
) -> Levels:
    """int8 rows within the budget; otherwise a ``ValueError`` names the largest one beyond it.

    Integers that another program rounded beyond its budget are clipped to it, with a warning.
    """
    rows = np.empty(shape, np.int8)
    start, beyond, far, largest, place = 0, 0, 0, 0.0, 0
    for delta in deltas:
        sizes = _sizes(delta, epsilon, norm, values)
        beyond += int(sizes.beyond.sum())
        far += int(sizes.far.sum())
        if sizes.beyond.any():
            worst = int(np.where(sizes.beyond, sizes.norm, -1).argmax())
            if sizes.norm[worst] > largest:
                largest, place = float(sizes.norm[worst]), start + worst
        if not sizes.far.any():
            rows[start : start + len(delta)] = _levels(delta, epsilon, norm)
        start += len(delta)
    budget = f"{norm} {format_epsilon(epsilon, norm)}"
    if far:
        raise ValueError(
            f"expected rows within {budget}, got {beyond:,} of {len(rows):,} beyond it, the "
            f"largest {format_epsilon(largest / 255, norm)} in row {place}; "
            f"{_advice(largest, norm, values)}"
        )
    if beyond:
        warnings.warn(
            f"{beyond:,} of {len(rows):,} rows reach {format_epsilon(largest / 255, norm)}, at "
            f"most one level beyond {budget}, as happens when a program truncates decimals; they "
            f"were clipped to the budget. To keep them unchanged, pass {_fitting(largest, norm)}",
            stacklevel=3,
        )
    if not rows.any():
        raise ValueError("expected a perturbation, got rows that change nothing once rounded")
    return rows


def _levels(delta: NDArray[Any], epsilon: float, norm: str) -> Any:
    most = max(float(delta.max()), -float(delta.min()))
    if most >= 127.5:
        raise ValueError(f"expected changes up to 127 levels, got {most:g}")
    if delta.dtype.kind != "i":
        return quantize(torch.from_numpy(delta / 255), epsilon, norm)
    limit = math.floor(epsilon * 255 + 1e-6)
    return delta.clip(-limit, limit) if norm == "Linf" else delta


def _sizes(delta: NDArray[Any], epsilon: float, norm: str, values: str) -> _Sizes:
    flat = delta.reshape(len(delta), -1)
    exact = delta.dtype.kind == "i"
    # Where not exact, with the slack of bfloat16; what is within it is clipped to the budget.
    limit: Any = 255 * epsilon + (1e-6 if exact else 1e-3 + 255 * epsilon / 256)
    if norm == "Linf":
        # As floats before the sign is changed: the lowest integer has no opposite.
        above, below = flat.max(axis=1).astype(np.float64), -flat.min(axis=1).astype(np.float64)
        size = np.maximum(above, below)
        if not exact:
            return _Sizes(size, size > limit, size > limit)
        # Rounding adds half a level. Images without their decimals lose less than one.
        lost = 1.0 if values == "images" else 0.5
        return _Sizes(size, size > limit, (above > limit + 0.5) | (below > limit + lost))
    if exact:
        # Rounding adds up to half a level to each value, but in directions of its own.
        count = (flat != 0).sum(axis=1)
        limit = limit + np.minimum(np.sqrt(count) / 2, 2 + count / (8 * limit))
    size = np.linalg.norm(flat.astype(np.float64), axis=1)
    return _Sizes(size, size > limit, size > limit)


def _fitting(largest: float, norm: str) -> str:
    """The budget that fits, as an argument."""
    fits = f"{largest / 255 + 5e-5:.4f}" if norm == "L2" else format_epsilon(largest / 255, norm)
    return f"epsilon={fits} (--epsilon {fits})"


def _advice(largest: float, norm: str, values: str) -> str:
    advice = "pass the epsilon that they were made with"
    if norm == "L2" or largest <= 127:
        advice += f": {_fitting(largest, norm)} would fit"
    if norm == "Linf" and largest > 127 and values != "images":
        return 'pass format="images" if these are protected images, not what was added to them'
    if values == "images":
        advice += ", or pass the dataset that the images were made from, in the same order"
    return advice
