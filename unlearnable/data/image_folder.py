"""Folders of class folders: what is read, what is refused, and which file an item comes from."""

from __future__ import annotations

import functools
import os
import re
import statistics
import warnings
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from torchvision import datasets
from tqdm.auto import tqdm

from ..engine.device import usable_cores
from .extensions import RAW, VIDEOS, is_picture, photo_extensions
from .links import check_links
from .many_photos import bad_photos, few_at_once
from .photo import (
    HEIC_EXTENSIONS,
    HEIC_HINT,
    check_mode,
    notes_of,
    open_photo,
    orientation,
)

_AHEAD = 64  # photos that threads may have looked at before they are counted
LEARNED_AT = 224  # side at which photos of varying size are learned by default
_LARGE = 512  # side above which photos of one size are resized to learn, too
# What other programs and systems write, beside hidden files and folders: thumbnails and the like.
FOREIGN = (
    "__macosx", "@eadir", "thumbs.db", "ehthumbs.db", "desktop.ini", "lost+found", "$recycle.bin",
    "system volume information",
)  # fmt: skip
# Names of folders that hold a part of a dataset, such as train, val2017 and test_images.
_SPLIT = re.compile(
    r"(train(ing)?|val(id(ation)?)?|test(ing)?|dev|eval(uation)?|trainval)"
    r"([-_ ]?(set|data|images|\d+))*",
    re.IGNORECASE,
)
_RAW_HINT = (
    "Camera raw files cannot be read: export them as JPEG, PNG or TIFF from your raw converter"
)
FLAT_CLASS = "photos"  # of all photos of a folder without class folders


class Survey(NamedTuple):
    """The result of checking a folder of photos."""

    photos: int  # how many
    sizes: dict[tuple[int, int], int]  # width and height, upright, and how often
    notes: dict[str, int]  # what reading does that their owner may want to know, and to how many
    left_out: list[str]  # all files that are not read

    @property
    def learning_size(self) -> int | None:
        """Side to learn at, or None if all photos have the same size and it is small enough.

        224 pixels, or less if most photos are smaller.
        """
        if len(self.sizes) == 1 and max(next(iter(self.sizes))) <= _LARGE:
            return None
        shorter = [min(size) for size in Counter(self.sizes).elements()]
        return min(LEARNED_AT, statistics.median_low(shorter))

    def summary(self) -> list[str]:
        """The notes as sentences."""
        whole = f"{self.photos:,} {'photo' if self.photos == 1 else 'photos'}"
        lines = [f"{what}: {count:,} of {whole}" for what, count in self.notes.items()]
        hidden = [file for file in self.left_out if is_foreign(Path(file))]
        shown = [file for file in self.left_out if not is_foreign(Path(file))]
        videos = [file for file in shown if Path(file).suffix.lower() in VIDEOS]
        known = photo_extensions()
        beside = [file for file in shown if file.lower().endswith(known)]
        unread = [file for file in shown if file not in beside and is_picture(Path(file))]
        named = {*beside, *videos, *unread}
        others = [file for file in shown if file not in named]
        for files, reason, what in (
            (beside, "not in a folder for their kind", "picture"),
            (unread, "format not supported", "picture"),
            (videos, "not photos", "video"),
            (others, "not photos", "file"),
            (hidden, "hidden or left by other programs", "file"),
        ):
            if files:
                count = f"1 {what}" if len(files) == 1 else f"{len(files):,} {what}s"
                lines.append(f"left out ({reason}): {count} ({_some(files)})")
        return [*lines, *_hints(unread)]


def is_foreign(path: Path) -> bool:
    """Whether a path is hidden or belongs to another program, or lies in such a folder."""
    return any(part.startswith(".") or part.lower() in FOREIGN for part in path.parts)


class ImageFolder(datasets.ImageFolder):
    """Torchvision's class with more formats; it skips hidden files and those of other programs."""

    def __init__(self, root: str) -> None:
        self._read = photo_extensions()
        super().__init__(root, is_valid_file=self._is_photo)

    def find_classes(self, directory: str | Path) -> tuple[list[str], dict[str, int]]:
        names, _ = super().find_classes(directory)
        names = [name for name in names if not is_foreign(Path(name))]
        return names, {name: index for index, name in enumerate(names)}

    def _is_photo(self, path: str) -> bool:
        is_photo = path.lower().endswith(self._read)
        return is_photo and not is_foreign(Path(path).relative_to(self.root))


