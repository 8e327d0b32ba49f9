"""A perturbation's files: written, found again, checked; docs/format.md describes them."""

from __future__ import annotations

import hashlib
import json
import re
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import ArtefactError
from ..hub.catalogue import CONFIG
from ..io.files import claim_folder, locked, make_folder, write_json
from ..io.json import as_json, read_json
from ..io.safetensors import map_tensors, write_tensors
from ..io.sharded_rows import JoinedRows
from .config import FORMAT, FORMAT_VERSION, check_config, read_config
from .kinds.base import Kind, Tensors
from .kinds.stack import KINDS

TENSORS = "perturbation.safetensors"
INDEX = f"{TENSORS}.index.json"
INDEX_FORMAT = f"{FORMAT}-index"
MAX_SHARD_SIZE = 2 * 10**9  # bytes
_SHARD = re.compile(r"perturbation-(\d{5})-of-(\d{5})\.safetensors")
_LEFT = re.compile(r"\.perturbation.*\.safetensors(\.index\.json)?\.(partial|before)")
_MOST_SHARDS = 500  # each is a map, and a map holds a file open
_ROW_TENSORS = ("checksums", "keys", "labels", "thumbnails")
_NAMED = 5  # damaged rows that an error names
Ranges = dict[str, tuple[int, int]]
NOTHING: Mapping[str, Any] = {}


def build(tensors: Mapping[str, Any], config: dict[str, Any], where: str) -> Kind:
    """The kind that a config describes, of its tensors.

    Raises:
        ValueError: They do not belong together.
    """
    check_config(config)
    missing = KINDS[config["kind"]].names(config) - set(tensors)
    if missing:
        raise ValueError(f"expected tensors {sorted(missing)}, found none")
    return KINDS[config["kind"]](dict(tensors), config, where)


def digest_of(tensors: Mapping[str, Any], config: Mapping[str, Any], purpose: bytes = b"") -> str:
    """Fingerprint of tensors and config; of rows, by their checksums.

    Args:
        tensors: By name.
        config: Of the perturbation.
        purpose: At most 16 bytes: fingerprints for other purposes tell nothing of one another.
    """
    digest = hashlib.blake2b(digest_size=16, person=purpose)
    for name in sorted(tensors):
        if _is_rows(name):
            continue
        tensor = np.ascontiguousarray(tensors[name])
        if name not in _ROW_TENSORS:
            digest.update(f"{name} {tensor.dtype.str} {tensor.shape}".encode())
        digest.update(tensor.reshape(-1).view(np.uint8).data)
    digest.update(json.dumps(config, sort_keys=True).encode())
    return digest.hexdigest()


def _is_rows(name: str) -> bool:
    return name.rpartition(".")[2] == "rows"


# --- writing -------------------------------------------------------------------------------------
def save(
    folder: str | Path,
    kind: Kind,
    *,
    force: bool = False,
    max_shard_size: int = MAX_SHARD_SIZE,
    beside: Mapping[str, Callable[[Path], None] | None] = NOTHING,
) -> Path:
    """As :meth:`Perturbation.save_pretrained`.

    Args:
        folder: Made if missing.
        kind: What is saved.
        force: Write even into a folder that holds other things.
        max_shard_size: Bytes of rows in a file.
        beside: Other files of the same save, by name: what writes one to a path, or None where an
            earlier one is to go. All files are replaced, or none.
    """
    if max_shard_size < 1:
        raise ValueError(f"expected a shard size in bytes, got {max_shard_size}")
    config = as_json(kind.config)  # anybody may have changed it
    build(kind.tensors, config, kind.where)
    folder = make_folder(folder)
    # All processes of a fit end with the whole result, and may all save it. Looked at under the
    # lock: while another one saves, tensors lie in the folder without their config.
    with locked(folder, wait=True):
        claim_folder(folder, CONFIG, force=force)
        _save(folder, kind.tensors, config, max_shard_size, beside)
    return folder


