"""Committed results of methods against countermeasures, read for pages and tables.

A board is one result file of leaderboard.py, or of anything that writes the same layout. It may be
unfinished: readers take the cells that are there.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from leaderboard import COUNTERMEASURES, METHODS
from published import published
from record import RESULTS, where

from unlearnable.evaluation.countermeasures import countermeasure

PATTERNS = ("full-*.json", "leaderboard-*.json", "lasting-*.json")
CLASSES = {"cifar10": 10, "cifar100": 100}
SMALL = 5_000  # images up to which a result is a small trial, which has a page of its own
# Published under another name than measured: the first of these that there are figures of.
SAME = {"adversarial-training-4-steps-3": ("adversarial-training-4", "adversarial-training-8")}


class Figure(NamedTuple):
    """Clean-test accuracy of several seeds, in percent.

    Attributes:
        peak: Mean of the best epochs.
        last: Mean of the last epochs.
        peak_std: Spread over seeds, 0 of one seed.
        last_std: Likewise.
        seeds: How many victims were trained.
        seconds: The least and the most that one took, of processor time where that is known.
    """

    peak: float
    last: float
    peak_std: float
    last_std: float
    seeds: int
    seconds: tuple[float, float] = (0.0, 0.0)

    def shown(self, which: str) -> str:
        """Mean, and spread where there are several seeds."""
        text = f"{getattr(self, which):.1f}"
        return f"{text} ± {getattr(self, which + '_std'):.1f}" if self.seeds > 1 else text


def figure_of(cells: Sequence[dict[str, Any]]) -> Figure:
    """Of cells that differ by their seed only."""
    means, spreads = [], []
    for which in ("peak", "last"):
        values = [100 * cell[which] for cell in cells]
        means.append(statistics.fmean(values))
        spreads.append(statistics.stdev(values) if len(values) > 1 else 0.0)
    seconds = [cell.get("cpu_seconds", cell.get("seconds", 0.0)) for cell in cells]
    return Figure(*means, *spreads, len(cells), (min(seconds), max(seconds)))


def figures_of(result: dict[str, Any]) -> dict[tuple[str, str], Figure]:
    """By method and countermeasure, over the seeds measured."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for name, cell in result["cells"].items():
        method, counter, _ = name.rsplit(", ", 2)
        found.setdefault((method, counter), []).append(cell)
    return {key: figure_of(cells) for key, cells in found.items()}


def columns(figures: Iterable[tuple[str, str]]) -> list[str]:
    """Countermeasures of a board, the most telling first."""
    found = {counter for _, counter in figures}
    return [*(c for c in COUNTERMEASURES if c in found), *sorted(found - set(COUNTERMEASURES))]


def rows(figures: Iterable[tuple[str, str]]) -> list[str]:
    """Methods of a board in the order of leaderboard.py, clean images first."""
    found = dict.fromkeys(method for method, _ in figures)
    return [*(m for m in METHODS if m in found), *(m for m in found if m not in METHODS)]


def counts_for_worst(counter: str) -> bool:
    """Whether a trainer who has no clean images may choose it."""
    return not countermeasure(counter).needs_clean_images


def _known(method: str, counter: str, dataset: str) -> tuple[str, list[float]]:
    """The name under which others published figures for a cell, and these, in percent."""
    names = SAME.get(counter, (counter,))
    of_it = [f for f in published(dataset) if f["method"] == method]
    for name in names:
        if found := [f["accuracy"] for f in of_it if f["countermeasure"] == name]:
            return name, found
    return names[0], []


def known_figures(method: str, counter: str, dataset: str = "cifar10") -> list[float]:
    """What others published for a cell, in percent."""
    return _known(method, counter, dataset)[1]


def known_shown(method: str, counter: str, dataset: str = "cifar10") -> str:
    """What others published for a cell, with the radius of their adversary if it is not ours."""
    name, known = _known(method, counter, dataset)
    if not known:
        return ""
    ours, theirs = (getattr(countermeasure(c), "radius", None) for c in (counter, name))
    radius = f" at {theirs:g}/255" if theirs != ours else ""
    return f"{span(min(known), max(known))}{radius}"


