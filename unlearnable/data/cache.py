"""Every image of a dataset, decoded once: in memory, or memory-mapped from a folder."""

from __future__ import annotations

import itertools
import json
import math
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from ..errors import ArtefactError
from ..io.files import claim_folder, is_ours, locked, write_json
from ..io.safetensors import map_tensors, write_tensors
from .batches import RawBatch
from .fingerprint import digest_of_images, image_keys, thumbnail
from .image import Images, ResizeCrop
from .raw import RawDataset, check_labels

_STORE, _IMAGES, _INDEX = "store.json", "images.bin", "index.safetensors"
_BUILDING = ".unlearnable-building"
_FORMAT = "unlearnable-images"
_PEEK = 64  # images that are compared when a store is used again
_MANY = 2000  # images from which decoding them in worker processes pays
_PARALLEL = min(8, os.cpu_count() or 1)  # threads or processes
_AHEAD = 32  # photos that threads may have decoded before they are taken


class ImageStore(NamedTuple):
    """Every image of a dataset, decoded once.

    Attributes:
        images: uint8, (N, C, H, W), on the CPU; C is 1 where all images are grey, else 3.
        labels: int64, (N,).
        keys: uint64, (N,), one per image as it was before any resize.
        thumbnails: uint8, (N, 3, 4, 4).
        classes: Names, or None.
        num_classes: Number of classes.
        fit: The resize and crop that was applied, or None.
        name: The dataset's class.
    """

    images: Tensor
    labels: Tensor
    keys: NDArray[np.uint64]
    thumbnails: Images
    classes: list[str] | None
    num_classes: int
    fit: ResizeCrop | None
    name: str

    @property
    def digest(self) -> str:
        """Of all keys and labels in order: the dataset's fingerprint."""
        return digest_of_images(self.keys, self.labels.numpy())


class _Decoded(NamedTuple):
    """What is kept of consecutive images of one size; shapes as in :class:`ImageStore`."""

    pixels: Images
    labels: list[Any]
    keys: list[int]
    thumbnails: Images


class _Decoder(Dataset[_Decoded]):
    def __init__(self, raw: RawDataset, fit: ResizeCrop | None) -> None:
        self.raw, self.fit = raw, fit

    def __len__(self) -> int:
        return len(self.raw)

    def __getitem__(self, index: int) -> _Decoded:
        return self._decoded(next(self.raw.batches([index])))

    def in_order(self, workers: int) -> Iterator[_Decoded]:
        """All images, decoded in threads or ``workers`` processes where that is safe and pays."""
        indices = range(len(self))
        if self.raw.holds_arrays:
            yield from map(self._decoded, self.raw.batches(indices))
        elif self.raw.reads_photos:
            with ThreadPoolExecutor(_PARALLEL) as pool:
                for start in range(0, len(self), _AHEAD):
                    yield from pool.map(self.__getitem__, indices[start : start + _AHEAD])
        elif workers:
            loader: DataLoader[_Decoded] = DataLoader(
                self,
                batch_size=16,
                num_workers=workers,
                collate_fn=list,
                generator=torch.Generator(),  # else it draws from the global one
            )
            yield from itertools.chain.from_iterable(loader)
        else:
            yield from map(self.__getitem__, indices)

    def _decoded(self, batch: RawBatch) -> _Decoded:
        pixels = batch.pixels
        thumbnails = np.stack([thumbnail(image) for image in pixels])
        keys = image_keys(pixels)
        if self.fit is not None:
            pixels = np.stack([self.fit(image) for image in pixels])
        return _Decoded(pixels, batch.labels, keys, thumbnails)


