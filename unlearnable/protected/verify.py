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
from ..data.fingerprint import THUMBNAIL_TOLERANCE, image_key, image_keys, thumbnail
from ..data.image import Images, Pixels, pixels_of
from ..data.image_folder import files_below, is_foreign, is_picture
from ..data.photo import load_photo
from ..perturbation.perturbation import Perturbation
from .dataset import ProtectedDataset
from .export.encoding import ORIGINAL
from .lossy_files import LossyFiles
from .manifest import FILES, Entry, Seal, read_manifest

STATES = ("protected", "clean", "changed", "unknown")
_SHOWN = 10  # files of a kind that are named in print
_MEANT = {
    "clean": "clean, without protection",
    "changed": "changed, with other pixels than the copy had, as after recompressing or editing",
    "unknown": "unknown: none of the photos of this key, or not to be read",
}


@dataclass(frozen=True)
class Verification:
    """What was found in a folder.

    Attributes:
        files: Each picture's path below the folder, and what it is: ``"protected"``; ``"clean"``,
            an original without its perturbation; ``"changed"``, one of the images, but with other
            pixels than the perturbation gives, as after a recompression; or ``"unknown"``.
        missing: Exported files of which the folder holds no protected copy, whatever else is there
            in their place; in print, only those that nothing is there for.
        others: Files that are not pictures.
        basis: What it was judged by.
        lossy: Of an export in a lossy format, of which such files were found: its ``format`` and
            ``quality``; the ``share_left`` of the change, from 0 to 1, or None where that is not
            known; whether it was ``measured`` against the originals, or is what the export stated;
            and, where it was measured, that of each of ``files``. None for other folders.
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
        """For JSON."""
        found = {"whole": self.whole, "basis": self.basis, **self.counts, **vars(self)}
        return {name: value for name, value in found.items() if (name, value) != ("lossy", None)}

    def __str__(self) -> str:
        lines = [self._verdict()]
        for status in STATES[1:]:
            files = (file for file, found in self.files.items() if found == status)
            lines += _named(_MEANT[status], files)
        # Those that are there, but not protected, were named: also under another format's ending.
        named = {_stem(file) for file, found in self.files.items() if found != "protected"}
        missing = (file for file in self.missing if _stem(file) not in named)
        lines += _named("missing", missing)
        lines += _named("beside the pictures, not judged", self.others)
        lines.append(f"Judged by {self.basis}.")
        if self.lossy is not None:
            lines.append(self._left(self.lossy))
        if not self.whole:
            lines.append("Put the copies as they were written in their place, or protect anew.")
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
        by = "measured against the originals" if lossy["measured"] else "as the export noted"
        return f"{left} of the change is left in {lossy['format'].upper()} of {which} ({by})."


def verify(
    folder: str | Path, perturbation: Perturbation, originals: Any = None, *, progress: bool = True
) -> Verification:
    """Looks at every picture of a folder, by its pixels.

    Args:
        folder: Such as :meth:`ProtectedDataset.export` writes, or what became of one. Links are
            followed, as ``ImageFolder`` follows them.
        perturbation: What the pictures should be protected by.
        originals: The clean dataset. With it, what the perturbation gives is computed again and
            compared. Without it, a file is protected if its pixels are those that the export
            noted, in the folder's ``unlearnable-files.csv``, for this very perturbation. So are
            files of a lossy export in any case; with it, what is left of the change is measured.
        progress: Show a bar.

    Raises:
        ValueError: There is no picture, or the folder's list of files is damaged.
        UnknownImageError: ``originals`` are not the images of the perturbation.
    """
    folder = Path(folder)
    pictures, others = _contents(folder)
    known = _Known(perturbation)
    described, listed, entries = read_manifest(folder, known.seal)
    stated = described.get("lossy") if entries else None
    lossy = LossyFiles(folder, stated, entries, known.seal) if isinstance(stated, dict) else None
    if originals is not None:
        full_size = described.get("full_size") if entries else None
        known.add_originals(originals, perturbation, full_size, progress, lossy)
        basis = "the originals"
    elif entries:
        basis = f"{FILES}, the list that the copies were written with"
    elif listed:
        basis = "the key (perturbation) alone: the copies were written with another one"
    else:
        basis = (
            f"the key (perturbation) alone: there is no {FILES} beside the pictures; give the "
            f"originals (--originals) to find protected ones"
        )
    known.add_entries(entries, trusted=originals is None)
    known.add_entries([] if lossy is None else lossy.given, trusted=True)
    names = {_stem(entry.file) for entry in entries}
    files: dict[str, str] = {}
    keys: set[str] = set()
    for path in tqdm(pictures, desc="verifying", disable=None if progress else True, delay=2):
        file = path.relative_to(folder)
        status, key = known.judge(path)
        if status == "unknown" and _stem(str(file)) in names:
            status = "changed"
        files[file.as_posix()] = status
        if status == "protected" and key is not None:
            keys.add(key)
    missing = [entry.file for entry in entries if entry.protected and entry.key not in keys]
    found = None if lossy is None else lossy.described(keys)
    return Verification(files, missing, others, basis, found)


def _contents(folder: Path) -> tuple[list[Path], list[str]]:
    if not folder.is_dir():
        got = f"the file {folder}" if folder.exists() else f"{folder}, which is not there"
        raise FileNotFoundError(f"expected a folder of pictures, got {got}")
    found = sorted(path for path in files_below(folder) if path.name not in (MARKER, FILES))
    pictures = [path for path in found if is_picture(path) and not _is_no_photo(folder, path)]
    if not pictures:
        hint = "; only exports as png or webp can be verified" if export_at(folder) else ""
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
        """What a file is, and the sealed key of its pixels."""
        try:
            pixels = pixels_of(load_photo(path))
        except (OSError, ValueError):
            return "unknown", None
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
