"""Subcommands and their options, each named once: as the keyword argument that it is passed to."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from typing import Any

from .._version import __version__
from ..engine.models import MODELS
from ..evaluation.countermeasures.names import COUNTERMEASURES
from ..importers.noise_files import VALUE_FORMATS
from ..protected.export import EXPORT_FORMATS
from . import artefacts, learn, measure
from .arguments import DATASET_HELP, METHOD_NAMES, fraction
from .demo import demo

_PERTURBATION_HELP = (
    "folder of a saved perturbation, owner/name on the Hugging Face Hub, or a name from "
    "'unlearnable list'"
)
_GRANULARITIES = ["sample-wise", "class-wise"]
_Command = Callable[..., argparse.ArgumentParser]


class _ImageSize(argparse.Action):
    """A side, or a tuple of height and width."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option: Any = None) -> None:
        setattr(namespace, self.dest, values[0] if len(values) == 1 else tuple(values))


def make_parser() -> argparse.ArgumentParser:
    """The whole command line; what it parses holds the function to ``run``."""
    parser = argparse.ArgumentParser(
        prog="unlearnable", description="Make image datasets unlearnable before publishing them."
    )
    parser.add_argument("--version", action="version", version=f"unlearnable {__version__}")
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(
        name: str, run: Callable[[argparse.Namespace], Any], *groups: Callable[..., None]
    ) -> argparse.ArgumentParser:
        added = subparsers.add_parser(name, help=run.__doc__, description=run.__doc__)
        added.set_defaults(run=run)
        for group in (_common, *groups):
            group(added)
        return added

    added = command("demo", demo, _device, _seed, _force)
    added.add_argument("--out", default="unlearnable-demo", help="folder to write (%(default)s)")
    _learning(command)
    _measuring(command)
    _artefacts(command)
    return parser


def _common(to: argparse.ArgumentParser) -> None:
    debug = os.environ.get("UNLEARNABLE_DEBUG", "0") not in ("", "0")
    where = "show where an error arose; so does UNLEARNABLE_DEBUG=1"
    to.add_argument("--json", action="store_true", help="print JSON")
    to.add_argument("--quiet", dest="progress", action="store_false", help="no progress bars")
    to.add_argument("--debug", action="store_true", default=debug, help=where)


def _device(to: argparse.ArgumentParser) -> None:
    to.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, …")


def _compute(to: argparse.ArgumentParser) -> None:
    _device(to)
    to.add_argument("--precision", default="auto", choices=["auto", "float32", "bf16"])


def _seed(to: argparse.ArgumentParser) -> None:
    what = "all randomness follows from it (%(default)s)"
    to.add_argument("--seed", type=int, default=0, help=what)


def _force(to: argparse.ArgumentParser) -> None:
    to.add_argument("--force", action="store_true", help="write into a folder with other files")


def _image_size(to: argparse.ArgumentParser, where: str) -> None:
    what = f"side, or height and width, to resize and crop images to {where}"
    to.add_argument(
        "--image-size", type=int, nargs="+", action=_ImageSize, metavar="PIXELS", help=what
    )


def _method(to: argparse.ArgumentParser) -> None:
    """What is fitted, and how."""
    to.add_argument("--method", default="sem", choices=sorted(METHOD_NAMES), help="(%(default)s)")
    presets, what = ["paper", "fast", "demo"], "(%(default)s); demo is for a CPU"
    to.add_argument("--preset", default="fast", choices=presets, help=what)
    to.add_argument("--epsilon", type=fraction, help="budget, such as 8/255")
    to.add_argument("--granularity", choices=_GRANULARITIES)
    to.add_argument("--surrogate", help=f"one of {', '.join(MODELS)}, or torchvision:NAME")
    what = "other parameters of the method, such as steps=5"
    to.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE", help=what)
    where = "by default 224 for photos that vary in size or exceed 512 pixels"
    _image_size(to, f"while learning; {where}, less where most are smaller")
    what = "keep the state of the unfinished fit here; the same command continues from it"
    to.add_argument("--checkpoint", metavar="FOLDER", help=what)
    what = "seconds between checkpoints (%(default)s)"
    to.add_argument("--checkpoint-every", type=fraction, default=300.0, metavar="S", help=what)
    to.add_argument("--store", metavar="FOLDER", help="keep the decoded images here")
    to.add_argument("--compile", action="store_true", help="compile the surrogate")
    to.add_argument("--profile", action="store_true", help="say where the time went")
    what = "write the fit's records for TensorBoard"
    to.add_argument("--tensorboard", metavar="FOLDER", help=what)


