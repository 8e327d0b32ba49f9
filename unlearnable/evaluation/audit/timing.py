"""How long an audit is going to take: measured on a few steps first, then on its own cells."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence

from ...data.cache import ImageStore
from ...protected.metrics import spread
from ..report.figures import CLEAN, Cell
from .cells import Ledger, PlannedCell
from .data import AuditData, part_of

Measure = Callable[[PlannedCell, ImageStore, ImageStore, int], Cell]
_STEPS = 2


class Clock:
    """Remaining time by kind of cell: estimated at first, then measured, also from stored cells."""

    def __init__(self, cells: Iterable[PlannedCell], ledger: Ledger) -> None:
        self._taken: dict[tuple[str, str], list[float]] = {}
        self._expected: dict[tuple[str, str], float] = {}
        for cell in cells:
            if cell in ledger:
                self.took(cell, ledger[cell].seconds)

    def expect(self, kind: tuple[str, str], seconds: float) -> None:
        """Sets the estimated time of a kind of cell that has not been measured yet."""
        self._expected[kind] = seconds

    def took(self, cell: PlannedCell, seconds: float) -> None:
        """Records the time that a cell took."""
        self._taken.setdefault(cell.kind, []).append(seconds)

    def knows(self, kind: tuple[str, str]) -> bool:
        """Whether the time of a kind of cell is known."""
        return kind in self._taken or kind in self._expected

    def left(self, cells: Sequence[PlannedCell]) -> float:
        """Expected seconds for these cells."""
        mean = {kind: statistics.fmean(seconds) for kind, seconds in self._taken.items()}
        both = mean.keys() & self._expected.keys()
        expected, taken = (sum(each[kind] for kind in both) for each in (self._expected, mean))
        # The expectation is off by about the same factor for all kinds.
        factor = taken / expected if expected and taken else 1.0
        known = {kind: factor * seconds for kind, seconds in self._expected.items()} | mean
        return sum(known[cell.kind] for cell in cells)


def probe(
    clock: Clock,
    cells: Sequence[PlannedCell],
    data: AuditData,
    measure: Measure,
    *,
    epochs: int,
    batch_size: int,
) -> None:
    """Trains each kind of cell for a few steps and estimates its time from them."""
    count, tests = len(data.clean.labels), len(data.test.labels)
    few = min(count, _STEPS * batch_size)
    train = part_of(data.clean, spread(range(count), few))
    test = part_of(data.test, spread(range(tests), max(1, round(tests * few / count))))
    warm = False
    for cell in cells:
        if clock.knows(cell.kind):
            continue
        counter = cell.countermeasure.for_timing(few, count)
        plain = cell._replace(trained_on=CLEAN, countermeasure=counter)
        try:
            if not warm:
                measure(plain, train, test, 1)
                warm = True
            once = measure(plain, train, test, 1).seconds
            # What is done once, such as compression, is in the time of the first epoch only.
            more = min(once, max(0.0, measure(plain, train, test, 2).seconds - once))
        except FloatingPointError:  # it diverges this early, and is likely to end soon
            once = more = 0.0
        clock.expect(cell.kind, (once + (epochs - 1) * more) * count / few)
