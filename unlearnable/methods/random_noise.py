"""RandomNoise: uniform noise, the control that every other method is measured against."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..engine.pgd import project, random_start
from ..engine.run import Run
from ..engine.train import to_float
from .base import Method
from .parameters import Untrained


@dataclass(kw_only=True, repr=False, eq=False)
class RandomNoise(Untrained, Method):
    """Uniform random noise. (the control of Huang et al., ICLR 2021, arXiv:2101.04898)

    Sample-wise noise says nothing about the class and does not protect; a victim that fails on it
    points to a broken evaluation. Class-wise noise is itself a shortcut to the label.

    Args:
        epsilon: Budget in [0, 1] units.
        norm: ``"Linf"`` (uniform in the box) or ``"L2"`` (uniform in the ball).
        granularity: ``"sample-wise"`` or ``"class-wise"``.
        batch_size: Images processed at once.
        seed: Seed of the noise.

    Example:
        >>> from unlearnable.datasets import Shapes
        >>> RandomNoise(epsilon=4 / 255).fit(Shapes(size=20), progress=False).perturbation_
        Perturbation(RandomNoise, sample-wise, Linf 4/255, 20 images of 3x32x32)
    """

    masked = True

    epsilon: float = 8 / 255
    norm: str = "Linf"
    granularity: str = "sample-wise"
    batch_size: int = 512
    seed: int = 0

    @property
    def needs_labels(self) -> bool:
        """Whether the method needs labels: not if each image has its own noise."""
        return not self._has_rows

    def _learn(self, run: Run) -> None:
        if not self._has_rows:
            like = torch.empty((run.num_classes, *run.images.shape[1:]), device=run.device)
            noise = random_start(like, self.epsilon, run.global_rng("noise"), self.norm)
            run.result("class-wise", rows=noise)
            return
        for index in run.sweep(self.batch_size, title="noise"):
            run.rows[index] = self._perturb(run, index, None)

    def _perturb(self, run: Run, index: Tensor, surrogate: None) -> Tensor:
        images = to_float(run.images[index])
        # On the CPU, so that the noise is the same on every device.
        draws = run.rng("noise", device=torch.device("cpu"))
        noise = random_start(images, self.epsilon, draws, self.norm)
        return project(noise, images, self.epsilon, self.norm)
