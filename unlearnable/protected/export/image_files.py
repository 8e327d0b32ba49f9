"""A file per image: in class folders as ``ImageFolder`` reads them, or in tar shards."""

from __future__ import annotations

import contextlib
import io
import os
import tarfile
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ...data.image import Pixels, pixels_of, to_pil
from ...data.image_folder import FlatFolder
from ...data.photo import load_photo
from ...data.raw import RawDataset
from ...perturbation.visibility import are_grey
from ..manifest import Exported, Manifest
from ..share_left import ShareLeft
from .encoding import Encoding
from .file_names import file_names
from .folder_names import folder_names

SHARD_BYTES = 256 << 20  # a shard ends with the image that reaches this
_SHOWN = 5  # names that a warning lists


def _class_folders(raw: RawDataset) -> list[str]:
    """A folder name per class index; it is said where one is not the name of the class.

    It is empty for photos that lie in no class folder: neither do their copies.
    """
    if all(isinstance(leaf, FlatFolder) for leaf in raw.originals):
        return [""]
    if raw.classes is None:
        digits = len(str(raw.num_classes - 1))
        return [f"{index:0{digits}d}" for index in range(raw.num_classes)]
    folders = folder_names(raw.classes)
    pairs = zip(raw.classes, folders, strict=True)
    changed = [f"{name!r} -> {folder!r}" for name, folder in pairs if name != folder]
    if changed:
        some = ", ".join(changed[:_SHOWN]) + (", …" if len(changed) > _SHOWN else "")
        warnings.warn(
            f"{len(changed):,} of {len(folders):,} class folders are not called as their classes, "
            f"whose names file systems do not take, or not in the order of classes: {some}; "
            f"unlearnable.json keeps the names, and this package reads them there",
            stacklevel=2,
        )
    return folders


def write_folders(
    raw: RawDataset,
    images: Iterable[Exported],
    folder: Path,
    encoding: Encoding,
    manifest: Manifest,
) -> dict[str, Any]:
    """Writes an image file per image into the folder of its class; each class has a folder.

    Where the encoding is lossy, each file is read again, and it is said what is left.
    """
    names = _class_folders(raw)
    for name in names:
        (folder / name).mkdir(exist_ok=not name)
    filled = set(raw.labels.tolist())
    empty = [name for label, name in enumerate(names) if label not in filled]
    if empty:
        some = ", ".join(empty[:5]) + (", …" if len(empty) > 5 else "")
        warnings.warn(
            f"there are no images of {len(empty):,} of {len(names):,} classes ({some}); their "
            f"folders are empty, so that the others keep their indices: ImageFolder(folder, "
            f"allow_empty=True) reads them",
            stacklevel=2,
        )
    files = file_names(raw, names, encoding.ending)
    for inner in {os.path.dirname(file) for file in files}:  # noqa: PTH120 - there may be millions
        (folder / inner).mkdir(parents=True, exist_ok=True)
    left, sizes = ShareLeft(), [0, 0]
    for image, file in zip(images, files, strict=True):
        target = folder / file
        grey = manifest.keeps_grey and bool(are_grey(image.pixels[None]).all())
        pixels = image.pixels[:1] if grey else image.pixels
        encoding.save(to_pil(pixels), target, image.info)
        original = raw.path(image.index)
        found = original.stat() if original is not None and original.exists() else None
        if found is not None and manifest.keeps_metadata:
            os.utime(target, ns=(found.st_mtime_ns, found.st_mtime_ns))
        if not encoding.lossy:
            manifest.add(image, file)
            continue
        written = pixels_of(load_photo(target))
        manifest.add(image, file, written)
        left.add(image.unchanged, image.pixels, written)
        if found is not None:
            sizes = [sizes[0] + target.stat().st_size, sizes[1] + found.st_size]
    return {"folders": names} | (encoding.described(left, *sizes) if encoding.lossy else {})


def write_webdataset(raw: RawDataset, images: Iterable[Exported], folder: Path) -> dict[str, Any]:
    """Writes ``shard-000000.tar``, …, each with ``000000.cls`` and ``000000.png`` per image.

    The bytes depend only on the images: no times, no owners, in order of the index.
    """
    shards: list[str] = []
    tar: tarfile.TarFile | None = None
    with contextlib.ExitStack() as opened:
        for image in images:
            if tar is None or tar.offset >= SHARD_BYTES:
                opened.close()
                shards.append(f"shard-{len(shards):06d}.tar")
                path = folder / shards[-1]
                tar = opened.enter_context(tarfile.open(path, "w", format=tarfile.USTAR_FORMAT))
            _add(tar, f"{image.index:06d}.cls", str(image.label).encode())
            _add(tar, f"{image.index:06d}.png", png_bytes(image.pixels))
    return {"shards": shards}


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)  # mode 0644, everything else 0 or empty
    entry.size = len(data)
    tar.addfile(entry, io.BytesIO(data))


def png_bytes(pixels: Pixels) -> bytes:
    """The bytes of an image's PNG file."""
    file = io.BytesIO()
    to_pil(pixels).save(file, "png")
    return file.getvalue()
