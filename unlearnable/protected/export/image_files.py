"""A file per image: in class folders as ``ImageFolder`` reads them, or in tar shards."""

from __future__ import annotations

import contextlib
import functools
import io
import logging
import os
import tarfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from ...data.image import Pixels, to_pil
from ...data.image_folder import FlatFolder
from ...data.raw import RawDataset
from ..manifest import Exported, Manifest
from ..share_left import ShareLeft
from .encoding import Encoding
from .file_names import file_names
from .folder_names import folder_names
from .journal import Journal
from .writing import Pending, in_order, prepared

SHARD_BYTES = 256 << 20  # a shard ends with the image that reaches this
_SHOWN = 5  # names that a warning lists
logger = logging.getLogger(__name__)


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
            f"{len(changed):,} of {len(folders):,} class folders could not be named like their "
            f"classes, because file systems do not allow the names or would sort them "
            f"differently: {some}; unlearnable.json stores the class names, and this package "
            f"reads them from there",
            stacklevel=2,
        )
    return folders


def write_folders(
    raw: RawDataset,
    read: Callable[[Sequence[int]], Iterator[Exported]],
    folder: Path,
    encoding: Encoding,
    manifest: Manifest,
    bar: tqdm[Any],
    journal: Journal | None = None,
) -> dict[str, Any]:
    """Writes one image file per image into the folder of its class; every class gets a folder.

    If the encoding is lossy, each file is read again to report what is left of the change. Files
    that a journal lists as finished are not written again, and their images are not read.
    """
    names = _class_folders(raw)
    filled = set(raw.labels.tolist())
    empty = [name for label, name in enumerate(names) if label not in filled]
    if empty:
        some = ", ".join(empty[:5]) + (", …" if len(empty) > 5 else "")
        warnings.warn(
            f"there are no images of {len(empty):,} of {len(names):,} classes ({some}); their "
            f"folders stay empty so that the other classes keep their indices; read them with "
            f"ImageFolder(folder, allow_empty=True)",
            stacklevel=2,
        )
    files = file_names(raw, names, encoding.ending)
    done = {} if journal is None else journal.finished(files, folder, show=not bar.disable)
    if done:
        logger.info(
            "%d of %d copies were already finished by an earlier run", len(done), len(files)
        )
        bar.update(len(done))
    inner = {os.path.dirname(file) for file in files}  # noqa: PTH120 - there may be millions
    for name in sorted(inner.union(names)):
        (folder / name).mkdir(parents=True, exist_ok=True)
    images = manifest.noted(read([index for index in range(len(files)) if index not in done]))

    def pending(index: int) -> Pending:
        if index in done:
            return Pending(functools.partial(done.pop, index), reused=True)
        made = prepared(next(images), files[index], folder, encoding, manifest, raw.path(index))
        if journal is None:
            return made
        return made._replace(write=functools.partial(journal.after, index, folder, made.write))

    left, sizes = ShareLeft(), [0, 0]
    with contextlib.closing(in_order(map(pending, range(len(files))))) as finished:
        for written, reused in finished:
            manifest.add(written.entry, written.notes if reused else ())
            bar.update(not reused)
            if written.left is not None:
                left.merge(ShareLeft.of(written.left))
            if written.sizes is not None:
                sizes = [total + own for total, own in zip(sizes, written.sizes, strict=True)]
    return {"folders": names} | (encoding.described(left, *sizes) if encoding.lossy else {})


def write_webdataset(raw: RawDataset, images: Iterable[Exported], folder: Path) -> dict[str, Any]:
    """Writes ``shard-000000.tar``, …, each with ``000000.cls`` and ``000000.png`` per image.

    The bytes depend only on the images: there are no times or owners, and the order is that of the
    indices.
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
