"""Results of a benchmark as JSON: what was measured, with what, where and when."""

from __future__ import annotations

import datetime
import json
import platform
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision

import unlearnable
from unlearnable.io.files import locked, write_json

RESULTS = Path(__file__).parent / "results"
DOCS = Path(__file__).parent.parent / "docs"


def machine(device: str = "auto") -> dict[str, Any]:
    """What the figures depend on beside the settings."""
    on_gpu = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    return {
        "device": torch.cuda.get_device_name() if on_gpu else platform.machine(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "numpy": np.__version__,
        "unlearnable": unlearnable.__version__,
    }


class Record:
    """A result file that is written cell by cell and continues where it ended.

    ``machine`` is where it began. Other machines and versions that continued it stand in
    ``further``, each with the cells that it wrote.

    Args:
        path: Of the JSON file.
        settings: What the figures depend on; a file with others is refused.
        device: As it is given to fits.
    """

    def __init__(self, path: Path, settings: dict[str, Any], device: str = "auto") -> None:
        self.path = path
        self.settings = settings
        self.machine = machine(device)
        self._start = {"settings": settings, "machine": self.machine, "cells": {}}
        found = self._read()
        if found["settings"] != json.loads(json.dumps(settings)):
            raise SystemExit(f"{path} holds other settings: {found['settings']}")

    def _read(self) -> dict[str, Any]:
        if not self.path.exists():
            return self._start
        found: dict[str, Any] = json.loads(self.path.read_text())
        return found

    @property
    def cells(self) -> dict[str, Any]:
        """Everything measured so far, by this start or another one."""
        cells: dict[str, Any] = self._read()["cells"]
        return cells

    @property
    def date(self) -> str:
        """When the last cell was measured."""
        return str(self._read()["date"])

    def put(self, name: str, cell: dict[str, Any]) -> None:
        """Writes one cell; those that other starts wrote meanwhile stay."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with locked(self.path.parent, wait=True):
            result = self._read()
            result["cells"][name] = cell
            if self.machine != result["machine"]:
                further = result.setdefault("further", [])
                mine = next((other for other in further if other["machine"] == self.machine), None)
                if mine is None:
                    mine = {"machine": self.machine, "cells": []}
                    further.append(mine)
                mine["cells"] = list(dict.fromkeys([*mine["cells"], name]))
            result["date"] = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
            write_json(self.path, result)


def where(result: dict[str, Any]) -> str:
    """The machines of a result, for the caption of a table."""
    machines = [result["machine"], *(other["machine"] for other in result.get("further", []))]
    places = (
        f"{m['device']}, {m['threads']} thread{'s' * (m['threads'] != 1)}, torch {m['torch']}"
        for m in machines
    )
    return "; some cells: ".join(dict.fromkeys(places))


def unbroken(text: str) -> str:
    """Text in which no line ends between a figure and its unit or before its spread."""
    return text.replace(" %", "\N{NO-BREAK SPACE}%").replace("± ", "±\N{NO-BREAK SPACE}")


def filled(page: Path, command: str, table: str, text: str | None = None) -> str:
    """A page's text with a table in the place that its comments keep for a command.

    ``text`` is what is to be filled in place of what the page has.
    """
    start, end = f"<!-- made by benchmarks/{command} -->", "<!-- end -->"
    text = page.read_text(encoding="utf-8") if text is None else text
    before, found, rest = text.partition(start)
    if not found:
        raise ValueError(f"expected {start} in {page}")
    return f"{before}{start}\n\n{table}\n\n{end}{rest.partition(end)[2]}"


def fill(page: Path, command: str, table: str) -> None:
    """Writes a table into a page."""
    page.write_text(filled(page, command, table), encoding="utf-8")
