"""The README's table: methods on all of CIFAR-10, plain and with the commonest countermeasures.

    python benchmarks/full_table.py

It is made from results/full-resnet9.json, which leaderboard.py measured.
"""

from __future__ import annotations

import json
from typing import Any

from boards import Figure, figures_of
from leaderboard import METHODS
from published import published_range
from record import RESULTS, fill, where

PAGE = RESULTS.parent.parent / "README.md"
RESULT = RESULTS / "full-resnet9.json"
COLUMNS = {
    "none": "plain",
    "jpeg-10": "JPEG 10",
    "adversarial-training-4-steps-3": "adversarial training",
    "ueraser-lite": "UEraser",
    "orthogonal-projection": "projection",
    "channel-normalization": "colours normalised",
    "cutout": "Cutout",
}


def table(result: dict[str, Any]) -> str:
    """A row for each method, those that victims learn least from first, from the committed JSON."""
    figures = figures_of(result)
    shown = [counter for counter in COLUMNS if ("clean", counter) in figures]
    heads = ["trained on", *(COLUMNS[counter] for counter in shown), "plain, published"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    found = {name for name, counter in figures if counter == "none"}
    methods = [name for name in METHODS if name in found and name != "clean"]
    for name in ["clean", *sorted(methods, key=lambda name: figures[name, "none"].last)]:
        of_it = [_shown(figures.get((name, counter))) for counter in shown]
        title = "clean images" if name == "clean" else name
        lines.append(f"| {' | '.join([title, *of_it, published_range(name)])} |")
    settings = result["settings"]
    note = (
        f"Accuracy on the clean test images after the last epoch in percent, one fit and one "
        f"victim each; CIFAR-10, {settings['images']:,} images, methods with preset "
        f"{settings['preset']} and {settings['surrogate']}; victims {settings['victim']}, "
        f'{settings["epochs"]} epochs of `recipe="{settings["recipe"]}"`. Published figures are '
        f"for ResNet-18. {result['date']}, {where(result)}."
    )
    return "\n".join([*lines, "", note])


def _shown(figure: Figure | None) -> str:
    return "" if figure is None else figure.shown("last")


def main() -> None:
    fill(PAGE, "full_table.py", table(json.loads(RESULT.read_text(encoding="utf-8"))))


if __name__ == "__main__":
    main()
