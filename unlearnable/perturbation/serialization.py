"""A perturbation's files: saved, loaded, verified, shared. See docs/reference/format.md."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import re
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..data.export_marker import export_at
from ..engine.numbers import integer
from ..errors import ArtefactError, FormatVersionError
from ..hub import CONFIG
from ..hub.catalogue import locate
from ..io.files import (
    WriteError,
    claim_folder,
    json_bytes,
    locked,
    make_folder,
    same_bytes,
    write_json,
    writing,
)
from ..io.json import as_json
from ..io.mapped import is_mapped
from ..io.safetensors import write_tensors
from .card import write_card
from .config import FORMAT, MissingError, check_config, read_config, version_of
from .kinds.base import Kind, Tensors
from .kinds.stack import KINDS
from .preview import PREVIEW, preview_of
from .replacing import check_copies, check_same_images, keys_of
from .shards import (
    INDEX,
    MAX_SHARD_SIZE,
    TENSORS,
    artefact_files,
    divide,
    index_of,
    is_rows,
    present_files,
    read_tensors,
    shard_files,
    tensors_of_file,
)
from .summary import info

if TYPE_CHECKING:
    from ..hub.client import Pushed

IN_MEMORY = "the perturbation"  # what one that lies in no folder is called
_LEFT = re.compile(  # also of a method that was saved beside it
    r"\.+(perturbation.*\.safetensors(\.index\.json)?|surrogate\.safetensors|(method|config)\.json)"
    r"\.(partial|before)(\.partial)?"
)
_PER_IMAGE = ("checksums", "keys", "labels", "thumbnails")
Beside = Mapping[str, Callable[[Path], None] | None]
NOTHING: Beside = {}
_NAMED = 5  # damaged rows that an error names


def build(tensors: Mapping[str, Any], config: dict[str, Any], where: str = IN_MEMORY) -> Kind:
    """Builds the kind described by a config; raises ``ValueError`` if the tensors do not match."""
    check_config(config)
    missing = KINDS[config["kind"]].names(config) - set(tensors)
    if missing:
        raise MissingError(f"expected tensors {sorted(missing)}, found none")
    return KINDS[config["kind"]](dict(tensors), config, where)


def digest_of(tensors: Mapping[str, Any], config: Mapping[str, Any], purpose: bytes = b"") -> str:
    """Fingerprint of tensors and config; rows enter through their checksums.

    ``purpose`` is at most 16 bytes; fingerprints for different purposes are unrelated.
    """
    digest = hashlib.blake2b(digest_size=16, person=purpose)
    for name in sorted(tensors):
        if is_rows(name):
            continue
        tensor = np.ascontiguousarray(tensors[name])
        if name not in _PER_IMAGE:
            digest.update(f"{name} {tensor.dtype.str} {tensor.shape}".encode())
        digest.update(tensor.reshape(-1).view(np.uint8).data)
    digest.update(json.dumps(config, sort_keys=True).encode())
    return digest.hexdigest()


def save(
    folder: str | Path,
    kind: Kind,
    *,
    force: bool = False,
    max_shard_size: int = MAX_SHARD_SIZE,
    beside: Beside = NOTHING,
) -> Path:
    """See :meth:`Perturbation.save_pretrained`; either all files are replaced or none.

    ``beside`` are further files of the same save, by name: a function that writes one to a path, or
    None to remove an earlier one.
    """
    max_shard_size = integer("max_shard_size", max_shard_size, least=1)
    config = as_json(kind.config)  # callers may have changed it
    build(kind.tensors, config)
    place = Path(folder).absolute()
    export = next(filter(export_at, (place, *place.parents)), None)
    if export is not None:
        raise ValueError(
            f"expected a folder apart from protected images, got {folder} in the export {export}; "
            f"choose another place, because anyone who has both can remove the perturbation from "
            f"the images"
        )
    folder = make_folder(folder)
    # All processes of a fit end with the same result, and may all save it. The folder is inspected
    # under the lock: while another process saves, it holds tensors without their config.
    with locked(folder, wait=True):
        claim_folder(folder, CONFIG, force=force)
        if not force:
            check_same_images(folder, config["source"], keys_of(kind.tensors))
            check_copies(folder, {"digest": digest_of(kind.tensors, config)})
        _save(folder, kind.tensors, config, max_shard_size, beside)
    return folder


def config_file(tensors: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON of ``config.json``."""
    first = {"format": FORMAT, "format_version": version_of(config)}
    return first | dict(config) | {"digest": digest_of(tensors, config)}


