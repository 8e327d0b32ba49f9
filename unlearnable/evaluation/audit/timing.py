"""How long an audit is going to take: measured on a few steps first, then on its own cells."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch.utils.data import Subset, TensorDataset

from ...data.cache import read_images
from ..countermeasures.base import Countermeasure
from ..countermeasures.nothing import NoCountermeasure
from ..report.figures import CLEAN, Cell
from .cells import Ledger, Plan, needs_clean
from .data import AuditData

Measure = Callable[[Plan, Any, Any, int], Cell]
_STEPS = 2


class Clock:
    """Time left, by kind of cell.

    Args:
        cells: All cells of the audit; those in the ledger tell what their kind takes.
        ledger: What was measured.
    """

    def __init__(self, cells: Iterable[Plan], ledger: Ledger) -> None:
        self._taken: dict[tuple[str, str], list[float]] = {}
        self._expected: dict[tuple[str, str], float] = {}
        for cell in cells:
            if cell in ledger:
                self.took(cell, ledger[cell].seconds)

    def expect(self, kind: tuple[str, str], seconds: float) -> None:
        """What a cell of a kind is going to take, before one was measured."""
        self._expected[kind] = seconds

    def took(self, cell: Plan, seconds: float) -> None:
        """What a cell took."""
        self._taken.setdefault(cell.kind, []).append(seconds)

    def knows(self, kind: tuple[str, str]) -> bool:
        """Whether there is a figure for a kind."""
        return kind in self._taken or kind in self._expected

    def left(self, cells: Sequence[Plan]) -> float:
        """Seconds that these cells are going to take."""
        both = self._taken.keys() & self._expected.keys()
        expected = sum(self._expected[kind] for kind in both)
        taken = sum(sum(self._taken[kind]) / len(self._taken[kind]) for kind in both)
        # The expectation is off by about the same factor for all kinds.
        factor = taken / expected if expected and taken else 1.0
        return sum(
            sum(self._taken[cell.kind]) / len(self._taken[cell.kind])
            if cell.kind in self._taken
            else factor * self._expected[cell.kind]
            for cell in cells
        )


def probe(
    clock: Clock,
    cells: Sequence[Plan],
    data: AuditData,
    measure: Measure,
    *,
    epochs: int,
    batch_size: int,
) -> None:
    """Trains each kind of cell for a few steps, and lets the clock expect what follows from it.

    Args:
        clock: Is told.
        cells: To be measured.
        data: Of the audit.
        measure: Trains and tests a victim.
        epochs: Of a cell.
        batch_size: Of a cell.
    """
    count, tests = data.dataset["images"], data.tested["images"]
    few = min(count, _STEPS * batch_size)
    train = _Part(data, data.clean, few)
    test = _Part(data, data.test, max(1, round(tests * few / count)))
    warm = False
    for cell in cells:
        if clock.knows(cell.kind):
            continue
        counter = NoCountermeasure() if _costs_nothing(cell.countermeasure) else cell.countermeasure
        counter = counter.for_timing(few, count)
        plain = cell._replace(trained_on=CLEAN, countermeasure=counter)
        if not warm:
            measure(plain, train, test, 1)
            warm = True
        once = measure(plain, train, test, 1).seconds
        # What is done once, such as compression, is in the first epoch's time alone.
        more = min(once, max(0.0, measure(plain, train, test, 2).seconds - once))
        clock.expect(cell.kind, (once + (epochs - 1) * more) * count / few)


def _costs_nothing(counter: Countermeasure) -> bool:
    """Whether its training steps are those of the protocol.

    A choice of images is made at once, and a network is pretrained once for all victims.
    """
    return needs_clean(counter) or type(counter).on_start is not Countermeasure.on_start


class _Part(TensorDataset):
    """Some of the images, with the classes of all."""

    def __init__(self, data: AuditData, dataset: Any, few: int) -> None:
        chosen = torch.linspace(0, len(dataset) - 1, few).long().tolist()
        store = read_images(Subset(dataset, chosen), data.image_size)
        super().__init__(store.images, store.labels)
        names = data.dataset["classes"]
        self.classes = names or [str(number) for number in range(data.dataset["num_classes"])]
