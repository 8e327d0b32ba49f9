"""Which files of a folder are protected by a perturbation, and which are not."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from ..data.export_marker import MARKER, export_at
from ..data.extensions import is_picture
from ..data.fingerprint import THUMBNAIL_TOLERANCE, image_key, image_keys, thumbnail
from ..data.image import Images, Pixels, pixels_of
from ..data.image_folder import files_below, is_foreign
from ..data.photo import load_frames, load_photo
from ..perturbation.perturbation import Perturbation, check_perturbation
from .dataset import ProtectedDataset
from .export.encoding import ORIGINAL
from .lossy_files import LossyFiles
from .manifest import FILES, Entry, Seal, read_manifest

STATES = ("protected", "clean", "changed", "unknown")
_SHOWN = 10  # files of a kind that are named in print
_MEANT = {
    "clean": "clean, without protection",
    "changed": "changed since the copy was written, for example recompressed or edited",
    "unknown": "unknown: not a photo of this key, or not readable",
}
# Where there is neither a list of this key nor the originals: protected copies are among them.
_BY_KEY = "only the key (perturbation), because "
_MEANT_BY_KEY = {
    "clean": _MEANT["clean"],
    "changed": "like photos of this key, but protected or edited, which the key alone cannot tell",
    "unknown": "unknown, which the key alone does not recognise",
}


@dataclass(frozen=True)
class Verification:
    """The result of checking a folder.

    Attributes:
        files: Each picture's path below the folder, and its state: ``"protected"``; ``"clean"``, an
            original without its perturbation; ``"changed"``, one of the images, but with different
            pixels than the perturbation gives, for example after recompression; or ``"unknown"``.
        missing: Exported files without a protected copy in the folder, whatever is there instead;
            the printed text lists only those that have nothing in their place.
        others: Files that are not pictures.
        basis: What the check was based on.
        lossy: For files of a lossy export: its ``format`` and ``quality``; the ``share_left`` of
            the change, from 0 to 1, or None if unknown; whether that was ``measured`` against the
            originals or stated by the export; and, if measured, the share for each of ``files``.
            None for other folders.
    """

    files: dict[str, str]
    missing: list[str]
    others: list[str]
    basis: str
    lossy: dict[str, Any] | None = None

    @property
    def whole(self) -> bool:
        """Whether every picture of the folder is protected."""
        return all(status == "protected" for status in self.files.values())

    @property
    def counts(self) -> dict[str, int]:
        """Number of pictures of each kind."""
        found = list(self.files.values())
        return {status: found.count(status) for status in STATES}

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON values."""
        found = {"whole": self.whole, "basis": self.basis, **self.counts, **vars(self)}
        return {name: value for name, value in found.items() if (name, value) != ("lossy", None)}

    def __str__(self) -> str:
        lines = [self._verdict()]
        meant = _MEANT_BY_KEY if self.basis.startswith(_BY_KEY) else _MEANT
        for status in STATES[1:]:
            files = (file for file, found in self.files.items() if found == status)
            lines += _named(meant[status], files)
        # Those that are there, but not protected, were named: also under another format's ending.
        named = {_stem(file) for file, found in self.files.items() if found != "protected"}
        missing = (file for file in self.missing if _stem(file) not in named)
        lines += _named("missing", missing)
        others = "other file" if len(self.others) == 1 else "other files"
        lines += _named(f"{others}, not checked", self.others)
        lines.append(f"Checked against {self.basis}.")
        if self.lossy is not None:
            lines.append(self._left(self.lossy))
        if not self.whole:
            lines.append(
                "Replace them with the copies as they were written, leave them out, or protect the "
                "photos again."
            )
        return "\n".join(lines)

    def _verdict(self) -> str:
        count, protected = len(self.files), self.counts["protected"]
        if count == 1:
            return f"The only picture is {'protected' if self.whole else 'NOT protected'}."
        if self.whole:
            return f"All {count:,} pictures are protected."
        are = "is" if protected == 1 else "are"
        return f"NOT all pictures are protected: {protected:,} of {count:,} {are}."

    @staticmethod
    def _left(lossy: dict[str, Any]) -> str:
        share, quality = lossy["share_left"], lossy["quality"]
        left = "An unknown share" if share is None else f"{share:.0%}"
        which = "the originals' quality" if quality == ORIGINAL else f"quality {quality}"
        by = "measured against the originals" if lossy["measured"] else "as recorded by the export"
        return f"{left} of the change is left in {lossy['format'].upper()} at {which} ({by})."


