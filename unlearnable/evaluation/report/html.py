"""The report of an audit as one self-contained page, without scripts.

The template escapes whatever it is given; no markup is made here.
"""

from __future__ import annotations

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from . import figures, text
from .figures import CLEAN, PROTECTED
from .model import Findings

_TEMPLATES = Environment(
    loader=PackageLoader(__package__),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def html_page(report: Findings) -> str:
    """The complete page."""
    template = _TEMPLATES.get_template("report.html")
    page = template.render(report=report, text=text, figures=figures, charts=_charts(report))
    return page.replace(" %", "\N{NO-BREAK SPACE}%")


def _charts(report: Findings) -> list[dict[str, Any]]:
    """Of each row that was measured: name, words, epochs, and curves with their CSS class."""
    charts = []
    for row in report.rows():
        curves = [
            (trained_on, cell.curve)
            for trained_on in (CLEAN, PROTECTED)
            for cell in report.curves(trained_on, row.countermeasure, row.victim)
        ]
        if not curves:
            continue
        name = row.countermeasure + (f", {row.victim}" if len(report.victims) > 1 else "")
        reached_on = [
            f"{figures.percent(reached.peak)} on {kind} images"
            for kind, reached in ((PROTECTED, row.protected), (CLEAN, row.clean))
            if reached
        ]
        words = f"{name}: peak accuracy {', '.join(reached_on)}"
        epochs = max(len(curve) for _, curve in curves)
        charts.append({"name": name, "words": words, "epochs": epochs, "curves": curves})
    return charts
