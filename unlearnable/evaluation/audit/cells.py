"""The cells of an audit: which there are, in which order, and what was measured of them so far."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..._version import __version__
from ...errors import ArtefactError
from ...io.files import claim_folder, locked, write_json
from ..countermeasures.base import Countermeasure
from ..report.figures import CLEAN, PROTECTED, Cell

AUDIT_FORMAT = "unlearnable-audit"
AUDIT = "audit.json"


class Plan(NamedTuple):
    """A cell to be measured.

    Attributes:
        trained_on: ``"protected"`` or ``"clean"``.
        countermeasure: What the victim does.
        victim: Name of the network.
        seed: Of the victim.
    """

    trained_on: str
    countermeasure: Countermeasure
    victim: str
    seed: int

    @property
    def key(self) -> str:
        """Its name in the file."""
        return f"{self.trained_on}, {self.countermeasure.name}, {self.victim}, seed {self.seed}"

    @property
    def kind(self) -> tuple[str, str]:
        """Cells of one kind take about the same time."""
        return self.countermeasure.name, self.victim


def plan(
    counters: Sequence[Countermeasure], victims: Sequence[str], seeds: Sequence[int]
) -> list[Plan]:
    """All cells, the most informative first.

    The first seed of everything comes before the second of anything. Protected and clean cells of
    a countermeasure stand together. Where a countermeasure needs clean images, the baseline is
    training on all of them, which is there already.
    """
    return [
        Plan(trained_on, counter, victim, seed)
        for seed in seeds
        for victim in victims
        for counter in counters
        for trained_on in (PROTECTED, CLEAN)
        if trained_on == PROTECTED or not counter.needs_clean_images
    ]


class Ledger:
    """Measured cells, kept in a folder where one is given, which is locked meanwhile.

    Args:
        folder: Holds ``audit.json``; None keeps cells in memory only.
        identity: What the figures depend on.
        counters: Countermeasures of this start.

    Raises:
        FileExistsError: The folder holds other things. On entering: ValueError where it holds
            another audit or another version's cells, RuntimeError where another process works in
            it.
    """

    def __init__(
        self,
        folder: str | Path | None,
        identity: dict[str, Any],
        counters: Sequence[Countermeasure],
    ) -> None:
        self._folder = None if folder is None else claim_folder(folder, AUDIT)
        self._lock = contextlib.ExitStack()
        parameters = {counter.name: counter.parameters for counter in counters}
        started = {"format": AUDIT_FORMAT, "identity": identity, "countermeasures": parameters}
        self._content: dict[str, Any] = json.loads(json.dumps(started | {"cells": {}}))

    def __enter__(self) -> Ledger:
        if self._folder is not None:
            with contextlib.ExitStack() as stack:
                stack.enter_context(locked(self._folder, wait=False))
                if (self._folder / AUDIT).exists():
                    found = json.loads((self._folder / AUDIT).read_text(encoding="utf-8"))
                    try:
                        self._take(found)
                    except (KeyError, TypeError, AttributeError) as error:
                        raise ArtefactError(
                            f"expected an audit in {self._folder / AUDIT}, got a file without "
                            f"its parts: {error}"
                        ) from error
                self._lock = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._lock.close()

    def _take(self, found: dict[str, Any]) -> None:
        """Continues from what an earlier start left, if it is of the same audit."""
        mine = self._content
        other = "expected the folder of this audit, or an empty one; {} holds one with {}"
        for name, value in mine["identity"].items():
            if found["identity"].get(name) != value:
                held = f"{name} {found['identity'].get(name)!r} instead of {value!r}"
                raise ValueError(other.format(self._folder, held))
        for name, parameters in mine["countermeasures"].items():
            if found["countermeasures"].get(name, parameters) != parameters:
                held = f"{name} of {found['countermeasures'][name]} instead of {parameters}"
                raise ValueError(other.format(self._folder, held))
        for key, cell in found["cells"].items():
            version = cell["machine"]["unlearnable"] if "machine" in cell else "an unknown version"
            if version != __version__:
                raise ValueError(
                    f"expected cells of unlearnable {__version__} in {self._folder}, got one "
                    f"measured by {version} ({key}): versions need not give the same figures. "
                    f"Choose another folder (--out), delete this one to measure all anew, or "
                    f"continue with that version"
                )
        found["countermeasures"] |= mine["countermeasures"]
        self._content = found

    def __contains__(self, planned: Plan) -> bool:
        return planned.key in self._content["cells"]

    def __getitem__(self, planned: Plan) -> Cell:
        return Cell(**self._content["cells"][planned.key])

    @property
    def date(self) -> str:
        """When the last cell was measured."""
        return str(self._content.get("date", ""))

    def put(self, planned: Plan, cell: Cell) -> None:
        """Keeps a cell; it is on disk when this returns."""
        self._content["cells"][planned.key] = dataclasses.asdict(cell)
        now = datetime.datetime.now(datetime.timezone.utc)
        self._content["date"] = now.isoformat(timespec="seconds")
        if self._folder is not None:
            write_json(self._folder / AUDIT, self._content)
