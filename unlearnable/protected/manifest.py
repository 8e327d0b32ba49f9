"""What an export says of each file: which pixels it has, and which clean image it came from.

Both are stated as 64-bit hashes that only an owner of the perturbation can compute: see
docs/how-to/photos.md.
"""

from __future__ import annotations

import csv
import hashlib
import json
import struct
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ..data.export_marker import EXPORT_FORMAT, MARKER
from ..data.fingerprint import image_key
from ..data.image import Pixels
from ..data.photo import PhotoInfo
from ..perturbation.perturbation import Perturbation
from ..perturbation.serialization import digest_of

EXPORT_FORMAT_VERSION = 2
FILES = "unlearnable-files.csv"
_MOST_LEFT = 10.0  # of the change; recompression may also add to it
_COLUMNS = ("file", "key", "state", "origin")


class Entry(NamedTuple):
    """One file of an export, with sealed hashes."""

    file: str  # path below the folder, with forward slashes
    key: str  # of the pixels that were written
    origin: str  # of the image that they were made from, before any resize
    protected: bool  # whether they differ from that image by the perturbation


@dataclass(frozen=True)
class Exported:
    """One image on its way into an export; pixels are uint8 (1 or 3, H, W)."""

    index: int  # in the dataset
    label: int
    clean: Pixels  # as it was read
    unchanged: Pixels  # resized, cropped and coloured as the protected image is, not protected
    pixels: Pixels  # what is written
    chosen: bool  # whether it gets its perturbation
    among_protected: bool  # whether any image of the export does
    info: PhotoInfo | None  # what its file says, where Pillow can read it

    @property
    def protected(self) -> bool:
        """Whether it differs from the clean image by its perturbation."""
        # A perturbation may be zero, or be lost where values are clipped.
        return self.chosen and bool((self.pixels != self.unchanged).any())


class Manifest:
    """Collects what an export records about its images while they are written.

    With ``metadata``, files keep their EXIF data, and with ``gps`` also the location. Under a
    visibility mask, grey photos stay grey and are written as grey files.

    Attributes:
        perturbation: The perturbation of the images.
        keeps_metadata: Whether files keep their EXIF data.
        keeps_grey: Whether grey photos are written as grey files.
        bare: Indices of the images that are written without their perturbation.
    """

    def __init__(
        self, perturbation: Perturbation, *, metadata: bool = False, gps: bool = False
    ) -> None:
        if gps and not metadata:
            raise ValueError("expected metadata=True (--keep-metadata) with gps=True (--keep-gps)")
        self.keeps_metadata, self._gps = metadata, gps
        self.keeps_grey = any(part.mask is not None for part in perturbation.parts)
        self.perturbation, self._seal = perturbation, Seal(perturbation)
        self.bare: list[int] = []
        self._entries: list[Entry] = []
        self._notes: Counter[str] = Counter()

    def noted(self, images: Iterable[Exported]) -> Iterator[Exported]:
        """Passes the images on and counts what was done to their photos."""
        return map(self._note, images)  # which does not hold on to an image

    def _note(self, image: Exported) -> Exported:
        if image.info is not None:
            self._notes.update(image.info.notes)
        return image

    @property
    def files(self) -> list[str]:
        """Paths of the files below the export, in the order of the images."""
        return [entry.file for entry in self._entries]

    def entry(self, image: Exported, file: str, written: Pixels | None = None) -> Entry:
        """The entry of an image's file; ``written`` are its pixels if the format changes them."""
        key = self._seal.key(image_key(image.pixels if written is None else written))
        origin = self._seal.origin(image_key(image.clean))
        return Entry(file, key, origin, image.protected)

    def add(self, entry: Entry, notes: Iterable[str] = ()) -> None:
        """Adds a file; ``notes`` are those of a photo that did not pass :meth:`noted`."""
        if not entry.protected:
            self.bare.append(len(self._entries))
        self._entries.append(entry)
        self._notes.update(notes)

    def seal_of(self, content: bytes) -> str:
        """A keyed hash of content that identifies an unfinished export."""
        return self._seal.content(content)

    def described(self) -> dict[str, Any]:
        """Entries for ``unlearnable.json``: what was kept, done to how many photos, and added."""
        return {
            "metadata": ["EXIF"] * self.keeps_metadata + ["GPS"] * self._gps,
            "notes": dict(sorted(self._notes.items())),
            "perturbation": self.perturbation.config["method"],
            "epsilon": self.perturbation.info()["epsilon"],
            "norm": self.perturbation.config["norm"],
            "perturbation_id": self._seal.perturbation_id,
        }

    def write(self, folder: Path) -> None:
        """Writes the list of files."""
        # Names of files need not be Unicode: their bytes are written as they are.
        options: dict[str, Any] = {"encoding": "utf-8", "errors": "surrogateescape", "newline": ""}
        with (folder / FILES).open("w", **options) as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(_COLUMNS)
            for name, key, origin, protected in self._entries:
                state = self._seal.state(name, key, protected=protected)
                writer.writerow([name, key, state, origin])


