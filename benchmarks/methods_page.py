"""The tables of docs/explanation/methods.md, from the methods' classes and committed results.

    python benchmarks/methods_page.py

Ours are in results/methods-cpu.json, made by cifar10.py; what others published in published.json.
"""

from __future__ import annotations

import inspect
import json
import re
from typing import Any

from cifar10 import METHODS, mean_and_spread
from cifar10 import table as whole_table
from published import best_countermeasure, published_range
from record import DOCS, RESULTS, fill

import unlearnable as ue
from unlearnable.perturbation.summary import format_epsilon

PAGE = DOCS / "explanation" / "methods.md"
OURS = RESULTS / "methods-cpu.json"
HEAD = (
    "method", "paper", "kind", "budget", "surrogate", "image passes", "ours", "published",
    "best published countermeasure",
)  # fmt: skip


def budget_of(method: ue.Method) -> str:
    epsilon, norm = method._budget((3, 32, 32))
    if epsilon is not None and norm is not None:
        params = method.get_params()
        above = params.get("colour_epsilon", params.get("field_epsilon"))
        on_top = "" if above is None else f" and {format_epsilon(above)} on top"
        return f"{norm} {format_epsilon(epsilon, norm)}{on_top}"
    pixels = method.get_params().get("pixels")
    return "none" if pixels is None else f"{pixels} pixel"


def paper_of(cls: type[ue.Method]) -> str:
    """Authors, venue and arXiv number, as the class states them."""
    text = (inspect.getdoc(cls) or "").split("\n\n")[0].replace("\n", " ")
    found = re.search(r"\(([^()]*?),? arXiv:([\d.]+)\)", text)
    if found is None:
        return ""
    authors, number = found.groups()
    return f"{authors}, [{number}](https://arxiv.org/abs/{number})"


def tiny_victims(cell: dict[str, Any]) -> list[dict[str, Any]]:
    """The seeds of the network that all figures here are of."""
    return [victim for name, victim in cell["victims"].items() if name.startswith("tiny, ")]


def line_of(cls: type[ue.Method], cells: dict[str, Any]) -> str:
    """A method's row, with every row of the benchmark that is of its class."""
    rows = [name for name, row in METHODS.items() if row and row.method is cls and row.on is None]
    method = cls()
    passes = method.passes(50_000)
    kind = method.kind if len(cls.granularities) > 1 else f"{method.kind}, {cls.granularities[0]}"
    surrogate = method.get_params().get("surrogate", "a linear one") if passes else "none"

    def figures(of: dict[str, str]) -> str:
        texts = {name.replace(cls.__name__, "", 1).strip(): text for name, text in of.items()}
        return "; ".join(
            f"{label}: {text}" if label else text for label, text in texts.items() if text
        )

    ours = {
        name: mean_and_spread(tiny_victims(cells[name]), "last")
        for name in rows
        if cells.get(name, {}).get("victims")
    }
    columns = (
        f"`{cls.__name__}`",
        paper_of(cls),
        kind,
        budget_of(method),
        str(surrogate),
        "none" if not passes else f"{passes / 1e6:,.1f} million",
        figures(ours),
        figures({name: published_range(name) for name in rows}),
        best_countermeasure(rows),
    )
    return f"| {' | '.join(columns)} |"


def table() -> str:
    result = json.loads(OURS.read_text(encoding="utf-8"))
    settings, cells = result["settings"], result["cells"]
    clean = mean_and_spread(tiny_victims(cells["clean"]), "last")
    lines = [f"| {' | '.join(HEAD)} |", "|---" * len(HEAD) + "|"]
    lines += [line_of(cls, cells) for cls in ue.METHODS]
    note = (
        f"Accuracies are in percent, on clean CIFAR-10 test images. Budget, surrogate and image "
        f"passes (for 50,000 images) are those of the preset `paper`. Ours: {settings['images']:,} "
        f"training images, preset {settings['preset']}, surrogate and victim the tiny network, "
        f"{settings['epochs']} epochs (clean images: {clean}), {result['date']}, "
        f"{result['machine']['device']}, torch {result['machine']['torch']}. Published, without "
        f"and with the best of the countermeasures that were tried: ResNet-18, the whole set; "
        f"sources in benchmarks/published.json."
    )
    return "\n".join([*lines, "", note])


if __name__ == "__main__":
    fill(PAGE, "methods_page.py", table())
    fill(PAGE, "cifar10.py", whole_table(json.loads(OURS.read_text(encoding="utf-8"))))
