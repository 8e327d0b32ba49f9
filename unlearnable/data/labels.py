"""Labels of a dataset: listed by it, agreeing with its items, and checked to be class indices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import TensorDataset
from torchvision.datasets.folder import DatasetFolder

from .class_names import LABEL_NAMES, MOST_CLASSES
from .compare import same
from .items import Layout


def lists_files(bare: Any) -> bool:
    """Whether items are files read by a loader, with labels listed next to them."""
    return getattr(type(bare), "__getitem__", None) is DatasetFolder.__getitem__


def listed_labels(leaf: Any, layout: Layout) -> list[Any] | None:
    """Labels of a dataset's items from one of its attributes, or None."""
    if callable(layout.label) or layout.label is None:
        return None
    if lists_files(leaf) and layout.label == 1:
        return [label for _, label in leaf.samples]
    if isinstance(leaf, TensorDataset) and isinstance(layout.label, int):
        return leaf.tensors[layout.label].tolist()
    for name in LABEL_NAMES:
        values: Any = getattr(leaf, name, None)
        if getattr(values, "shape", None) == ():  # a single number
            continue
        if isinstance(values, (list, tuple, np.ndarray, Tensor)):
            if len(values) != len(leaf):
                return None
            if isinstance(values, (np.ndarray, Tensor)) and values.ndim == 2 and len(values):
                values = values[:, 0] if values.shape[1] == 1 else values
            return values.tolist() if hasattr(values, "tolist") else list(values)
    return None


def _unwrapped(label: Any) -> Any:
    """A number in an array or a tensor of one element, as MedMNIST has it, by itself."""
    if isinstance(label, (np.ndarray, np.generic)) and label.size == 1:
        return label.item()
    if isinstance(label, Tensor) and label.numel() == 1:
        return label.item()
    return label


def check_labels(
    labels: Sequence[Any], classes: Sequence[str] | None, indices: Sequence[int] | None = None
) -> NDArray[np.int64]:
    """Labels as int64; raises ``ValueError`` naming one that is not a class index.

    They are the labels of the images at ``indices``, or of all images.
    """
    checked = np.empty(len(labels), dtype=np.int64)
    for place, label in enumerate(labels):
        label = _unwrapped(label)
        negative = isinstance(label, int) and label < 0
        large = isinstance(label, int) and label >= MOST_CLASSES
        if negative or large or isinstance(label, bool) or not isinstance(label, int):
            index = place if indices is None else indices[place]
            hint = (
                "; the labels are missing, so add them, or use a method that needs none with "
                "unlearnable.from_items(dataset, label=None)"
            )
            if negative:
                hint = "; negative labels mark unlabelled images, so exclude these with a Subset"
            elif label is not None:
                hint = (
                    "; say which class it is with unlearnable.from_items(dataset, label=…) and a "
                    "function of the item, or pass label=None for methods that need no labels"
                )
            expected = "expected labels to be class indices 0, 1, 2, …"
            expected += f" below {MOST_CLASSES:,}" * large
            raise ValueError(f"{expected}, got {label!r} for image {index}{hint}")
        checked[place] = label
    if classes is not None and checked.size and checked.max() >= len(classes):
        raise ValueError(
            f"expected labels below the number of classes, {len(classes)}, got {checked.max()}"
        )
    return checked


def sample_of(labels: Sequence[Any]) -> list[int]:
    """At most 16 places: some evenly spread, and the first of as many classes as possible."""
    spread = np.linspace(0, len(labels) - 1, 6).astype(int).tolist()
    first: dict[Any, int] = {}
    for index, label in enumerate(labels):
        first.setdefault(label if isinstance(label, int) else repr(label), index)
    chosen = list(first.values())
    some = np.linspace(0, len(chosen) - 1, min(10, len(chosen))).astype(int).tolist()
    return sorted({*spread, *(chosen[place] for place in some)})


def agree(found: Any, listed: Any) -> bool:
    """Whether an item has the listed label."""
    found, listed = (
        value.tolist() if hasattr(value, "tolist") else value
        for value in map(_unwrapped, (found, listed))
    )
    return type(found) is type(listed) and same(found, listed)


def check_listed(labels: Sequence[Any], listed: Sequence[int], indices: Sequence[int]) -> None:
    """Raises ``ValueError`` if items at ``indices`` have labels other than those listed."""
    for index, label in zip(indices, check_labels(labels, None, indices).tolist(), strict=True):
        if label != listed[index]:
            raise ValueError(
                f"expected image {index} to have the label that its dataset lists, "
                f"{listed[index]}, got {label}; correct its targets"
            )
