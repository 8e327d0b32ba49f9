"""Which images to learn from and to test on belong together: checked before any training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ..data.cache import ImageStore
from ..data.class_matching import match_classes, only_class
from ..data.raw import RawDataset
from ..protected.dataset import ProtectedDataset
from ..protected.exported import exported_copies


def refuse_protected(test: Any) -> None:
    """Raises ``ValueError`` where images to test on carry a perturbation, or are of an export."""
    if any(isinstance(leaf, ProtectedDataset) for leaf in RawDataset(test).originals):
        raise ValueError(
            "expected clean images to test on, got a ProtectedDataset; pass the dataset below it "
            "(its .base)"
        )
    found, but = exported_copies(test)
    if found:
        raise ValueError(f"expected clean images to test on, got {found}; take the originals{but}")


def refuse_single_class(labels: Sequence[Any], classes: Sequence[str] | None) -> None:
    """Raises ``ValueError`` where all images to learn from, if there are any, are of one class."""
    only = only_class(labels, classes)
    if only is not None:
        raise ValueError(
            f"expected training images of at least two classes, got one, {only}: a victim that "
            f"knows one class is right about all images, protected or not; add images of another"
        )


def check_pair(learned: ImageStore, tested: ImageStore) -> ImageStore:
    """The images to test on, with the classes of those to learn from, by name where both have any.

    Raises ``ValueError`` where they do not belong together.
    """
    shapes = [tuple(store.images.shape[1:]) for store in (learned, tested)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"expected test images of the training images' shape {shapes[0]}, got {shapes[1]}; "
            f"pass image_size= (--image-size)"
        )
    if learned.classes is not None and tested.classes is not None:
        indices = match_classes(learned.classes, tested.classes, "a test set")
        labels = torch.tensor(indices)[tested.labels]
        tested = tested._replace(labels=labels, classes=learned.classes)
    highest = int(tested.labels.max())
    if highest >= learned.num_classes:
        raise ValueError(
            f"expected test images of the {learned.num_classes} classes of the training images, "
            f"got labels up to {highest}"
        )
    return tested
