"""The transforms of a dataset: where they are held, and copies without them.

Each is named by the path of attributes that leads to it, ``("transform",)`` or, through a dataset
that holds another, ``("subset", "dataset", "transform")``.
"""

from __future__ import annotations

import collections
import contextlib
import copy
import functools
import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from torch.utils.data import Dataset
from torchvision.datasets.folder import default_loader
from torchvision.datasets.vision import StandardTransform

from .calls import Path
from .photo import load_photo

TRANSFORM_NAMES = ("transform", "target_transform", "transforms")
# What datasets call a transform of their own, and where the classes of such come from.
_LIKELY = re.compile(
    r"(transform|^_?trans$|tfm?s?$|aug|pre_?proc|normali[sz]e|to_?tensor|jitter|crop|flip|erase|resize)",
    re.I,
)
_LIBRARIES = ("torchvision.transforms", "albumentations", "kornia", "timm.data", "imgaug")
SHORT = 64  # parts of a list or dict that are looked at
_METHODS = (
    *TRANSFORM_NAMES,
    "augment",
    "_transform",
    "_augment",
)  # of a class, where it defines them


def has_own(dataset: Any, name: str) -> bool:
    """Whether an object itself has an attribute, rather than one that it delegates to."""
    return name in attributes(dataset) or hasattr(type(dataset), name)


def value_at(dataset: Any, path: Path) -> Any:
    """The value at a path, or None."""
    for step in path:
        held = isinstance(dataset, (list, tuple, dict))
        dataset = dataset[step] if held else getattr(dataset, str(step), None)
    return dataset


def find_transforms(dataset: Any, prefix: Path = (), depth: int = 8) -> dict[Path, Any]:
    """All transforms in a dataset and in the datasets that it contains, by path."""
    found: dict[Path, Any] = {}
    if hasattr(type(dataset), "without_transforms"):
        return {(*prefix, name): getattr(dataset, name) for name in _shown(dataset)}
    own = attributes(dataset)
    for path, inner in _inner(own):
        if depth and inner is not dataset:
            found |= find_transforms(inner, (*prefix, *path), depth - 1)
    for name, value in own.items():
        path = (*prefix, name)
        for place, part in _parts_of(value):
            if callable(part) and _is_likely(name, part) and not is_dataset(part):
                found |= {(*path, place): part}
        if (
            name != "loader"
            and callable(value)
            and (name in TRANSFORM_NAMES or _is_likely(name, value))
        ):
            found[path] = value
    for name in _METHODS:
        static = inspect.getattr_static(type(dataset), name, None)
        if static is None or name in own:
            continue
        value = getattr(dataset, name, None)
        known = any(value is other for other in found.values())  # a property of what was found
        if callable(value) and not (isinstance(static, property) and known):
            found |= {(*prefix, name): value}
    return found


def _shown(dataset: Any) -> tuple[str, ...]:
    """The names of the transforms of a protected dataset, which stand for those below it."""
    joint = dataset.transforms
    if joint is not None and not isinstance(joint, StandardTransform):
        return ("transforms",)
    return tuple(name for name in TRANSFORM_NAMES[:2] if callable(getattr(dataset, name)))


def find_unset(dataset: Any, prefix: Path = (), depth: int = 8) -> list[Path]:
    """The paths at which a transform could be set but is not."""
    own = attributes(dataset)
    found = [(*prefix, name) for name in TRANSFORM_NAMES if name in own and own[name] is None]
    for name in TRANSFORM_NAMES:
        static = inspect.getattr_static(type(dataset), name, dataset)
        if static is None and name not in own:
            found.append((*prefix, name))
    for path, inner in _inner(own):
        if depth and inner is not dataset:
            found += find_unset(inner, (*prefix, *path), depth - 1)
    return found


