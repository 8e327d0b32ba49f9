"""What was dropped on the page, as a folder of photos: files, folders and archives."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from ...data.extensions import is_picture, photo_extensions
from ...data.image_folder import is_foreign
from ...data.photo import HEIC_EXTENSIONS, HEIC_HINT

_UNSAFE = re.compile(r'[\x00-\x1f<>:"|?*]' if os.name == "nt" else r"[\x00]")
_SHOWN = 5  # names that a sentence lists
_CHUNK = 1 << 20  # bytes that are unpacked at once
_SPARE = 1 << 28  # bytes of the disk that unpacking leaves free


class Dropped(NamedTuple):
    """A file sent by the browser."""

    path: Path  # where it lies
    name: str  # as its owner calls it, below the folders that were dropped: cats/tabby.jpg


class Collected(NamedTuple):
    """The photos among the dropped files."""

    folder: Path  # they lie in it, or in a folder per class
    photos: int
    left_out: list[str]  # sentences on what was dropped besides


def collect(dropped: Iterable[Dropped], folder: Path) -> Collected:
    """Puts dropped photos into a new folder under their own names, unpacking archives.

    Files on the same disk are linked instead of copied. If two files have the same name, the second
    gets a number.

    Raises:
        ValueError: There are no photos, some lie next to class folders, or an archive is damaged.
    """
    folder.mkdir(parents=True)
    unpacked = folder.with_name(folder.name + "-unpacked")
    found: list[tuple[PurePosixPath, Path]] = []
    left_out: list[str] = []
    for path, name in dict.fromkeys(_unpack(dropped, unpacked)):
        place = _safe(name)
        if is_foreign(Path(place)):
            continue
        if place.name.lower().endswith(photo_extensions()):
            found.append((place, path))
        else:
            left_out.append(place.name)
    names = _without_outer([place for place, _ in found])
    _refuse_mixed(names)
    for below, (_, path) in zip(names, found, strict=True):
        _link(path, folder / below)
    shutil.rmtree(unpacked, ignore_errors=True)
    said = _say_left_out(left_out)
    if not found:
        raise ValueError(" ".join(["There are no photos among the files you dropped.", *said]))
    return Collected(folder, len(found), said)


def _unpack(dropped: Iterable[Dropped], folder: Path) -> Iterator[Dropped]:
    """All files; of an archive those that are in it."""
    for number, (path, name) in enumerate(dropped):
        if not name.lower().endswith(".zip"):
            yield Dropped(path, name)
            continue
        try:
            with zipfile.ZipFile(path) as archive:
                members = [member for member in archive.infolist() if not member.is_dir()]
                for index, member in enumerate(members):
                    own = _name_of(member)
                    if not is_foreign(Path(_safe(own))):
                        target = folder / f"{number}-{index}"
                        _extract(archive, member, target)
                        yield Dropped(target, own)
        except Exception as error:  # of any type, by what the files are compressed with
            known = isinstance(error, (ValueError, MemoryError))
            if known or getattr(error, "errno", None) is not None:
                raise
            why = "it needs a password" if "password" in str(error) else "it is damaged"
            raise ValueError(
                f"{name} cannot be unpacked: {why}. Unpack it yourself and drop the folder."
            ) from error


def _name_of(member: zipfile.ZipInfo) -> str:
    """A file's name, which some programs write in UTF-8 without saying so."""
    if not member.flag_bits & 0x800:
        with contextlib.suppress(UnicodeError):
            return member.filename.encode("cp437").decode("utf-8")
    return member.filename


def _extract(archive: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path) -> None:
    """Writes one file, as long as the disk has room: an archive may claim to be small."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(member) as source, target.open("xb") as file:
        while chunk := source.read(_CHUNK):
            if shutil.disk_usage(target.parent).free < _SPARE:
                raise ValueError(
                    f"{Path(archive.filename or '').name} needs more disk space than is free. "
                    f"Free some space, or drop fewer photos at once."
                )
            file.write(chunk)


def _safe(name: str) -> PurePosixPath:
    """A name below the folder, whatever a browser or an archive says."""
    parts = _UNSAFE.sub("_", name.replace("\\", "/")).split("/")
    return PurePosixPath(*[part for part in parts if part not in ("", ".", "..")] or ["_"])


def _without_outer(names: list[PurePosixPath]) -> list[PurePosixPath]:
    """The names without folders that all have in common: a dropped folder is not a class."""
    while names and len({name.parts[0] for name in names}) == 1 and len(names[0].parts) > 1:
        names = [name.relative_to(name.parts[0]) for name in names]
    return names


def _refuse_mixed(names: list[PurePosixPath]) -> None:
    loose = [name.name for name in names if len(name.parts) == 1]
    if loose and len(loose) < len(names):
        raise ValueError(
            f"Some photos are in folders and some are not ({_some(loose)}), so it is not clear "
            f"what the folders stand for. Drop photos without folders, or a folder that has a "
            f"subfolder for each kind of photo and no loose photos."
        )


def _link(path: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    number, free = 2, target
    while os.path.lexists(free):
        free = target.with_stem(f"{target.stem} ({number})")
        number += 1
    try:
        os.link(path, free)
    except OSError:
        shutil.copyfile(path, free)


def _say_left_out(names: list[str]) -> list[str]:
    heic = [name for name in names if name.lower().endswith(HEIC_EXTENSIONS)]
    pictures = [name for name in names if is_picture(Path(name)) and name not in heic]
    others = [name for name in names if name not in heic and name not in pictures]
    said = []
    if heic:
        said.append(f"Left out because HEIC cannot be read yet: {_some(heic)}. {HEIC_HINT}.")
    if pictures:
        said.append(
            f"Left out because their format is not supported: {_some(pictures)}. Save them as "
            f"JPEG or PNG."
        )
    if others:
        said.append(f"Left out because they are not photos: {_some(others)}.")
    return said


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
