"""The names that options take and help lists, at once: nothing here imports torch.

What is defined elsewhere, in modules that do, stands here a second time, and a test compares both.
Names are read without regard to case, hyphens and underscores: ``SEM``, ``ResNet18``.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable

from ..engine.names import folded, suggestion
from ..methods import MODULES

METHOD_NAMES = [name.lower() for name in MODULES]
DATASET_NAMES = {
    "cifar10": "CIFAR10", "cifar100": "CIFAR100", "mnist": "MNIST",
    "fashion-mnist": "FashionMNIST", "svhn": "SVHN", "stl10": "STL10",
}  # as typed -> name of torchvision's class  # fmt: skip
NETWORK_NAMES = (
    "resnet9", "resnet18", "resnet50", "vgg16", "densenet121", "mobilenetv2", "senet18",
    "wrn28-10", "vit-small", "tiny", "tiny-resnet", "efficientnet-lite0",
)  # fmt: skip
VISIBILITY_NAMES = ("low", "medium", "high", "full")
RECIPE_NAMES = ("standard", "fast")
EXPORT_NAMES = ("cifar", "npz", "parquet", "png", "webdataset", "webp")
LOSSY_NAMES = {"jpeg": "jpeg", "jpg": "jpeg"}  # formats that need a quality
SET_NAMES = ("standard", "strong", "adaptive")
COUNTERMEASURE_NAMES = (
    "none", "grayscale", "grayscale-everywhere", "jpeg-10", "jpeg-30", "bit-depth-2", "low-pass",
    "displacement", "channel-normalization", "histogram-equalization", "colour-whitening",
    "colour-jitter", "shift-noise-8", "cutmix", "ueraser-lite", "adversarial-training-4-steps-3",
    "orthogonal-projection", "jpeg-10+grayscale", "jpeg-10+grayscale-everywhere",
    "channel-normalization+jpeg-10", "unprotected-20", "jpeg-50", "jpeg-90", "gaussian-blur",
    "median-filter", "cutout", "mixup",
    "randaugment", "hue-shift", "ueraser-max", "adversarial-training-2", "adversarial-training-4",
    "adversarial-training-6", "adversarial-training-8", "adversarial-training-4-shift-25",
    "channel-normalization+jpeg-10+grayscale", "staged-training", "fine-tuning",
    "clean-part-only-20", "leaked-pairs-500",
)  # fmt: skip


def one_of(names: Iterable[str]) -> Callable[[str], str]:
    """Parses an option whose value is one of a few names."""
    known = list(names)

    def read(text: str) -> str:
        found = as_known(text, known)
        if found not in known:
            near = suggestion(text, known)
            raise argparse.ArgumentTypeError(
                f"expected one of {', '.join(known)}, got {text!r}{near}"
            )
        return found

    return read


def as_known(text: str, known: Iterable[str]) -> str:
    """The known name that matches a text; otherwise the text unchanged."""
    return {folded(name): name for name in known}.get(folded(text), text)


def network_name(text: str) -> str:
    """Parses the name of a network, including torchvision's."""
    prefix, colon, name = text.partition(":")
    return f"torchvision:{name.lower()}" if colon else as_known(prefix, NETWORK_NAMES)


def countermeasure_name(text: str) -> str:
    """Parses a countermeasure, which may contain numbers, several joined by "+", or a set."""
    known = as_known(text, (*SET_NAMES, *COUNTERMEASURE_NAMES))
    parts = (as_known(part, COUNTERMEASURE_NAMES) for part in known.split("+"))
    return "+".join(part.lower().replace("_", "-") for part in parts)


def export_format(text: str) -> str:
    """Parses an export format."""
    found = as_known(text, (*EXPORT_NAMES, *LOSSY_NAMES))
    return LOSSY_NAMES.get(found, found)


def quality(text: str) -> int | str:
    """Parses the quality of a lossy export: a number or a word."""
    return int(text) if text.isdecimal() else text.lower()
