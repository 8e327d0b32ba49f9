"""What a fit does, for the estimate before its first step."""

from __future__ import annotations

from typing import Any

from ..engine.estimate import Work, duration
from .parameters import Parameters

_SIZES: dict[Any, int] = {
    "tiny": 1,
    "resnet9": 2,
    "resnet18": 3,
}  # surrogates of presets, in order of size


def work_of_fit(method: Parameters, held: int, num_images: int) -> Work | None:
    """The work of a fit, for its estimate; None if unknown or if nothing is trained."""
    passes, batch = method.passes(num_images), getattr(method, "batch_size", 0)
    if not passes:
        return None
    total = passes
    surrogate = getattr(method, "surrogate", None)

    def advice(seconds: float) -> list[str]:
        found = []
        for name in method.presets:
            other = method.preset(name)
            passes = other.passes(num_images)
            if not passes or passes >= total / 2:  # 0 is another search, not a shorter one
                continue
            if (network := getattr(other, "surrogate", None)) == surrogate:
                needs = f"about {duration(seconds * passes)}"
            elif _SIZES.get(network, 0) < _SIZES.get(surrogate, 0):
                needs = f"of the smaller network {network!r}"
            else:
                continue
            found.append(f'The preset "{name}" needs {passes:,} passes, {needs}.')
        return found

    name = surrogate if isinstance(surrogate, str) else type(surrogate).__name__
    searched = getattr(method, "search_batch_size", batch) * getattr(method, "eot_samples", 1)
    return Work(type(method).__name__, name, passes, batch, searched, held, advice)
