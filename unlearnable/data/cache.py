"""Every image of a dataset, decoded once: in memory, or memory-mapped from a folder."""

from __future__ import annotations

import json
import math
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
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
from .fingerprint import digest_of_images, image_key, thumbnail
from .image import Pixels, ResizeCrop
from .raw import RawDataset, check_labels

_STORE, _IMAGES, _INDEX = "store.json", "images.bin", "index.safetensors"
_BUILDING = ".unlearnable-building"
_FORMAT = "unlearnable-images"
_PEEK = 64  # images that are compared when a store is used again
_MANY = 2000  # images from which decoding them in workers pays


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
    thumbnails: Pixels
    classes: list[str] | None
    num_classes: int
    fit: ResizeCrop | None
    name: str

    @property
    def digest(self) -> str:
        """Of all keys and labels in order: the dataset's fingerprint."""
        return digest_of_images(self.keys, self.labels.numpy())


class _Decoded(NamedTuple):
    pixels: Pixels
    label: Any
    key: int
    thumbnail: Pixels


class _Decoder(Dataset[_Decoded]):
    def __init__(self, raw: RawDataset, fit: ResizeCrop | None) -> None:
        self.raw, self.fit = raw, fit

    def __len__(self) -> int:
        return len(self.raw)

    def __getitem__(self, index: int) -> _Decoded:
        item = self.raw[index]
        pixels = item.pixels if self.fit is None else self.fit(item.pixels)
        return _Decoded(pixels, item.label, image_key(item.pixels), thumbnail(item.pixels))


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
        ValueError: Sizes vary and no ``image_size`` is given; labels are no class indices; the
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
    images: Pixels | None = None

    def keep(index: int, pixels: Pixels) -> None:
        nonlocal images
        if images is None:
            images = np.empty((len(decoder), *pixels.shape), dtype=np.uint8)
        if len(pixels) > images.shape[1]:
            images = np.repeat(images, 3, axis=1)  # the first colour image among grey ones
        images[index] = pixels

    labels, keys, thumbnails = _decode_all(decoder, keep, progress, workers=0)
    assert images is not None
    return _store_of(decoder, torch.from_numpy(images), labels, keys, thumbnails)


def _decode_all(
    decoder: _Decoder, keep: Callable[[int, Pixels], None], progress: bool, *, workers: int
) -> tuple[NDArray[np.int64], NDArray[np.uint64], Pixels]:
    """Hands every image to ``keep``; returns labels, keys and thumbnails."""
    count = len(decoder)
    keys = np.empty(count, dtype=np.uint64)
    thumbnails = np.empty((count, 3, 4, 4), dtype=np.uint8)
    labels: list[Any] = []
    first: Pixels | None = None
    bar = tqdm(
        _decoded(decoder, workers),
        total=count,
        desc="reading images",
        disable=None if progress else True,
        delay=2,
    )
    for index, item in enumerate(bar):
        first = item.pixels if first is None else first
        if item.pixels.shape[1:] != first.shape[1:]:
            raise ValueError(
                f"expected images of one size, got {_size(first)} for image 0 and "
                f"{_size(item.pixels)} for image {index}; pass image_size= (--image-size) to "
                f"resize and crop them all"
            )
        keep(index, item.pixels)
        labels.append(item.label)
        keys[index], thumbnails[index] = item.key, item.thumbnail
    return check_labels(labels, decoder.raw.classes), keys, thumbnails


def _decoded(decoder: _Decoder, workers: int) -> Iterator[_Decoded]:
    if not workers:
        yield from (decoder[index] for index in range(len(decoder)))
        return
    loader: DataLoader[_Decoded] = DataLoader(
        decoder,
        batch_size=16,
        num_workers=workers,
        collate_fn=list,
        generator=torch.Generator(),  # else it draws from the global one
    )
    for batch in loader:
        yield from batch


def _store_of(
    decoder: _Decoder,
    images: Tensor,
    labels: NDArray[np.int64],
    keys: NDArray[np.uint64],
    thumbnails: Pixels,
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
    first = decoder[0].pixels.shape
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
) -> tuple[NDArray[np.int64], NDArray[np.uint64], Pixels, NDArray[np.uint32]]:
    each = math.prod(shape[1:])
    checksums = np.empty(shape[0], dtype=np.uint32)
    workers = min(8, os.cpu_count() or 1) if shape[0] >= _MANY else 0
    with path.open("wb") as file:

        def keep(index: int, pixels: Pixels) -> None:
            if len(pixels) > shape[1]:
                raise _Colour
            data = np.broadcast_to(pixels, shape[1:]).tobytes()
            checksums[index] = zlib.crc32(data)
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
        whole = described["digest"] == digest_of_images(keys, labels) and size == math.prod(shape)
        lengths = {len(tensor) for tensor in index.values()} | set(shape[:1])
        whole = whole and len(shape) == 4 and len(lengths) == 1 and "checksums" in index
    except (KeyError, TypeError, ValueError, OSError):
        whole = False
    if not whole:
        raise ArtefactError(
            f"expected the images that {folder / _STORE} describes, found others; delete {folder}"
        )
    fit = None if decoder.fit is None else list(decoder.fit)
    other = (
        f"expected the images of this dataset in {folder}, found another one's ({{}}); choose "
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
        if item.key != keys[number] or item.label != labels[number]:
            raise ValueError(other.format(f"image {number} differs"))
        if zlib.crc32(pixels[number].tobytes()) != index["checksums"][number]:
            raise ArtefactError(f"expected image {number} of {folder} whole; delete the folder")
    return _store_of(
        decoder, torch.from_numpy(pixels), labels.copy(), keys.copy(), thumbnails.copy()
    )


def _size(pixels: Pixels) -> str:
    return f"{pixels.shape[2]}x{pixels.shape[1]}"
