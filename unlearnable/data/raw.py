"""Any map-style image dataset as raw pixels, labels and one key per image.

A dataset is taken apart into its leaves (below ``Subset`` and ``ConcatDataset``); each leaf is
copied shallowly and its transforms are taken off the copy. The caller's object is never changed.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import ConcatDataset, Dataset, Subset, TensorDataset
from torchvision.datasets.folder import DatasetFolder, default_loader
from torchvision.datasets.vision import StandardTransform

from .array_backed import gives_what_it_holds, held_by
from .batches import Item, RawBatch, read_batches
from .fingerprint import image_keys
from .huggingface import Transforms, from_hf, is_hf_dataset, refuse_collections
from .image import canonical
from .image_folder import file_of
from .photo import load_photo, named


def _transforms_of(dataset: Any) -> Transforms:
    """What ``dataset`` does to an (image, label) pair."""
    joint = getattr(dataset, "transforms", None)
    if callable(joint) and not isinstance(joint, StandardTransform):
        return joint
    parts = (getattr(dataset, name, None) for name in ("transform", "target_transform"))
    return StandardTransform(*parts)


def _unchanged(*values: Any) -> Any:
    return values if len(values) > 1 else values[0]


def _lists_files(bare: Any) -> bool:
    """Whether items are files that a loader reads, and the labels listed beside them."""
    return getattr(type(bare), "__getitem__", None) is DatasetFolder.__getitem__


def _reads_photos(bare: Any) -> bool:
    """Whether that loader is our own."""
    return _lists_files(bare) and bare.loader is load_photo


def _bare(dataset: Any) -> Any:
    """A shallow copy that applies no transforms; arrays are shared."""
    if hasattr(dataset, "without_transforms"):
        return dataset.without_transforms()
    bare = copy.copy(dataset)
    if getattr(dataset, "loader", None) is default_loader:
        bare.loader = load_photo
    known = ("transform", "target_transform", "transforms")
    names = [name for name in known if getattr(dataset, name, None) is not None]
    for name in names:
        setattr(bare, name, None)
    if names and len(bare):
        try:
            bare[0]
        except TypeError:  # a dataset of the caller's own that calls its transform unasked
            for name in names:
                setattr(bare, name, _unchanged)
    return bare


class _Pairs(Dataset[Any]):
    """A tuple (images, labels) as a dataset."""

    def __init__(self, images: Any, labels: Any) -> None:
        if len(images) != len(labels):
            raise ValueError(
                f"expected as many labels as images, got {len(labels)} and {len(images)}"
            )
        self.images, self.targets = images, labels

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        return self.images[index], self.targets[index]


class RawDataset:
    """A dataset's raw images and labels, and apart from them the transforms it would apply.

    Takes any map-style dataset of (image, label) pairs, a Hugging Face dataset with a column of
    each, or a tuple (images, labels). Images are PIL images, uint8 tensors (1 or 3, H, W) or uint8
    arrays (H, W, 1 or 3).

    Attributes:
        classes: Names of the classes in the order of their indices, or None where unknown.
        name: The dataset's class, for people.
        originals: The datasets that images come from: no ``Subset`` or ``ConcatDataset``.
        holds_arrays: Whether all images lie in arrays, which are read many at once.
    """

    def __init__(self, dataset: Any) -> None:
        if isinstance(dataset, tuple) and len(dataset) == 2:
            dataset = _Pairs(*dataset)
        refuse_collections(dataset)
        if not hasattr(dataset, "__getitem__") or not hasattr(dataset, "__len__"):
            raise TypeError(
                f"expected a map-style dataset with __getitem__ and __len__, got "
                f"{type(dataset).__name__}"
            )
        if len(dataset) == 0:
            raise ValueError(
                f"expected a dataset with images, got an empty {type(dataset).__name__}"
            )
        self.originals: list[Any] = []
        self._leaf_of, self._index_in = self._flatten(dataset)
        self._in_order = self.originals[0] is dataset
        self.originals = [from_hf(x) if is_hf_dataset(x) else x for x in self.originals]
        self._bare = [_bare(leaf) for leaf in self.originals]
        self._holds = [gives_what_it_holds(leaf) for leaf in self._bare]
        self.holds_arrays = all(self._holds)
        self._transforms = [_transforms_of(leaf) for leaf in self.originals]
        named: list[Any] = [getattr(leaf, "classes", None) for leaf in self.originals]
        self.classes: list[str] | None = None
        if all(names is not None for names in named):
            if any(list(names) != list(named[0]) for names in named):
                raise ValueError(
                    "expected the parts of a ConcatDataset to have the same classes in the same "
                    "order, got different ones"
                )
            self.classes = [str(name) for name in named[0]]
        self.name = " + ".join(dict.fromkeys(type(leaf).__name__ for leaf in self.originals))

    def _flatten(self, dataset: Any) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        # Subclasses that read items in a way of their own are leaves.
        read = getattr(type(dataset), "__getitem__", None)
        if isinstance(dataset, Subset) and read is Subset.__getitem__:
            leaf_of, index_in = self._flatten(dataset.dataset)
            chosen = np.asarray(dataset.indices, dtype=np.int64)
            return leaf_of[chosen], index_in[chosen]
        if isinstance(dataset, ConcatDataset) and read is ConcatDataset.__getitem__:
            parts = [self._flatten(part) for part in dataset.datasets]
            return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])
        if not any(leaf is dataset for leaf in self.originals):
            self.originals.append(dataset)
        number = next(n for n, leaf in enumerate(self.originals) if leaf is dataset)
        return np.full(len(dataset), number), np.arange(len(dataset))

    def __len__(self) -> int:
        return len(self._leaf_of)

    @property
    def reads_photos(self) -> bool:
        """Whether all images are files that this package opens itself; threads may do so."""
        return all(map(_reads_photos, self._bare))

    def read_by(self, loader: Callable[[str], Image.Image]) -> RawDataset:
        """The same images; files that this package opens itself are read by this loader."""
        other = copy.copy(self)
        other._bare = [copy.copy(leaf) if _reads_photos(leaf) else leaf for leaf in self._bare]
        for leaf in filter(_reads_photos, other._bare):
            leaf.loader = loader
        return other

    @property
    def num_classes(self) -> int:
        """Number of class names or, where there are none, the largest label plus one."""
        return int(self.labels.max()) + 1 if self.classes is None else len(self.classes)

    def _pair(self, index: int) -> tuple[Any, Any]:
        leaf = self._bare[self._leaf_of[index]]
        try:
            pair = leaf[int(self._index_in[index])]
        except Exception as error:
            path = self.path(index)
            if path is None or str(path) in str(error):
                raise
            raise named(error, path) from error
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise TypeError(
                f"expected {type(leaf).__name__} to give (image, label) pairs, got "
                + type(pair).__name__
                + (f" of {len(pair)}" if isinstance(pair, (tuple, list)) else "")
            )
        return pair[0], pair[1]

    def __getitem__(self, index: int) -> Item:
        return next(self.items([index]))

    def items(self, indices: Sequence[int]) -> Iterator[Item]:
        """Raw images one after the other, read together where that is possible."""
        for batch in self.batches(indices):
            yield from map(Item, batch.pixels, batch.labels, batch.restores)

    def batches(self, indices: Sequence[int]) -> Iterator[RawBatch]:
        """Raw images in the order asked for: runs of one size, and few enough for the cache."""
        indices = list(indices)
        leaves, places = [0] * len(indices), indices
        if not self._in_order:
            leaves, places = self._leaf_of[indices].tolist(), self._index_in[indices].tolist()
        found = {leaf: held_by(self._bare[leaf]) for leaf in set(leaves) if self._holds[leaf]}
        held = {leaf: arrays for leaf, arrays in found.items() if arrays is not None}
        return read_batches(indices, leaves, places, self._bare, held, self._item)

    def _item(self, index: int) -> Item:
        image, label = self._pair(index)
        if image is None:
            raise ValueError(
                f"expected an image in every item, got None for image {index}: it is missing; "
                f"leave such items out, with a Subset or dataset.filter, before anything is learned"
            )
        try:
            pixels, restore = canonical(image)
        except ValueError as error:
            path = self.path(index)
            if path is None:
                raise
            raise ValueError(f"{path}: {error}") from error
        return Item(pixels, label, restore)

    def path(self, index: int) -> Path | None:
        """The file that an image is read from, where its dataset lists files."""
        return file_of(self.originals[self._leaf_of[index]], int(self._index_in[index]))

    def transform(self, index: int, image: Any, label: Any) -> tuple[Any, Any]:
        """What the caller's dataset would make of this image and label."""
        return self._transforms[self._leaf_of[index]](image, label)

    @functools.cached_property
    def labels(self) -> NDArray[np.int64]:
        """Class indices, int64 of shape (N,); read once, by attribute where a sample agrees."""
        found = self.stated_labels()
        if found is None:
            found = [self._pair(index)[1] for index in range(len(self))]
        return check_labels(found, self.classes)

    @functools.cached_property
    def keys(self) -> NDArray[np.uint64]:
        """Keys of all images, before any resize, uint64 of shape (N,); computed once."""
        keys = np.empty(len(self), np.uint64)
        for batch in self.batches(range(len(self))):
            keys[batch.indices] = image_keys(batch.pixels)
        return keys

    def with_keys(self, keys: NDArray[np.uint64]) -> RawDataset:
        """The same dataset, whose :attr:`keys` are known from an earlier reading."""
        known = copy.copy(self)
        known.keys = keys
        return known

    def stated_labels(self) -> list[Any] | None:
        """Labels that the dataset lists, where a sample agrees with its items; else None."""
        columns: list[Any] = [_listed_labels(leaf) for leaf in self._bare]
        leaves, places = self._leaf_of.tolist(), self._index_in.tolist()
        if any(columns[leaf] is None for leaf in set(leaves)):
            return None
        labels = [columns[leaf][place] for leaf, place in zip(leaves, places, strict=True)]
        for index in np.linspace(0, len(self) - 1, 16).astype(int).tolist():
            # Where files are listed, items have these labels: no file is decoded for them.
            files = _lists_files(self._bare[leaves[index]])
            if not files and self._pair(index)[1] != labels[index]:
                return None
        return labels


