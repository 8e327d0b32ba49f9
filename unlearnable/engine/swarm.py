"""Particle swarms: minima of functions without gradients. (Kennedy & Eberhart, ICNN 1995)"""

from __future__ import annotations

import torch
from torch import Tensor

_INERTIA, _TO_OWN, _TO_BEST = 0.5, 0.3, 0.3  # shares of a move


class Swarm:
    """Several particle swarms at once, each of which minimises its own function.

    Each particle keeps moving, towards its own best position so far and towards the best position
    of its swarm. There are no random factors: the starting positions determine everything. Best
    positions are copies, which do not change when their particle moves.

    Args:
        positions: Starting positions, float (G, P, D): swarms, particles, coordinates.
        velocities: Initial moves, (G, P, D).
        limit: Largest absolute value of a coordinate.

    Attributes:
        positions: Current positions, (G, P, D), at which the functions are evaluated for
            :meth:`update`.
        best: The best position of each swarm so far, (G, D); before any evaluation, that of the
            first particle.
        best_value: Value of the function there, (G,).
    """

    def __init__(self, positions: Tensor, velocities: Tensor, limit: float) -> None:
        self.positions, self._velocities, self._limit = positions, velocities, limit
        self._own = positions.clone()
        self._own_value = torch.full_like(positions[..., 0], torch.inf)
        self.best = positions[:, 0].clone()
        self.best_value = torch.full_like(positions[:, 0, 0], torch.inf)

    def state(self) -> dict[str, Tensor]:
        """Everything that :meth:`update` changes, by name, for tracking by a run."""
        return {
            "swarm_positions": self.positions,
            "swarm_velocities": self._velocities,
            "swarm_own": self._own,
            "swarm_own_value": self._own_value,
            "swarm_best": self.best,
            "swarm_best_value": self.best_value,
        }

    def update(self, values: Tensor) -> None:
        """Records the function values at :attr:`positions`, (G, P), and moves the particles."""
        better = values < self._own_value
        self._own.copy_(torch.where(better[..., None], self.positions, self._own))
        self._own_value.copy_(torch.where(better, values, self._own_value))
        value, at = values.min(dim=1)
        found = self.positions.take_along_dim(at[:, None, None], dim=1)[:, 0]
        better = value < self.best_value
        self.best.copy_(torch.where(better[:, None], found, self.best))
        self.best_value.copy_(torch.where(better, value, self.best_value))
        self._velocities.mul_(_INERTIA)
        self._velocities.add_(self._own - self.positions, alpha=_TO_OWN)
        self._velocities.add_(self.best[:, None] - self.positions, alpha=_TO_BEST)
        self.positions.add_(self._velocities).clamp_(-self._limit, self._limit)
