"""What commands that write copies check before, and say after."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .arguments import check_out, check_replaced, chosen

if TYPE_CHECKING:
    from ..data.image_folder import Survey
    from ..methods.base import Method
    from ..protected.dataset import ProtectedDataset

MEASURED = 64  # images whose change is shown


def folders(name: str) -> list[Path]:
    """The folder of a dataset or a perturbation, if the name is a folder."""
    return [Path(name)] if name and Path(name).is_dir() else []


def check_export(args: argparse.Namespace, **known: Any) -> None:
    """Refuses early what the export would refuse, given what is ``known`` about the images."""
    from ..protected.export import check_target

    options = {"force": args.force, "metadata": args.metadata, "quality": args.quality}
    options |= {"sources": folders(args.dataset), "apart": folders(args.perturbation or "")}
    check_target(args.out, args.format, **options, **known)


def check_fit(
    args: argparse.Namespace,
    dataset: Any,
    method: Method,
    size: Any,
    *,
    resize: bool,
    replace: bool = False,
) -> None:
    """Refuses a fit whose result could not be exported, or saved without ``replace``."""
    from ..engine.distributed import Group

    check_export(args, dataset=dataset, image_size=size)
    if size is not None and not resize and method.kind == "pixel":
        raise ValueError(
            f"expected --resize with --method {type(method).__name__.lower()}: its single changed "
            f"pixels work only at the size they were learned at"
        )
    with Group.join().rank_zero_first() as first:
        if first and args.save_perturbation is not None:
            apart = [*folders(args.dataset), args.out]
            check_out(args.save_perturbation, force=args.force, apart=apart)
            force = args.force or replace
            check_replaced(args.save_perturbation, dataset, force=force, method=method)


def mapping(args: argparse.Namespace) -> Path | None:
    """Where to record which photo became which file: in the folder of the perturbation."""
    from ..protected.export import IMAGE_FILES
    from ..protected.export.mapping import mapping_beside

    place = args.save_perturbation or args.perturbation
    if place is None or args.format not in IMAGE_FILES or not os.access(place, os.W_OK):
        return None
    return mapping_beside(place, args.out)


def left(folder: Path) -> dict[str, str]:
    """What a lossy export reports about its files."""
    from ..data.export_marker import export_at

    found = (export_at(folder) or {}).get("lossy")
    if found is None:
        return {}
    share, psnr, size = (found[name] for name in ("share_left", "psnr", "size"))
    much = "nothing was added" if share is None else f"{share:.0%}"
    said = {"left of the change": f"{much} ({found['format']}, quality {found['quality']})"}
    if psnr is not None:
        said["files"] = f"PSNR {psnr:.1f} dB compared with the protected pixels"
        said["files"] += "" if size is None else f", {size:.2f} times the originals' size"
    return said


def noticed(survey: Survey | None) -> dict[str, str]:
    """What was found in a folder of photos; nothing for other datasets."""
    return {} if survey is None else {"photos": "; ".join(survey.summary()) or "used as they are"}


def described(
    args: argparse.Namespace, folder: Path, protected: ProtectedDataset, compared: int = MEASURED
) -> dict[str, Any]:
    """Describes the export; the change is measured on ``compared`` images."""
    learned = protected.perturbation.config["image_shape"][:0:-1]
    return {
        "folder": str(folder),
        "images": len(protected),
        "protected": f"{args.fraction:.0%}",
        "size": "as the photos" if protected.full_size else "x".join(map(str, learned)),
        "perturbation": repr(protected.perturbation),
        "change": str(protected.change(compared)),
        **left(folder),
        "mapping": None if args.mapping is None else str(args.mapping),
    }


def fit_options(args: argparse.Namespace, method: Method) -> dict[str, Any]:
    """The options of a fit."""
    options = chosen(args, method.fit)
    if args.tensorboard is not None:
        from ..engine.callbacks import TensorBoard

        options["callback"] = TensorBoard(args.tensorboard)
    return options


def times(method: Method | None) -> dict[str, str]:
    """Where a profiled fit's time went."""
    seconds: dict[str, float] = getattr(method, "seconds_", {})
    whole = sum(seconds.values())
    return {name: f"{spent:.1f} s ({spent / whole:.0%})" for name, spent in seconds.items()}
