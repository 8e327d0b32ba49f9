"""What a fit warns of: work that takes long, and rows that protect nothing."""

from __future__ import annotations

import warnings

import torch

from ..perturbation.quantize import Levels
from .parameters import Parameters

_CHUNK = 256  # rows that are read at once
LONG = 3600  # seconds of estimated work that nobody should start unawares


def warn_if_long(method: Parameters, num_images: int, rate: float) -> None:
    """Warns of a fit that takes over :data:`LONG`, with ``rate`` image passes a second."""
    message = long_message(method, rate, num_images)
    if message is not None:
        warnings.warn(message, stacklevel=3)


def long_message(method: Parameters, rate: float, num_images: int) -> str | None:
    """What to say of it: the time that it takes, and which preset takes less."""
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
    """Warns where half of the rows or more are zero; reads no more of them than tell that."""
    moved = 0
    for start in range(0, len(rows), _CHUNK):
        moved += int(rows[start : start + _CHUNK].any(axis=(1, 2, 3)).sum())
        if 2 * moved > len(rows):
            return
    warnings.warn(
        f"{title} made {len(rows) - moved:,} of {len(rows):,} rows all zero: their images stay as "
        f"they are, and nothing protects them; let it take more or longer steps",
        stacklevel=4,
    )


def _duration(seconds: float) -> str:
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 1.5 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} seconds"
