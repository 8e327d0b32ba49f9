"""The command ``unlearnable``: its subcommands, their options, and how errors reach the user."""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from .._version import __version__
from ..engine import NORMS
from ..engine.interrupts import in_words, sigterm_raises
from ..errors import Terminated
from ..importers import VALUE_FORMATS
from ..perturbation import GRANULARITIES
from . import artefacts, choices, learning, measuring
from .app import app
from .arguments import DATASET_HELP, fraction, seconds
from .demo import demo
from .parser import Command, Parser
from .preview import preview
from .terminal import drop_output, own_words_only, sentence

_PERTURBATION_HELP = (
    "folder of a saved perturbation (the key), owner/name on the Hugging Face Hub, or a name from "
    "'unlearnable list'"
)
# Options that several commands take; each is named as the keyword argument that it is passed to.
_SHARED: dict[str, dict[str, Any]] = {
    "--json": {"action": "store_true", "help": "print JSON, for other programs"},
    "--quiet": {"dest": "progress", "action": "store_false", "help": "no progress bars"},
    "--debug": {
        "action": "store_true",
        "help": "show where an error arose; so does UNLEARNABLE_DEBUG=1",
    },
    "--device": {"default": "auto", "help": "auto, cpu, cuda, cuda:1, …"},
    "--precision": {
        "default": "auto",
        "type": choices.one_of(["auto", "float32", "bf16"]),
        "help": "auto, float32 or bf16",
    },
    "--seed": {"type": int, "default": 0, "help": "all randomness follows from it (%(default)s)"},
    "--force": {
        "action": "store_true",
        "help": "write into a folder with other files; replace a key of other photos",
    },
}
_Add = Callable[..., None]
_EXPERTS = ("--json", "--debug", "--device", "--precision", "--seed")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Returns:
        0; 1 for an error that is explained, or a folder that is not wholly protected; 130 for
        Ctrl-C, 143 for SIGTERM.
    """
    args, unknown = make_parser().parse_known_args(argv)
    if unknown:
        args.parser.refuse(unknown)
    with own_words_only(debug=args.debug), sigterm_raises():
        try:
            status = args.run(args) or 0
        except KeyboardInterrupt as interrupt:
            status = 143 if isinstance(interrupt, Terminated) else 130
            _say(str(interrupt) or in_words(type(interrupt)))
        except BrokenPipeError:  # of `| head`: nobody reads any more
            status = 141
            drop_output()
        except Exception as error:
            status = 1
            if args.debug:
                traceback.print_exc()
            _say(sentence(error, debug=args.debug))
    return status


def _say(text: str) -> None:
    print(f"unlearnable: {text}", file=sys.stderr)


def make_parser() -> argparse.ArgumentParser:
    """The whole command line; what it parses holds the function to ``run``."""
    parser = Parser(
        prog="unlearnable", description="Make image datasets unlearnable before publishing them."
    )
    parser.add_argument("--version", action="version", version=f"unlearnable {__version__}")
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    debug = os.environ.get("UNLEARNABLE_DEBUG", "0") not in ("", "0")

    def command(name: str, run: Callable[[argparse.Namespace], Any], *shared: str) -> Command:
        added = subparsers.add_parser(name, help=run.__doc__, description=run.__doc__)
        added.set_defaults(run=run, parser=added, debug=debug)
        add = Command(added)
        for option in ("--json", "--quiet", "--debug", *shared):
            (add.experts if option in _EXPERTS else add)(option, **_SHARED[option])
        return add

    add = command("demo", demo, "--device", "--seed", "--force")
    add("--out", default="unlearnable-demo", help="folder to write (%(default)s)")
    add = command("app", app)
    add("--port", type=int, help="number in the page's address; by default a free one from 7860 on")
    add("--no-browser", dest="browser", action="store_false", help="do not open the browser")
    _learning(command)
    _measuring(command)
    _artefacts(command)
    return parser


def _choice(
    add: _Add, option: str, names: Iterable[str], what: str = "", default: str | None = None
) -> None:
    """An option with one of a few names, which help lists."""
    listed = "{" + ",".join(names := list(names)) + "}"
    add(option, type=choices.one_of(names), metavar=listed, default=default, help=what or None)


class _ImageSize(argparse.Action):
    """A side, or a tuple of height and width."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option: Any = None) -> None:
        setattr(namespace, self.dest, values[0] if len(values) == 1 else tuple(values))


def _image_size(add: _Add, where: str) -> None:
    what = f"side, or height and width, to resize and crop images to {where}"
    add("--image-size", type=int, nargs="+", action=_ImageSize, metavar="PIXELS", help=what)


