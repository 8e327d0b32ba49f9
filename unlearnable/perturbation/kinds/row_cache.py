"""Rows that were computed once, kept in a temporary file that nobody else can name."""

from __future__ import annotations

import contextlib
import io
import os
import struct
import tempfile
import weakref
import zlib
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ..quantize import Levels

_MOST = 1 << 30  # bytes of the file
_HEADER = struct.Struct("<QqI")  # key and class of a row, and a checksum of its bytes
_PLACES = 2  # where a row may be


class RowCache:
    """Caches rows by class and key in an open file shared by processes, such as a loader's workers.

    The file disappears with the last process. A row that is missing, was overwritten by another
    one, or is just being written, is computed again; so are all rows if the file cannot be created
    or written.

    Args:
        shape: Shape of a row, (C, H, W).
        compute: Function from classes, int64 (B,), and keys, uint64 (B,), to int8 rows (B, C, H,
            W).
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        compute: Callable[[NDArray[np.int64], NDArray[np.uint64]], Levels],
    ) -> None:
        self._shape, self._compute = shape, compute
        self._size = int(np.prod(shape))
        self._slots = _MOST // (_HEADER.size + self._size)
        self._file: io.FileIO | None = None
        if self._slots >= _PLACES and hasattr(os, "pread"):
            with contextlib.suppress(OSError):
                self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115
                weakref.finalize(self, self._file.close)

    def rows(self, labels: NDArray[np.int64], keys: NDArray[np.uint64]) -> Levels:
        """int8 rows for images of these classes and keys, (B, C, H, W)."""
        if self._file is None:
            return self._compute(labels, keys)
        rows = np.empty((len(keys), self._size), np.int8)
        wanted = list(zip(keys.tolist(), labels.tolist(), strict=True))
        missing: list[int] = []
        free: list[int] = []
        for place, (key, label) in enumerate(wanted):
            row, slot = self._find(key, label)
            if row is None:
                missing.append(place)
                free.append(slot)
            else:
                rows[place] = np.frombuffer(row, np.int8)
        if missing:
            rows[missing] = self._compute(labels[missing], keys[missing]).reshape(-1, self._size)
            for place, slot in zip(missing, free, strict=True):
                self._keep(slot, *wanted[place], rows[place].tobytes())
        return rows.reshape(-1, *self._shape)

    def _find(self, key: int, label: int) -> tuple[bytes | None, int]:
        """The row, or None and the slot where it may be kept."""
        record = _HEADER.size + self._size
        slots = [(key + n) % self._slots for n in range(_PLACES)]
        free = slots[key >> 32 & 1]  # both taken: one of them gives way
        for slot in slots:
            found = self._read(slot * record, record)
            if len(found) < record or not any(found[: _HEADER.size]):
                return None, slot
            row = found[_HEADER.size :]
            if _HEADER.unpack_from(found) == (key, label, zlib.crc32(row)):
                return row, slot
        return None, free

    def _read(self, offset: int, size: int) -> bytes:
        try:
            return b"" if self._file is None else os.pread(self._file.fileno(), size, offset)
        except OSError:
            return b""

    def _keep(self, slot: int, key: int, label: int, row: bytes) -> None:
        if self._file is None:
            return
        record = _HEADER.pack(key, label, zlib.crc32(row)) + row
        try:
            os.pwrite(self._file.fileno(), record, slot * len(record))
        except OSError:  # the disk is full: what is kept goes, too
            self._file.close()
            self._file = None
