"""Arrays as torch tensors, which torch's multiprocessing hands over through shared memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from .joined import JoinedRows

_SIGNED = {np.dtype(np.uint64): np.int64, np.dtype(np.uint32): np.int32}  # what torch can share


def share(array: Any) -> Tensor | list[Tensor]:
    """An array's memory as a tensor, or of joined rows as several; what is read-only is copied."""
    if isinstance(array, JoinedRows):
        return [torch.from_numpy(np.require(part, requirements="W")) for part in array.parts]
    signed = array.view(_SIGNED.get(array.dtype, array.dtype))
    return torch.from_numpy(np.require(signed, requirements="W"))


def unshare(shared: Tensor | list[Tensor], dtype: str) -> Any:
    """What :func:`share` was given, of this dtype."""
    if isinstance(shared, list):
        return JoinedRows([part.numpy() for part in shared])
    return shared.numpy().view(dtype)