def _learning(command: Callable[..., Command]) -> None:
    shared = ("--device", "--precision", "--seed", "--force")
    add = command("fit", learning.fit, *shared)
    _method(add)
    add.usage("PHOTOS OUT [OPTION …]")
    add("dataset", metavar="PHOTOS", help=DATASET_HELP)
    add("out", metavar="OUT", help="folder for the perturbation, the key, and its surrogate")

    add = command("protect", learning.protect, *shared)
    _method(add)
    add.usage("PHOTOS OUT [OPTION …]")
    add("dataset", metavar="PHOTOS", help=DATASET_HELP)
    add("out", metavar="OUT", help="new folder for the protected copies")
    what = f"add what this one holds, and learn nothing: {_PERTURBATION_HELP}"
    add("--perturbation", metavar="KEY", help=what)
    what = (
        "keep what was learned, the key, in this folder: you need it to check the copies; for a "
        "folder of photos by default OUT-key"
    )
    add("--save-perturbation", metavar="FOLDER", help=what)
    add("--fraction", type=fraction, default=1.0, help="share of images to protect (%(default)s)")
    what = f"of the copies: {', '.join(choices.EXPORT_NAMES)}, or jpeg with --quality (%(default)s)"
    add("--format", default="png", type=choices.export_format, help=what)
    what = (
        "of jpeg or webp: 1 to 100, or original for that of each JPEG; such files are smaller, and "
        "protect less"
    )
    add("--quality", type=choices.quality, metavar="Q", help=what)
    what = "copies of the size that was learned at, not of the photos' own"
    add("--resize", action="store_true", help=what)
    what = "keep EXIF: author, camera, times, exposure; and times of files"
    add("--keep-metadata", dest="metadata", action="store_true", help=what)
    add("--keep-gps", dest="gps", action="store_true", help="keep the place, too")

    add = command("preview", preview)
    add("photo", metavar="PHOTO", help="file of a photo")
    add("--out", default="preview.png", help="picture to write (%(default)s)")
    add.experts(
        "--epsilon",
        type=fraction,
        default=8 / 255,
        help="most that a pixel may change, of 1 (8/255)",
    )
    what = f"show what this one adds, not random changes: {_PERTURBATION_HELP}"
    add("--perturbation", metavar="KEY", help=what)


def _method(add: Command) -> None:
    """What is fitted, and how."""
    what = "sem unless photos are all of one kind; with lsp nothing is learned"
    _choice(add.experts, "--method", sorted(choices.METHOD_NAMES), what)
    what = "fast for named datasets, chosen for a folder of photos; demo is for a CPU"
    _choice(add.experts, "--preset", ["paper", "fast", "demo"], what)
    what = "other pictures to tell the photos of a folder apart from; no copies of them are written"
    add("--others", metavar="FOLDER", help=what)
    what = (
        "sort photos that lie in no folders into N groups of similar ones, which stand for kinds "
        "of picture (needs the extra pretrained)"
    )
    add("--clusters", type=int, metavar="N", help=what)
    what = "log what experts look at: passes, precision, checkpoints"
    add.experts("-v", "--verbose", action="store_true", help=what)
    add.experts(
        "--epsilon", type=fraction, help="most that a pixel may change, of 1, such as 8/255"
    )
    _choice(add.experts, "--granularity", GRANULARITIES)
    what = (
        "how much of the change may be seen: low looks untouched, full changes smooth areas as "
        "much as others; by default low for a folder of photos, and full for other datasets"
    )
    _choice(add, "--visibility", choices.VISIBILITY_NAMES, what)
    add.experts(
        "--surrogate",
        type=choices.network_name,
        help=f"network to learn with: {', '.join(choices.NETWORK_NAMES)}, or torchvision:NAME",
    )
    what = "other parameters of the method, such as steps=5"
    add.experts("--set", nargs="+", action="extend", default=[], metavar="NAME=VALUE", help=what)
    _image_size(
        add.experts, "while learning; for a folder of photos what the time allows, up to 224"
    )
    what = (
        "keep the state of the unfinished fit here; the same command continues from it; protect "
        "keeps that of photos in OUT-unfinished"
    )
    add.experts("--checkpoint", metavar="FOLDER", help=what)
    what = "seconds between checkpoints (%(default)s)"
    add.experts("--checkpoint-every", type=seconds, default=300.0, metavar="S", help=what)
    add.experts("--store", metavar="FOLDER", help="keep the decoded images here")
    add.experts("--compile", action="store_true", help="compile the surrogate")
    add.experts("--profile", action="store_true", help="say where the time went")
    add.experts("--tensorboard", metavar="FOLDER", help="write the fit's records for TensorBoard")


