"""The datasets that images come from: below ``Subset``, ``ConcatDataset`` and ``from_items``."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import ConcatDataset, Dataset, Subset

from .class_names import class_names
from .following import Parts
from .huggingface import HuggingFaceRows
from .items import ItemDataset


class Pairs(Dataset[Any]):
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


class Leaves:
    """The leaves of a dataset.

    Attributes:
        datasets: Each of them once.
        said: For each, where ``from_items`` says what is where in its items, or None.
        parts: What each ``Subset`` and ``ConcatDataset`` above them consists of.
    """

    def __init__(self) -> None:
        self.datasets: list[Any] = []
        self.said: list[ItemDataset | None] = []
        self.parts: list[Parts] = []

    def add(
        self, dataset: Any, said: ItemDataset | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Returns the number of the leaf of each image, and its index there."""
        # Subclasses that read items in a way of their own are leaves.
        read = getattr(type(dataset), "__getitem__", None)
        if isinstance(dataset, ItemDataset):
            return self.add(dataset.dataset, said or dataset)
        if isinstance(dataset, Subset) and read is Subset.__getitem__:
            self.parts.append(Parts.of(dataset))
            leaf_of, index_in = self.add(dataset.dataset, said)
            chosen = np.asarray(dataset.indices, dtype=np.int64)
            return leaf_of[chosen], index_in[chosen]
        if isinstance(dataset, ConcatDataset) and read is ConcatDataset.__getitem__:
            self.parts.append(Parts.of(dataset))
            parts = [self.add(part, said) for part in dataset.datasets]
            return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])
        leaves = list(zip(self.datasets, self.said, strict=True))
        number = next(
            (n for n, leaf in enumerate(leaves) if leaf[0] is dataset and leaf[1] is said),
            len(leaves),
        )
        if number == len(leaves):
            self.datasets.append(dataset)
            self.said.append(said)
        return np.full(len(dataset), number), np.arange(len(dataset))


def names_of(leaf: Any, said: ItemDataset | None) -> list[str] | None:
    """Names of a dataset's classes; None where they are unknown, or labels are of other classes."""
    if said is None:
        return class_names(leaf)
    if said.classes is not None or callable(said.layout.label) or said.layout.label is None:
        return said.classes
    if isinstance(leaf, HuggingFaceRows):
        return leaf.names_of(said.layout.label)
    return class_names(leaf)
