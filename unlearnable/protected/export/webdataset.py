"""WebDataset shards: tar files with a PNG and a class index per image."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ...data.raw import RawDataset
from ..manifest import Exported
from .folders import png_bytes

SHARD_BYTES = 256 << 20  # a shard ends with the image that reaches this


def write_webdataset(raw: RawDataset, images: Iterable[Exported], folder: Path) -> dict[str, Any]:
    """Writes ``shard-000000.tar``, …, each with ``000000.cls`` and ``000000.png`` per image.

    The bytes depend only on the images: no times, no owners, in order of the index.
    """
    shards: list[str] = []
    tar: tarfile.TarFile | None = None
    try:
        for image in images:
            if tar is None:
                shards.append(f"shard-{len(shards):06d}.tar")
                path = folder / shards[-1]
                tar = tarfile.open(path, "w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115
            _add(tar, f"{image.index:06d}.cls", str(image.label).encode())
            _add(tar, f"{image.index:06d}.png", png_bytes(image.pixels))
            if tar.offset >= SHARD_BYTES:
                tar.close()
                tar = None
    finally:
        if tar is not None:
            tar.close()
    return {"shards": shards}


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)  # mode 0644, everything else 0 or empty
    entry.size = len(data)
    tar.addfile(entry, io.BytesIO(data))
