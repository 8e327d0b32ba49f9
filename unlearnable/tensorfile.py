"""safetensors files, written and memory-mapped without holding their tensors in memory."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from .errors import ArtefactError

_DTYPES = {"I8": "i1", "U8": "u1", "I64": "<i8", "U64": "<u8", "U32": "<u4"}
_NAMES = {np.dtype(code): name for name, code in _DTYPES.items()}
_ALIGNMENT = 64
_CHUNK = 1 << 24  # bytes


def write_tensors(path: Path, tensors: Mapping[str, NDArray[Any]], kind: str) -> None:
    """Writes arrays piece by piece, so that a memory-mapped one is never in memory as a whole.

    Args:
        path: Of the file; it is on the disk when this returns.
        tensors: C-contiguous arrays of int8, uint8, int64, uint64 or uint32.
        kind: What the file is, kept as its ``format``.

    Raises:
        OSError: The disk is full or read-only.
    """
    header: dict[str, Any] = {"__metadata__": {"format": kind}}
    end = 0
    # Widest first: every tensor then begins at a multiple of its own width.
    order = sorted(tensors, key=lambda name: -tensors[name].dtype.itemsize)
    for name in order:
        tensor = tensors[name]
        begin, end = end, end + tensor.nbytes
        header[name] = {
            "dtype": _NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
    described = json.dumps(header).encode()
    described += b" " * (-(8 + len(described)) % _ALIGNMENT)
    with path.open("wb") as file:
        file.write(len(described).to_bytes(8, "little"))
        file.write(described)
        for name in order:
            for piece in _pieces(tensors[name]):
                file.write(piece)
        file.flush()
        os.fsync(file.fileno())


def _pieces(tensor: NDArray[Any]) -> list[memoryview]:
    data = memoryview(tensor.reshape(-1).view(np.uint8).data)
    return [data[start : start + _CHUNK] for start in range(0, len(data), _CHUNK)]


def map_tensors(path: Path) -> dict[str, NDArray[Any]]:
    """Memory-maps every tensor of a safetensors file after the library has checked its header.

    Raises:
        ArtefactError: There is no such file, it is not whole, or it holds other types.
    """
    if not path.is_file():
        raise ArtefactError(f"expected {path.name} in {path.parent}, found none")
    try:
        with safe_open(path, framework="np"):
            pass
    except SafetensorError as error:
        raise ArtefactError(f"expected a whole safetensors file at {path}: {error}") from error
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    unknown = {entry["dtype"] for entry in header.values()} - set(_DTYPES)
    if unknown:
        raise ArtefactError(
            f"expected tensors of {sorted(_DTYPES)} in {path}, got {sorted(unknown)}"
        )
    return {
        name: np.memmap(
            path,
            _DTYPES[entry["dtype"]],
            "r",
            offset=8 + length + entry["data_offsets"][0],
            shape=tuple(entry["shape"]),
        ).view(np.ndarray)
        for name, entry in header.items()
        if math.prod(entry["shape"])
    }
