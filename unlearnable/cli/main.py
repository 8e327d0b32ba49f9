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
from .terminal import any_character, drop_output, harmless, own_words_only, sentence

_PERTURBATION_HELP = (
    "folder of a saved perturbation (the key), owner/name on the Hugging Face Hub, or a name "
    "shown by 'unlearnable list'"
)
# Options that several commands take; each is named as the keyword argument that it is passed to.
_SHARED: dict[str, dict[str, Any]] = {
    "--json": {"action": "store_true", "help": "print JSON, for other programs"},
    "--quiet": {"dest": "progress", "action": "store_false", "help": "no progress bars"},
    "--debug": {
        "action": "store_true",
        "help": "show the traceback of an error, as does UNLEARNABLE_DEBUG=1",
    },
    "--device": {"default": "auto", "help": "auto, cpu, cuda, cuda:1, …"},
    "--precision": {
        "default": "auto",
        "type": choices.one_of(["auto", "float32", "bf16"]),
        "help": "auto, float32 or bf16",
    },
    "--seed": {"type": int, "default": 0, "help": "seed of all random numbers (%(default)s)"},
    "--force": {
        "action": "store_true",
        "help": "write into a folder that has other files; replace a key of other photos",
    },
}
_Add = Callable[..., None]
_EXPERTS = ("--json", "--debug", "--device", "--precision", "--seed")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Returns:
        0 on success; 1 for an error, which is explained, or a folder that is not fully protected;
        130 for Ctrl-C; 143 for SIGTERM.
    """
    with any_character(sys.stdout):  # of the help
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
    print(f"unlearnable: {harmless(text)}", file=sys.stderr)


def make_parser() -> argparse.ArgumentParser:
    """Builds the command line; the parsed arguments hold the function to ``run``."""
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
    add(
        "--port",
        type=int,
        help="port number in the page's address (default: the first free one from 7860)",
    )
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
    what = f"side, or height and width, to which images are resized and cropped {where}"
    add("--image-size", type=int, nargs="+", action=_ImageSize, metavar="PIXELS", help=what)


def _learning(command: Callable[..., Command]) -> None:
    shared = ("--device", "--precision", "--seed", "--force")
    add = command("fit", learning.fit, *shared)
    _method(add)
    add.usage("PHOTOS OUT [OPTION …]")
    add("dataset", metavar="PHOTOS", help=DATASET_HELP)
    add(
        "out", metavar="OUT", help="folder for the perturbation (the key) and its surrogate network"
    )

    add = command("protect", learning.protect, *shared)
    _method(add)
    add.usage("PHOTOS OUT [OPTION …]")
    add("dataset", metavar="PHOTOS", help=DATASET_HELP)
    add("out", metavar="OUT", help="new folder for the protected copies")
    what = f"apply this one instead of learning: {_PERTURBATION_HELP}"
    add("--perturbation", metavar="KEY", help=what)
    what = (
        "save what was learned (the key) in this folder; you need it to check the copies (default "
        "for a folder of photos: OUT-key)"
    )
    add("--save-perturbation", metavar="FOLDER", help=what)
    add("--fraction", type=fraction, default=1.0, help="share of images to protect (%(default)s)")
    what = (
        f"file format of the copies: {', '.join(choices.EXPORT_NAMES)}, or jpeg with "
        f"--quality (%(default)s)"
    )
    add("--format", default="png", type=choices.export_format, help=what)
    what = (
        "quality of jpeg or webp: 1 to 100, or original to keep that of each JPEG; such files are "
        "smaller, but protect less"
    )
    add("--quality", type=choices.quality, metavar="Q", help=what)
    what = "write copies at the size that was used for learning, not at the photos' own size"
    add("--resize", action="store_true", help=what)
    what = "keep EXIF data (author, camera, times, exposure) and the files' times"
    add("--keep-metadata", dest="metadata", action="store_true", help=what)
    add(
        "--keep-gps",
        dest="gps",
        action="store_true",
        help="keep the location, too; needs --keep-metadata",
    )

    add = command("preview", preview)
    add("photo", metavar="PHOTO", help="image file of a photo")
    add("--out", default="preview.png", help="picture to write (%(default)s)")
    add.experts(
        "--epsilon",
        type=fraction,
        default=8 / 255,
        help="largest change of a pixel, as a fraction of 1 (8/255)",
    )
    what = f"show what this one adds instead of random changes: {_PERTURBATION_HELP}"
    add("--perturbation", metavar="KEY", help=what)


def _method(add: Command) -> None:
    """What is fitted, and how."""
    what = "by default sem, or lsp, which learns nothing, if all photos are of one kind"
    _choice(add.experts, "--method", sorted(choices.METHOD_NAMES), what)
    what = (
        "settings of the method; by default fast for named datasets, and chosen to fit for a "
        "folder of photos; demo is for a CPU"
    )
    _choice(add.experts, "--preset", ["paper", "fast", "demo"], what)
    what = "folder of other pictures to tell the photos apart from; no copies of them are written"
    add("--others", metavar="FOLDER", help=what)
    what = (
        "sort photos without folders into N groups of similar ones, which count as kinds of "
        "picture (needs the extra pretrained)"
    )
    add("--clusters", type=int, metavar="N", help=what)
    what = "also log details: passes, precision, checkpoints"
    add.experts("-v", "--verbose", action="store_true", help=what)
    add.experts(
        "--epsilon",
        type=fraction,
        help="largest change of a pixel, as a fraction of 1, such as 8/255",
    )
    _choice(add.experts, "--granularity", GRANULARITIES)
    what = (
        "how visible the change may be: low looks untouched, full changes smooth areas as much as "
        "others (default: low for a folder of photos, full for other datasets)"
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
        add.experts,
        "while learning (default for a folder of photos: as large as time allows, up to 224)",
    )
    what = (
        "save the state of the unfinished fit here, from which the same command continues "
        "(default of protect for photos: OUT-unfinished)"
    )
    add.experts("--checkpoint", metavar="FOLDER", help=what)
    what = "seconds between checkpoints (%(default)s)"
    add.experts("--checkpoint-every", type=seconds, default=300.0, metavar="S", help=what)
    add.experts("--store", metavar="FOLDER", help="keep the decoded images here")
    add.experts("--compile", action="store_true", help="compile the surrogate")
    add.experts("--profile", action="store_true", help="report where the time went")
    add.experts("--tensorboard", metavar="FOLDER", help="write the fit's history for TensorBoard")


def _measuring(command: Callable[..., Command]) -> None:
    add = command("evaluate", measuring.evaluate_victims, "--device", "--precision")
    add("train", help=f"training images: {DATASET_HELP}")
    add(
        "test",
        help="clean test images, named in the same way; of a named dataset, the test split is used",
    )
    what = f"protect the training images with this one first: {_PERTURBATION_HELP}"
    add("--perturbation", help=what)
    _image_size(add, "in both datasets; required if sizes vary")
    what = "network to train, named as in --surrogate of fit (%(default)s)"
    add("--victim", default="resnet18", type=choices.network_name, help=what)
    what = "what victims do against the protection, named as in --countermeasures of audit"
    add("--countermeasure", metavar="NAME", type=choices.countermeasure_name, help=what)
    what = "how victims are trained; fast is for the network resnet9 (%(default)s)"
    _choice(add, "--recipe", choices.RECIPE_NAMES, what, default="standard")
    add("--epochs", type=int, help="epochs per victim (default: those of the recipe)")
    add("--seeds", type=int, default=3, help="number of victims (%(default)s)")

    add = command("audit", measuring.audit_perturbation, "--device", "--precision")
    add("dataset", help=f"the clean images: {DATASET_HELP}")
    add("--perturbation", required=True, help=_PERTURBATION_HELP)
    add("--test", help="clean test images (default: part of the dataset is held out)")
    add("--full-size", action="store_true", help="audit copies that keep the photos' own size")
    _image_size(add, "for the victims (default: the size used for learning)")
    several: dict[str, Any] = {"nargs": "+", "metavar": "NAME"}
    add(
        "--victims",
        type=choices.network_name,
        help="networks to train, named as in --surrogate of fit",
        **several,
    )
    what = (
        f"sets or single countermeasures. Sets: {', '.join(choices.SET_NAMES)} (adaptive ones "
        f"know this kind of perturbation). Countermeasures, several joined by +, for example: "
        f"{', '.join(choices.COUNTERMEASURE_NAMES)} (default: standard adaptive)"
    )
    add("--countermeasures", type=choices.countermeasure_name, help=what, **several)
    add("--epochs", type=int, help="epochs per victim")
    add("--seeds", type=int, default=1, help="number of victims of each kind (%(default)s)")
    what = "folder for the report; an interrupted audit continues from it"
    add("--out", dest="folder", metavar="FOLDER", help=what)
    what = (
        "use a small network, few epochs and few countermeasures (without a GPU, that network and "
        "those epochs are the default); --victims, --epochs and --countermeasures override them"
    )
    add("--quick", action="store_true", help=what)

    add = command("verify", measuring.verify_folder)
    add("folder", metavar="COPIES", help="folder of pictures to check")
    add("perturbation", metavar="KEY", help=_PERTURBATION_HELP)
    what = f"also compare the copies with what the key makes of the original photos: {DATASET_HELP}"
    add("--originals", metavar="PHOTOS", help=what)


def _artefacts(command: Callable[..., Command]) -> None:
    command("info", artefacts.print_info)("perturbation", help=_PERTURBATION_HELP)
    command("list", artefacts.print_names)

    add = command("pull", artefacts.pull, "--force", "--device")
    add("name", help=_PERTURBATION_HELP)
    add("out", nargs="?", help="folder to copy it to; it also stays in the cache")
    add("--revision", help="branch, tag or commit of the repository")
    add("--force-download", action="store_true", help="download again, even if it is in the cache")
    what = f"images to compute rows for, if the pre-made perturbation has none: {DATASET_HELP}"
    add("--dataset", help=what)

    add = command("push", artefacts.push)
    add("folder", help="folder of a saved perturbation")
    add("repo", help="owner/name of the repository; created if it does not exist")
    add("--public", dest="private", action="store_false", help="let everybody read it")
    add("--license", help="licence named in the card, such as cc-by-4.0")
    add("--branch", help="branch to use instead of main; created if it does not exist")
    add("--create-pr", action="store_true", help="propose it as a pull request")
    add("--message", dest="commit_message", metavar="TEXT", help="commit message")

    add = command("import", artefacts.import_file, "--force")
    what = (
        "file that another program wrote, several numbered files, or a folder of them or of "
        "PNG files"
    )
    add("path", nargs="+", help=f"{what} named by index")
    add("dataset", help=f"dataset that it was made for: {DATASET_HELP}")
    add("out", help="folder for the perturbation")
    add("--method", required=True, help="name of the method, stored with the perturbation")
    add("--epsilon", required=True, type=fraction, help="largest change of a pixel, such as 8/255")
    _choice(add, "--norm", NORMS, default=NORMS[0])
    _choice(add, "--granularity", GRANULARITIES)
    what = (
        "which row the images of each class get, in the order of the classes, if the rows are "
        "in another order"
    )
    add("--class-to-row", type=int, nargs="+", metavar="ROW", help=what)
    what = "what the values are: levels of 1/255, units from 0 to 1, or protected images"
    _choice(add, "--format", VALUE_FORMATS, what)
    _image_size(add, "first, as was done when the file was made")
