"""What a person sees of a run: bars, passes per second, and where the time went."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from tqdm.auto import tqdm

_BARS = 2  # loops shown, from the outermost


class Progress:
    """Progress bars for the loops of a run, and clocks for its parts.

    Args:
        show: Show bars if standard error is a terminal.
        title: Text to the left of the bars.
        profile: Record :attr:`seconds`; on a GPU this waits for it repeatedly.
        listener: Called with the share of image passes done, from 0 to 1, after each step.
        passes: Total number of image passes.

    Attributes:
        seconds: Time spent, by part.
    """

    def __init__(
        self,
        *,
        show: bool = True,
        title: str = "",
        profile: bool = False,
        listener: Callable[[float], None] | None = None,
        passes: int | None = None,
    ) -> None:
        self._show = show
        self._listener = listener
        self._passes = passes
        self._title = title
        self._profile = profile
        self._bars: list[tqdm[Any]] = []
        self._started: tuple[float, int] | None = None
        self._shown = 0.0
        self._timing = False
        self._noted: dict[str, str] = {}
        self.seconds: dict[str, float] = {}

    def open(self, depth: int, title: str, count: int, done: int) -> tqdm[Any] | None:
        """A bar for a loop inside ``depth`` others, or None for deeply nested ones."""
        if depth >= _BARS:
            return None
        label = f"{self._title}: {title}" if self._title and depth == 0 else title
        bar = tqdm(
            total=count,
            initial=done,
            desc=label,
            position=depth,
            leave=depth == 0,
            delay=1 if depth else 0,
            # None leaves the bar out where standard error is no terminal.
            disable=None if self._show else True,
        )
        self._bars.append(bar)
        return bar

    def advance(self, bar: tqdm[Any] | None, passes: int) -> None:
        """Called after a step; ``passes`` is the number of image passes so far."""
        now = time.perf_counter()
        if self._started is None:
            self._started = (now, passes)  # the first step warms everything up
        seconds, made = now - self._started[0], passes - self._started[1]
        if made > 0 and seconds > 0 and now - self._shown > 1:
            self._shown = now
            self._postfix({"passes/s": f"{made / seconds:,.0f}"})
        if bar is not None:
            bar.update()
        if self._listener is not None and self._passes:
            self._listener(min(1.0, passes / self._passes))

    def note(self, record: dict[str, Any]) -> None:
        """Shows values next to the outermost bar."""
        self._postfix({name: f"{value:.3g}" for name, value in record.items()})

    def _postfix(self, values: dict[str, str]) -> None:
        self._noted |= values
        if self._bars:
            self._bars[0].set_postfix(self._noted)

    def shut(self, bar: tqdm[Any] | None) -> None:
        """Closes a bar."""
        if bar is not None:
            bar.close()
            if bar in self._bars:
                self._bars.remove(bar)

    def close(self) -> None:
        """Closes all bars, innermost first."""
        for bar in reversed(self._bars):
            bar.close()
        self._bars.clear()

    @contextlib.contextmanager
    def timed(self, part: str, device: torch.device) -> Iterator[None]:
        """Adds the body's time to a part."""
        if not self._profile or self._timing:
            yield  # inside another part, whose time it is
            return
        self._timing = True
        start = self._clock(device)
        try:
            yield
        finally:
            self._timing = False
            spent = self._clock(device) - start
            self.seconds[part] = self.seconds.get(part, 0.0) + spent

    @staticmethod
    def _clock(device: torch.device) -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()