def verify(
    folder: str | Path, perturbation: Perturbation, originals: Any = None, *, progress: bool = True
) -> Verification:
    """Checks every picture in a folder by its pixels.

    Args:
        folder: A folder written by :meth:`ProtectedDataset.export`, one inside of it, or what
            became of one. Links are followed, as by ``ImageFolder``.
        perturbation: The perturbation that should protect the pictures.
        originals: The clean dataset. With it, the protected images are computed again and compared.
            Without it, a file counts as protected if its pixels are those that the export recorded
            in its ``unlearnable-files.csv`` for this perturbation. Files of a lossy export
            are always checked in this way; with the originals, the share of the change that is left
            is also measured.
        progress: Show a progress bar.

    Raises:
        ValueError: There are no pictures, or the folder's list of files is damaged.
        UnknownImageError: ``originals`` are not the images of the perturbation.
    """
    check_perturbation(perturbation)
    folder = Path(folder)
    pictures, others = _contents(folder)
    known = _Known(perturbation)
    root = _export_around(folder)
    described, listed, entries = read_manifest(root, known.seal)
    below = _entries_below(entries, folder, root)
    stated = described.get("lossy") if entries else None
    lossy = LossyFiles(folder, stated, below, known.seal) if isinstance(stated, dict) else None
    if originals is not None:
        full_size = described.get("full_size") if entries else None
        known.add_originals(originals, perturbation, full_size, progress, lossy)
        basis = "the originals"
    elif entries:
        basis = f"{FILES}, the list written with the copies"
    elif listed:
        basis = f"{_BY_KEY}the copies were written with another one"
    else:
        basis = (
            f"{_BY_KEY}there is no {FILES} next to the pictures; pass the originals (--originals) "
            f"to recognise protected ones"
        )
    known.add_entries(entries, trusted=originals is None)
    known.add_entries([] if lossy is None else lossy.given, trusted=True)
    names = {_stem(entry.file) for entry in below}
    files: dict[str, str] = {}
    keys: set[str] = set()
    written, unproven = {entry.key for entry in entries if entry.protected}, 0
    bare, left_clean = {entry.key for entry in entries if not entry.protected}, 0
    for path in tqdm(pictures, desc="verifying", disable=None if progress else True, delay=2):
        file = path.relative_to(folder)
        status, key = known.judge(path)
        if status == "unknown" and _stem(str(file)) in names:
            status = "changed"
        files[file.as_posix()] = status
        if status == "protected" and key is not None:
            keys.add(key)
        elif status == "clean":
            left_clean += key in bare
        else:
            unproven += key in written
    if unproven:
        which = "picture is as it was written, but its original is"
        if unproven > 1:
            which = "pictures are as they were written, but their originals are"
        basis += f"; {unproven:,} {which} not among those: pass all originals, or omit --originals"
    if left_clean:
        basis += _left_clean(left_clean, described.get("fraction"))
    missing = [entry.file for entry in below if entry.protected and entry.key not in keys]
    found = None if lossy is None else lossy.described(keys)
    return Verification(files, missing, others, basis, found)


def _left_clean(count: int, fraction: Any) -> str:
    """Why pictures are clean that nobody changed since the export."""
    which = "the clean picture is" if count == 1 else f"{count:,} clean pictures are"
    why = "the key changes no pixel there, which a higher visibility may do"
    if isinstance(fraction, (int, float)) and fraction < 1:
        why = f"{fraction:.0%} of the pictures were to be protected"
    return f"; {which} as written: {why}"


def _export_around(folder: Path) -> Path:
    """The export that a folder lies in, such as a class folder; the folder itself if in none."""
    around = [folder, *folder.resolve().parents]
    return next((place for place in around if export_at(place) is not None), folder)


def _entries_below(entries: list[Entry], folder: Path, root: Path) -> list[Entry]:
    """The entries of files in a folder of the export, with their paths below that folder."""
    if root == folder:
        return entries
    way = f"{folder.resolve().relative_to(root.resolve()).as_posix()}/"
    inside = (entry for entry in entries if entry.file.startswith(way))
    return [entry._replace(file=entry.file.removeprefix(way)) for entry in inside]


def _contents(folder: Path) -> tuple[list[Path], list[str]]:
    if not folder.is_dir():
        got = f"the file {folder}" if folder.exists() else f"{folder}, which does not exist"
        raise FileNotFoundError(f"expected a folder of pictures, got {got}")
    found = sorted(path for path in files_below(folder) if path.name not in (MARKER, FILES))
    pictures = [path for path in found if is_picture(path) and not _is_no_photo(folder, path)]
    if not pictures:
        hint = "; only exports as png, webp or jpeg can be verified" if export_at(folder) else ""
        raise ValueError(f"expected pictures in {folder}, found none{hint}")
    others = set(found).difference(pictures)
    return pictures, sorted(str(path.relative_to(folder)) for path in others)


