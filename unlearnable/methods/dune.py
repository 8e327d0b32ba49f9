"""DUNE: rows and a colour per class, both towards another class. (Wang et al., 2605.01718)"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from ..engine.models import Ensemble
from ..engine.run import Run
from .parameter_checks import check_change
from .parameters import any_integer, checked, count, length
from .sep import SEP
from .swarm_colours import swarm_colours, targets_of


@dataclass(kw_only=True, repr=False, eq=False)
class DUNE(SEP):
    """Dual-branch unlearnable ensemble. (Wang et al., ICML 2026, arXiv:2605.01718)

    Two perturbations, each of which makes all checkpoints of one clean training run mistake an
    image for one of another class: rows, found along gradients as in :class:`SEP`, and on top of
    them a colour per class, found by particle swarms as in :class:`ColourShift`. Victims that
    withstand one of them learn the other.

    The tint exceeds the usual budget of 8/255: a value changes by up to ``epsilon +
    colour_epsilon``. The published search keeps images close to the clean ones (20 dB PSNR, 0.8
    SSIM); here colours also stay within a cube, and LPIPS is omitted.

    The parameters are those of :class:`SEP`, with other defaults, and four more.

    Args:
        epsilon: Budget of the rows, in [0, 1] units.
        step_size: Length of a step of the rows.
        steps: Steps of the rows.
        checkpoints: Number of states of the surrogate to use, equally spaced.
        shift: The other class is this many indices further on, wrapping around; None means 3, or 1
            if 3 leads back to the same class.
        colour_epsilon: Half the side of the colour cube: the largest change of a value by its tint,
            in [0, 1] units.
        particles: Particles per class.
        iterations: Moves of each particle.
        class_images: Largest number of images per class by which colours are judged.

    Example:
        >>> from unlearnable.datasets import Shapes
        >>> method = DUNE.preset("demo", train_epochs=2, checkpoints=2, steps=1, iterations=2)
        >>> method.fit(Shapes(size=64), progress=False).perturbation_
        Perturbation(DUNE, sample-wise, additive + shift, 64 images of 3x32x32)
    """

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": {},
        "fast": {"surrogate": "resnet9", "train_epochs": 10, "steps": 16, "class_images": 200},
        "demo": {"surrogate": "tiny", "train_epochs": 15, "steps": 16, "class_images": 100},
    }
    kind = "stack"

    epsilon: float = 8 / 255
    step_size: float = length(0.5 / 255)
    checkpoints: int | None = count(5)
    shift: int | None = any_integer(None)
    colour_epsilon: float = checked(25 / 255, check_change)
    particles: int = count(10)
    iterations: int = count(10)
    class_images: int = count(1000)

    def passes(self, num_images: int) -> int:
        """Image passes for ten classes, because the number of classes is not known beforehand."""
        looks = self.particles * self.iterations * self._size
        return super().passes(num_images) + looks * min(num_images, 10 * self.class_images)

    def _learn(self, run: Run) -> Ensemble:
        ensemble = super()._learn(run)
        colours = swarm_colours(
            run,
            ensemble,
            epsilon=self.colour_epsilon,
            shift=self.shift,
            particles=self.particles,
            iterations=self.iterations,
            class_images=self.class_images,
            batch_size=self.batch_size,
        )
        run.on_top("shift", colours=colours, epsilon=self.colour_epsilon)
        return ensemble

    def _targets(self, run: Run, labels: Tensor) -> Tensor:
        return targets_of(labels, self.shift, run.num_classes)
