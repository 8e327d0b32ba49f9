"""Checkpoints: the complete state of a run in one file that is replaced in one go.

Nothing is pickled: tensors are kept as safetensors, everything else as JSON beside them.
"""

from __future__ import annotations

import errno
import json
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from .distributed import Group
from .interrupts import Deferred, Interrupt, in_words
from .sizes import readable_size

STATE = "state.safetensors"
_GRACE = 5.0  # seconds in which several processes may get one Ctrl-C twice


class CheckpointError(ValueError):
    """A checkpoint is damaged, or belongs to something else."""


class RowStore(Protocol):
    """Where a run writes perturbations, in [0, 1] units, to be rounded and clipped."""

    written: Tensor  # whether each row was, bool of shape (N,)

    def __getitem__(self, index: Tensor, /) -> Tensor: ...

    def __setitem__(self, index: Tensor, delta: Tensor, /) -> None: ...

    def flush(self) -> None: ...

    def load(self) -> None: ...

    def start_journal(self, number: int) -> None: ...

    def roll_back(self, number: int) -> None: ...


def save_tree(path: Path, tree: Any) -> None:
    """Atomically writes nested dicts and lists of tensors and plain values.

    Raises:
        OSError: The disk is full or read-only; an existing file at ``path`` is left intact.
    """
    tensors: dict[str, Tensor] = {}
    described = json.dumps(_describe(tree, tensors))
    partial = path.with_name(f".{path.name}.partial")
    try:
        save_tensors(partial, tensors, {"tree": described})
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def save_tensors(
    path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None
) -> None:
    """Writes a safetensors file and flushes it to disk.

    Raises:
        OSError: The disk is full or read-only.
    """
    new = not path.exists()
    path.touch()
    mode = stat.S_IMODE(path.stat().st_mode)
    try:
        save_file(tensors, path, metadata=metadata)
        path.chmod(mode)  # safetensors makes a file that only its owner can read
    except SafetensorError as error:
        if new:
            path.unlink(missing_ok=True)
        full = "os error 28" in str(error)
        problem = str(error)
        if full:
            size = sum(tensor.nbytes for tensor in tensors.values())
            problem = f"not enough space for {readable_size(size)}: {os.strerror(errno.ENOSPC)}"
        raise OSError(errno.ENOSPC if full else errno.EIO, problem, str(path)) from error
    with path.open("r+b") as file:
        os.fsync(file.fileno())


