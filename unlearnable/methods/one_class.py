"""What tells classes apart cannot be learned from one class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..data.class_matching import only_class
from ..data.raw import RawDataset
from .parameters import Parameters

# Methods that train nothing: what they make depends on no other class.
FOR_ONE_CLASS = (
    "RandomNoise",
    "LSP",
    "AR",
    "OPS",
    "ClassConvolution",
    "ColourShift",
    "Gratings",
    "Lasting",
    "SmoothFields",
)


def refuse_one_class(method: type[Parameters], dataset: Any) -> None:
    """Raises ``ValueError`` for a dataset of one class if the method needs several.

    This uses the labels that the dataset lists; if it lists none, nothing is refused.
    """
    if method.least_classes > 1:
        raw = RawDataset(dataset)
        check_classes(method, raw.stated_labels() or [], raw.classes)


def check_classes(
    method: type[Parameters], labels: Sequence[Any], classes: Sequence[str] | None
) -> None:
    """The same check on all labels; without labels, nothing is refused."""
    only = only_class(labels, classes)
    if method.least_classes > 1 and only is not None:
        raise ValueError(
            f"expected images of at least two classes, got only {only}; {method.__name__} learns "
            f"to tell classes apart, so add images of another class (a second folder), or use a "
            f"method that works with one class: {', '.join(FOR_ONE_CLASS)}"
        )
