"""safetensors files, written and memory-mapped without holding their tensors in memory."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from ..errors import ArtefactError
from .files import check_no_pointer, new_file
from .json import MAX_BYTES, parse_json
from .mapped import map_file
from .sharded_rows import JoinedRows, arrays_of

_DTYPES = {"I8": "i1", "U8": "u1", "I64": "<i8", "U64": "<u8", "U32": "<u4"}
_NAMES = {np.dtype(code): name for name, code in _DTYPES.items()}
_ALIGNMENT = 64


def write_tensors(path: Path, tensors: Mapping[str, NDArray[Any] | JoinedRows], kind: str) -> None:
    """Writes arrays in place: no tensor is copied in memory and no rows are joined.

    The types are int8, uint8, int64, uint64 or uint32; ``kind`` is stored as the file's ``format``.
    """
    # Widest first: every tensor then begins at a multiple of its own width.
    ordered = dict(sorted(tensors.items(), key=lambda item: -item[1].dtype.itemsize))
    # The library's writer takes one pointer per tensor, so that joined rows would be copied, and
    # raises an error of its own without errno when the disk is full.
    header = header_of(ordered, kind)
    needed = len(header) + sum(tensor.nbytes for tensor in ordered.values())
    with new_file(path, needed=needed) as file:
        file.write(header)
        for tensor in ordered.values():
            for part in arrays_of(tensor):
                file.write(np.ascontiguousarray(part).reshape(-1).view(np.uint8).data)


def header_of(tensors: Mapping[str, NDArray[Any] | JoinedRows], kind: str) -> bytes:
    """The file header, after which the bytes of the tensors follow in this order."""
    header: dict[str, Any] = {"__metadata__": {"format": kind}}
    end = 0
    for name, tensor in tensors.items():
        begin, end = end, end + tensor.nbytes
        header[name] = {
            "dtype": _NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
    encoded = json.dumps(header).encode()
    encoded += b" " * (-(8 + len(encoded)) % _ALIGNMENT)
    return len(encoded).to_bytes(8, "little") + encoded


def map_tensors(path: Path) -> dict[str, NDArray[Any]]:
    """Memory-maps every tensor of a valid safetensors file.

    Raises ``ArtefactError`` if the file is missing, truncated or damaged, or has other types.
    """
    if not path.is_file():
        raise ArtefactError(f"expected {path.name} in {path.parent}, found none")
    check_no_pointer(path)
    whole = f"a complete safetensors file at {path}"
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = parse_json(file.read(min(length, MAX_BYTES + 1)), f"the header of {whole}")
        try:
            with safe_open(path, framework="numpy"):
                pass  # shapes, offsets and size agree
            # One map for all, because each map holds a file open.
            data = map_file(file, np.uint8, "r")
            return {
                name: _tensor(data[8 + length :], entry)
                for name, entry in header.items()
                if name != "__metadata__" and entry["data_offsets"][0] < entry["data_offsets"][1]
            }
        except (SafetensorError, ValueError) as error:
            raise ArtefactError(f"expected {whole}, got a different file: {error}") from error


def _tensor(data: NDArray[np.uint8], entry: dict[str, Any]) -> NDArray[Any]:
    if entry["dtype"] not in _DTYPES:
        raise ValueError(f"expected tensors of type {sorted(_DTYPES)}, got {entry['dtype'][:40]!r}")
    begin, end = entry["data_offsets"]
    part = data[begin:end].view(np.ndarray).view(_DTYPES[entry["dtype"]])
    return part.reshape(entry["shape"])
