"""What each command does, but for ``demo``, and how results are printed."""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .arguments import (
    PARAMETERS,
    check_out,
    check_replaced,
    chosen,
    method_class,
    method_of,
    open_dataset,
    open_originals,
)
from .rescue import keeping
from .terminal import put_out

# Whatever takes time to import is imported by the functions that need it: help is there at once.
if TYPE_CHECKING:
    from ..data.image_folder import Survey
    from ..methods.base import Method
    from ..perturbation.perturbation import Perturbation

_QUICK: dict[str, Any] = {
    "victims": ["tiny"],
    "countermeasures": [
        "none", "grayscale", "jpeg-10", "jpeg-30", "orthogonal-projection",
        "adversarial-training-4-steps-3", "unprotected-20", "clean-part-only-20",
    ],
    "epochs": 12,
}  # fmt: skip
_ORIGIN = ("device", "precision", "precision_reason")  # of a fit, as the config names them
logger = logging.getLogger(__name__)


def show(args: argparse.Namespace, values: Any, text: str | None = None) -> None:
    """Prints values as JSON if that is asked for, else a text, or a line for each value."""
    if args.json:
        text = json.dumps(values, indent=2)
    elif text is None:
        from ..perturbation.card import words

        text = _aligned([[name, words(v)] for name, v in values.items() if v is not None])
    put_out(text)


