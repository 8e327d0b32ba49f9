"""The accuracy that a recipe reaches on all of CIFAR-10, and what it takes.

    python benchmarks/recipes.py ROOT
    python benchmarks/recipes.py --table

ROOT is a folder with ``cifar-10-batches-py``. Only clean images are used, with one cell per seed:
last and peak accuracy on all test images, image passes of the training, and seconds including
reading and testing. Cells that already exist are not measured again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

from cifar import AnyCIFAR10
from record import DOCS, RESULTS, Record, fill, where

import unlearnable as ue
from unlearnable.engine.recipes import RECIPES

PAGE = DOCS / "explanation" / "countermeasures.md"


def table(result: dict[str, Any]) -> str:
    """Each seed and their mean, from the committed JSON."""
    cells, settings = result["cells"], result["settings"]
    lines = [
        "| seed | precision | last | peak | image passes | seconds |",
        "|---|---|---|---|---|---|",
    ]
    for name, cell in cells.items():
        last, peak = 100 * cell["last"], 100 * cell["peak"]
        figures = f"{last:.1f} | {peak:.1f} | {cell['passes']:,} | {cell['seconds']:,.0f}"
        figures = f"{cell['precision']} | {figures}"
        lines.append(f"| {name.removeprefix('seed ')} | {figures} |")
    mean = 100 * statistics.fmean(cell["last"] for cell in cells.values())
    settings = ", ".join(f"{name} {value}" for name, value in settings.items())
    caption = f"Clean CIFAR-10, in percent: mean {mean:.1f}; {settings}."
    return "\n".join([*lines, "", f"{caption} {result['date']}, {where(result)}."])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("root", nargs="?", help="folder with cifar-10-batches-py")
    parser.add_argument("--network", default="resnet9")
    parser.add_argument("--recipe", default="fast", choices=list(RECIPES))
    parser.add_argument("--epochs", type=int, help="the recipe's by default")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, default=RESULTS / "recipes-cpu.json")
    parser.add_argument("--table", action="store_true", help="print the table of --out and end")
    args = parser.parse_args()
    epochs = args.epochs or RECIPES[args.recipe].epochs
    settings = {"network": args.network, "recipe": args.recipe, "epochs": epochs}
    record = Record(args.out, settings, args.device)
    if args.table:
        made = table(json.loads(args.out.read_text()))
        print(made)
        if args.out == RESULTS / "recipes-cpu.json":
            fill(PAGE, "recipes.py", made)
        return
    train: Any = AnyCIFAR10(args.root)
    test: Any = AnyCIFAR10(args.root, train=False)
    for seed in args.seeds:
        if f"seed {seed}" in record.cells:
            continue
        start = time.perf_counter()
        found = ue.evaluate(
            train,
            test,
            args.network,
            recipe=args.recipe,
            epochs=epochs,
            seeds=[seed],
            device=args.device,
        )
        cell = {
            "last": found.last[0],
            "peak": found.peak[0],
            "curve": found.curves[0],
            "precision": found.precisions[0],
            "passes": epochs * len(train),
            "seconds": round(time.perf_counter() - start, 1),
        }
        record.put(f"seed {seed}", cell)
        print(f"seed {seed}: {cell}", flush=True)


if __name__ == "__main__":
    main()
