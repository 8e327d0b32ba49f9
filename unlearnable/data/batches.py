"""Raw images read in batches: from arrays at once where datasets hold them, else one by one."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from PIL import Image

from .array_backed import Held, gather_images
from .image import Images, Pixels, as_batch, bytes_of, form_of, to_pil, to_pils

_TOGETHER = 1 << 19  # bytes of pixels that are worked on at once: they stay in the cache


class Item(NamedTuple):
    """One raw image: canonical pixels, label, and a function from pixels to the caller's type."""

    pixels: Pixels
    label: Any
    restore: Callable[[Pixels], Any]
    whole: Any = None  # the dataset's item without transforms, unless it is a pair of these


class Read(NamedTuple):
    """An item as read: its image is a plain picture or canonical pixels."""

    image: Pixels | Image.Image
    label: Any
    restore: Callable[[Pixels], Any]
    whole: Any


class RawBatch(NamedTuple):
    """Raw images of one size."""

    indices: Sequence[int]  # places in the dataset
    pixels: Images  # uint8, (B, 1 or 3, H, W)
    labels: list[Any]  # as the dataset gives them
    restores: list[Callable[[Pixels], Any]]  # per image, to the caller's type
    wholes: list[Any] | None = None  # items without transforms; None where all are pairs

    def part(self, places: Sequence[int]) -> RawBatch:
        """The part of the batch at ``places``."""
        indices = [self.indices[place] for place in places]
        labels = [self.labels[place] for place in places]
        restores = [self.restores[place] for place in places]
        wholes = None if self.wholes is None else [self.wholes[place] for place in places]
        return RawBatch(indices, self.pixels[places], labels, restores, wholes)

    def images(self) -> list[Any]:
        """The images in the form in which the dataset returns them."""
        if all(restore is to_pil for restore in self.restores):
            return to_pils(self.pixels)
        return [restore(pixels) for restore, pixels in zip(self.restores, self.pixels, strict=True)]


def read_batches(
    indices: Sequence[int],
    leaves: Sequence[int],
    places: Sequence[int],
    datasets: Sequence[Any],
    held: Mapping[int, Held],
    read: Callable[[int], Read],
    alone: Collection[int] = (),
) -> Iterator[RawBatch]:
    """Raw images in the requested order, in batches of one size that fit into the cache.

    Image ``indices[i]`` is number ``places[i]`` of ``datasets[leaves[i]]``, which has no
    transforms. ``held`` has the arrays of datasets that hold some; for others, ``read`` reads an
    image by its index. Those of ``alone`` are read one by one, each when its batch is asked for.
    """

    def group(leaf: int) -> Any:  # arrays of images of one shape are read together
        return held[leaf].images.shape[1:] if leaf in held else leaf

    runs = [len(indices)]
    if len(set(leaves)) != 1:
        runs = [len(list(run)) for _, run in itertools.groupby(leaves, group)]
    start = 0
    for length in runs:
        part, leaf = slice(start, start + length), leaves[start]
        start += length
        if leaf in held:
            yield from _from_arrays(indices[part], leaves[part], places[part], held)
        elif hasattr(type(datasets[leaf]), "raw_batches"):  # of a ProtectedDataset
            rest = indices[part]
            for batch in datasets[leaf].raw_batches(places[part]):
                yield batch._replace(indices=rest[: len(batch.labels)])
                rest = rest[len(batch.labels) :]
        else:
            step = 1 if leaf in alone else length
            for first in range(part.start, part.stop, step):
                yield from _from_items(indices[first : first + step], read)


def _from_arrays(
    indices: Sequence[int], leaves: Sequence[int], places: Sequence[int], held: Mapping[int, Held]
) -> Iterator[RawBatch]:
    step = max(1, _TOGETHER // math.prod(held[leaves[0]].images.shape[1:]))
    for start in range(0, len(indices), step):
        part = slice(start, start + step)
        images, labels = gather_images(held, leaves[part], places[part])
        yield RawBatch(indices[part], images, labels, [to_pil] * len(labels))


def _from_items(indices: Sequence[int], read: Callable[[int], Read]) -> Iterator[RawBatch]:
    run: list[Read] = []
    form: Any = None
    most = 1
    # Nothing that was yielded is held on to: a large photo goes when its batch is done.
    for place, index in enumerate(indices):
        item = read(index)
        if run and (len(run) >= most or form_of(item.image) != form):
            yield _together(indices[place - len(run) : place], run)
        if not run:
            form, most = form_of(item.image), _TOGETHER // max(1, bytes_of(item.image))
        run.append(item)
        del item
        if not most:
            yield _together(indices[place : place + 1], run)
    if run:
        yield _together(indices[len(indices) - len(run) :], run)


def _together(indices: Sequence[int], items: list[Read]) -> RawBatch:
    """A batch of the items, which the list no longer holds then."""
    images, labels, restores, wholes = map(list, zip(*items, strict=True))
    kept = None if all(whole is None for whole in wholes) else wholes
    items.clear()
    return RawBatch(indices, as_batch(images), labels, restores, kept)