class FlatFolder(ImageFolder):
    """Photos directly in a folder, without class folders: all of one class, called ``photos``."""

    def find_classes(self, directory: str | Path) -> tuple[list[str], dict[str, int]]:
        return [FLAT_CLASS], {FLAT_CLASS: 0}

    def make_dataset(self, directory: Any, *_: Any, **__: Any) -> list[tuple[str, int]]:
        """The photos in order of their names; subfolders are ignored."""
        paths = sorted(str(path) for path in Path(directory).iterdir() if path.is_file())
        return [(path, 0) for path in paths if self._is_photo(path)]


def open_folder(folder: str | Path) -> ImageFolder:
    """Opens a folder as an ``ImageFolder``; a ``ValueError`` says what is wrong with it.

    A folder that directly contains photos becomes a :class:`FlatFolder`. If there are several class
    folders, files next to them belong to no class and are not read. Folders inside a class folder
    belong to that class; if all classes contain the same folders, a warning is given. Links are
    followed unless one leads back to itself. Hidden files and folders and those written by other
    programs are left out.
    """
    root = Path(folder)
    entries = sorted(path for path in root.iterdir() if not is_foreign(Path(path.name)))
    loose = [path for path in entries if path.is_file()]
    classes = {path: list[Path]() for path in entries if path.is_dir()}
    if classes:
        _refuse_splits(root, list(classes))
    for path in classes:
        check_links(path)
        classes[path] = files_below(path)
    filled = [path for path, files in classes.items() if _photos_among(files, root)]
    if not filled and (not classes or _photos_among(loose, root)):
        _refuse_no_photos(root, loose)
        return FlatFolder(str(root))
    for path, files in classes.items():
        _refuse_no_photos(path, files, " in each class folder")
    if len(filled) == 1 and (beside := _photos_among(loose, root)):
        raise ValueError(
            f"expected photos either directly in {root} or in class folders, got {len(beside):,} "
            f"directly in it, which would be left out, and others in its folder {filled[0].name}; "
            f"move them all into one folder, or pass {filled[0]}"
        )
    return ImageFolder(str(root))


def _photos_among(files: list[Path], root: Path) -> list[Path]:
    """The photos among files below a folder."""
    known = photo_extensions()
    photos = [file for file in files if file.name.lower().endswith(known)]
    return [file for file in photos if not is_foreign(file.relative_to(root))]


def _refuse_no_photos(folder: Path, files: list[Path], where: str = "") -> None:
    """Raises ``ValueError`` where none of a folder's files is a photo that is read; says why."""
    visible = [file for file in files if not is_foreign(file.relative_to(folder))]
    if _photos_among(visible, folder):
        return
    if not visible:
        raise ValueError(f"expected photos{where}, found none in {folder}: it is empty")
    raise ValueError(
        f"expected photos{where}, found none in {folder}: it holds "
        f"{_some(sorted(f.name for f in visible))}; supported formats are "
        f"{', '.join(photo_extensions())}" + "".join(f". {hint}" for hint in _hints(visible))
    )


def _hints(unread: Iterable[str | Path]) -> list[str]:
    """What to do with pictures that are not read."""
    endings = {Path(file).suffix.lower() for file in unread}
    hints = [HEIC_HINT] if endings & set(HEIC_EXTENSIONS) else []
    return [*hints, _RAW_HINT] if endings & set(RAW) else hints


def _refuse_splits(root: Path, classes: list[Path]) -> None:
    """Refuses folders of training and test images, each with class folders, for classes."""
    named = [path for path in classes if _SPLIT.fullmatch(path.name)]
    splits = [path for path in named if _only_folders(path)]
    first = next((path for path in splits if path.name.lower().startswith("train")), None)
    if splits and (len(named) == len(classes) or len(splits) > 1):
        raise ValueError(
            f"expected a folder of class folders, got {root} with the splits "
            f"{', '.join(path.name for path in splits)}, each a folder of class folders, which "
            f"would be mistaken for classes; pass one of them: {first or splits[0]}"
        )
    within = [_only_folders(path) for path in classes]
    if len(classes) > 1 and len(within[0]) > 1 and all(names == within[0] for names in within):
        warnings.warn(
            f"using {_some([path.name for path in classes])} as the classes, although each "
            f"contains the same folders, {_some(within[0])}; if those are the classes, pass a "
            f"folder that contains them: {classes[0]}",
            stacklevel=3,
        )


