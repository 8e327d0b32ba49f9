"""The report of an audit as one self-contained page, without scripts.

The template escapes whatever it is given; no markup is made here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from . import text
from .figures import CLEAN, PROTECTED, duration, percent, whole_percent
from .model import Findings

_TEMPLATES = Environment(
    loader=PackageLoader(__package__),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_LEFT, _RIGHT, _TOP, _BOTTOM = 40, 310, 10, 162  # of the plane in a chart of 320x190


def html_page(report: Findings) -> str:
    """The whole page."""
    page = _TEMPLATES.get_template("report.html").render(
        report=report,
        text=text,
        charts=_charts(report),
        duration=duration,
        whole_percent=whole_percent,
    )
    return page.replace(" %", "\N{NO-BREAK SPACE}%")


def _charts(report: Findings) -> list[dict[str, Any]]:
    """Name, words and drawing of the curves of each row that was measured."""
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
        figures = [
            f"{percent(reached.peak)} on {kind} images"
            for kind, reached in ((PROTECTED, row.protected), (CLEAN, row.clean))
            if reached
        ]
        words = f"{name}: at best {', '.join(figures)}"
        charts.append({"name": name, "words": words} | _drawing(curves, report.chance))
    return charts


def _drawing(curves: Sequence[tuple[str, Sequence[float]]], chance: float) -> dict[str, Any]:
    """Where a chart's lines are, in the units of the template's ``viewBox``.

    Args:
        curves: CSS class, and accuracies after each epoch, from 0 to 1; drawn over one another.
        chance: Accuracy of guessing.
    """
    epochs = max(len(curve) for _, curve in curves)

    def points(curve: Sequence[float]) -> list[tuple[float, float]]:
        step = (_RIGHT - _LEFT) / max(1, epochs - 1)
        return [(_LEFT + step * epoch, _height(share)) for epoch, share in enumerate(curve)]

    return {
        "epochs": epochs,
        "ticks": [(f"{tick} %", _height(tick / 100)) for tick in (0, 25, 50, 75, 100)],
        "chance": _height(chance),
        "curves": [(style, points(curve)) for style, curve in curves],
    }


def _height(share: float) -> float:
    return _BOTTOM - (_BOTTOM - _TOP) * share
