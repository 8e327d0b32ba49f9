"""The same fit in 1, 2 and 4 processes: how equal are the rows, and do they protect as well?

    python benchmarks/processes.py
    python benchmarks/processes.py --table

Batches and random draws do not depend on the number of processes. What differs is that BatchNorm
sees the images of one process only, and the order of floating-point sums.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from record import DOCS, RESULTS, Record, fill

import unlearnable as ue
from unlearnable.datasets import Shapes

PAGE = DOCS / "explanation" / "engine.md"
IMAGES, EPOCHS = 1501, 12  # divisible by nothing
METHODS: dict[str, ue.Method] = {
    "EM": ue.EM.preset("demo"),
    "REM": ue.REM.preset("demo"),
    "SEM": ue.SEM.preset("demo"),
}


def table(result: dict[str, Any]) -> str:
    """Rows and victims by number of processes, from the committed JSON."""
    lines = [
        "| fit | equal values of rows | images without a row | test accuracy |",
        "|---|---|---|---|",
    ]
    for name, cell in result["cells"].items():
        shown = ", ".join(f"{100 * accuracy:.1f}" for accuracy in cell["last"])
        equal = f"{100 * cell['equal_to_one_process']:.0f} %"
        shown_name = name.replace(" 1 processes", " 1 process")
        lines.append(f"| {shown_name} | {equal} | {cell['rows_without_change']} | {shown} |")
    settings, machine = result["settings"], result["machine"]
    note = (
        f"{settings['images']:,} Shapes, preset demo; test accuracy in percent of "
        f"{settings['seeds']} tiny victims, {settings['epochs']} epochs, last. {result['date']}, "
        f"{machine['device']}, 1 thread a process, torch {machine['torch']}."
    )
    return "\n".join([*lines, "", note])


def fit(name: str, folder: str) -> None:
    """What each process of torchrun does."""
    warnings.simplefilter("ignore")
    method = METHODS[name].fit(Shapes(size=IMAGES), device="cpu", progress=False)
    if os.environ["RANK"] == "0":
        method.perturbation_.save_pretrained(folder)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS / "processes-cpu.json")
    parser.add_argument("--fit", nargs=2, metavar=("METHOD", "FOLDER"), help="one process's part")
    parser.add_argument("--table", action="store_true", help=f"write the table of {PAGE.name}")
    args = parser.parse_args()
    if args.table:
        fill(PAGE, "processes.py", table(json.loads(args.out.read_text())))
        return
    if args.fit:
        fit(*args.fit)
        return
    record = Record(args.out, {"images": IMAGES, "epochs": EPOCHS, "seeds": args.seeds}, "cpu")
    train, test = Shapes(size=IMAGES), Shapes(train=False)
    for name in METHODS:
        single: Any = None
        for processes in args.processes:
            cell = f"{name}, {processes} processes"
            with tempfile.TemporaryDirectory() as folder:
                if cell in record.cells and processes > 1:
                    continue
                torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
                script = [__file__, "--fit", name, folder]
                environment = os.environ | {"OMP_NUM_THREADS": "1"}
                subprocess.run(
                    [*torchrun, "--nproc-per-node", str(processes), *script],
                    check=True,
                    env=environment,
                )
                perturbation = ue.Perturbation.from_pretrained(folder)
                rows = np.array(perturbation.rows)
                single = rows if processes == 1 else single
                if cell in record.cells:
                    continue
                evaluation = ue.evaluate(
                    ue.ProtectedDataset(train, perturbation),
                    test,
                    "tiny",
                    epochs=EPOCHS,
                    seeds=args.seeds,
                    device="cpu",
                )
            shown = {
                "last": [round(value, 4) for value in evaluation.last],
                "mean": round(evaluation.mean(), 4),
                "equal_to_one_process": round(float((rows == single).mean()), 4),
                "rows_without_change": int((~rows.any(axis=(1, 2, 3))).sum()),
            }
            record.put(cell, shown)
            print(f"{cell}: {shown}", flush=True)


if __name__ == "__main__":
    main()
