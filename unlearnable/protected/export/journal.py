"""What an unfinished export has finished: a line per file, by which the next start takes it over.

A file is taken over only if it is whole, and would be written just so again: its original has the
same bytes, and the image the same label. So it does not matter when a process was killed, or what
of the files had reached the disk. Hashes are keyed with the perturbation, and no line names an
original.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from ...data.raw import RawDataset
from ...io.files import writing
from ..manifest import Entry, Manifest
from ..metrics import Distortion

_BLOCK = 1 << 20


class Resumed(NamedTuple):
    """What a resumable export knows about its images.

    Attributes:
        chosen: Which images are protected, bool (N,).
        align: How their rows are found.
        changes: The measured changes of some images by index; more are added.
    """

    chosen: NDArray[np.bool_]
    align: str
    changes: dict[int, Distortion]


class Written(NamedTuple):
    """A finished file and what the export records about it."""

    entry: Entry
    notes: tuple[str, ...] = ()  # what was done to its photo
    left: tuple[int, int, int, int] | None = None  # sums of ShareLeft, of a lossy file
    sizes: tuple[int, int] | None = None  # bytes of the file and of its original, where it has one


class Journal:
    """The finished files of an export, in the order in which they were written.

    Args:
        path: Path of the journal, which may exist.
        raw: The dataset.
        manifest: Manifest of the export.
        resumed: What is known about its images.
    """

    def __init__(self, path: Path, raw: RawDataset, manifest: Manifest, resumed: Resumed) -> None:
        self._path, self._raw, self._manifest, self._resumed = path, raw, manifest, resumed
        self._labels = raw.labels.tolist()

    def finished(self, files: Sequence[str], folder: Path, *, show: bool) -> dict[int, Written]:
        """The finished files that are reused, by image index; all others are deleted."""
        lines = self._lines()
        found: dict[int, Written] = {}
        known = [index for index, file in enumerate(files) if file in lines]
        shown = None if show else True
        for index in tqdm(known, "checking finished copies", disable=shown, delay=2):
            line = lines.pop(files[index])
            if line["image"] == self._image(index) and line["hash"] == self._hash(
                folder / files[index]
            ):
                found[index] = _written(line)
                if line["change"] is not None:
                    self._resumed.changes[index] = Distortion(*line["change"])
        self._path.unlink(missing_ok=True)
        for index, written in found.items():
            self.add(index, folder, written)
        kept = {folder / files[index] for index in found}
        for path in sorted(folder.rglob("*"), reverse=True):  # what is inside of a folder first
            if path.is_dir() and not path.is_symlink():
                if not any(path.iterdir()):
                    path.rmdir()
            elif path not in kept:
                path.unlink()
        return found

    def after(self, index: int, folder: Path, write: Callable[[], Written]) -> Written:
        """Writes a file and records it."""
        written = write()
        self.add(index, folder, written)
        return written

    def add(self, index: int, folder: Path, written: Written) -> None:
        """Records a finished, closed file."""
        line = {
            "image": self._image(index),
            "hash": self._hash(folder / written.entry.file),
            "change": self._resumed.changes.get(index),
            **written._asdict(),
        }
        with writing(self._path.parent), self._path.open("a", encoding="ascii") as file:
            file.write(json.dumps(line) + "\n")

    def _lines(self) -> dict[str, dict[str, Any]]:
        """The last line of each file; one that a killed process did not finish is left out."""
        lines: dict[str, dict[str, Any]] = {}
        try:
            text = self._path.read_text(encoding="ascii")
        except (OSError, ValueError):
            return lines
        for line in text.splitlines():
            try:
                content = json.loads(line)
                lines[_written(content).entry.file] = content
            except (ValueError, TypeError, KeyError):
                continue
        return lines

    def _image(self, index: int) -> str | None:
        """What a copy follows from, beside the settings of the export; None of what is no file."""
        path = self._raw.path(index)
        content = None if path is None else self._hash(path)
        if path is None or content is None:
            return None
        known = [content, self._labels[index], bool(self._resumed.chosen[index])]
        # Rows of photos that are there twice may be found by their place.
        known.append(index if self._manifest.perturbation.keyed else None)
        known.append(path.stat().st_mtime_ns if self._manifest.keeps_metadata else None)
        return self._manifest.seal_of(json.dumps(known).encode())

    def _hash(self, path: Path) -> str | None:
        """Of a file's bytes; None where there is none."""
        digest = hashlib.blake2b(digest_size=16)
        try:
            with path.open("rb") as file:
                while block := file.read(_BLOCK):
                    digest.update(block)
        except OSError:
            return None
        return self._manifest.seal_of(digest.digest())


def _written(line: dict[str, Any]) -> Written:
    left, sizes = line["left"], line["sizes"]
    return Written(
        Entry(*line["entry"]),
        tuple(line["notes"]),
        None if left is None else tuple(left),
        None if sizes is None else tuple(sizes),
    )
