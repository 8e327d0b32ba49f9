"""What a fit warns of: work that takes long, and rows that protect nothing."""

from __future__ import annotations

import warnings

import torch

from ..perturbation.quantize import Levels
from .parameters import Parameters

_CHUNK = 256  # rows that are read at once
LONG = 3600  # seconds of estimated work that nobody should start unawares


def long_message(method: Parameters, rate: float, num_images: int) -> str | None:
    """What to say of a fit that takes longer than :data:`LONG`, and which preset takes less.

    Args:
        method: Its parameters.
        rate: Image passes a second.
        num_images: Size of the dataset.
    """
    total = method.passes(num_images)
    if total is None or total / rate <= LONG:
        return None
    message = (
        f"{type(method).__name__} will take about {_duration(total / rate)} here "
        f"({total:,} image passes at {rate:,.0f} a second)."
    )
    for name in method.presets:
        other = method.preset(name)
        passes = other.passes(num_images)
        if passes is not None and passes < total / 2:
            message += f' The preset "{name}" needs {passes:,} passes'
            surrogate = getattr(other, "surrogate", None)
            if surrogate == getattr(method, "surrogate", None):
                message += f", about {_duration(passes / rate)}."
            else:
                message += f" of the smaller network {surrogate!r}."
    if not torch.cuda.is_available():
        message += ' A GPU (device="cuda") does many times more passes a second.'
    return message


def warn_if_zero(title: str, rows: Levels) -> None:
    """Warns where half of the rows or more are zero."""
    zero = _zero_rows(rows)
    if 2 * zero >= len(rows):
        warnings.warn(
            f"{title} made {zero:,} of {len(rows):,} rows all zero: their images stay as they are, "
            f"and nothing protects them; let it take more or longer steps",
            stacklevel=4,
        )


def _zero_rows(rows: Levels) -> int:
    """How many rows are all zero; or 0, without reading further, once it is less than half."""
    moved = 0
    for start in range(0, len(rows), _CHUNK):
        moved += int(rows[start : start + _CHUNK].any(axis=(1, 2, 3)).sum())
        if 2 * moved > len(rows):
            return 0
    return len(rows) - moved


def _duration(seconds: float) -> str:
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 1.5 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} seconds"