def read_manifest(folder: Path, seal: Seal) -> tuple[dict[str, Any], bool, list[Entry]]:
    """Reads an export's description and, with the seal of its perturbation, its list of files.

    Returns its ``unlearnable.json``, empty if there is none; whether it lists its files; and an
    entry for each file if the list belongs to the seal's perturbation.

    Raises:
        ValueError: One of them was modified or written by another version.
    """
    marker = folder / MARKER
    try:
        described = json.loads(marker.read_text(encoding="utf-8")) if marker.is_file() else None
        if not isinstance(described, dict) or described.get("format") != EXPORT_FORMAT:
            return {}, False, []
        if described.get("format_version") != EXPORT_FORMAT_VERSION:
            found = described.get("format_version")
            raise ValueError(f"expected format_version {EXPORT_FORMAT_VERSION}, got {found}")
        listed = (folder / FILES).is_file()
        own = listed and described.get("perturbation_id") == seal.perturbation_id
        entries = list(_read_entries(folder / FILES, seal)) if own else []
        images = described.get("images")
        if own and len(entries) != images:
            raise ValueError(
                f"expected all {images!r:.20} images in the list of files, got {len(entries):,}"
            )
        _check_lossy(described.get("lossy"))
    except (ValueError, RecursionError, csv.Error) as error:
        raise ValueError(
            f"expected {marker} and {FILES} as written by an export: {error}; export again, or "
            f"delete both to verify without them"
        ) from error
    return described, listed, entries


def _check_lossy(stated: Any) -> None:
    """Raises ``ValueError`` unless an export's entry about its lossy format can be one."""
    if stated is None:
        return
    left = stated.get("share_left") if isinstance(stated, dict) else -1
    sound = left is None or (type(left) in (int, float) and 0 <= left <= _MOST_LEFT)
    named = sound and isinstance(stated.get("format"), str)
    if not named or not isinstance(stated.get("quality"), (int, str)):
        raise ValueError(f"expected a format, a quality and the share left, got {stated!r:.80}")


def _read_entries(path: Path, seal: Seal) -> Iterator[Entry]:
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        rows = csv.reader(file)
        if tuple(next(rows, ())) != _COLUMNS:
            raise ValueError(f"expected the columns {', '.join(_COLUMNS)}")
        for name, key, state, origin in rows:
            protected = state == seal.state(name, key, protected=True)
            if not protected and state != seal.state(name, key, protected=False):
                raise ValueError(f"expected the state of {name}, got {state!r}")
            yield Entry(name, key, origin, protected)


class Seal:
    """Keyed hashes in hexadecimal for the exports of one perturbation.

    Their secret is derived from its tensors and config, not from its digest, which is public.
    ``perturbation_id`` distinguishes its exports from those of other perturbations.
    """

    def __init__(self, perturbation: Perturbation) -> None:
        secret = digest_of(perturbation.tensors, perturbation.config, b"unlearnable-seal")
        self._secret = bytes.fromhex(secret)
        self.perturbation_id = self._hash(b"perturbation", b"", size=16)

    def key(self, key: int) -> str:
        """Hash of a written image's key."""
        return self._hash(b"key", struct.pack("<Q", key))

    def origin(self, key: int) -> str:
        """Hash of the key of the clean image that a copy was made from."""
        return self._hash(b"origin", struct.pack("<Q", key))

    def content(self, content: bytes) -> str:
        """Hash of other bytes."""
        return self._hash(b"content", content, size=16)

    def state(self, file: str, key: str, *, protected: bool) -> str:
        """Hash that states whether a file with this sealed key is protected."""
        return self._hash(
            b"protected" if protected else b"clean",
            f"{key} {file}".encode(errors="surrogateescape"),
        )

    def _hash(self, purpose: bytes, content: bytes, size: int = 8) -> str:
        made = hashlib.blake2b(content, digest_size=size, key=self._secret, person=purpose)
        return made.hexdigest()
