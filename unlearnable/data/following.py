"""Attributes that are set on a dataset after it was wrapped, passed on to the copy that is read.

Passed on are numbers, texts and the like, and arrays and lists that replace others. Anything else
may be what reading the dataset itself left there, such as a file that it opened or transformed
items that it keeps, which the copy must not have.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from .calls import Path
from .transforms import CONTAINERS, TRANSFORM_NAMES, attributes, inner_datasets, own_copy, value_at

_MISSING = object()
_SIMPLE = (type(None), bool, int, float, str, np.integer, np.floating)
_REPLACED = (np.ndarray, Tensor, list)


class Followed(NamedTuple):
    """Attributes of a dataset, or of one inside it, that its copy shares."""

    path: Path  # of the dataset inside
    values: dict[str, Any]  # as last seen
    apart: frozenset[str]  # names under which the copy has something else: transforms, loaders


class Copies:
    """Datasets without transforms, to be read, in copies of this process.

    Many open their files when they are first read, so that each worker has files of its own.

    Args:
        originals: The caller's datasets.
        bare: The same without transforms, as they are when they are first taken off.
    """

    def __init__(self, originals: Sequence[Any], bare: Sequence[Any]) -> None:
        self._originals, self._bare = originals, bare
        self._lengths = [len(dataset) for dataset in originals]
        self._states = list(map(states_of, originals, bare))
        self._process = 0
        self._opened: list[Any] = []
        self._seen: list[list[Followed]] = []

    @property
    def opened(self) -> list[Any]:
        """The datasets to read, as they are."""
        if self._process != os.getpid():
            self._process, self._opened = os.getpid(), list(map(own_copy, self._bare))
            self._seen = list(map(_copied, self._states))
        return self._opened

    def followed(self, numbers: Iterable[int]) -> bool:
        """Passes on what was set on some of the caller's datasets; whether there was anything.

        Raises:
            RuntimeError: One of them has another length now.
        """
        changed, opened = False, self.opened
        for number in numbers:
            dataset = self._originals[number]
            if not follow(dataset, opened[number], self._seen[number]):
                continue
            changed = True
            if len(dataset) != self._lengths[number]:
                raise RuntimeError(
                    f"expected {type(dataset).__name__} to keep its {self._lengths[number]:,} "
                    f"images, got {len(dataset):,} since it was wrapped; wrap it again, after "
                    f"another fit if there are new images"
                )
        return changed

    def replaced(self, opened: list[Any]) -> Copies:
        """The same with other datasets to read in this process."""
        other = copy.copy(self)
        other._process, other._opened = os.getpid(), opened
        other._seen = list(map(_copied, self._seen))
        return other

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_process": 0, "_opened": [], "_seen": []}


def _copied(states: list[Followed]) -> list[Followed]:
    return [state._replace(values=dict(state.values)) for state in states]


def states_of(dataset: Any, copied: Any, prefix: Path = (), depth: int = 8) -> list[Followed]:
    """The present state of a dataset and of those inside it, compared with a copy of it."""
    if copied is dataset or type(copied) is not type(dataset):
        return []
    own, other = attributes(dataset), attributes(copied)
    inside = inner_datasets(own)
    apart = {name for name, value in own.items() if not _shared(value, other.get(name, _MISSING))}
    apart |= {str(path[0]) for path, _ in inside} | set(TRANSFORM_NAMES)
    found = [Followed(prefix, dict(own), frozenset(apart))]
    for path, inner in inside:
        if depth and inner is not dataset:
            found += states_of(inner, value_at(copied, path), (*prefix, *path), depth - 1)
    return found


def _shared(value: Any, other: Any) -> bool:
    """Whether a copy has the same value, or a copy of the same list or dict."""
    if value is other:
        return True
    if type(value) is not type(other) or type(value) not in CONTAINERS:
        return False
    if len(value) != len(other) or isinstance(value, set):
        return len(value) == len(other)
    if isinstance(value, dict):
        return all(other.get(key, _MISSING) is part for key, part in value.items())
    return all(one is two for one, two in zip(value, other, strict=True))


def follow(dataset: Any, copied: Any, states: Sequence[Followed]) -> bool:
    """Sets on the copy what was set on the dataset since; whether there was anything."""
    changed = False
    for path, values, apart in states:
        own = attributes(value_at(dataset, path) if path else dataset)
        for name, value in own.items():
            old = values.get(name, _MISSING)
            if old is not value:
                values[name] = value
                if name not in apart and _passed_on(value, old):
                    target = attributes(value_at(copied, path) if path else copied)
                    target[name] = copy.copy(value) if type(value) is list else value
                    changed = True
    return changed


def _passed_on(value: Any, old: Any) -> bool:
    if isinstance(value, tuple):
        return all(isinstance(part, _SIMPLE) for part in value)
    if type(value) in _REPLACED and type(value) is type(old):
        return len(old) > 0 if isinstance(old, list) else 0 not in old.shape
    return isinstance(value, _SIMPLE)
