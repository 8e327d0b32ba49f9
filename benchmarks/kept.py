"""Fitted perturbations that benchmarks keep in --work."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import unlearnable as ue
from unlearnable.io.files import locked, write_json


def kept(
    folder: Path,
    made_with: dict[str, Any],
    fit: Callable[[Path], ue.Method | ue.Perturbation],
) -> ue.Perturbation:
    """A fitted perturbation, from its folder where this or another start left it.

    A note beside the folder tells what it was made with; what was made with anything else is
    refused. Starts that share a folder fit once.

    Args:
        folder: Of the perturbation.
        made_with: All that it depends on, as JSON.
        fit: Gets a folder for a checkpoint and returns what is to be saved.

    Raises:
        SystemExit: The folder holds something made with anything else.
    """
    beside = folder.with_name(f"{folder.name}-note")
    note = beside / "note.json"
    beside.mkdir(parents=True, exist_ok=True)
    with locked(beside, wait=True):
        if not (folder / "config.json").exists():
            made = fit(folder.with_name(f"{folder.name}-checkpoint"))
            write_json(note, made_with)  # first: what lies there without one is of another start
            made.save_pretrained(folder)
        found = json.loads(note.read_text()) if note.exists() else "unknown settings"
        if found != json.loads(json.dumps(made_with)):
            raise SystemExit(
                f"expected in {folder} what {made_with} gives, found what was made with {found}; "
                f"delete that folder, or choose another --work"
            )
        return ue.Perturbation.from_pretrained(folder)
