"""Do fits that are killed again and again end with the same bytes as one that never was?

    python benchmarks/kill.py

EM, REM and SEM, in one process and in two, are each killed by SIGKILL at 20 random moments, resumed
after each, and compared with an undisturbed fit. A kill may hit any moment: a step, a row write or
the writing of a checkpoint.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import shutil
import signal
import socket
import tempfile
import time
import warnings
from pathlib import Path

import torch
from record import RESULTS, Record

import unlearnable as ue
from unlearnable.datasets import Shapes

IMAGES = 203  # divisible by nothing
METHODS: dict[str, ue.Method] = {
    "EM": ue.EM.preset("demo", max_rounds=3, stop_error=1e-6, batch_size=32, steps=3),
    "REM": ue.REM.preset("demo", train_steps=20, batch_size=32),
    "SEM": ue.SEM.preset("demo", train_steps=30, batch_size=32),
}


def fit(method: ue.Method, folder: Path, resident: bool) -> None:
    """One process's part of a fit; writes a digest of the rows."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    method.fit(
        Shapes(size=IMAGES),
        device="cpu",
        progress=False,
        checkpoint=folder / "checkpoint",
        checkpoint_every=0,
        resident=resident,
    )
    digest = hashlib.blake2b(method.perturbation_.rows.tobytes()).hexdigest()
    (folder / f"digest-{os.environ.get('RANK', 0)}").write_text(digest)


def start(method: ue.Method, folder: Path, processes: int, resident: bool) -> list[int]:
    """Forks the processes of a fit; returns their numbers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = []
    for rank in range(processes):
        child = os.fork()
        if not child:
            if processes > 1:
                os.environ |= {
                    "RANK": str(rank),
                    "LOCAL_RANK": str(rank),
                    "WORLD_SIZE": str(processes),
                    "MASTER_ADDR": "127.0.0.1",
                    "MASTER_PORT": str(port),
                }
            try:
                fit(method, folder, resident)
                os._exit(0)
            except BaseException as error:
                print(f"process {rank}: {error}", flush=True)
                os._exit(1)
        children.append(child)
    return children


def killed(children: list[int], seconds: float) -> bool:
    """Kills all processes after some seconds; False where they ended before."""
    end = time.monotonic() + seconds
    alive = set(children)
    while alive and time.monotonic() < end:
        for child in list(alive):
            if os.waitpid(child, os.WNOHANG)[0]:
                alive.discard(child)
        time.sleep(0.002)
    for child in alive:
        os.kill(child, signal.SIGKILL)
    for child in alive:
        os.waitpid(child, 0)
    return bool(alive)


def whole(method: ue.Method, folder: Path, processes: int, resident: bool) -> tuple[str, float]:
    """Digest and seconds of a fit that nobody disturbs."""
    begun = time.monotonic()
    killed(start(method, folder, processes, resident), 600)
    digests = {path.read_text() for path in folder.glob("digest-*")}
    if len(digests) != 1:
        raise SystemExit(f"expected one digest of all processes, got {len(digests)}")
    return digests.pop(), time.monotonic() - begun


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS / "kill-cpu.json")
    args = parser.parse_args()
    rng = random.Random(args.seed)
    record = Record(args.out, {"kills": args.kills, "seed": args.seed, "images": IMAGES}, "cpu")
    for processes in (1, 2):
        for name, method in METHODS.items():
            cell = f"{name}, {processes} processes"
            if cell in record.cells:
                continue
            with tempfile.TemporaryDirectory() as temporary:
                folder = Path(temporary)
                expected, seconds = whole(method, folder, processes, True)
                kills = {"early": 0, "in the work": 0}
                while sum(kills.values()) < args.kills:
                    # Rows in memory and rows on disk take turns; a fit that ended starts anew.
                    resident = sum(kills.values()) % 2 == 0
                    for path in folder.glob("digest-*"):
                        path.unlink()
                    moment = rng.uniform(0, seconds)
                    if killed(start(method, folder, processes, resident), moment):
                        done = (folder / "checkpoint" / "state.safetensors").exists()
                        kills["in the work" if done else "early"] += 1
                    else:
                        shutil.rmtree(folder / "checkpoint", ignore_errors=True)
                found, _ = whole(method, folder, processes, False)
            cells = {"same_bytes": found == expected, "kills": kills}
            record.put(cell, cells | {"undisturbed_seconds": round(seconds, 2)})
            print(f"{cell}: {cells}", flush=True)


if __name__ == "__main__":
    main()
