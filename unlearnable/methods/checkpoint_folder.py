"""The folder of a fit's checkpoints: which fit it belongs to, and its end."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..engine.checkpoint import STATE, CheckpointError
from ..engine.numbers import number
from ..io.files import LOCK, claim_folder, locked, write_json
from ..io.mapped import delete

ROW_FILE = "rows.bin"
_MARKER = "checkpoint.json"


@contextlib.contextmanager
def claimed_checkpoint(
    folder: Path, described: dict[str, Any], row_bytes: int | None
) -> Iterator[None]:
    """Locks a folder for a fit, whether it is new or holds a checkpoint of this very fit.

    Args:
        folder: Is created if it does not exist.
        described: What makes it this fit, as JSON.
        row_bytes: Size of the rows' file beside a state; None if the method has no rows.

    Raises:
        FileExistsError: The folder contains other files.
        RuntimeError: Another process is using it.
        CheckpointError: It belongs to another fit, or its rows are damaged.
    """
    partial = folder / f".{_MARKER}.partial"
    if not partial.exists():
        claim_folder(folder, _MARKER)
    with locked(folder, wait=False):
        partial.unlink(missing_ok=True)
        claim_folder(folder, _MARKER)
        kept = (folder / STATE).exists() or any(folder.glob("once-*"))
        if kept and (folder / _MARKER).exists():
            _compare(json.loads((folder / _MARKER).read_text("utf-8")), described, folder)
        else:
            write_json(folder / _MARKER, described)
        _check_rows(folder, row_bytes)
        yield


def checked_folder(checkpoint: Any) -> str | Path | None:
    """A checkpoint's folder as it was given; raises ``TypeError`` if it is none."""
    if checkpoint is None or isinstance(checkpoint, (str, Path)):
        return checkpoint
    if isinstance(checkpoint, os.PathLike):
        return Path(checkpoint)
    raise TypeError(f"expected the checkpoint's folder, got {checkpoint!r:.60}")


def checked_every(seconds: Any) -> float:
    """Seconds between checkpoints; raises ``ValueError`` if they are negative."""
    every = number("checkpoint_every", seconds, finite=False)
    if every < 0:
        raise ValueError(f"expected checkpoint_every >= 0 seconds, got {seconds}")
    return every


def remove_checkpoint(folder: str | Path) -> None:
    """Deletes a fit's files from a folder, and the folder if nothing else is in it."""
    folder = Path(folder)
    # The marker last: until then the folder is still known as a checkpoint.
    for pattern in (STATE, "once-*", f"{ROW_FILE}*", ".*.partial", LOCK, _MARKER):
        for file in folder.glob(pattern):
            delete(file)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def _check_rows(folder: Path, row_bytes: int | None) -> None:
    """Rows belong to a state: without one they go, and with one they must be whole."""
    if not (folder / STATE).exists():
        for file in folder.glob(f"{ROW_FILE}*"):
            file.unlink()
    elif row_bytes is not None:
        size = (folder / ROW_FILE).stat().st_size if (folder / ROW_FILE).exists() else 0
        if size != row_bytes:
            raise CheckpointError(
                f"expected complete rows in {folder / ROW_FILE}, got a damaged or missing file; "
                f"delete {folder} to start again"
            )


def _compare(found: dict[str, Any], expected: dict[str, Any], folder: Path) -> None:
    """Raises ``CheckpointError`` unless a checkpoint belongs to this fit."""
    there, here = _flat(found), _flat(json.loads(json.dumps(expected)))
    names = [n for n in sorted(there.keys() | here.keys()) if there.get(n) != here.get(n)]
    differences = [f"{n}: {there.get(n)!r} there, {here.get(n)!r} here" for n in names]
    if differences:
        raise CheckpointError(
            f"expected a checkpoint of the same fit in {folder}, found that of another one "
            f"({'; '.join(differences)}); choose another folder, or delete this one"
        )


def _flat(content: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in content.items():
        name = prefix + name
        flat |= _flat(value, f"{name}.") if isinstance(value, dict) else {name: value}
    return flat
