"""Countermeasures by name."""

from __future__ import annotations

import re
from collections.abc import Callable

from ...engine.names import suggestion
from .adversarial import AdversarialTraining
from .automatic import RandAugment
from .base import Countermeasure, NoCountermeasure
from .channels import ChannelNormalization, ColourWhitening, HistogramEqualization
from .class_means import ClassMeanSubtraction
from .composition import Composition
from .displacement import Displacement
from .images import JPEG, BitDepth, GaussianBlur, Grayscale, MeanFilter, MedianFilter
from .lowpass import LowPass
from .mixing import CutMix, Cutout, MixUp
from .pretrained import FineTuning
from .projection import OrthogonalProjection
from .ueraser import UEraser
from .unprotected import CleanPartOnly, Unprotected

# Capital letters stand for a number, an argument of what is called; only a radius has decimals.
NAMES: dict[str, Callable[..., Countermeasure]] = {
    "none": NoCountermeasure,
    "grayscale": Grayscale,
    "jpeg-QUALITY": JPEG,
    "bit-depth-BITS": BitDepth,
    "gaussian-blur": GaussianBlur,
    "median-filter": MedianFilter,
    "mean-filter": MeanFilter,
    "low-pass": LowPass,
    "channel-normalization": ChannelNormalization,
    "histogram-equalization": HistogramEqualization,
    "colour-whitening": ColourWhitening,
    "displacement": Displacement,
    "cutout": Cutout,
    "cutmix": CutMix,
    "mixup": MixUp,
    "randaugment": RandAugment,
    "ueraser-lite": lambda: UEraser(draws=1),
    "ueraser": UEraser,
    "ueraser-max": lambda: UEraser(until=1),
    "adversarial-training-RADIUS": AdversarialTraining,
    "adversarial-training-RADIUS-steps-STEPS": lambda radius, steps: AdversarialTraining(
        radius, steps=steps
    ),
    "adversarial-training-l2-RADIUS": lambda radius: AdversarialTraining(radius, "L2"),
    "adversarial-training-l2-RADIUS-steps-STEPS": lambda radius, steps: AdversarialTraining(
        radius, "L2", steps
    ),
    "orthogonal-projection": OrthogonalProjection,
    "fine-tuning": FineTuning,
    "class-mean-subtraction": ClassMeanSubtraction,
    "class-mean-subtraction-low": lambda: ClassMeanSubtraction("low"),
    "class-mean-subtraction-high": lambda: ClassMeanSubtraction("high"),
    "class-mean-subtraction-colour": lambda: ClassMeanSubtraction("colour"),
    "unprotected-PERCENT": Unprotected,
    "clean-part-only-PERCENT": CleanPartOnly,
}
COUNTERMEASURES: tuple[str, ...] = (
    "none",
    "grayscale",
    "jpeg-10",
    "jpeg-30",
    "jpeg-50",
    "jpeg-90",
    "bit-depth-2",
    "gaussian-blur",
    "median-filter",
    "displacement",
    "cutout",
    "cutmix",
    "mixup",
    "randaugment",
    "ueraser-max",
    "adversarial-training-4",
    "adversarial-training-8",
    "orthogonal-projection",
    "fine-tuning",
    "unprotected-20",
)


def countermeasure(chosen: str | Countermeasure | None) -> Countermeasure:
    """A countermeasure from its name.

    Args:
        chosen: A name such as ``"jpeg-10"``, or several joined by ``+``, such as
            ``"jpeg-10+grayscale"``; None for ``"none"``; or a countermeasure, which is returned.

    Raises:
        ValueError: The name is not known, its number out of range, or parts cannot be composed.
    """
    if isinstance(chosen, Countermeasure):
        return chosen
    if chosen is None:
        return NoCountermeasure()
    if "+" in chosen:
        return Composition(tuple(map(countermeasure, chosen.split("+"))))
    for template, make in NAMES.items():
        pattern = template.replace("RADIUS", r"(\d+(?:\.\d+)?)")
        if found := re.fullmatch(re.sub("[A-Z]+", r"(\\d+)", pattern), chosen):
            numbers = found.groups()
            return make(*(float(number) if "." in number else int(number) for number in numbers))
    near = suggestion(chosen, [*COUNTERMEASURES, *NAMES])
    raise ValueError(f"expected a countermeasure out of {', '.join(NAMES)}; got {chosen!r}{near}")