def _save(
    folder: Path, tensors: Tensors, config: dict[str, Any], max_shard_size: int, beside: Beside
) -> None:
    shards = divide(tensors, max_shard_size)
    names = [TENSORS] if len(shards) == 1 else shard_files(len(shards))
    new = [*names, *([INDEX] if len(shards) > 1 else []), *filter(beside.get, beside)]
    try:
        for name, ranges in zip(names, shards, strict=True):
            part = tensors_of_file(tensors, ranges, first=name == names[0])
            write_tensors(_hidden(folder, "partial", name), part, FORMAT)
        if INDEX in new:
            total = sum(tensor.nbytes for tensor in tensors.values())
            write_json(_hidden(folder, "partial", INDEX), index_of(shards, total))
        for name, write in beside.items():
            if write is not None:
                with writing(folder):
                    write(_hidden(folder, "partial", name))
        write_json(_hidden(folder, "partial", CONFIG), config_file(tensors, config))
        with writing(folder):
            # Windows does not replace files that are mapped, as those of a loaded perturbation are.
            kept = [n for n in new if same_bytes(folder / n, _hidden(folder, "partial", n))]
            _exchange(folder, new, beside, kept)
    finally:
        for name in [*new, CONFIG]:
            _hidden(folder, "partial", name).unlink(missing_ok=True)
    for path in folder.iterdir():  # also what a killed process left
        if _LEFT.fullmatch(path.name):
            path.unlink()


def _exchange(folder: Path, new: list[str], beside: Beside, kept: list[str]) -> None:
    """Puts new files in place of the earlier ones, then the new config, or changes nothing.

    What was done is told by what is where: an interrupt may fall between a step and any note of it.
    ``kept`` are names of files that would not change; they stay where they are.
    """
    new = [name for name in new if name not in kept]
    known = [*present_files(folder), *beside]
    earlier = [name for name in known if (folder / name).exists() and name not in kept]
    for name in earlier:  # what a killed process left
        _hidden(folder, "before", name).unlink(missing_ok=True)
    try:
        for name in earlier:
            with _said_if_mapped(folder / name):
                (folder / name).replace(_hidden(folder, "before", name))
        for name in [*new, CONFIG]:
            _hidden(folder, "partial", name).replace(folder / name)
    except BaseException:
        if _hidden(folder, "partial", CONFIG).exists():  # else it is complete
            for name in new:
                if not _hidden(folder, "partial", name).exists():
                    (folder / name).unlink(missing_ok=True)
            for name in earlier:
                if _hidden(folder, "before", name).exists():
                    _hidden(folder, "before", name).replace(folder / name)
        raise
    for name in earlier:
        _hidden(folder, "before", name).unlink()


@contextlib.contextmanager
def _said_if_mapped(path: Path) -> Iterator[None]:
    try:
        yield
    except PermissionError as error:
        if not is_mapped(path):
            raise
        raise WriteError(
            error.errno,
            f"expected a folder whose perturbation is not in use, got {path.parent}: {path.name} "
            f"cannot be replaced while this program holds the perturbation that it loaded there; "
            f"choose another folder, or delete the loaded perturbation and the datasets protected "
            f"with it before saving",
            str(path),
        ) from error


def _hidden(folder: Path, state: str, name: str) -> Path:
    return folder / f".{name}.{state}"


def fetch(name: str | Path, **options: Any) -> tuple[Kind, Path]:
    """Loads what :meth:`Perturbation.from_pretrained` was asked for, and gives its folder.

    The digest in the catalogue is compared, and new downloads are verified.
    """
    source = locate(name, **options)
    try:
        config = read_config(source.folder / CONFIG)
        kind = assemble(read_tensors(source.folder), config, source.folder)
        digest = digest_of(kind.tensors, kind.config)
        if source.digest not in (None, digest):
            again = "" if source.repo else "; reinstall the package"
            raise ArtefactError(
                f"expected the digest {source.digest} stated in the catalogue, got {digest} in "
                f"{source.folder}{again}"
            )
        if source.repo and not source.is_verified(digest):
            verify_checksums(kind, source.folder)
            source.note_verified(digest)
    except ArtefactError as error:
        if not source.repo or isinstance(error, FormatVersionError):
            raise
        raise ArtefactError(
            f"{error}; downloaded from {source.repo}: download it again with force_download=True "
            f"(--force-download); if that does not help, contact its owner"
        ) from error
    return kind, source.folder


