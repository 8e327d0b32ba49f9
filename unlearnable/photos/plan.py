"""Plans for folders of photos: what to learn, at which size and for how long, to finish in time.

Without a GPU the papers' settings would take days. A plan measures what a pass costs on this
machine and chooses the largest size, and then the longest search, that the time allows.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..data.image_folder import LEARNED_AT, FlatFolder, ImageFolder, Survey
from ..methods import LSP, METHODS, SEM
from ..methods.base import Method
from .choice import Choice, sizes_up_to
from .costs import measure_writing
from .groups import group_photos, grouped
from .others import joined, of_photos
from .words import sentences

_MINUTES, _AT_MOST = 5, 30  # for 100 photos, and for 1,000
_MARGIN = 0.75  # of that time is planned with
_LEAST_SHARE = 0.3  # of it is for learning, however long writing takes


@dataclass(frozen=True)
class Plan:
    """What will be done with a folder of photos.

    Attributes:
        method: Configured but not fitted.
        image_size: Side, or (height, width), in pixels at which it learns; None means the photos'
            own size.
        visibility: ``"low"``, ``"medium"``, ``"high"``, ``"full"``, or None for methods that have
            no visibility.
        images: Number of photos.
        seconds: Expected time for learning and writing together; NaN if unknown.
        memory: Expected peak in bytes.
        classes: The kinds of picture that are told apart, with the number of photos of each.
        writing: Seconds for writing only.
        disk: Estimated size of the copies as PNG files, in bytes.
        flat: True if the photos are not sorted into class folders.
        both: What is learned instead of the photos as they are: the photos together with the others
            that they are told apart from, or sorted into groups.
        groups: The group of each photo, counted from 0, if the photos were sorted into groups.
    """

    method: Method
    image_size: int | Sequence[int] | None
    visibility: str | None
    images: int
    seconds: float
    memory: int
    classes: Mapping[str, int] = field(default_factory=dict)
    writing: float = 0.0
    disk: int = 0
    flat: bool = False
    both: ImageFolder | None = None
    groups: Sequence[int] | None = None

    def sentences(self) -> list[str]:
        """The plan in words: what is done, how it looks, what it takes, what it hinders."""
        return sentences(self)

    def without_copies(self) -> Plan:
        """The same where only a key is made."""
        return replace(self, seconds=self.seconds - self.writing, writing=0.0, disk=0)

    def to_dict(self) -> dict[str, Any]:
        """The plan as JSON values, for :meth:`from_dict`."""
        known = math.isfinite(self.seconds)
        return {
            "method": type(self.method).__name__,
            "parameters": self.method.get_params(),
            "image_size": self.image_size,
            "visibility": self.visibility,
            "seconds": self.seconds if known else None,
            "writing": self.writing,
            "memory": self.memory,
            "disk": self.disk,
            "groups": None if self.groups is None else list(self.groups),
        }

    @classmethod
    def from_dict(
        cls, values: Mapping[str, Any], dataset: Any, others: ImageFolder | None = None
    ) -> Plan:
        """Restores a plan from :meth:`to_dict`, for the same photos and others."""
        kind = next(method for method in METHODS if method.__name__ == values["method"])
        groups = values.get("groups")
        both = _learned(dataset, others, groups)
        return cls(
            method=kind(**values["parameters"]),
            image_size=values["image_size"],
            visibility=values["visibility"],
            images=len(dataset),
            seconds=math.nan if values["seconds"] is None else values["seconds"],
            memory=values["memory"],
            writing=values["writing"],
            disk=values["disk"],
            classes=_classes(both),
            flat=isinstance(dataset, FlatFolder),
            both=None if both is dataset else both,
            groups=groups,
        )

    def fit(self, dataset: Any, **options: Any) -> Method:
        """Fits the planned method; other options are passed to :meth:`Method.fit`.

        If the photos are told apart from others, neither what was learned for the others nor the
        network, which has seen them, is kept. The network is also dropped after learning groups,
        because a photo does not reveal its group.
        """
        planned = {"image_size": self.image_size, "visibility": self.visibility} | options
        if self.both is None:
            return self.method.fit(dataset, **planned)
        self.method.fit(self.both, **planned)
        self.method.perturbation_ = of_photos(self.method, dataset)
        self.method.surrogate_ = None
        return self.method


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
    others: ImageFolder | None = None,
    clusters: int | None = None,
) -> Plan:
    """Plans what to do with a folder of photos so that it finishes within minutes.

    Learning and writing together are planned to take about five minutes for 100 photos and thirty
    for 1,000. Arguments that are given are kept; the rest is chosen.

    Args:
        dataset: A folder of photos, opened by ``open_folder`` of ``data/image_folder``.
        survey: The result of ``survey_folder`` for it.
        visibility: How much of the change may be visible; ignored by methods without visibility.
        device: As in :meth:`Method.fit`.
        precision: As in :meth:`Method.fit`.
        method: A configured method or a class. None means ``SEM``, or ``LSP`` if all photos are of
            one class and there is nothing to tell them from.
        preset: Preset of the class; None chooses one.
        params: Parameters that override the preset's.
        image_size: Side to learn at, in pixels; None chooses one.
        others: Other pictures to tell the photos apart from, opened by ``open_folder``; only for
            methods that learn a row for each image.
        clusters: Number of groups of similar photos that stand in for kinds of picture, for photos
            without class folders; only for methods that learn a row for each image. Needs the extra
            ``pretrained``.

    Raises:
        ValueError: Both others and groups are given, or the method learns nothing from them.
        ImportError: The extra ``pretrained`` is not installed.
    """
    if clusters is not None and others is not None:
        raise ValueError("expected either --clusters or --others, got both")
    if clusters is not None and clusters < 2:
        raise ValueError(f"expected at least 2 groups with --clusters, got {clusters}")
    if clusters is not None and clusters > len(dataset):
        raise ValueError(
            f"expected no more groups with --clusters than the {len(dataset):,} photos, got "
            f"{clusters:,}; ask for fewer"
        )
    _check_rows(method, params or {}, others, clusters)
    groups = None if clusters is None else group_photos(dataset, clusters, device=device)
    both = _learned(dataset, others, groups)
    classes = _classes(both)
    if method is None:
        method = SEM if sum(map(bool, classes.values())) > 1 else LSP
    kind = type(method) if isinstance(method, Method) else method
    shown = visibility if kind.masked else None
    writing = measure_writing(dataset, survey, shown)
    seconds = _time_for(len(dataset))
    budget = max(_LEAST_SHARE * seconds, seconds - writing.seconds)
    given = dict(params or {})
    sizes = [image_size] if image_size else sizes_up_to(_largest(survey))
    choice = Choice(both, sizes, budget, device, precision)
    if isinstance(method, Method):
        found = choice.of_size(method)
    elif preset is not None:
        found = choice.of_size(kind.preset(preset, **given))
    else:
        found = choice.of_kind(kind, given)
    resized = image_size is not None or not _is_one_size(survey, found.size)
    return Plan(
        method=found.method,
        image_size=found.size if resized else None,
        visibility=shown,
        images=len(dataset),
        seconds=found.seconds + writing.seconds,
        memory=max(found.memory, writing.memory),
        classes=classes,
        writing=writing.seconds,
        disk=writing.disk,
        flat=isinstance(dataset, FlatFolder),
        both=None if both is dataset else both,
        groups=groups,
    )


def _check_rows(
    method: Method | type[Method] | None, params: Mapping[str, Any], others: Any, clusters: Any
) -> None:
    """Raises ``ValueError`` where there are others or groups that a method learns nothing from."""
    if method is None or (others is None and clusters is None):
        return
    kind = type(method) if isinstance(method, Method) else method
    usual = kind.granularities[0]
    class_wise = params.get("granularity", getattr(method, "granularity", usual)) == "class-wise"
    if clusters is not None and kind.kind == "stack":
        raise ValueError(
            f"expected a method that changes each photo by itself with --clusters, such as sem, "
            f"got {kind.__name__}, which adds a pattern for each folder; omit --clusters, or sort "
            f"the photos into folders"
        )
    if kind.least_classes >= 2 and not class_wise:
        return
    option, what = (
        ("--others", "other pictures") if clusters is None else ("--clusters", "groups of photos")
    )
    raise ValueError(
        f"expected a method that learns a change for each photo with {option}, such as sem, got "
        f"{kind.__name__}{' class-wise' if class_wise else ''}, which learns nothing from {what}; "
        f"omit {option} or --method"
    )


def _learned(
    dataset: Any, others: ImageFolder | None, groups: Sequence[int] | None
) -> ImageFolder | Any:
    """What is learned: the photos, these with others, or these in groups."""
    if groups is not None:
        return grouped(dataset, groups)
    return dataset if others is None else joined(dataset, others)


def _classes(dataset: Any) -> dict[str, int]:
    """How many photos there are of each class."""
    counts = Counter(dataset.targets)
    return {name: counts[index] for index, name in enumerate(dataset.classes)}


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
