"""What an export says of each file: which pixels it has, and which clean image it came from.

Both are told by 64-bit hashes, which only who has the perturbation can compute: see docs/photos.md.
"""

from __future__ import annotations

import csv
import hashlib
import json
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ..data.fingerprint import image_key
from ..data.image import Pixels
from ..data.photo import exif_of, is_photo, notes_of, open_photo
from ..data.raw import RawDataset
from ..perturbation.perturbation import Perturbation
from ..perturbation.serialization import digest_of

EXPORT_FORMAT = "unlearnable-export"
EXPORT_FORMAT_VERSION = 2
MARKER = "unlearnable.json"
FILES = "unlearnable-files.csv"
_COLUMNS = ("file", "key", "state", "origin")


class Entry(NamedTuple):
    """One file of an export.

    Attributes:
        file: Path below the folder, with forward slashes.
        key: Sealed, of the pixels that were written.
        origin: Sealed, of the image that they were made from, before any resize.
        protected: Whether they differ from that image by the perturbation.
    """

    file: str
    key: str
    origin: str
    protected: bool


class Notes(NamedTuple):
    """What an export's folder says of itself.

    Attributes:
        described: Its ``unlearnable.json``; empty where there is none.
        listed: Whether it lists its files.
        entries: Of its files, where the list belongs to the perturbation that was asked for.
    """

    described: dict[str, Any]
    listed: bool
    entries: list[Entry]


class Manifest:
    """Collects what an export says of its files while they are written.

    Args:
        source: The clean images.
        seal: Of the perturbation.
        unchanged: Makes of a clean image what is written where no perturbation is added.
        is_protected: Whether the image at an index gets its perturbation.
        metadata: Whether files keep their EXIF.
        gps: Whether they keep the place, too.

    Attributes:
        keeps_metadata: As was given.
    """

    def __init__(
        self,
        source: RawDataset,
        seal: Seal,
        unchanged: Callable[[Pixels], Pixels],
        is_protected: Callable[[int], bool],
        *,
        metadata: bool = False,
        gps: bool = False,
    ) -> None:
        if gps and not metadata:
            raise ValueError("expected metadata=True (--keep-metadata) with gps=True (--keep-gps)")
        self._source, self._seal, self._unchanged = source, seal, unchanged
        self._is_protected = is_protected
        self.keeps_metadata, self._gps = metadata, gps
        self._entries: list[Entry] = []

    def add(self, index: int, file: str, pixels: Pixels) -> dict[str, Any]:
        """Notes a file; returns what to pass to ``Image.save`` for its metadata."""
        clean, key = self._source[index].pixels, image_key(pixels)
        # A perturbation may be zero, or be lost where values are clipped.
        protected = self._is_protected(index) and key != image_key(self._unchanged(clean))
        origin = self._seal.origin(image_key(clean))
        self._entries.append(Entry(file, self._seal.key(key), origin, protected))
        path = self._photo(index) if self.keeps_metadata else None
        exif = None if path is None else exif_of(path, gps=self._gps)
        return {} if exif is None else {"exif": exif}

    def _photo(self, index: int) -> Path | None:
        """The file of an image, unless it is one of arrays, or whatever else a dataset reads."""
        path = self._source.path(index)
        return path if path is not None and is_photo(path) else None

    def described(self) -> dict[str, Any]:
        """For the folder's ``unlearnable.json``: what was kept, and done to how many photos."""
        notes: Counter[str] = Counter()
        for index in range(len(self._source)):
            path = self._photo(index)
            if path is not None:
                with open_photo(path) as image:
                    notes.update(notes_of(image))
        kept = ["EXIF"] * self.keeps_metadata + ["GPS"] * self._gps
        return {"metadata": kept, "notes": dict(sorted(notes.items()))}

    def write(self, folder: Path) -> None:
        """Writes the list of files."""
        with (folder / FILES).open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(_COLUMNS)
            for name, key, origin, protected in self._entries:
                state = self._seal.state(name, key, protected=protected)
                writer.writerow([name, key, state, origin])


def read_manifest(folder: Path, seal: Seal) -> Notes:
    """What an export's folder says of itself, and of its files to who has its perturbation.

    Raises:
        ValueError: A file is not as it was written, or was written by another version.
    """
    if not (folder / MARKER).is_file():
        return Notes({}, False, [])
    try:
        described = json.loads((folder / MARKER).read_text(encoding="utf-8"))
        if not isinstance(described, dict) or described.get("format") != EXPORT_FORMAT:
            return Notes({}, False, [])
        if described.get("format_version") != EXPORT_FORMAT_VERSION:
            raise ValueError(
                f"expected format_version {EXPORT_FORMAT_VERSION}, got "
                f"{described.get('format_version')}"
            )
        listed = (folder / FILES).is_file()
        own = listed and described.get("perturbation_id") == seal.perturbation_id
        entries = list(_read_entries(folder / FILES, seal)) if own else []
    except ValueError as error:
        raise ValueError(
            f"expected {folder / MARKER} and {FILES} as an export writes them: {error}; export "
            f"anew, or delete them to verify without them"
        ) from error
    return Notes(described, listed, entries)


def _read_entries(path: Path, seal: Seal) -> Iterator[Entry]:
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.reader(file)
        if tuple(next(rows, ())) != _COLUMNS:
            raise ValueError(f"expected the columns {', '.join(_COLUMNS)}")
        for name, key, state, origin in rows:
            protected = state == seal.state(name, key, protected=True)
            if not protected and state != seal.state(name, key, protected=False):
                raise ValueError(f"expected the state of {name}, got {state!r}")
            yield Entry(name, key, origin, protected)


_PURPOSE = b"unlearnable-seal"


class Seal:
    """Keyed hashes, as hexadecimal digits, for the exports of one perturbation.

    Args:
        perturbation: Their secret follows from its tensors and config, and not from its digest,
            which is shown to people.

    Attributes:
        perturbation_id: Tells exports of this perturbation from those of others.
    """

    def __init__(self, perturbation: Perturbation) -> None:
        secret = digest_of(perturbation.tensors, perturbation.config, _PURPOSE)
        self._secret = bytes.fromhex(secret)
        self.perturbation_id = self._hash(b"perturbation", b"", size=16)

    def key(self, key: int) -> str:
        """Of a written image's key."""
        return self._hash(b"key", struct.pack("<Q", key))

    def origin(self, key: int) -> str:
        """Of the key of the clean image that one was made from."""
        return self._hash(b"origin", struct.pack("<Q", key))

    def state(self, file: str, key: str, *, protected: bool) -> str:
        """Of whether a file with this sealed key is protected."""
        return self._hash(b"protected" if protected else b"clean", f"{key} {file}".encode())

    def _hash(self, purpose: bytes, content: bytes, size: int = 8) -> str:
        made = hashlib.blake2b(content, digest_size=size, key=self._secret, person=purpose)
        return made.hexdigest()
