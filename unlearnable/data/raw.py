"""Any map-style image dataset as raw pixels, labels and one key per image.

A dataset is taken apart into its leaves (below ``Subset`` and ``ConcatDataset``); each leaf is
copied shallowly and its transforms are taken off the copy. The caller's object is never changed.
"""

from __future__ import annotations

import copy
import functools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .applied import Chosen, applied, finisher
from .array_backed import gives_what_it_holds, held_by
from .bare import Bare, take_off
from .batches import Item, RawBatch, Read, read_batches
from .class_names import common_names
from .fingerprint import image_keys
from .following import ALL, Seen, check_kept, is_simple, look_at, set_since
from .huggingface import HuggingFaceRows, columns_of_rows, from_hf, is_hf_dataset
from .image import Pixels, canonical, is_plain, to_pil
from .image_folder import file_of, folder_of
from .items import ItemDataset, Layout, field_of
from .labels import agree, check_labels, listed_labels, lists_files, sample_of
from .leaves import Leaves, Pairs, names_of
from .photo import load_photo, named
from .readable import refuse_unreadable
from .transforms import datasets_in, has_own, own_copy


def _reads_photos(bare: Any) -> bool:
    """Whether that loader is our own."""
    return lists_files(bare) and bare.loader is load_photo


class RawDataset:
    """A dataset's raw images and labels and, separately, the transforms that it applies.

    Takes any map-style dataset whose items have an image and a label, a Hugging Face dataset with a
    column for each, the result of ``from_items``, or a tuple (images, labels). Images are PIL
    images, uint8 tensors (1 or 3, H, W) or uint8 arrays (H, W, 1 or 3).

    Attributes:
        classes: Names of the classes in index order, or None if unknown.
        name: Name of the dataset's class, for messages.
        originals: The datasets that images come from, inside any ``Subset`` or ``ConcatDataset``.
        holds_arrays: Whether all images are in arrays, from which many can be read at once.
    """

    def __init__(self, dataset: Any) -> None:
        if isinstance(dataset, tuple) and len(dataset) == 2:
            dataset = Pairs(*dataset)
        refuse_unreadable(dataset)
        leaves = Leaves()
        self._leaf_of, self._index_in = leaves.add(dataset)
        self.originals: list[Any] = leaves.datasets
        self._said: list[ItemDataset | None] = leaves.said
        self._parts = leaves.parts
        self._in_order = self.originals[0] is dataset
        for place, (leaf, said) in enumerate(zip(self.originals, self._said, strict=True)):
            if is_hf_dataset(leaf):
                columns = columns_of_rows(leaf) if said is None else None
                if columns is not None:
                    said = self._said[place] = ItemDataset(leaf, *columns, None)
                self.originals[place] = from_hf(leaf) if said is None else HuggingFaceRows(leaf)
        self._lengths = [len(leaf) for leaf in self.originals]
        self._taken: list[Bare] = [self._take(number) for number in range(len(self.originals))]
        self._opened: tuple[int, list[Any]] = (0, [])
        self._seen: list[list[Seen]] = list(map(look_at, self.originals))
        self._alone = {number for number, bare in enumerate(self._taken) if bare.draws}
        self._holds = list(map(_holds, self._taken))
        self.holds_arrays = all(self._holds)
        self._named = [names_of(*leaf) for leaf in zip(self.originals, self._said, strict=True)]
        self.classes: list[str] | None = common_names(self.originals, self._named)
        self.name = " + ".join(dict.fromkeys(type(leaf).__name__ for leaf in self.originals))

    def __len__(self) -> int:
        return len(self._leaf_of)

    def _take(self, number: int) -> Bare:
        """A dataset without its transforms, as it is now."""
        said = self._said[number]
        return take_off(self.originals[number], None if said is None else said.layout)

    def _take_again(self, number: int) -> Bare:
        """The same later: of several parts that may be the label it is that which it was."""
        try:
            return self._take(number)
        except TypeError:
            return take_off(self.originals[number], self._taken[number].layout)

    @property
    def _bare(self) -> list[Any]:
        """The datasets to read, in copies of this process.

        Many open their files when they are first read, so that each worker has files of its own.
        """
        if self._opened[0] != os.getpid():
            self._opened = (os.getpid(), [own_copy(bare.dataset) for bare in self._taken])
        return self._opened[1]

    def _follow(self, leaves: Iterable[int] | None = None, count: int = 0) -> None:
        """Takes those datasets apart anew that were changed since: an epoch, other labels, …

        Args:
            leaves: Which may have been changed; None for all.
            count: Number of images that are about to be read.

        Raises:
            RuntimeError: One has another length or class names now, or one above has other parts.
        """
        for parts in self._parts:
            parts.check(count)
        for number in range(len(self.originals)) if leaves is None else leaves:
            found = set_since(self._seen[number], self._taken[number].moved, count)
            leaf = self.originals[number]
            if not found and len(leaf) == self._lengths[number]:
                continue
            found |= set_since(self._seen[number], self._taken[number].moved, ALL)
            names = names_of(leaf, self._said[number])
            check_kept(leaf, self._lengths[number], names, self._named[number])
            seen, bare = look_at(leaf), self._take_again(number)
            copies = list(self._bare)
            copies[number] = own_copy(bare.dataset)
            self._taken = [*self._taken[:number], bare, *self._taken[number + 1 :]]
            self._holds = [*self._holds[:number], _holds(bare), *self._holds[number + 1 :]]
            self._alone = self._alone - {number} | ({number} if bare.draws else set())
            self._opened = (os.getpid(), copies)
            self._seen = [*self._seen[:number], seen, *self._seen[number + 1 :]]
            if not all(map(is_simple, found.values())):
                for known in ("_labels", "_keys"):
                    self.__dict__.pop(known, None)

    def __getstate__(self) -> dict[str, Any]:
        self._follow(count=ALL)  # what is seen in a copy begins anew
        return {**self.__dict__, "_opened": (0, []), "_seen": []}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._seen = list(map(look_at, self.originals))

    @property
    def reads_photos(self) -> bool:
        """Whether all images are files that this package opens itself, possibly in threads."""
        return all(map(_reads_photos, self._bare))

    def read_by(self, loader: Callable[[str], Image.Image]) -> RawDataset:
        """The same images, with files that this package opens itself read by the given loader."""
        other = copy.copy(self)
        leaves = [copy.copy(leaf) if _reads_photos(leaf) else leaf for leaf in self._bare]
        for leaf in filter(_reads_photos, leaves):
            leaf.loader = loader
        other._opened = (os.getpid(), leaves)
        return other

    @property
    def num_classes(self) -> int:
        """Number of class names or, if there are none, the largest label plus one."""
        return int(self.labels.max()) + 1 if self.classes is None else len(self.classes)

    @property
    def labelled(self) -> bool:
        """Whether images have labels; not with ``from_items(…, label=None)``."""
        return all(
            getattr(leaf, "labelled", True) and bare.layout.label is not None
            for leaf, bare in zip(self.originals, self._taken, strict=True)
        )

    def holds(self, kind: type) -> bool:
        """Whether images come from a dataset of this class."""
        return any(isinstance(x, kind) for leaf in self.originals for x in datasets_in(leaf))

    def _whole(self, index: int) -> tuple[Any, Layout]:
        """An item without transforms, and where its image and label lie."""
        number, place = 0, int(index)
        if not self._in_order:
            number, place = int(self._leaf_of[index]), int(self._index_in[index])
        leaf, taken = self._bare[number], self._taken[number]
        layout, made = taken.layout, taken.made
        if made is not None:
            made.paths.clear()
        try:
            item = leaf[place]
        except Exception as error:
            path = self.path(index)
            if path is None or str(path) in str(error):
                raise
            raise named(error, path) from error
        if made is not None:
            taken.check_calls(index)
        if layout.is_pair and not (isinstance(item, (tuple, list)) and len(item) > 1):
            raise TypeError(
                f"expected {type(leaf).__name__} to return (image, label) pairs, got "
                + type(item).__name__
                + (f" of {len(item)}" if isinstance(item, (tuple, list)) else "")
                + "; name image and label with unlearnable.from_items(dataset, image=…, label=…)"
            )
        return item, layout

    def _label(self, index: int) -> Any:
        leaf = self._bare[self._leaf_of[index]]
        if hasattr(type(leaf), "raw_batches"):
            return next(leaf.raw_batches([int(self._index_in[index])])).labels[0]
        item, layout = self._whole(index)
        return layout.label_of(item)

    def __getitem__(self, index: int) -> Item:
        return next(self.items([index]))

    def items(self, indices: Sequence[int]) -> Iterator[Item]:
        """Raw images one by one, read together if possible."""
        for batch in self.batches(indices):
            wholes = batch.wholes or [None] * len(batch.labels)
            yield from map(Item, batch.pixels, batch.labels, batch.restores, wholes)

    def batches(self, indices: Sequence[int]) -> Iterator[RawBatch]:
        """Raw images in the requested order, in batches of one size that fit into the cache."""
        indices = list(indices)
        leaves, places = [0] * len(indices), indices
        if not self._in_order:
            leaves, places = self._leaf_of[indices].tolist(), self._index_in[indices].tolist()
        needed = set(leaves)
        self._follow(needed, len(indices))
        copies = self._bare
        found = {leaf: held_by(copies[leaf]) for leaf in needed if self._holds[leaf]}
        held = {leaf: arrays for leaf, arrays in found.items() if arrays is not None}
        return read_batches(indices, leaves, places, copies, held, self._read, self._alone)

    def _read(self, index: int) -> Read:
        whole, layout = self._whole(index)
        pair = layout.is_pair
        image = whole[0] if pair else field_of(whole, layout.image)
        if image is None:
            raise ValueError(
                f"expected an image in every item, got None for image {index}; exclude such items "
                f"first, with a Subset or dataset.filter"
            )
        restore: Callable[[Pixels], Any] = to_pil
        if not is_plain(image):
            try:
                image, restore = canonical(image)
            except ValueError as error:
                path = self.path(index)
                if path is None:
                    raise
                raise ValueError(f"{path}: {error}") from error
        label = whole[1] if pair else layout.label_of(whole)
        pair = pair and type(whole) is tuple and len(whole) == 2
        return Read(image, label, restore, None if pair else whole)

    def path(self, index: int) -> Path | None:
        """The file that an image is read from, if its dataset lists files."""
        leaf = self.originals[self._leaf_of[index]]
        return file_of(leaf, int(self._index_in[index])) if has_own(leaf, "samples") else None

    def folder(self, index: int) -> Path | None:
        """The folder whose files an image's dataset lists, or None."""
        return folder_of(self.originals[self._leaf_of[index]])

    def finished(self, batch: RawBatch, images: Sequence[Any], chosen: Chosen) -> list[Any]:
        """Items as returned by the dataset, with these images and the chosen transforms."""
        wholes = batch.wholes or [None] * len(images)
        if self._in_order:
            made = finisher(self._taken[0], self.originals[0], chosen)
            return list(map(made, images, batch.labels, wholes))
        leaves = self._leaf_of[batch.indices].tolist()
        finish = {
            leaf: finisher(self._taken[leaf], self.originals[leaf], chosen) for leaf in set(leaves)
        }
        return [
            finish[leaf](*parts)
            for leaf, *parts in zip(leaves, images, batch.labels, wholes, strict=True)
        ]

    def applied(self, name: str, chosen: Chosen) -> Any:
        """The transform with a given name; None if those of the datasets differ."""
        values = [
            applied(bare, leaf, chosen, name)
            for bare, leaf in zip(self._taken, self.originals, strict=True)
        ]
        return values[0] if all(value is values[0] for value in values) else None

    @property
    def labels(self) -> NDArray[np.int64]:
        """Class indices, int64 of shape (N,); read once, from an attribute if a sample agrees.

        All are 0 if images have no labels.
        """
        self._follow()
        return self._labels

    @functools.cached_property
    def _labels(self) -> NDArray[np.int64]:
        if not self.labelled:
            return np.zeros(len(self), np.int64)
        found = self.stated_labels()
        if found is None:
            found = [self._label(index) for index in range(len(self))]
        return check_labels(found, self.classes)

    @property
    def keys(self) -> NDArray[np.uint64]:
        """Keys of all images, before any resize, uint64 of shape (N,); computed once."""
        self._follow()
        return self._keys

    @functools.cached_property
    def _keys(self) -> NDArray[np.uint64]:
        keys = np.empty(len(self), np.uint64)
        for batch in self.batches(range(len(self))):
            keys[batch.indices] = image_keys(batch.pixels)
        return keys

    def with_keys(self, keys: NDArray[np.uint64]) -> RawDataset:
        """The same dataset with :attr:`keys` known from an earlier reading."""
        known = copy.copy(self)
        known._keys = keys
        return known

    def stated_labels(self) -> list[Any] | None:
        """Labels listed by the dataset if a sample agrees with its items, else None."""
        columns = [
            listed_labels(leaf, bare.layout)
            for leaf, bare in zip(self._bare, self._taken, strict=True)
        ]
        leaves, places = self._leaf_of.tolist(), self._index_in.tolist()
        if any(columns[leaf] is None for leaf in set(leaves)):
            return None
        labels = [columns[leaf][place] for leaf, place in zip(leaves, places, strict=True)]
        for index in sample_of(labels):
            # Where files are listed, items have these labels: no file is decoded for them.
            files = lists_files(self._bare[leaves[index]])
            if not files and not agree(self._label(index), labels[index]):
                return None
        return labels


def _holds(bare: Bare) -> bool:
    """Whether images are in arrays that can be read without the dataset."""
    return bare.layout.is_pair and gives_what_it_holds(bare.dataset)
