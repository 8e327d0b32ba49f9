"""The processes of one run, as ``torchrun`` starts them. One process is the usual case."""

from __future__ import annotations

import atexit
import contextlib
import datetime
import inspect
import logging
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

logger = logging.getLogger(__name__)
_VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")  # without them no group can form
# The process group for decisions, on the CPU whatever carries the gradients; and its default group.
_control: Any = None
_control_of: Any = None


class Group:
    """This process and the others working on the same run.

    Attributes:
        rank: Number of this process, from 0.
        size: Number of processes.
    """

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank = rank
        self.size = size

    @classmethod
    def join(cls) -> Group:
        """Joins the existing process group, or the one described by torchrun's variables.

        Nothing is ever spawned. A group created here lasts until the process ends, so that later
        fits join it, too. A process with only some of torchrun's variables works alone and says so.
        """
        global _control, _control_of
        if not dist.is_available():
            return cls()
        if not dist.is_initialized():
            missing = [name for name in _VARIABLES if not os.environ.get(name)]
            size = os.environ.get("WORLD_SIZE") or "1"
            if missing and size != "1":
                logger.warning(
                    "WORLD_SIZE=%s is ignored without %s, so this process works alone; start it "
                    "with torchrun, which sets them all",
                    size,
                    ", ".join(missing),
                )
            if missing or size == "1":
                return cls()
            gpu = torch.cuda.is_available() and dist.is_nccl_available()
            dist.init_process_group("cpu:gloo,cuda:nccl" if gpu else "gloo")
            atexit.register(_leave)
        if dist.get_world_size() == 1:
            return cls()
        if _control_of is not dist.group.WORLD:
            # Long: others wait here while the first process decodes a dataset.
            _control = dist.new_group(backend="gloo", timeout=datetime.timedelta(hours=12))
            _control_of = dist.group.WORLD
        return cls(dist.get_rank(), dist.get_world_size())

    def size_here(self) -> int:
        """Number of processes on this machine, if torchrun states it, or in total."""
        return int(os.environ.get("LOCAL_WORLD_SIZE") or self.size) if self.size > 1 else 1

    def own_device(self, device: torch.device) -> torch.device:
        """This process's own GPU if the device is just ``cuda``."""
        if self.size > 1 and device.type == "cuda" and device.index is None:
            device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", self.rank)))
            torch.cuda.set_device(device)
        return device

    def parallel(self, model: nn.Module) -> nn.Module:
        """The network with gradients averaged over all processes."""
        # Buffers are averaged in `mean_buffers`, not copied from rank 0 at each forward.
        known = inspect.signature(DistributedDataParallel.__init__).parameters
        name = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
        options: dict[str, Any] = {name: False}
        return DistributedDataParallel(model, **options)

    @torch.no_grad()
    def mean_buffers(self, model: nn.Module, weight: float = 1.0) -> None:
        """Averages a network's running statistics, so that all processes have the same network.

        Args:
            model: The network.
            weight: Weight of this process's statistics; the mean over processes is 1.
        """
        buffers = [b for b in model.buffers() if b.is_floating_point()]
        if self.size == 1 or not buffers:
            return
        # One launch on a GPU for all buffers, in and out: there are dozens, and all are small.
        flat = torch.cat([buffer.flatten() for buffer in buffers]).mul_(weight / self.size)
        with self.explaining_loss():
            dist.all_reduce(flat)
        parts = flat.split([buffer.numel() for buffer in buffers])
        means = [part.view_as(buffer) for buffer, part in zip(buffers, parts, strict=True)]
        torch._foreach_copy_(buffers, means)

    def sum(self, value: Tensor) -> Tensor:
        """The sum over all processes; the argument is not modified."""
        if self.size == 1:
            return value
        value = value.clone()
        with self.explaining_loss():
            dist.all_reduce(value)
        return value

    def gather(self, value: Tensor) -> Tensor:
        """Concatenates the values (B, …) of all processes by rank; B may differ.

        Gradients flow back only to this process's own part.
        """
        if self.size == 1:
            return value
        sizes = [0] * self.size
        with self.explaining_loss():
            dist.all_gather_object(sizes, len(value), group=_control)
            room = value.new_zeros((max(sizes), *value.shape[1:]))
            room[: len(value)] = value.detach()
            parts = [torch.empty_like(room) for _ in sizes]
            dist.all_gather(parts, room)
        parts = [part[:size] for part, size in zip(parts, sizes, strict=True)]
        parts[self.rank] = value
        return torch.cat(parts)

    def max(self, value: int) -> int:
        """The largest value over all processes."""
        if self.size == 1:
            return value
        shared = torch.tensor(value)
        with self.explaining_loss():
            dist.all_reduce(shared, dist.ReduceOp.MAX, group=_control)
        return int(shared)

    def share(self, value: Any) -> Any:
        """The value of rank 0."""
        if self.size == 1:
            return value
        shared = [value]
        with self.explaining_loss():
            dist.broadcast_object_list(shared, src=0, group=_control)
        return shared[0]

    def shared(self, folder: Path) -> Path:
        """Returns the folder after checking that all processes can see it.

        Raises:
            ValueError: Some cannot, because they are on machines without a shared file system.
        """
        if self.size == 1:
            return folder
        name = None
        with self.rank_zero_first() as first:
            if first:
                handle, path = tempfile.mkstemp(prefix=".", suffix=".partial", dir=folder)
                os.close(handle)
                name = Path(path).name
        name = self.share(name)
        missing = self.max(int(not (folder / name).exists()))  # after it, all have looked
        if self.rank == 0:
            (folder / name).unlink()
        if missing:
            raise ValueError(
                f"expected a folder that all {self.size} processes can see, got {folder}, which "
                f"some cannot; put checkpoint= or, without it, the temporary folder (TMPDIR) on a "
                f"file system shared by all machines"
            )
        return folder

    def wait(self) -> None:
        """Waits until all processes get here."""
        if self.size > 1:
            with self.explaining_loss():
                dist.barrier(group=_control)

    @contextlib.contextmanager
    def rank_zero_first(self) -> Iterator[bool]:
        """Rank 0 runs the body before the others; an error in rank 0 stops all of them.

        Gives True in rank 0.
        """
        if self.rank == 0:
            try:
                yield True
            except BaseException as error:
                self.share(f"{type(error).__name__}: {error}")
                raise
            self.share(None)
            return
        failed = self.share(None)
        if failed is not None:
            raise RuntimeError(f"the first process of this run stopped: {failed}")
        yield False

    @contextlib.contextmanager
    def explaining_loss(self) -> Iterator[None]:
        """Turns errors of collective operations into one that says that a process is gone."""
        try:
            yield
        except RuntimeError as error:
            if self.size == 1 or not _is_loss(error):
                raise
            raise RuntimeError(
                f"expected {self.size} processes to continue together, but at least one stopped "
                f"or does not respond; its own message says why. Run the same command again: with "
                f"checkpoint=, the fit continues from its last checkpoint"
            ) from error


def _is_loss(error: RuntimeError) -> bool:
    signs = ("gloo", "nccl", "connection", "peer", "timed out")
    return isinstance(error, dist.DistError) or any(s in str(error).lower() for s in signs)


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()
