"""A plan in words, for people who know photos and no machine learning."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence, Sized
from typing import Any, Protocol

from ..engine.estimate import duration, gigabytes

_USUAL = 8 / 255  # what the levels below belong to
ENOUGH = 100  # photos of a class from which on an audit may say something, as a rule of thumb
_LOOKS = {
    "low": "The copies will look untouched",
    "medium": "The copies will look almost untouched",
    "high": "The change will show on a close look",
}
_LIT = (
    "Every photo gets large, soft patches of light and colour, the same for all of its kind: "
    "pixels change by up to {} of 255 levels of brightness by them, {}."
)
_TINTED = (
    "Every photo gets the tint of its kind, as with another white balance: by that, values change "
    "by up to {} of 255 levels of brightness."
)
_SMOOTH = {"low": "at most 1", "medium": "up to 2", "high": "up to 4"}  # levels, of 8 in all
_SHOWS = (
    "The change will show: pixels change by as much in smooth areas, such as sky or skin, as "
    "elsewhere."
)
_UNSEEN = "How the copies will look depends on the method."
HINDERS = (
    "It hinders: programs that learn from scratch to tell your kinds of picture apart, when they "
    "learn from the published copies."
)
_HINDERS_OTHERS = (
    "It hinders: programs that learn from scratch to tell your photos from others', when they "
    "learn from the published copies; how much is not measured here."
)
_HINDERS_GROUPS = (
    "It hinders: programs that learn from scratch to tell kinds of picture apart, when they learn "
    "from the published copies, as far as their kinds are like these groups; whoever sorts the "
    "photos quite otherwise is hindered less."
)
NOT_HINDERED = (
    "It does not stop: image generators and style imitation, face search, programs that already "
    "know pictures, and whoever takes the trouble to remove it."
)
GROUPS_TOO = (
    "; so it is with --clusters 10, which sorts the photos into groups of similar ones and needs "
    "the extra pretrained"
)
_ONE_KIND = (
    "All photos are of one kind, so nothing can be learned that tells them from others: they get "
    "one computed pattern in common. That can only mislead a program that learns to tell these "
    "photos from other people's, unprotected ones, and whether it does is not measured here. With "
    f"a second folder of other pictures, --others FOLDER, a pattern is learned{GROUPS_TOO}."
)


class Planned(Protocol):
    """What the words are about: attributes of :class:`~unlearnable.photos.plan.Plan`."""

    @property
    def method(self) -> Any: ...
    @property
    def image_size(self) -> Any: ...
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
    """What is done, how it will look, what it takes, what it is good for, and what it is not."""
    return [_what(plan), _looks(plan), _takes(plan), *_for_what(plan)]


def _what(plan: Planned) -> str:
    count = "1 photo" if plan.images == 1 else f"{plan.images:,} photos"
    filled = [name for name, images in plan.classes.items() if images]
    if plan.groups is not None:
        whose = (
            f"sorted into {len(filled)} groups of similar ones, which are taken as the kinds of "
            f"picture to tell apart"
        )
    elif plan.both is not None:
        others = len(plan.both) - plan.images
        whose = (
            "to be told apart from 1 other picture, which stays as it is"
            if others == 1
            else f"to be told apart from {others:,} other pictures, which stay as they are"
        )
    elif plan.flat:
        whose = "not sorted into folders"
    elif len(filled) == 1:
        whose = f"in one folder, {filled[0]}"
    else:
        more = f" and {len(filled) - 5:,} more" if len(filled) > 5 else ""
        some = ", ".join(filled[:5]) + more
        whose = (
            f"in {len(filled):,} folders, which are taken as the kinds of picture to tell apart: "
            f"{some}"
        )
    return f"{count} {whose}."


def _looks(plan: Planned) -> str:
    field = getattr(plan.method, "field_epsilon", None)
    if field is not None:
        smooth = "in smooth areas, such as sky or skin,"
        where = f"{smooth} least" if plan.visibility in _LOOKS else f"{smooth} too, and it shows"
        return _LIT.format(math.floor(255 * field + 1e-6), where)
    found = _shows(plan)
    only = plan.method.kind == "shift"
    tint = getattr(plan.method, "epsilon" if only else "colour_epsilon", None)
    if tint is None:
        return found
    tinted = _TINTED.format(math.floor(255 * tint + 1e-6))
    return tinted if only else f"{tinted} Apart from that, {found[0].lower()}{found[1:]}"


def _shows(plan: Planned) -> str:
    level = plan.visibility
    if level is None:
        return _UNSEEN
    if level not in _LOOKS:
        return _SHOWS
    linf = getattr(plan.method, "norm", None) == "Linf"
    usual = linf and math.isclose(getattr(plan.method, "epsilon", 0.0), _USUAL)
    change = f"by {_SMOOTH[level]} of 255 levels of brightness" if usual else "least"
    return f"{_LOOKS[level]}: in smooth areas, such as sky or skin, pixels change {change}."


def _takes(plan: Planned) -> str:
    reduced = _reduced(plan.image_size)
    learning = plan.seconds - plan.writing
    name = type(plan.method).__name__
    if learning == 0:
        how = f"What to change is computed {reduced} (method {name})"
    else:
        network = getattr(plan.method, "surrogate", None)
        named = f", network {network}" if isinstance(network, str) else ""
        how = f"What to change is learned {reduced} (method {name}{named})"
    memory = f"about {gigabytes(plan.memory)} of memory"
    if math.isnan(plan.seconds):
        return f"{how}. That takes {memory}; how long is not known."
    parts = f"{duration(learning)} to learn, {duration(plan.writing)} to write the copies"
    parts = f" ({parts})" if learning else ""
    return f"{how}. It takes about {duration(plan.seconds)}{parts} and {memory} on this computer."


def _reduced(size: int | Sequence[int] | None) -> str:
    if size is None:
        return "from the photos at their own size"
    side = f"{size}" if isinstance(size, int) else " x ".join(map(str, size))
    return f"from the photos reduced to {side} pixels"


def _for_what(plan: Planned) -> list[str]:
    if type(plan.method).__name__ == "RandomNoise":
        return ["It protects nothing: random noise is there to compare other methods with."]
    filled = [images for images in plan.classes.values() if images]
    if len(filled) < 2:
        return [
            _ONE_KIND,
            NOT_HINDERED,
            "Whether it works cannot be measured on one kind of photo.",
        ]
    if plan.groups is not None:
        return [_HINDERS_GROUPS, NOT_HINDERED]
    if plan.both is not None:
        return [_HINDERS_OTHERS, NOT_HINDERED]
    found = [HINDERS, NOT_HINDERED]
    if not measurable(plan):
        found.append(
            f"How well it works cannot be measured on so few photos: that takes about {ENOUGH} in "
            f"each folder."
        )
    return found


def measurable(plan: Planned) -> bool:
    """Whether there are photos enough for an audit to say something."""
    filled = [images for images in plan.classes.values() if images]
    return len(filled) > 1 and sum(filled) >= ENOUGH * len(filled)
