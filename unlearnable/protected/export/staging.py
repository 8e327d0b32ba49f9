"""The hidden folder in which an export grows: thrown away with it, or kept to be continued."""

from __future__ import annotations

import contextlib
import logging
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ...engine.sizes import readable_size
from ...io.files import locked, write_error, writing
from .folder_names import LONGEST, shortened

JOURNAL = "journal.jsonl"  # beside the files of an export that can be continued
_FILES = "files"
_ROOM = 64  # bytes of a name for what is put behind the folder's own
logger = logging.getLogger(__name__)


def _prefix(folder: Path) -> str:
    return f".{shortened(folder.name, LONGEST - _ROOM)}.unfinished-"


def is_staging(path: Path, folder: Path) -> bool:
    """Whether a path was left by an unfinished export to a folder, inside or next to it."""
    return path.name.startswith(_prefix(folder)) and not path.is_symlink()


@contextlib.contextmanager
def thrown_away(folder: Path, place: Path) -> Iterator[Path]:
    """A new folder in ``place``, which is deleted at the end."""
    with writing(folder):
        place.mkdir(parents=True, exist_ok=True)
        name = shortened(folder.name, LONGEST - _ROOM)
        partial = Path(tempfile.mkdtemp(prefix=f".{name}.partial-", dir=place))
    try:
        yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextlib.contextmanager
def kept(folder: Path, place: Path, settings: str) -> Iterator[Path]:
    """The folder in ``place`` for an export with these settings; failures keep what is finished.

    Remains of exports with other settings are deleted unless a process is using them: each export
    to ``folder`` has a separate place, depending on its settings.

    Raises:
        RuntimeError: Another process is writing the same export.
    """
    staging = place / f"{_prefix(folder)}{settings}"
    with writing(folder):
        place.mkdir(parents=True, exist_ok=True)
        for other in place.iterdir():
            if other != staging and is_staging(other, folder) and other.is_dir():
                _delete(other)
        if staging.is_symlink():
            staging.unlink()
        staging.mkdir(mode=0o700, exist_ok=True)
    with _alone(staging):
        files = staging / _FILES
        with writing(folder):
            files.mkdir(exist_ok=True)
        try:
            yield files
        except BaseException:
            if (staging / JOURNAL).exists():
                logger.warning(
                    "the finished copies are kept in %s: run the same command again to continue "
                    "with them, or delete that folder to start over or free the space",
                    staging,
                )
            else:
                shutil.rmtree(staging, ignore_errors=True)
            raise
        shutil.rmtree(staging, ignore_errors=True)


@contextlib.contextmanager
def _alone(staging: Path) -> Iterator[None]:
    """Locks the folder, and removes it if it is empty in the end."""
    try:
        with locked(staging, wait=False):
            yield
    finally:
        with contextlib.suppress(OSError):  # on Windows, the lock kept it
            staging.rmdir()


def _delete(staging: Path) -> None:
    with contextlib.suppress(RuntimeError), _alone(staging):
        shutil.rmtree(staging, ignore_errors=True)
        logger.info("deleted the remains of an unfinished export with other settings: %s", staging)


def failed(error: OSError, folder: Path, partial: Path, *, stays: bool) -> OSError:
    """The error of writing an export, with the size written so far."""
    size = sum(path.stat().st_size for path in partial.rglob("*") if path.is_file())
    done = f" after {readable_size(size)} of the export"
    return write_error(error, folder, after=done if stays else f"{done}, which was deleted")
