"""Fits every method where the tests cannot: killed from outside, or in several processes.

    python tests/fit_everything.py kill FOLDER
    python tests/fit_everything.py lose FOLDER
    python tests/fit_everything.py share FOLDER PROCESSES [METHOD ...]
    python tests/fit_everything.py resume FOLDER BEFORE AFTER
    python tests/fit_everything.py apart FOLDER
    python tests/fit_everything.py learn FOLDER PROCESSES
    python tests/fit_everything.py gather FOLDER
    python tests/fit_everything.py couple FOLDER PROCESSES
    torchrun --nproc-per-node 2 tests/fit_everything.py join FOLDER [METHOD ...]

Tensors and protected images are written to FOLDER as NAME.npz (``kill``, ``lose``, ``resume``) or
NAME-RANK.npz (``share``, ``join``); ``lose`` and ``resume`` kill one of several processes and write
what the others say. ``resume`` continues with another number of them.
"""

import os
import signal
import socket
import sys
import traceback
from pathlib import Path

import numpy as np
import torch
from test_contract import SUPPORTED, make
from torch import nn

from unlearnable import MIUE
from unlearnable.datasets import Shapes
from unlearnable.engine.checkpoint import Checkpoint
from unlearnable.engine.distributed import Group
from unlearnable.engine.run import Run
from unlearnable.engine.train import sgd, to_float, train

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


def together(processes, work):
    """Forks the processes of a group, which do ``work(rank)``; returns how they ended, by rank."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = []
    for rank in range(processes):
        children.append(os.fork())
        if not children[-1]:
            group = {"RANK": rank, "WORLD_SIZE": processes, "MASTER_ADDR": "127.0.0.1"}
            group |= {"MASTER_PORT": port}
            os.environ |= {name: str(value) for name, value in group.items()}
            status = 1
            try:
                work(rank)
                status = 0
            except Exception:
                traceback.print_exc()
            os._exit(status)
    return [os.waitpid(child, 0)[1] for child in children]


def all_well(statuses):
    if any(statuses):
        sys.exit(f"the processes ended with statuses {statuses}")


def lose(folder, case=None, before=2, after=2, **options):
    """The last of ``before`` processes dies at the second checkpoint; ``after`` go on."""
    case = case or next(case for case in SUPPORTED if case[0].__name__ == "SEM")
    options |= {"checkpoint": folder / "checkpoint", "checkpoint_every": 0}

    def begin(rank):
        if rank == before - 1:
            die_in_the_middle()
        try:
            fit(*case, **options)
        except RuntimeError as error:
            (folder / f"message-{rank}").write_text(str(error))

    def go_on(rank):
        fitted = fit(*case, **options)
        if rank == 0:
            keep(fitted, folder / f"{name_of(*case)}.npz")

    *others, lost = together(before, begin)
    all_well(others)
    assert os.WTERMSIG(lost) == signal.SIGKILL
    assert (folder / "checkpoint" / "state.safetensors").exists()
    all_well(together(after, go_on))


def resume(folder, before, after):
    for case in SUPPORTED:
        if name_of(*case) in RESUMED:
            own = folder / name_of(*case)
            own.mkdir()
            lose(own, case, int(before), int(after), resident=False)


# One that trains and searches, one whose classes share what they learn, and two without networks.
RESUMED = ("SEM-sample-wise", "EM-class-wise", "RandomNoise-sample-wise", "OPS-class-wise")


def join(folder, *names):
    """A part of every fit, or of those of some methods."""
    rank = os.environ["RANK"]
    for case in SUPPORTED:
        if names and case[0].__name__ not in names:
            continue
        fitted = fit(*case, checkpoint=folder / f"checkpoint-{name_of(*case)}", checkpoint_every=0)
        keep(fitted, folder / f"{name_of(*case)}-{rank}.npz")
        passes = fitted.perturbation_.config["history"]["passes"]
        (folder / f"{name_of(*case)}-{rank}.passes").write_text(str(passes))


def share(folder, processes, *names):
    all_well(together(int(processes), lambda rank: join(folder, *names)))


def apart(folder):
    """Two processes whose folders have the same name and are not the same."""

    def work(rank):
        (folder / str(rank)).mkdir()
        os.chdir(folder / str(rank))
        try:
            fit(*SUPPORTED[0], checkpoint="checkpoint")
        except ValueError as error:
            (folder / f"message-{rank}").write_text(str(error))

    all_well(together(2, work))


class Plain(nn.Module):
    """A network of which every image's gradient is its own, and running statistics beside it."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(3, affine=False)
        self.linear = nn.Linear(3 * 8 * 8, 5)

    def forward(self, images):
        self.norm(images)
        return self.linear(images.flatten(1))


def learn(folder, processes):
    """Trains :class:`Plain` and writes what each process has in the end."""

    def work(rank):
        generator = torch.Generator().manual_seed(0)
        images = torch.randint(0, 256, (67, 3, 8, 8), generator=generator, dtype=torch.uint8)
        run = Run(images, torch.arange(67) % 5, 5, group=Group.join())
        torch.manual_seed(0)
        model = Plain()
        optimizer = sgd(model)
        run.track(model=model, optimizer=optimizer)
        for _ in run.steps(1):
            learned = train(
                run,
                model,
                optimizer,
                steps=12,
                batch_size=16,
                inputs=lambda index: to_float(run.images[index]),
                clip_norm=0.5,
            )
        state = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
        np.savez(folder / f"{processes}-{rank}.npz", **state, **learned)

    all_well(together(int(processes), work))


def gather(folder):
    """Three processes put together what each has: one row, two and none."""

    def work(rank):
        own = torch.full(((1, 2, 0)[rank], 2), float(rank)).requires_grad_()
        found = Group.join().gather(own)
        (slope,) = torch.autograd.grad((found * torch.arange(3.0)[:, None]).sum(), own)
        np.savez(folder / f"{rank}.npz", found=found.detach().numpy(), slope=slope.numpy())

    all_well(together(3, work))


def couple(folder, processes):
    """Fits a method whose loss couples the images of a batch, with a network without BatchNorm."""

    def work(rank):
        torch.manual_seed(0)
        surrogate = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2), nn.Tanh(), nn.Flatten(), nn.Linear(8 * 15 * 15, 16),
            nn.Tanh(), nn.Linear(16, 10),
        )  # fmt: skip
        options = {"pretrained_surrogate": True, "train_epochs": 2, "steps": 3, "batch_size": 16}
        lengths = {"first_step_size": 1 / 255, "step_size": 2 / 255, "search_batch_size": 24}
        fitted = MIUE(surrogate, **options, **lengths).fit(
            Shapes(size=SIZE), precision="float32", progress=False
        )
        found = fitted.surrogate_.state_dict()
        weights = {name: value.numpy() for name, value in found.items()}
        np.savez(folder / f"{processes}-{rank}.npz", rows=fitted.perturbation_.rows, **weights)

    all_well(together(int(processes), work))


if __name__ == "__main__":
    torch.set_num_threads(THREADS)
    modes = (kill, lose, share, resume, apart, learn, gather, couple, join)
    mode = {mode.__name__: mode for mode in modes}[sys.argv[1]]
    mode(Path(sys.argv[2]), *sys.argv[3:])