def _aligned(lines: list[list[str]]) -> str:
    """Lines of words, one column below the other."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


def fit(args: argparse.Namespace) -> None:
    """Learn a perturbation and save it with its surrogate."""
    from ..engine.distributed import Group

    with Group.join().rank_zero_first() as first:
        if first:
            check_out(args.out, force=args.force, apart=_folders(args.dataset))
    dataset = open_originals(args.dataset)
    _refuse_one_class(args, dataset)
    survey = _survey(args, dataset)
    args.visibility = _visibility(args, survey)
    with Group.join().rank_zero_first() as first:
        if first:
            check_replaced(args.out, dataset, force=args.force, method=method_of(args))
    method = _fit(args, dataset, _learning_size(args, survey))
    with Group.join().rank_zero_first() as first:
        if first:
            with keeping(args, method):
                folder = method.save_pretrained(args.out, force=args.force)
            _finish(args, method.perturbation_.info() | {"folder": str(folder)}, survey, method)


def protect(args: argparse.Namespace) -> None:
    """Write a protected copy of a dataset as images, lossless ones by default."""
    from ..engine.distributed import Group
    from ..protected.dataset import ProtectedDataset
    from ..protected.export import ONE_SIZE

    if args.gps and not args.metadata:
        raise ValueError("expected --keep-metadata with --keep-gps")
    if not 0 <= args.fraction <= 1:
        raise ValueError(f"expected --fraction from 0 to 1, got {args.fraction:g}")
    _check_export(args)
    method, perturbation = None, _ready(args)
    dataset = open_originals(args.dataset)
    if perturbation is None:
        _refuse_one_class(args, dataset)
    survey = _survey(args, dataset)
    args.visibility = _visibility(args, survey)
    resize = args.resize or args.format in ONE_SIZE
    if perturbation is None:
        size = _learning_size(args, survey)
        _check_fit(args, dataset, size, resize=resize)
        method = _fit(args, dataset, size)
        perturbation = method.perturbation_
        with Group.join().rank_zero_first() as first:
            if first and args.save_perturbation is not None:
                with keeping(args, method):
                    method.save_pretrained(args.save_perturbation, force=args.force)
    learned = tuple(perturbation.config["image_shape"][:0:-1])
    others = survey is not None and set(survey.sizes) != {learned}
    full_size = not resize and (others or perturbation.fit_size is not None)
    protected = ProtectedDataset(
        dataset, perturbation, fraction=args.fraction, seed=args.seed, full_size=full_size
    )
    args.mapping = _mapping(args)
    with Group.join().rank_zero_first() as first:
        if first:
            with keeping(args, method, args.save_perturbation):
                folder = protected.export(args.out, args.format, **chosen(args, protected.export))
            values = {
                "folder": str(folder),
                "images": len(protected),
                "protected": f"{args.fraction:.0%}",
                "size": "as the photos" if full_size else "x".join(map(str, learned)),
                "perturbation": repr(perturbation),
                "change": str(protected.change(64)),
                **_left(folder),
                "mapping": None if args.mapping is None else str(args.mapping),
            }
            _finish(args, values, survey, method)


def _folders(dataset: str) -> list[Path]:
    """The folder of a dataset that is one."""
    return [Path(dataset)] if Path(dataset).is_dir() else []


def _refuse_one_class(args: argparse.Namespace, dataset: Any) -> None:
    """Refuses, before photos are looked through, what the fit would refuse."""
    from ..methods.one_class import refuse_one_class

    refuse_one_class(method_class(args), dataset)


def _survey(args: argparse.Namespace, dataset: Any) -> Survey | None:
    """Looks through a folder of photos before the work; None for other datasets."""
    from torchvision.datasets import ImageFolder

    from ..data.image_folder import survey_folder
    from ..engine.distributed import Group

    if not isinstance(dataset, ImageFolder):
        return None
    group = Group.join()
    with group.rank_zero_first() as first:
        found = survey_folder(dataset, progress=args.progress) if first else None
    survey: Survey = group.share(found)
    return survey


def _learning_size(args: argparse.Namespace, survey: Survey | None) -> Any:
    """The size that was asked for, or else one that suits the photos; None resizes nothing."""
    from ..engine.distributed import Group

    if args.image_size is not None or survey is None or survey.learning_size is None:
        return args.image_size
    if Group.join().rank == 0:
        logger.info(
            "photos vary in size or are large: learning at %d pixels (--image-size)",
            survey.learning_size,
        )
    return survey.learning_size


def _visibility(args: argparse.Namespace, survey: Survey | None) -> str | None:
    """The visibility that was asked for, or else low for photos where the method has one."""
    if args.visibility is not None or survey is None or not method_class(args).masked:
        return args.visibility
    return "low"


def _check_export(args: argparse.Namespace, **known: Any) -> None:
    """Refuses what the export would refuse, by what is ``known`` of the images."""
    from ..protected.export import check_target

    options = {"force": args.force, "metadata": args.metadata, "quality": args.quality}
    check_target(args.out, args.format, sources=_folders(args.dataset), **options, **known)


def _mapping(args: argparse.Namespace) -> Path | None:
    """Where to list which photo became which file: beside the perturbation, in its folder."""
    from ..protected.export import IMAGE_FILES
    from ..protected.export.mapping import mapping_beside

    place = args.save_perturbation or args.perturbation
    if place is None or args.format not in IMAGE_FILES or not os.access(place, os.W_OK):
        return None
    return mapping_beside(place, args.out)


def _left(folder: Path) -> dict[str, str]:
    """What a lossy export says of its files."""
    from ..data.export_marker import export_at

    found = (export_at(folder) or {}).get("lossy")
    if found is None:
        return {}
    share, psnr, size = (found[name] for name in ("share_left", "psnr", "size"))
    left = "nothing was added" if share is None else f"{share:.0%}"
    said = {"left of the change": f"{left} ({found['format']}, quality {found['quality']})"}
    if psnr is not None:
        said["files"] = f"PSNR {psnr:.1f} dB to the protected pixels"
        said["files"] += "" if size is None else f", {size:.2f} times the originals' size"
    return said


def _check_fit(args: argparse.Namespace, dataset: Any, size: Any, *, resize: bool) -> None:
    """Refuses a fit whose result could not be exported or saved."""
    from ..engine.distributed import Group

    _check_export(args, dataset=dataset, image_size=size)
    if size is not None and not resize and method_class(args).kind == "pixel":
        raise ValueError(
            f"expected --resize with --method {args.method}: single pixels work only at the size "
            f"at which they were learned"
        )
    with Group.join().rank_zero_first() as first:
        if first and args.save_perturbation is not None:
            apart = [*_folders(args.dataset), args.out]
            check_out(args.save_perturbation, force=args.force, apart=apart)
            options = {"force": args.force, "method": method_of(args)}
            check_replaced(args.save_perturbation, dataset, **options)


def _ready(args: argparse.Namespace) -> Perturbation | None:
    """The saved perturbation that is to be applied, or None."""
    from ..perturbation.perturbation import Perturbation

    if args.perturbation is None:
        return None
    fitting = (*PARAMETERS, "set", "image_size", "save_perturbation", "visibility")
    ignored = [
        "--" + name.replace("_", "-") for name in fitting if vars(args)[name] not in (None, [])
    ]
    if ignored:
        raise ValueError(
            f"expected no {', '.join(ignored)} with --perturbation, which is fitted already"
        )
    return Perturbation.from_pretrained(args.perturbation)


def _fit(args: argparse.Namespace, dataset: Any, size: Any) -> Method:
    method = method_of(args)
    options = chosen(args, method.fit) | {"image_size": size}
    if args.tensorboard is not None:
        from ..engine.callbacks import TensorBoard

        options["callback"] = TensorBoard(args.tensorboard)
    # The checkpoint is kept until the result is saved.
    return method.fit(dataset, keep_checkpoint=True, **options)


def _finish(
    args: argparse.Namespace, values: dict[str, Any], survey: Survey | None, method: Method | None
) -> None:
    """Shows what was done, to photos too, and where a profiled fit's time went."""
    if survey is not None:
        values["photos"] = "; ".join(survey.summary()) or "taken as they are"
    seconds: dict[str, float] = getattr(method, "seconds_", {})
    whole = sum(seconds.values())
    times = {name: f"{spent:.1f} s ({spent / whole:.0%})" for name, spent in seconds.items()}
    show(args, values | times)
    if args.checkpoint is not None:
        from ..methods.fit_session import remove_checkpoint

        remove_checkpoint(args.checkpoint)


