"""Figures of an audit: a victim, the mean over seeds, a row of the table; how they are written."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

PROTECTED, CLEAN = "protected", "clean"


@dataclass(frozen=True)
class Cell:
    """One victim of an audit; accuracies are shares from 0 to 1.

    Attributes:
        trained_on: ``"protected"`` or ``"clean"`` images.
        countermeasure: Name of the countermeasure.
        victim: Name of the network.
        seed: Seed of the victim.
        last: Clean-test accuracy after the last epoch.
        peak: Best clean-test accuracy of any epoch.
        train: Accuracy on the training images.
        curve: Clean-test accuracy after each epoch.
        seconds: Time that it took.
        machine: Processor, threads, versions and precision of the measurement.
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
    """One countermeasure with one victim; None means not measured yet.

    Attributes:
        countermeasure: Name.
        victim: Name of the network.
        protected: What victims trained on protected images reached.
        clean: What the same victims reached when trained on clean images.
    """

    countermeasure: str
    victim: str
    protected: Reached | None
    clean: Reached | None

    @property
    def peak(self) -> float:
        """The peak on protected images, or -1 if it was not measured."""
        return -1.0 if self.protected is None else self.protected.peak


def mean_and_spread(values: Sequence[float]) -> tuple[float, float]:
    """The mean and the sample standard deviation, which is 0 for one value."""
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return statistics.fmean(values), spread


def percent(share: float) -> str:
    """Formats an accuracy for reports."""
    return f"{100 * share:.1f} %"


def whole_percent(share: float) -> str:
    """Formats a recovered share for reports; less than guessing counts as 0 %."""
    return f"{max(0, round(100 * share))} %"