def find_loaders(dataset: Any, prefix: Path = (), depth: int = 8) -> list[Path]:
    """The paths that hold torchvision's own photo loader."""
    own = attributes(dataset)
    found = [(*prefix, "loader")] if own.get("loader") is default_loader else []
    for path, inner in _inner(own):
        if depth and inner is not dataset:
            found += find_loaders(inner, (*prefix, *path), depth - 1)
    return found


def datasets_in(dataset: Any, depth: int = 8) -> list[Any]:
    """A dataset and the datasets that it contains, directly or indirectly."""
    inner = [other for _, other in _inner(attributes(dataset)) if other is not dataset]
    return [
        dataset,
        *(found for other in inner if depth for found in datasets_in(other, depth - 1)),
    ]


def attributes(dataset: Any) -> dict[str, Any]:
    """The attributes of an object itself; none if it has no ``__dict__``."""
    try:
        return vars(dataset)
    except TypeError:
        return {}


def _inner(own: Mapping[str, Any]) -> list[tuple[Path, Any]]:
    found: list[tuple[Path, Any]] = []
    for name, value in own.items():
        if is_dataset(value):
            found.append(((name,), value))
        found += [((name, place), part) for place, part in _parts_of(value) if is_dataset(part)]
    return found


def _parts_of(value: Any) -> list[tuple[int | str, Any]]:
    """What a short list or dict holds."""
    if isinstance(value, (list, tuple)) and len(value) <= SHORT:
        return list(enumerate(value))
    if isinstance(value, dict) and len(value) <= SHORT:
        return [(name, part) for name, part in value.items() if isinstance(name, str)]
    return []


def is_dataset(value: Any) -> bool:
    """Whether it is a dataset of torch, or looks like one with transforms."""
    if isinstance(value, Dataset):
        return True
    readable = hasattr(type(value), "__getitem__") and hasattr(type(value), "__len__")
    return readable and any(has_own(value, name) for name in TRANSFORM_NAMES)


def _is_likely(name: str, value: Any) -> bool:
    if isinstance(value, type):
        return False
    module = type(value).__module__
    return bool(_LIKELY.search(name)) or module.startswith(_LIBRARIES)


def shallow(dataset: Any) -> Any:
    """A shallow copy, also of objects whose ``__getattr__`` does not survive ``copy.copy``."""
    try:
        return copy.copy(dataset)
    except (AttributeError, RecursionError, TypeError, KeyError):
        other = object.__new__(type(dataset))
        other.__dict__.update(vars(dataset))
        return other


def rebuilt(dataset: Any, values: Mapping[Path, Any], depth: int = 8) -> Any:
    """A copy with new values at some paths; everything else is shared, except containers.

    Datasets inside are copied, too: reading may open files, which stay closed in the original.

    Raises:
        AttributeError: A value cannot be set, or setting it would change the original.
    """
    held = isinstance(dataset, (list, tuple, dict))
    other: Any = list(dataset) if isinstance(dataset, tuple) else shallow(dataset)
    for name, value in () if held else attributes(other).items():
        if may_cache(value):  # which is not to hold bare items
            with contextlib.suppress(Exception):  # code of a class of the caller's own
                vars(other)[name] = copy.copy(value)
    steps: dict[str | int, dict[Path, Any]] = {}
    for path, value in values.items():
        steps.setdefault(path[0], {})[path[1:]] = value
    own: Any = dict(_parts_of(dataset)) if held else attributes(dataset)
    for path, inner in _inner(own) if depth > 0 else ():
        if inner is not dataset:
            steps.setdefault(path[0], {})
    for step, below in steps.items():
        old = value_at(dataset, (step,))
        new = below[()] if () in below else rebuilt(old, below, depth - 1)
        if held:
            other[step] = new
        else:
            _set(other, str(step), new, dataset)
    if isinstance(dataset, tuple):
        return dataset._make(other) if hasattr(dataset, "_make") else tuple(other)
    return other


def may_cache(value: Any) -> bool:
    """Whether items can be put into it: a container, or an array of objects."""
    held = (dict, list, set, collections.deque)
    return isinstance(value, held) or (isinstance(value, np.ndarray) and value.dtype == object)


