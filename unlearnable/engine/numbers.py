"""Numbers of users, numpy and torch as plain Python ones: normalised in this one place."""

from __future__ import annotations

import math
import operator
from typing import Any


def integer(name: str, value: Any, *, least: int | None = None) -> int:
    """An integer of any type as an ``int``.

    Args:
        name: Name of the argument, for the error.
        value: An integer of Python, NumPy or torch, but not a bool.
        least: The smallest accepted value.

    Raises:
        ValueError: It is not an integer, or below ``least``.
    """
    try:
        found = None if _is_bool(value) else operator.index(value)
    except TypeError:
        found = None
    if found is None or (least is not None and found < least):
        bound = "" if least is None else f" >= {least}"
        raise ValueError(f"expected {name} to be an integer{bound}, got {value!r}")
    return found


def number(name: str, value: Any, *, finite: bool = True) -> float:
    """A number of any type as a ``float``.

    Args:
        name: Name of the argument, for the error.
        value: A number of Python, NumPy or torch, but not a bool, text or NaN.
        finite: Refuse infinities.

    Raises:
        ValueError: It is not a number, or infinite.
    """
    try:
        found = math.nan if _is_bool(value) or isinstance(value, (str, bytes)) else float(value)
    except (TypeError, ValueError, OverflowError):
        found = math.nan
    if math.isnan(found) or (finite and math.isinf(found)):
        raise ValueError(f"expected {name} to be a {'finite ' * finite}number, got {value!r}")
    return found


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool) or str(getattr(value, "dtype", "")) in ("bool", "torch.bool")
