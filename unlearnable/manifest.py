"""What an export says of each file: which pixels it has, and which clean image it came from.

Both are told by 64-bit hashes, from which no image can be made: see docs/photos.md.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from .batches import Pixels
from .data import RawDataset, image_key
from .photos import exif_of, notes_of, open_photo

FORMAT = "unlearnable-export"
MARKER = "unlearnable.json"
FILES = "unlearnable-files.csv"


class Entry(NamedTuple):
    """One file of an export.

    Attributes:
        file: Path below the folder, with forward slashes.
        key: Of the pixels that were written.
        clean_key: Of the image that they were made from, before any resize.
        protected: Whether the perturbation was applied to it.
    """

    file: str
    key: int
    clean_key: int
    protected: bool


class Manifest:
    """Collects what an export says of its files while they are written.

    Args:
        source: The clean images.
        is_protected: Whether the image at an index gets its perturbation.
        metadata: Whether files keep their EXIF.
        gps: Whether they keep the place, too.

    Attributes:
        keeps_metadata: As was given.
    """

    def __init__(
        self,
        source: RawDataset,
        is_protected: Callable[[int], bool],
        *,
        metadata: bool = False,
        gps: bool = False,
    ) -> None:
        if gps and not metadata:
            raise ValueError("expected metadata=True (--keep-metadata) with gps=True (--keep-gps)")
        self._source = source
        self._is_protected = is_protected
        self.keeps_metadata, self._gps = metadata, gps
        self._entries: list[Entry] = []

    def add(self, index: int, file: str, pixels: Pixels) -> dict[str, Any]:
        """Notes a file; returns what to pass to ``Image.save`` for its metadata."""
        clean_key = image_key(self._source[index].pixels)
        entry = Entry(file, image_key(pixels), clean_key, self._is_protected(index))
        self._entries.append(entry)
        path = self._source.path(index) if self.keeps_metadata else None
        exif = None if path is None else exif_of(path, gps=self._gps)
        return {} if exif is None else {"exif": exif}

    def described(self) -> dict[str, Any]:
        """For the folder's ``unlearnable.json``: what was kept, and done to how many photos."""
        notes: Counter[str] = Counter()
        for index in range(len(self._source)):
            path = self._source.path(index)
            if path is not None:
                with open_photo(path) as image:
                    notes.update(notes_of(image))
        kept = ["EXIF"] * self.keeps_metadata + ["GPS"] * self._gps
        return {"metadata": kept, "notes": dict(sorted(notes.items()))}

    def write(self, folder: Path) -> None:
        """Writes the list of files."""
        with (folder / FILES).open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(Entry._fields)
            for entry in self._entries:
                keys = f"{entry.key:016x}", f"{entry.clean_key:016x}"
                writer.writerow([entry.file, *keys, int(entry.protected)])


def read_manifest(folder: Path) -> tuple[dict[str, Any], list[Entry]]:
    """What an export's folder says of itself and of its files; both empty where it says nothing.

    Raises:
        ValueError: A file is not as it was written.
    """
    if not (folder / MARKER).is_file():
        return {}, []
    try:
        described = json.loads((folder / MARKER).read_text(encoding="utf-8"))
        if not isinstance(described, dict) or described.get("format") != FORMAT:
            return {}, []
        if not (folder / FILES).is_file():
            return described, []
        with (folder / FILES).open(encoding="utf-8", newline="") as file:
            rows = csv.reader(file)
            if tuple(next(rows)) != Entry._fields:
                raise ValueError(f"expected the columns {', '.join(Entry._fields)}")
            entries = [
                Entry(name, int(key, 16), int(clean, 16), bool(int(flag)))
                for name, key, clean, flag in rows
            ]
    except (ValueError, StopIteration) as error:
        raise ValueError(
            f"expected {folder / MARKER} and {FILES} as an export writes them: {error}; delete "
            f"them to verify without them"
        ) from error
    return described, entries
