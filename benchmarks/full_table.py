"""The README's tables: methods on all of CIFAR-10 and CIFAR-100, plain and with countermeasures.

    python benchmarks/full_table.py

They are made from results that leaderboard.py measured.
"""

from __future__ import annotations

import json
from typing import Any

from boards import Figure, dataset_of, figures_of, known_shown, printed
from cifar10 import title_of
from leaderboard import METHODS
from patterns import ADVERSARIAL
from record import RESULTS, fill, where

from unlearnable.evaluation.countermeasures import countermeasure

PAGE = RESULTS.parent.parent / "README.md"
TABLES = {
    "full_table.py": "full-resnet9.json",
    "full_table.py, CIFAR-100": "full-cifar100-resnet9.json",
}
COLUMNS = {
    "none": "plain",
    "jpeg-10": "JPEG 10",
    "adversarial-training-4-steps-3": "adversarial training",
    "ueraser-lite": "UEraser-lite",
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
        title = "clean images" if name == "clean" else title_of(name)
        published = known_shown(name, "none", dataset_of(result))
        lines.append(f"| {' | '.join([title, *of_it, published])} |")
    settings = result["settings"]
    in_table = [f for (_, counter), f in figures.items() if counter in shown]
    seeds = " or ".join(map(str, sorted({figure.seeds for figure in in_table} - {1})))
    note = (
        f"Accuracy on the clean test images after the last epoch in percent, mean and spread of "
        f"{seeds} victims, one victim where there is no spread; {printed(dataset_of(result))}, "
        f"{settings['images']:,} images, methods with preset {settings['preset']} and "
        f"{settings['surrogate']}, {_fits(result)} each; victims {settings['victim']}, "
        f'{settings["epochs"]} epochs of `recipe="{settings["recipe"]}"`; adversarial training: '
        f"{countermeasure(ADVERSARIAL).description.partition(', ')[2]}. Published figures are for "
        f"ResNet-18. {result['date']}, {where(result)}."
    )
    return "\n".join([*lines, "", note])


def _shown(figure: Figure | None) -> str:
    return "" if figure is None else figure.shown("last")


def _fits(result: dict[str, Any]) -> str:
    """How many fits the victims of a method are of; older cells, which do not say, count as one."""
    of: dict[str, set[str | None]] = {}
    for name, cell in result["cells"].items():
        of.setdefault(name.rsplit(", ", 2)[0], set()).add(cell.get("fit"))
    most = max(map(len, of.values()))
    words = {1: "one fit", 2: "one or two fits", 3: "one to three fits"}
    return words.get(most, f"one to {most} fits")


def main() -> None:
    for command, name in TABLES.items():
        fill(PAGE, command, table(json.loads((RESULTS / name).read_text(encoding="utf-8"))))


if __name__ == "__main__":
    main()
