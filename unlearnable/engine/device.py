"""Where and how precisely networks run."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch


def pick_device(device: str | torch.device) -> torch.device:
    """``"auto"`` is the GPU where there is one, else the CPU; the rest as torch reads it."""
    if str(device) == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(device)


def pick_precision(precision: str, device: torch.device) -> str:
    """``"auto"`` is bf16 on GPUs whose hardware has it, and float32 where bf16 is slow."""
    if precision not in ("auto", "float32", "bf16"):
        raise ValueError(f'expected precision "auto", "float32" or "bf16", got {precision!r}')
    if precision != "auto":
        return precision
    if device.type != "cuda":
        return "float32"
    with torch.cuda.device(device):
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    return "bf16" if native else "float32"


@contextlib.contextmanager
def full_float32(device: torch.device) -> Iterator[None]:
    """Switches TF32 off on a GPU, whose products of float32 keep 10 of 23 bits with it.

    The caller's settings are restored. On other devices nothing is changed.
    """
    with contextlib.ExitStack() as restored:
        if device.type == "cuda":
            _switch_tf32_off(restored)
        yield


def _switch_tf32_off(restored: contextlib.ExitStack) -> None:
    cudnn: Any = torch.backends.cudnn
    matmul: Any = torch.backends.cuda.matmul
    try:
        if cudnn.allow_tf32:
            restored.callback(setattr, cudnn, "allow_tf32", True)
            cudnn.allow_tf32 = False
        if matmul.allow_tf32:
            before = torch.get_float32_matmul_precision()
            restored.callback(torch.set_float32_matmul_precision, before)
            torch.set_float32_matmul_precision("highest")
    except RuntimeError:  # the caller uses torch's newer settings, with which these do not mix
        for product in (cudnn.conv, cudnn.rnn, matmul):
            restored.callback(setattr, product, "fp32_precision", product.fp32_precision)
            product.fp32_precision = "ieee"
