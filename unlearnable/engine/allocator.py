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
    """While it is open, the process keeps the memory that it frees; :meth:`close` returns it.

    By default glibc hands a large buffer back to the system when it is freed, so that the next step
    gets pages of zeros for the same buffer, at a page fault each. Does nothing for devices other
    than the CPU and for other C libraries.

    Args:
        device: Where a run works.
    """

    def __init__(self, device: torch.device) -> None:
        self._end: weakref.finalize[[], KeptMemory] | None = None
        if device.type == "cpu" and _is_glibc():
            _enter()
            self._end = weakref.finalize(self, _leave)
            self._end.atexit = False

    def close(self) -> None:
        """The last one that closes, or is forgotten, sets things back."""
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
