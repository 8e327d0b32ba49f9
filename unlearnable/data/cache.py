"""Every image of a dataset, decoded once: in memory, or memory-mapped from a folder."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import os
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from ..engine.device import usable_cores
from ..errors import ArtefactError
from ..io.files import claim_folder, is_ours, locked, write_json
from ..io.mapped import map_file
from ..io.safetensors import map_tensors, write_tensors
from .batches import RawBatch
from .fingerprint import digest_of_images, image_keys, thumbnail
from .image import Images, ResizeCrop
from .labels import check_labels
from .many_photos import bad_photos, few_at_once
from .photo import load_opened, open_photo
from .raw import RawDataset

_STORE, _IMAGES, _INDEX = "store.json", "images.bin", "index.safetensors"
_BUILDING = ".unlearnable-building"
_FORMAT = "unlearnable-images"
_PEEK = 64  # images that are compared when a store is used again
_MANY = 2000  # images from which decoding them in worker processes pays
# Processes that are not forked run the caller's script again, and get what can be pickled.
_FORKS = sys.platform == "linux"
_PARALLEL = min(8, usable_cores())  # threads or processes
_AHEAD = 32  # photos that threads may have decoded before they are taken


class ImageStore(NamedTuple):
    """Every image of a dataset, decoded once."""

    images: Tensor  # uint8, (N, C, H, W), on the CPU; C is 1 where all images are grey, else 3
    labels: Tensor  # int64, (N,)
    keys: NDArray[np.uint64]  # (N,), one per image as it was before any resize
    thumbnails: Images  # uint8, (N, 3, 4, 4)
    classes: list[str] | None
    num_classes: int
    fit: ResizeCrop | None  # the resize and crop that was applied
    name: str  # of the dataset's class

    @property
    def digest(self) -> str:
        """The dataset's fingerprint: a digest of all keys and labels in order."""
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

    def check(self, labels: Sequence[Any]) -> NDArray[np.int64]:
        """Labels as class indices; all 0 where there are none."""
        if not self.raw.labelled:
            return np.zeros(len(labels), np.int64)
        return check_labels(labels, self.raw.classes)

    def in_order(self, workers: int) -> Iterator[_Decoded]:
        """All images, decoded in threads or ``workers`` processes where that is safe and pays."""
        indices = range(len(self))
        if self.raw.holds_arrays:
            yield from map(self._decoded, self.raw.batches(indices))
        elif self.raw.reads_photos:
            yield from self._photos()
        elif workers:
            loader: DataLoader[_Decoded] = DataLoader(
                self,
                batch_size=16,
                num_workers=workers,
                collate_fn=list,
                generator=torch.Generator(),  # else it draws from the global one
                multiprocessing_context="fork",
            )
            yield from itertools.chain.from_iterable(loader)
        else:
            yield from map(self.__getitem__, indices)

    def _photos(self) -> Iterator[_Decoded]:
        """All photos; an error names every bad one, once all have been read."""
        bad: list[Exception] = []
        with ThreadPoolExecutor(_PARALLEL) as pool:
            for start in range(0, len(self), _AHEAD):
                for found in pool.map(self._photo, range(len(self))[start : start + _AHEAD]):
                    if isinstance(found, Exception):
                        bad.append(found)
                    elif not bad:
                        yield found
        if len(bad) == 1:
            raise bad[0]
        if bad:
            raise bad_photos(len(self), [str(error) for error in bad])

    def _photo(self, index: int) -> _Decoded | Exception:
        """A photo that is decoded in a thread, or what is wrong with it."""
        with contextlib.ExitStack() as turn:

            def load(path: str) -> Image.Image:
                with open_photo(path) as image:
                    turn.enter_context(few_at_once(image.size))
                    return load_opened(image, path)

            try:
                return self._decoded(next(self.raw.read_by(load).batches([index])))
            except (OSError, ValueError) as error:
                return error

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
    """Decodes every image of a dataset, in any form that :class:`RawDataset` accepts, once.

    Images are resized and centre-cropped to ``image_size``, a side or (height, width); without it,
    all images must have the same size. They are kept in memory or in ``folder``, from which they
    can be reused; raises ``ValueError`` if it contains another dataset's images.
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
    """Estimated memory for all images of a dataset, based on the first one."""
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

    index = _decode_all(decoder, keep, progress, workers=0)
    assert images is not None
    return _store_of(decoder, images, index)


def _decode_all(
    decoder: _Decoder, keep: Callable[[int, Images], None], progress: bool, *, workers: int
) -> dict[str, NDArray[Any]]:
    """Labels, keys and thumbnails; images go to ``keep``, batches with their first one's index."""
    count = len(decoder)
    labels: list[Any] = []
    keys = np.empty(count, dtype=np.uint64)
    thumbnails = np.empty((count, 3, 4, 4), dtype=np.uint8)
    first: tuple[int, ...] | None = None
    shown = None if progress else True
    with tqdm(total=count, desc="reading images", disable=shown, delay=2) as bar:
        for batch in decoder.in_order(workers):
            index, shape = len(labels), batch.pixels.shape[2:]
            first = first or shape
            if shape != first:
                raise ValueError(
                    f"expected images of one size, got {first[1]}x{first[0]} for image 0 and "
                    f"{shape[1]}x{shape[0]} for image {index}; resize them, or pass image_size= "
                    f"(--image-size), such as image_size=64, to resize and crop them all here"
                )
            if not labels:  # before all others are decoded
                decoder.check(batch.labels)
            keep(index, batch.pixels)
            labels += batch.labels
            part = slice(index, len(labels))
            keys[part], thumbnails[part] = batch.keys, batch.thumbnails
            bar.update(len(batch.labels))
    return {"labels": decoder.check(labels), "keys": keys, "thumbnails": thumbnails}


