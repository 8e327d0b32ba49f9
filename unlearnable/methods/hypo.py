"""HYPO: min δ, E t of the loss of t(x + δ) for a hardly robust θ. (Tao et al., 2201.13329)"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..engine.pgd import pgd
from ..engine.run import Run
from ..engine.sampler import images_per_epoch
from ..engine.train import adversary, augmented, sgd, tenfold_decay, to_float, train_surrogate
from .expectation import Expectation, transformations
from .parameters import budget, count, length


@dataclass(repr=False, eq=False)
class HYPO(Expectation):
    """Hypocritical perturbations. (Tao et al., NeurIPS 2022, arXiv:2201.13329)

    The perturbation strengthens what a slightly robust surrogate, trained adversarially on the
    clean images, considers the image's own class. A victim that trains adversarially then relies on
    features that a real adversary can flip. It is designed to harm robust accuracy: a victim of
    standard training keeps most of its accuracy.

    Args:
        surrogate: Name of a network or a module, which is copied and starts from fresh weights.
        epsilon: Budget of the perturbation, in [0, 1] units.
        norm: Norm of both budgets, ``"Linf"`` or ``"L2"``.
        step_size: Length of a perturbation step; None means a tenth of ``epsilon``.
        steps: Steps of the perturbation.
        augment: Transformations drawn anew for each image in each step, as name -> probability:
            ``"crop-flip"`` (1 if absent) and before it one of ``"resize"``, ``"jpeg"``,
            ``"grayscale"``, ``"blur"``, ``"spectral"``, ``"normalize"`` and ``"jitter"``, or a
            combination such as ``"grayscale+jpeg"``. The perturbation then withstands them, but is
            mostly weaker without them. The surrogate is also trained on such draws, and always on
            crops and flips. None means only crops and flips.
        robust_epsilon: Budget of the adversary that the surrogate is trained against; 0 means no
            adversary.
        robust_step_size: Length of a step of the adversary.
        robust_steps: Steps of the adversary.
        train_epochs: Epochs of the surrogate; its learning rate drops tenfold at 75 % and 90 %.
        granularity: ``"sample-wise"``; the method has no other.
        pretrained_surrogate: Keep the weights of a surrogate given as a module, or start from those
            of a named network (:func:`unlearnable.pretrained_network`).
        batch_size: Images per step, rounded down to a multiple of 8, at least 8.
        seed: Seed of weights, batches, the adversary's starts and augmentation.

    Example:
        >>> from unlearnable.datasets import Shapes
        >>> method = HYPO.preset("demo", train_epochs=1, steps=1)
        >>> method.fit(Shapes(size=64), progress=False).perturbation_
        Perturbation(HYPO, sample-wise, Linf 8/255, 64 images of 3x32x32)
    """

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": {},
        "fast": {
            "step_size": 1.6 / 255,
            "steps": 20,
            "robust_step_size": 1 / 255,
            "robust_steps": 3,
            "train_epochs": 8,
        },
        # Against 2/255 the tiny surrogate learns nothing in ten epochs of Shapes.
        "demo": {
            "surrogate": "tiny",
            "step_size": 2 / 255,
            "steps": 10,
            "robust_epsilon": 1 / 255,
            "robust_step_size": 1 / 255,
            "robust_steps": 1,
            "train_epochs": 18,
        },
    }
    granularities = ("sample-wise",)
    crops = 1.0
    masked = True

    surrogate: str | nn.Module = "resnet18"
    _: KW_ONLY
    epsilon: float = 8 / 255
    norm: str = "Linf"
    step_size: float | None = length(None)
    steps: int = count(100, least=0)
    augment: Mapping[str, float] | None = transformations()
    robust_epsilon: float = budget(2 / 255)
    robust_step_size: float = length(0.5 / 255)
    robust_steps: int = count(10, least=0)
    train_epochs: int = count(10)
    granularity: str = "sample-wise"
    pretrained_surrogate: bool = False
    batch_size: int = 128
    seed: int = 0

    def passes(self, num_images: int) -> int:
        seen = images_per_epoch(num_images, self.batch_size)
        a_step = 1 + (self.robust_steps if self.robust_epsilon else 0)
        return self.train_epochs * seen * a_step + num_images * self.steps

    def _learn(self, run: Run) -> nn.Module:
        surrogate = self._build_surrogate(run)
        clean = augmented(run, before=partial(self._degraded, run))

        def hardest(index: Tensor) -> Tensor:
            seen = clean(index)
            return seen + adversary(
                run,
                surrogate,
                seen,
                run.labels[index],
                epsilon=self.robust_epsilon,
                step_size=self.robust_step_size,
                steps=self.robust_steps,
                norm=self.norm,
            )

        train_surrogate(
            run,
            surrogate,
            sgd(surrogate),
            tenfold_decay(0.75, 0.9),
            epochs=self.train_epochs,
            batch_size=self.batch_size,
            inputs=hardest,
        )
        for index in run.sweep(self.batch_size, title="perturbations"):
            run.rows[index] = self._perturb(run, index, surrogate)
        return surrogate

    def _perturb(self, run: Run, index: Tensor, surrogate: nn.Module) -> Tensor:
        images, labels = to_float(run.images[index]), run.labels[index]

        def loss(perturbed: Tensor) -> Tensor:
            seen = self._seen(run, perturbed, "search")
            return F.cross_entropy(network(seen), labels, reduction="sum")

        with run.frozen(surrogate) as network:
            return pgd(
                loss,
                images,
                torch.zeros_like(images),
                epsilon=self.epsilon,
                step_size=self.step_size or self.epsilon / 10,
                steps=self.steps,
                norm=self.norm,
                mask=run.mask(index),
            )
