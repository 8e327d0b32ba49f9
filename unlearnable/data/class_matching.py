"""Whether two datasets have the same classes: by name, never by a guess."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .class_names import class_index, composed

_SHOWN = 5  # names that an error lists
_SLIPS = {"cra": "crab"}  # of CIFAR-100 on the Hugging Face Hub


def distinct(names: Sequence[str]) -> list[str]:
    """The same names, with the index appended to duplicates, as in ``crane (517)``."""
    found: list[str] = []
    taken = set(names)
    seen: set[str] = set()
    for index, name in enumerate(names):
        if name in seen:
            name = f"{name} ({index})"
            while name in taken:
                name += "_"
        seen.add(name)
        taken.add(name)
        found.append(name)
    return found


def only_class(labels: Sequence[Any], classes: Sequence[str] | None) -> str | None:
    """Name of the only class among the labels; None if there are several or no class indices."""
    if not len(labels) or any(label != labels[0] for label in labels):
        return None
    index = class_index(labels[0])
    if index is None:
        return None
    if classes is None or index >= len(classes):
        return f"class {index}"
    return repr(classes[index])


def match_classes(
    expected: Sequence[str], found: Sequence[str], what: str, *, some: bool = False
) -> list[int]:
    """The index of each of the ``found`` classes among the ``expected`` ones, by name.

    Args:
        expected: Names by index.
        found: Names by index, in any order.
        what: Description for errors, such as ``"a dataset"``.
        some: Whether some of the expected ones may be missing.

    Raises:
        ValueError: Names differ or do not distinguish two classes.
    """
    wanted, given = _spelled(expected), _spelled(found)
    if wanted == given:
        return list(range(len(found)))
    places, named = distinct(wanted), distinct(given)
    if Counter(wanted) == Counter(given) and places != wanted:
        several = next(name for name, count in Counter(wanted).items() if count > 1)
        raise ValueError(
            f"expected {what} with classes in the same order, because several are called "
            f"{several!r}, got {_some(found)}; give each class a different name"
        )
    missing = Counter(places) - Counter(named)
    if Counter(named) - Counter(places) or (missing and not (some and wanted == places)):
        raise ValueError(
            f"expected {what} with the {len(expected)} classes {_some(expected)}, got "
            f"{len(found)}: {_some(found)}{_difference(places, named)}"
        )
    return [places.index(name) for name in named]


def _spelled(names: Sequence[str]) -> list[str]:
    """Names with accents written alike and without known slips, unless these are other classes."""
    right = [_SLIPS.get(name, name) for name in names]
    return list(map(composed, right if len(set(right)) == len(set(names)) else names))


def matched_labels(
    labels: NDArray[np.int64], classes: Sequence[str] | None, fitted: dict[str, Any]
) -> NDArray[np.int64]:
    """Labels of new images by the numbers of the classes that a perturbation was fitted on.

    Args:
        labels: Integers (N,).
        classes: Names of their classes, which may be some of the fitted ones; without any, they
            are taken for the fitted ones.
        fitted: The perturbation's configuration.

    Raises:
        ValueError: There are other classes, or more.
    """
    known, most = fitted["classes"], fitted["num_classes"]
    if known is not None and classes is not None:
        return np.array(match_classes(known, classes, "images", some=True), dtype=np.int64)[labels]
    number = len(classes) if classes is not None else int(labels.max(initial=-1)) + 1
    if number > most:
        raise ValueError(f"expected {most} classes, got {number}")
    warn_of_numbers(known, classes)
    return labels


def warn_of_numbers(one: Sequence[str] | None, other: Sequence[str] | None) -> None:
    """Warns where labels without names may be the numbers that the other dataset's classes have.

    Folders are in the order of their names: ``10`` comes before ``2`` and has the class index 2.

    Args:
        one: Class names of a dataset, or None.
        other: Those of another one, whose labels are taken for indices of the same classes.
    """
    named = one if other is None else other if one is None else None
    if named is None or not all(name.isascii() and name.isdigit() for name in named):
        return
    numbers = list(map(int, named))
    if numbers == sorted(numbers):
        return
    label = next(index for index, number in enumerate(numbers) if number != index)
    warnings.warn(
        f"the classes of one dataset are called {_some(named)}, in this order, and those of the "
        f"other have no names: its label {label} is taken for the class {named[label]!r}. If its "
        f"labels are the numbers in the names, name its classes in their order: "
        f"unlearnable.from_items(dataset, classes=[…])",
        stacklevel=3,
    )


def _difference(expected: Sequence[str], found: Sequence[str]) -> str:
    missing = [name for name in expected if name not in set(found)]
    more = [name for name in found if name not in set(expected)]
    said = f"; missing: {_some(missing)}" if missing else ""
    if more or not missing:
        return said + (f"; not expected: {_some(more)}" if more else "")
    return said + (
        "; name them although there are no images of them: for class folders, make an empty "
        "folder for each and read them with torchvision's ImageFolder(folder, allow_empty=True)"
    )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")
