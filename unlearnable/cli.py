"""The command ``unlearnable``: each subcommand is a thin call into the Python API."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import __version__
from .callbacks import TensorBoard
from .datasets import Shapes
from .demo import demo_table, run_demo
from .errors import ArtefactError, UnknownImageError
from .evaluation import evaluate
from .export import check_target
from .learning.distributed import Group
from .learning.models import MODELS
from .methods import METHODS, Method
from .methods.fitting import remove_checkpoint
from .output import claim_folder
from .perturbation import CONFIG, Perturbation
from .protected import ProtectedDataset

_METHODS = {method.__name__.lower(): method for method in METHODS}
_DATASET_HELP = (
    "a folder of class folders, or NAME:ROOT with NAME one of cifar10, cifar100, mnist, "
    "fashion-mnist, svhn, stl10 (torchvision's files below ROOT), or shapes (generated)"
)


def open_dataset(name: str, *, train: bool = True) -> Any:
    """A dataset as the command line names it.

    Raises:
        ValueError: The name is not known, or the files are not there.
    """
    from torchvision import datasets

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
            raise ValueError(f"could not open {name}: {error}") from error
    if not Path(name).is_dir():
        raise ValueError(f"expected {_DATASET_HELP}; got {name!r}")
    return datasets.ImageFolder(name)


def _value(text: str) -> Any:
    """A parameter as it is typed: 8/255, 5, 0.1, true, null, or a word."""
    above, slash, below = text.partition("/")
    try:
        return float(above) / float(below) if slash else json.loads(text)
    except (ValueError, ZeroDivisionError):
        return text


def _method(args: argparse.Namespace) -> Method:
    params = {"seed": args.seed}
    for assignment in args.set:
        name, equals, text = assignment.partition("=")
        if not equals:
            raise ValueError(f"expected --set NAME=VALUE, got {assignment!r}")
        params[name] = _value(text)
    method = _METHODS[args.method]
    for name in ("epsilon", "granularity", "surrogate"):
        if getattr(args, name) is not None:
            text = getattr(args, name)
            params[name] = _value(text) if name == "epsilon" else text
    try:
        return method.preset(args.preset, **params)
    except TypeError as error:
        known = ", ".join(method().get_params())
        raise ValueError(f"{method.__name__} has the parameters {known}; {error}") from error


def _image_size(args: argparse.Namespace) -> int | tuple[int, ...] | None:
    if args.image_size is None:
        return None
    return args.image_size[0] if len(args.image_size) == 1 else tuple(args.image_size)


def _fit(args: argparse.Namespace) -> Method:
    return _method(args).fit(
        open_dataset(args.dataset),
        device=args.device,
        precision=args.precision,
        image_size=_image_size(args),
        checkpoint=args.checkpoint,
        checkpoint_every=args.checkpoint_every,
        keep_checkpoint=True,  # until the result is saved
        store=args.store,
        compile=args.compile,
        profile=args.profile,
        progress=not args.quiet,
        callback=None if args.tensorboard is None else TensorBoard(args.tensorboard),
    )


def _check_out(args: argparse.Namespace, marker: str) -> None:
    """Says before the work, not after it, that a folder cannot be written."""
    folder = claim_folder(args.out, marker, force=args.force)
    if not any(folder.iterdir()):
        folder.rmdir()


def _done(args: argparse.Namespace) -> None:
    if args.checkpoint is not None:
        remove_checkpoint(args.checkpoint)


def _times(method: Method) -> dict[str, str]:
    """Where a profiled fit's time went."""
    seconds: dict[str, float] = getattr(method, "seconds_", {})
    whole = sum(seconds.values())
    return {name: f"{spent:.1f} s ({spent / whole:.0%})" for name, spent in seconds.items()}


def _show(args: argparse.Namespace, values: dict[str, Any], text: str | None = None) -> None:
    if args.json:
        print(json.dumps(values, indent=2))
    else:
        width = max(map(len, values))
        print(text or "\n".join(f"{name:<{width}}  {value}" for name, value in values.items()))


def demo(args: argparse.Namespace) -> None:
    """Fit, protect and evaluate on generated images."""
    result = run_demo(
        args.out, seed=args.seed, device=args.device, progress=not args.quiet, force=args.force
    )
    _show(args, result, demo_table(result))


def fit(args: argparse.Namespace) -> None:
    """Learn a perturbation and save it with its surrogate."""
    with Group.join().first() as first:
        if first:
            _check_out(args, CONFIG)
    method = _fit(args)
    with Group.join().first() as first:
        if first:
            folder = method.save_pretrained(args.out, force=args.force)
            _show(args, method.perturbation_.info() | {"folder": str(folder)} | _times(method))
            _done(args)


