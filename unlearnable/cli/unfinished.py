"""What an interrupted command leaves beside its folder, so that the same one continues."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._version import __version__
from ..io.files import LOCK, locked, make_folder, write_json

if TYPE_CHECKING:
    from ..data.image_folder import ImageFolder
    from ..photos.plan import Plan

logger = logging.getLogger(__name__)
_PLAN, _LEARNING, _FORMAT = "plan.json", "learning", "unlearnable-plan"


def beside(out: str | Path, word: str) -> Path:
    """The folder that belongs to ``out``: ``photos/out-key`` for ``photos/out`` and ``key``."""
    path = Path(out)
    path = path if path.name not in ("", "..") else path.resolve()
    return path.with_name(f"{path.name}-{word}")


class Unfinished:
    """The folder ``out-unfinished``: the plan, which the same command resumes, and the state.

    Args:
        out: The command's output folder.
        request: The command's options, as plain values.
        datasets: The photos read; if files were added, removed or changed, work starts over.
    """

    def __init__(self, out: str, request: dict[str, Any], datasets: list[ImageFolder]) -> None:
        self._folder = beside(out, "unfinished")
        known = {"version": __version__, "files": _digest_of_files(datasets)}
        self._request = json.loads(json.dumps(request)) | known
        self._key: str | None = None

    @property
    def checkpoint(self) -> str:
        """Folder that keeps the state of the learning."""
        return str(self._folder / _LEARNING)

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Keeps other processes from the folder, and removes it if nothing is kept in the end.

        Raises:
            RuntimeError: Another process is writing to the same output folder.
        """
        make_folder(self._folder)
        try:
            with locked(self._folder, wait=False):
                yield
        finally:
            with contextlib.suppress(OSError):
                self._folder.rmdir()

    def planned(self) -> dict[str, Any] | None:
        """The plan of an interrupted run of this command; what other commands left is removed.

        Raises:
            FileExistsError: The folder holds something else.
        """
        if not self._folder.exists():
            return None
        found = self._read()
        self._key = None if found is None else found.get("key")
        if found is None and any(path.name != LOCK for path in self._folder.iterdir()):
            raise FileExistsError(
                f"expected no folder {self._folder}, because unfinished work is kept there, got "
                f"one with other files; move it away, or choose another name for the copies"
            )
        if found is not None and found.get("request") == self._request:
            logger.info("Continuing the work kept in %s.", self._folder)
            plan: dict[str, Any] = found["plan"]
            return plan
        if found is not None:
            logger.info(
                "Starting over: the photos or the options have changed since the work in %s was "
                "interrupted.",
                self._folder,
            )
            self.remove()
        return None

    def exists(self) -> bool:
        """Whether anything is kept."""
        return (self._folder / _PLAN).is_file()

    def __str__(self) -> str:
        return str(self._folder)

    def keep(self, plan: Plan) -> None:
        """Saves the plan."""
        self._folder.mkdir(parents=True, exist_ok=True)
        content = {"format": _FORMAT, "request": self._request, "plan": plan.to_dict()}
        write_json(self._folder / _PLAN, content | {"key": self._key})

    def keep_key(self, key: str) -> None:
        """Records that the key was saved, while there are no copies that need it."""
        if (found := self._read()) is not None:
            self._key = str(Path(key).absolute())
            write_json(self._folder / _PLAN, found | {"key": self._key})

    def saved(self, key: str) -> bool:
        """Whether an unfinished run saved this key, so that it may be replaced."""
        return self._key == str(Path(key).absolute())

    def remove(self) -> None:
        """Deletes this package's files from the folder, and the folder if nothing else is in it."""
        from ..methods.checkpoint_folder import remove_checkpoint

        remove_checkpoint(self.checkpoint)
        (self._folder / _PLAN).unlink(missing_ok=True)
        if self._folder.is_dir() and not any(self._folder.iterdir()):
            shutil.rmtree(self._folder)

    def _read(self) -> dict[str, Any] | None:
        try:
            content = json.loads((self._folder / _PLAN).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        ours = isinstance(content, dict) and content.get("format") == _FORMAT
        return content if ours else None


def _digest_of_files(datasets: list[ImageFolder]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for dataset in datasets:
        for path, label in dataset.samples:
            name = os.path.relpath(path, dataset.root)
            stamp = ""
            with contextlib.suppress(OSError):  # the survey names the files that are not there
                found = Path(path).stat()
                stamp = f"{found.st_size} {found.st_mtime_ns}"
            digest.update(f"{name}\0{label}\0{stamp}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()
