"""A plan in words, for people who know photos and no machine learning."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ..engine.estimate import duration, gigabytes

if TYPE_CHECKING:
    from .plan import Plan

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
_UNSEEN = "How it will look depends on the method."
HINDERS = (
    "It hinders: programs that learn from scratch to tell your kinds of picture apart, when they "
    "learn from the published copies."
)
NOT_HINDERED = (
    "It does not stop: image generators and style imitation, face search, programs that already "
    "know pictures, and whoever takes the trouble to remove it."
)
_ONE_KIND = (
    "All photos are of one kind, so nothing can be learned that tells them from others: they get "
    "one computed pattern in common. That can only mislead a program that learns to tell these "
    "photos from other people's, unprotected ones, and whether it does is not measured here. With "
    "a second folder of other pictures, --others FOLDER, a pattern is learned."
)


def sentences(plan: Plan) -> list[str]:
    """What is done, how it will look, what it takes, what it is good for, and what it is not."""
    return [_what(plan), _looks(plan), _takes(plan), *_for_what(plan)]


def _what(plan: Plan) -> str:
    count = "1 photo" if plan.images == 1 else f"{plan.images:,} photos"
    filled = [name for name, images in plan.classes.items() if images]
    if plan.flat:
        whose = "without class folders"
    else:
        some = ", ".join(filled[:5]) + (", …" if len(filled) > 5 else "")
        folders = "1 folder" if len(filled) == 1 else f"{len(filled):,} folders"
        whose = f"in {folders}, which are taken as the kinds of picture to tell apart: {some}"
    return f"{count} {whose}."


def _looks(plan: Plan) -> str:
    return _UNSEEN if plan.visibility is None else _LOOKS[plan.visibility]


def _takes(plan: Plan) -> str:
    size = (
        "at the size of the photos" if plan.image_size is None else f"at {plan.image_size} pixels"
    )
    how = f"Method {type(plan.method).__name__}, {size}"
    network = getattr(plan.method, "surrogate", None)
    if isinstance(network, str):
        how += f", with the small network {network}" if network == "tiny" else f", with {network}"
    memory = f"about {gigabytes(plan.memory)} of memory"
    if math.isnan(plan.seconds):
        return f"{how}. It takes {memory}; how long is not known."
    learning = plan.seconds - plan.writing
    parts = f"{duration(learning)} to learn, {duration(plan.writing)} to write the copies"
    return f"{how}. It takes about {duration(plan.seconds)} ({parts}) and {memory} here."


def _for_what(plan: Plan) -> list[str]:
    filled = [images for images in plan.classes.values() if images]
    if len(filled) < 2:
        return [
            _ONE_KIND,
            NOT_HINDERED,
            "Whether it works cannot be measured on one kind of photo.",
        ]
    found = [HINDERS, NOT_HINDERED]
    if not measurable(plan):
        found.append(
            f"How well it works cannot be measured on so few photos: that takes about {ENOUGH} in "
            f"each folder."
        )
    return found


def measurable(plan: Plan) -> bool:
    """Whether there are photos enough for an audit to say something."""
    filled = [images for images in plan.classes.values() if images]
    return len(filled) > 1 and sum(filled) >= ENOUGH * len(filled)
