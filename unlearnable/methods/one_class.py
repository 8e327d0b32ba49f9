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
    "SmoothFields",
)


def refuse_one_class(method: type[Parameters], dataset: Any) -> None:
    """Raises ``ValueError`` for a dataset of one class, where the method needs several.

    It is judged by labels that the dataset lists; where it lists none, nothing is refused.
    """
    if method.least_classes > 1:
        raw = RawDataset(dataset)
        check_classes(method, raw.stated_labels() or [], raw.classes)


def check_classes(
    method: type[Parameters], labels: Sequence[Any], classes: Sequence[str] | None
) -> None:
    """The same by all labels; none of them refuses nothing."""
    only = only_class(labels, classes)
    if method.least_classes > 1 and only is not None:
        raise ValueError(
            f"expected images of at least two classes, got one, {only}: {method.__name__} learns "
            f"what tells classes apart, and one class is told from none; add images of another "
            f"class (a second folder), or take a method that works on one: "
            f"{', '.join(FOR_ONE_CLASS)}"
        )
