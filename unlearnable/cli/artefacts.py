"""The commands ``info``, ``list``, ``pull``, ``push`` and ``import``."""

from __future__ import annotations

import argparse
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..hub.catalogue import list_pretrained
from ..importers.noise_files import import_perturbation
from ..perturbation.perturbation import Perturbation
from .arguments import check_out, chosen, open_dataset
from .output import aligned, show


def print_info(args: argparse.Namespace) -> None:
    """Describe a saved perturbation."""
    perturbation = Perturbation.from_pretrained(args.perturbation)
    config = {"config": perturbation.config} if args.json else {}
    show(args, perturbation.info() | config)


def print_names(args: argparse.Namespace) -> None:
    """List the pre-made perturbations that can be loaded by name."""
    entries = [asdict(entry) | {"where": entry.where} for entry in list_pretrained()]
    text = aligned(list(map(_entry_words, entries)))
    show(args, entries, text or "No pre-made perturbations come with this release.")


def _entry_words(entry: dict[str, Any]) -> list[str]:
    budget = f"{entry['norm']} {entry['epsilon']}" if entry["epsilon"] else ""
    count = entry["bytes"]
    size = f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.1f} kB"
    return [entry["name"], entry["method"], entry["dataset"], budget, size, entry["where"]]


def pull(args: argparse.Namespace) -> None:
    """Get a perturbation from the Hub, or a pre-made one."""
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
    check_out(args.out, force=args.force)
    options = chosen(args, import_perturbation)
    perturbation = import_perturbation(args.path, open_dataset(args.dataset), **options)
    folder = perturbation.save_pretrained(args.out, force=args.force)
    show(args, perturbation.info() | {"folder": str(folder)})
