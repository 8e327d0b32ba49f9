"""Folders of class folders: what is read, what is refused, and which file an item comes from."""

from __future__ import annotations

import os
import re
import statistics
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image
from torchvision.datasets import ImageFolder
from torchvision.datasets.folder import IMG_EXTENSIONS
from tqdm.auto import tqdm

from .photo import check_mode, notes_of, open_photo, orientation

LEARNED_AT = 224  # side at which photos of varying size are learned by default
_LARGE = 512  # side above which photos of one size are resized to learn, too
_SHOWN = 20  # files that an error lists
# Names of folders that hold a part of a dataset, such as train, val2017 and test_images.
_SPLIT = re.compile(
    r"(train(ing)?|val(id(ation)?)?|test(ing)?|dev|eval(uation)?|trainval)"
    r"([-_ ]?(set|data|images|\d+))*",
    re.IGNORECASE,
)
_NOT_PHOTOS = ("__MACOSX", "@eaDir")  # beside hidden ones: folders of thumbnails and the like
# Endings of pictures that Pillow may not read.
_PICTURES = (
    *(".heic", ".heif", ".avif", ".jxl", ".jfif", ".svg"),
    *(".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2"),
)


class Survey(NamedTuple):
    """What was found in a folder of photos."""

    photos: int  # how many
    sizes: dict[tuple[int, int], int]  # width and height, upright, and how often
    notes: dict[str, int]  # what reading does that their owner may want to know, and to how many
    left_out: list[str]  # pictures below the folder that ImageFolder does not read

    @property
    def learning_size(self) -> int | None:
        """Side to learn at, or None where all photos have one size that can be learned at.

        224 pixels, or less where most photos are smaller than that.
        """
        if len(self.sizes) == 1 and max(next(iter(self.sizes))) <= _LARGE:
            return None
        shorter = [min(size) for size in Counter(self.sizes).elements()]
        return min(LEARNED_AT, statistics.median_low(shorter))

    def summary(self) -> list[str]:
        """The notes in words."""
        lines = [
            f"{what}: {count:,} of {self.photos:,} photos" for what, count in self.notes.items()
        ]
        if self.left_out:
            some = ", ".join(self.left_out[:5]) + (", …" if len(self.left_out) > 5 else "")
            lines.append(
                f"left out, since they lie outside of class folders or their format is not read: "
                f"{len(self.left_out):,} pictures ({some})"
            )
        return lines


def is_picture(path: Path) -> bool:
    """Whether a file's ending is that of a picture, whether or not it can be read."""
    return path.suffix.lower() in _PICTURES or path.suffix.lower() in Image.registered_extensions()


def open_folder(folder: str | Path) -> ImageFolder:
    """An ``ImageFolder``, or a ``ValueError`` that says what is wrong with the folders.

    Files right below the folder belong to no class and are not read; folders inside of class
    folders belong to that class. Links are followed, unless one leads back to itself.
    """
    root = Path(folder)
    classes = sorted(path for path in root.iterdir() if path.is_dir())
    if not classes:
        raise ValueError(
            f"expected a folder of class folders, got {root} without any; put the photos of each "
            f"class into a folder of its own below it"
        )
    _refuse_splits(root, classes)
    for path in classes:
        _check_folders(root, path)
        if not any(_is_read(file) for file in files_below(path)):
            raise ValueError(
                f"expected photos in each class folder, found none in {path}; formats that are "
                f"read are {', '.join(IMG_EXTENSIONS)}"
            )
    return ImageFolder(str(root))


def _refuse_splits(root: Path, classes: list[Path]) -> None:
    """Refuses folders of training and test images, each with class folders, for classes."""
    named = [path for path in classes if _SPLIT.fullmatch(path.name)]
    splits = [path for path in named if _holds_only_folders(path)]
    if splits and (len(named) == len(classes) or len(splits) > 1):
        raise ValueError(
            f"expected a folder of class folders, got {root} with the splits "
            f"{', '.join(path.name for path in splits)}, each a folder of class folders, which "
            f"would be learned as classes; pass one of them: {splits[0]}"
        )


def _holds_only_folders(folder: Path) -> bool:
    """Whether photos lie in folders below it, and none in itself."""
    entries = list(folder.iterdir())
    return any(path.is_dir() for path in entries) and not any(map(_is_read, entries))