def _only_folders(folder: Path) -> list[str]:
    """The folders in which the photos below it lie; none where it holds photos itself."""
    entries = [path for path in folder.iterdir() if not is_foreign(Path(path.name))]
    if any(path.name.lower().endswith(photo_extensions()) for path in entries):
        return []
    return sorted(path.name for path in entries if path.is_dir())


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")


def files_below(folder: Path) -> list[Path]:
    """All files at any depth, following links; each folder once, under its own path if possible.

    Raises ``OSError`` for a folder that cannot be read, unless it is hidden or another program's.
    """

    def refuse(error: OSError) -> None:
        if not is_foreign(Path(error.filename).relative_to(folder)):
            raise error

    files: list[Path] = []
    seen: set[tuple[int, int]] = set()
    pending = [folder]
    while pending:
        for at, folders, names in os.walk(pending.pop(0), onerror=refuse):
            here = Path(at)
            found = here.stat()
            if (found.st_dev, found.st_ino) in seen:  # by another link, or in a cycle
                folders.clear()
                continue
            seen.add((found.st_dev, found.st_ino))
            files += [here / name for name in names]
            folders.sort()
            pending += [here / name for name in folders if (here / name).is_symlink()]
    return files


def survey_folder(
    dataset: datasets.ImageFolder, *, decode: bool = True, progress: bool = False
) -> Survey:
    """Checks every photo of a folder, to find all unusable ones before work starts.

    Raises a ``ValueError`` that names each photo that is damaged, missing, too large or of an
    unsupported mode. Without ``decode``, only file headers are read; damage further inside and
    transparency are found later, when the photo is decoded. With ``progress``, a bar is shown if
    this takes long.
    """
    paths = [path for path, _ in dataset.samples]
    shown, bad = None if progress else True, list[str]()
    sizes, notes = Counter[tuple[int, int]](), Counter[str]()
    examine = functools.partial(_examine, decode=decode)
    with (
        ThreadPoolExecutor(min(8, usable_cores())) as pool,
        tqdm(total=len(paths), desc="checking photos", disable=shown, delay=2) as bar,
    ):
        # A few at a time: what waits for its turn takes memory, too.
        for start in range(0, len(paths), _AHEAD):
            for found in pool.map(examine, map(Path, paths[start : start + _AHEAD])):
                if isinstance(found, str):
                    bad.append(found)
                else:
                    sizes[found[0]] += 1
                    notes.update(found[1])
                bar.update()
    if bad and not decode:  # then all bad ones are named
        return survey_folder(dataset, progress=progress)
    if bad:
        raise bad_photos(len(paths), bad)
    root = Path(dataset.root)
    read = {str(Path(path)) for path in paths}
    unread = (path for path in files_below(root) if str(path) not in read)
    left_out = sorted(str(path.relative_to(root)) for path in unread)
    return Survey(len(paths), dict(sizes), dict(notes), left_out)


def _examine(path: Path, *, decode: bool) -> tuple[tuple[int, int], tuple[str, ...]] | str:
    """Width and height of a photo, upright, and its notes; or what is wrong with it."""
    try:
        with open_photo(path) as image, few_at_once(image.size):
            check_mode(image)
            width, height = image.size
            if image.format != "TIFF" and orientation(image) > 4:
                width, height = height, width
            notes = notes_of(image, decode=decode)
            if not decode:
                return (width, height), notes
            if image.format in ("JPEG", "MPO"):
                image.draft(image.mode, (1, 1))  # all of it is read, an eighth of it computed
            image.load()
            return (width, height), notes
    except (OSError, ValueError) as error:
        told = getattr(error, "strerror", None)  # of the system: no permission, no such file
        return f"{path}: {told}" if told and getattr(error, "filename", None) else str(error)


def file_of(dataset: Any, index: int) -> Path | None:
    """The file of an item, from the pairs (path, label) in ``samples``, as in ``ImageFolder``.

    None if the dataset lists anything else or the file does not exist.
    """
    samples = getattr(dataset, "samples", None)
    if not isinstance(samples, list) or len(samples) != len(dataset):
        return None
    match samples[index]:
        case (str() | os.PathLike() as path, _) if os.path.lexists(path):
            return Path(os.fsdecode(path))
    return None


def folder_of(dataset: Any) -> Path | None:
    """The folder whose files a dataset lists, or None."""
    root = getattr(dataset, "root", None)
    if not isinstance(root, (str, os.PathLike)) or file_of(dataset, 0) is None:
        return None
    return Path(os.fsdecode(root))
