"""What is set on a dataset after it was wrapped: noticed, so that it is taken apart anew."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor
from torch.utils.data import ConcatDataset, Dataset, Subset

from .calls import Path
from .transforms import SHORT, TRANSFORM_NAMES, attributes, datasets_in, is_dataset, may_cache

_MISSING = object()
_PROBES = 16  # indices, at least, that are compared at each reading
_SIMPLE = (type(None), bool, int, float, complex, str, bytes, np.generic)


class Seen(NamedTuple):
    """A dataset, or one inside it, and the attributes that it had."""

    dataset: Any
    values: dict[str, Any]
    lengths: dict[str, int]  # of those that are lists of transforms, which may change in place


class Parts(NamedTuple):
    """A ``Subset`` or ``ConcatDataset``, and what it consisted of."""

    dataset: Any
    held: tuple[Any, ...]
    size: int  # of indices or datasets, which may be added to a list
    some: Any = None  # of the indices, spread evenly, since a list can be shuffled in place

    @classmethod
    def of(cls, dataset: Subset[Any] | ConcatDataset[Any]) -> Parts:
        """What it consists of now."""
        if isinstance(dataset, Subset):
            indices = dataset.indices
            size = len(indices)
            return cls(dataset, (dataset.dataset, indices), size, _some(indices, size))
        return cls(dataset, tuple(dataset.datasets), len(dataset.datasets))

    def check(self) -> None:
        """Raises ``RuntimeError`` if it consists of something else now."""
        now = Parts.of(self.dataset)
        kept = (now.size, now.some) == (self.size, self.some)
        if not kept or not all(map(_as_before, now.held, self.held)):
            kind, what = type(self.dataset).__name__, "datasets"
            if isinstance(self.dataset, Subset):
                what = "indices" if now.held[0] is self.held[0] else "dataset"
            raise RuntimeError(
                f"expected {kind} to keep its {what}, got others since it was wrapped; wrap it "
                f"again, or protect the whole dataset and take a {kind} of that"
            )


def _some(indices: Any, size: int) -> list[Any]:
    """At least ``_PROBES`` of the indices, or all if there are fewer."""
    step = max(1, size // _PROBES)
    if not isinstance(indices, (list, tuple, range, np.ndarray, Tensor)):
        return [indices[place] for place in range(0, size, step)]
    part: Any = indices[::step]
    return part.tolist() if isinstance(part, (np.ndarray, Tensor)) else list(part)


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
    return Seen(dataset, dict(own), {name: len(v) for name, v in own.items() if _steps(v)})


def _steps(value: Any) -> bool:
    """Whether it is a list of what can be called."""
    return isinstance(value, list) and len(value) <= SHORT and all(map(callable, value))


def set_since(seen: list[Seen], moved: frozenset[str]) -> dict[str, Any]:
    """The attributes that were set since, but transforms, which are looked up whenever needed.

    Args:
        seen: The earlier attributes.
        moved: Names that reading items changes, from :func:`moved_by_reading`; these do not count.
    """
    found: dict[str, Any] = {}
    for dataset, values, lengths in seen:
        for name, value in list(attributes(dataset).items()):
            old = values.get(name, _MISSING)
            if old is value:
                if name in lengths and lengths[name] != len(value):
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
