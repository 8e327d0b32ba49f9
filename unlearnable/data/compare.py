"""Whether two items of a dataset are the same, and reading them under a known random state."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor


@contextlib.contextmanager
def random_state(seed: int) -> Iterator[None]:
    """Seeds the global generators of Python, NumPy and torch and restores them afterwards."""
    before = _states()
    try:
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        torch.default_generator.manual_seed(seed)  # not manual_seed: it seeds GPUs, too
        yield
    finally:
        _restore(before)


def _states() -> tuple[Any, Any, Tensor]:
    return random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002


def _restore(states: tuple[Any, Any, Tensor]) -> None:
    random.setstate(states[0])
    np.random.set_state(states[1])  # noqa: NPY002
    torch.set_rng_state(states[2])


@contextlib.contextmanager
def watched_draws() -> Iterator[list[bool]]:
    """Gives a list that contains, at the end, whether the global generators were used."""
    before, drawn = _states(), list[bool]()
    yield drawn
    after = _states()
    drawn.append(not same(before, after))


def same(one: Any, other: Any) -> bool:
    """Whether two values are equal in type and content, as far as can be determined."""
    if one is other:
        return True
    if type(one) is not type(other):
        return False
    if isinstance(one, Image.Image):
        return (one.mode, one.size) == (other.mode, other.size) and np.array_equal(
            np.asarray(one), np.asarray(other)
        )
    if isinstance(one, Tensor):
        if one.shape != other.shape or one.dtype != other.dtype:
            return False
        return bool(torch.equal(one, other) or torch.allclose(one, other, 0, 0, equal_nan=True))
    if isinstance(one, np.ndarray):
        alike = one.shape == other.shape and one.dtype == other.dtype
        return alike and (one.tobytes() == other.tobytes() or np.array_equal(one, other))
    if isinstance(one, Mapping):
        return list(one) == list(other) and all(same(one[name], other[name]) for name in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    try:
        if bool(one == other):
            return True
    except Exception:
        return True  # a type that cannot be compared
    if isinstance(one, float):
        return one != one and other != other
    # Objects without an equality of their own are what they hold.
    plain: Any = object.__eq__
    if type(one).__eq__ is plain and hasattr(one, "__dict__"):
        return same(vars(one), vars(other))
    return type(one).__eq__ is plain


def alike(one: Any, other: Any) -> bool:
    """Whether two values have the same type and shape, whatever numbers they contain."""
    if type(one) is not type(other):
        return False
    if isinstance(one, Image.Image):
        return (one.mode, one.size) == (other.mode, other.size)
    if isinstance(one, (Tensor, np.ndarray)):
        return (one.shape, one.dtype) == (other.shape, other.dtype)
    if isinstance(one, Mapping):
        return list(one) == list(other) and all(alike(one[name], other[name]) for name in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(alike, one, other))
    return True