def _learning(command: _Command) -> None:
    added = command("fit", learn.fit, _compute, _method, _seed, _force)
    added.add_argument("dataset", help=DATASET_HELP)
    added.add_argument("out", help="folder for the perturbation and its surrogate")

    added = command("protect", learn.protect, _compute, _method, _seed, _force)
    added.add_argument("dataset", help=DATASET_HELP)
    added.add_argument("out", help="folder for the protected images")
    what = f"apply this one instead of fitting: {_PERTURBATION_HELP}"
    added.add_argument("--perturbation", help=what)
    what = "keep what was fitted, to verify and audit the copies and to protect more of them"
    added.add_argument("--save-perturbation", metavar="FOLDER", help=what)
    what = "share of images to protect (%(default)s)"
    added.add_argument("--fraction", type=fraction, default=1.0, help=what)
    what = f"{', '.join(EXPORT_FORMATS)}; all lossless (%(default)s)"
    added.add_argument("--format", default="png", help=what)
    what = "copies of the size that was learned at, not of the photos' own"
    added.add_argument("--resize", action="store_true", help=what)
    what = "keep EXIF: author, camera, times, exposure"
    added.add_argument("--keep-metadata", dest="metadata", action="store_true", help=what)
    added.add_argument("--keep-gps", dest="gps", action="store_true", help="keep the place, too")


def _measuring(command: _Command) -> None:
    added = command("evaluate", measure.evaluate_victims, _compute)
    added.add_argument("train", help=f"trained on: {DATASET_HELP}")
    added.add_argument("test", help="tested on: the same, its test split where it has one")
    what = f"protect the training images by this one first: {_PERTURBATION_HELP}"
    added.add_argument("--perturbation", help=what)
    _image_size(added, "in both datasets; needed where sizes vary")
    what = "network, as --surrogate of fit (%(default)s)"
    added.add_argument("--victim", default="resnet18", help=what)
    added.add_argument("--epochs", type=int, default=60, help="of each victim (%(default)s)")
    added.add_argument("--seeds", type=int, default=3, help="number of victims (%(default)s)")

    added = command("audit", measure.audit_perturbation, _compute)
    added.add_argument("dataset", help=f"the clean images: {DATASET_HELP}")
    added.add_argument("--perturbation", required=True, help=_PERTURBATION_HELP)
    added.add_argument("--test", help="clean test images; a share is held out unless given")
    what = "audit copies that keep the size of the photos"
    added.add_argument("--full-size", action="store_true", help=what)
    _image_size(added, "for the victims; by default the size that was learned at")
    added.add_argument("--victims", nargs="+", metavar="NAME", help="as --surrogate of fit")
    what = f"such as {', '.join(COUNTERMEASURES)}"
    added.add_argument("--countermeasures", nargs="+", metavar="NAME", help=what)
    added.add_argument("--epochs", type=int, help="of each victim")
    added.add_argument("--seeds", type=int, default=1, help="victims of each kind (%(default)s)")
    what = "write the report here, and continue from here after an interruption"
    added.add_argument("--out", dest="folder", metavar="FOLDER", help=what)
    what = (
        "a small network, few epochs, few countermeasures; the default without a GPU. --victims, "
        "--epochs and --countermeasures replace each"
    )
    added.add_argument("--quick", action="store_true", help=what)

    added = command("verify", measure.verify_folder)
    added.add_argument("folder", help="folder of images")
    added.add_argument("perturbation", help=_PERTURBATION_HELP)
    what = f"compare with what the perturbation makes of the clean images: {DATASET_HELP}"
    added.add_argument("--originals", metavar="DATASET", help=what)


def _artefacts(command: _Command) -> None:
    command("info", artefacts.print_info).add_argument("perturbation", help=_PERTURBATION_HELP)
    command("list", artefacts.print_names)

    added = command("pull", artefacts.pull, _force)
    added.add_argument("name", help=_PERTURBATION_HELP)
    added.add_argument("out", nargs="?", help="folder to copy it to; the cache keeps it as well")
    added.add_argument("--revision", help="branch, tag or commit of the repository")
    added.add_argument("--force-download", action="store_true", help="take nothing from the cache")

    added = command("push", artefacts.push)
    added.add_argument("folder", help="folder of a saved perturbation")
    added.add_argument("repo", help="owner/name; made if there is none")
    what = "for everybody to read"
    added.add_argument("--public", dest="private", action="store_false", help=what)
    added.add_argument("--license", help="for the card, such as cc-by-4.0")
    added.add_argument("--branch", help="in place of main; made if there is none")
    added.add_argument("--create-pr", action="store_true", help="propose it as a pull request")
    added.add_argument("--message", dest="commit_message", metavar="TEXT", help="of the commit")

    added = command("import", artefacts.import_file, _force)
    added.add_argument("path", help="file that another program wrote, or folder of PNGs by index")
    added.add_argument("dataset", help=f"what it was made for: {DATASET_HELP}")
    added.add_argument("out", help="folder for the perturbation")
    added.add_argument("--method", required=True, help="name of the method, to be kept")
    added.add_argument("--epsilon", required=True, type=fraction, help="budget, such as 8/255")
    added.add_argument("--norm", default="Linf", choices=["Linf", "L2"])
    added.add_argument("--granularity", choices=_GRANULARITIES)
    what = "what values are: levels of 1/255, in [0, 1] units, or whole protected images"
    added.add_argument("--format", choices=VALUE_FORMATS, help=what)
    _image_size(added, "first, as they were when the file was made")