def evaluate_victims(args: argparse.Namespace) -> None:
    """Train victims on a dataset and test them on clean images."""
    from ..evaluation.evaluate import evaluate
    from ..perturbation.perturbation import Perturbation
    from ..protected.dataset import ProtectedDataset

    train = open_dataset(args.train)
    if args.perturbation is not None:
        train = ProtectedDataset(train, Perturbation.from_pretrained(args.perturbation))
    test = open_dataset(args.test, train=False)
    evaluation = evaluate(train, test, args.victim, **chosen(args, evaluate))
    show(args, evaluation.to_dict(), str(evaluation))


def audit_perturbation(args: argparse.Namespace) -> None:
    """Try countermeasures against a saved perturbation, and report the worst case."""
    from ..engine.device import pick_device
    from ..evaluation.audit.runner import audit
    from ..perturbation.perturbation import Perturbation
    from ..protected.dataset import ProtectedDataset

    # Without a GPU, what audit tries by default takes days.
    quick = args.quick or pick_device(args.device).type == "cpu"
    options = {name: value for name, value in chosen(args, audit).items() if value is not None}
    perturbation = Perturbation.from_pretrained(args.perturbation)
    report = audit(
        ProtectedDataset(open_dataset(args.dataset), perturbation, full_size=args.full_size),
        None,
        None if args.test is None else open_dataset(args.test, train=False),
        **((_QUICK if quick else {}) | options),
    )
    text = str(report)
    if args.folder is not None:
        text += f"\n\nLook at {Path(args.folder) / 'report.html'}"
    shown = {name: value for name, value in report.to_dict().items() if name != "examples"}
    show(args, shown, text)


def verify_folder(args: argparse.Namespace) -> int:
    """Say which files of a folder are protected by a perturbation."""
    from ..perturbation.perturbation import Perturbation
    from ..protected.verify import verify

    originals = None if args.originals is None else open_dataset(args.originals)
    perturbation = Perturbation.from_pretrained(args.perturbation)
    found = verify(args.folder, perturbation, originals, progress=args.progress)
    show(args, found.to_dict(), str(found))
    return 0 if found.whole else 1


def print_info(args: argparse.Namespace) -> None:
    """Describe a saved perturbation."""
    from ..perturbation.perturbation import Perturbation

    perturbation = Perturbation.from_pretrained(args.perturbation)
    config = perturbation.config
    fitted = {name: config[name] for name in _ORIGIN if name in config}
    show(args, perturbation.info() | ({"config": config} if args.json else fitted))


def print_names(args: argparse.Namespace) -> None:
    """List the pre-made perturbations that can be loaded by name."""
    from ..hub.catalogue import list_pretrained

    entries, lines = [], []
    for entry in list_pretrained():
        entries.append(asdict(entry) | {"where": entry.where})
        budget = f"{entry.norm} {entry.epsilon}" if entry.epsilon else ""
        large = entry.bytes >= 1e6
        size = f"{entry.bytes / 1e6:.1f} MB" if large else f"{entry.bytes / 1e3:.1f} kB"
        lines.append([entry.name, entry.method, entry.dataset, budget, size, entry.where])
    show(args, entries, _aligned(lines) or "No pre-made perturbations come with this release.")


def pull(args: argparse.Namespace) -> None:
    """Get a perturbation from the Hub, or a pre-made one."""
    from ..perturbation.perturbation import Perturbation

    _quiet_hub(args)
    if args.out is not None:
        check_out(args.out, force=args.force)
    options = chosen(args, Perturbation.from_pretrained)
    perturbation = Perturbation.from_pretrained(args.name, **options)
    source = folder = perturbation.folder
    if args.out is not None and source is not None:
        folder = perturbation.save_pretrained(args.out, force=args.force)
        if (source / "README.md").is_file():
            shutil.copyfile(source / "README.md", folder / "README.md")
    show(args, perturbation.info() | {"folder": str(folder)})


def push(args: argparse.Namespace) -> None:
    """Send a saved perturbation to a dataset repository on the Hub, private unless --public."""
    from ..perturbation.perturbation import Perturbation

    _quiet_hub(args)
    perturbation = Perturbation.from_pretrained(Path(args.folder))
    pushed = perturbation.push_to_hub(args.repo, **chosen(args, perturbation.push_to_hub))
    show(args, pushed._asdict())


def _quiet_hub(args: argparse.Namespace) -> None:
    if not args.progress:
        from ..hub.client import hide_progress

        hide_progress()


def import_file(args: argparse.Namespace) -> None:
    """Make a perturbation of a file that another program wrote."""
    from ..importers.noise_files import import_perturbation

    check_out(args.out, force=args.force)
    dataset = open_originals(args.dataset)
    check_replaced(args.out, dataset, force=args.force)
    options = chosen(args, import_perturbation)
    paths = args.path[0] if len(args.path) == 1 else args.path
    perturbation = import_perturbation(paths, dataset, **options)
    folder = perturbation.save_pretrained(args.out, force=args.force)
    show(args, perturbation.info() | {"folder": str(folder)})
