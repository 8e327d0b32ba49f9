"""Checks of parameter values: each returns the value as a plain Python one or raises."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import nn

from ..engine.models import check_model_name
from ..engine.names import suggestion
from ..engine.numbers import number


def check_epsilon(name: str, value: Any, norm: str, *, zero: bool) -> float:
    """A budget in [0, 1] units as a float.

    Raises:
        ValueError: It is negative or in levels, or integer levels round it to nothing; ``zero``
            allows the last, and 0.
    """
    value = number(name, value)
    if value < 0 or (value == 0 and not zero):
        raise ValueError(f"expected {name} {'>=' if zero else '>'} 0, got {value}")
    check_unit(name, value, norm)
    if norm == "Linf" and not zero and math.floor(value * 255 + 1e-6) < 1:
        raise ValueError(
            f"expected {name} of at least 1 / 255, got {value * 255:g} / 255, which rounds to "
            f"nothing in 8-bit pixels"
        )
    return value


def check_change(name: str, value: Any, norm: str) -> float:
    """The largest change of a value, in [0, 1] units, whatever the norm of the method's budget.

    Raises:
        ValueError: As :func:`check_epsilon` for ``"Linf"``.
    """
    return check_epsilon(name, value, "Linf", zero=False)


def check_unit(name: str, value: float, norm: str) -> float:
    """A length in [0, 1] units; raises ``ValueError`` for ``"Linf"`` above 127 / 255."""
    if norm == "Linf" and value > 127 / 255:
        hint = f"; in [0, 1] units, did you mean {value:g} / 255?" if value >= 1 else ""
        raise ValueError(f"expected {name} up to 127 / 255, got {value:g}{hint}")
    return value


def check_range(name: str, value: Any, least: float | None = None, most: float = math.inf) -> float:
    """A number from ``least`` to ``most``, or above 0 without ``least``; else ``ValueError``."""
    value = number(name, value)
    if value > most or (value <= 0 if least is None else value < least):
        bound = "above 0" if least is None else f"from {least:g}"
        bound += "" if most == math.inf else f" up to {most:g}"
        raise ValueError(f"expected {name} {bound}, got {value}")
    return value


def check_choice(name: str, value: Any, choices: Sequence[str]) -> str:
    """One of several words; raises ``ValueError`` for others."""
    if not isinstance(value, str) or value not in choices:
        near = suggestion(value, choices)
        raise ValueError(f"expected {name} to be one of {list(choices)}, got {value!r}{near}")
    return str(value)


def check_flag(name: str, value: Any, norm: str) -> bool:
    """True or False, also as 1 or 0; raises ``ValueError`` for others."""
    if not isinstance(value, (bool, int, float)) or value not in (0, 1):
        raise ValueError(f"expected {name} to be True or False, got {value!r}")
    return bool(value)


def check_surrogate(name: str, value: Any, norm: str) -> str | nn.Module:
    """A module or the name of a network; raises ``ValueError`` for unknown names."""
    if not isinstance(value, nn.Module):
        check_model_name(value)
    return value
