"""Where measured figures are far from published ones, and what causes.json says about it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from boards import SMALL, columns, dataset_of, figures_of, known_figures, known_shown, rows, span

CAUSES = Path(__file__).parent / "causes.json"
APART = 5  # points from which a difference is to be explained
APART_SMALL = 10  # likewise in small trials
OPEN = "not known"


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


def gap_of(ours: tuple[float, float], known: list[float]) -> float:
    """Points between our figures, from last to peak, and published ones; 0 where they overlap."""
    low, high = sorted(ours)
    return max(0.0, low - max(known)) or min(0.0, high - min(known))


def apart_of(result: dict[str, Any]) -> int:
    """From how many points on a difference of this result is to be explained."""
    return APART_SMALL if result.get("settings", {}).get("images", 0) <= SMALL else APART


def differences(result: dict[str, Any]) -> list[Difference]:
    """Where ours and the published figures are far apart."""
    figures = figures_of(result)
    far = []
    for counter in columns(figures):
        for method in rows(figures):
            known = known_figures(method, counter, dataset_of(result))
            if not known or (method, counter) not in figures:
                continue
            figure = figures[method, counter]
            ours = (min(figure.last, figure.peak), max(figure.last, figure.peak))
            gap = gap_of(ours, known)
            if abs(gap) > apart_of(result):
                far.append(Difference(method, counter, ours, (min(known), max(known)), gap))
    return far


def cause_of(difference: Difference, images: int = 0) -> str:
    """The name of the first cause in causes.json that is for it, or that none is known.

    A cause may be for results of up to ``most_images`` only.
    """
    for name, cause in causes("differences", images).items():
        methods, counters = cause.get("methods"), cause.get("countermeasures")
        if (
            (methods is None or difference.method in methods)
            and (counters is None or difference.countermeasure in counters)
            and cause["sign"] * difference.gap > 0
        ):
            return str(name)
    return OPEN


def causes(of: str, images: int = 0) -> dict[str, Any]:
    """What causes.json says of ``"differences"`` or ``"patterns"`` in results of that size."""
    found: dict[str, Any] = json.loads(CAUSES.read_text(encoding="utf-8"))[of]
    return {name: cause for name, cause in found.items() if images <= cause["most_images"]}


def differences_section(result: dict[str, Any]) -> list[str]:
    """A table of what is far apart, and its causes, behind a line to click on."""
    found, images = differences(result), result["settings"]["images"]
    dataset = dataset_of(result)
    if not found:
        return []
    texts = causes("differences", images)
    used = list(dict.fromkeys(cause_of(difference, images) for difference in found))
    lines = [
        f":::{{dropdown}} {len(found)} {'figures differ' if len(found) > 1 else 'figure differs'} "
        f"from the published ones by more than {apart_of(result)} points: the causes, as far as "
        f"they are known",
        "",
        *(f"- **{name}**: {texts[name]['text']}" for name in used if name in texts),
        *([f"- **{OPEN}**: the cause was not tested yet."] if OPEN in used else []),
        "",
        "| trained on, countermeasure | measured | published | points apart | cause |",
        "|---|---|---|---|---|",
    ]
    for d in found:
        lines.append(
            f"| {d.method}, `{d.countermeasure}` | {span(*d.ours)} | "
            f"{known_shown(d.method, d.countermeasure, dataset)} | {d.gap:+.1f} | "
            f"{cause_of(d, images)} |"
        )
    return [*lines, ":::", ""]
