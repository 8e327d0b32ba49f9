"""Where and how precisely networks run."""

from __future__ import annotations

import torch


def pick_device(device: str | torch.device) -> torch.device:
    """``"auto"`` is the GPU where there is one, else the CPU; the rest as torch reads it."""
    if str(device) == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(device)


def pick_precision(precision: str, device: torch.device) -> str:
    """``"auto"`` is bf16 on GPUs that have it and float32 elsewhere, where bf16 is slow."""
    if precision not in ("auto", "float32", "bf16"):
        raise ValueError(f'expected precision "auto", "float32" or "bf16", got {precision!r}')
    if precision == "auto":
        return "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "float32"
    return precision