def dataset_of(result: dict[str, Any]) -> str:
    """The set of images of a result, as leaderboard.py names it."""
    return str(result["settings"].get("dataset", "cifar10"))


def printed(dataset: str) -> str:
    """The name of a dataset as its authors write it."""
    return dataset.upper().replace("CIFAR", "CIFAR-")


def span(low: float, high: float, digits: int = 1) -> str:
    """A range, or one figure where both ends are written alike."""
    shown = (f"{low:.{digits}f}", f"{high:.{digits}f}")
    return shown[0] if shown[0] == shown[1] else " to ".join(shown)


def caption(result: dict[str, Any]) -> str:
    """What the figures of a result depend on, in one line."""
    settings = result["settings"]
    peak = settings.get("peak_images")
    recipe = f", recipe {settings['recipe']}" if settings.get("recipe") else ""
    return (
        f"{settings['images']:,} training images of {printed(dataset_of(result))}, victim "
        f"{settings['victim']}, {settings['epochs']} epochs{recipe}, one seed where there is no "
        f"spread; methods with preset {settings['preset']}, surrogate {settings['surrogate']}"
        + (f", {settings['train_steps']} surrogate steps" if settings.get("train_steps") else "")
        + (f"; peak on {peak:,} of the test images, spread over the set" if peak else "")
        + f". {result['date']}, {where(result)}."
    )


class Board:
    """One result.

    Args:
        name: Of its file, without the ending.
        result: Its content.
    """

    def __init__(self, name: str, result: dict[str, Any]) -> None:
        self.name = name
        self.result = result
        self.settings: dict[str, Any] = result["settings"]

    @cached_property
    def figures(self) -> dict[tuple[str, str], Figure]:
        """By method and countermeasure."""
        return figures_of(self.result)

    @property
    def dataset(self) -> str:
        """As leaderboard.py names it."""
        return dataset_of(self.result)

    @property
    def chance(self) -> float:
        """What guessing reaches, in percent."""
        return 100 / CLASSES[self.dataset]

    @property
    def small(self) -> bool:
        """Whether it is a trial that stands for nothing larger."""
        return bool(self.settings["images"] <= SMALL)

    @property
    def source(self) -> str:
        """Where its figures are, and what measured them."""
        return f"`leaderboard.py`, `results/{self.name}.json`"

    @property
    def title(self) -> str:
        """Its size in a few words."""
        settings = self.settings
        of = "" if self.dataset == "cifar10" else f" of {printed(self.dataset)}"
        return (
            f"{settings['images']:,} images{of}, {settings['victim']}, {settings['epochs']} epochs"
        )

    @property
    def heading(self) -> str:
        """Its size, after its methods where they are few."""
        methods = [method for method in rows(self.figures) if method != "clean"]
        return f"{', '.join(methods)}: {self.title}" if len(methods) < 4 else self.title

    def given_back(self, method: str, counter: str, which: str = "last") -> float | None:
        """Share, beyond guessing, of what clean images give with the same countermeasure.

        After the ``"last"`` epoch, or the best one (``"peak"``).
        """
        found = (self.figures.get((name, counter)) for name in (method, "clean"))
        ours, clean = (None if figure is None else getattr(figure, which) for figure in found)
        if ours is None or clean is None or clean <= self.chance:
            return None
        return float((ours - self.chance) / (clean - self.chance))


def boards(folder: Path = RESULTS) -> list[Board]:
    """Every committed one: most images first, CIFAR-10 before other sets, then most cells."""
    paths = {path for pattern in PATTERNS for path in folder.glob(pattern)}
    found = [Board(p.stem, json.loads(p.read_text(encoding="utf-8"))) for p in sorted(paths)]
    found = [board for board in found if board.result["cells"]]
    return sorted(
        found,
        key=lambda b: (
            -b.settings["images"],
            b.dataset != "cifar10",
            b.settings["epochs"] > 12,
            -len(b.result["cells"]),
        ),
    )
