"""What an audit found: every cell, the worst case, and the verdict in plain words."""

from __future__ import annotations

import dataclasses
import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import ArtefactError
from ..output import claim_folder, write_json

FORMAT = "unlearnable-audit-report"
REPORT = "report.json"
PROTECTED, CLEAN = "protected", "clean"
HOLDS, BREAKS = 0.3, 0.7  # recovered shares up to and from which the verdict says so
_LEARNS = 0.3  # of the way from chance to certainty that the clean baseline has to get


@dataclass(frozen=True)
class Cell:
    """One victim of an audit. Accuracies are shares from 0 to 1.

    Attributes:
        trained_on: ``"protected"`` or ``"clean"`` images.
        countermeasure: Name.
        victim: Name of the network.
        seed: Of the victim.
        last: Clean-test accuracy after the last epoch.
        peak: The best of any epoch.
        train: Accuracy on the training images.
        curve: Clean-test accuracy after each epoch.
        seconds: What it took.
    """

    trained_on: str
    countermeasure: str
    victim: str
    seed: int
    last: float
    peak: float
    train: float
    curve: list[float]
    seconds: float


class Reached(NamedTuple):
    """Mean and spread over seeds: peak and last clean-test accuracy."""

    seeds: int
    peak: float
    peak_std: float
    last: float
    last_std: float


class Row(NamedTuple):
    """One countermeasure against one victim; None is what has not been measured yet.

    Attributes:
        countermeasure: Name.
        victim: Name of the network.
        protected: What victims reached that were trained on protected images.
        clean: What the same victims reached on clean images.
    """

    countermeasure: str
    victim: str
    protected: Reached | None
    clean: Reached | None


