"""How a dataset calls its transforms: stand-ins that note it, and the calls to make instead."""

from __future__ import annotations

import operator
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from .compare import same
from .items import ITEM, Layout, Within, field_of, fields_of, is_key, with_field

Path: TypeAlias = tuple[str | int, ...]
Log: TypeAlias = list[tuple[Path, tuple[Any, ...], dict[str, Any]]]


class Off:
    """Stands in for a transform: returns its input and records how it was called."""

    def __init__(self, path: Path, log: Log) -> None:
        self.path, self.log = path, log

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.log.append((self.path, args, kwargs))
        return unchanged(*args, **kwargs)


class Calls(threading.local):
    """The paths of the transforms called while an item was read, in this thread."""

    def __init__(self) -> None:
        self.paths: list[Path] = []

    def __reduce__(self) -> Any:
        return Calls, ()


class StandIn:
    """Stands in for a transform on the copy that is read: returns its input."""

    def __init__(self, path: Path, calls: Calls) -> None:
        self.path, self.calls = path, calls

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.calls.paths.append(self.path)
        return unchanged(*args, **kwargs)


def unchanged(*args: Any, **kwargs: Any) -> Any:
    """A transform's input, in the form in which such a transform returns it."""
    if kwargs and not args:
        return kwargs
    return args[0] if len(args) == 1 else args


class Call(NamedTuple):
    """A call of a transform by a dataset."""

    path: Path
    args: tuple[Any, ...]  # keys of the item's fields that it gets, or ITEM
    names: tuple[str, ...] = ()  # of those that it gets as keywords: as many, the last ones
    arrays: bool = False  # whether the image is an array then

    def made(self, transform: Callable[..., Any], item: Any) -> Any:
        """The item after the transform."""
        values = [field_of(item, key) for key in self.args]
        if self.arrays:
            values = [np.asarray(v) if hasattr(v, "getbands") else v for v in values]
        if self.names:
            result = transform(**dict(zip(self.names, values, strict=True)))
            results = [result[name] for name in self.names]
        elif len(values) == 1:
            results = [transform(values[0])]
        else:
            results = list(transform(*values))
        for key, result in zip(self.args, results, strict=True):
            item = with_field(item, key, result)
        return item

    def only(self, key: Any) -> bool:
        """Whether the call changes only this field."""
        return self.args == (key,)


def standard_calls(image: Any = 0, label: Any = 1) -> dict[str, Call]:
    """How torchvision's datasets call their transforms, by name."""
    return {
        "transform": Call(("transform",), (image,)),
        "target_transform": Call(("target_transform",), (label,)),
        "transforms": Call(("transforms",), (image, label)),
    }


def calls_in(log: Log, item: Any, layout: Layout) -> list[Call]:
    """The fields of an item that the recorded calls were made with."""
    calls = []
    for path, args, kwargs in log:
        if args and kwargs:
            raise TypeError(
                f"expected {path[-1]} to be called with positional or with keyword arguments, got "
                f"both; name them all: {path[-1]}(image=image, …)"
            )
        values = [*args, *kwargs.values()]
        keys = tuple(_key_of(value, item, layout, place) for place, value in enumerate(values))
        arrays = any(
            key == layout.image and isinstance(value, np.ndarray)
            for key, value in zip(keys, values, strict=True)
        )
        calls.append(Call(path, keys, tuple(kwargs), arrays))
    return calls


def _key_of(value: Any, item: Any, layout: Layout, place: int) -> Any:
    """Where in an item a value lies: by identity, else by equality, else image before label."""
    known = is_key(layout.label)
    usual = [layout.image, *([layout.label] if known else [])]
    fields = [*usual, *other_keys(item, usual)]
    for equal in (operator.is_, same):
        for key in fields:
            if equal(field_of(item, key), value):
                return key
        if equal(item, value):
            return ITEM
    return usual[min(place, len(usual) - 1)]


def other_keys(item: Any, usual: Sequence[Any]) -> list[Any]:
    """Keys or positions of an item's fields, except some."""
    if ITEM in usual:
        return []
    keys: list[Any] = []
    if isinstance(item, Mapping):
        keys = list(item)
    elif isinstance(item, (tuple, list)):
        keys = list(range(len(item)))
        usual = [item._fields.index(k) if isinstance(k, str) else k for k in usual]  # type: ignore[union-attr]
    inside = [path for key in usual if isinstance(key, Within) for path in _beside(item, key)]
    return [key for key in [*keys, *inside] if key not in usual]


def _beside(item: Any, path: Within) -> list[Any]:
    """The paths of what lies beside each part of a path."""
    found = []
    for depth in range(1, len(path)):
        place = Within(path[:depth])
        for key in fields_of(field_of(item, place)):
            if key != path[depth]:
                found.append(Within((*place, key)))
    return found
