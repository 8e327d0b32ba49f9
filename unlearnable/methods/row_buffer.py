"""Rows while they are learned: in memory, or in a file that follows checkpoints."""

from __future__ import annotations

import math
import os
import struct
import warnings
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..io.mapped import map_file
from ..perturbation.quantize import Levels, not_finite, quantize

# Else Windows writes two bytes for each that is a line feed, as a level of 10 is.
_BINARY = getattr(os, "O_BINARY", 0)
_CHUNK = 256  # rows that are read at once
_RECORD = struct.Struct("<QI")  # a journal record: row number, CRC-32 of the bytes that follow


def _write(file: int, data: bytes, offset: int | None = None) -> None:
    """All of the data, at an offset or at the end."""
    if offset is not None and not hasattr(os, "pwrite"):
        os.lseek(file, offset, os.SEEK_SET)
        offset = None
    while data:  # a disk that is nearly full takes a part, and says so at the next write
        done = os.write(file, data) if offset is None else os.pwrite(file, data, offset)
        data, offset = data[done:], None if offset is None else offset + done


class RowFile:
    """int8 rows (N, C, H, W) in a file that can be rolled back to a checkpoint.

    Rows are read through a memory map but written to the file: on a full disk, that raises an
    error, whereas a write through the map would kill the process. With a journal, a row's old bytes
    are recorded before it is first overwritten, so that a killed run can restore its checkpoint's
    rows.

    Unless it exists, the file is created in its final size, filled with zeros. Several processes,
    each with its own ``rank``, may write different rows.

    Raises:
        OSError: There is not enough space for the file.
    """

    def __init__(self, path: Path, shape: tuple[int, ...], *, rank: int = 0) -> None:
        self._path = path
        self._row_bytes = math.prod(shape[1:])
        size = shape[0] * self._row_bytes
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | _BINARY, 0o644)
        try:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(self._file, 0, size)
            else:
                os.truncate(self._file, size)
        except OSError as error:
            os.close(self._file)
            raise OSError(
                error.errno,
                f"not enough space for {size:,} bytes of rows: {error.strerror}",
                str(path),
            ) from error
        self._rank = rank
        self._journal: int | None = None
        self._noted = np.zeros(shape[0], dtype=bool)
        self.rows: Levels = map_file(path, np.int8, "r", shape)

    def write(self, index: NDArray[np.int64], levels: Levels) -> None:
        """Replaces rows; ``levels`` is (B, C, H, W)."""
        if self._journal is not None:
            fresh = index[~self._noted[index]]
            old = ((row, self.rows[row].tobytes()) for row in fresh.tolist())
            records = (_RECORD.pack(row, zlib.crc32(data)) + data for row, data in old)
            _write(self._journal, b"".join(records))
            self._noted[fresh] = True
        for row, content in zip(index.tolist(), levels, strict=True):
            _write(self._file, content.tobytes(), row * self._row_bytes)

    def sync(self) -> None:
        """Flushes rows and journal to disk."""
        for file in (self._journal, self._file):
            if file is not None:
                os.fsync(file)

    def start_journal(self, number: int) -> None:
        """Starts a journal, so that the current rows can be restored as those of a checkpoint.

        Journals of earlier checkpoints are no longer needed and are removed.
        """
        self._close_journal()
        self._noted[:] = False
        for old in self._journals(rank=self._rank):
            old.unlink()
        path = self._path.with_name(f"{self._path.name}.journal-{number}-{self._rank}")
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | _BINARY
        self._journal = os.open(path, flags, 0o644)

    def roll_back(self, number: int) -> None:
        """Restores the rows of checkpoint ``number``, whichever process wrote them."""
        for journal in self._journals(number):
            self._restore(journal)
        for journal in self._journals():
            journal.unlink()
        self.sync()

    def _restore(self, journal: Path) -> None:
        with journal.open("rb") as file:
            while len(head := file.read(_RECORD.size)) == _RECORD.size:
                row, checksum = _RECORD.unpack(head)
                content = file.read(self._row_bytes)
                # A half-written record is the last one, and its row was not overwritten yet.
                if zlib.crc32(content) != checksum or row >= len(self.rows):
                    return
                _write(self._file, content, row * self._row_bytes)

    def _journals(self, number: int | str = "*", rank: int | str = "*") -> list[Path]:
        return list(self._path.parent.glob(f"{self._path.name}.journal-{number}-{rank}"))

    def _close_journal(self) -> None:
        if self._journal is not None:
            os.close(self._journal)
            self._journal = None

    def close(self) -> None:
        """Closes the file; what was taken from :attr:`rows` can still be read."""
        self._close_journal()
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        self.rows = np.empty((0, *self.rows.shape[1:]), np.int8)


