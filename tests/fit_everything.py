"""Fits every method where the tests cannot: killed from outside, or in several processes.

    python tests/fit_everything.py kill FOLDER
    python tests/fit_everything.py lose FOLDER
    torchrun --nproc-per-node 2 tests/fit_everything.py share FOLDER

Tensors and protected images are written to FOLDER as NAME.npz (``kill``, ``lose``) or NAME-RANK.npz
(``share``); ``lose`` kills one of two processes and writes what the other one says.
"""

import os
import signal
import socket
import sys
from pathlib import Path

import numpy as np
import torch
from test_contract import SUPPORTED, make

from unlearnable.datasets import Shapes
from unlearnable.engine.checkpoint import Checkpoint

SIZE = 33  # one process's part of the last batch is empty
THREADS = 1


def name_of(method, granularity):
    return f"{method.__name__}-{granularity}"


def fit(method, granularity, **options):
    return make(method, granularity).fit(
        Shapes(size=SIZE), precision="float32", progress=False, **options
    )


def keep(fitted, path):
    """What was learned, and what every kind comes to: the protected images."""
    images = fitted.protect(Shapes(size=SIZE)).to_tensors()[0].numpy()
    np.savez(path, images=images, **fitted.perturbation_.tensors)


def die_in_the_middle():
    save = Checkpoint.save

    def die(self, state):
        save(self, state)
        if self.number == 2:
            os.kill(os.getpid(), signal.SIGKILL)

    Checkpoint.save = die


def kill(folder):
    for case in SUPPORTED:
        checkpoint = folder / f"checkpoint-{name_of(*case)}"
        for attempt in range(2):
            child = os.fork()
            if not child:
                if attempt == 0:
                    die_in_the_middle()
                fitted = fit(*case, checkpoint=checkpoint, checkpoint_every=0)
                keep(fitted, folder / f"{name_of(*case)}.npz")
                (folder / f"{name_of(*case)}.attempt").write_text(str(attempt))
                os._exit(0)
            _, status = os.waitpid(child, 0)
            killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
            if not killed:
                if status:
                    sys.exit(f"{name_of(*case)} ended with status {status}")
                break


def lose(folder):
    case = next(case for case in SUPPORTED if case[0].__name__ == "SEM")
    for attempt in range(2):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        children = []
        for rank in range(2):
            children.append(os.fork())
            if not children[-1]:
                group = {"RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1"}
                group |= {"MASTER_PORT": port}
                os.environ |= {name: str(value) for name, value in group.items()}
                if attempt == 0 and rank == 1:
                    die_in_the_middle()
                try:
                    fitted = fit(*case, checkpoint=folder / "checkpoint", checkpoint_every=0)
                    keep(fitted, folder / f"{name_of(*case)}.npz")
                except RuntimeError as error:
                    (folder / "message").write_text(str(error))
                os._exit(0)
        for child in children:
            os.waitpid(child, 0)


def share(folder):
    rank = os.environ["RANK"]
    for case in SUPPORTED:
        fitted = fit(*case, checkpoint=folder / f"checkpoint-{name_of(*case)}", checkpoint_every=0)
        keep(fitted, folder / f"{name_of(*case)}-{rank}.npz")
        passes = fitted.perturbation_.config["history"]["passes"]
        (folder / f"{name_of(*case)}-{rank}.passes").write_text(str(passes))


if __name__ == "__main__":
    torch.set_num_threads(THREADS)
    {"kill": kill, "lose": lose, "share": share}[sys.argv[1]](Path(sys.argv[2]))