def described(tensors: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """What ``config.json`` says."""
    first = {"format": FORMAT, "format_version": FORMAT_VERSION}
    return first | dict(config) | {"digest": digest_of(tensors, config)}


def _save(
    folder: Path,
    given: Mapping[str, Any],
    config: dict[str, Any],
    max_shard_size: int,
    beside: Mapping[str, Callable[[Path], None] | None],
) -> None:
    tensors = {
        name: tensor if isinstance(tensor, JoinedRows) else np.ascontiguousarray(tensor)
        for name, tensor in given.items()
    }
    shards = _divide(tensors, max_shard_size)
    names = [TENSORS] if len(shards) == 1 else shard_names(len(shards))
    new = [*names, *([INDEX] if len(shards) > 1 else []), *filter(beside.get, beside)]
    moved: list[str] = []
    placed: list[str] = []
    try:
        for number, (name, ranges) in enumerate(zip(names, shards, strict=True)):
            part = {n: _between(tensors[n], *span) for n, span in ranges.items()}
            if not number:
                part = {n: tensors[n] for n in sorted(tensors) if not _is_rows(n)} | part
            write_tensors(_partial(folder, name), part, FORMAT)
        if INDEX in new:
            write_json(_partial(folder, INDEX), _index(names, shards, tensors))
        for name, write in beside.items():
            if write is not None:
                write(_partial(folder, name))
        # From here on all of the earlier artefact, or all of the new one.
        for name in [*_present(folder), *(name for name in beside if (folder / name).exists())]:
            (folder / name).replace(_before(folder, name))
            moved.append(name)
        for name in new:
            _partial(folder, name).replace(folder / name)
            placed.append(name)
        write_json(folder / CONFIG, described(tensors, config))
    except BaseException:
        for name in placed:
            (folder / name).unlink()
        for name in moved:
            _before(folder, name).replace(folder / name)
        raise
    finally:
        for name in new:
            _partial(folder, name).unlink(missing_ok=True)
    for name in moved:
        _before(folder, name).unlink()
    for path in folder.iterdir():  # also what a killed process left
        if _LEFT.fullmatch(path.name):
            path.unlink()


def shard_names(count: int) -> list[str]:
    """Names of the tensor files of an artefact that has several."""
    return [f"perturbation-{n:05}-of-{count:05}.safetensors" for n in range(1, count + 1)]


def _partial(folder: Path, name: str) -> Path:
    return folder / f".{name}.partial"


def _before(folder: Path, name: str) -> Path:
    return folder / f".{name}.before"


def _present(folder: Path) -> list[str]:
    """The tensor files in a folder and their index, in whatever number of shards."""
    names = [path.name for path in folder.iterdir() if path.is_file()]
    return sorted(name for name in names if name in (TENSORS, INDEX) or _SHARD.fullmatch(name))


def _divide(tensors: Mapping[str, Any], max_shard_size: int) -> list[Ranges]:
    """Which rows go into which file: as many as fit, and one at least."""
    shards: list[Ranges] = [{}]
    room = max_shard_size
    for name in sorted(filter(_is_rows, tensors)):
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
    if len(shards) > _MOST_SHARDS:
        raise ValueError(
            f"expected shards so large that {_MOST_SHARDS:,} hold all rows, got {len(shards):,} "
            f"of {max_shard_size:,} bytes"
        )
    return shards


def _between(rows: NDArray[Any] | JoinedRows, first: int, end: int) -> NDArray[Any] | JoinedRows:
    return rows.between(first, end) if isinstance(rows, JoinedRows) else rows[first:end]


def _index(names: list[str], shards: list[Ranges], tensors: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "format": INDEX_FORMAT,
        "format_version": FORMAT_VERSION,
        "total_bytes": sum(tensor.nbytes for tensor in tensors.values()),
        "shards": [
            {"file": name, "rows": ranges} for name, ranges in zip(names, shards, strict=True)
        ],
    }


# --- reading -------------------------------------------------------------------------------------
def load(folder: Path) -> Kind:
    """What is in a folder, as :meth:`Perturbation.from_pretrained`; rows are not read."""
    if not folder.is_dir():
        raise FileNotFoundError(f"expected a folder with a saved perturbation, got {folder}")
    config = read_config(folder / CONFIG)
    return assemble(read_tensors(folder), config, folder)


def assemble(tensors: Mapping[str, Any], config: dict[str, Any], folder: Path) -> Kind:
    """The kind of a folder's tensors and config, whose digest is stated in it."""
    stated = config.pop("digest", None)
    kind, problem = None, None
    try:
        kind = build(tensors, config, str(folder))
    except ArtefactError:
        raise
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError) as error:
        problem = error
    # The more telling of the two: what is missing, else that something was changed.
    if not (problem and "found none" in str(problem)):
        _check_digest(tensors, config, stated, folder)
    if kind is None:
        named = "" if isinstance(problem, ValueError) else f"{type(problem).__name__} "
        raise ArtefactError(f"expected a sound perturbation in {folder}: {named}{problem}")
    return kind


