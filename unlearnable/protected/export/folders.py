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
from ..manifest import Exported, Manifest

_OPTIONS: dict[str, dict[str, Any]] = {
    "png": {},
    "webp": {"lossless": True, "exact": True},
}


def class_folders(raw: RawDataset) -> list[str]:
    """A folder name per class whose alphabetical order is the order of class indices.

    The class names themselves where they can serve; else with their index in front.
    """
    digits = len(str(raw.num_classes - 1))
    indices = [f"{index:0{digits}d}" for index in range(raw.num_classes)]
    if raw.classes is None:
        return indices
    safe = [re.sub(r"[^\w .()+,-]", "_", name).strip(" .") for name in raw.classes]
    folded = {name.casefold() for name in safe}  # some file systems take a and A for one
    if safe == raw.classes and sorted(set(safe)) == safe and len(folded) == len(safe):
        return safe
    return [f"{index}_{name}" for index, name in zip(indices, safe, strict=True)]


def write_folders(
    raw: RawDataset, images: Iterable[Exported], folder: Path, format: str, manifest: Manifest
) -> dict[str, Any]:
    """Writes an image file per image into the folder of its class; each class has a folder."""
    names = class_folders(raw)
    for name in names:
        (folder / name).mkdir()
    filled = set(raw.labels.tolist())
    _warn_of_empty([name for label, name in enumerate(names) if label not in filled], len(names))
    digits = len(str(len(raw) - 1))
    for image in images:
        file = f"{names[image.label]}/{image.index:0{digits}d}.{format}"
        manifest.add(image, file)
        exif = None if image.info is None else image.info.exif
        metadata: dict[str, Any] = {} if exif is None else {"exif": exif}
        to_pil(image.pixels).save(folder / file, **_OPTIONS[format], **metadata)
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