@dataclass(frozen=True)
class AuditReport:
    """What :func:`audit` found.

    Attributes:
        perturbation: What :meth:`Perturbation.info` says, and ``parameters`` of the method.
        dataset: ``name``, ``images``, ``classes`` (names or None), ``num_classes``, ``digest``,
            ``fraction`` of images that were protected.
        test: ``name``, ``images``, ``digest``, ``held_out`` (share of the dataset, or None).
        settings: ``epochs``, ``batch_size``, ``image_size``, ``precision``.
        countermeasures: ``name``, ``description``, ``parameters`` and ``needs_clean`` (whether the
            trainer has to have clean images of the dataset) of each, in order.
        victims: Names.
        seeds: Of the victims.
        cells: What was measured.
        planned: Number of cells of the whole audit.
        change: Imperceptibility, the fields of :class:`Change` (``psnr`` None where infinite).
        change_by_class: The same by class name.
        examples: Images to look at: ``label``, ``psnr``, ``ssim``, and ``clean``, ``change`` and
            ``protected`` as PNG in base64.
        machine: Processor, threads and versions.
        date: Of the last cell, ISO format.
    """

    perturbation: dict[str, Any]
    dataset: dict[str, Any]
    test: dict[str, Any]
    settings: dict[str, Any]
    countermeasures: list[dict[str, Any]]
    victims: list[str]
    seeds: list[int]
    cells: list[Cell]
    planned: int
    change: dict[str, Any] = field(default_factory=dict)
    change_by_class: dict[str, dict[str, Any]] = field(default_factory=dict)
    examples: list[dict[str, Any]] = field(default_factory=list)
    machine: dict[str, Any] = field(default_factory=dict)
    date: str = ""

    @property
    def complete(self) -> bool:
        """Whether every cell was measured."""
        return len(self.cells) == self.planned

    @property
    def seconds(self) -> float:
        """What all cells took."""
        return sum(cell.seconds for cell in self.cells)

    @property
    def chance(self) -> float:
        """Accuracy of guessing, classes being equally frequent."""
        return 1 / float(self.dataset["num_classes"])

    def reached(self, trained_on: str, countermeasure: str, victim: str) -> Reached | None:
        """Mean and spread over the seeds measured so far, or None without any."""
        found = self.curves(trained_on, countermeasure, victim)
        if not found:
            return None
        peaks, lasts = [cell.peak for cell in found], [cell.last for cell in found]
        return Reached(len(found), *_mean_std(peaks), *_mean_std(lasts))

    def curves(self, trained_on: str, countermeasure: str, victim: str) -> list[Cell]:
        """The cells of all seeds."""
        wanted = (trained_on, countermeasure, victim)
        return [c for c in self.cells if (c.trained_on, c.countermeasure, c.victim) == wanted]

    def rows(self) -> list[Row]:
        """One per countermeasure and victim, those of one countermeasure together."""
        return [
            Row(
                entry["name"],
                victim,
                self.reached(PROTECTED, entry["name"], victim),
                self.reached(CLEAN, entry["name"], victim),
            )
            for entry in self.countermeasures
            for victim in self.victims
        ]

    def worst(self) -> Row | None:
        """Where the protection fails most: the highest peak of any countermeasure and victim.

        Countermeasures that need clean images of the dataset are left out: they tell what the
        images that are out already are worth, not what the protected ones are.
        """
        needs = {entry["name"] for entry in self.countermeasures if entry["needs_clean"]}
        rows = [r for r in self.rows() if r.protected and r.countermeasure not in needs]
        return max(rows, key=lambda row: _peak(row.protected), default=None)

    def without(self) -> Row | None:
        """Training with no countermeasure, of the victim that gets furthest."""
        rows = [r for r in self.rows() if r.countermeasure == "none" and r.protected]
        return max(rows, key=lambda row: _peak(row.protected), default=None)

    def recovered(self, row: Row) -> float | None:
        """Share of clean accuracy above chance that victims get: 0 is guessing, 1 is no protection.

        Clean accuracy is that of the same victim without any countermeasure.
        """
        clean = self.reached(CLEAN, "none", row.victim)
        if row.protected is None or clean is None or clean.peak <= self.chance:
            return None
        return (row.protected.peak - self.chance) / (clean.peak - self.chance)

    def says_little(self, row: Row) -> bool:
        """Whether victims fail with the countermeasure on clean images too.

        They do if no more of the accuracy without a countermeasure is left on clean images than
        what counts as a protection that holds: it is the countermeasure then that keeps them out.
        """
        clean = self.reached(CLEAN, "none", row.victim)
        if row.clean is None or clean is None:
            return False
        return row.clean.peak - self.chance <= HOLDS * (clean.peak - self.chance)

    def describe(self, name: str) -> str:
        """A countermeasure in plain words."""
        return next(str(e["description"]) for e in self.countermeasures if e["name"] == name)

    def outcome(self) -> str:
        """``"broken"``, ``"weakened"``, ``"holds"``, or ``"unknown"``."""
        worst = self.worst()
        share = None if worst is None else self.recovered(worst)
        clean = max(
            (r.peak for v in self.victims if (r := self.reached(CLEAN, "none", v))), default=0.0
        )
        if share is None or clean < self.chance + _LEARNS * (1 - self.chance):
            return "unknown"
        return "broken" if share >= BREAKS else "weakened" if share > HOLDS else "holds"

    def headline(self) -> str:
        """The outcome in a few words."""
        tried = len(
            [e for e in self.countermeasures if e["name"] != "none" and not e["needs_clean"]]
        )
        if not tried and self.outcome() != "unknown":
            return "No countermeasure was tried"
        return {
            "broken": "The protection does not hold",
            "weakened": "The protection holds in part",
            "holds": "The protection held against all that was tried",
            "unknown": "Nothing can be said about the protection yet",
        }[self.outcome()] + (", but some of it says little" if self._held_by_default() else "")

    def _held_by_default(self) -> bool:
        return self.outcome() == "holds" and any(map(self.says_little, self.rows()))

    def verdict(self) -> str:
        """What was found, in plain words: the worst case first."""
        worst, without = self.worst(), self.without()
        if worst is None or worst.protected is None:
            return "Nothing has been measured yet."
        who = self.describe(worst.countermeasure)
        network = f" ({worst.victim})" if len(self.victims) > 1 else ""
        text = (
            f"{who[0].upper()}{who[1:]}{network} reaches {percent(worst.protected.peak)} accuracy "
            f"at its best"
        )
        if worst.clean is not None:
            text += f"; on clean images the same victim reaches {percent(worst.clean.peak)}"
        text += "."
        share = self.recovered(worst)
        if self.outcome() == "unknown":
            text += " Victims learn too little from clean images to compare with."
        elif share is not None:
            text += (
                f" Beyond guessing, that is {100 * share:.0f} % of what clean images give without "
                f"any countermeasure."
            )
        if without is not None and without.protected and worst.countermeasure != "none":
            text += f" With none, protected images give {percent(without.protected.peak)}."
        if self._held_by_default():
            names = dict.fromkeys(r.countermeasure for r in self.rows() if self.says_little(r))
            text += f" On clean images, too, victims learn next to nothing with {_listed(names)}."
        if not self.complete:
            text += f" Only {len(self.cells)} of {self.planned} cells have been measured so far."
        return text

    def __str__(self) -> str:
        table = [("countermeasure", "victim", "protected, peak", "last", "clean, peak")]
        for row in self.rows():
            p, c = row.protected, row.clean
            figures = (p and p.peak, p and p.last, c and c.peak)
            peak, last, clean = ("-" if value is None else percent(value) for value in figures)
            table.append((row.countermeasure, row.victim, peak, last, clean))
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = [
            "  ".join(
                text.ljust(width) if number < 2 else text.rjust(width)
                for number, (text, width) in enumerate(zip(line, widths, strict=True))
            )
            for line in table
        ]
        return "\n".join([f"{self.headline()}. {self.verdict()}", "", *lines])

    # Files

    def to_dict(self) -> dict[str, Any]:
        """All of it, for JSON."""
        return {
            "format": FORMAT,
            "headline": self.headline(),
            "verdict": self.verdict(),
        } | dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> AuditReport:
        """The inverse of :meth:`to_dict`.

        Raises:
            ArtefactError: It is something else.
        """
        if content.get("format") != FORMAT:
            raise ArtefactError(f"expected a report of format {FORMAT}, got another file")
        values = {f.name: content[f.name] for f in dataclasses.fields(cls)}
        return cls(**values | {"cells": [Cell(**cell) for cell in content["cells"]]})

    def to_html(self) -> str:
        """One self-contained page."""
        from .report_html import html_page

        return html_page(self)

    def to_markdown(self) -> str:
        """The same without pictures."""
        from .report_markdown import markdown_page

        return markdown_page(self)

    def save(self, folder: str | Path) -> Path:
        """Writes ``report.html``, ``report.md`` and ``report.json``.

        Returns:
            The page to look at, ``report.html``.

        Raises:
            FileExistsError: The folder holds things that are not ours.
        """
        folder = Path(folder)
        if not (folder / "audit.json").exists():
            claim_folder(folder, REPORT)
        for name, text in (("report.html", self.to_html()), ("report.md", self.to_markdown())):
            partial = folder / f".{name}.partial"
            partial.write_text(text, encoding="utf-8")
            partial.replace(folder / name)
        write_json(folder / REPORT, self.to_dict())
        return folder / "report.html"

    @classmethod
    def load(cls, folder: str | Path) -> AuditReport:
        """Reads what :meth:`save` or an audit wrote.

        Raises:
            FileNotFoundError: There is none.
            ArtefactError: It is no report.
        """
        path = Path(folder) / REPORT
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            return cls.from_dict(content)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ArtefactError(f"expected the report of an audit in {path}: {error}") from error


def percent(share: float) -> str:
    """As reports write accuracies."""
    return f"{100 * share:.1f} %"


def duration(seconds: float) -> str:
    """As reports write times: 40 s, 12 min, 3.5 h."""
    if seconds < 90:
        return f"{math.ceil(seconds)} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _listed(names: Iterable[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last


def _peak(reached: Reached | None) -> float:
    return -1.0 if reached is None else reached.peak


def _mean_std(values: Sequence[float]) -> tuple[float, float]:
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return statistics.fmean(values), spread
