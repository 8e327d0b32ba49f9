"""Whether a dataset is read from an export: its images are protected already."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..data.export_marker import EXPORT_FORMAT, MARKER, is_copy
from ..data.raw import RawDataset

# Attributes by which datasets say what they read.
_PLACES = (
    "root", "folder", "path", "file", "filename", "directory", "data_dir", "image_dir", "img_dir",
)  # fmt: skip
_SINGLE = 64  # listed files that are looked at one by one: they may be links into an export
_Described = dict[str, Any] | None


def refuse_exports(dataset: Any) -> None:
    """Raises ``ValueError`` for a dataset whose images are read from an export of this package.

    That is known where a dataset names its files, or the folder that it reads, as torchvision's
    and Hugging Face's do. An export with ``fraction=0`` holds clean images, and is taken.
    """
    found, but = exported_copies(dataset)
    if found:
        raise ValueError(
            f"expected images that are not protected yet, got {found}: a second perturbation would "
            f"exceed the budget of the first; take the originals, for two perturbations with "
            f"p.then(q){but}"
        )


def exported_copies(dataset: Any) -> tuple[str, str]:
    """By what a dataset's images are known to be of an export, and what to do if they are not.

    In words, to end a sentence with; both are empty where nothing is known.
    """
    known: dict[Path, _Described] = {}
    raw = dataset if isinstance(dataset, RawDataset) else RawDataset(dataset)
    for leaf in raw.originals:
        copy = next(filter(is_copy, getattr(leaf, "file_names", ())), None)
        if copy is not None:
            return f"copies that an export as Parquet or Hugging Face dataset named {copy} …", ""
        for place in dict.fromkeys(_places_of(leaf)):
            found = _export_of(Path(place).resolve(), known)
            if found is not None:
                but = ", or delete that file if these images are no copies"
                return f"the copies that {found} lists", but
    return "", ""


def _places_of(leaf: Any) -> Iterator[str]:
    """Files, folders of listed files, and other folders that a dataset says it reads."""
    attributes: dict[str, Any] = getattr(leaf, "__dict__", {})
    lists = {id(values): values for values in attributes.values()}.values()
    listed = [paths for values in lists if (paths := _paths_in(values, len(leaf)))]
    for paths in listed:
        yield from {os.path.dirname(path) for path in paths}  # noqa: PTH120 - there may be millions
        yield from paths[:: max(1, len(paths) // _SINGLE)]
    yield from filter(os.path.lexists, map(os.fsdecode, getattr(leaf, "file_names", ())))
    for name in _PLACES:
        value = attributes.get(name)
        if isinstance(value, (str, os.PathLike)) and not (listed and name == "root"):
            yield _folder_below(leaf, value) if name == "root" else os.fsdecode(value)


def _paths_in(values: Any, count: int) -> list[str] | None:
    """The files of a list of paths, or of (path, label) pairs, one for each image."""
    if not isinstance(values, (list, tuple, np.ndarray)) or len(values) != count:
        return None
    pairs = isinstance(values[0], (list, tuple)) and len(values[0]) > 0
    first = values[0][0] if pairs else values[0]
    if not isinstance(first, (str, os.PathLike)) or not os.path.lexists(first):
        return None
    paths = [value[0] for value in values] if pairs else list(values)
    return [os.fsdecode(path) for path in paths if isinstance(path, (str, os.PathLike))]


def _folder_below(leaf: Any, root: str | os.PathLike[str]) -> str:
    """Of torchvision's datasets, the folder below ``root`` that they read; else that itself."""
    inner = getattr(leaf, "base_folder", None)  # of CIFAR-10
    read = Path(root) / inner if isinstance(inner, str) else getattr(leaf, "raw_folder", root)
    return os.fsdecode(read if isinstance(read, (str, os.PathLike)) else root)


def _export_of(path: Path, known: dict[Path, _Described]) -> Path | None:
    """The marker of the export that a file or folder belongs to, or None."""
    for folder in (path, *path.parents):
        if folder not in known:
            known[folder] = _described(folder / MARKER)
        described = known[folder]
        if described is not None and not _is_beside(path, folder, described):
            return folder / MARKER
    return None


def _described(marker: Path) -> _Described:
    try:
        described = json.loads(marker.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    ours = isinstance(described, dict) and described.get("format") == EXPORT_FORMAT
    return described if ours and described.get("fraction") != 0 else None


def _is_beside(path: Path, folder: Path, described: dict[str, Any]) -> bool:
    """Whether a path in an export's folder is something else that lies there.

    That is so where the export is whole, and the path leads through nothing that it wrote.
    """
    names = described.get("files")
    own = {str(name).split("/")[0] for name in names} if isinstance(names, list) else set()
    way = path.relative_to(folder).parts
    whole = bool(own) and all((folder / name).exists() for name in own)
    return whole and bool(way) and own.isdisjoint(way)
