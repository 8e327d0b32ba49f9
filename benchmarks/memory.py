"""How much memory a fit takes at 224 pixels, with and without keeping batches whole.

    python benchmarks/memory.py
    python benchmarks/memory.py --table

Each case is one step of SEM on 128 generated images in its own process: a search step over all
crops, a step of the adversary, and a training step. "whole" keeps all of a batch for its gradient,
"less" is what a fit does. The peak is the most memory that the process had resident (`ru_maxrss`).
A process may use no more than --most; one that needs more ends there, and is recorded as needing
more than that. Seconds are only comparable on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from record import DOCS, RESULTS, Record, fill, where

import unlearnable as ue
from unlearnable.datasets import Shapes
from unlearnable.engine import networks

PAGE = DOCS / "explanation" / "engine.md"
SIDE, BATCH = 224, 128


def measure(network: str, precision: str, crops: int, whole: bool, most: float) -> dict[str, Any]:
    """Peak memory and time of one step, in this process."""
    resource.setrlimit(resource.RLIMIT_DATA, (int(most * 1e9), int(most * 1e9)))
    if whole:
        networks.usual_limit = lambda *args: sys.maxsize  # type: ignore[assignment]
    method = ue.SEM(
        network,
        train_steps=1,
        final_steps=0,
        warm_start=True,
        steps=1,
        eot_samples=crops,
        robust_steps=1,
        batch_size=BATCH,
    )
    dataset = Shapes(size=BATCH, side=SIDE)
    start = time.perf_counter()
    try:
        method.fit(dataset, progress=False, precision=precision, profile=True)
    except (RuntimeError, MemoryError) as error:
        if "memory" not in f"{type(error).__name__}{error}".lower():
            raise
        return {"peak_gb": None, "more_than_gb": most}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "peak_gb": round(peak / 1e9, 2),
        "seconds": round(time.perf_counter() - start, 1),
        "parts": {part: round(spent, 1) for part, spent in method.seconds_.items()},
        "precision": method.perturbation_.config["precision"],
        "passes": method.perturbation_.config["history"]["passes"],
    }


def table(result: dict[str, Any]) -> str:
    """Peaks by network and precision."""
    settings, cells = result["settings"], result["cells"]
    lines = ["| network | precision | kept whole | as a fit does |", "|---|---|---|---|"]
    for pair in dict.fromkeys(name.rpartition(", ")[0] for name in cells):
        columns = []
        for kind in ("whole", "less"):
            cell = cells.get(f"{pair}, {kind}", {})
            peak, more = cell.get("peak_gb"), cell.get("more_than_gb")
            columns.append(f"{peak} GB" if peak else f"over {more:g} GB" if more else "")
        lines.append(f"| {' | '.join([*pair.split(', '), *columns])} |")
    note = (
        f"Peak of a process that fits SEM for one step, {settings['batch']} generated images "
        f"of {settings['side']} pixels, {settings['crops']} crops of each, all in one batch. "
        f"{result['date']}, {where(result)}."
    )
    return "\n".join([*lines, "", note])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--networks", nargs="+", default=["torchvision:resnet18", "resnet18"])
    parser.add_argument("--precisions", nargs="+", default=["bf16", "float32"])
    parser.add_argument("--crops", type=int, default=5, help="of each image in a search step")
    parser.add_argument("--most", type=float, default=12.0, help="GB that a process may take")
    parser.add_argument("--out", type=Path, default=RESULTS / "memory-cpu.json")
    parser.add_argument("--only", choices=["whole", "less"], help="one of each pair of cases")
    parser.add_argument("--table", action="store_true", help=f"write the table of {PAGE.name}")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.case:
        print(json.dumps(measure(*json.loads(args.case), args.most)))
        return
    if args.table:
        fill(PAGE, "memory.py", table(json.loads(args.out.read_text())))
        return
    settings = {"side": SIDE, "batch": BATCH, "crops": args.crops, "most_gb": args.most}
    record = Record(args.out, settings)
    for network in args.networks:
        for precision in args.precisions:
            for whole in (False, True):
                kind = "whole" if whole else "less"
                name = f"{network}, {precision}, {kind}"
                if name in record.cells or args.only not in (None, kind):
                    continue
                case = json.dumps([network, precision, args.crops, whole])
                command = [sys.executable, __file__, "--case", case, "--most", str(args.most)]
                done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
                record.put(name, json.loads(done.stdout.splitlines()[-1]))
                print(f"{name}: {record.cells[name]}", flush=True)


if __name__ == "__main__":
    main()