def _listed_labels(leaf: Any) -> list[Any] | None:
    """Labels of a dataset's items by an attribute of it, or None."""
    if _lists_files(leaf):
        return [label for _, label in leaf.samples]
    if isinstance(leaf, TensorDataset):
        return leaf.tensors[1].tolist()
    for name in ("targets", "labels", "_labels"):
        values: Any = getattr(leaf, name, None)
        if isinstance(values, (list, tuple, np.ndarray, Tensor)):
            if len(values) != len(leaf):
                return None
            return values.tolist() if hasattr(values, "tolist") else list(values)
    return None


def check_labels(labels: Sequence[Any], classes: Sequence[str] | None) -> NDArray[np.int64]:
    """Labels as int64, or a ``ValueError`` that names the one that is not a class index."""
    checked = np.empty(len(labels), dtype=np.int64)
    for index, label in enumerate(labels):
        if isinstance(label, (Tensor, np.ndarray, np.generic)) and label.ndim == 0:
            label = label.item()
        negative = isinstance(label, int) and label < 0
        if negative or isinstance(label, bool) or not isinstance(label, int):
            hint = "; the labels are missing" if label is None else ""
            if negative:
                hint = "; negative labels mark unlabelled images: leave them out with a Subset"
            expected = "expected labels to be class indices 0, 1, 2, …"
            raise ValueError(f"{expected}, got {label!r} for image {index}{hint}")
        checked[index] = label
    if classes is not None and checked.size and checked.max() >= len(classes):
        raise ValueError(
            f"expected labels below the number of classes, {len(classes)}, got {checked.max()}"
        )
    return checked
