"""Countermeasures of those who know which kind of perturbation was used, and who can undo it."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ...perturbation.kinds.base import Kind
from ...perturbation.perturbation import Perturbation
from .adversarial import AdversarialTraining
from .base import Countermeasure
from .composition import Composition
from .names import countermeasure
from .patches import PatchErasure

_MEANS = "class-mean-subtraction"
# What is known of a kind -> countermeasures by name, the one that undoes most of it first.
_BY_NAME: dict[str, tuple[str, ...]] = {
    "colours": ("shift-removal", f"{_MEANS}-colour", "channel-matching"),
    "rows of classes": (_MEANS, f"{_MEANS}-high", f"{_MEANS}+jpeg-30"),
    "rows of images": (_MEANS,),
    "pixels": ("pixel-repair", "median-filter"),
    "kernels": ("sharpening", "sharpening+channel-normalization", "spectrum-matching"),
    "cells": ("patch-erasure", f"{_MEANS}-low", "patch-erasure+grayscale"),
    "processes": ("median-filter+low-pass", "median-filter", "spectrum-matching+low-pass"),
    "periods": (
        "spectrum-matching",
        "spectrum-matching+channel-normalization",
        "spectrum-matching+jpeg-30",
    ),
}
_WHO: dict[str, str] = {
    "colours": (
        "Anyone who normalizes the colours of each image undoes it, even unknowingly. Anyone who "
        "has the labels can infer each class's shift from the ends of its range of values and "
        "reverse it, except where values were clipped at black or white."
    ),
    "rows of classes": (
        "Anyone who has the labels can average the images of each class: what they have in common "
        "is the row, and subtracting it undoes the protection of all of them at once."
    ),
    "rows of images": (
        "Anyone who converts the images to grey or to low-quality JPEGs, or trains adversarially "
        "with the budget as the radius, undoes much of it, knowing only that images were changed. "
        "The average of a class reveals no more than what its rows have in common."
    ),
    "pixels": (
        "Anyone who has the labels can find the pixel that is the same in all images of a class "
        "and paint over it; a median filter removes it without any knowledge."
    ),
    "kernels": (
        "Anyone who sharpens the images undoes much of it without knowing the kernels. Anyone who "
        "has the labels sees the kernels in the average spectrum of each class, mixed with the "
        "spectrum of the class itself. Anyone who knows the seed can compute them."
    ),
    "cells": (
        "Anyone who has the labels and knows the cells can erase what lets a linear model on "
        "their mean colours tell the classes apart; low-quality JPEGs weaken it without any "
        "knowledge. Anyone who knows the seed can compute the centres of all rows."
    ),
    "processes": (
        "Anyone who saves the images as low-quality JPEGs, or trains adversarially, undoes it "
        "without knowing the processes; medians of neighbouring pixels without fine detail do so "
        "in part. Anyone who has the labels sees the processes in the average spectrum of each "
        "class, mixed with the spectrum of the class itself. Anyone who knows the seed can compute "
        "them."
    ),
    "periods": (
        "Anyone who has the labels sees the periods of a class in its average spectrum, and "
        "anyone who knows the method can compute them, whatever the seed. Both can filter them "
        "out, together with what the pictures themselves contain at these frequencies."
    ),
}
_NOISE = (
    "There is nothing to undo: noise that says nothing about the class does not keep anyone from "
    "learning."
)
# What the bottom of a stack is tried with, once the parts above are undone: else its own first.
_BELOW = {"rows of images": (_MEANS, "jpeg-10", "grayscale")}
_STACK = (
    "All parts have to be undone, the topmost first; undoing one part leaves the others in place."
)
_GENERATORS = {"lsp-1": "cells", "ar-1": "processes", "gratings-1": "periods"}
_ADVERSARY_STEPS = 3  # of adversarial training with the budget as radius, which few can afford


def adaptive_countermeasures(perturbation: Perturbation) -> tuple[Countermeasure, ...]:
    """The countermeasures of a trainer who knows the kind of perturbation.

    Such a trainer knows the kind and its public settings, such as the budget and the size of cells,
    and has the labels, but knows neither the seed nor any clean image. For a stack, the result
    contains the countermeasures of all parts and a composition of the first one of each part,
    topmost first. If the bottom of a stack has rows per image, generally known countermeasures
    against these are added.

    Args:
        perturbation: The perturbation that protects the images.
    """
    parts = perturbation.parts
    each = [_of_kind(part) for part in parts]
    found = [counter for counters in each for counter in counters]
    if len(parts) > 1:
        above = [counters[0] for counters in reversed(each[1:])]
        for name in _BELOW.get(what_is_known(parts[0]), (each[0][0].name,)):
            together = _unique([*above, countermeasure(name)])
            found += [Composition(tuple(together))] if len(together) > 1 else []
    return tuple(_unique(found))


def who_can_undo(perturbation: Perturbation) -> list[str]:
    """Who can undo a perturbation of this kind, and with what knowledge: one text per part."""
    texts = list(dict.fromkeys(map(_who, perturbation.parts)))
    return [_STACK, *texts] if len(perturbation.parts) > 1 else texts


def _who(kind: Kind) -> str:
    noise = kind.config["method"] == "RandomNoise" and kind.config["granularity"] == "sample-wise"
    return _NOISE if noise else _WHO[what_is_known(kind)]


def what_is_known(kind: Kind) -> str:
    """What a trainer who knows the kind looks for, such as ``"pixels"`` or ``"rows of images"``."""
    known = {"pixel": "pixels", "convolution": "kernels", "shift": "colours"}
    if kind.name in known:
        return known[kind.name]
    generator = _GENERATORS.get(str(kind.settings.get("generator")))
    if generator is not None:
        return generator
    if kind.config["granularity"] == "sample-wise":
        return "rows of images"
    return "colours" if _one_colour_each(kind) else "rows of classes"


def _one_colour_each(kind: Kind) -> bool:
    """Whether class-wise rows are the same at all pixels, as a shift of the colours is."""
    if "rows" not in kind.tensors or kind.mask is not None:
        return False
    rows = np.asarray(kind.tensors["rows"])
    return bool((rows == rows[:, :, :1, :1]).all())


def _of_kind(kind: Kind) -> list[Countermeasure]:
    what = what_is_known(kind)
    found = [countermeasure(name) for name in _BY_NAME[what]]
    if what == "cells":
        cell = PatchErasure(kind.settings["cell"])
        found = [cell, *found[1:-1], Composition((cell, countermeasure("grayscale")))]
    if what == "rows of images":
        found += _knowing_budget(kind)
    return found


def _knowing_budget(kind: Kind) -> list[Countermeasure]:
    """Of rows whose budget is known: what goes no further, and a ball of that radius."""
    epsilon, norm = kind.config["epsilon"], kind.config["norm"]
    if not epsilon:
        return []
    if norm != "Linf":
        return [AdversarialTraining(epsilon, norm, _ADVERSARY_STEPS)]
    levels = max(1, round(255 * epsilon))
    return [
        AdversarialTraining(levels, steps=_ADVERSARY_STEPS),
        countermeasure(f"jpeg-10-within-{levels}"),
    ]


def _unique(counters: Iterable[Countermeasure]) -> list[Countermeasure]:
    return list({counter.name: counter for counter in counters}.values())