def protect(args: argparse.Namespace) -> None:
    """Write a protected copy of a dataset as lossless images."""
    times: dict[str, str] = {}
    folder = Path(args.dataset)
    sources = [folder] if folder.is_dir() else []
    check_target(args.out, args.format, sources=sources, force=args.force)
    if args.perturbation is None:
        method = _fit(args)
        perturbation, times = method.perturbation_, _times(method)
    else:
        ignored = [
            f"--{name}" for name in ("epsilon", "granularity", "surrogate") if vars(args)[name]
        ]
        ignored += ["--set"] * bool(args.set) + ["--image-size"] * bool(args.image_size)
        if ignored:
            raise ValueError(
                f"expected no {', '.join(ignored)} beside --perturbation, which is fitted already"
            )
        perturbation = Perturbation.from_pretrained(args.perturbation)
    dataset = open_dataset(args.dataset)
    protected = ProtectedDataset(dataset, perturbation, fraction=args.fraction, seed=args.seed)
    with Group.join().first() as first:
        if first:
            folder = protected.export(
                args.out, args.format, force=args.force, progress=not args.quiet
            )
            values = {
                "folder": str(folder),
                "images": len(protected),
                "protected": f"{args.fraction:.0%}",
                "perturbation": repr(perturbation),
                "change": str(protected.change(64)),
            }
            _show(args, values | times)
            _done(args)


def evaluate_(args: argparse.Namespace) -> None:
    """Train victims on a dataset and test them on clean images."""
    train = open_dataset(args.train)
    if args.perturbation is not None:
        train = ProtectedDataset(train, Perturbation.from_pretrained(args.perturbation))
    evaluation = evaluate(
        train,
        open_dataset(args.test, train=False),
        args.victim,
        epochs=args.epochs,
        seeds=args.seeds,
        image_size=_image_size(args),
        device=args.device,
        precision=args.precision,
        progress=not args.quiet,
    )
    _show(args, evaluation.to_dict(), str(evaluation))


def info(args: argparse.Namespace) -> None:
    """Say what a saved perturbation is."""
    perturbation = Perturbation.from_pretrained(args.perturbation)
    values = perturbation.info()
    if args.json:
        values |= {"config": perturbation.config}
    _show(args, values)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="unlearnable", description="Make image datasets unlearnable before publishing them."
    )
    parser.add_argument("--version", action="version", version=f"unlearnable {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--json", action="store_true", help="print JSON")
    common.add_argument("--quiet", action="store_true", help="no progress bars")
    compute = argparse.ArgumentParser(add_help=False)
    compute.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, …")
    compute.add_argument("--precision", default="auto", choices=["auto", "float32", "bf16"])
    compute.add_argument(
        "--image-size",
        type=int,
        nargs="+",
        metavar="PIXELS",
        help="a side, or height and width, that images of varying size are resized and cropped to",
    )
    seed = argparse.ArgumentParser(add_help=False)
    seed.add_argument("--seed", type=int, default=0)
    learn = argparse.ArgumentParser(add_help=False)
    learn.add_argument("--method", default="sem", choices=sorted(_METHODS))
    learn.add_argument("--preset", default="fast", choices=["paper", "fast", "demo"])
    learn.add_argument("--epsilon", help="budget, such as 8/255")
    learn.add_argument("--granularity", choices=["sample-wise", "class-wise"])
    learn.add_argument("--surrogate", choices=sorted(MODELS))
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
        added = commands.add_parser(
            name, help=run.__doc__, description=run.__doc__, parents=[common, *parents]
        )
        added.set_defaults(run=run)
        return added

    added = command("demo", demo, seed, force)
    added.add_argument("--out", default="unlearnable-demo", help="folder to write (%(default)s)")
    added.add_argument("--device", default="auto")
    added = command("fit", fit, compute, learn, seed, force)
    added.add_argument("dataset", help=_DATASET_HELP)
    added.add_argument("out", help="folder for the perturbation and its surrogate")
    added = command("protect", protect, compute, learn, seed, force)
    added.add_argument("dataset", help=_DATASET_HELP)
    added.add_argument("out", help="folder for the protected images")
    added.add_argument("--perturbation", help="apply this saved perturbation instead of fitting")
    added.add_argument("--fraction", type=float, default=1.0, help="share of images to protect")
    added.add_argument("--format", default="png", help="png or webp, both lossless (%(default)s)")
    added = command("evaluate", evaluate_, compute)
    added.add_argument("train", help=f"trained on: {_DATASET_HELP}")
    added.add_argument("test", help="tested on: the same, its test split where it has one")
    added.add_argument("--perturbation", help="protect the training images by this one first")
    added.add_argument("--victim", default="resnet18", choices=sorted(MODELS))
    added.add_argument("--epochs", type=int, default=60)
    added.add_argument("--seeds", type=int, default=3, help="number of victims (%(default)s)")
    added = command("info", info)
    added.add_argument("perturbation", help="folder of a saved perturbation")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns 0, 1 for an error that is explained, 130 for Ctrl-C."""
    args = _parser().parse_args(argv)
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    try:
        args.run(args)
    except (
        ValueError, TypeError, OSError, RuntimeError, ImportError, ArtefactError, UnknownImageError
    ) as error:  # fmt: skip
        print(f"unlearnable: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as interrupt:
        print(f"unlearnable: {interrupt or 'interrupted'}", file=sys.stderr)
        return 130
    return 0