class RowBuffer:
    """Rows as a method sees them: float in [0, 1] units by image index, stored as integer levels.

    They are read and written on ``device``. ``resident`` rows are held there, and a ``file`` is
    written only in :meth:`flush`; otherwise every read and write goes to the file. ``shape`` is (N,
    C, H, W); ``written``, bool of shape (N,), says which rows were written.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        epsilon: float,
        norm: str,
        device: torch.device,
        *,
        file: RowFile | None = None,
        resident: bool = True,
    ) -> None:
        self._epsilon = epsilon
        self._norm = norm
        self._device = device
        self._file = file
        self.written = torch.zeros(shape[0], dtype=torch.bool, device=device)
        self._broken = torch.zeros((), dtype=torch.int64, device=device)
        self._levels: Tensor | None = None
        if resident:
            self._levels = torch.zeros(shape, dtype=torch.int8, device=device)
            self._dirty = torch.zeros(shape[0], dtype=torch.bool, device=device)
        elif file is None:
            raise ValueError("expected a file for rows that are not held in memory")

    def __getitem__(self, index: Tensor) -> Tensor:
        if self._levels is not None:
            return self._levels[index].float() / 255
        assert self._file is not None
        levels = torch.from_numpy(self._file.rows[index.cpu().numpy()])
        return levels.to(self._device).float() / 255

    def __setitem__(self, index: Tensor, delta: Tensor) -> None:
        self._broken += (~delta.isfinite()).flatten(1).any(1).sum()
        levels = quantize(delta, self._epsilon, self._norm)
        if self._levels is not None:
            self._levels[index] = levels
            self._dirty[index] = True
        else:
            assert self._file is not None
            self._file.write(index.cpu().numpy(), levels.cpu().numpy())
        self.written[index] = True

    def flush(self) -> None:
        """Flushes all rows to disk; raises ``ValueError`` if some were not finite."""
        self._check_finite()
        if self._file is None:
            return
        if self._levels is not None:
            for index in self._dirty.nonzero()[:, 0].split(1024):
                self._file.write(index.cpu().numpy(), self._levels[index].cpu().numpy())
            self._dirty.zero_()
        self._file.sync()

    def _check_finite(self) -> None:
        # Not where they are given: on a GPU, asking would wait for it at every step.
        if self._broken:
            raise ValueError(not_finite(int(self._broken)))

    def load(self) -> None:
        """Loads rows from the file."""
        if self._file is not None and self._levels is not None:
            self._levels.copy_(torch.from_numpy(np.array(self._file.rows)))

    def start_journal(self, number: int) -> None:
        """See :meth:`RowFile.start_journal`."""
        if self._file is not None:
            self._file.start_journal(number)

    def roll_back(self, number: int) -> None:
        """See :meth:`RowFile.roll_back`."""
        if self._file is not None:
            self._file.roll_back(number)

    def levels(self, *, from_file: bool = True) -> Levels:
        """All rows, int8 of shape (N, C, H, W), from the file if there is one.

        Resident rows that no other process wrote need not come ``from_file``, whose disk may be
        full.
        """
        if self._file is not None and from_file:
            self.flush()
            return self._file.rows
        self._check_finite()
        assert self._levels is not None
        return self._levels.cpu().numpy()


def warn_if_zero(title: str, rows: Levels) -> None:
    """Warns if at least half of the rows are zero; reads only as many rows as needed."""
    moved = 0
    for start in range(0, len(rows), _CHUNK):
        moved += int(rows[start : start + _CHUNK].any(axis=(1, 2, 3)).sum())
        if 2 * moved > len(rows):
            return
    warnings.warn(
        f"{title} left {len(rows) - moved:,} of {len(rows):,} rows all zero, so their images are "
        f"not protected; use more or longer steps",
        stacklevel=4,
    )


def warn_if_unseen(
    title: str, rows: Levels, present: Sequence[int], classes: Sequence[str] | None
) -> None:
    """Warns of classes without images whose row (one for each class) is therefore zero."""
    others = sorted(set(range(len(rows))) - set(present))
    if unseen := [label for label in others if not rows[label].any()]:
        names = [str(label if classes is None else classes[label]) for label in unseen]
        warnings.warn(
            f"there are no images of: {', '.join(names)}; {title} learned no change for these "
            f"classes, and new images of them would stay clean",
            stacklevel=4,
        )
