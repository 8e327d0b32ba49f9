"""int8 rows that lie in several arrays, read as one without being copied together."""

from __future__ import annotations

import operator
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

Int8Rows = NDArray[np.int8]


class JoinedRows:
    """The int8 rows of several arrays, one array after the other.

    An integer index gives a view of that row; a slice or an array of integers or booleans copies
    only those rows. ``np.asarray(rows)`` copies all of them into memory.

    Args:
        parts: int8 arrays (N, C, H, W) that differ only in N, or rows that are already joined.

    Attributes:
        parts: The arrays.
        shape: Shape of all rows together, (N, C, H, W).
        dtype: int8.

    Raises:
        ValueError: The shapes differ.
    """

    dtype = np.dtype(np.int8)
    ndim = 4

    def __init__(self, parts: Sequence[Int8Rows | JoinedRows]) -> None:
        flat: list[Int8Rows] = []
        for part in parts:
            flat += arrays_of(part)
        shapes = {part.shape[1:] for part in flat}
        if len(shapes) != 1 or any(part.ndim != 4 or part.dtype != np.int8 for part in flat):
            raise ValueError(
                f"expected int8 rows of one shape (N, C, H, W), got "
                f"{', '.join(f'{part.dtype} {part.shape}' for part in flat) or 'none'}"
            )
        self.parts: list[Int8Rows] = flat
        self._starts = [0, *accumulate(len(part) for part in flat)]
        self.shape: tuple[int, ...] = (self._starts[-1], *shapes.pop())

    @property
    def nbytes(self) -> int:
        """Size of all rows in bytes."""
        return sum(part.nbytes for part in self.parts)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> Int8Rows:
        if isinstance(index, (bool, tuple)):
            raise IndexError(f"expected an integer, a slice or an array of rows, got {index!r:.60}")
        try:
            number = operator.index(index)
        except TypeError:
            return self._gather(self._numbers(index))
        if not -len(self) <= number < len(self):
            raise IndexError(f"expected a row below {len(self)}, got {number}")
        number %= len(self)
        part = bisect_right(self._starts, number) - 1
        return self.parts[part][number - self._starts[part]]

    def _numbers(self, index: Any) -> NDArray[np.int64]:
        """The numbers of the rows that a slice, or an array of integers or booleans, selects."""
        count = len(self)
        numbers = np.asarray(index) if isinstance(index, (list, np.ndarray)) else None
        if numbers is None or numbers.dtype.kind not in "iu" or not numbers.size:
            return np.arange(count)[index]
        if numbers.min() < -count or numbers.max() >= count:
            raise IndexError(f"expected rows below {count}, got {index}")
        return np.where(numbers < 0, numbers + count, numbers)

    def _gather(self, numbers: NDArray[np.int64]) -> Int8Rows:
        if numbers.size == 1:  # the usual case needs no search
            return self[numbers.item()].copy().reshape(*numbers.shape, *self.shape[1:])
        rows = np.empty((*numbers.shape, *self.shape[1:]), np.int8)
        owners = np.searchsorted(self._starts, numbers, "right") - 1
        for part in np.unique(owners).tolist():
            here = owners == part
            rows[here] = self.parts[part][numbers[here] - self._starts[part]]
        return rows

    def between(self, first: int, end: int) -> JoinedRows:
        """Views of the rows from ``first`` up to, but not including, ``end``."""
        return JoinedRows(
            [
                part[max(first - start, 0) : max(end - start, 0)]
                for part, start in zip(self.parts, self._starts, strict=False)
            ]
        )

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False:
            raise ValueError(
                "expected rows that may be copied, because they are spread over several "
                "arrays; pass copy=None or True"
            )
        return self[:].astype(self.dtype if dtype is None else dtype, copy=False)


def arrays_of(array: NDArray[Any] | JoinedRows) -> list[NDArray[Any]]:
    """The arrays that hold the rows; for a plain array, the array itself."""
    return array.parts if isinstance(array, JoinedRows) else [array]
