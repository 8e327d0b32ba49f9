"""The report of an audit as Markdown: all figures, no pictures."""

from __future__ import annotations

import re
from collections.abc import Iterable

from .figures import Reached, whole_percent
from .model import Findings
from .text import (
    COLUMNS,
    LIMITS,
    change_cells,
    dataset_name,
    facts,
    headline,
    how_to_read,
    marks,
    verdict,
)


def markdown_page(report: Findings) -> str:
    """The whole text; what comes from the user's data is escaped."""
    figures = []
    for row in report.rows():
        share = report.recovered(row)
        marked = "".join(f" ({mark})" for mark in marks(report, row))
        cells = [
            _plain(row.countermeasure) + marked,
            _plain(row.victim),
            _figure(row.protected, "peak"),
            _figure(row.protected, "last"),
            _figure(row.clean, "peak"),
            "–" if share is None else whole_percent(share),
        ]
        figures.append(cells)
    changes = [
        [_plain(name), *map(_plain, change_cells(change).values())]
        for name, change in [("all classes", report.change), *report.change_by_class.items()]
        if change
    ]
    tried = [
        [_plain(str(entry["name"])), _plain(str(entry["description"]))]
        for entry in report.countermeasures
    ]
    parts = [
        f"# Audit of {_plain(str(report.perturbation['method']))} on "
        f"{_plain(dataset_name(report))}",
        f"**{headline(report)}.** {_plain(verdict(report))}",
        "## What victims reach on clean test images",
        how_to_read(report),
        _table(["countermeasure", "victim", *COLUMNS], figures),
        "## How much it changes",
        "Between clean and protected 8-bit images; changes in levels of 1/255.",
        _table(["class", *change_cells(report.change)], changes) if changes else "Not measured.",
        "## What was tried",
        _table(["name", "in plain words"], tried),
        "## How it was measured",
        "\n".join(f"- {name}: {_plain(text)}" for name, text in facts(report).items()),
        "## What this does not say",
        *LIMITS,
    ]
    return "\n\n".join(parts) + "\n"


def _figure(reached: Reached | None, which: str) -> str:
    if reached is None:
        return "–"
    spread = f" ± {100 * getattr(reached, which + '_std'):.1f}" if reached.seeds > 1 else ""
    return f"{100 * getattr(reached, which):.1f}{spread} %"


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    heads = list(head)
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _plain(text: str) -> str:
    """Text that no Markdown reader takes for markup."""
    return re.sub(r"([\\`*_\[\]<>|#~&$]|:(?=//))", r"\\\1", " ".join(text.split()))
