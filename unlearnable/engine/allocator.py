"""Memory that a run's steps free is kept for its next steps, where the C library is glibc."""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
from collections.abc import Callable, Iterator

import torch

# Numbers of mallopt's parameters, from malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
_KEPT = {_MMAP_THRESHOLD: 1 << 30, _TRIM_THRESHOLD: (1 << 31) - 1, _TOP_PAD: 64 << 20}
# What glibc's own thresholds grow to in a process that uses large buffers.
_USUAL = {_MMAP_THRESHOLD: 32 << 20, _TRIM_THRESHOLD: 64 << 20, _TOP_PAD: 128 << 10}

_lock = threading.Lock()
_inside = 0


@contextlib.contextmanager
def memory_kept(device: torch.device) -> Iterator[None]:
    """Lets the process keep the memory that is freed inside, and returns it at the end.

    By default glibc hands a large buffer back to the system when it is freed, so that the next step
    gets pages of zeros for the same buffer, at a page fault each. Does nothing for devices other
    than the CPU and for other C libraries.
    """
    global _inside
    if device.type != "cpu" or not _is_glibc():
        yield
        return
    libc = ctypes.CDLL(None)
    with _lock:
        _inside += 1
        if _inside == 1:
            _set(libc.mallopt, _KEPT)
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0:
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
