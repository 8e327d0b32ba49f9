"""What ``fit`` and ``protect`` do."""

from __future__ import annotations

import argparse
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .arguments import (
    PARAMETERS,
    check_out,
    check_replaced,
    chosen,
    method_class,
    method_of,
    open_originals,
)
from .rescue import keeping
from .terminal import show

# Whatever takes time to import is imported by the functions that need it: help is there at once.
if TYPE_CHECKING:
    from ..data.image_folder import Survey
    from ..methods.base import Method
    from ..perturbation.perturbation import Perturbation

_MEASURED = 64  # images whose change is shown
logger = logging.getLogger(__name__)


def fit(args: argparse.Namespace) -> None:
    """Learn a perturbation and save it with its surrogate."""
    from ..engine.distributed import Group

    with Group.join().rank_zero_first() as first:
        if first:
            check_out(args.out, force=args.force, apart=_folders(args.dataset))
    dataset = open_originals(args.dataset)
    _refuse_one_class(args, dataset)
    survey = _survey(args, dataset, decode=False)
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
    survey = _survey(args, dataset, decode=perturbation is not None)
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
        dataset,
        perturbation,
        fraction=args.fraction,
        seed=args.seed,
        full_size=full_size,
        check=0 if method is not None and survey is not None else 64,
    )
    args.mapping = _mapping(args)
    with Group.join().rank_zero_first() as first:
        if first:
            with keeping(args, method, args.save_perturbation):
                options = chosen(args, protected.export) | {"resume": True, "measure": _MEASURED}
                folder = protected.export(args.out, args.format, **options)
            values = {
                "folder": str(folder),
                "images": len(protected),
                "protected": f"{args.fraction:.0%}",
                "size": "as the photos" if full_size else "x".join(map(str, learned)),
                "perturbation": repr(perturbation),
                "change": str(protected.change(_MEASURED)),
                **_left(folder),
                "mapping": None if args.mapping is None else str(args.mapping),
            }
            _finish(args, values, survey, method)


def _folders(name: str) -> list[Path]:
    """The folder that a dataset or a perturbation is, if it is one."""
    return [Path(name)] if name and Path(name).is_dir() else []


def _refuse_one_class(args: argparse.Namespace, dataset: Any) -> None:
    """Refuses, before photos are looked through, what the fit would refuse."""
    from ..methods.one_class import refuse_one_class

    refuse_one_class(method_class(args), dataset)


def _survey(args: argparse.Namespace, dataset: Any, *, decode: bool) -> Survey | None:
    """Looks through a folder of photos before the work; None for other datasets.

    A fit decodes all of them itself before it learns, and names those that are damaged.
    """
    from torchvision.datasets import ImageFolder

    from ..data.image_folder import survey_folder
    from ..engine.distributed import Group

    if not isinstance(dataset, ImageFolder):
        return None
    group = Group.join()
    with group.rank_zero_first() as first:
        found = survey_folder(dataset, decode=decode, progress=args.progress) if first else None
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
    options |= {"sources": _folders(args.dataset), "apart": _folders(args.perturbation or "")}
    check_target(args.out, args.format, **options, **known)


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
