"""The report of an audit as Markdown: all figures, no pictures."""

from __future__ import annotations

from ...io.markdown import escape, table
from . import text
from .figures import whole_percent
from .model import Findings


def markdown_page(report: Findings) -> str:
    """The complete text; anything that comes from the user's data is escaped."""
    figures = []
    for row in report.rows():
        share = report.recovered(row)
        marked = "".join(f" ({mark})" for mark in text.marks(report, row))
        cells = [
            escape(row.countermeasure) + marked,
            escape(row.victim),
            text.figure(row.protected, "peak"),
            text.figure(row.protected, "last"),
            text.figure(row.clean, "peak"),
            "–" if share is None else whole_percent(share),
        ]
        figures.append(cells)
    changes, undoing = text.change_rows(report), text.undoing(report)
    tried = [
        [escape(str(entry["name"])), escape(str(entry["description"]))]
        for entry in report.countermeasures
    ]
    parts = [
        f"# Audit of {escape(str(report.perturbation['method']))} on "
        f"{escape(text.dataset_name(report))}",
        f"**{text.headline(report)}.** {escape(text.verdict(report))}",
        "## What victims reach on clean test images",
        text.how_to_read(report),
        table(["countermeasure", "victim", *text.COLUMNS], figures),
        *(["## Who can undo it", *map(escape, undoing)] if undoing else []),
        "## How much it changes",
        "Measured between clean and protected 8-bit images; changes are in levels of 1/255.",
        table(
            ["class", *changes[0][1]],
            ([escape(name), *map(escape, change.values())] for name, change in changes),
        )
        if changes
        else "Not measured.",
        "## What was tried",
        table(["name", "in plain words"], tried),
        "## How it was measured",
        "\n".join(f"- {name}: {escape(fact)}" for name, fact in text.facts(report).items()),
        "## What this does not tell you",
        *text.LIMITS,
    ]
    return "\n\n".join(parts) + "\n"
