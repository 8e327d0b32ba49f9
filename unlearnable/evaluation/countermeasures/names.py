"""Countermeasures by name."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable

from ...engine.names import suggestion
from .adversarial import AdversarialTraining, ShiftAdversarialTraining
from .automatic import RandAugment
from .base import Countermeasure, NoCountermeasure
from .channel_matching import ChannelMatching
from .channels import ChannelNormalization, ColourWhitening, HistogramEqualization
from .class_means import ClassMeanSubtraction
from .class_shifts import ShiftRemoval
from .class_spectra import SpectrumMatching
from .colours import ColourJitter, HueShift, ShiftNoise
from .composition import Composition
from .displacement import Displacement
from .fixed_pixels import PixelRepair
from .imagenet import FineTuningImageNet, LinearProbeImageNet
from .images import JPEG, BitDepth, Filter, GaussianBlur, Grayscale, MeanFilter, MedianFilter
from .leaked_pairs import LeakedPairs
from .lowpass import LowPass
from .mixing import CutMix, Cutout, MixUp
from .patches import PatchErasure
from .pretrained import FineTuning
from .projection import OrthogonalProjection
from .sets import ADAPTIVE, SETS, STRONG_SET
from .sharpening import Sharpening
from .staged import StagedTraining
from .ueraser import UEraser
from .unprotected import CleanPartOnly, Unprotected
from .within_budget import WithinBudget

# Capital letters stand for a number, an argument of what is called, with decimals if _DECIMAL.
NAMES: dict[str, Callable[..., Countermeasure]] = {
    "none": NoCountermeasure,
    "grayscale": Grayscale,
    "grayscale-everywhere": lambda: Grayscale(test_images=True),
    "jpeg-QUALITY": JPEG,
    "bit-depth-BITS": BitDepth,
    "gaussian-blur": GaussianBlur,
    "median-filter": MedianFilter,
    "mean-filter": MeanFilter,
    "low-pass": LowPass,
    "sharpening": Sharpening,
    "channel-normalization": ChannelNormalization,
    "histogram-equalization": HistogramEqualization,
    "colour-whitening": ColourWhitening,
    "displacement": Displacement,
    "cutout": Cutout,
    "cutmix": CutMix,
    "mixup": MixUp,
    "randaugment": RandAugment,
    "colour-jitter": ColourJitter,
    "hue-shift": HueShift,
    "shift-noise-LEVELS": ShiftNoise,
    "ueraser-lite": lambda: UEraser(draws=1),
    "ueraser": UEraser,
    "ueraser-max": lambda: UEraser(until=1),
    "adversarial-training-RADIUS": AdversarialTraining,
    "adversarial-training-RADIUS-steps-STEPS": lambda radius, steps: AdversarialTraining(
        radius, steps=steps
    ),
    "adversarial-training-RADIUS-shift-SHIFT": lambda radius, shift: ShiftAdversarialTraining(
        radius, shift=shift
    ),
    "adversarial-training-RADIUS-steps-STEPS-shift-SHIFT": (
        lambda radius, steps, shift: ShiftAdversarialTraining(radius, steps=steps, shift=shift)
    ),
    "adversarial-training-l2-RADIUS": lambda radius: AdversarialTraining(radius, "L2"),
    "adversarial-training-l2-RADIUS-steps-STEPS": lambda radius, steps: AdversarialTraining(
        radius, "L2", steps
    ),
    "orthogonal-projection": OrthogonalProjection,
    "staged-training": StagedTraining,
    "fine-tuning": FineTuning,
    "fine-tuning-imagenet": FineTuningImageNet,
    "linear-probe-imagenet": LinearProbeImageNet,
    "class-mean-subtraction": ClassMeanSubtraction,
    "class-mean-subtraction-low": lambda: ClassMeanSubtraction("low"),
    "class-mean-subtraction-high": lambda: ClassMeanSubtraction("high"),
    "class-mean-subtraction-colour": lambda: ClassMeanSubtraction("colour"),
    "shift-removal": ShiftRemoval,
    "channel-matching": ChannelMatching,
    "spectrum-matching": SpectrumMatching,
    "pixel-repair": PixelRepair,
    "patch-erasure": PatchErasure,
    "patch-erasure-PIXELS": PatchErasure,
    "jpeg-QUALITY-within-LEVELS": lambda quality, levels: WithinBudget(JPEG(quality), levels),
    "median-filter-within-LEVELS": lambda levels: WithinBudget(MedianFilter(), levels),
    "leaked-pairs-PAIRS": LeakedPairs,
    "unprotected-PERCENT": Unprotected,
    "clean-part-only-PERCENT": CleanPartOnly,
}
_DECIMAL = ("RADIUS", "SHIFT", "LEVELS", "PERCENT")


def countermeasure(chosen: str | Countermeasure | None) -> Countermeasure:
    """Returns the countermeasure with a given name.

    Args:
        chosen: A name such as ``"jpeg-10"``, or several joined by ``+``, such as
            ``"jpeg-10+grayscale"``; None, which means ``"none"``; or a countermeasure, which is
            returned.

    Raises:
        ValueError: The name is unknown, its number is out of range, or the parts cannot be
            composed.
    """
    if isinstance(chosen, Countermeasure):
        return chosen
    if chosen is None:
        return NoCountermeasure()
    if not isinstance(chosen, str):
        made = isinstance(chosen, type) and issubclass(chosen, Countermeasure)
        advice = f"; make one of it: {chosen.__name__}(…)" if made else ""
        raise ValueError(f"expected a countermeasure, its name, or None, got {chosen!r}{advice}")
    chosen = chosen.replace("color", "colour")  # as it is written elsewhere
    if chosen in SETS or chosen == ADAPTIVE:
        raise ValueError(
            f"expected one countermeasure, got the set {chosen!r}; pass it to audit, which takes "
            f"sets, or choose a member of it from unlearnable.evaluation"
        )
    if "+" in chosen:
        return Composition(tuple(map(countermeasure, chosen.split("+"))))
    for template, make in NAMES.items():
        if found := re.fullmatch(re.sub("[A-Z]+", _number, template), chosen):
            numbers = found.groups()
            return make(*(float(number) if "." in number else int(number) for number in numbers))
    if (made := _of_filter(chosen)) is not None:
        return made
    near = suggestion(chosen, [*SETS, ADAPTIVE, *STRONG_SET, *NAMES])
    raise ValueError(f"expected a countermeasure out of {', '.join(NAMES)}; got {chosen!r}{near}")


def _number(placeholder: re.Match[str]) -> str:
    """The pattern of a number."""
    return r"(\d+(?:\.\d+)?)" if placeholder[0] in _DECIMAL else r"(\d+)"


def _of_filter(chosen: str) -> Countermeasure | None:
    """A filter of all or only of training images, or one within a budget, by its name."""
    found = re.fullmatch(r"(.+)-(everywhere|training-only|within-(\d+))", chosen)
    if found is None:
        return None
    try:
        inner = countermeasure(found[1])
    except ValueError:
        return None
    if found[3] is not None:
        return WithinBudget(inner, int(found[3])) if isinstance(inner, Filter) else None
    if not isinstance(inner, (Filter, Displacement)):
        return None
    return dataclasses.replace(inner, test_images=found[2] == "everywhere")
