"""The command ``unlearnable``: its arguments, and how errors reach the user."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from typing import Any

from .._version import __version__
from ..engine.models import MODELS
from ..errors import ArtefactError, UnknownImageError
from ..evaluation.countermeasures.names import COUNTERMEASURES
from ..importers.noise_files import VALUE_FORMATS
from ..protected.export import EXPORT_FORMATS
from . import commands
from .arguments import DATASET_HELP, METHOD_NAMES, PERTURBATION_HELP


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="unlearnable", description="Make image datasets unlearnable before publishing them."
    )
    parser.add_argument("--version", action="version", version=f"unlearnable {__version__}")
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")

    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--json", action="store_true", help="print JSON")
    common.add_argument("--quiet", action="store_true", help="no progress bars")
    compute = argparse.ArgumentParser(add_help=False)
    compute.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, …")
    compute.add_argument("--precision", default="auto", choices=["auto", "float32", "bf16"])
    seed = argparse.ArgumentParser(add_help=False)
    seed.add_argument(
        "--seed", type=int, default=0, help="all randomness follows from it (%(default)s)"
    )
    learn = argparse.ArgumentParser(add_help=False)
    learn.add_argument(
        "--method", default="sem", choices=sorted(METHOD_NAMES), help="%(default)s unless given"
    )
    learn.add_argument(
        "--preset",
        default="fast",
        choices=["paper", "fast", "demo"],
        help="%(default)s unless given; demo is for a CPU",
    )
    _add_image_size(
        learn,
        "while learning; by default 224 for photos that vary in size or exceed 512 pixels, less "
        "where most are smaller",
    )
    learn.add_argument("--epsilon", help="budget, such as 8/255")
    learn.add_argument("--granularity", choices=["sample-wise", "class-wise"])
    learn.add_argument("--surrogate", help=f"one of {', '.join(MODELS)}, or torchvision:NAME")
    learn.add_argument(
        "--set",
        nargs="+",
        default=[],
        metavar="NAME=VALUE",
        help="other parameters of the method, such as steps=5",
    )
    learn.add_argument(
        "--checkpoint",
        metavar="FOLDER",
        help="keep the state of the unfinished fit here; the same command goes on from it",
    )
    learn.add_argument(
        "--checkpoint-every",
        type=float,
        default=300.0,
        metavar="SECONDS",
        help="between checkpoints (%(default)s)",
    )
    learn.add_argument("--store", metavar="FOLDER", help="keep the decoded images here")
    learn.add_argument("--compile", action="store_true", help="compile the surrogate")
    learn.add_argument("--profile", action="store_true", help="say where the time went")
    learn.add_argument(
        "--tensorboard", metavar="FOLDER", help="write the fit's records for TensorBoard"
    )
    force = argparse.ArgumentParser(add_help=False)
    force.add_argument("--force", action="store_true", help="write into a folder that exists")

    def command(name: str, run: Any, *parents: argparse.ArgumentParser) -> argparse.ArgumentParser:
        added = subparsers.add_parser(
            name, help=run.__doc__, description=run.__doc__, parents=[common, *parents]
        )
        added.set_defaults(run=run)
        return added

    added = command("demo", commands.demo, seed, force)
    added.add_argument("--out", default="unlearnable-demo", help="folder to write (%(default)s)")
    added.add_argument("--device", default="auto")
    added = command("fit", commands.fit, compute, learn, seed, force)
    added.add_argument("dataset", help=DATASET_HELP)
    added.add_argument("out", help="folder for the perturbation and its surrogate")
    added = command("protect", commands.protect, compute, learn, seed, force)
    added.add_argument("dataset", help=DATASET_HELP)
    added.add_argument("out", help="folder for the protected images")
    added.add_argument(
        "--perturbation", help=f"apply this one instead of fitting: {PERTURBATION_HELP}"
    )
    added.add_argument(
        "--save-perturbation",
        metavar="FOLDER",
        help="keep what was fitted, to verify and audit the copies and to protect more of them",
    )
    added.add_argument(
        "--fraction", type=float, default=1.0, help="share of images to protect (%(default)s)"
    )
    added.add_argument(
        "--format", default="png", help=f"{', '.join(EXPORT_FORMATS)}; all lossless (%(default)s)"
    )
    added.add_argument(
        "--resize",
        action="store_true",
        help="copies of the size that was learned at, not of the photos' own",
    )
    added.add_argument(
        "--keep-metadata", action="store_true", help="keep EXIF: author, camera, times, exposure"
    )
    added.add_argument("--keep-gps", action="store_true", help="keep the place, too")
    added = command("import", commands.import_file, force)
    added.add_argument("path", help="file that another program wrote, or folder of PNGs by index")
    added.add_argument("dataset", help=f"what it was made for: {DATASET_HELP}")
    added.add_argument("out", help="folder for the perturbation")
    added.add_argument("--method", required=True, help="name of the method, to be kept")
    added.add_argument("--epsilon", required=True, help="its budget, such as 8/255")
    added.add_argument("--norm", default="Linf", choices=["Linf", "L2"])
    added.add_argument("--granularity", choices=["sample-wise", "class-wise"])
    added.add_argument(
        "--format",
        choices=VALUE_FORMATS,
        help="what values are: levels of 1/255, in [0, 1] units, or whole protected images",
    )
    _add_image_size(added, "first, as they were when the file was made")
    added = command("verify", commands.verify_folder)
    added.add_argument("folder", help="folder of images")
    added.add_argument("perturbation", help=PERTURBATION_HELP)
    added.add_argument(
        "--originals",
        metavar="DATASET",
        help="compare with what the perturbation makes of the clean images: " + DATASET_HELP,
    )
    added = command("evaluate", commands.evaluate_victims, compute)
    added.add_argument("train", help=f"trained on: {DATASET_HELP}")
    added.add_argument("test", help="tested on: the same, its test split where it has one")
    added.add_argument(
        "--perturbation", help=f"protect the training images by this one first: {PERTURBATION_HELP}"
    )
    _add_image_size(added, "in both datasets; needed where sizes vary")
    added.add_argument(
        "--victim", default="resnet18", help="network, as --surrogate of fit (%(default)s)"
    )
    added.add_argument("--epochs", type=int, default=60, help="of each victim (%(default)s)")
    added.add_argument("--seeds", type=int, default=3, help="number of victims (%(default)s)")
    added = command("audit", commands.audit_perturbation, compute)
    added.add_argument("dataset", help=f"the clean images: {DATASET_HELP}")
    added.add_argument("--perturbation", required=True, help=PERTURBATION_HELP)
    added.add_argument("--test", help="clean test images; a share is held out unless given")
    added.add_argument(
        "--full-size", action="store_true", help="audit copies that keep the size of the photos"
    )
    _add_image_size(added, "for the victims; by default the size that was learned at")
    added.add_argument("--victims", nargs="+", metavar="NAME", help="as --surrogate of fit")
    added.add_argument(
        "--countermeasures", nargs="+", metavar="NAME", help=f"such as {', '.join(COUNTERMEASURES)}"
    )
    added.add_argument("--epochs", type=int, help="of each victim")
    added.add_argument("--seeds", type=int, default=1, help="victims of each kind (%(default)s)")
    added.add_argument(
        "--out", metavar="FOLDER", help="write the report here, and go on from here when cut short"
    )
    added.add_argument(
        "--quick",
        action="store_true",
        help="a small network, few epochs, few countermeasures; the default without a GPU. "
        "--victims, --epochs and --countermeasures replace each",
    )
    added = command("info", commands.print_info)
    added.add_argument("perturbation", help=PERTURBATION_HELP)
    command("list", commands.list_names)
    added = command("pull", commands.pull, force)
    added.add_argument("name", help=PERTURBATION_HELP)
    added.add_argument("out", nargs="?", help="folder to copy it to; it stays in the cache as well")
    added.add_argument("--revision", help="branch, tag or commit of the repository")
    added.add_argument("--force-download", action="store_true", help="take nothing from the cache")
    added = command("push", commands.push)
    added.add_argument("folder", help="folder of a saved perturbation")
    added.add_argument("repo", help="owner/name; made if there is none")
    added.add_argument("--public", action="store_true", help="for everybody to read")
    added.add_argument("--license", help="for the card, such as cc-by-4.0")
    added.add_argument("--branch", help="in place of main; made if there is none")
    added.add_argument("--create-pr", action="store_true", help="propose it as a pull request")
    added.add_argument("--message", help="a word on the change")
    return parser


def _add_image_size(parser: argparse.ArgumentParser, where: str) -> None:
    parser.add_argument(
        "--image-size",
        type=int,
        nargs="+",
        metavar="PIXELS",
        help=f"side, or height and width, to resize and crop images to {where}",
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Returns:
        0; 1 for an error that is explained, or a folder that is not wholly protected; 130 for
        Ctrl-C.
    """
    args = _parser().parse_args(argv)
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    try:
        return args.run(args) or 0
    except (
        ValueError, TypeError, OSError, RuntimeError, ImportError, ArtefactError, UnknownImageError
    ) as error:  # fmt: skip
        print(f"unlearnable: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as interrupt:
        print(f"unlearnable: {interrupt or 'interrupted'}", file=sys.stderr)
        return 130
