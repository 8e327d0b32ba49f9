"""Lossless image folders that ``ImageFolder`` reads back with the same pixels and labels."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ...data.image import Pixels, to_pil
from ...data.raw import RawDataset
from ..manifest import Manifest

_OPTIONS: dict[str, dict[str, Any]] = {
    "png": {},
    "webp": {"lossless": True, "exact": True},
}


def class_folders(raw: RawDataset) -> list[str]:
    """A folder name per class whose alphabetical order is the order of class indices.

    The class names themselves where they serve; else with their index before them.
    """
    number = len(raw.classes) if raw.classes is not None else int(raw.labels.max()) + 1
    digits = len(str(number - 1))
    indices = [f"{index:0{digits}d}" for index in range(number)]
    if raw.classes is None:
        return indices
    safe = [re.sub(r"[^\w .()+,-]", "_", name).strip(" .") for name in raw.classes]
    folded = {name.casefold() for name in safe}  # some file systems take a and A for one
    if safe == raw.classes and sorted(set(safe)) == safe and len(folded) == len(safe):
        return safe
    return [f"{index}_{name}" for index, name in zip(indices, safe, strict=True)]


def write_folders(
    raw: RawDataset, indices: Iterable[int], folder: Path, format: str, manifest: Manifest
) -> dict[str, Any]:
    """Writes an image file per index into the folder of its class; each class has a folder."""
    names = class_folders(raw)
    for name in names:
        (folder / name).mkdir()
    filled = set(raw.labels.tolist())
    _warn_of_empty([name for label, name in enumerate(names) if label not in filled], len(names))
    digits = len(str(len(raw) - 1))
    for index in indices:
        item = raw[index]
        file = f"{names[int(item.label)]}/{index:0{digits}d}.{format}"
        metadata = manifest.add(index, file, item.pixels)
        to_pil(item.pixels).save(folder / file, **_OPTIONS[format], **metadata)
    return {"folders": names}


def _warn_of_empty(names: Sequence[str], number: int) -> None:
    if names:
        some = ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
        warnings.warn(
            f"there are no images of {len(names):,} of {number:,} classes ({some}); their folders "
            f"are empty, so that the others keep their indices: ImageFolder(folder, "
            f"allow_empty=True) reads them",
            stacklevel=2,
        )


def png_bytes(pixels: Pixels) -> bytes:
    """The bytes of an image's PNG file."""
    file = io.BytesIO()
    to_pil(pixels).save(file, "png", **_OPTIONS["png"])
    return file.getvalue()
