"""What each subcommand does: a thin call into the Python API, and its print-out."""

from __future__ import annotations

import argparse
import json
import logging
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torchvision.datasets import ImageFolder

from ..data.image_folder import Survey, survey_folder
from ..engine.callbacks import TensorBoard
from ..engine.device import pick_device
from ..engine.distributed import Group
from ..evaluation.audit.runner import audit
from ..evaluation.countermeasures.names import COUNTERMEASURES
from ..evaluation.evaluate import evaluate
from ..hub import catalogue
from ..hub.catalogue import CONFIG
from ..importers.noise_files import import_perturbation
from ..io.files import claim_folder
from ..methods.base import Method
from ..methods.fit_session import remove_checkpoint
from ..perturbation.card import words
from ..perturbation.perturbation import Perturbation
from ..protected.dataset import ProtectedDataset
from ..protected.export import ONE_SIZE, check_target
from ..protected.export.target import overlap
from ..protected.verify import verify
from .arguments import METHOD_NAMES, image_size_of, method_of, open_dataset, parse_value
from .demo import demo_table, run_demo

logger = logging.getLogger(__name__)
QUICK_COUNTERMEASURES = (
    "none",
    "grayscale",
    "jpeg-10",
    "jpeg-30",
    "orthogonal-projection",
    "adversarial-training-4-steps-3",
    "unprotected-20",
    "clean-part-only-20",
)
QUICK_EPOCHS = 12


def _survey(args: argparse.Namespace, dataset: Any) -> Survey | None:
    """Looks through a folder of photos before the work; None for other datasets.

    Where it is needed, and none was asked for, a size to learn at is chosen.
    """
    if not isinstance(dataset, ImageFolder):
        return None
    group = Group.join()
    with group.rank_zero_first() as first:
        found = survey_folder(dataset, progress=not args.quiet) if first else None
    survey: Survey = group.share(found)
    fitted = getattr(args, "perturbation", None) is not None
    if args.image_size is None and not fitted and survey.learning_size is not None:
        args.image_size = [survey.learning_size]
        if group.rank == 0:
            logger.info(
                "photos vary in size or are large: learning at %d pixels (--image-size)",
                survey.learning_size,
            )
    return survey


def _told(survey: Survey | None) -> dict[str, str]:
    """What becomes of photos, for people."""
    if survey is None:
        return {}
    return {"photos": "; ".join(survey.summary()) or "taken as they are"}


def _fit(args: argparse.Namespace, dataset: Any) -> Method:
    return method_of(args).fit(
        dataset,
        device=args.device,
        precision=args.precision,
        image_size=image_size_of(args),
        checkpoint=args.checkpoint,
        checkpoint_every=args.checkpoint_every,
        keep_checkpoint=True,  # until the result is saved
        store=args.store,
        compile=args.compile,
        profile=args.profile,
        progress=not args.quiet,
        callback=None if args.tensorboard is None else TensorBoard(args.tensorboard),
    )


def _check_out(out: str, *, force: bool, apart: Sequence[str | Path] = ()) -> None:
    """Says before the work, not after it, that a perturbation cannot be saved in a folder.

    Args:
        out: Where to save it.
        force: Whether the folder may hold other things.
        apart: Folders of images. A perturbation among them is published with them, or taken for
            one of their classes.
    """
    for folder in apart:
        if overlap(out, folder):
            raise ValueError(
                f"expected a folder for the perturbation apart from the images' own, {folder}, got "
                f"{out}: it is to be kept from everybody"
            )
    folder = claim_folder(out, CONFIG, force=force)
    if not any(folder.iterdir()):
        folder.rmdir()


def _folders(dataset: str) -> list[Path]:
    """The folder of a dataset that is one."""
    return [Path(dataset)] if Path(dataset).is_dir() else []


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
        known = {name: words(value) for name, value in values.items() if value is not None}
        width = max(map(len, known))
        print(text or "\n".join(f"{name:<{width}}  {value}" for name, value in known.items()))


def demo(args: argparse.Namespace) -> None:
    """Fit, protect and evaluate on generated images."""
    result = run_demo(
        args.out, seed=args.seed, device=args.device, progress=not args.quiet, force=args.force
    )
    _show(args, result, demo_table(result))


