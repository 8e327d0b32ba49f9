"""What an audit found: every cell, the worst case, and whether the protection holds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .figures import CLEAN, PROTECTED, Cell, Reached, Row, mean_and_spread

HOLDS, BREAKS = 0.3, 0.7  # recovered shares up to and from which the verdict says so
_LEARNS = 0.3  # of the way from chance to certainty that the clean baseline has to get


@dataclass(frozen=True)
class Findings:
    """Conclusions from an audit; the attributes are those of :class:`AuditReport`."""

    perturbation: dict[str, Any]
    dataset: dict[str, Any]
    test: dict[str, Any]
    settings: dict[str, Any]
    countermeasures: list[dict[str, Any]]
    victims: list[str]
    seeds: list[int]
    cells: list[Cell]
    planned: int
    change: dict[str, Any] = field(default_factory=dict)
    change_by_class: dict[str, dict[str, Any]] = field(default_factory=dict)
    examples: list[dict[str, Any]] = field(default_factory=list)
    diverged: dict[str, str] = field(default_factory=dict)
    machine: dict[str, Any] = field(default_factory=dict)
    date: str = ""

    @property
    def complete(self) -> bool:
        """Whether every cell was measured."""
        return len(self.cells) == self.planned

    @property
    def seconds(self) -> float:
        """Total time of all cells in seconds."""
        return sum(cell.seconds for cell in self.cells)

    @property
    def machines(self) -> list[dict[str, Any]]:
        """The machines that cells were measured on, each once."""
        found = [cell.machine or self.machine for cell in self.cells] or [self.machine]
        return [machine for place, machine in enumerate(found) if machine not in found[:place]]

    @property
    def chance(self) -> float:
        """Accuracy of guessing, the share of the most frequent class among the test images."""
        return float(self.test.get("chance", 1 / self.dataset["num_classes"]))

    @property
    def clean(self) -> float | None:
        """What the best victim reaches on clean images without a countermeasure, or None."""
        found = [self.reached(CLEAN, "none", victim) for victim in self.victims]
        return max((reached.peak for reached in found if reached), default=None)

    def reached(self, trained_on: str, countermeasure: str, victim: str) -> Reached | None:
        """Mean and spread over the seeds measured so far, or None if there are none."""
        found = self.curves(trained_on, countermeasure, victim)
        if not found:
            return None
        peaks, lasts = [cell.peak for cell in found], [cell.last for cell in found]
        return Reached(len(found), *mean_and_spread(peaks), *mean_and_spread(lasts))

    def curves(self, trained_on: str, countermeasure: str, victim: str) -> list[Cell]:
        """The cells of all seeds."""
        wanted = (trained_on, countermeasure, victim)
        return [c for c in self.cells if (c.trained_on, c.countermeasure, c.victim) == wanted]

    def rows(self) -> list[Row]:
        """One row per countermeasure and victim, grouped by countermeasure."""
        return [
            Row(name, victim, *(self.reached(kind, name, victim) for kind in (PROTECTED, CLEAN)))
            for name in (entry["name"] for entry in self.countermeasures)
            for victim in self.victims
        ]

    def worst(self, of: str = "all") -> Row | None:
        """The row where the protection fails most, by the share of clean accuracy recovered.

        Countermeasures that need clean images of the dataset are left out: they show what already
        public images are worth, not the protected ones.

        Args:
            of: ``"standard"`` for countermeasures of trainers who do not know the method;
                ``"adaptive"`` for those that target this kind of perturbation; or ``"all"``.
        """
        rows = [
            row for row in self.counted() if of == "all" or self.adaptive(row) == (of == "adaptive")
        ]
        compared = [row for row in rows if self.recovered(row) is not None]
        return max(
            compared or rows, key=lambda row: (self.recovered(row) or 0.0, row.peak), default=None
        )

    @property
    def worst_standard(self) -> Row | None:
        """The worst case among trainers who do not know the method."""
        return self.worst("standard")

    @property
    def worst_adaptive(self) -> Row | None:
        """The worst case among trainers who know the method, or None if none was measured."""
        return self.worst("adaptive")

    def adaptive(self, row: Row) -> bool:
        """Whether the trainer of a row knows the method."""
        knowing = [entry["name"] for entry in self.countermeasures if entry.get("adaptive")]
        return row.countermeasure in knowing

    def without(self) -> Row | None:
        """The row without a countermeasure whose victim reaches the highest accuracy."""
        rows = [r for r in self.rows() if r.countermeasure == "none" and r.protected]
        return max(rows, key=lambda row: row.peak, default=None)

    def recovered(self, row: Row) -> float | None:
        """Share of the clean accuracy above chance that victims reach; 1 means no protection.

        The clean accuracy is that of the same victim without a countermeasure, which shows what the
        images are worth to it; if that victim learns little from them, that of the best victim.
        """
        baseline = self._worth(row.victim)
        if row.protected is None or baseline is None or baseline <= self.chance:
            return None
        return (row.protected.peak - self.chance) / (baseline - self.chance)

    def _worth(self, victim: str) -> float | None:
        own = self.reached(CLEAN, "none", victim)
        if own is None:
            return None
        assert self.clean is not None
        return self.clean if self._little(own.peak, self.clean) else own.peak

    def _little(self, accuracy: float, clean: float) -> bool:
        return accuracy - self.chance <= HOLDS * (clean - self.chance)

    def says_little(self, row: Row) -> bool:
        """Whether victims with the countermeasure also fail on clean images.

        They do if, on clean images, the countermeasure leaves no larger share of the accuracy than
        a protection that holds would. Then the countermeasure itself prevents learning.
        """
        baseline = self._worth(row.victim) or self.clean
        return (
            row.clean is not None
            and baseline is not None
            and self._little(row.clean.peak, baseline)
        )

    def waiting(self) -> list[Row]:
        """Rows measured on protected images whose victim has no clean baseline yet."""
        return [row for row in self.counted() if self._worth(row.victim) is None]

    def counted(self) -> list[Row]:
        """Rows measured on protected images whose trainer needs no clean images."""
        return [row for row in self.rows() if row.protected and not self.needs_clean(row)]

    def needs_clean(self, row: Row) -> bool:
        """Whether the trainer of a row needs clean images of the dataset."""
        needing = [entry["name"] for entry in self.countermeasures if entry["needs_clean"]]
        return row.countermeasure in needing

    def describe(self, name: str) -> str:
        """A countermeasure in plain words."""
        return next(str(e["description"]) for e in self.countermeasures if e["name"] == name)

    def outcome(self, of: str = "all") -> str:
        """``"broken"``, ``"weakened"``, ``"holds"`` or ``"unknown"``; ``of``: see :meth:`worst`."""
        worst = self.worst(of)
        share = None if worst is None else self.recovered(worst)
        if share is None or not self.learnt:
            return "unknown"
        share = round(share, 2)  # as it is shown
        if share > HOLDS:
            return "broken" if share >= BREAKS else "weakened"
        return "unknown" if self.waiting() else "holds"

    @property
    def learnt(self) -> bool:
        """Whether victims learn enough from clean images for a comparison."""
        return self.clean is not None and self.clean >= self.chance + _LEARNS * (1 - self.chance)

    def held_by_default(self) -> bool:
        """Whether the protection held, but some of what was tried was uninformative."""
        little = bool(self.diverged) or any(map(self.says_little, self.rows()))
        return self.outcome() == "holds" and little
