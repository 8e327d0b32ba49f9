"""The caller's modes of torch, which must not decide what is learned."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def usual_modes() -> Iterator[None]:
    """Computes gradients, in float32, whatever the caller has set, which is restored afterwards.

    Tensors made without a device are on the CPU, also after ``torch.set_default_device``.
    """
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    usual = torch.get_default_device().type == "cpu"
    place = contextlib.nullcontext() if usual else torch.device("cpu")  # slows every call
    try:
        with torch.inference_mode(False), torch.enable_grad(), place:
            yield
    finally:
        torch.set_default_dtype(before)