def load_tree(path: Path) -> Any:
    """Reads a file written by :func:`save_tree`; tensors are on the CPU.

    Raises:
        CheckpointError: The file is damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            described = json.loads(file.metadata()["tree"])
            # Copies: the file would stay mapped, and Windows would not replace it any more.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
            return _rebuild(described, tensors)
    except (SafetensorError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise CheckpointError(
            f"expected a complete checkpoint file at {path}, got a damaged one ({error}); delete "
            f"{path.parent} to start again"
        ) from error


def _describe(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, Tensor):
        name = str(len(tensors))
        last = value.ndim == 4 and value.is_contiguous(memory_format=torch.channels_last)
        tensors[name] = value.detach().cpu().clone(memory_format=torch.contiguous_format)
        return {"tensor": name, "channels_last": last and not value.is_contiguous()}
    if isinstance(value, dict):
        return {"dict": [[key, _describe(item, tensors)] for key, item in value.items()]}
    if isinstance(value, (list, tuple)):
        return {"list": [_describe(item, tensors) for item in value]}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(
        f"expected tensors, dicts, lists and plain values in a checkpoint, got a "
        f"{type(value).__name__}"
    )


def _rebuild(described: Any, tensors: dict[str, Tensor]) -> Any:
    if not isinstance(described, dict):
        return described
    if "list" in described:
        return [_rebuild(item, tensors) for item in described["list"]]
    if "dict" in described:
        return {key: _rebuild(item, tensors) for key, item in described["dict"]}
    tensor = tensors[described["tensor"]]
    if described["channels_last"]:
        return tensor.contiguous(memory_format=torch.channels_last)
    return tensor


class Checkpoint:
    """Where and when a run saves its state.

    Args:
        folder: Folder for this run only.
        rows: The rows that the run writes, or None if it writes none to disk.
        group: The run's processes.
        every: Seconds between checkpoints; 0 means after every step.

    Attributes:
        number: Number of the last checkpoint; 0 before the first.
    """

    def __init__(
        self, folder: Path, rows: RowStore | None, group: Group, *, every: float = 300.0
    ) -> None:
        self.folder = folder
        self.number = 0
        self._rows = rows
        self._group = group
        self._every = every
        self._last = time.monotonic()
        self._deferred = Deferred(grace=_GRACE if group.size > 1 else 0.0)
        self._agreed: Interrupt = KeyboardInterrupt

    def after_step(self, save: Callable[[], None]) -> None:
        """Calls ``save`` if a checkpoint is due.

        Raises:
            KeyboardInterrupt: Ctrl-C was pressed during the step, or SIGTERM arrived, which the
                command line turns into ``Terminated``; the state is saved.
        """
        now, end = self.wanted()
        if now:
            save()
        if end:
            raise self._interrupt()

    def end_if_asked(self, save: Callable[[], None]) -> None:
        """Saves and raises like :meth:`after_step`, after the last step, if interrupted."""
        if self._agreed_on(0) > 1:
            save()
            raise self._interrupt()

    def _interrupt(self) -> KeyboardInterrupt:
        return self._agreed(
            f"{in_words(self._agreed)}; the work so far is kept: run the same again with "
            f"checkpoint={str(self.folder)!r} to continue"
        )

    @property
    def what_is_kept(self) -> str:
        """What an interrupt leaves that came at once, for a message."""
        if not self.number:
            return f", before the first checkpoint in {self.folder}; start again"
        return (
            f"; checkpoint {self.number} is kept: run the same again with "
            f"checkpoint={str(self.folder)!r} to continue from there"
        )

    def wanted(self) -> tuple[bool, bool]:
        """Whether to save now and whether to stop afterwards; all processes agree."""
        due = self._group.rank == 0 and time.monotonic() - self._last >= self._every
        agreed = self._agreed_on(int(due))
        return agreed > 0, agreed > 1

    def _agreed_on(self, due: int) -> int:
        """What all processes do: 0 for nothing, 1 to save, more to end as an interrupt asked."""
        came = self._deferred.rank
        agreed = self._group.max(1 + came if came else due)
        if agreed > 1:
            self._agreed = Deferred.of_rank(agreed - 1)
        return agreed

    def save(self, state: dict[str, Any]) -> None:
        """Saves the current state and rows.

        Raises:
            OSError: The disk is full; the previous checkpoint is intact.
        """
        try:
            if self._rows is not None:
                self._rows.flush()
            self._group.wait()
            with self._group.rank_zero_first() as first:
                if first:
                    save_tree(self.folder / STATE, state | {"number": self.number + 1})
        except OSError as error:
            before = f"checkpoint {self.number} is intact" if self.number else "this was the first"
            raise OSError(
                error.errno,
                f"could not write a checkpoint, the state of unfinished work ({error.strerror}); "
                f"{before}. Free some space, then run the same again",
                str(self.folder),
            ) from error
        self.number += 1
        if self._rows is not None:
            self._rows.start_journal(self.number)
        self._last = time.monotonic()

    def load(self) -> dict[str, Any] | None:
        """The last saved state, with its rows; None before the first checkpoint."""
        path = self.folder / STATE
        state: dict[str, Any] | None = load_tree(path) if path.exists() else None
        self.number = 0 if state is None else state["number"]
        if self._rows is not None:
            with self._group.rank_zero_first() as first:
                if first:
                    self._rows.roll_back(self.number)
            self._rows.load()
            self._rows.start_journal(self.number)
        return state

    def keep(self, name: str, tree: Any) -> None:
        """Stores something that will not change."""
        with self._group.rank_zero_first() as first:
            if first:
                save_tree(self.folder / f"once-{name}.safetensors", tree)

    def kept(self, name: str) -> Any:
        """Reads what :meth:`keep` stored."""
        return load_tree(self.folder / f"once-{name}.safetensors")

    # Ctrl-C and SIGTERM

    def __enter__(self) -> Checkpoint:
        """From here on, the first interrupt waits for the end of the step and saves."""
        self._deferred.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, *exc_info: object) -> None:
        self._deferred.__exit__()
        if self._deferred.kind is not None and kind is None:
            came = self._deferred.kind
            raise came(f"{in_words(came)} after the last step")