def fit(args: argparse.Namespace) -> None:
    """Learn a perturbation and save it with its surrogate."""
    with Group.join().rank_zero_first() as first:
        if first:
            _check_out(args.out, force=args.force, apart=_folders(args.dataset))
    dataset = open_dataset(args.dataset)
    survey = _survey(args, dataset)
    method = _fit(args, dataset)
    with Group.join().rank_zero_first() as first:
        if first:
            folder = method.save_pretrained(args.out, force=args.force)
            values = method.perturbation_.info() | {"folder": str(folder)} | _told(survey)
            _show(args, values | _times(method))
            _done(args)


def protect(args: argparse.Namespace) -> None:
    """Write a protected copy of a dataset as lossless images."""
    times: dict[str, str] = {}
    if args.keep_gps and not args.keep_metadata:
        raise ValueError("expected --keep-metadata with --keep-gps")
    sources = _folders(args.dataset)
    options = {"sources": sources, "force": args.force, "metadata": args.keep_metadata}
    check_target(args.out, args.format, **options)
    perturbation = _ready(args)
    dataset = open_dataset(args.dataset)
    survey = _survey(args, dataset)
    resize = args.resize or args.format in ONE_SIZE
    if perturbation is None:
        size = image_size_of(args)
        check_target(args.out, args.format, dataset=dataset, image_size=size, **options)
        if size is not None and not resize and METHOD_NAMES[args.method].kind == "pixel":
            raise ValueError(
                f"expected --resize with --method {args.method}: single pixels work at the size "
                f"that they were learned at alone"
            )
        with Group.join().rank_zero_first() as first:
            if first and args.save_perturbation is not None:
                apart = [*sources, args.out]
                _check_out(args.save_perturbation, force=args.force, apart=apart)
        method = _fit(args, dataset)
        perturbation, times = method.perturbation_, _times(method)
        with Group.join().rank_zero_first() as first:
            if first and args.save_perturbation is not None:
                method.save_pretrained(args.save_perturbation, force=args.force)
    learned = tuple(perturbation.config["image_shape"][:0:-1])
    others = perturbation.fit_size is not None  # sizes than the one that was learned at
    others = others or (survey is not None and set(survey.sizes) != {learned})
    full_size = others and not resize
    protected = ProtectedDataset(
        dataset, perturbation, fraction=args.fraction, seed=args.seed, full_size=full_size
    )
    with Group.join().rank_zero_first() as first:
        if first:
            folder = protected.export(
                args.out,
                args.format,
                force=args.force,
                metadata=args.keep_metadata,
                gps=args.keep_gps,
                progress=not args.quiet,
            )
            values = {
                "folder": str(folder),
                "images": len(protected),
                "protected": f"{args.fraction:.0%}",
                "size": "as the photos" if full_size else "x".join(map(str, learned)),
                "perturbation": repr(perturbation),
                "change": str(protected.change(64)),
            }
            _show(args, values | _told(survey) | times)
            _done(args)


def _ready(args: argparse.Namespace) -> Perturbation | None:
    """The saved perturbation that is to be applied, or None."""
    if args.perturbation is None:
        return None
    ignored = [f"--{name}" for name in ("epsilon", "granularity", "surrogate") if vars(args)[name]]
    ignored += ["--set"] * bool(args.set) + ["--image-size"] * bool(args.image_size)
    ignored += ["--save-perturbation"] * bool(args.save_perturbation)
    if ignored:
        raise ValueError(
            f"expected no {', '.join(ignored)} beside --perturbation, which is fitted already"
        )
    return Perturbation.from_pretrained(args.perturbation)


def verify_folder(args: argparse.Namespace) -> int:
    """Say which files of a folder are protected by a perturbation."""
    originals = None if args.originals is None else open_dataset(args.originals)
    perturbation = Perturbation.from_pretrained(args.perturbation)
    found = verify(args.folder, perturbation, originals, progress=not args.quiet)
    _show(args, found.to_dict(), str(found))
    return 0 if found.whole else 1


