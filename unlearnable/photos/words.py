"""A plan in words, for people who know photos and no machine learning."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sized
from typing import Any, Protocol

from ..engine.estimate import duration, gigabytes

ENOUGH = 100  # photos of a class from which on an audit may say something, as a rule of thumb
_LOOKS = {
    "low": "It will look untouched: in smooth areas, such as sky or skin, no value changes by more "
    "than 1 of 255.",
    "medium": "It will look almost untouched: in smooth areas, such as sky or skin, values change "
    "by up to 2 of 255.",
    "high": "It will show on a close look: in smooth areas, such as sky or skin, values change by "
    "up to 4 of 255.",
    "full": "It will show: values change by as much in smooth areas, such as sky or skin, as "
    "elsewhere.",
}
_TINTED = (
    "Every photo gets the tint of its kind, as with another white balance: by that, values change "
    "by up to {} of 255."
)
_UNSEEN = "How it will look depends on the method."
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
    def image_size(self) -> int | None: ...
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
        whose = f"to be told apart from {others:,} other pictures, which stay as they are"
    elif plan.flat:
        whose = "without class folders"
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
    found = _UNSEEN if plan.visibility is None else _LOOKS[plan.visibility]
    only = plan.method.kind == "shift"
    tint = plan.method.epsilon if only else getattr(plan.method, "colour_epsilon", None)
    if tint is None:
        return found
    tinted = _TINTED.format(math.floor(255 * tint + 1e-6))
    return tinted if only else f"{tinted} Apart from that, {found[0].lower()}{found[1:]}"


def _takes(plan: Planned) -> str:
    size = (
        "at the size of the photos" if plan.image_size is None else f"at {plan.image_size} pixels"
    )
    how = f"Method {type(plan.method).__name__}, {size}"
    network = getattr(plan.method, "surrogate", None)
    if isinstance(network, str) and plan.method.passes(plan.images) != 0:
        how += f", with the small network {network}" if network == "tiny" else f", with {network}"
    memory = f"about {gigabytes(plan.memory)} of memory"
    if math.isnan(plan.seconds):
        return f"{how}. It takes {memory}; how long is not known."
    learning = plan.seconds - plan.writing
    parts = f"{duration(learning)} to learn, {duration(plan.writing)} to write the copies"
    return f"{how}. It takes about {duration(plan.seconds)} ({parts}) and {memory} here."


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
