"""The heat map of a leaderboard result, the strongest protection on top.

leaderboard_page.py writes it beside the page, as docs/reference/full-resnet9.svg. Many columns
are divided into panels, one above the other, so that the chart stays legible on a narrow screen;
a panel has the methods that were tried on any of its columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from unlearnable.evaluation.countermeasures import countermeasure

_CELL_WIDTH, _CELL_HEIGHT, _GAP = 50, 28, 14
_LEFT, _MARGIN = 128, 16
_PANEL = 7  # columns side by side, at most
_STYLE = (
    "svg { --ground: #fbfaf8; --ink: #1d1d1f; --soft: #5d5d66; --heat: #d65420; --worst: #b3261e }"
    "@media (prefers-color-scheme: dark) { svg { --ground: #131417; --ink: #ececee;"
    " --soft: #a5a6ae; --heat: #f06e32; --worst: #f47067 } }"
    "text { font: 13px system-ui, 'Segoe UI', Roboto, 'Noto Sans', sans-serif; fill: var(--ink) }"
    ".soft { fill: var(--soft) } .ground { fill: var(--ground) } .heat { fill: var(--heat) }"
    ".worst { fill: none; stroke: var(--worst); stroke-width: 2 }"
)


def worst_case(row: Mapping[str, float]) -> str | None:
    """The countermeasure of a row that helps most, of those that anybody could choose."""
    chosen = [c for c in row if _anybodys(c)]
    return max(chosen, key=lambda c: row[c], default=None)


def _anybodys(counter: str) -> bool:
    """Whether it needs neither clean images nor knowledge of the method."""
    found = countermeasure(counter)
    return not (found.needs_clean_images or found.knows_method)


def held_against_most(rows: Mapping[str, Mapping[str, float]]) -> set[str]:
    """Methods whose worst case says something: those tried on more than half as much as any."""
    tried = {method: sum(map(_anybodys, row)) for method, row in rows.items()}
    return {method for method, many in tried.items() if 2 * many > max(tried.values())}


def chart(
    figures: Mapping[tuple[str, str], float],
    counters: Sequence[str],
    text: str,
    chance: float,
) -> str:
    """A heat map as SVG, light or dark as the page around it.

    Args:
        figures: Clean-test accuracy in percent by method and countermeasure; the row ``"clean"`` is
            what nothing was done to.
        counters: Columns, in this order; those that need clean images, or know the method, go last.
            Methods that were tried on few of them yet stand below the others, without a frame.
        text: What it shows, for those who cannot see it.
        chance: What guessing reaches, in percent.
    """
    columns = sorted(counters, key=lambda c: not _anybodys(c))
    rows: dict[str, dict[str, float]] = {}
    for (method, counter), accuracy in figures.items():
        rows.setdefault(method, {})[counter] = accuracy
    clean = rows.pop("clean")
    worst = {method: worst_case(row) for method, row in rows.items()}
    known = {method: rows[method][counter] for method, counter in worst.items() if counter}
    held = held_against_most(rows)
    order = sorted(rows, key=lambda method: (method not in held, known.get(method, 100.0)))
    parts = []
    down, right = 0, 0
    panels = -(-len(columns) // _PANEL)
    for start in range(panels):  # about as wide as each other
        panel = columns[start * len(columns) // panels : (start + 1) * len(columns) // panels]
        tried = [method for method in order if not rows[method].keys().isdisjoint(panel)]
        lefts = _lefts(panel)
        down += 28 + round(5.2 * max(map(len, panel)))  # labels rise as far
        for counter, left in lefts.items():
            place = f"translate({left + _CELL_WIDTH / 2 + 4:.0f} {down - 10}) rotate(-50)"
            parts.append(f'<text class="soft" transform="{place}">{escape(counter)}</text>')
        for number, method in enumerate([*tried, "clean"]):
            row = rows.get(method, clean)
            top = down + number * _CELL_HEIGHT + _GAP * (method == "clean")
            place = f'x="{_LEFT - 10}" y="{top + _CELL_HEIGHT / 2 + 4.5}" text-anchor="end"'
            parts.append(f"<text {place}>{escape(method)}</text>")
            for counter in panel:
                if counter in row:
                    share = (row[counter] - chance) / (clean["none"] - chance)
                    framed = method in held and counter == worst[method]
                    parts += _cell(lefts[counter], top, row[counter], share, framed)
        down += (len(tried) + 1) * _CELL_HEIGHT + _GAP
        ends = (left + 45 + round(4.5 * len(counter)) for counter, left in lefts.items())
        right = max(right, *ends)  # labels lean out
    width = max(right, _LEFT + -(-len(columns) // panels) * _CELL_WIDTH + 110)
    height = down + _MARGIN
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" role="img" aria-label="{escape(text)}">'
        f'<style>{_STYLE}</style><rect class="ground" width="{width}" height="{height}"/>'
        f"{''.join(parts)}</svg>\n"
    )


def _lefts(panel: Sequence[str]) -> dict[str, int]:
    """Where each column of a panel begins; those that need clean images stand apart."""
    return {
        counter: _LEFT + number * _CELL_WIDTH + _GAP * countermeasure(counter).needs_clean_images
        for number, counter in enumerate(panel)
    }


def _cell(left: float, top: float, accuracy: float, share: float, worst: bool) -> list[str]:
    """A figure on a colour as strong as what was recovered of the clean accuracy."""
    size = f'width="{_CELL_WIDTH - 3}" height="{_CELL_HEIGHT - 3}" rx="4"'
    place = f'x="{left + 1.5}" y="{top + 1.5}"'
    opacity = 0.06 + 0.7 * min(1.0, max(0.0, share))
    parts = [f'<rect class="heat" {place} {size} fill-opacity="{opacity:.2f}"/>']
    if worst:
        parts.append(f'<rect class="worst" {place} {size}/>')
    middle = f'x="{left + _CELL_WIDTH / 2}" y="{top + _CELL_HEIGHT / 2 + 4.5}"'
    return [*parts, f'<text {middle} text-anchor="middle">{accuracy:.0f}</text>']
