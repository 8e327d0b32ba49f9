"""Which file of an artefact holds what: one file for all, or shards of the rows and an index."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ArtefactError
from ..io.json import read_json
from ..io.safetensors import map_tensors
from ..io.sharded_rows import JoinedRows
from .config import FORMAT, FORMAT_VERSION
from .kinds.base import Tensors

TENSORS = "perturbation.safetensors"
INDEX = f"{TENSORS}.index.json"
INDEX_FORMAT = f"{FORMAT}-index"
MAX_SHARD_SIZE = 2 * 10**9  # bytes
MAX_SHARDS = 500  # each is a map, and a map holds a file open
_SHARD = re.compile(r"perturbation-(\d{5})-of-(\d{5})\.safetensors")
Ranges = dict[str, tuple[int, int]]


def is_rows(name: str) -> bool:
    """Whether a tensor holds rows, which can be divided among files."""
    return name.rpartition(".")[2] == "rows"


def shard_files(count: int) -> list[str]:
    """Names of the tensor files of an artefact in so many shards."""
    return [f"perturbation-{n:05}-of-{count:05}.safetensors" for n in range(1, count + 1)]


def present_files(folder: Path) -> list[str]:
    """The tensor files in a folder and their index, in whatever number of shards."""
    names = [path.name for path in folder.iterdir() if path.is_file()]
    return sorted(name for name in names if name in (TENSORS, INDEX) or _SHARD.fullmatch(name))


# --- writing -------------------------------------------------------------------------------------
def divide(tensors: Mapping[str, Any], max_shard_size: int) -> list[Ranges]:
    """Which rows go into which file: as many as fit, and one at least.

    Raises:
        ValueError: There would be more than ``MAX_SHARDS`` files.
    """
    shards: list[Ranges] = [{}]
    room = max_shard_size
    for name in sorted(filter(is_rows, tensors)):
        rows = tensors[name]
        each, first = rows.nbytes // len(rows), 0
        while first < len(rows):
            if room < each and shards[-1]:
                shards.append({})
                room = max_shard_size
            end = min(len(rows), first + max(1, room // each))
            shards[-1][name] = (first, end)
            room -= (end - first) * each
            first = end
    if len(shards) > MAX_SHARDS:
        raise ValueError(
            f"expected shards so large that {MAX_SHARDS:,} hold all rows, got {len(shards):,} "
            f"of {max_shard_size:,} bytes"
        )
    return shards


def tensors_of_file(
    tensors: Mapping[str, Any], ranges: Mapping[str, tuple[int, int]], *, first: bool
) -> Tensors:
    """What one file holds: views of its rows; in the first file, also all that is no rows."""
    rest = {name: tensors[name] for name in sorted(tensors) if first and not is_rows(name)}
    return rest | {n: JoinedRows([tensors[n]]).between(*span) for n, span in ranges.items()}


def index_of(shards: list[Ranges], total_bytes: int) -> dict[str, Any]:
    """The JSON of an index."""
    return {
        "format": INDEX_FORMAT,
        "format_version": FORMAT_VERSION,
        "total_bytes": total_bytes,
        "shards": [
            {"file": name, "rows": ranges}
            for name, ranges in zip(shard_files(len(shards)), shards, strict=True)
        ],
    }


# --- reading -------------------------------------------------------------------------------------
def read_tensors(folder: Path) -> Tensors:
    """The tensors in a folder, memory-mapped; rows of several shards are joined.

    Raises:
        ArtefactError: A file is missing, damaged, or not where the index says.
    """
    shards = _read_index(folder)
    if shards is None:
        return dict(map_tensors(folder / TENSORS))
    tensors: Tensors = {}
    parts: dict[str, list[NDArray[np.int8]]] = {}
    for number, (name, ranges) in enumerate(zip(shard_files(len(shards)), shards, strict=True)):
        found = map_tensors(folder / name)
        for tensor, (first, end) in ranges.items():
            rows = found.pop(tensor, None)
            if rows is None or rows.dtype != np.int8 or rows.ndim != 4 or len(rows) != end - first:
                got = "none" if rows is None else f"{rows.dtype} {rows.shape}"
                raise ArtefactError(
                    f"expected int8 {tensor} {first} to {end - 1} in {folder / name}, found {got}"
                )
            parts.setdefault(tensor, []).append(rows)
        if number and found:
            raise ArtefactError(
                f"expected nothing but rows in {folder / name}, found {sorted(found)}"
            )
        tensors |= found
    if both := parts.keys() & tensors.keys():
        raise ArtefactError(f"expected {sorted(both)} to be in {INDEX} for every shard")
    try:
        return tensors | {name: JoinedRows(arrays) for name, arrays in parts.items()}
    except ValueError as error:
        raise ArtefactError(f"expected shards of one perturbation in {folder}: {error}") from error


def artefact_files(folder: Path) -> list[str]:
    """Names of an artefact's files except its config, in the order to read them.

    Raises:
        ArtefactError: Files are missing, or some are of another perturbation.
    """
    shards = _read_index(folder)
    return [TENSORS] if shards is None else [*shard_files(len(shards)), INDEX]


def _read_index(folder: Path) -> list[Ranges] | None:
    """What each shard holds; None where there is one file. Refuses files of another artefact."""
    present = present_files(folder)
    shards, expected = None, {TENSORS}
    if INDEX in present:
        shards = parse_index(read_json(folder / INDEX), folder / INDEX)
        expected = {*shard_files(len(shards)), INDEX}
    elif present and TENSORS not in present:
        raise ArtefactError(f"expected {INDEX} beside {present[0]} in {folder}, found none")
    if others := set(present) - expected:
        raise ArtefactError(
            f"expected one perturbation in {folder}, found {min(others)} of another one as well; "
            f"get it again into an empty folder"
        )
    return shards


def parse_index(index: Any, path: Path) -> list[Ranges]:
    """Which rows each shard holds, of the JSON of an index.

    The names of the files are known from their number, and are compared, never used.

    Raises:
        ArtefactError: The index is not sound.
    """
    wrong = ArtefactError(f"expected a sound index of shards in {path}, got another one")
    if not isinstance(index, dict) or index.get("format") != INDEX_FORMAT:
        raise wrong
    version, shards = index.get("format_version"), index.get("shards")
    if type(version) is not int or version != FORMAT_VERSION:
        raise wrong
    if not isinstance(shards, list) or not 1 <= len(shards) <= MAX_SHARDS:
        raise wrong
    ends: dict[str, int] = {}
    found: list[Ranges] = []
    for name, shard in zip(shard_files(len(shards)), shards, strict=True):
        if not isinstance(shard, dict) or shard.get("file") != name:
            raise ArtefactError(f"expected the shard {name} at its place in {path}")
        ranges = shard.get("rows")
        if not isinstance(ranges, dict) or not ranges:
            raise wrong
        for tensor, span in ranges.items():
            sound = isinstance(span, list) and len(span) == 2 and is_rows(tensor)
            if not sound or any(type(place) is not int for place in span):
                raise wrong
            if span[0] != ends.get(tensor, 0) or not span[0] < span[1] <= 1 << 62:
                raise ArtefactError(
                    f"expected {tensor[:40]} from {ends.get(tensor, 0)} on for {name} in {path}, "
                    f"got {str(span)[:80]}"
                )
            ends[tensor] = span[1]
        found.append({tensor: (span[0], span[1]) for tensor, span in ranges.items()})
    return found