def own_copy(dataset: Any) -> Any:
    """A copy of a dataset that may open files when it is read; those known here keep none open."""
    known = is_known(getattr(type(dataset), "__getitem__", None))
    return dataset if known else rebuilt(dataset, {})


def emptied_caches(dataset: Any, read: Any) -> dict[Path, Any]:
    """A dataset's caches, emptied: containers that change when a copy is read."""
    found: dict[Path, Any] = {}
    for name, value in attributes(dataset).items():
        if not may_cache(value) or isinstance(value, set):
            continue
        other = vars(read)[name]
        if isinstance(value, np.ndarray):
            if any(one is not two for one, two in zip(value.flat, other.flat, strict=True)):
                found[(name,)] = np.full_like(value, None)
            continue
        if isinstance(value, dict) and len(value) != len(other):
            found[(name,)] = copy.copy(value)
            found[(name,)].clear()
        if isinstance(value, collections.deque) and len(value) != len(other):
            found[(name,)] = type(value)(maxlen=value.maxlen)
        filled = isinstance(value, list) and len(value) == len(other) == len(dataset)
        if filled and any(one is not two for one, two in zip(value, other, strict=True)):
            found[(name,)] = [None] * len(value)
    return found


def _set(dataset: Any, name: str, value: Any, original: Any) -> None:
    static = inspect.getattr_static(type(dataset), name, None)
    if isinstance(static, property):
        old = getattr(original, name)
        if getattr(original, name) is not old:
            raise AttributeError(f"the property {name} is created anew each time")
        static.__set__(dataset, value)
        if getattr(original, name) is not old:  # a setter that reaches into what both share
            static.__set__(original, old)
            raise AttributeError(f"setting {name} changes another object")
    elif hasattr(type(static), "__set__"):  # of __slots__
        object.__setattr__(dataset, name, value)
    else:
        vars(dataset)[name] = value


def photo_loaders(dataset: Any) -> dict[Path, Any]:
    """This package's photo loader, for each path that holds torchvision's."""
    return dict.fromkeys(find_loaders(dataset), load_photo)


@functools.cache
def is_known(read: Callable[..., Any] | None) -> bool:
    """Whether a ``__getitem__`` is torchvision's or this package's, with known transforms."""
    module = getattr(read, "__module__", None) or ""
    known = ("torchvision.", "unlearnable.", "torch.utils.data.")
    return f"{module}.".startswith(known) and "StackDataset" not in getattr(
        read, "__qualname__", ""
    )


def pair_of(dataset: Any) -> Any:
    """A dataset's pair of transforms if it only combines the two; None if it takes precedence.

    Some torchvision classes read only the pair, which then takes precedence over the two.
    """
    pair = getattr(dataset, "transforms", None) if has_own(dataset, "transforms") else None
    names = getattr(type(dataset).__getitem__, "__code__", pair_of.__code__).co_names
    own = [getattr(dataset, name, None) for name in ("transform", "target_transform")]
    if isinstance(pair, StandardTransform) and "transforms" in names and "transform" not in names:
        alike = pair.transform is own[0] and pair.target_transform is own[1]
        return pair if alike else None
    return pair


def standard_parts(dataset: Any, pair: Any) -> tuple[Any, Any, Any]:
    """The current ``transforms``, if that is not a pair, ``transform`` and ``target_transform``.

    A pair other than the earlier one from :func:`pair_of` was set since and contains both.
    """
    found = [
        getattr(dataset, name, None) if has_own(dataset, name) else None for name in TRANSFORM_NAMES
    ]
    transform, target_transform, joint = found
    if not callable(joint):
        return None, transform, target_transform
    if not isinstance(joint, StandardTransform):
        return joint, None, None
    if joint is not pair:
        return None, joint.transform, joint.target_transform
    return None, transform, target_transform
