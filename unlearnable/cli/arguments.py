"""What the words of the command line stand for: datasets, methods and their parameters."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from torchvision import datasets

from ..data.image_folder import open_folder
from ..data.shapes import Shapes
from ..methods import METHODS
from ..methods.base import Method

METHOD_NAMES = {method.__name__.lower(): method for method in METHODS}
DATASET_HELP = (
    "a folder of class folders, or NAME:ROOT with NAME one of cifar10, cifar100, mnist, "
    "fashion-mnist, svhn, stl10 (torchvision's files below ROOT), or shapes (generated)"
)
PERTURBATION_HELP = (
    "folder of a saved perturbation, owner/name on the Hugging Face Hub, or a name from "
    "'unlearnable list'"
)


def open_dataset(name: str, *, train: bool = True) -> Any:
    """A dataset as the command line names it.

    Raises:
        ValueError: The name is not known, or the files are not there.
    """
    kind, _, root = name.partition(":")
    split = "train" if train else "test"
    makers: dict[str, Any] = {
        "cifar10": lambda: datasets.CIFAR10(root, train=train),
        "cifar100": lambda: datasets.CIFAR100(root, train=train),
        "mnist": lambda: datasets.MNIST(root, train=train),
        "fashion-mnist": lambda: datasets.FashionMNIST(root, train=train),
        "svhn": lambda: datasets.SVHN(root, split=split),
        "stl10": lambda: datasets.STL10(root, split=split),
        "shapes": lambda: Shapes(train=train, size=int(root) if root else None),
    }
    if kind in makers and (root or kind == "shapes") and not Path(name).is_dir():
        try:
            return makers[kind]()
        except RuntimeError as error:
            raise ValueError(
                f"could not open {name}: expected the original files below {root}, as torchvision "
                f"downloads them, found none or changed ones; nothing is downloaded here"
            ) from error
    if not Path(name).is_dir():
        raise ValueError(f"expected {DATASET_HELP}; got {name!r}")
    return open_folder(name)


def parse_value(text: str) -> Any:
    """A parameter as it is typed: 8/255, 5, 0.1, true, null, or a word."""
    above, slash, below = text.partition("/")
    try:
        return float(above) / float(below) if slash else json.loads(text)
    except (ValueError, ZeroDivisionError):
        return text


def method_of(args: argparse.Namespace) -> Method:
    """The method that ``--method``, ``--preset``, ``--set`` and the like describe."""
    params = {"seed": args.seed}
    for assignment in args.set:
        name, equals, text = assignment.partition("=")
        if not equals:
            raise ValueError(f"expected --set NAME=VALUE, got {assignment!r}")
        params[name] = parse_value(text)
    method = METHOD_NAMES[args.method]
    for name in ("epsilon", "granularity", "surrogate"):
        if getattr(args, name) is not None:
            text = getattr(args, name)
            params[name] = parse_value(text) if name == "epsilon" else text
    try:
        return method.preset(args.preset, **params)
    except TypeError as error:
        known = ", ".join(method().get_params())
        raise ValueError(f"{method.__name__} has the parameters {known}; {error}") from error


def image_size_of(args: argparse.Namespace) -> int | tuple[int, ...] | None:
    """A side or (height, width), as ``fit`` takes it; None where none is given."""
    if args.image_size is None:
        return None
    return args.image_size[0] if len(args.image_size) == 1 else tuple(args.image_size)
