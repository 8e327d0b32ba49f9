"""How much EM depends on its settings and its seed: one fit and one victim each.

    python benchmarks/em.py ROOT
    python benchmarks/em.py --table

ROOT is a folder with ``cifar-10-batches-py``. Cells use 10,000 training images, the tiny network as
surrogate and victim, 12 epochs, and all test images. Two starts may divide the cells with --only.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from cifar import AnyCIFAR10, first
from record import RESULTS, Record

import unlearnable as ue

IMAGES, EPOCHS = 10_000, 12
CLASS_WISE: dict[str, Any] = {"granularity": "class-wise"}

SETTINGS: dict[str, dict[str, Any]] = {
    "paper, seed 1": {"seed": 1},
    "3 steps of 3.2/255": {"steps": 3, "step_size": 3.2 / 255},
    "3 steps of 3.2/255, seed 1": {"steps": 3, "step_size": 3.2 / 255, "seed": 1},
    "batches of 128": {"batch_size": 128},
    "3 steps of 3.2/255, batches of 128": {"steps": 3, "step_size": 3.2 / 255, "batch_size": 128},
    "40 surrogate steps a round": {"steps": 3, "step_size": 3.2 / 255, "round_steps": 40},
    "class-wise, seed 1": {**CLASS_WISE, "seed": 1},
    "class-wise, 3 steps of 3.2/255, batches of 128": {
        **CLASS_WISE, "steps": 3, "step_size": 3.2 / 255, "batch_size": 128,
    },
    "paper, seed 2": {"seed": 2},
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("root", nargs="?", help="folder with cifar-10-batches-py")
    parser.add_argument("--only", nargs="+", choices=list(SETTINGS), default=list(SETTINGS))
    parser.add_argument("--out", type=Path, default=RESULTS / "em-cpu.json")
    parser.add_argument("--table", action="store_true", help="print the table of --out and end")
    args = parser.parse_args()
    record = Record(args.out, {"images": IMAGES, "epochs": EPOCHS}, "cpu")
    if args.table:
        print("| EM with the tiny network | last | peak | rounds |\n|---|---|---|---|")
        for name, cell in record.cells.items():
            last, peak = 100 * cell["last"], 100 * cell["peak"]
            print(f"| {name} | {last:.1f} | {peak:.1f} | {cell['rounds']} |")
        return
    train: Any = first(AnyCIFAR10(args.root), IMAGES)
    test = AnyCIFAR10(args.root, train=False)
    for name in args.only:
        if name in record.cells:
            continue
        method = ue.EM("tiny", **SETTINGS[name]).fit(train, device="cpu")
        evaluation = ue.evaluate(
            method.protect(train), test, "tiny", epochs=EPOCHS, seeds=1, device="cpu"
        )
        cell = {
            "method": repr(method),
            "passes": method.perturbation_.config["history"]["passes"],
            "rounds": len(method.history_),
            "last": evaluation.last[0],
            "peak": evaluation.peak[0],
        }
        record.put(name, cell)
        print(f"{name}: {cell}", flush=True)


if __name__ == "__main__":
    main()