def read_images(
    dataset: Any,
    image_size: int | Sequence[int] | None = None,
    *,
    folder: str | Path | None = None,
    progress: bool = False,
) -> ImageStore:
    """Decodes every image of a dataset once.

    Args:
        dataset: As for :class:`~unlearnable.data.raw.RawDataset`.
        image_size: Side, or (height, width), that images are resized and centre-cropped to; needed
            where their sizes vary.
        folder: Keep the images here, and use them again where they are kept already; then memory
            does not grow with their number. None keeps them in memory.
        progress: Show a bar where this takes long.

    Raises:
        TypeError: Items are not raw images.
        ValueError: Sizes vary and no ``image_size`` is given; labels are not class indices; the
            folder holds another dataset's images.
        OSError: There is no room in the folder.
    """
    decoder = _Decoder(RawDataset(dataset), ResizeCrop.parse(image_size))
    if folder is None:
        return _in_memory(decoder, progress)
    folder = Path(folder)
    if not (folder / _BUILDING).exists():
        claim_folder(folder, _STORE)
    with locked(folder, wait=True):
        if (folder / _BUILDING).exists() and not is_ours(folder, _STORE):
            for name in (f".{_IMAGES}.partial", _IMAGES, _INDEX, f".{_STORE}.partial", _BUILDING):
                (folder / name).unlink(missing_ok=True)  # left by a build that was killed
        claim_folder(folder, _STORE)
        if not is_ours(folder, _STORE):
            _write_store(decoder, folder, progress)
    return _open_store(decoder, folder)


def bytes_of_images(dataset: Any, image_size: int | Sequence[int] | None = None) -> int:
    """How much memory all images of a dataset would take, judged by the first one."""
    decoder = _Decoder(RawDataset(dataset), ResizeCrop.parse(image_size))
    return len(decoder) * decoder[0].pixels.nbytes


def _in_memory(decoder: _Decoder, progress: bool) -> ImageStore:
    images: Images | None = None

    def keep(index: int, pixels: Images) -> None:
        nonlocal images
        if images is None:
            images = np.empty((len(decoder), *pixels.shape[1:]), dtype=np.uint8)
        if pixels.shape[1] > images.shape[1]:
            images = np.repeat(images, 3, axis=1)  # the first colour image among grey ones
        images[index : index + len(pixels)] = pixels

    labels, keys, thumbnails = _decode_all(decoder, keep, progress, workers=0)
    assert images is not None
    return _store_of(decoder, torch.from_numpy(images), labels, keys, thumbnails)


def _decode_all(
    decoder: _Decoder, keep: Callable[[int, Images], None], progress: bool, *, workers: int
) -> tuple[NDArray[np.int64], NDArray[np.uint64], Images]:
    """Hands all images to ``keep``, the first one's index with each batch of them.

    Returns:
        Labels, keys and thumbnails.
    """
    count = len(decoder)
    keys = np.empty(count, dtype=np.uint64)
    thumbnails = np.empty((count, 3, 4, 4), dtype=np.uint8)
    labels: list[Any] = []
    first: tuple[int, ...] | None = None
    shown = None if progress else True
    with tqdm(total=count, desc="reading images", disable=shown, delay=2) as bar:
        for batch in decoder.in_order(workers):
            index, shape = len(labels), batch.pixels.shape[2:]
            first = first or shape
            if shape != first:
                raise ValueError(
                    f"expected images of one size, got {_size(first)} for image 0 and "
                    f"{_size(shape)} for image {index}; pass image_size= (--image-size) to resize "
                    f"and crop them all"
                )
            keep(index, batch.pixels)
            labels += batch.labels
            part = slice(index, len(labels))
            keys[part], thumbnails[part] = batch.keys, batch.thumbnails
            bar.update(len(batch.labels))
    return check_labels(labels, decoder.raw.classes), keys, thumbnails


def _store_of(
    decoder: _Decoder,
    images: Tensor,
    labels: NDArray[np.int64],
    keys: NDArray[np.uint64],
    thumbnails: Images,
) -> ImageStore:
    classes = decoder.raw.classes
    return ImageStore(
        images,
        torch.from_numpy(labels),
        keys,
        thumbnails,
        classes,
        len(classes) if classes is not None else int(labels.max()) + 1,
        decoder.fit,
        decoder.raw.name,
    )


# --- on disk -------------------------------------------------------------------------------------
class _Colour(Exception):
    """A colour image came after grey ones: the file has too few channels."""