def _check_folders(root: Path, folder: Path) -> None:
    """Refuses folders that other programs made, and links to a folder that they lie in."""
    for at, _, files in os.walk(folder, followlinks=True):
        here = Path(at)
        foreign = here.name.startswith(".") or here.name in _NOT_PHOTOS
        if foreign and (here == folder or any(_is_read(Path(name)) for name in files)):
            raise ValueError(
                f"expected only folders of photos in {root}, got {here}, which another program "
                f"made; move it away"
            )
        if here.is_symlink() and _leads_back(here):
            raise ValueError(
                f"expected folders without cycles, got the link {here} to {here.resolve()}, "
                f"which leads back to itself: its photos would be read again and again; remove it"
            )


def _leads_back(link: Path) -> bool:
    """Whether a link goes to a folder that it lies in, or that was passed on the way to it."""
    found = link.stat()
    passed = (parent.stat() for parent in link.absolute().parents)
    return link.parent.resolve().is_relative_to(link.resolve()) or any(
        (at.st_dev, at.st_ino) == (found.st_dev, found.st_ino) for at in passed
    )


def _is_read(path: Path) -> bool:
    return path.name.lower().endswith(IMG_EXTENSIONS)


def files_below(folder: Path) -> list[Path]:
    """All files at any depth, also through links; each folder once, by its own path first."""
    files: list[Path] = []
    seen: set[tuple[int, int]] = set()
    pending = [folder]
    while pending:
        for at, folders, names in os.walk(pending.pop(0)):
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


def survey_folder(dataset: ImageFolder, *, progress: bool = False) -> Survey:
    """Decodes every photo of a folder once, to find all unusable ones before any work.

    Raises a ``ValueError`` that names each one that is damaged, missing, too large or of a mode
    that is refused. With ``progress``, a bar is shown where this takes long.
    """
    paths = [Path(path) for path, _ in dataset.samples]
    shown = None if progress else True
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        found = pool.map(_examine, paths)
        results = list(tqdm(found, "checking photos", len(paths), disable=shown, delay=2))
    bad = [result for result in results if isinstance(result, str)]
    if bad:
        some = "\n  ".join(bad[:_SHOWN])
        more = f"\n  … and {len(bad) - _SHOWN:,} more" if len(bad) > _SHOWN else ""
        raise ValueError(
            f"expected {len(paths):,} photos, got {len(paths) - len(bad):,} and {len(bad):,} bad "
            f"files:\n  {some}{more}"
        )
    good = [result for result in results if not isinstance(result, str)]
    sizes = Counter(size for size, _ in good)
    notes = Counter(note for _, notes in good for note in notes)
    root = Path(dataset.root)
    left = set(filter(is_picture, files_below(root))) - set(paths)
    left_out = sorted(str(path.relative_to(root)) for path in left)
    return Survey(len(paths), dict(sizes), dict(notes), left_out)


def _examine(path: Path) -> tuple[tuple[int, int], tuple[str, ...]] | str:
    """Width and height of a photo, upright, and its notes; or what is wrong with it."""
    try:
        with open_photo(path) as image:
            check_mode(image)
            width, height = image.size
            if image.format != "TIFF" and orientation(image) > 4:
                width, height = height, width
            notes = notes_of(image)
            image.draft(image.mode, (1, 1))  # JPEG: all of it is read, an eighth of it computed
            image.load()
            return (width, height), notes
    except (OSError, ValueError) as error:
        return str(error)


def file_of(dataset: Any, index: int) -> Path | None:
    """The file of an item: of a pair (path, label) in ``samples``, as ``ImageFolder`` has them.

    None where the dataset lists anything else, or the file is not there.
    """
    samples = getattr(dataset, "samples", None)
    if not isinstance(samples, list) or len(samples) != len(dataset):
        return None
    match samples[index]:
        case (str() | os.PathLike() as path, _) if os.path.lexists(path):
            return Path(os.fsdecode(path))
    return None


def folder_of(dataset: Any) -> Path | None:
    """The folder that a dataset lists files of, or None."""
    root = getattr(dataset, "root", None)
    if not isinstance(root, (str, os.PathLike)) or file_of(dataset, 0) is None:
        return None
    return Path(os.fsdecode(root))
