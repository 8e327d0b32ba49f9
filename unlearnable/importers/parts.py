"""A perturbation in several files: which they are, and in what order they are joined."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from pathlib import Path

_PICTURES = (".png", ".webp", ".jpg", ".jpeg")
_ENDINGS = (".npy", ".npz", ".pt", ".pth", ".pkl", ".pickle", ".safetensors")
_NUMBER = re.compile(r"([0-9]+)")


def ordered_files(path: str | Path | Sequence[str | Path]) -> list[Path]:
    """The files of a perturbation, or its folder of images, in the order of their rows.

    Several files are sorted by the numbers in their names, by the first number first:
    ``part_2.npy`` before ``part_10.npy``. Files passed one by one keep their order if their names
    differ in more than numbers. Raises ``ValueError`` if the order is ambiguous, and
    ``FileNotFoundError`` if a file does not exist.
    """
    if not isinstance(path, (str, Path, list, tuple)):
        raise TypeError(
            f"expected the path of a file or a folder, or a list of paths, got "
            f"{type(path).__name__}; save an array with numpy.save first"
        )
    if isinstance(path, (str, Path)):
        there, path = bool(str(path)), Path(path)
        try:
            there = there and path.exists()
        except OSError:  # a name that is too long
            there = False
        if not there:
            raise FileNotFoundError(
                f"expected a file or a folder of PNGs, got {path}, which does not exist; check the "
                f"path"
            )
        return _numbered(path) if path.is_dir() else [path]
    paths = [Path(part) for part in path]
    if not paths:
        raise ValueError("expected at least one file, got none")
    for part in paths:
        if not part.is_file():
            kind = FileNotFoundError if not part.exists() else ValueError
            raise kind(f"expected a file of rows, got {part}; pass a folder without other paths")
    return _ordered(paths) if len({_pattern(part) for part in paths}) == 1 else paths


def _numbered(folder: Path) -> list[Path]:
    """The files of arrays in a folder; the folder itself where it holds pictures, or no arrays."""
    if any(found.suffix.lower() in _PICTURES for found in folder.rglob("*")):
        return [folder]
    files = sorted(part for part in folder.iterdir() if part.suffix.lower() in _ENDINGS)
    files = [part for part in files if not part.name.startswith(".") and part.is_file()]
    if not files:
        deeper = next((p for p in sorted(folder.rglob("*")) if p.suffix.lower() in _ENDINGS), None)
        if deeper is not None:
            raise ValueError(
                f"expected files of arrays right in {folder}, got them in folders below it, such "
                f"as {deeper.relative_to(folder)}; pass one of these folders, or save a dict of "
                f"the arrays by the names of the images' files, with pickle.dump"
            )
        return [folder]
    other = next((part for part in files if _pattern(part) != _pattern(files[0])), None)
    if other is not None:
        raise ValueError(
            f"expected files in {folder} whose names differ only in their numbers, such as "
            f"part_0.npy and part_1.npy, got {files[0].name} and {other.name}; pass the files "
            f"that belong together, in order"
        )
    return _ordered(files)


def _pattern(path: Path) -> str:
    return _NUMBER.sub("#", str(path))


def _numbers(path: Path) -> tuple[int, ...]:
    return tuple(map(int, _NUMBER.findall(str(path))))


def _ordered(paths: list[Path]) -> list[Path]:
    ordered = sorted(paths, key=_numbers)
    for one, other in itertools.pairwise(ordered):
        if _numbers(one) == _numbers(other):
            raise ValueError(
                f"expected parts with different numbers, got {one} and {other}; rename one of them"
            )
    return ordered
