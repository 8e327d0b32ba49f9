"""The baseline: no countermeasure."""

from __future__ import annotations

from dataclasses import dataclass

from .base import Countermeasure


@dataclass(frozen=True)
class NoCountermeasure(Countermeasure):
    """Training by the protocol: crop and flip, nothing else."""

    name = "none"
    description = "a victim that just trains"
