"""Which kernels a GPU runs networks with."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def fastest_convolutions(device: torch.device) -> Iterator[None]:
    """Lets cuDNN try its kernels once for every new shape on a GPU, and keep the fastest.

    Which one that is may differ between two fits. So a caller who asked torch for deterministic
    results keeps the usual choice. The caller's setting is restored; on other devices nothing is
    changed.
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
