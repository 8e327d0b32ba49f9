"""Whether a dataset is read from an export: its images are protected already."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from ..data.export_marker import MARKER, export_at, is_copy
from ..data.huggingface import HuggingFaceImages, HuggingFaceRows, is_hf_dataset
from ..data.raw import RawDataset
from ..data.transforms import datasets_in

# Attributes by which datasets say what they read.
_PLACES = (
    "root", "folder", "path", "file", "filename", "directory", "data_dir", "image_dir", "img_dir",
)  # fmt: skip
_SINGLE = 64  # listed files that are looked at one by one: they may be links into an export
_Described = dict[str, Any] | None


def refuse_exports(dataset: Any) -> None:
    """Raises ``ValueError`` if a dataset's images come from an export of this package.

    This can be detected if a dataset names its files or its folder, as those of torchvision and
    Hugging Face do. An export with ``fraction=0`` contains clean images and is accepted.
    """
    found, but = exported_copies(dataset)
    if found:
        raise ValueError(
            f"expected images that are not protected yet, got {found}; protecting them twice "
            f"would change them by more than the budget, so use the originals (in Python, combine "
            f"two perturbations with p.then(q)){but}"
        )


def exported_copies(dataset: Any) -> tuple[str, str]:
    """How a dataset's images are known to come from an export, and what to do if they do not.

    Both are phrases to end a sentence with; they are empty if nothing is known.
    """
    known: dict[Path, _Described] = {}
    raw = dataset if isinstance(dataset, RawDataset) else RawDataset(dataset)
    inner = [found for leaf in raw.originals for found in datasets_in(leaf)]
    for leaf in {id(found): found for found in inner}.values():
        copy = next(filter(is_copy, _file_names(leaf)), None)
        if copy is not None:
            return f"copies from a Parquet or Hugging Face export, named {copy} …", ""
        for place in dict.fromkeys(_places_of(leaf)):
            found = _export_of(Path(place).resolve(), known)
            if found is not None:
                but = ", or delete that file if these images are not copies"
                return f"the copies listed in {found}", but
    return "", ""


def _file_names(leaf: Any) -> list[str]:
    """Names of image files of Hugging Face datasets that a dataset is or holds."""
    names = leaf.file_names if isinstance(leaf, (HuggingFaceImages, HuggingFaceRows)) else []
    for value in getattr(leaf, "__dict__", {}).values():
        if is_hf_dataset(value):
            names += HuggingFaceRows(value.with_format(None)).file_names
    return names


def _places_of(leaf: Any) -> Iterator[str]:
    """Files, folders of listed files, and other folders that a dataset says it reads."""
    attributes: dict[str, Any] = getattr(leaf, "__dict__", {})
    lists = {id(values): values for values in attributes.values()}.values()
    listed = [paths for values in lists for paths in _paths_in(values, leaf)]
    for paths in listed:
        yield from {os.path.dirname(path) for path in paths}  # noqa: PTH120 - there may be millions
        yield from paths[:: max(1, len(paths) // _SINGLE)]
    yield from filter(os.path.lexists, _file_names(leaf))
    for name in _PLACES:
        value = attributes.get(name)
        if isinstance(value, (str, os.PathLike)) and not (listed and name == "root"):
            yield _folder_below(leaf, value) if name == "root" else os.fsdecode(value)


def _paths_in(values: Any, leaf: Any) -> Iterator[list[str]]:
    """The files of a list of paths, or of tuples or dicts that hold one, for each image.

    Dicts by index and tables are taken as lists, too.
    """
    if isinstance(values, Mapping):
        values = list(values.values())
    if hasattr(values, "columns") and hasattr(values, "itertuples"):  # of pandas
        values = list(values.itertuples(index=False, name=None))
    array = isinstance(values, np.ndarray) and values.ndim > 0
    listed = (array or isinstance(values, (list, tuple))) and len(values) > 0
    if not listed or len(values) != _length(leaf):
        return
    first = values[0]
    if _is_path(first):
        yield [os.fsdecode(path) for path in values if isinstance(path, (str, os.PathLike))]
    parts: Any = first.items() if isinstance(first, Mapping) else ()
    if isinstance(first, (list, tuple)):
        parts = enumerate(first)
    for key, part in parts:
        if _is_path(part):
            with suppress(LookupError):  # the others are of another form
                found = [value[key] for value in values]
                yield [os.fsdecode(path) for path in found if isinstance(path, (str, os.PathLike))]


def _length(leaf: Any) -> int | None:
    try:
        return len(leaf)
    except Exception:  # code of the dataset's own, or of one without a length
        return None


def _is_path(value: Any) -> bool:
    return isinstance(value, (str, os.PathLike)) and os.path.lexists(value)


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
    described = export_at(marker.parent)
    return described if described is not None and described.get("fraction") != 0 else None


def _is_beside(path: Path, folder: Path, described: dict[str, Any]) -> bool:
    """Whether a path in an export's folder is something else that lies there.

    That is so where the export is whole, and the path leads through nothing that it wrote.
    """
    names = described.get("files")
    own = {str(name).split("/")[0] for name in names} if isinstance(names, list) else set()
    way = path.relative_to(folder).parts
    whole = bool(own) and all((folder / name).exists() for name in own)
    return whole and bool(way) and own.isdisjoint(way)
