"""Writing files so that nothing of anybody's is lost and nothing is left half-written."""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

LOCK = ".unlearnable-lock"

logger = logging.getLogger(__name__)


def claim_folder(folder: str | Path, marker: str, *, force: bool = False) -> Path:
    """Makes a folder to write into, or takes one that is empty or was written by this package.

    Args:
        folder: Where to write.
        marker: Name of a JSON file that tells a folder of ours by its ``format``.
        force: Take the folder whatever it holds.

    Raises:
        FileExistsError: It holds something else.
        NotADirectoryError: It is a file.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"expected a folder to write into, got the file {folder}")
    folder.mkdir(parents=True, exist_ok=True)
    holds = any(path.name != LOCK for path in folder.iterdir())
    if not force and holds and not is_ours(folder, marker):
        raise FileExistsError(
            f"expected an empty folder or one that this package wrote, got {folder} with other "
            f"files in it; choose another one, or pass force=True (--force) to write beside them"
        )
    return folder


@contextlib.contextmanager
def locked(folder: Path, *, wait: bool) -> Iterator[None]:
    """Keeps other processes that ask for it out of a folder; a killed process lets go of it.

    Args:
        folder: Exists.
        wait: Wait for the other process instead of refusing.

    Raises:
        RuntimeError: Another process has it, and ``wait`` is off.
    """
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        if not wait:
            raise RuntimeError(
                f"expected a folder that no other process works in, got {folder}; wait for the "
                f"other one to end, or choose another folder"
            ) from None
        logger.info("waiting for another process that works in %s", folder)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def is_ours(folder: Path, marker: str) -> bool:
    """Whether this package wrote the folder's marker file."""
    try:
        found = json.loads((folder / marker).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and str(found.get("format", "")).startswith("unlearnable-")


def write_json(path: Path, content: Any) -> None:
    """Writes JSON beside its place and renames it there."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        # Names of folders need not be Unicode: what cannot be encoded becomes an escape of JSON.
        with partial.open("w", encoding="utf-8", errors="backslashreplace") as file:
            json.dump(content, file, indent=2, ensure_ascii=False)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