def _measuring(command: Callable[..., Command]) -> None:
    add = command("evaluate", measuring.evaluate_victims, "--device", "--precision")
    add("train", help=f"trained on: {DATASET_HELP}")
    add("test", help="tested on: the same, its test split where it has one")
    what = f"protect the training images by this one first: {_PERTURBATION_HELP}"
    add("--perturbation", help=what)
    _image_size(add, "in both datasets; needed where sizes vary")
    what = "network, as --surrogate of fit (%(default)s)"
    add("--victim", default="resnet18", type=choices.network_name, help=what)
    what = "what victims do against the protection, as --countermeasures of audit"
    add("--countermeasure", metavar="NAME", type=choices.countermeasure_name, help=what)
    what = "how victims train; fast is for the network resnet9 (%(default)s)"
    _choice(add, "--recipe", choices.RECIPE_NAMES, what, default="standard")
    add("--epochs", type=int, help="of each victim; the recipe's by default")
    add("--seeds", type=int, default=3, help="number of victims (%(default)s)")

    add = command("audit", measuring.audit_perturbation, "--device", "--precision")
    add("dataset", help=f"the clean images: {DATASET_HELP}")
    add("--perturbation", required=True, help=_PERTURBATION_HELP)
    add("--test", help="clean test images; a share is held out unless given")
    add("--full-size", action="store_true", help="audit copies that keep the size of the photos")
    _image_size(add, "for the victims; by default the size that was learned at")
    several: dict[str, Any] = {"nargs": "+", "metavar": "NAME"}
    add("--victims", type=choices.network_name, help="as --surrogate of fit", **several)
    what = (
        f"the sets {', '.join(choices.SET_NAMES)} (those that know this kind of perturbation), and "
        f"names, several joined by +, such as {', '.join(choices.COUNTERMEASURE_NAMES)}; by "
        f"default standard and adaptive"
    )
    add("--countermeasures", type=choices.countermeasure_name, help=what, **several)
    add("--epochs", type=int, help="of each victim")
    add("--seeds", type=int, default=1, help="victims of each kind (%(default)s)")
    what = "write the report here, and continue from here after an interruption"
    add("--out", dest="folder", metavar="FOLDER", help=what)
    what = (
        "a small network, few epochs, few countermeasures; the network and epochs are the default "
        "without a GPU. --victims, --epochs and --countermeasures replace each"
    )
    add("--quick", action="store_true", help=what)

    add = command("verify", measuring.verify_folder)
    add("folder", metavar="COPIES", help="folder of pictures")
    add("perturbation", metavar="KEY", help=_PERTURBATION_HELP)
    what = f"compare with what the key makes of the original photos: {DATASET_HELP}"
    add("--originals", metavar="PHOTOS", help=what)


def _artefacts(command: Callable[..., Command]) -> None:
    command("info", artefacts.print_info)("perturbation", help=_PERTURBATION_HELP)
    command("list", artefacts.print_names)

    add = command("pull", artefacts.pull, "--force", "--device")
    add("name", help=_PERTURBATION_HELP)
    add("out", nargs="?", help="folder to copy it to; the cache keeps it as well")
    add("--revision", help="branch, tag or commit of the repository")
    add("--force-download", action="store_true", help="take nothing from the cache")
    what = f"images for which rows are made, where the name's are computed: {DATASET_HELP}"
    add("--dataset", help=what)

    add = command("push", artefacts.push)
    add("folder", help="folder of a saved perturbation")
    add("repo", help="owner/name; made if there is none")
    add("--public", dest="private", action="store_false", help="for everybody to read")
    add("--license", help="for the card, such as cc-by-4.0")
    add("--branch", help="in place of main; made if there is none")
    add("--create-pr", action="store_true", help="propose it as a pull request")
    add("--message", dest="commit_message", metavar="TEXT", help="of the commit")

    add = command("import", artefacts.import_file, "--force")
    what = "file that another program wrote, several numbered ones, or a folder of them or of PNGs"
    add("path", nargs="+", help=f"{what} by index")
    add("dataset", help=f"what it was made for: {DATASET_HELP}")
    add("out", help="folder for the perturbation")
    add("--method", required=True, help="name of the method, to be kept")
    add("--epsilon", required=True, type=fraction, help="budget, such as 8/255")
    _choice(add, "--norm", NORMS, default=NORMS[0])
    _choice(add, "--granularity", GRANULARITIES)
    what = "row of each class's images, in the order of the classes, where it is not its own"
    add("--class-to-row", type=int, nargs="+", metavar="ROW", help=what)
    what = "what values are: levels of 1/255, in [0, 1] units, or protected images"
    _choice(add, "--format", VALUE_FORMATS, what)
    _image_size(add, "first, as they were when the file was made")
