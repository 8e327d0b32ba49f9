"""Writing files so that no other file is lost and none is left half-written."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from ..engine.sizes import readable_size
from ..errors import ArtefactError

LOCK = ".unlearnable-lock"
_LEFT = re.compile(r"\..+\.(partial|before)")  # what a killed process leaves
_POINTER = b"version https://git-lfs.github.com/spec/"
_PART = 1 << 20  # bytes that are compared at once
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
logger = logging.getLogger(__name__)


class WriteError(OSError):
    """A file could not be written; the message is a full sentence with the path and the sizes."""

    def __str__(self) -> str:
        return str(self.strerror)


@contextlib.contextmanager
def writing(place: str | Path, *, needed: int | None = None) -> Iterator[None]:
    """Turns an ``OSError`` of writing to a place into one that names it and says what to do.

    ``needed`` is the number of bytes to write, if known. Errors that already say what they expected
    are raised unchanged.
    """
    try:
        yield
    except OSError as error:
        if isinstance(error, WriteError) or (error.errno is None and not is_full(error)):
            raise
        raise write_error(error, place, needed=needed) from error


def write_error(
    error: OSError, place: str | Path, *, needed: int | None = None, after: str = ""
) -> WriteError:
    """The error of writing to a place as a full sentence; ``after`` says what came before it."""
    if not is_full(error):
        reason = error.strerror or str(error)
        sentence = f"could not write to {place}{after}: {reason}; choose another folder"
        return WriteError(error.errno, sentence, str(place))
    if error.errno in (errno.EDQUOT, errno.EFBIG):  # however much is free
        size = "files" if needed is None else f"a file of {readable_size(needed)}"
        sentence = (
            f"could not write {size} to {place}{after}: {os.strerror(error.errno)}; choose another "
            f"folder, or ask for a higher limit on this one"
        )
        return WriteError(error.errno, sentence, str(place))
    asked = "enough room" if needed is None else f"room for {readable_size(needed)}"
    sentence = (
        f"expected {asked} at {place}, got {readable_size(_free(Path(place)))} free{after} "
        f"({os.strerror(errno.ENOSPC)}); free some space there, or choose another folder"
    )
    return WriteError(error.errno or errno.ENOSPC, sentence, str(place))


def is_full(error: OSError) -> bool:
    """Whether a disk is full or a quota is used up."""
    return error.errno in _FULL or "no space left" in str(error).lower()


def _free(place: Path) -> int:
    """Bytes that are free where a place is, or will be."""
    place = place.absolute()
    there = next(folder for folder in (place, *place.parents) if folder.exists())
    return shutil.disk_usage(there).free


def check_no_pointer(path: Path) -> None:
    """Refuses what a clone has in place of a large file until ``git lfs pull`` was run there."""
    with path.open("rb") as file:
        if file.read(len(_POINTER)) == _POINTER:
            raise ArtefactError(
                f"expected the file itself at {path}, got a pointer of Git LFS to it; run 'git lfs "
                f"pull' in {path.parent}, or download the file"
            )


def make_folder(folder: str | Path) -> Path:
    """Creates a folder and its parents unless it exists."""
    folder = Path(folder)
    if "\0" in str(folder):
        raise ValueError(f"expected the path of a folder, got {str(folder)!r:.60}")
    with writing(folder):
        if folder.exists() and not folder.is_dir():
            raise NotADirectoryError(
                f"expected a folder to write to, got the file {folder}; choose another name"
            )
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def claim_folder(folder: str | Path, marker: str, *, force: bool = False) -> Path:
    """Creates a folder to write to, or accepts one that is empty or was written by this package.

    A folder was written by this package if its JSON file ``marker`` has one of our ``format``
    values; with ``force``, any folder is accepted.
    """
    folder = make_folder(folder)
    holds = any(p.name != LOCK and not _LEFT.fullmatch(p.name) for p in folder.iterdir())
    if not force and holds and not is_ours(folder, marker):
        raise FileExistsError(
            f"expected an empty folder or one that this package wrote, got {folder} with other "
            f"files in it; choose another folder, or pass force=True (--force) to write next to "
            f"them"
        )
    return folder


@contextlib.contextmanager
def locked(folder: Path, *, wait: bool) -> Iterator[None]:
    """Locks a folder against other processes that also lock it; a killed process releases it.

    If another process holds the lock, waits for it or raises ``RuntimeError``.
    """
    from filelock import FileLock, Timeout  # takes a tenth of a second; readers need no lock

    lock = FileLock(folder / LOCK)
    try:
        with writing(folder):
            lock.acquire(timeout=0)
    except Timeout:
        if not wait:
            raise RuntimeError(
                f"expected a folder that no other process is using, got {folder}; wait for the "
                f"other process to finish, or choose another folder"
            ) from None
        logger.info("waiting for another process that is using %s", folder)
        lock.acquire()
    try:
        yield
    finally:
        if os.name == "posix":  # elsewhere an open file stays
            # While it is held: a process that waits sees that it is gone, and makes another one.
            Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()
        if os.name != "posix":
            with contextlib.suppress(OSError):  # another process has it open
                Path(lock.lock_file).unlink(missing_ok=True)


def is_ours(folder: Path, marker: str) -> bool:
    """Whether this package wrote the folder's marker file."""
    try:
        found = json.loads((folder / marker).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(found, dict) and str(found.get("format", "")).startswith("unlearnable-")


@contextlib.contextmanager
def new_file(path: Path, *, needed: int | None = None) -> Iterator[BinaryIO]:
    """A new file, flushed to disk at the end; an existing file or link is replaced, not followed.

    ``needed`` is its size, for the error on a full disk.
    """
    with writing(path.parent, needed=needed):
        path.unlink(missing_ok=True)
        with path.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())


def same_bytes(one: Path, other: Path) -> bool:
    """Whether both are files, no links, with the same content."""
    if any(path.is_symlink() or not path.is_file() for path in (one, other)):
        return False
    if one.stat().st_size != other.stat().st_size:
        return False
    with one.open("rb") as here, other.open("rb") as there:
        while part := here.read(_PART):
            if part != there.read(_PART):
                return False
    return True


def json_bytes(content: Any) -> bytes:
    """Serialises JSON in the style of this package."""
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    # Names of folders need not be Unicode: what cannot be encoded becomes an escape of JSON.
    return text.encode("utf-8", "backslashreplace")


def write_json(path: Path, content: Any) -> None:
    """Writes JSON atomically, by renaming a temporary file."""
    write_bytes(path, json_bytes(content))


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file atomically, by renaming a temporary file."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        with new_file(partial, needed=len(content)) as file:
            file.write(content)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
