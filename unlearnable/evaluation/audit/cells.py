"""The cells of an audit: which there are, in which order, and what was measured of them so far."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..._version import __version__
from ...errors import ArtefactError
from ...io.files import claim_folder, locked, write_json
from ..countermeasures.base import Countermeasure
from ..report.figures import CLEAN, PROTECTED, Cell

AUDIT_FORMAT = "unlearnable-audit"
AUDIT = "audit.json"


class PlannedCell(NamedTuple):
    """A cell to measure: a victim trained on ``"protected"`` or ``"clean"`` images."""

    trained_on: str
    countermeasure: Countermeasure
    victim: str
    seed: int

    @property
    def key(self) -> str:
        """The cell's name in the file."""
        return f"{self.trained_on}, {self.countermeasure.name}, {self.victim}, seed {self.seed}"

    @property
    def kind(self) -> tuple[str, str]:
        """Cells of one kind take about the same time."""
        return self.countermeasure.name, self.victim


def plan(
    counters: Sequence[Countermeasure], victims: Sequence[str], seeds: Sequence[int]
) -> list[PlannedCell]:
    """All cells, most informative first.

    The first seed of every cell comes before the second of any. Protected and clean cells of a
    countermeasure are adjacent. A countermeasure that needs clean images has no clean cell of its
    own: its baseline is training on all clean images, which is measured anyway.
    """
    return [
        PlannedCell(trained_on, counter, victim, seed)
        for seed in seeds
        for victim in victims
        for counter in counters
        for trained_on in (PROTECTED, CLEAN)
        if trained_on == PROTECTED or not counter.needs_clean_images
    ]


class Ledger:
    """Measured cells, stored in a file if one is given; see :func:`open_ledger`."""

    def __init__(self, content: dict[str, Any], path: Path | None) -> None:
        self._content, self._path = content, path

    def __contains__(self, planned: PlannedCell) -> bool:
        return planned.key in self._content["cells"]

    def __getitem__(self, planned: PlannedCell) -> Cell:
        return Cell(**self._content["cells"][planned.key])

    @property
    def date(self) -> str:
        """The time at which the last cell was measured."""
        return str(self._content.get("date", ""))

    def put(self, planned: PlannedCell, cell: Cell) -> None:
        """Stores a cell; it is on disk when this returns."""
        self._content["cells"][planned.key] = dataclasses.asdict(cell)
        now = datetime.datetime.now(datetime.timezone.utc)
        self._content["date"] = now.isoformat(timespec="seconds")
        if self._path is not None:
            write_json(self._path, self._content)


@contextlib.contextmanager
def open_ledger(
    folder: str | Path | None, identity: dict[str, Any], counters: Sequence[Countermeasure]
) -> Iterator[Ledger]:
    """Opens a folder's ``audit.json`` and locks it; None keeps the cells in memory only.

    Raises ``ValueError`` if the stored audit differs in anything that affects the figures or has
    cells of another version; ``FileExistsError`` if the folder has other files; ``RuntimeError`` if
    another process is using it.
    """
    parameters = {counter.name: counter.parameters for counter in counters}
    started = {"format": AUDIT_FORMAT, "identity": identity, "countermeasures": parameters}
    content: dict[str, Any] = json.loads(json.dumps(started | {"cells": {}}))
    if folder is None:
        yield Ledger(content, None)
        return
    path = claim_folder(folder, AUDIT) / AUDIT
    with locked(path.parent, wait=False):
        if path.exists():
            found = json.loads(path.read_text(encoding="utf-8"))
            try:
                _check_same(found, content, path.parent)
                found["countermeasures"] |= content["countermeasures"]
                content = found
            except (KeyError, TypeError, AttributeError) as error:
                raise ArtefactError(
                    f"expected an audit in {path}, got an incomplete file: {error}"
                ) from error
        yield Ledger(content, path)


def _check_same(found: dict[str, Any], mine: dict[str, Any], folder: Path) -> None:
    """Raises ``ValueError`` unless what an earlier start left can be continued."""
    for part in ("identity", "countermeasures"):
        for name, value in mine[part].items():
            # A countermeasure may be new; what the figures depend on may not.
            held = found[part].get(name, None if part == "identity" else value)
            if held != value:
                raise ValueError(
                    f"expected an empty folder or that of this audit, got {folder} with an audit "
                    f"whose {name} is {held!r} instead of {value!r}; choose another folder"
                )
    for key, cell in found["cells"].items():
        version = cell["machine"]["unlearnable"] if "machine" in cell else "an unknown version"
        if version != __version__:
            raise ValueError(
                f"expected cells of unlearnable {__version__} in {folder}, got one measured by "
                f"{version} ({key}): results may differ between versions. Choose another folder "
                f"(--out), delete this one to measure everything again, or continue with that "
                f"version"
            )
