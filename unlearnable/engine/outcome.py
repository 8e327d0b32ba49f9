"""What comes out of a run: rows, other results, records, and where the time went."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor

from .checkpoint import RowStore
from .loops import Loops
from .mask import Mask
from .progress import Progress
from .tallies import Tallies


class OnTop(NamedTuple):
    """The arguments of :meth:`Outcome.on_top`."""

    kind: str
    parts: dict[str, Any]
    epsilon: float | None
    norm: str


class Outcome:
    """The part of :class:`~.run.Run` that collects what an algorithm has learned.

    Attributes:
        history: Records from :meth:`log`.
        results: Arguments of :meth:`result`: kind -> parts.
        tops: Arguments of :meth:`on_top`, lowest first.
    """

    _loops: Loops
    _tallies: Tallies

    def __init__(
        self,
        rows: RowStore | None,
        mask: Callable[[Tensor], Mask] | None,
        progress: Progress,
        callback: Callable[[dict[str, Any]], None] | None,
    ) -> None:
        self.history: list[dict[str, Any]] = []
        self.results: dict[str, dict[str, Any]] = {}
        self.tops: list[OnTop] = []
        self._rows = rows
        self._mask = mask
        self._progress = progress
        self._callback = callback
        self._outer = 0  # records outside of loops, which a resumed run comes to again
        self._known = 0  # how many of these were restored

    @property
    def rows(self) -> RowStore:
        """Sample-wise perturbations by image index: float in [0, 1] units, rounded when written."""
        if self._rows is None:
            raise RuntimeError(
                "expected a run that learns perturbations, got one that trains a network"
            )
        return self._rows

    def mask(self, index: Tensor) -> Mask | None:
        """How much of their rows images show, by index; None if they show all of them.

        Use it as the search's ``mask``, and with :func:`~.mask.protected` for images with rows.
        """
        return None if self._mask is None else self._mask(index)

    def result(self, kind: str, **parts: Tensor | str | float) -> None:
        """The result of a run that does not write :attr:`rows`.

        Args:
            kind: ``"class-wise"`` with ``rows``, in [0, 1] units; ``"pixel"`` with ``positions``
                and ``colours``; ``"shift"`` with ``colours``, (K, C), in [0, 1] units;
                ``"convolution"`` with ``kernels`` and ``normalize``; ``"procedural"`` with
                ``generator``, ``seed`` and what the generator takes.
            parts: Tensors and plain values. Floats are rounded when they are stored.
        """
        self.results[kind] = parts

    def on_top(
        self,
        kind: str,
        *,
        epsilon: float | None = None,
        norm: str = "Linf",
        **parts: Tensor | str | float,
    ) -> None:
        """Declares what is done to images by class after their rows were added.

        Args:
            kind: As in :meth:`result`; found by class.
            epsilon: Its own budget, in [0, 1] units; for all kinds except ``"pixel"`` and
                ``"convolution"``.
            norm: Norm of the budget.
            parts: As in :meth:`result`.
        """
        self.tops.append(OnTop(kind, parts, epsilon, norm))

    def tally(self, name: str, total: Tensor, count: int) -> None:
        """Adds to a sum over the steps of this loop, which :meth:`mean` divides after the loop.

        Args:
            name: Name of the quantity.
            total: Sum over ``count`` images, a scalar.
            count: Number of images in this process.
        """
        self._loops.act()
        self._tallies.add(self._loops.depth - 1, name, total, count)

    def mean(self, name: str) -> float:
        """The mean over all images tallied by the loops of this body, in all processes."""
        return self._tallies.mean(self._loops.depth, name)

    def log(self, **values: float | Tensor) -> None:
        """Adds a record to :attr:`history` and shows it next to the progress bar."""
        self._loops.act()
        if not self._loops.depth:
            self._outer += 1
            if self._outer <= self._known:
                return
        record = {name: float(value) for name, value in values.items()}
        self.history.append(record)
        self._progress.note(record)
        if self._callback is not None:
            self._callback(dict(record))

    def seconds(self, whole: float) -> dict[str, float]:
        """How ``whole`` seconds were spent, by part; requires a profiling progress display."""
        parts = dict(self._progress.seconds)
        return parts | {"everything else": whole - sum(parts.values())}
