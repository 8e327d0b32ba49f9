"""Where networks run."""

from __future__ import annotations

import torch


def pick_device(device: str | torch.device) -> torch.device:
    """``"auto"`` is the GPU where there is one, else the CPU; the rest as torch reads it."""
    if str(device) == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(device)
