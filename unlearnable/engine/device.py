"""Where networks run, and how tensors get there."""

from __future__ import annotations

import torch
from torch import Tensor


def pick_device(device: str | torch.device) -> torch.device:
    """``"auto"`` is the GPU where there is one, else the CPU; the rest as torch reads it."""
    if str(device) == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(device)


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor on a device; to a GPU it goes from pinned memory, so that Python does not wait."""
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
