"""Which file of an artefact holds what: one file for all, or shards of the rows and an index."""

from __future__ import annotations

import json
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
    """Whether a tensor holds rows, which can be split among files."""
    return name.rpartition(".")[2] == "rows"


def shard_files(count: int) -> list[str]:
    """Names of the tensor files of an artefact with this many shards."""
    return [f"perturbation-{n:05}-of-{count:05}.safetensors" for n in range(1, count + 1)]


def present_files(folder: Path) -> list[str]:
    """The tensor files in a folder and their index, for any number of shards."""
    names = [path.name for path in folder.iterdir() if path.is_file()]
    return sorted(name for name in names if name in (TENSORS, INDEX) or _SHARD.fullmatch(name))


def divide(tensors: Mapping[str, Any], max_shard_size: int) -> list[Ranges]:
    """Assigns rows to at most ``MAX_SHARDS`` files: as many as fit, but at least one each."""
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
            f"expected at most {MAX_SHARDS:,} shards, got {len(shards):,} of {max_shard_size:,} "
            f"bytes; increase max_shard_size"
        )
    return shards


def tensors_of_file(
    tensors: Mapping[str, Any], ranges: Mapping[str, tuple[int, int]], *, first: bool
) -> Tensors:
    """The tensors of one file: views of its rows and, in the first file, everything else."""
    rest = {name: tensors[name] for name in sorted(tensors) if first and not is_rows(name)}
    return rest | {n: JoinedRows([tensors[n]]).between(*span) for n, span in ranges.items()}


def index_of(shards: list[Ranges], total_bytes: int) -> dict[str, Any]:
    """The content of an index file."""
    head = {"format": INDEX_FORMAT, "format_version": FORMAT_VERSION, "total_bytes": total_bytes}
    return head | {"shards": _entries(shards)}


def _entries(shards: list[Ranges]) -> list[dict[str, Any]]:
    names = shard_files(len(shards))
    return [{"file": n, "rows": ranges} for n, ranges in zip(names, shards, strict=True)]


def read_tensors(folder: Path) -> Tensors:
    """Memory-maps the tensors in a folder; rows of several shards are joined.

    Raises ``ArtefactError`` if a file is missing, damaged, or does not match the index.
    """
    stated = _read_index(folder)
    if stated is None:
        return dict(map_tensors(folder / TENSORS))
    tensors: Tensors = {}
    parts: dict[str, list[NDArray[np.int8]]] = {}
    shards: list[Ranges] = []
    for name in shard_files(len(stated)):
        found, ranges = map_tensors(folder / name), {}
        for rows in sorted(filter(is_rows, found)):
            first = sum(map(len, parts.setdefault(rows, [])))
            parts[rows].append(np.atleast_1d(found.pop(rows)))
            ranges[rows] = (first, first + len(parts[rows][-1]))
        if not ranges or any(first == end for first, end in ranges.values()):
            raise ArtefactError(f"expected rows in every shard, found none in {folder / name}")
        if shards and found:
            raise ArtefactError(f"expected only rows in {folder / name}, found {sorted(found)}")
        tensors |= found
        shards.append(ranges)
    for own, other in zip(_entries(shards), stated, strict=True):
        other = {n: other[n] for n in own if n in other} if isinstance(other, dict) else other
        # As text, where 1 is neither true nor 1.0.
        wanted, got = (json.dumps(entry, sort_keys=True) for entry in (own, other))
        if got != wanted:
            raise ArtefactError(
                f"expected {wanted} in {folder / INDEX}, to match the files, got {got[:200]}"
            )
    try:
        return tensors | {name: JoinedRows(arrays) for name, arrays in parts.items()}
    except ValueError as error:
        raise ArtefactError(f"expected shards of one perturbation in {folder}: {error}") from error


def artefact_files(folder: Path) -> list[str]:
    """Names of an artefact's files without its config, in reading order."""
    stated = _read_index(folder)
    return [TENSORS] if stated is None else [*shard_files(len(stated)), INDEX]


def _read_index(folder: Path) -> list[Any] | None:
    """What the index states of each shard; None where there is one file.

    The names of the files follow from their number: those in the index are compared, never used.
    """
    present = present_files(folder)
    stated, expected = None, {TENSORS}
    if INDEX in present:
        index = read_json(folder / INDEX)
        stated = index.get("shards") if isinstance(index, dict) else None
        if (
            not isinstance(stated, list)
            or not 1 <= len(stated) <= MAX_SHARDS
            or index.get("format") != INDEX_FORMAT
            or type(index.get("format_version")) is not int
            or index["format_version"] != FORMAT_VERSION
        ):
            raise ArtefactError(
                f"expected a valid index of shards in {folder / INDEX}, got an invalid one"
            )
        expected = {*shard_files(len(stated)), INDEX}
    elif present and TENSORS not in present:
        raise ArtefactError(f"expected {INDEX} next to {present[0]} in {folder}, found none")
    if others := set(present) - expected:
        raise ArtefactError(
            f"expected one perturbation in {folder}, found {min(others)} of another one as well; "
            f"download or save it again in an empty folder"
        )
    return stated
