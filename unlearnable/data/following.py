"""What is set on a dataset after it was wrapped: noticed, so that it is taken apart anew."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor
from torch.utils.data import ConcatDataset, Dataset, Subset

from .calls import Path
from .class_names import LABEL_NAMES
from .transforms import SHORT, TRANSFORM_NAMES, attributes, datasets_in, is_dataset, may_cache

_MISSING = object()
_PROBES = 16  # indices that are compared at each reading, twice: spread evenly, and in turn
_AHEAD = 64  # places of a list that are compared for each image that is read
ALL = 1 << 40  # images for which all places of any list are compared
_SIMPLE = (type(None), bool, int, float, complex, str, bytes, np.generic)


@dataclass
class Contents:
    """What was in a list or an array, which can be changed in place."""

    held: Any  # a copy
    start: int = 0  # of the part that is looked at next

    def still_in(self, value: Any, count: int) -> bool:
        """Whether a few places that are spread hold the same, and ``count`` others each time."""
        size = len(self.held)
        step = max(1, size // _PROBES)  # what is shuffled is seen at once
        start = self.start if max(self.start, count) < size else 0
        self.start = start + count
        return len(value) == size and all(
            _alike(_part(value, part, size), self.held[part])
            for part in (slice(None, None, step), slice(start, start + count))
        )


class Seen(NamedTuple):
    """A dataset, or one inside it, and the attributes that it had."""

    dataset: Any
    values: dict[str, Any]
    lengths: dict[str, int]  # of those that are lists of transforms, which may change in place
    contents: dict[str, Contents]  # of lists and arrays of something for each item


@dataclass
class Parts:
    """A ``Subset`` or ``ConcatDataset``, and what it consisted of."""

    dataset: Any
    held: tuple[Any, ...]
    size: int  # of indices or datasets, which may be added to a list
    chosen: Contents | None = None  # the indices

    @classmethod
    def of(cls, dataset: Subset[Any] | ConcatDataset[Any]) -> Parts:
        """What it consists of now."""
        held, size = _held(dataset)
        if not isinstance(dataset, Subset):
            return cls(dataset, held, size)
        return cls(
            dataset, held, size, Contents(np.asarray(dataset.indices, dtype=np.int64).copy())
        )

    def check(self, count: int) -> None:
        """Raises ``RuntimeError`` if it consists of something else now.

        Args:
            count: Number of images that are read: at least as many indices are compared, others
                each time, so that an epoch compares them all.
        """
        held, size = _held(self.dataset)
        kept = size == self.size
        if kept and self.chosen is not None:
            kept = self.chosen.still_in(held[-1], max(count, _PROBES))
        if not kept or not all(map(_as_before, held, self.held)):
            kind, what = type(self.dataset).__name__, "datasets"
            if isinstance(self.dataset, Subset):
                what = "indices" if held[0] is self.held[0] else "dataset"
            raise RuntimeError(
                f"expected {kind} to keep its {what}, got others since it was wrapped; wrap it "
                f"again, or protect the whole dataset and take a {kind} of that"
            )


def _held(dataset: Subset[Any] | ConcatDataset[Any]) -> tuple[tuple[Any, ...], int]:
    """The dataset and the indices of a ``Subset``, or the datasets; and the number of either."""
    if isinstance(dataset, Subset):
        return (dataset.dataset, dataset.indices), len(dataset.indices)
    return tuple(dataset.datasets), len(dataset.datasets)


def _part(indices: Any, part: slice, size: int) -> Any:
    if isinstance(indices, (list, tuple, range, np.ndarray, Tensor)):
        return indices[part]
    return [indices[place] for place in range(*part.indices(size))]


def _alike(part: Any, before: Any) -> bool:
    if not isinstance(before, list):
        return np.array_equal(part, before)
    try:
        return bool(part == before)
    except Exception:  # other objects, whose comparison is code of the caller's own
        return False


def _as_before(now: Any, before: Any) -> bool:
    """Whether a part is the same, or indices that a property makes anew are."""
    if now is before:
        return True
    indices = not any(isinstance(part, Dataset) for part in (now, before))
    return indices and np.array_equal(now, before)


def look_at(dataset: Any) -> list[Seen]:
    """The present attributes of a dataset and of those inside it."""
    each = {id(inner): inner for inner in datasets_in(dataset)}
    return [_seen(inner, attributes(inner)) for inner in each.values()]


def _seen(dataset: Any, own: dict[str, Any]) -> Seen:
    lengths = {name: len(value) for name, value in own.items() if _steps(value)}
    contents = {
        name: Contents(list(value) if isinstance(value, list) else np.asarray(value).copy())
        for name, value in own.items()
        if name not in lengths and _is_per_item(name, value, dataset)
    }
    return Seen(dataset, dict(own), lengths, contents)


def _is_per_item(name: str, value: Any, dataset: Any) -> bool:
    """Whether it is a list of something for each item, or an array of labels."""
    if isinstance(value, Tensor) and value.device.type == "cpu":
        value = value.numpy()
    array = isinstance(value, np.ndarray) and value.ndim == 1 and value.dtype.kind in "iu"
    if not (isinstance(value, list) or (array and name in LABEL_NAMES)):
        return False
    try:
        return len(value) >= len(dataset)
    except Exception:  # code of a class of the caller's own
        return False


def _steps(value: Any) -> bool:
    """Whether it is a list of what can be called."""
    return isinstance(value, list) and len(value) <= SHORT and all(map(callable, value))


def set_since(seen: list[Seen], moved: frozenset[str], count: int = 0) -> dict[str, Any]:
    """The attributes that were set since, but transforms, which are looked up whenever needed.

    Args:
        seen: The earlier attributes.
        moved: Names that reading items changes, from :func:`moved_by_reading`; these do not count.
        count: Number of images that are about to be read: the more, the more is looked at of what
            may have been changed in place.
    """
    found: dict[str, Any] = {}
    for dataset, values, lengths, contents in seen:
        for name, value in list(attributes(dataset).items()):
            old = values.get(name, _MISSING)
            if old is value:
                longer = name in lengths and lengths[name] != len(value)
                before = None if name in moved else contents.get(name)
                if longer or not (before is None or before.still_in(value, _AHEAD * (count + 1))):
                    found[name] = value
                continue
            if name in moved or (name in TRANSFORM_NAMES and _single(value) and _single(old)):
                continue
            # One transform in place of another is looked up; one in place of none is called anew.
            replaced = callable(value) and (callable(old) or name in TRANSFORM_NAMES)
            if not replaced and not (callable(old) and value is None) and not _equal(value, old):
                found[name] = value
    return found


def check_kept(
    dataset: Any, length: int, names: list[str] | None, before: list[str] | None
) -> None:
    """Raises ``RuntimeError`` if a changed dataset has another length or other class names now."""
    kind = type(dataset).__name__
    if len(dataset) != length:
        raise RuntimeError(
            f"expected {kind} to keep its {length:,} images, got {len(dataset):,} since it was "
            f"wrapped; wrap it again, after another fit if there are new images"
        )
    if names != before:
        old, new = ("none" if n is None else f"{n!r:.80}" for n in (before, names))
        raise RuntimeError(
            f"expected {kind} to keep its classes, {old}, got {new} since it was wrapped; wrap it "
            f"again"
        )


def _single(value: Any) -> bool:
    """Whether it is a transform, or none."""
    return value is None or value is _MISSING or callable(value)


def is_simple(value: Any) -> bool:
    """Whether it is a number, a text or the like, or a tuple of such."""
    if isinstance(value, tuple):
        return all(map(is_simple, value))
    return isinstance(value, _SIMPLE)


def moved_by_reading(dataset: Any, read: Any, taken: Iterable[Path] = ()) -> frozenset[str]:
    """Names of attributes that differ in a copy from which items were read.

    Such are positions in files, opened files, the last item, and counts; what holds the transforms
    that were ``taken`` off the copy does not count.
    """
    moved: set[str] = set()
    off = {step for path in taken for step in path}
    for one, other in zip(datasets_in(dataset), datasets_in(read), strict=False):
        own, copied = attributes(one), attributes(other)
        for name in {*own, *copied}:
            value, found = own.get(name, _MISSING), copied.get(name, _MISSING)
            if name in off or is_dataset(value) or callable(value):
                continue
            if not _shared(value, found):
                moved.add(name)
    return frozenset(moved)


def _equal(value: Any, other: Any) -> bool:
    # In a pickle, equal numbers and texts become different objects.
    return type(value) is type(other) and is_simple(value) and bool(value == other)


def _shared(value: Any, other: Any) -> bool:
    """Whether a copy has the same value, or a copy of the same list or dict."""
    if value is other or _equal(value, other):
        return True
    if type(value) is not type(other) or not may_cache(value) or len(value) != len(other):
        return False
    if isinstance(value, np.ndarray):
        return value.shape == other.shape and all(map(operator.is_, value.flat, other.flat))
    if isinstance(value, set):
        return value == other
    if isinstance(value, dict):
        return all(other.get(key, _MISSING) is part for key, part in value.items())
    return all(one is two for one, two in zip(value, other, strict=True))