def assemble(tensors: Mapping[str, Any], config: dict[str, Any], folder: Path) -> Kind:
    """Builds the kind from a folder's tensors and config and checks the stated digest."""
    stated = config.pop("digest", None)
    try:
        kind = build(tensors, config, str(folder))
    except ArtefactError:
        raise
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError) as error:
        if not isinstance(error, MissingError):  # what was edited says more than what it broke
            _check_digest(tensors, config, stated, folder)
        named = "" if isinstance(error, ValueError) else f"{type(error).__name__} "
        raise ArtefactError(f"expected a valid perturbation in {folder}: {named}{error}") from error
    _check_digest(tensors, config, stated, folder)
    return kind


def _check_digest(
    tensors: Mapping[str, Any], config: Mapping[str, Any], stated: Any, folder: Path
) -> None:
    found = digest_of(tensors, config)
    if found != stated:
        raise ArtefactError(
            f"expected the digest {str(stated)[:40]} stated in {folder / CONFIG}, got {found}: a "
            f"file was edited or belongs to another perturbation"
        )


def verify_checksums(kind: Kind, folder: Path | None) -> None:
    """See :meth:`Perturbation.verify`; for perturbations loaded from a folder or in memory."""
    if folder is not None:
        config = read_config(folder / CONFIG)
        _check_digest(kind.tensors, config, config.pop("digest", None), folder)
    for name in filter(is_rows, kind.tensors):
        checksums = kind.tensors[f"{name.removesuffix('rows')}checksums"]
        rows = kind.tensors[name]
        most = _most(kind.config, name)
        damaged = [
            number for number, checksum in enumerate(checksums.tolist())
            if zlib.crc32(rows[number].tobytes()) != checksum
        ]  # fmt: skip
        largest = max(int(np.abs(rows[n].astype(np.int16)).max()) for n in range(len(rows)))
        if not damaged and largest > most:
            raise ArtefactError(
                f"expected {name} of {kind.where} within the budget of {most} levels, got "
                f"{largest}; do not use it"
            )
        if damaged:
            listed = ", ".join(map(str, damaged[:_NAMED]))
            more = f" and {len(damaged) - _NAMED:,} more" if len(damaged) > _NAMED else ""
            raise ArtefactError(
                f"expected all {len(checksums):,} {name} of {kind.where} to match their "
                f"checksums, got different bytes in {listed}{more}; download or create it again"
            )


def _most(config: Mapping[str, Any], name: str) -> int:
    """The largest level that rows of this name may have, by the budget of their config."""
    own = config["parts"][int(name.split(".")[0])] if "." in name else config
    if own["epsilon"] is None or own["norm"] != "Linf":
        return 127
    return math.floor(own["epsilon"] * 255 + 1e-6)


def publish(
    kind: Kind, folder: Path | None, repo_id: str, *, license: str | None, **options: Any
) -> Pushed:
    """See :meth:`Perturbation.push_to_hub`; for perturbations loaded from a folder or in memory."""
    from ..hub import client

    client.check_repo(repo_id)
    if license is not None and not isinstance(license, str):
        raise TypeError(f"expected the name of a license or None, got {license!r:.60}")
    verify_checksums(kind, folder)
    digest = digest_of(kind.tensors, kind.config)
    preview = preview_of(kind)
    card = write_card(info(kind, digest), kind.config, repo_id, license=license, preview=preview)
    config = config_file(kind.tensors, as_json(kind.config))
    with tempfile.TemporaryDirectory() as scratch:
        # Tensors can be very large: those of a loaded one are sent from where they are.
        folder = folder or save(scratch, kind)
        files: dict[str, Path | bytes] = {name: folder / name for name in artefact_files(folder)}
        files |= {CONFIG: json_bytes(config), client.CARD: card.encode()}
        if preview is not None:
            files[PREVIEW] = preview.content
        return client.upload(lambda: files, client.PERTURBATION, repo_id, **options)
