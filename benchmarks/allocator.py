"""Page faults of a fit, with and without keeping memory between its steps.

    python benchmarks/allocator.py
    python benchmarks/allocator.py --table

Each case is a fit of SEM with resnet9 in its own process: ``"usual"`` with the C library's
settings, ``"kept"`` with the settings of fits. It counts the page faults and the system time of the
algorithm per training step, from the second step on.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from record import DOCS, RESULTS, Record, fill, where

import unlearnable as ue
from unlearnable.datasets import Shapes
from unlearnable.engine import networks
from unlearnable.engine.allocator import KeptMemory

PAGE = DOCS / "explanation" / "engine.md"
SIZES = {32: 128, 224: 16}  # side -> images of a step
STEPS = 4


def measure(side: int, kept: bool) -> dict[str, Any]:
    """Page faults, system and user seconds of a step, in this process."""
    if not kept:
        networks.KeptMemory = lambda device: KeptMemory(torch.device("meta"))
    size = SIZES[side]
    method = ue.SEM.preset(
        "fast", train_steps=STEPS + 2, final_steps=0, search_images=None, batch_size=size
    )
    used = []
    step = method._search

    def noted(*args: Any) -> Any:
        used.append(resource.getrusage(resource.RUSAGE_SELF))
        return step(*args)

    method._search = noted  # type: ignore[method-assign]
    method.fit(Shapes(size=2 * size, side=side), progress=False)
    first, last = used[1], used[STEPS + 1]
    return {
        "faults": round((last.ru_minflt - first.ru_minflt) / STEPS),
        "system_seconds": round((last.ru_stime - first.ru_stime) / STEPS, 3),
        "user_seconds": round((last.ru_utime - first.ru_utime) / STEPS, 3),
        "precision": method.perturbation_.config["precision"],
    }


def table(result: dict[str, Any]) -> str:
    """A row for each size of images, from the committed JSON."""
    lines = [
        "| images of a step | page faults, usual | kept | system seconds, usual | kept |",
        "|---|---|---|---|---|",
    ]
    for side, size in SIZES.items():
        usual, kept = (result["cells"][f"{side}, {kind}"] for kind in ("usual", "kept"))
        faults = f"{usual['faults']:,} | {kept['faults']:,}"
        seconds = f"{usual['system_seconds']} | {kept['system_seconds']}"
        lines.append(f"| {size} of {side} pixels | {faults} | {seconds} |")
    note = f"SEM, preset fast, by training step. {result['date']}, {where(result)}."
    return "\n".join([*lines, "", note])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=RESULTS / "allocator-cpu.json")
    parser.add_argument("--table", action="store_true", help=f"write the table of {PAGE.name}")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.case:
        print(json.dumps(measure(*json.loads(args.case))))
        return
    if args.table:
        made = table(json.loads(args.out.read_text()))
        print(made)
        fill(PAGE, "allocator.py", made)
        return
    record = Record(args.out, {"steps": STEPS})
    for side in SIZES:
        for kind in ("usual", "kept"):
            name = f"{side}, {kind}"
            if name in record.cells:
                continue
            command = [sys.executable, __file__, "--case", json.dumps([side, kind == "kept"])]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            record.put(name, json.loads(done.stdout.splitlines()[-1]))
            print(f"{name}: {record.cells[name]}", flush=True)


if __name__ == "__main__":
    main()
