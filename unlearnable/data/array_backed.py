"""Images that a dataset holds in one array: many are read at once, without Pillow."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchvision.datasets import CIFAR10, MNIST, STL10, SVHN, USPS

from .image import Images, interleaved, planar
from .shapes import Shapes


class Held(NamedTuple):
    """The arrays that a dataset holds and returns as PIL images (mode L or RGB) and labels."""

    images: Images  # all of them, (N, 1 or 3, H, W): a view
    labels: Callable[[Sequence[int]], list[Any]]  # of items, by their indices


def held_by(dataset: Any) -> Held | None:
    """The arrays behind a dataset without transforms; None if its items are read differently.

    A dataset qualifies if its ``__getitem__`` is known here and its arrays, which are looked up in
    each call, have the right types.
    """
    known = _KNOWN.get(getattr(type(dataset), "__getitem__", None))
    if known is None:
        return None
    axis, name, read = known
    images, values = _planes(dataset.data, axis), getattr(dataset, name)
    return None if images is None else Held(images, lambda index: read(values, index))


def gather_images(
    held: Mapping[int, Held], leaves: Sequence[int], places: Sequence[int]
) -> tuple[Images, list[Any]]:
    """Gathers images of one shape and their labels from the datasets ``leaves`` at ``places``."""
    first = held[leaves[0]]
    if len(held) == 1:
        return planar(first.images[places]), first.labels(places)
    images = np.empty((len(leaves), *first.images.shape[1:]), np.uint8)
    labels: list[Any] = [None] * len(leaves)
    for leaf in set(leaves):
        mine = [number for number, own in enumerate(leaves) if own == leaf]
        wanted = [places[number] for number in mine]
        images[mine] = held[leaf].images[wanted]
        for number, label in zip(mine, held[leaf].labels(wanted), strict=True):
            labels[number] = label
    return images, labels


def gives_what_it_holds(dataset: Any) -> bool:
    """Whether a sample of items equals the arrays; other torchvision versions may differ."""
    held = held_by(dataset)
    if held is None or not len(dataset):
        return False
    sample = sorted({0, len(dataset) // 2, len(dataset) - 1})
    for pixels, label, index in zip(
        interleaved(held.images[sample]), held.labels(sample), sample, strict=True
    ):
        image, own = dataset[index]
        if not np.array_equal(np.asarray(image).reshape(pixels.shape), pixels) or own != label:
            return False
    return True


def _planes(data: Any, axis: int | None) -> Images | None:
    """A view of uint8 images, (N, 3 or 1, H, W): colours along the axis, or greys without one."""
    ndim = 3 if axis is None else 4
    if type(data) is Tensor:  # of greys only
        sound = axis is None and data.dtype == torch.uint8 and data.device.type == "cpu"
    else:
        sound = type(data) in (np.ndarray, np.memmap) and data.dtype == np.uint8
    if not sound or data.ndim != ndim or (axis is not None and data.shape[axis] != 3):
        return None
    images = np.asarray(data)
    return images[:, None] if axis is None else np.moveaxis(images, axis, 1)


def _as_they_are(values: Any, index: Sequence[int]) -> list[Any]:
    return [values[i] for i in index]


def _as_int(values: Any, index: Sequence[int]) -> list[Any]:
    if values is None:  # STL10's unlabelled split
        return [None] * len(index)
    if isinstance(values, (np.ndarray, Tensor)) and values.ndim == 1:
        return [int(value) for value in values[list(index)].tolist()]
    return [int(values[i]) for i in index]


# The way that items are read -> axis of colours in the array, and where and how labels are found.
_KNOWN: dict[Any, tuple[int | None, str, Callable[..., list[Any]]]] = {
    CIFAR10.__getitem__: (3, "targets", _as_they_are),
    MNIST.__getitem__: (None, "targets", _as_int),
    STL10.__getitem__: (1, "labels", _as_int),
    SVHN.__getitem__: (1, "labels", _as_int),
    Shapes.__getitem__: (3, "targets", _as_they_are),
    USPS.__getitem__: (None, "targets", _as_int),
}
