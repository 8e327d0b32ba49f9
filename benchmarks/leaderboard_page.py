"""docs/reference/leaderboard.md and its pictures, from committed results and published figures.

    python benchmarks/leaderboard_page.py

Where a measured figure and the published ones are more than ten points apart, or a known pattern
does not appear, the page says so and gives the reason that causes.json has for it.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from leaderboard import COUNTERMEASURES, METHODS
from leaderboard_chart import chart, worst_case
from patterns import section as patterns_section
from published import PUBLISHED, published
from record import DOCS, RESULTS, where

PAGE = DOCS / "reference" / "leaderboard.md"
CAUSES = Path(__file__).parent / "causes.json"
APART = 10  # points from which a difference has to be explained
# Published under another name than measured.
SAME = {"adversarial-training-4-steps-3": ("adversarial-training-4", "adversarial-training-8")}


class Figure(NamedTuple):
    """Clean-test accuracy of several seeds, in percent."""

    peak: float
    last: float
    peak_std: float
    last_std: float
    seeds: int

    def shown(self, which: str) -> str:
        """Mean, and spread where there are several seeds."""
        text = f"{getattr(self, which):.1f}"
        return f"{text} ± {getattr(self, which + '_std'):.1f}" if self.seeds > 1 else text


def figures_of(result: dict[str, Any]) -> dict[tuple[str, str], Figure]:
    """By method and countermeasure, over the seeds measured."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for name, cell in result["cells"].items():
        method, counter, _ = name.rsplit(", ", 2)
        found.setdefault((method, counter), []).append(cell)
    return {key: _figure(cells) for key, cells in found.items()}


def _figure(cells: Sequence[dict[str, Any]]) -> Figure:
    means, spreads = [], []
    for which in ("peak", "last"):
        values = [100 * cell[which] for cell in cells]
        means.append(statistics.fmean(values))
        spreads.append(statistics.stdev(values) if len(values) > 1 else 0.0)
    return Figure(*means, *spreads, len(cells))


def columns(figures: Iterable[tuple[str, str]]) -> list[str]:
    """Countermeasures of a leaderboard, in its order."""
    found = {counter for _, counter in figures}
    return [*(c for c in COUNTERMEASURES if c in found), *sorted(found - set(COUNTERMEASURES))]


def table(result: dict[str, Any], which: str) -> list[str]:
    """Peak or last by method and countermeasure; the worst case of each row is bold."""
    figures = figures_of(result)
    counters = columns(figures)
    lines = [f"| trained on | {' | '.join(counters)} |", "|---" * (len(counters) + 1) + "|"]
    for method in METHODS:
        row = {c: figures[method, c] for c in counters if (method, c) in figures}
        if not row:
            continue
        shown = {c: figure.shown(which) for c, figure in row.items()}
        worst = worst_case({c: getattr(figure, which) for c, figure in row.items()})
        if method != "clean" and worst:
            shown[worst] = f"**{shown[worst]}**"
        if which == "peak":
            for c in row:
                if known := known_figures(method, c):
                    shown[c] += f" ({_span(min(known), max(known), 0)})"
        lines.append(f"| {method} | {' | '.join(shown.get(c, '') for c in counters)} |")
    return lines


def picture_lines(name: str, result: dict[str, Any]) -> list[str]:
    """Where a page shows the heat map."""
    if picture(result) is None:
        return []
    return [
        "Best epoch, the strongest protection by its worst case (framed) on top. The colour is",
        "what was recovered, beyond guessing, of what clean images give without a countermeasure:",
        "",
        f"![Methods against countermeasures as a heat map]({name}.svg)",
        "",
    ]


def caption(result: dict[str, Any]) -> str:
    settings = result["settings"]
    peak = settings["peak_images"]
    return (
        f"{settings['images']:,} training images of CIFAR-10, victim {settings['victim']}, "
        f"{settings['epochs']} epochs, one seed where there is no spread; methods with preset "
        f"{settings['preset']}, surrogate {settings['surrogate']}"
        + (f", {settings['train_steps']} surrogate steps" if settings["train_steps"] else "")
        + (f"; peak on {peak:,} test images that are spread over the set" if peak else "")
        + f". {result['date']}, {where(result)}."
    )


# --- measured against published ------------------------------------------------------------------


class Difference(NamedTuple):
    """A measured figure that is far from the published ones.

    Attributes:
        method: Row.
        countermeasure: Column.
        ours: From last to peak, in percent.
        published: Lowest and highest, in percent.
        gap: Points between the two ranges; negative where ours is lower.
    """

    method: str
    countermeasure: str
    ours: tuple[float, float]
    published: tuple[float, float]
    gap: float


def known_figures(method: str, counter: str) -> list[float]:
    """What others published for a cell, in percent."""
    names = SAME.get(counter, (counter,))
    return [
        f["accuracy"] for f in published() if f["method"] == method and f["countermeasure"] in names
    ]


def differences(result: dict[str, Any]) -> list[Difference]:
    """Where ours and the published figures are more than ten points apart."""
    far = []
    for (method, counter), figure in figures_of(result).items():
        known = known_figures(method, counter)
        if not known:
            continue
        low, high = sorted((figure.last, figure.peak))
        gap = max(0.0, low - max(known)) or min(0.0, high - min(known))
        if abs(gap) > APART:
            far.append(Difference(method, counter, (low, high), (min(known), max(known)), gap))
    order = list(COUNTERMEASURES)
    return sorted(far, key=lambda d: (order.index(d.countermeasure), METHODS.index(d.method)))


