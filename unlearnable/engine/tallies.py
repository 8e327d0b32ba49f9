"""Sums over the steps of nested loops."""

from __future__ import annotations

import torch
from torch import Tensor

from .distributed import Group


class Tallies:
    """Sums and counts per loop body, identified by depth, the number of loops around it."""

    def __init__(self, device: torch.device, group: Group) -> None:
        self._device = device
        self._group = group
        self._sums: dict[str, Tensor] = {}  # "depth/name" -> sum and count

    def add(self, depth: int, name: str, total: Tensor, count: int) -> None:
        """Adds a sum over ``count`` images."""
        key = f"{depth}/{name}"
        if key not in self._sums:
            kind = torch.float32 if self._device.type == "mps" else torch.float64
            self._sums[key] = torch.zeros(2, dtype=kind, device=self._device)
        self._sums[key][0] += total
        self._sums[key][1] += count

    def mean(self, depth: int, name: str) -> float:
        """The mean over the images of all processes; 0 if there are none."""
        tally = self._sums.get(f"{depth}/{name}")
        total, count = (0, 0) if tally is None else self._group.sum(tally).tolist()
        return total / count if count else 0.0

    def forget(self, depth: int) -> None:
        """Drops tallies of bodies deeper than this."""
        for key in [key for key in self._sums if int(key.split("/")[0]) > depth]:
            del self._sums[key]

    def state(self) -> dict[str, Tensor]:
        """The sums over all processes."""
        return {key: self._group.sum(tally) for key, tally in self._sums.items()}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Restores :meth:`state` in one process, so that nothing counts twice."""
        sums = {key: tally.to(self._device) for key, tally in state.items()}
        first = self._group.rank == 0
        self._sums = sums if first else {key: torch.zeros_like(sums[key]) for key in sums}
