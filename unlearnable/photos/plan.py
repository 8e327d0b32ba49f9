"""Plans for a folder of photos: what is learned, at which size and for how long, so that it ends.

Without a GPU the papers' settings would take days. A plan measures what a pass costs here, and
takes the largest size, and then the longest search, that the time allows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..data.image_folder import LEARNED_AT, FlatFolder, Survey
from ..engine.device import pick_device
from ..engine.memory import usual_limit
from ..methods import LSP, SEM
from ..methods.base import Method
from ..methods.rem import REM
from .costs import Learning, measure_learning, measure_writing
from .words import sentences

_MINUTES, _AT_MOST = 5, 30  # for 100 photos, and for 1,000
_MARGIN = 0.75  # of that time is planned with
_LEAST_SHARE = 0.4  # of it is for learning, however long writing takes
_SIZES = (224, 192, 160, 128, 112, 96, 80, 64, 48, 32)
_LEAST_VISITS, _MOST_VISITS = 24, 60  # of each photo, by the search
_FEWEST_VISITS = 8  # where even the smallest size leaves no time for more
_SEARCHED = 2000  # photos that a search trains its network on, at most
_STEPS = 40  # batches that the photos are divided into, at least, within these sizes of one:
_BATCH = (24, 128)


@dataclass(frozen=True)
class Plan:
    """What is going to be done with a folder of photos.

    Attributes:
        method: Configured, not fitted.
        image_size: Side in pixels at which it learns; None is that of the photos.
        visibility: ``"low"``, ``"medium"``, ``"high"``, ``"full"``, or None for methods without.
        images: How many photos there are.
        seconds: Expected, of learning and writing together; NaN where it is not known.
        memory: Bytes, expected at most.
        classes: What the photos are told apart by, and how many there are of each.
        writing: Seconds of writing alone.
        flat: Whether the photos lie in no class folders.
    """

    method: Method
    image_size: int | None
    visibility: str | None
    images: int
    seconds: float
    memory: int
    classes: Mapping[str, int] = field(default_factory=dict)
    writing: float = 0.0
    flat: bool = False

    def sentences(self) -> list[str]:
        """The plan for a person: what, how visible, how long, what it protects against or not."""
        return sentences(self)

    def fit(self, dataset: Any, **options: Any) -> Method:
        """:meth:`Method.fit` of the planned method, as planned; other options are passed on."""
        planned = {"image_size": self.image_size, "visibility": self.visibility}
        return self.method.fit(dataset, **(planned | options))


def plan_photos(
    dataset: Any,
    survey: Survey,
    *,
    visibility: str | None = "low",
    device: str = "auto",
    precision: str = "auto",
    method: Method | type[Method] | None = None,
    preset: str | None = None,
    params: Mapping[str, Any] | None = None,
    image_size: int | None = None,
) -> Plan:
    """What to do with a folder of photos, so that it ends within minutes.

    About five minutes for 100 photos and thirty for 1,000, learning and writing together. What is
    given stays as it is; what is not is chosen.

    Args:
        dataset: As ``open_folder`` of ``data/image_folder`` opens it.
        survey: What ``survey_folder`` found in it.
        visibility: How much may be seen; methods that have none ignore it.
        device: Where it is going to learn, as for :meth:`Method.fit`, and so is the next.
        precision: Of network passes.
        method: A configured one, or a class; None is ``SEM``, or ``LSP`` for one class, which is
            told from nothing.
        preset: Of the class; None chooses one.
        params: Parameters in place of the preset's.
        image_size: Side to learn at; None chooses one.
    """
    labels = dataset.targets
    classes = {name: labels.count(index) for index, name in enumerate(dataset.classes)}
    if method is None:
        method = SEM if sum(map(bool, classes.values())) > 1 else LSP
    kind = type(method) if isinstance(method, Method) else method
    shown = visibility if kind.masked else None
    writing = measure_writing(dataset, survey, shown)
    count, largest = len(dataset), _largest(survey)
    seconds = _time_for(count)
    budget = max(_LEAST_SHARE * seconds, seconds - writing.seconds)
    given = dict(params or {})
    choice = _Choice(dataset, count, largest, budget, device, precision, image_size)
    if isinstance(method, Method):
        found = choice.of_size(method)
    elif preset is not None:
        found = choice.of_size(kind.preset(preset, **given))
    else:
        found = choice.of_kind(kind, given)
    size = found.size
    if image_size is None and _is_one_size(survey, size):
        size = None
    return Plan(
        method=found.method,
        image_size=size,
        visibility=shown,
        images=count,
        seconds=found.seconds + writing.seconds,
        memory=max(found.memory, writing.memory),
        classes=classes,
        writing=writing.seconds,
        flat=isinstance(dataset, FlatFolder),
    )


def _time_for(images: int) -> float:
    """Seconds to plan with: 5 minutes for 100 photos and fewer, 30 for 1,000, an hour for 4,000."""
    least, most = 60 * _MINUTES, 60 * _AT_MOST
    if images <= 1000:
        return _MARGIN * (least + max(0, images - 100) / 900 * (most - least))
    return _MARGIN * most * math.sqrt(images / 1000)


def _largest(survey: Survey) -> int:
    """The largest side to learn at: 224, or less where most photos are smaller."""
    if survey.learning_size is not None:
        return survey.learning_size
    return min(LEARNED_AT, *next(iter(survey.sizes)))


def _is_one_size(survey: Survey, size: int | None) -> bool:
    """Whether nothing is to be resized."""
    return len(survey.sizes) == 1 and min(next(iter(survey.sizes))) == size


@dataclass(frozen=True)
class _Found:
    """A method and a size, and what both cost."""

    method: Method
    size: int
    seconds: float
    memory: int


class _Choice:
    """Chooses within a time.

    Args:
        dataset: Of photos.
        count: How many.
        largest: Side to learn at, at most.
        budget: Seconds.
        device: Where it learns.
        precision: Of the passes.
        image_size: A side that was asked for, or None.
    """

    def __init__(
        self,
        dataset: Any,
        count: int,
        largest: int,
        budget: float,
        device: str,
        precision: str,
        image_size: int | None,
    ) -> None:
        self._dataset = dataset
        self._count = count
        self._budget = budget
        self._device = device
        self._precision = precision
        self._sizes = [image_size] if image_size else _sizes_up_to(largest)
        self._limit = usual_limit(pick_device(device))
        self._measured: dict[Any, Learning] = {}

    def of_kind(self, kind: type[Method], given: dict[str, Any]) -> _Found:
        """With the network that the time allows, and as long a search."""
        presets = ["fast", "demo"] if "demo" in kind.presets else list(kind.presets)
        planned = issubclass(kind, REM) and "visits" not in given and "train_steps" not in given
        found = None
        for preset in presets:
            method = kind.preset(preset, **(self._for_few(kind) | given))
            # The larger network only where it has time for the full size.
            last = preset == presets[-1]
            found = self._longest(method, last) if planned else self.of_size(method)
            if last or found.seconds <= self._budget:
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

    def _longest(self, method: Method, last: bool) -> _Found:
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
        method.set_params(visits=float(round(max(least, min(_MOST_VISITS, room)))))
        return self._cost(method, size)

    def of_size(self, method: Method) -> _Found:
        """A configured method at the largest size that the time allows."""
        for size in self._sizes:
            found = self._cost(method, size)
            if not found.seconds > self._budget:
                break
        return found

    def _cost(self, method: Method, size: int) -> _Found:
        passes = method.passes(self._count)
        if not passes:
            seconds = 0.0 if passes == 0 else float("nan")
            return _Found(method, size, seconds, int(7 * size**2 * self._count))
        network = getattr(method, "surrogate", None) or "tiny"
        if network not in self._measured:
            self._measured[network] = measure_learning(
                network, self._dataset, self._sizes[0], self._device, self._precision
            )
        cost = self._measured[network]
        batch = getattr(method, "batch_size", 0) * getattr(method, "eot_samples", 1)
        memory = cost.memory(self._count, batch, size, self._limit)
        return _Found(method, size, cost.of_passes(passes, size), memory)


def _sizes_up_to(largest: int) -> list[int]:
    return [largest, *(size for size in _SIZES if size < largest)]
