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
    """What :meth:`Outcome.on_top` was given."""

    kind: str
    parts: dict[str, Any]
    epsilon: float | None
    norm: str


class Outcome:
    """The part of :class:`~.run.Run` that takes what an algorithm has learned.

    Attributes:
        history: Records of :meth:`log`.
        results: What :meth:`result` was given: kind -> parts.
        tops: What :meth:`on_top` was given, from the lowest up.
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

    @property
    def rows(self) -> RowStore:
        """Sample-wise perturbations by image index: float in [0, 1] units, rounded when written."""
        if self._rows is None:
            raise RuntimeError("expected a run that learns perturbations, got one that trains")
        return self._rows

    def mask(self, index: Tensor) -> Mask | None:
        """How much of their rows images show, by index; None where they show all of them.

        For the search's ``mask``, and for :func:`~.mask.protected` where images are seen with rows.
        """
        return None if self._mask is None else self._mask(index)

    def result(self, kind: str, **parts: Tensor | str | float) -> None:
        """The result of a run that does not write :attr:`rows`.

        Args:
            kind: ``"class-wise"`` with ``rows``, in [0, 1] units; ``"pixel"`` with ``positions``
                and ``colours``; ``"shift"`` with ``colours``, (K, C), in [0, 1] units;
                ``"convolution"`` with ``kernels`` and ``normalize``; ``"procedural"`` with
                ``generator``, ``seed`` and what the generator takes.
            parts: Tensors and plain values. Floats are rounded when they are kept.
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
        """What is done to images after their rows were added, by class: beside the rows.

        Args:
            kind: As for :meth:`result`; found by class.
            epsilon: Its own budget, in [0, 1] units; of all but ``"pixel"`` and ``"convolution"``.
            norm: Of the budget.
            parts: As for :meth:`result`.
        """
        self.tops.append(OnTop(kind, parts, epsilon, norm))

    def tally(self, name: str, total: Tensor, count: int) -> None:
        """Adds to a sum over the steps of this loop, which :meth:`mean` divides after the loop.

        Args:
            name: Of what is summed.
            total: Sum over ``count`` images, a scalar.
            count: Images of this process.
        """
        self._loops.act()
        self._tallies.add(self._loops.depth - 1, name, total, count)

    def mean(self, name: str) -> float:
        """The mean over all images that the loops of this body have tallied, in all processes."""
        return self._tallies.mean(self._loops.depth, name)

    def log(self, **values: float | Tensor) -> None:
        """Keeps a record in :attr:`history` and shows it beside the progress bar."""
        self._loops.act()
        record = {name: float(value) for name, value in values.items()}
        self.history.append(record)
        self._progress.note(record)
        if self._callback is not None:
            self._callback(record)

    def seconds(self, whole: float) -> dict[str, float]:
        """Where the time went, by part, of ``whole`` seconds; needs a profiling progress."""
        parts = dict(self._progress.seconds)
        return parts | {"everything else": whole - sum(parts.values())}
