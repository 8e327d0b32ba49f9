"""Chooses a method and a size to learn at for the available time, by the cost of passes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..engine.device import pick_device
from ..engine.memory import usual_limit
from ..methods.base import Method
from ..methods.rem import REM
from .costs import PROGRAM, Learning, measure_learning

_SIZES = (224, 192, 160, 128, 112, 96, 80, 64, 48, 32)
_LEAST_VISITS, _MOST_VISITS = 24, 60  # of each photo, by the search
_FEWEST_VISITS = 8  # where even the smallest size leaves no time for more
_SEARCHED = 2000  # photos that a search trains its network on, at most
_STEPS = 40  # batches that the photos are divided into, at least, within these sizes of one:
_BATCH = (24, 128)
_TINY = 10**7  # pixel values in all passes that take a second or two on any machine


@dataclass(frozen=True)
class Found:
    """A method and an image size, with what they cost."""

    method: Method
    size: int
    seconds: float
    memory: int


class Choice:
    """Chooses what fits into a given time.

    Args:
        dataset: The photos.
        sizes: Candidate sides to learn at, in pixels, largest first.
        budget: Available time in seconds.
        device: Device to learn on.
        precision: Precision of the network passes.
    """

    def __init__(
        self, dataset: Any, sizes: Sequence[int], budget: float, device: str, precision: str
    ) -> None:
        self._dataset = dataset
        self._count = len(dataset)
        self._budget = budget
        self._device = device
        self._precision = precision
        self._sizes = sizes
        self._limit = usual_limit(pick_device(device))
        self._measured: dict[Any, Learning] = {}

    def of_kind(self, kind: type[Method], given: dict[str, Any]) -> Found:
        """The largest network and the longest search that the time allows."""
        presets = ["fast", "demo"] if "demo" in kind.presets else list(kind.presets)
        if kind.presets.get("demo", {}).get("pretrained_surrogate") is False:
            presets = ["fast"]  # the other lacks what the method is about
        planned = issubclass(kind, REM) and "visits" not in given and "train_steps" not in given
        found = None
        for preset in presets:
            method = kind.preset(preset, **(self._for_few(kind) | given))
            method._validate()  # before anything is measured
            # The larger network only where it has time for the full size and all visits.
            last = preset == presets[-1]
            found = self._longest(method, last) if planned else self.of_size(method)
            whole = found.size == self._sizes[0] and not (
                planned and found.method.get_params()["visits"] < _MOST_VISITS
            )
            if last or (found.seconds <= self._budget and whole):
                break
        assert found is not None
        return found

    def _for_few(self, kind: type[Method]) -> dict[str, Any]:
        """Smaller batches where there are few photos: more steps of the network."""
        if not issubclass(kind, REM):
            return {}
        least, most = _BATCH
        batch = 8 * max(least // 8, min(most // 8, self._count // (8 * _STEPS // 2)))
        found: dict[str, Any] = {"batch_size": batch}
        if self._count > _SEARCHED:
            found["search_images"] = _SEARCHED
        return found

    def _longest(self, method: Method, last: bool) -> Found:
        """The largest size at which photos are visited often enough, and as often as fits."""
        for size in self._sizes:
            method.set_params(visits=float(_LEAST_VISITS))
            found = self._cost(method, size)
            if found.seconds <= self._budget or not last:
                break
        method.set_params(visits=1.0)
        one = self._cost(method, size).seconds
        method.set_params(visits=2.0)
        each = self._cost(method, size).seconds - one
        room = 1 + (self._budget - one) / each if each > 0 else float(_MOST_VISITS)
        least = _FEWEST_VISITS if last else _LEAST_VISITS
        method.set_params(visits=float(int(max(least, min(_MOST_VISITS, room)))))
        return self._cost(method, size)

    def of_size(self, method: Method) -> Found:
        """A configured method at the largest size that the time allows."""
        method._validate()
        for size in self._sizes:
            found = self._cost(method, size)
            if not found.seconds > self._budget:
                break
        return found

    def _cost(self, method: Method, size: int) -> Found:
        passes = method.passes(self._count)
        if not passes:
            seconds = 0.0 if passes == 0 else float("nan")
            return Found(method, size, seconds, int(PROGRAM + 7 * size**2 * self._count))
        if 3 * size**2 * passes < _TINY:
            return Found(method, size, 1.0, int(PROGRAM + 7 * size**2 * self._count))
        network = getattr(method, "surrogate", None) or "tiny"
        if network not in self._measured:
            self._measured[network] = measure_learning(
                network, self._dataset, self._sizes[0], self._device, self._precision
            )
        cost = self._measured[network]
        images = min(self._count, getattr(method, "batch_size", 0))
        batch = images * getattr(method, "eot_samples", 1)
        memory = cost.memory(self._count, batch, size, self._limit)
        return Found(method, size, cost.of_passes(passes, size), memory)


def sizes_up_to(largest: int) -> list[int]:
    """Candidate sides, largest first."""
    return [largest, *(size for size in _SIZES if size < largest)]
