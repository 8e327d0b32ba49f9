"""Memory that a run's steps free is kept for its next steps, where the C library is glibc."""

from __future__ import annotations

import ctypes
import os
import threading
import weakref
from collections.abc import Callable

import torch

# Numbers of mallopt's parameters, from malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
_KEPT = {_MMAP_THRESHOLD: 1 << 30, _TRIM_THRESHOLD: (1 << 31) - 1, _TOP_PAD: 64 << 20}
# What glibc's own thresholds grow to in a process that uses large buffers.
_USUAL = {_MMAP_THRESHOLD: 32 << 20, _TRIM_THRESHOLD: 64 << 20, _TOP_PAD: 128 << 10}

_lock = threading.RLock()  # a forgotten one may be collected while it is held
_open = 0


class KeptMemory:
    """While open, the process keeps freed memory; :meth:`close` returns it to the system.

    By default glibc returns a large freed buffer to the system, so that the next step gets the same
    buffer as zeroed pages, at a page fault each. Has no effect on devices other than the CPU and
    with other C libraries.

    Args:
        device: Device of a run.
    """

    def __init__(self, device: torch.device) -> None:
        self._end: weakref.finalize[[], KeptMemory] | None = None
        if device.type == "cpu" and _is_glibc():
            _enter()
            self._end = weakref.finalize(self, _leave)
            self._end.atexit = False

    def close(self) -> None:
        """The last one that is closed or garbage-collected restores the default."""
        if self._end is not None:
            self._end()


def _enter() -> None:
    global _open
    with _lock:
        _open += 1
        if _open == 1:
            _set(ctypes.CDLL(None).mallopt, _KEPT)


def _leave() -> None:
    global _open
    with _lock:
        _open -= 1
        if _open == 0:
            libc = ctypes.CDLL(None)
            _set(libc.mallopt, _USUAL)
            libc.malloc_trim(0)


def _is_glibc() -> bool:
    try:
        return (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc")
    except (AttributeError, ValueError, OSError):  # not on Windows, or a name it does not know
        return False


def _set(mallopt: Callable[[int, int], int], values: dict[int, int]) -> None:
    for parameter, value in values.items():
        if not mallopt(parameter, value) and parameter == _MMAP_THRESHOLD:
            mallopt(parameter, _USUAL[parameter])  # the most that glibc before 2.34 takes