def _write_store(decoder: _Decoder, folder: Path, progress: bool) -> None:
    partial = folder / f".{_IMAGES}.partial"
    first = decoder[0].pixels.shape[1:]
    (folder / _BUILDING).touch()
    try:
        try:
            shape = (len(decoder), *first)
            written = _write_images(decoder, partial, shape, progress)
        except _Colour:
            shape = (len(decoder), 3, *first[1:])
            written = _write_images(decoder, partial, shape, progress)
        labels, keys, thumbnails, checksums = written
        index: dict[str, NDArray[Any]] = {"labels": labels, "keys": keys, "thumbnails": thumbnails}
        write_tensors(folder / _INDEX, index | {"checksums": checksums}, _FORMAT)
        partial.replace(folder / _IMAGES)
        described = {
            "format": _FORMAT,
            "shape": list(shape),
            "digest": digest_of_images(keys, labels),
        }
        fit = None if decoder.fit is None else list(decoder.fit)
        write_json(folder / _STORE, described | {"fit": fit})  # last: now it is a store
    finally:
        partial.unlink(missing_ok=True)
        (folder / _BUILDING).unlink()


def _write_images(
    decoder: _Decoder, path: Path, shape: tuple[int, ...], progress: bool
) -> tuple[NDArray[np.int64], NDArray[np.uint64], Images, NDArray[np.uint32]]:
    each = math.prod(shape[1:])
    checksums = np.empty(shape[0], dtype=np.uint32)
    workers = _PARALLEL if shape[0] >= _MANY else 0
    with path.open("wb") as file:

        def keep(index: int, pixels: Images) -> None:
            if pixels.shape[1] > shape[1]:
                raise _Colour
            for place, image in enumerate(pixels, index):
                data = np.broadcast_to(image, shape[1:]).tobytes()
                checksums[place] = zlib.crc32(data)
                file.write(data)

        if hasattr(os, "posix_fallocate"):
            try:
                os.posix_fallocate(file.fileno(), 0, shape[0] * each)
            except OSError as error:
                raise OSError(
                    error.errno,
                    f"no room for {shape[0] * each:,} bytes of images: {error.strerror}",
                    str(path.parent),
                ) from error
        labels, keys, thumbnails = _decode_all(decoder, keep, progress, workers=workers)
        file.flush()
        os.fsync(file.fileno())
    return labels, keys, thumbnails, checksums


def _open_store(decoder: _Decoder, folder: Path) -> ImageStore:
    index = map_tensors(folder / _INDEX)
    try:
        described = json.loads((folder / _STORE).read_text(encoding="utf-8"))
        shape = tuple(described["shape"])
        keys, labels, thumbnails = index["keys"], index["labels"], index["thumbnails"]
        size = (folder / _IMAGES).stat().st_size
        sound = described["digest"] == digest_of_images(keys, labels) and size == math.prod(shape)
        lengths = {len(tensor) for tensor in index.values()} | set(shape[:1])
        sound = sound and len(shape) == 4 and len(lengths) == 1 and "checksums" in index
    except (KeyError, TypeError, ValueError, OSError):
        sound = False
    if not sound:
        raise ArtefactError(
            f"expected the images that {folder / _STORE} describes, found others; delete {folder}"
        )
    fit = None if decoder.fit is None else list(decoder.fit)
    other = (
        f"expected the images of this dataset in {folder}, found those of another ({{}}); choose "
        f"another folder, or delete this one"
    )
    if described["fit"] != fit:
        raise ValueError(other.format(f"resized to {described['fit']} instead of {fit}"))
    if shape[0] != len(decoder):
        raise ValueError(other.format(f"{shape[0]:,} images instead of {len(decoder):,}"))
    stated = decoder.raw.stated_labels()
    if stated is not None and stated != labels.tolist():
        raise ValueError(other.format("labels differ"))
    # Copy-on-write, because torch wants to be able to write; nothing does.
    pixels = np.memmap(folder / _IMAGES, np.uint8, "c", shape=shape).view(np.ndarray)
    for number in np.unique(np.linspace(0, shape[0] - 1, _PEEK).astype(int)).tolist():
        item = decoder[number]
        if item.keys != [keys[number]] or item.labels != [labels[number]]:
            raise ValueError(other.format(f"image {number} differs"))
        if zlib.crc32(pixels[number].tobytes()) != index["checksums"][number]:
            raise ArtefactError(
                f"expected image {number} of {folder} as it was stored; delete the folder"
            )
    return _store_of(
        decoder, torch.from_numpy(pixels), labels.copy(), keys.copy(), thumbnails.copy()
    )


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[1]}x{shape[0]}"
