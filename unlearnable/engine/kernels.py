"""Which kernels a GPU runs networks with."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def fastest_convolutions(device: torch.device) -> Iterator[None]:
    """Lets cuDNN try its kernels once for every new shape on a GPU and keep the fastest.

    The fastest kernel may differ between two fits, so if torch is set to deterministic results, the
    usual choice is kept. The caller's setting is restored; other devices are not affected.
    """
    cudnn = torch.backends.cudnn
    fixed = cudnn.deterministic or torch.are_deterministic_algorithms_enabled()
    if device.type != "cuda" or fixed or cudnn.benchmark:
        yield
        return
    cudnn.benchmark = True
    try:
        yield
    finally:
        cudnn.benchmark = False