def _store_of(decoder: _Decoder, images: Images, index: dict[str, NDArray[Any]]) -> ImageStore:
    raw, labels = decoder.raw, torch.from_numpy(index["labels"])
    count = int(labels.max()) + 1 if raw.classes is None else len(raw.classes)
    known = (torch.from_numpy(images), labels, index["keys"], index["thumbnails"])
    return ImageStore(*known, raw.classes, count, decoder.fit, raw.name)


class _Colour(Exception):
    """A colour image came after grey ones: the file has too few channels."""


def _write_store(decoder: _Decoder, folder: Path, progress: bool) -> None:
    partial = folder / f".{_IMAGES}.partial"
    shape = (len(decoder), *decoder[0].pixels.shape[1:])
    (folder / _BUILDING).touch()
    try:
        try:
            index = _write_images(decoder, partial, shape, progress)
        except _Colour:
            shape = (len(decoder), 3, *shape[2:])
            index = _write_images(decoder, partial, shape, progress)
        write_tensors(folder / _INDEX, index, _FORMAT)
        partial.replace(folder / _IMAGES)
        digest = digest_of_images(index["keys"], index["labels"])
        described = {"format": _FORMAT, "shape": shape, "digest": digest, "fit": decoder.fit}
        write_json(folder / _STORE, described)  # last: now it is a store
    finally:
        partial.unlink(missing_ok=True)
        (folder / _BUILDING).unlink()


def _write_images(
    decoder: _Decoder, path: Path, shape: tuple[int, ...], progress: bool
) -> dict[str, NDArray[Any]]:
    """Writes all images to a new file; what is kept of them besides, as arrays by name."""
    count = math.prod(shape)  # bytes
    checksums = np.empty(shape[0], dtype=np.uint32)
    workers = _PARALLEL if _FORKS and shape[0] >= _MANY else 0
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
                os.posix_fallocate(file.fileno(), 0, count)
            except OSError as error:
                problem = f"not enough space for {count:,} bytes of images: {error.strerror}"
                raise OSError(error.errno, problem, str(path.parent)) from error
        index = _decode_all(decoder, keep, progress, workers=workers)
        file.flush()
        os.fsync(file.fileno())
    return index | {"checksums": checksums}


def _open_store(decoder: _Decoder, folder: Path) -> ImageStore:
    index = map_tensors(folder / _INDEX)
    try:
        described = json.loads((folder / _STORE).read_text(encoding="utf-8"))
        shape = tuple(described["shape"])
        keys, labels = index["keys"], index["labels"]
        size = (folder / _IMAGES).stat().st_size
        sound = described["digest"] == digest_of_images(keys, labels) and size == math.prod(shape)
        lengths = {len(tensor) for tensor in index.values()} | set(shape[:1])
        sound = sound and len(shape) == 4 and len(lengths) == 1
        sound = sound and {"thumbnails", "checksums"} <= index.keys()
    except (KeyError, TypeError, ValueError, OSError):
        sound = False
    if not sound:
        raise ArtefactError(
            f"expected the images described in {folder / _STORE}, found others; delete {folder}"
        )

    def another(difference: str) -> ValueError:
        return ValueError(
            f"expected the images of this dataset in {folder}, found those of another one "
            f"({difference}); choose another folder, or delete this one"
        )

    fit = None if decoder.fit is None else list(decoder.fit)
    if described["fit"] != fit:
        raise another(f"resized to {described['fit']} instead of {fit}")
    if shape[0] != len(decoder):
        raise another(f"{shape[0]:,} images instead of {len(decoder):,}")
    if decoder.raw.labelled and decoder.raw.stated_labels() not in (None, labels.tolist()):
        raise another("labels differ")
    # Copy-on-write, because torch wants to be able to write; nothing does.
    pixels = map_file(folder / _IMAGES, np.uint8, "c", shape)
    for number in np.unique(np.linspace(0, shape[0] - 1, _PEEK).astype(int)).tolist():
        item = decoder[number]
        if item.keys != [keys[number]] or decoder.check(item.labels) != [labels[number]]:
            raise another(f"image {number} differs")
        if zlib.crc32(pixels[number].tobytes()) != index["checksums"][number]:
            raise ArtefactError(
                f"expected image {number} in {folder} unchanged, found different pixels; delete "
                f"the folder"
            )
    return _store_of(decoder, pixels, {name: tensor.copy() for name, tensor in index.items()})
