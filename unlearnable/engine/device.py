"""Where networks run, and how tensors get there."""

from __future__ import annotations

import os

import torch
from torch import Tensor

_INSTEAD = 'pass device="cpu" or "auto" (--device), which uses a GPU if there is one'


def usable_cores() -> int:
    """CPU cores that this process may use: clusters and containers may allow only some of them."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def pick_device(device: str | torch.device) -> torch.device:
    """``"auto"`` means the GPU if there is one, else the CPU; other names are as in torch.

    Raises:
        ValueError: It is not a device, or this machine does not have it.
    """
    if str(device) == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(
            f'expected a device such as "auto", "cpu", "cuda" or "cuda:1", got {device!r}'
        ) from error
    _check_present(found)
    return found


def _check_present(device: torch.device) -> None:
    """Raises ``ValueError`` for a device that this machine does not have, or that only counts."""
    if device.type == "cpu":
        return
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) < count:
            return
        there = "torch finds no CUDA GPU here"
        if count:
            last = f", cuda:0 to cuda:{count - 1}" if count > 1 else ", cuda:0"
            there = f"torch finds {count} CUDA GPU{'s' if count > 1 else ''} here{last}"
    else:
        try:
            if torch.empty(1, device=device).cpu().numel() == 1:
                return
        except (RuntimeError, NotImplementedError, AssertionError):  # meta, mps, xpu, …
            pass
        there = f"torch cannot compute on {device.type!r} here"
    raise ValueError(
        f"expected a device that this machine has, got {str(device)!r}; {there}: {_INSTEAD}"
    )


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """Moves a tensor to a device; to a GPU from pinned memory, so that Python does not wait."""
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