def cause_of(difference: Difference) -> str:
    """The name of the first cause in causes.json that is for it.

    Raises:
        LookupError: There is none, so it has to be written.
    """
    for name, cause in causes("differences").items():
        methods, counters = cause.get("methods"), cause.get("countermeasures")
        if (
            (methods is None or difference.method in methods)
            and (counters is None or difference.countermeasure in counters)
            and cause["sign"] * difference.gap > 0
        ):
            return str(name)
    raise LookupError(f"expected a cause in {CAUSES.name} for {difference}")


def causes(of: str) -> dict[str, Any]:
    """What causes.json says of ``"differences"`` or ``"patterns"``."""
    found: dict[str, Any] = json.loads(CAUSES.read_text(encoding="utf-8"))[of]
    return found


def _span(low: float, high: float, digits: int = 1) -> str:
    shown = (f"{low:.{digits}f}", f"{high:.{digits}f}")
    return shown[0] if shown[0] == shown[1] else " to ".join(shown)


def differences_section(result: dict[str, Any]) -> list[str]:
    """A table of what is far apart, and its causes."""
    found = differences(result)
    if not found:
        return []
    texts = causes("differences")
    used = list(dict.fromkeys(cause_of(difference) for difference in found))
    lines = [
        f"More than {APART} points from the published figures, from the last to the best epoch:",
        "",
        "| trained on | countermeasure | measured | published | points apart | cause |",
        "|---|---|---|---|---|---|",
    ]
    for difference in found:
        lines.append(
            f"| {difference.method} | {difference.countermeasure} | {_span(*difference.ours)} | "
            f"{_span(*difference.published)} | {difference.gap:+.1f} | {cause_of(difference)} |"
        )
    lines += ["", "Likely causes:", ""]
    return [*lines, *(f"- **{name}**: {texts[name]['text']}" for name in used), ""]


def published_table() -> list[str]:
    """What others published: several figures of a cell stand beside one another."""
    content = json.loads(PUBLISHED.read_text(encoding="utf-8"))
    marks = {source: number for number, source in enumerate(content["sources"], 1)}
    figures: dict[tuple[str, str], list[str]] = {}
    for entry in content["figures"]:
        shown = f"{entry['accuracy']:.1f} [{marks[entry['source']]}]"
        figures.setdefault((entry["method"], entry["countermeasure"]), []).append(shown)
    found = dict.fromkeys(counter for _, counter in figures)
    counters = [c for c in COUNTERMEASURES if c in found]
    counters += [c for c in found if c not in counters]
    methods = dict.fromkeys([*METHODS, *(method for method, _ in figures)])
    lines = [f"| trained on | {' | '.join(counters)} |", "|---" * (len(counters) + 1) + "|"]
    for method in methods:
        row = ["; ".join(figures.get((method, counter), [])) for counter in counters]
        if any(row):
            lines.append(f"| {method} | {' | '.join(row)} |")
    sources = [
        f"{marks[source]}. {entry['title']}, {entry['where']}"
        for source, entry in content["sources"].items()
    ]
    return [content["about"], "", *lines, "", "Sources:", "", *sources]


def picture(result: dict[str, Any]) -> str | None:
    """A result's heat map as SVG; None before any row can be compared with clean images."""
    peaks = {key: figure.peak for key, figure in figures_of(result).items()}
    if ("clean", "none") not in peaks or all(method == "clean" for method, _ in peaks):
        return None
    return chart(peaks, columns(peaks), f"Accuracy on clean test images: {caption(result)}")


def page(results: Mapping[str, dict[str, Any]]) -> str:
    """The whole text, from committed files.

    Args:
        results: By the names of their files and pictures.
    """
    lines = [
        "# Leaderboard",
        "",
        "What networks reach on clean CIFAR-10 test images, in percent, after training on",
        "protected images with a countermeasure. Low figures mean a strong protection; in the row",
        "*clean* nothing is protected. The largest figure of each row is bold: the worst case. The",
        "columns *unprotected* and *clean-part-only* are about clean images that a trainer has",
        "besides, and do not count for it. `benchmarks/leaderboard.py` measures the figures,",
        "`benchmarks/leaderboard_page.py` writes this page.",
        "",
    ]
    for name, result in results.items():
        settings, machine = result["settings"], result["machine"]
        lines += [
            f"## Measured: {settings['victim']}, {settings['images']:,} images, "
            f"{settings['epochs']} epochs, on {machine['device']}",
            "",
            *picture_lines(name, result),
            "Best epoch (peak), and what others published for a ResNet-18 and the whole set:",
            "",
            *table(result, "peak"),
            "",
            "Last epoch:",
            "",
            *table(result, "last"),
            "",
            caption(result),
            "",
            *patterns_section(
                {key: figure.last for key, figure in figures_of(result).items()},
                causes("patterns"),
            ),
            *differences_section(result),
        ]
    lines += [
        "## Published",
        "",
        *published_table(),
        "",
        "Published and measured figures are not directly comparable: networks, numbers of images,",
        "budgets and schedules differ, and the same method's published figures differ too.",
    ]
    return "\n".join(lines) + "\n"


def results() -> dict[str, dict[str, Any]]:
    """The committed ones by their names."""
    paths = sorted(RESULTS.glob("leaderboard-*.json"))
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in paths}


def main() -> None:
    found = results()
    PAGE.write_text(page(found), encoding="utf-8")
    for name, result in found.items():
        if svg := picture(result):
            (PAGE.parent / f"{name}.svg").write_text(svg, encoding="utf-8")


if __name__ == "__main__":
    main()
