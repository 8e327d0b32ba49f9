"""Which images to learn from and to test on belong together: checked before any training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ..data.cache import ImageStore
from ..data.class_matching import match_classes, only_class, warn_of_numbers
from ..data.raw import RawDataset
from ..protected.dataset import ProtectedDataset
from ..protected.exported import exported_copies


def refuse_protected(test: Any) -> None:
    """Raises ``ValueError`` if test images carry a perturbation or come from an export."""
    if any(isinstance(leaf, ProtectedDataset) for leaf in RawDataset(test).originals):
        raise ValueError(
            "expected clean test images, got a ProtectedDataset; pass the dataset that it wraps "
            "(its .base)"
        )
    found, but = exported_copies(test)
    if found:
        raise ValueError(f"expected clean test images, got {found}; use the originals{but}")


def refuse_single_class(labels: Sequence[Any], classes: Sequence[str] | None) -> None:
    """Raises ``ValueError`` if there are training images and all are of one class."""
    only = only_class(labels, classes)
    if only is not None:
        raise ValueError(
            f"expected training images of at least two classes, got only {only}; a victim that "
            f"knows a single class is right about every image, protected or not, so add images of "
            f"another class"
        )


def check_pair(learned: ImageStore, tested: ImageStore) -> ImageStore:
    """The test images with the training images' class numbers, matched by name if both have names.

    Raises ``ValueError`` if they do not match, and warns if that may be by chance.
    """
    channels = learned.images.shape[1]
    if tested.images.shape[1] == 1 < channels:  # as grey images among others
        tested = tested._replace(images=tested.images.repeat(1, channels, 1, 1))
    shapes = [tuple(store.images.shape[1:]) for store in (learned, tested)]
    if shapes[0] != shapes[1]:
        alike = shapes[0][1:] == shapes[1][1:]
        advice = 'convert them with convert("L")' if alike else "pass image_size= (--image-size)"
        raise ValueError(
            f"expected test images of the training images' shape {shapes[0]}, got {shapes[1]}; "
            f"{advice}"
        )
    if learned.classes is not None and tested.classes is not None:
        indices = match_classes(learned.classes, tested.classes, "a test set")
        labels = torch.tensor(indices)[tested.labels]
        tested = tested._replace(labels=labels, classes=learned.classes)
    highest = int(tested.labels.max())
    if highest >= learned.num_classes:
        raise ValueError(
            f"expected test images of the training images' {learned.num_classes} classes, got "
            f"labels up to {highest}; remove the other classes"
        )
    warn_of_numbers(learned.classes, tested.classes)
    return tested
