"""Memory-mapped files, which Windows does not delete as long as they are mapped."""

from __future__ import annotations

import contextlib
import gc
import mmap
import os
import shutil
import weakref
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import DTypeLike, NDArray

_MAPS: weakref.WeakKeyDictionary[mmap.mmap, Path] = weakref.WeakKeyDictionary()


def map_file(
    file: Path | BinaryIO, dtype: DTypeLike, mode: Any, shape: tuple[int, ...] | None = None
) -> NDArray[Any]:
    """A file as an array; arguments as those of ``numpy.memmap``."""
    data = np.memmap(file, dtype, mode, shape=shape)
    path = file if isinstance(file, Path) else Path(file.name)
    _MAPS[data._mmap] = path.absolute()  # type: ignore[attr-defined]
    return data.view(np.ndarray)


def is_mapped(path: Path) -> bool:
    """Whether this process maps a file."""
    return path.absolute() in _MAPS.values()


def delete(place: Path) -> None:
    """Deletes a file, or a folder with all that is in it.

    Where files that this process maps cannot be deleted, they go when they are no longer mapped.

    Raises:
        OSError: It cannot be deleted for another reason.
    """
    try:
        _delete(place)
    except OSError:
        place = place.absolute()
        maps = [one for one, path in list(_MAPS.items()) if place in (path, *path.parents)]
        if not maps:
            raise
        for one in maps:
            weakref.finalize(one, _delete_unmapped, place, os.getpid())


def _delete(place: Path) -> None:
    if place.is_dir():
        shutil.rmtree(place, ignore_errors=True)  # all that can go
        if place.exists():
            shutil.rmtree(place)
    else:
        place.unlink(missing_ok=True)


def _delete_unmapped(place: Path, process: int) -> None:
    if os.getpid() != process:  # a forked worker, which holds a copy of the map
        return
    try:
        _delete(place)
    except OSError:  # the program ends, or there is another map: it may hang in a circle
        gc.collect()
        with contextlib.suppress(OSError):
            _delete(place)