def import_file(args: argparse.Namespace) -> None:
    """Make a perturbation of a file that another program wrote."""
    _check_out(args.out, force=args.force)
    perturbation = import_perturbation(
        args.path,
        open_dataset(args.dataset),
        method=args.method,
        epsilon=parse_value(args.epsilon),
        norm=args.norm,
        granularity=args.granularity,
        format=args.format,
        image_size=image_size_of(args),
    )
    folder = perturbation.save_pretrained(args.out, force=args.force)
    _show(args, perturbation.info() | {"folder": str(folder)})


def evaluate_victims(args: argparse.Namespace) -> None:
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
        image_size=image_size_of(args),
        device=args.device,
        precision=args.precision,
        progress=not args.quiet,
    )
    _show(args, evaluation.to_dict(), str(evaluation))


def audit_perturbation(args: argparse.Namespace) -> None:
    """Try countermeasures against a saved perturbation, and report the worst case."""
    # Without a GPU the whole set takes days.
    quick = args.quick or pick_device(args.device).type == "cpu"
    usual: dict[str, Any] = {
        "victims": ["tiny"] if quick else ["resnet18"],
        "countermeasures": QUICK_COUNTERMEASURES if quick else COUNTERMEASURES,
        "epochs": QUICK_EPOCHS if quick else 60,
    }
    asked = {name: getattr(args, name) for name in usual}
    options = usual | {name: value for name, value in asked.items() if value is not None}
    perturbation = Perturbation.from_pretrained(args.perturbation)
    report = audit(
        ProtectedDataset(open_dataset(args.dataset), perturbation, full_size=args.full_size),
        None,
        None if args.test is None else open_dataset(args.test, train=False),
        **options,
        seeds=args.seeds,
        image_size=image_size_of(args),
        folder=args.out,
        device=args.device,
        precision=args.precision,
        progress=not args.quiet,
    )
    text = str(report)
    if args.out is not None:
        text += f"\n\nLook at {Path(args.out) / 'report.html'}"
    shown = {name: value for name, value in report.to_dict().items() if name != "examples"}
    _show(args, shown, text)


def print_info(args: argparse.Namespace) -> None:
    """Say what a saved perturbation is."""
    perturbation = Perturbation.from_pretrained(args.perturbation)
    values = perturbation.info()
    if args.json:
        values |= {"config": perturbation.config}
    _show(args, values)


def pull(args: argparse.Namespace) -> None:
    """Get a perturbation from the Hub, or a pre-made one."""
    _quiet_hub(args)
    if args.out is not None:
        _check_out(args.out, force=args.force)
    perturbation = Perturbation.from_pretrained(
        args.name, revision=args.revision, force_download=args.force_download
    )
    folder = perturbation.folder
    if args.out is not None and folder is not None:
        card, folder = (
            folder / "README.md",
            perturbation.save_pretrained(args.out, force=args.force),
        )
        if card.is_file():
            shutil.copyfile(card, folder / card.name)
    _show(args, perturbation.info() | {"folder": str(folder)})


def push(args: argparse.Namespace) -> None:
    """Send a saved perturbation to a dataset repository on the Hub, private unless --public."""
    _quiet_hub(args)
    pushed = Perturbation.from_pretrained(Path(args.folder)).push_to_hub(
        args.repo,
        private=not args.public,
        license=args.license,
        branch=args.branch,
        create_pr=args.create_pr,
        commit_message=args.message,
    )
    _show(args, pushed._asdict())


def list_names(args: argparse.Namespace) -> None:
    """List the pre-made perturbations that can be loaded by name."""
    entries = [asdict(entry) | {"where": entry.where} for entry in catalogue.list_pretrained()]
    if args.json:
        print(json.dumps(entries, indent=2))
    elif not entries:
        print("No pre-made perturbations come with this release.")
    else:
        _print_columns([_entry_words(entry) for entry in entries])


def _entry_words(entry: dict[str, Any]) -> list[str]:
    budget = f"{entry['norm']} {entry['epsilon']}" if entry["epsilon"] else ""
    count = entry["bytes"]
    size = f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.1f} kB"
    return [entry["name"], entry["method"], entry["dataset"], budget, size, entry["where"]]


def _print_columns(lines: list[list[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        padded = (word.ljust(width) for word, width in zip(line, widths, strict=True))
        print("  ".join(padded).rstrip())


def _quiet_hub(args: argparse.Namespace) -> None:
    if args.quiet:
        from ..hub import client as hub

        hub.hide_progress()
