"""Ctrl-C and SIGTERM: exceptions that are raised at once, or put off to the end of a step."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any

from ..errors import Terminated

Interrupt = type[KeyboardInterrupt]
_KINDS: tuple[Interrupt, ...] = (KeyboardInterrupt, Terminated)  # by rank: processes agree on one


def in_words(kind: Interrupt) -> str:
    """What happened, for a message."""
    return "terminated" if issubclass(kind, Terminated) else "interrupted"


@contextlib.contextmanager
def sigterm_raises() -> Iterator[None]:
    """SIGTERM, which clusters send before they end a process, raises ``Terminated``, once.

    Only in the main thread, and where nobody else listens to it; the handler before comes back.
    """
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    handler = _Terminate()
    signal.signal(signal.SIGTERM, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


class _Terminate:
    """A handler of SIGTERM. Only the first one counts: clusters and torchrun may both send it."""

    def __init__(self) -> None:
        self._process = os.getpid()
        self.came = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # a forked worker ends as it would have without us
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        elif not self.came:
            self.came = True
            raise Terminated


class Deferred:
    """While it is entered, the first Ctrl-C is noted and not raised; a second one is.

    SIGTERM is noted, too, where :func:`sigterm_raises` listens to it: a program that has a handler
    of its own keeps it. In other threads than the main one, nothing is put off.

    Args:
        grace: Seconds after the first in which no second one counts: torchrun passes on the Ctrl-C
            that its processes get from the terminal as well.

    Attributes:
        kind: What came, or None.
    """

    def __init__(self, grace: float = 0.0) -> None:
        self.kind: Interrupt | None = None
        self._grace = grace
        self._first = 0.0
        self._handlers: dict[signal.Signals, Any] = {}

    @property
    def rank(self) -> int:
        """Which kind came, as a number that processes agree on by its maximum; 0 for none."""
        return 0 if self.kind is None else 1 + _KINDS.index(self.kind)

    @staticmethod
    def of_rank(rank: int) -> Interrupt:
        """The kind of a rank above 0."""
        return _KINDS[rank - 1]

    def __enter__(self) -> Deferred:
        if threading.current_thread() is not threading.main_thread():
            return self
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        if handlers[signal.SIGINT] not in (None, signal.SIG_IGN):  # as of a job in the background
            self._handlers[signal.SIGINT] = signal.signal(signal.SIGINT, self._on_interrupt)
        if isinstance(handlers[signal.SIGTERM], _Terminate):
            self._handlers[signal.SIGTERM] = signal.signal(signal.SIGTERM, self._on_terminate)
        return self

    def __exit__(self, *exc_info: object) -> None:
        while self._handlers:
            signal.signal(*self._handlers.popitem())

    def _on_interrupt(self, number: int, frame: FrameType | None) -> None:
        if self.kind is None:
            self._note(KeyboardInterrupt)
        elif time.monotonic() >= self._first + self._grace:
            raise KeyboardInterrupt

    def _on_terminate(self, number: int, frame: FrameType | None) -> None:
        handler = self._handlers[signal.SIGTERM]
        if os.getpid() != handler._process:
            handler(number, frame)
        handler.came = True
        self._note(Terminated)

    def _note(self, kind: Interrupt) -> None:
        self.kind, self._first = kind, time.monotonic()
