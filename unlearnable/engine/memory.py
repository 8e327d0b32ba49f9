"""How much memory is free, and how much of it passes take for their gradients."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from .models import Ensemble

# What a batch may keep: of the machine's memory, so that it is the same from run to run, but not
# more than that of the free memory.
_OF_HOST, _OF_FREE = 1 / 8, 1 / 2


def free_memory(device: torch.device, processes: int = 1) -> int:
    """Bytes of memory that a process may still use.

    Args:
        device: For a GPU, its own memory counts.
        processes: Number of processes that share the machine's memory.
    """
    if _has_own(device):
        return torch.cuda.mem_get_info(device)[0]
    return _free_on_host() // processes


def _has_own(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.is_available()


def _free_on_host() -> int:
    with contextlib.suppress(OSError, ValueError, StopIteration):  # elsewhere than on Linux
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        available = next(line for line in lines if line.startswith("MemAvailable:"))
        return int(available.split()[1]) << 10
    return memory_of_host() // 2


def memory_of_host() -> int:
    """Bytes of the machine's memory; 8 GiB if unknown."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 8 << 30


def usual_limit(device: torch.device, processes: int = 1) -> int:
    """Bytes that a batch may keep for its gradient; arguments as in :func:`free_memory`."""
    free = int(_OF_FREE * free_memory(device, processes))
    return (
        free if device.type == "cuda" else min(free, int(_OF_HOST * memory_of_host() / processes))
    )


@contextlib.contextmanager
def counting_saved(count: Callable[[torch.UntypedStorage], None]) -> Iterator[None]:
    """Calls ``count`` once for each storage that the body's operations keep for their gradient."""
    # Not the tensors themselves: those know the graph, which knows these hooks, and no garbage
    # collector sees that circle.
    kept: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in kept:
            kept[storage.data_ptr()] = storage  # so that no later one gets the same address
            count(storage)
        return tensor.detach()

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield


def saved_bytes(network: Callable[[Tensor], Tensor], images: Tensor) -> tuple[int, Tensor]:
    """Bytes that a pass keeps for its backward, including weights, and its output."""
    kept: list[torch.UntypedStorage] = []
    with torch.enable_grad(), counting_saved(kept.append):
        logits = network(images.detach().requires_grad_())
    return sum(storage.nbytes() for storage in kept), logits.detach()


def bytes_per_image(network: nn.Module, images: Tensor) -> int:
    """Bytes that each image of a batch adds to what a pass keeps.

    Args:
        network: Put into evaluation mode for two passes, then restored.
        images: At least two different images, float (B, C, H, W); fewer give 0.

    Returns:
        0 if the output for an image depends on other images of its batch, or if it cannot be
        determined for this network.
    """
    if len(images) < 2:
        return 0
    modes = {module: module.training for module in network.modules()}
    network.eval()
    forward = network.forward
    if isinstance(network, Ensemble):  # whose members are asked one at a time
        forward = functools.partial(forward, member=0)
    try:
        one, alone = saved_bytes(forward, images[:1])
        two, together = saved_bytes(forward, images[:2])
    except Exception:  # a caller's network may do anything
        return 0
    finally:
        for module, training in modes.items():
            module.training = training
    same = torch.allclose(alone.float(), together[:1].float(), rtol=0.02, atol=0.02)
    return two - one if same else 0
