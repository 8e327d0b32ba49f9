"""How long the commands take that do not need torch: help, `list`, and `info` of a folder.

    python benchmarks/start.py

Each command runs five times in its own process. A cell has the shortest wall time, the CPU time of
that run, and the machine's load: the number of processes that wanted a core in the last minute. The
cell "python" is the bare interpreter.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from record import RESULTS, Record

import unlearnable as ue

COMMANDS = (
    "demo", "fit", "protect", "evaluate", "audit", "verify", "info", "list", "pull", "push",
    "import",
)  # fmt: skip


def cpu_seconds() -> float:
    """User and system time of all processes that this one has waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure(words: list[str], runs: int) -> dict[str, Any]:
    """The fastest of several runs of a Python command line."""
    taken: list[tuple[float, float]] = []
    for _ in range(runs):
        start, used = time.perf_counter(), cpu_seconds()
        subprocess.run([sys.executable, *words], stdout=subprocess.DEVNULL, check=True)
        taken.append((time.perf_counter() - start, cpu_seconds() - used))
    seconds, cpu = min(taken)
    return {
        "seconds": round(seconds, 3),
        "cpu_seconds": round(cpu, 3),
        "load": round(os.getloadavg()[0], 1),
        "all": [round(wall, 3) for wall, _ in taken],
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS / "start-cpu.json")
    args = parser.parse_args()
    record = Record(args.out, {"runs": args.runs, "images": 1000}, "cpu")
    with tempfile.TemporaryDirectory() as folder:
        shapes = ue.datasets.Shapes(size=1000)
        fitted = ue.RandomNoise().fit(shapes, device="cpu", progress=False)
        fitted.save_pretrained(folder)
        module = ["-m", "unlearnable"]
        cells = {"python": ["-c", "pass"], "--help": [*module, "--help"]}
        cells |= {f"{name} --help": [*module, name, "--help"] for name in COMMANDS}
        cells |= {"list": [*module, "list"], "info FOLDER": [*module, "info", folder]}
        for name, words in cells.items():
            if name not in record.cells:
                record.put(name, measure(words, args.runs))
            cell = record.cells[name]
            print(f"{name}: {cell['seconds']:.2f} s, CPU {cell['cpu_seconds']:.2f} s", flush=True)


if __name__ == "__main__":
    main()
