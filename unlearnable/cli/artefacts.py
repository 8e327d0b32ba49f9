"""What ``info``, ``list``, ``pull``, ``push`` and ``import`` do."""

from __future__ import annotations

import argparse
import shutil
from dataclasses import asdict
from pathlib import Path

from .arguments import check_out, check_replaced, chosen, open_originals
from .terminal import aligned, show

_ORIGIN = ("device", "precision", "precision_reason")  # of a fit, as the config names them


def print_info(args: argparse.Namespace) -> None:
    """Describe a saved perturbation."""
    from ..hub.catalogue import computed
    from ..perturbation.perturbation import Perturbation

    if (entry := computed(args.perturbation)) is not None:
        told = {name: value for name, value in asdict(entry).items() if value is not None}
        told |= {"rows": "computed for your images when first used, then cached"}
        show(args, told | {"strength": entry.strength})
        return
    perturbation = Perturbation.from_pretrained(args.perturbation)
    config = perturbation.config
    fitted = {name: config[name] for name in _ORIGIN if name in config}
    show(args, perturbation.info() | ({"config": config} if args.json else fitted))


def print_names(args: argparse.Namespace) -> None:
    """List the pre-made perturbations that can be loaded by name."""
    from ..engine.sizes import readable_size
    from ..hub.catalogue import list_pretrained

    entries, lines = [], []
    for entry in list_pretrained():
        entries.append(asdict(entry) | {"where": entry.where})
        budget = f"{entry.norm} {entry.epsilon}" if entry.epsilon else ""
        size = readable_size(entry.bytes)
        lines.append([entry.name, entry.method, entry.dataset, budget, size, entry.where])
    show(args, entries, aligned(lines) or "No pre-made perturbations come with this release.")


def pull(args: argparse.Namespace) -> None:
    """Get a perturbation from the Hub or a pre-made one."""
    from ..perturbation.perturbation import Perturbation

    _quiet_hub(args)
    if args.out is not None:
        check_out(args.out, force=args.force)
    options = chosen(args, Perturbation.from_pretrained)
    if args.dataset is not None:
        options["dataset"] = open_originals(args.dataset)
    perturbation = Perturbation.from_pretrained(args.name, **options)
    source = folder = perturbation.folder
    if args.out is not None:
        if source is not None and source.resolve() == Path(args.out).resolve():
            raise ValueError(
                f"expected a folder to write other than {args.out}: {args.name} means the folder "
                f"of that name, which is there and comes first; choose another folder, or rename it"
            )
        folder = perturbation.save_pretrained(args.out, force=args.force)
        if source is not None and (source / "README.md").is_file():
            shutil.copyfile(source / "README.md", folder / "README.md")
    show(args, perturbation.info() | {"folder": str(folder)})


def push(args: argparse.Namespace) -> None:
    """Upload a saved perturbation to a dataset repository on the Hub; private unless --public."""
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
    """Import a perturbation from a file that another program wrote."""
    from ..importers.noise_files import import_perturbation

    check_out(args.out, force=args.force)
    dataset = open_originals(args.dataset)
    check_replaced(args.out, dataset, force=args.force)
    options = chosen(args, import_perturbation)
    paths = args.path[0] if len(args.path) == 1 else args.path
    perturbation = import_perturbation(paths, dataset, **options)
    folder = perturbation.save_pretrained(args.out, force=args.force)
    show(args, perturbation.info() | {"folder": str(folder)})
