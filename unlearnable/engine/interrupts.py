"""Ctrl-C, SIGTERM and SIGHUP: exceptions raised at once, or put off to the end of a step."""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from ..errors import Terminated

Interrupt = type[KeyboardInterrupt]
# The second comes when a terminal is closed or a connection is lost; Windows does not have it.
_TERMINATE = [getattr(signal, n) for n in ("SIGTERM", "SIGHUP") if hasattr(signal, n)]
_KINDS: tuple[Interrupt, ...] = (KeyboardInterrupt, Terminated)  # by rank: processes agree on one


def in_words(kind: Interrupt) -> str:
    """The kind of interrupt, for a message."""
    return "terminated" if issubclass(kind, Terminated) else "interrupted"


@contextlib.contextmanager
def sigterm_raises() -> Iterator[None]:
    """Makes SIGTERM, which clusters send before they kill a process, raise ``Terminated`` once.

    So does SIGHUP, which is sent when the terminal is closed. Works only in the main thread and
    where there is no other handler, as under nohup, and is undone afterwards.
    """
    main = threading.current_thread() is threading.main_thread()
    numbers = [n for n in _TERMINATE if main and signal.getsignal(n) is signal.SIG_DFL]
    handler = _Terminate()
    try:
        for number in numbers:
            signal.signal(number, handler)
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)


class _Terminate:
    """A handler of SIGTERM and SIGHUP. Only the first one counts: several may send one."""

    def __init__(self) -> None:
        self._process = os.getpid()
        self.came = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # a forked worker ends as it would have without us
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        elif not self.came:
            self.note(number)
            raise Terminated

    def note(self, number: int) -> None:
        """Records that the signal came; a terminal that is closed can no longer be written to."""
        self.came = True
        for stream in (1, 2) if number != signal.SIGTERM else ():
            with contextlib.suppress(OSError):
                if stat.S_ISCHR(os.fstat(stream).st_mode):
                    with Path(os.devnull).open("wb") as nowhere:
                        os.dup2(nowhere.fileno(), stream)


class Deferred:
    """Inside, the first Ctrl-C is recorded instead of raised; a second one is raised.

    SIGTERM and SIGHUP are also recorded if :func:`sigterm_raises` handles them: a program with its
    own handler keeps it. In threads other than the main one, nothing is deferred.

    Args:
        grace: Seconds after the first one during which a second one is ignored, because torchrun
            forwards the Ctrl-C that its processes also get from the terminal.

    Attributes:
        kind: The interrupt that arrived, or None.
    """

    def __init__(self, grace: float = 0.0) -> None:
        self.kind: Interrupt | None = None
        self._grace = grace
        self._first = 0.0
        self._handlers: dict[signal.Signals, Any] = {}

    @property
    def rank(self) -> int:
        """The kind as a number, whose maximum processes agree on; 0 for none."""
        return 0 if self.kind is None else 1 + _KINDS.index(self.kind)

    @staticmethod
    def of_rank(rank: int) -> Interrupt:
        """The kind of a rank above 0."""
        return _KINDS[rank - 1]

    def __enter__(self) -> Deferred:
        if threading.current_thread() is not threading.main_thread():
            return self
        if signal.getsignal(signal.SIGINT) not in (None, signal.SIG_IGN):  # as in the background
            self._handlers[signal.SIGINT] = signal.signal(signal.SIGINT, self._on_interrupt)
        for number in _TERMINATE:
            if isinstance(signal.getsignal(number), _Terminate):
                self._handlers[number] = signal.signal(number, self._on_terminate)
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
        handler = self._handlers[signal.Signals(number)]
        if os.getpid() != handler._process:
            handler(number, frame)
        handler.note(number)
        self._note(Terminated)

    def _note(self, kind: Interrupt) -> None:
        self.kind, self._first = kind, time.monotonic()
