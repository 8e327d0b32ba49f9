"""Adversarial training. (Madry et al., ICLR 2018, 1706.06083)"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn
from torch.nn import functional as F

from ...engine.pgd import gradient, projected_steps, random_start
from ...engine.run import Run
from ...engine.train import Batch, adversary
from .base import Countermeasure


@dataclass(frozen=True)
class AdversarialTraining(Countermeasure):
    """The victim learns from the worst-case image in a ball around each training image.

    Args:
        radius: Radius of the ball: in levels of 1/255 for ``"Linf"``, in [0, 1] units for ``"L2"``.
        norm: ``"Linf"`` or ``"L2"``.
        steps: Gradient steps per batch from a random start. The step size is twice the radius
            divided by the number of steps (a fifth of the radius for 10 steps).
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
        radius = np.format_float_positional(self.radius, trim="-")
        return f"adversarial-training-{norm}{radius}{steps}"

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


@dataclass(frozen=True)
class ShiftAdversarialTraining(AdversarialTraining):
    """Adversarial training whose adversary also adds a colour to all pixels of an image.

    Each step moves the pixels within their ball and the colour within its own, both along the sign
    of one gradient; the network sees values clipped to valid pixels.

    Args:
        radius: Radius of the ball of pixels, in levels of 1/255.
        norm: ``"Linf"`` only.
        steps: Gradient steps per batch, as in :class:`AdversarialTraining`, for both.
        shift: Largest change of each channel by the colour, in levels of 1/255.
    """

    shift: float = 25

    def __post_init__(self) -> None:
        super().__post_init__()
        self._numbers("shift")
        if not 0 < self.shift <= 255:
            raise ValueError(f"expected a shift above 0 and up to 255, got {self.shift}")
        if self.norm != "Linf":
            raise ValueError(f'expected the norm "Linf" with a shift, got {self.norm!r}')

    @property
    def name(self) -> str:
        return f"{super().name}-shift-{np.format_float_positional(self.shift, trim='-')}"

    @property
    def description(self) -> str:
        return f"{super().description}, and shifts of all pixels by up to {self.shift:g}/255"

    def on_step(self, batch: Batch, model: nn.Module, run: Run) -> Batch:
        images, targets = batch
        most = self.shift / 255
        draws = run.rng("adversary")
        start = random_start(images, self.epsilon, draws)
        colour = draws.uniform((*images.shape[:2], 1, 1), -most, most)
        with run.frozen(model) as network:

            def slope(perturbed: Tensor) -> Tensor:
                """The gradient for the pixels, while the colour takes a separate step."""
                nonlocal colour
                shown = colour
                found = gradient(
                    lambda x: F.cross_entropy(
                        network((x + shown).clamp(0, 1)), targets, reduction="sum"
                    ),
                    perturbed,
                )
                uphill = found.sum((2, 3), keepdim=True).sign()
                colour = (colour + 2 * most / self.steps * uphill).clamp(-most, most)
                return found

            delta = projected_steps(
                slope,
                images,
                start,
                epsilon=self.epsilon,
                step_size=2 * self.epsilon / self.steps,
                steps=self.steps,
                maximize=True,
            )
        return batch._replace(images=(images + delta + colour).clamp(0, 1))