def _is_no_photo(folder: Path, path: Path) -> bool:
    """Whether it is hidden, or of another program, and no picture: such are published unjudged."""
    if not is_foreign(path.relative_to(folder)):
        return False
    try:
        load_photo(path)
    except (OSError, ValueError):
        return True
    return False


class _Known:
    """Keys of protected and of clean pixels, and what known images look like."""

    def __init__(self, perturbation: Perturbation) -> None:
        # Of a stack, the lowest part is the one that was fitted on the clean images.
        keys, thumbnails = (
            perturbation.tensors.get(name, perturbation.tensors.get(f"0.{name}"))
            for name in ("keys", "thumbnails")
        )
        self.seal = Seal(perturbation)
        self._clean: set[int] = set() if keys is None else set(keys.tolist())
        self._protected: set[int] = set()
        self._origins: set[str] = set()
        self._listed: dict[str, str] = {}  # what a file is, by its sealed key
        self._looks: list[Images] = [] if thumbnails is None else [np.asarray(thumbnails)]
        self._stacked: NDArray[np.int16] | None = None

    def add_entries(self, entries: Iterable[Entry], *, trusted: bool) -> None:
        for entry in entries:
            self._origins.add(entry.origin)
            if not entry.protected:
                self._listed[entry.key] = "clean"
            elif trusted:
                self._listed.setdefault(entry.key, "protected")

    def add_originals(
        self,
        originals: Any,
        perturbation: Perturbation,
        full_size: bool | None,
        progress: bool,
        lossy: LossyFiles | None,
    ) -> None:
        sizes = [False, True] if full_size is None else [full_size]
        if full_size is None and (perturbation.kind == "pixel" or perturbation.fit_size is None):
            sizes = [False]
        for full in sizes:
            protected = ProtectedDataset(originals, perturbation, full_size=full)
            shown = None if progress else True
            with tqdm(total=len(protected), desc="computing", disable=shown) as bar:
                for batch, prepared, images in protected.paired_batches(range(len(protected))):
                    self._protected.update(image_keys(images))
                    self._clean.update(image_keys(batch.pixels), image_keys(prepared))
                    self._looks.append(np.stack([thumbnail(clean) for clean in batch.pixels]))
                    if lossy is not None:
                        lossy.measure(batch.pixels, prepared, images)
                    bar.update(len(images))

    def judge(self, path: Path) -> tuple[str, str | None]:
        """What a file is, and the sealed key of its pixels.

        Of several frames or pages, the first that is not protected decides.
        """
        found: tuple[str, str | None] = ("unknown", None)
        try:
            for number, frame in enumerate(load_frames(path)):
                found = self._judged(pixels_of(frame))
                if found[0] != "protected":
                    return ("changed", found[1]) if number and found[0] == "unknown" else found
        except (OSError, ValueError):
            return "unknown", None
        return found

    def _judged(self, pixels: Pixels) -> tuple[str, str | None]:
        key = image_key(pixels)
        sealed = self.seal.key(key)
        listed = self._listed.get(sealed)
        # First of all: a perturbation that changes nothing protects nothing.
        if key in self._clean or listed == "clean" or self.seal.origin(key) in self._origins:
            return "clean", sealed
        if key in self._protected or listed == "protected":
            return "protected", sealed
        return ("changed" if self._looks_known(pixels) else "unknown"), sealed

    def _looks_known(self, pixels: Pixels) -> bool:
        if not self._looks:
            return False
        if self._stacked is None:
            self._stacked = np.concatenate(self._looks).astype(np.int16)
        apart = np.abs(self._stacked - thumbnail(pixels)).max(axis=(1, 2, 3))
        return bool(apart.min() <= THUMBNAIL_TOLERANCE)


def _stem(file: str) -> str:
    """A path without its ending."""
    return str(Path(file).with_suffix(""))


def _named(what: str, files: Iterable[str]) -> list[str]:
    files = list(files)
    if not files:
        return []
    shown = [f"{len(files):,} {what}:", *(f"  {file}" for file in files[:_SHOWN])]
    if len(files) > _SHOWN:
        shown.append(f"  … and {len(files) - _SHOWN:,} more")
    return shown
