"""What a fit costs as the dataset grows: time per image, and memory where images are streamed.

    python benchmarks/scaling.py

Time: SEM with the tiny surrogate, one epoch, on 1,000 to 20,000 images of 32x32; the sizes take
turns, and the medians are kept. Memory: the peak anonymous memory (the program's own, not the
system's cache of files) of fits on images of 224x224 that stream from disk, each in its own
process.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from record import RESULTS, Record

import unlearnable as ue

TIMES = (1000, 2000, 5000, 10000, 20000)
MEMORY = {"RandomNoise": (2000, 20000), "EM": (100, 500)}


class Noise:
    """Images of noise made when they are asked for, so that they take no memory."""

    def __init__(self, size: int, side: int) -> None:
        self.size, self.side = size, side

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> tuple[np.ndarray[Any, Any], int]:
        rng = np.random.default_rng(index)
        return rng.integers(0, 256, (self.side, self.side, 3), dtype=np.uint8), index % 10


def seconds_of(size: int) -> float:
    """Of one epoch of SEM and its last sweep, decoding included."""
    method = ue.SEM(
        "tiny",
        train_steps=size // 128,
        steps=1,
        robust_steps=1,
        eot_samples=1,
        step_size=4 / 255,
        robust_step_size=4 / 255,
    )
    dataset = Noise(size, 32)
    start = time.perf_counter()
    method.fit(dataset, device="cpu", progress=False)
    return time.perf_counter() - start


def anonymous() -> int:
    """Anonymous memory of this process and its children, in bytes."""
    total, parents = 0, {os.getpid()}
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        except OSError:
            continue  # it ended meanwhile
        if "RssAnon" in lines and parents & {int(lines["PPid"]), int(lines["Pid"])}:
            total += int(lines["RssAnon"].split()[0]) * 1024
    return total


def fit_streamed(name: str, size: int, folder: str) -> None:
    """A fit whose images and rows stay on disk; prints its highest anonymous memory."""
    tempfile.tempdir = folder
    method: ue.Method = (
        ue.RandomNoise(batch_size=64)
        if name == "RandomNoise"
        else ue.EM("tiny", batch_size=16, steps=2, max_rounds=1, stop_error=1.0)
    )
    highest, done = 0, threading.Event()

    def watch() -> None:
        nonlocal highest
        while not done.wait(0.2):
            highest = max(highest, anonymous())

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.perf_counter()
    method.fit(Noise(size, 224), device="cpu", resident=False, progress=False)
    seconds = time.perf_counter() - start
    done.set()
    watcher.join()
    print(highest, seconds)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--temporary", default=tempfile.gettempdir(), help="10 GB are needed")
    parser.add_argument("--out", type=Path, default=RESULTS / "scaling-cpu.json")
    parser.add_argument("--streamed", nargs=2, metavar=("METHOD", "IMAGES"), help="one memory cell")
    args = parser.parse_args()
    if args.streamed:
        fit_streamed(args.streamed[0], int(args.streamed[1]), args.temporary)
        return
    record = Record(args.out, {"repeats": args.repeats}, "cpu")
    for name, sizes in MEMORY.items():
        for size in sizes:
            cell = f"memory, {name}, {size} images"
            if cell in record.cells:
                continue
            with tempfile.TemporaryDirectory(dir=args.temporary) as folder:
                command = [sys.executable, __file__, "--streamed", name, str(size)]
                done = subprocess.run(
                    [*command, "--temporary", folder], stdout=subprocess.PIPE, text=True, check=True
                )
            highest, seconds = done.stdout.split()
            megabytes = round(int(highest) / 1e6, 1)
            record.put(cell, {"anonymous_mb": megabytes, "seconds": round(float(seconds), 1)})
            print(f"{cell}: {megabytes} MB", flush=True)
    if "time" not in record.cells:
        seconds_of(TIMES[0])  # warms up
        taken: dict[int, list[float]] = {size: [] for size in TIMES}
        for _ in range(args.repeats):
            for size in TIMES:
                taken[size].append(seconds_of(size))
        each = {size: 1000 * statistics.median(taken[size]) / size for size in TIMES}
        middle = statistics.median(each.values())
        record.put(
            "time",
            {
                "milliseconds_per_image": {str(size): round(ms, 3) for size, ms in each.items()},
                "furthest_from_median": round(max(abs(ms / middle - 1) for ms in each.values()), 3),
                "threads": torch.get_num_threads(),
            },
        )
        print(record.cells["time"])


if __name__ == "__main__":
    main()
