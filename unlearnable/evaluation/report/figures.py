"""Figures of an audit: a victim, the mean over seeds, a row of the table; how they are written."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

PROTECTED, CLEAN = "protected", "clean"


@dataclass(frozen=True)
class Cell:
    """One victim of an audit. Accuracies are shares from 0 to 1.

    Attributes:
        trained_on: ``"protected"`` or ``"clean"`` images.
        countermeasure: Name.
        victim: Name of the network.
        seed: Of the victim.
        last: Clean-test accuracy after the last epoch.
        peak: The best of any epoch.
        train: Accuracy on the training images.
        curve: Clean-test accuracy after each epoch.
        seconds: What it took.
        machine: Processor, threads, versions and precision that it was measured with.
    """

    trained_on: str
    countermeasure: str
    victim: str
    seed: int
    last: float
    peak: float
    train: float
    curve: list[float]
    seconds: float
    machine: dict[str, Any] = field(default_factory=dict)


class Reached(NamedTuple):
    """Mean and spread over seeds: peak and last clean-test accuracy."""

    seeds: int
    peak: float
    peak_std: float
    last: float
    last_std: float


class Row(NamedTuple):
    """One countermeasure against one victim; None is what has not been measured yet.

    Attributes:
        countermeasure: Name.
        victim: Name of the network.
        protected: What victims reached that were trained on protected images.
        clean: What the same victims reached on clean images.
    """

    countermeasure: str
    victim: str
    protected: Reached | None
    clean: Reached | None

    @property
    def peak(self) -> float:
        """The peak on protected images, or -1."""
        return -1.0 if self.protected is None else self.protected.peak


def mean_and_spread(values: Sequence[float]) -> tuple[float, float]:
    """Mean, and standard deviation of the sample, which is 0 for one value."""
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return statistics.fmean(values), spread


def percent(share: float) -> str:
    """As reports write accuracies."""
    return f"{100 * share:.1f} %"


def whole_percent(share: float) -> str:
    """As reports write what was recovered; less than guessing is nothing."""
    return f"{max(0, round(100 * share))} %"
