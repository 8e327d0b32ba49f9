"""A perturbation on its way to another process: in shared memory, or loaded again there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from ..errors import ArtefactError
from ..io.sharded_rows import JoinedRows, arrays_of
from .kinds.base import Kind, Tensors
from .serialization import build, digest_of
from .shards import read_tensors

if TYPE_CHECKING:
    from torch import Tensor

Shared: TypeAlias = "dict[str, tuple[str, list[Tensor]]]"


def share(tensors: Mapping[str, Any]) -> Shared:
    """Converts arrays to torch tensors, which torch's multiprocessing passes in shared memory.

    Gives the dtype and the bytes for each name, in several parts for joined rows. Read-only arrays
    are copied.
    """
    import torch

    shared: Shared = {}
    for name, array in tensors.items():
        parts = [np.require(part, requirements=["C", "W"]) for part in arrays_of(array)]
        shared[name] = (array.dtype.str, [torch.from_numpy(p.view(np.uint8)) for p in parts])
    return shared


def unshare(shared: Shared) -> Tensors:
    """Restores the arrays passed to :func:`share`."""
    tensors: Tensors = {}
    for name, (dtype, parts) in shared.items():
        arrays = [part.numpy().view(dtype) for part in parts]
        tensors[name] = JoinedRows(arrays) if len(arrays) > 1 else arrays[0]
    return tensors


def load_again(folder: Path, config: dict[str, Any], digest: str) -> Kind:
    """Loads again what another process loaded from a folder, which must be unchanged."""
    tensors = read_tensors(folder)
    if digest_of(tensors, config) != digest:
        raise ArtefactError(
            f"expected {folder} unchanged since it was loaded, got a different artefact; load it "
            f"again"
        )
    return build(tensors, config, str(folder))
