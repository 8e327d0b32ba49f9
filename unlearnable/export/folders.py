"""Lossless image folders that ``ImageFolder`` reads back with the same pixels and labels."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..data import Pixels, RawDataset, to_pil

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
    if safe == raw.classes and sorted(set(safe)) == safe:
        return safe
    return [f"{index}_{name}" for index, name in zip(indices, safe, strict=True)]


def write_folders(
    raw: RawDataset, indices: Iterable[int], folder: Path, format: str
) -> dict[str, Any]:
    """Writes an image file per index into the folder of its class."""
    names = class_folders(raw)
    for name in names:
        (folder / name).mkdir()
    digits = len(str(len(raw) - 1))
    for index in indices:
        item = raw[index]
        path = folder / names[int(item.label)] / f"{index:0{digits}d}.{format}"
        to_pil(item.pixels).save(path, **_OPTIONS[format])
    return {"folders": names}


def png_bytes(pixels: Pixels) -> bytes:
    """The bytes of an image's PNG file."""
    file = io.BytesIO()
    to_pil(pixels).save(file, "png", **_OPTIONS["png"])
    return file.getvalue()
