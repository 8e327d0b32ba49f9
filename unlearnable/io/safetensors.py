"""safetensors files, written and memory-mapped without holding their tensors in memory."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import ArtefactError
from .files import open_new
from .json import parse_json
from .sharded_rows import JoinedRows

_DTYPES = {"I8": "i1", "U8": "u1", "I64": "<i8", "U64": "<u8", "U32": "<u4"}
_NAMES = {np.dtype(code): name for name, code in _DTYPES.items()}
_ALIGNMENT = 64
_CHUNK = 1 << 24  # bytes
_MOST_HEADER = 1 << 22  # bytes: some 30,000 tensors
_MOST_SIZE = 1 << 62


def write_tensors(path: Path, tensors: Mapping[str, NDArray[Any] | JoinedRows], kind: str) -> None:
    """Writes arrays piece by piece, so that a memory-mapped one is never in memory as a whole.

    Args:
        path: Of the file; it is on the disk when this returns.
        tensors: C-contiguous arrays of int8, uint8, int64, uint64 or uint32, or joined rows.
        kind: What the file is, kept as its ``format``.

    Raises:
        OSError: The disk is full or read-only.
    """
    # Widest first: every tensor then begins at a multiple of its own width.
    order = sorted(tensors, key=lambda name: -tensors[name].dtype.itemsize)
    with open_new(path) as file:
        file.write(header_of({name: tensors[name] for name in order}, kind))
        for name in order:
            for piece in _pieces(tensors[name]):
                file.write(piece)
        file.flush()
        os.fsync(file.fileno())


def header_of(tensors: Mapping[str, NDArray[Any] | JoinedRows], kind: str) -> bytes:
    """What stands before the bytes of the tensors, which follow in this order."""
    header: dict[str, Any] = {"__metadata__": {"format": kind}}
    end = 0
    for name, tensor in tensors.items():
        begin, end = end, end + tensor.nbytes
        header[name] = {
            "dtype": _NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
    described = json.dumps(header).encode()
    described += b" " * (-(8 + len(described)) % _ALIGNMENT)
    return len(described).to_bytes(8, "little") + described


def _pieces(tensor: NDArray[Any] | JoinedRows) -> Iterator[memoryview]:
    for part in tensor.parts if isinstance(tensor, JoinedRows) else [tensor]:
        data = memoryview(part.reshape(-1).view(np.uint8).data)
        for start in range(0, len(data), _CHUNK):
            yield data[start : start + _CHUNK]


class Place(NamedTuple):
    """Where a tensor lies in a file.

    Attributes:
        dtype: As numpy writes it.
        shape: Of the tensor.
        offset: From the file's beginning, in bytes.
        nbytes: Its size.
    """

    dtype: str
    shape: tuple[int, ...]
    offset: int
    nbytes: int


def map_tensors(path: Path) -> dict[str, NDArray[Any]]:
    """Memory-maps every tensor of a safetensors file whose header is sound.

    Raises:
        ArtefactError: There is no such file, it is not whole, or it holds other types.
    """
    if not path.is_file():
        raise ArtefactError(f"expected {path.name} in {path.parent}, found none")
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        length = file.read(8)
        header = file.read(min(int.from_bytes(length, "little"), _MOST_HEADER))
    places = parse_header(length + header, size, path)
    # One map for all: each map holds a file open.
    data = np.memmap(path, np.uint8, "r", shape=(size,))
    return {
        name: data[place.offset : place.offset + place.nbytes]
        .view(np.ndarray)
        .view(place.dtype)
        .reshape(place.shape)
        for name, place in places.items()
        if place.nbytes
    }


def parse_header(data: bytes, size: int, path: Path) -> dict[str, Place]:
    """Where the tensors of a safetensors file are.

    The format's own rules hold: tensors do not overlap, and leave no byte of the file out.

    Args:
        data: The beginning of the file, with its whole header.
        size: Of the file.
        path: What to call it in errors.

    Raises:
        ArtefactError: The header is not sound, or the file not as long as it says.
    """
    length = int.from_bytes(data[:8], "little")
    if not 2 <= length <= min(size - 8, _MOST_HEADER):
        raise ArtefactError(
            f"expected a whole safetensors file at {path}, got {size:,} bytes and a header of "
            f"{length:,}"
        )
    header = parse_json(data[8 : 8 + length], f"the header of a whole safetensors file at {path}")
    if not isinstance(header, dict):
        raise ArtefactError(f"expected a whole safetensors file at {path}, got another header")
    told = header.pop("__metadata__", {})
    if not isinstance(told, dict) or not all(isinstance(text, str) for text in told.values()):
        raise ArtefactError(f"expected a whole safetensors file at {path}, got other metadata")
    places = {name: _place(name, entry, 8 + length, path) for name, entry in header.items()}
    end = 8 + length
    for place in sorted(places.values(), key=lambda place: (place.offset, place.nbytes)):
        if place.offset != end:
            raise ArtefactError(
                f"expected a whole safetensors file at {path}, got tensors with gaps or overlaps"
            )
        end += place.nbytes
    if end != size:
        raise ArtefactError(
            f"expected a whole safetensors file at {path} of {end:,} bytes, got {size:,}"
        )
    return places


def _place(name: str, entry: Any, start: int, path: Path) -> Place:
    wrong = ArtefactError(
        f"expected a whole safetensors file at {path}, got {name[:40]!r}: {str(entry)[:200]}"
    )
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise wrong
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or not _whole(shape, 8) or not _whole(offsets, 2):
        raise wrong
    if dtype not in _DTYPES:
        raise ArtefactError(f"expected tensors of {sorted(_DTYPES)} in {path}, got {dtype[:40]!r}")
    nbytes = math.prod(shape) * np.dtype(_DTYPES[dtype]).itemsize
    if len(offsets) != 2 or offsets[1] - offsets[0] != nbytes:
        raise wrong
    return Place(_DTYPES[dtype], tuple(shape), start + offsets[0], nbytes)


def _whole(values: Any, most: int) -> bool:
    """Whether it is a list of at most so many whole numbers."""
    return (
        isinstance(values, list)
        and len(values) <= most
        and all(type(value) is int and 0 <= value <= _MOST_SIZE for value in values)
    )