def _check_digest(
    tensors: Mapping[str, Any], config: Mapping[str, Any], stated: Any, folder: Path
) -> None:
    found = digest_of(tensors, config)
    if found != stated:
        raise ArtefactError(
            f"expected the digest {str(stated)[:40]} that {folder / CONFIG} states, got {found}: a "
            f"file was edited or belongs to another perturbation"
        )


def read_tensors(folder: Path) -> Tensors:
    """The tensors in a folder, memory-mapped; rows of several shards are joined.

    Raises:
        ArtefactError: A file is missing, not whole, or not where the index says.
    """
    names, shards = _listed(folder)
    if not shards:
        return dict(map_tensors(folder / TENSORS))
    tensors: Tensors = {}
    parts: dict[str, list[NDArray[np.int8]]] = {}
    for number, (name, ranges) in enumerate(zip(names, shards, strict=True)):
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
            raise ArtefactError(f"expected rows alone in {folder / name}, found {sorted(found)}")
        tensors |= found
    both = parts.keys() & tensors.keys()
    if both:
        raise ArtefactError(f"expected {sorted(both)} to be in {INDEX} for every shard")
    try:
        return tensors | {name: JoinedRows(arrays) for name, arrays in parts.items()}
    except ValueError as error:
        raise ArtefactError(f"expected shards of one perturbation in {folder}: {error}") from error


def files_of(folder: Path) -> list[str]:
    """Names of an artefact's files but for its config, in the order to read them.

    Raises:
        ArtefactError: Files are missing, or some are of another perturbation.
    """
    names, shards = _listed(folder)
    return [*names, INDEX] if shards else names


def _listed(folder: Path) -> tuple[list[str], list[Ranges]]:
    """Names of the tensor files, and what is in each; of one that is no shard, nothing."""
    present = _present(folder)
    if INDEX not in present:
        if TENSORS not in present and present:
            raise ArtefactError(f"expected {INDEX} beside {present[0]} in {folder}, found none")
        _refuse_others(folder, set(present) - {TENSORS})
        return [TENSORS], []
    shards = parse_index(read_json(folder / INDEX), folder / INDEX)
    names = shard_names(len(shards))
    _refuse_others(folder, set(present) - {*names, INDEX})
    return names, shards


def _refuse_others(folder: Path, others: set[str]) -> None:
    if others:
        raise ArtefactError(
            f"expected one perturbation in {folder}, found {min(others)} of another one as well; "
            f"get it anew into an empty folder"
        )


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
    if not isinstance(shards, list) or not 1 <= len(shards) <= _MOST_SHARDS:
        raise wrong
    ends: dict[str, int] = {}
    found: list[Ranges] = []
    for name, shard in zip(shard_names(len(shards)), shards, strict=True):
        if not isinstance(shard, dict) or shard.get("file") != name:
            raise ArtefactError(f"expected the shard {name} at its place in {path}")
        ranges = shard.get("rows")
        if not isinstance(ranges, dict) or not ranges:
            raise wrong
        for tensor, span in ranges.items():
            sound = isinstance(span, list) and len(span) == 2 and _is_rows(tensor)
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


# --- every byte ----------------------------------------------------------------------------------
def verify_checksums(kind: Kind, folder: Path | None) -> None:
    """As :meth:`Perturbation.verify`, of what was loaded from a folder or is in memory."""
    where = kind.where
    if folder is not None:
        config = read_config(folder / CONFIG)
        stated = config.pop("digest", None)
        _check_digest(kind.tensors, config, stated, folder)
    for name in filter(_is_rows, kind.tensors):
        checksums = kind.tensors[f"{name.removesuffix('rows')}checksums"]
        damaged = []
        for number in range(len(checksums)):
            if zlib.crc32(kind.tensors[name][number].tobytes()) != checksums[number]:
                damaged.append(number)
        if damaged:
            listed = ", ".join(map(str, damaged[:_NAMED]))
            more = f" and {len(damaged) - _NAMED:,} more" if len(damaged) > _NAMED else ""
            raise ArtefactError(
                f"expected all {len(checksums):,} {name} of {where} to match their checksums, got "
                f"other bytes in {listed}{more}; get it anew"
            )


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
