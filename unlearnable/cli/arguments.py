"""What the words of the command line stand for: numbers, datasets, methods, folders."""

from __future__ import annotations

import argparse
import inspect
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..data.export_marker import MARKER, export_at
from ..engine.names import suggestion
from ..engine.numbers import integer
from ..hub import CONFIG
from ..io.files import claim_folder
from . import choices

if TYPE_CHECKING:
    from ..methods.base import Method
    from ..perturbation.perturbation import Perturbation

PARAMETERS = ("epsilon", "granularity", "surrogate")  # of methods, with an option each
DATASET_HELP = (
    f"a folder of photos, NAME:ROOT (NAME is one of {', '.join(choices.DATASET_NAMES)}; ROOT "
    "holds torchvision's files), or shapes (generated images)"
)


def chosen(args: argparse.Namespace, function: Callable[..., Any]) -> dict[str, Any]:
    """The options that are named like keyword-only arguments of a function, to pass to it."""
    parameters = inspect.signature(function).parameters.values()
    names = {p.name for p in parameters if p.kind is p.KEYWORD_ONLY}
    return {name: value for name, value in vars(args).items() if name in names}


def fraction(text: str) -> float:
    """Parses a number such as 8/255 or 0.1."""
    above, slash, below = text.partition("/")
    try:
        value = float(above) / float(below) if slash else float(text)
    except (ValueError, ZeroDivisionError):
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"expected a number such as 8/255 or 0.1, got {text!r}")
    return value


def seconds(text: str) -> float:
    """Parses a time in seconds; ``inf`` means never."""
    return math.inf if text == "inf" else fraction(text)


def parse_value(text: str) -> Any:
    """Parses a parameter: 8/255, 5, 0.1, true, null, or a word."""
    try:
        return fraction(text) if "/" in text else json.loads(text)
    except (ValueError, argparse.ArgumentTypeError):
        return text


def open_dataset(name: str, *, train: bool = True) -> Any:
    """Opens a dataset named on the command line; nothing is downloaded."""
    from torchvision import datasets

    from ..data.image_folder import open_folder
    from ..data.shapes import Shapes

    kind, _, root = name.partition(":")
    known = [*choices.DATASET_NAMES, "shapes"]
    kind = choices.as_known(kind, known)
    if Path(name).is_dir():
        return open_folder(name)
    if Path(name).is_file():
        raise ValueError(
            f"expected a folder of photos, got the file {name}; pass the folder that it is in"
        )
    if kind == "shapes":
        size = integer("N in shapes:N", parse_value(root), least=1) if root else None
        return Shapes(train=train, size=size)
    if kind not in choices.DATASET_NAMES or not root:
        if not root and kind not in known and not (near := suggestion(kind, known)):
            raise ValueError(
                f"expected a folder of photos, got {name!r}, which does not exist (looked in "
                f"{Path.cwd()}); check the spelling, or see --help for the datasets that can be "
                f"named"
            )
        near = "" if kind in known else suggestion(kind, known)
        raise ValueError(f"expected {DATASET_HELP}; got {name!r}{near}")
    splits = kind in ("svhn", "stl10")
    options = {"split": "train" if train else "test"} if splits else {"train": train}
    try:
        return getattr(datasets, choices.DATASET_NAMES[kind])(root, **options)
    except RuntimeError as error:
        raise ValueError(
            f"could not open {name}: expected the original files below {root}, as downloaded by "
            f"torchvision, found none or modified ones; download them with torchvision first, "
            f"because nothing is downloaded here"
        ) from error


def loaded(args: argparse.Namespace, dataset: Any) -> Perturbation:
    """Loads the perturbation named by ``--perturbation``, for a dataset."""
    from ..perturbation.perturbation import Perturbation

    options = {"device": getattr(args, "device", "auto"), "progress": args.progress}
    return Perturbation.from_pretrained(args.perturbation, dataset=dataset, **options)


def open_originals(name: str) -> Any:
    """Opens a dataset to learn on or to protect; refuses protected copies."""
    from ..protected.exported import refuse_exports

    dataset = open_dataset(name)
    refuse_exports(dataset)
    return dataset


def method_class(args: argparse.Namespace) -> type[Method]:
    """The method named by ``--method``."""
    from ..methods import METHODS

    return next(method for method in METHODS if method.__name__.lower() == args.method)


def parameters(args: argparse.Namespace) -> dict[str, Any]:
    """The parameters given by ``--set``, ``--seed`` and similar options."""
    params: dict[str, Any] = {"seed": args.seed}
    for assignment in args.set:
        name, equals, text = assignment.partition("=")
        if not equals:
            raise ValueError(f"expected --set NAME=VALUE, got {assignment!r}")
        params[name] = parse_value(text)
    return params | {n: vars(args)[n] for n in PARAMETERS if vars(args)[n] is not None}


def method_of(args: argparse.Namespace) -> Method:
    """The method configured by ``--method``, ``--preset`` and the parameters."""
    try:
        return method_class(args).preset(args.preset, **parameters(args))
    except TypeError as error:
        raise ValueError(str(error)) from error


def check_out(out: str, *, force: bool, apart: Sequence[str | Path] = ()) -> None:
    """Refuses, before the work, a folder in which a perturbation cannot be saved.

    Folders of images are to be ``apart`` from it: a perturbation among them is published with them,
    or taken for one of their classes.
    """
    from ..protected.export.target import overlap

    for folder in apart:
        if overlap(out, folder):
            raise ValueError(
                f"expected a folder for the perturbation (the key) separate from the images' "
                f"folder {folder}, got {Path(out)}; anyone who has the key can remove the "
                f"protection, so choose a separate folder"
            )
    place = Path(out).absolute()
    export = next((at for at in (place, *place.parents) if export_at(at) is not None), None)
    if export is not None:
        raise ValueError(
            f"expected a folder for the perturbation (the key) away from protected images, got "
            f"{Path(out)}, next to {export / MARKER}; anyone who has both can remove the "
            f"protection, so choose a separate folder"
        )
    folder = claim_folder(out, CONFIG, force=force)
    if not any(folder.iterdir()):
        folder.rmdir()


def check_replaced(out: str, dataset: Any, *, force: bool, method: Method | None = None) -> None:
    """Refuses, before the work, to replace a perturbation of other images, or that copies need.

    The ``method`` is what is going to be fitted, or None where that is not known.
    """
    from ..data.fingerprint import digest_of_images
    from ..data.raw import RawDataset
    from ..io.json import as_json
    from ..perturbation.replacing import check_copies, check_same_images

    folder = Path(out)
    if not force and (folder / CONFIG).is_file():
        raw = RawDataset(dataset)
        source = {"digest": digest_of_images(raw.keys, raw.labels)}
        rows = method is None or method._has_rows  # which may hold those that are there
        check_same_images(folder, source, raw.keys if rows else None)
        if method is not None:
            check_copies(folder, as_json(method._identity))
