"""Adversarial training. (Madry et al., ICLR 2018, 1706.06083)"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from ...engine.run import Run
from ...engine.train import Batch, adversary
from .base import Countermeasure


@dataclass(frozen=True)
class AdversarialTraining(Countermeasure):
    """The victim learns from the worst image in a ball around each of its own.

    Args:
        radius: Of the ball: in levels of 1/255 for ``"Linf"``, of [0, 1] images for ``"L2"``.
        norm: ``"Linf"`` or ``"L2"``.
        steps: Gradient steps per batch from a random start, each of twice the radius divided by
            the number of steps (a fifth of the radius for 10).
    """

    radius: float = 4
    norm: str = "Linf"
    steps: int = 10

    needs_one_draw = True

    def __post_init__(self) -> None:
        if self.norm not in ("Linf", "L2"):
            raise ValueError(f'expected the norm "Linf" or "L2", got {self.norm!r}')
        self._numbers("radius")
        self._integers(steps=1)
        if self.radius <= 0:
            raise ValueError(f"expected a radius above 0, got {self.radius}")

    @property
    def epsilon(self) -> float:
        """The radius in [0, 1] units."""
        return self.radius / 255 if self.norm == "Linf" else self.radius

    @property
    def name(self) -> str:
        norm = "l2-" if self.norm == "L2" else ""
        steps = "" if self.steps == 10 else f"-steps-{self.steps}"
        return f"adversarial-training-{norm}{self.radius:g}{steps}"

    @property
    def description(self) -> str:
        radius = f"{self.radius:g}/255" if self.norm == "Linf" else f"{self.radius:g} (L2)"
        steps = "" if self.steps == 10 else f", {self.steps} steps"
        return f"a victim that trains adversarially, radius {radius}{steps}"

    @property
    def passes(self) -> float:
        return self.steps + 1

    def on_step(self, batch: Batch, model: nn.Module, run: Run) -> Batch:
        delta = adversary(
            run,
            model,
            batch.images,
            batch.targets,
            epsilon=self.epsilon,
            step_size=2 * self.epsilon / self.steps,
            steps=self.steps,
            norm=self.norm,
        )
        return batch._replace(images=batch.images + delta)
