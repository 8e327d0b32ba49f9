"""AAP: δ min E t of the loss of t(x + δ) as class y + shift, t contrastive. (Wang, 2402.04010)"""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..engine.contrastive_augment import ContrastiveAugment
from ..engine.pgd import pgd, target_classes
from ..engine.run import Run
from ..engine.sampler import images_per_epoch
from ..engine.train import sgd, to_float, train_surrogate
from .base import Method
from .parameters import any_integer, count, length, positive, proportion

_FAST: dict[str, Any] = {"steps": 20, "train_epochs": 20}
# The paper's rate is too high for the tiny network on few images.
_DEMO = _FAST | {"surrogate": "tiny", "learning_rate": 0.1}


@dataclass(repr=False, eq=False)
class AAP(Method):
    """Augmented adversarial poisoning. (Wang et al., NeurIPS 2024, arXiv:2402.04010)

    A surrogate is trained on clean images under the strong augmentation of contrastive learning.
    Then every image is moved, under the same augmentation, until the surrogate classifies it as the
    class ``shift`` further on, or as any class but its own. Victims learn the features of the wrong
    class.

    Args:
        surrogate: Name of a network or a module, which is copied and starts from fresh weights.
        epsilon: Budget in [0, 1] units.
        norm: ``"Linf"`` or ``"L2"``.
        step_size: Length of a perturbation step; None means 2.5 ``epsilon`` / ``steps``.
        steps: Steps per perturbation, each with a new draw of the augmentation.
        shift: Class y is moved towards y + ``shift``, modulo the number of classes; None moves it
            away from y instead.
        strength: Strength of the augmentation, 0 to 1; the paper uses 0.4 for CIFAR-10 and 0.8 for
            CIFAR-100.
        train_epochs: Epochs of the surrogate.
        learning_rate: Its largest learning rate, reached after a quarter of the epochs.
        granularity: ``"sample-wise"``; the method has no other.
        pretrained_surrogate: Keep the weights of a surrogate given as a module, or start from those
            of a named network (:func:`unlearnable.pretrained_network`).
        batch_size: Images per surrogate step and per perturbation step, rounded down to a
            multiple of 8, at least 8.
        seed: Seed of weights, batches and augmentation.

    Example:
        >>> from unlearnable.datasets import Shapes
        >>> method = AAP.preset("demo", train_epochs=1)
        >>> method.fit(Shapes(size=64), progress=False).perturbation_
        Perturbation(AAP, sample-wise, Linf 8/255, 64 images of 3x32x32)
    """

    presets: ClassVar[dict[str, dict[str, Any]]] = {"paper": {}, "fast": _FAST, "demo": _DEMO}
    granularities = ("sample-wise",)
    masked = True

    surrogate: str | nn.Module = "resnet18"
    _: KW_ONLY
    epsilon: float = 8 / 255
    norm: str = "Linf"
    step_size: float | None = length(None)
    steps: int = count(250, least=0)
    shift: int | None = any_integer(1, optional=True)
    strength: float = proportion(0.4)
    train_epochs: int = count(40)
    learning_rate: float = positive(0.5)
    granularity: str = "sample-wise"
    pretrained_surrogate: bool = False
    batch_size: int = 128
    seed: int = 0

    def passes(self, num_images: int) -> int:
        seen = images_per_epoch(num_images, self.batch_size)
        return self.train_epochs * seen + self.steps * num_images

    def _learn(self, run: Run) -> nn.Module:
        self._aims(run, run.labels)  # a shift that leads nowhere is refused before the work
        surrogate = self._build_surrogate(run)

        def augmented(index: Tensor) -> Tensor:
            draw = ContrastiveAugment.draw(len(index), run.rng("train"), self.strength)
            return draw(to_float(run.images[index]))

        train_surrogate(
            run,
            surrogate,
            sgd(surrogate, lr=self.learning_rate, weight_decay=1e-4),
            lambda optimizer, updates: torch.optim.lr_scheduler.LambdaLR(
                optimizer, lambda step: _rate(step, updates)
            ),
            epochs=self.train_epochs,
            batch_size=self.batch_size,
            inputs=augmented,
        )
        for index in run.sweep(self.batch_size, title="perturbations"):
            run.rows[index] = self._perturb(run, index, surrogate)
        return surrogate

    def _aims(self, run: Run, labels: Tensor) -> Tensor:
        """The classes whose loss is lowered, or raised."""
        if self.shift is None:
            return labels
        return target_classes(labels, self.shift, run.num_classes)

    def _perturb(self, run: Run, index: Tensor, surrogate: nn.Module) -> Tensor:
        images = to_float(run.images[index])
        aims = self._aims(run, run.labels[index])

        def loss(perturbed: Tensor) -> Tensor:
            draw = ContrastiveAugment.draw(len(index), run.rng("search"), self.strength)
            return F.cross_entropy(network(draw(perturbed)), aims, reduction="sum")

        with run.frozen(surrogate) as network:
            return pgd(
                loss,
                images,
                torch.zeros_like(images),
                epsilon=self.epsilon,
                step_size=self.step_size or 2.5 * self.epsilon / max(1, self.steps),
                steps=self.steps,
                norm=self.norm,
                maximize=self.shift is None,
                mask=run.mask(index),
            )


def _rate(step: int, total: int) -> float:
    """Share of the learning rate: a line up over the first quarter, then half a cosine."""
    warm = max(1, total // 4)  # the paper's 10 of 40 epochs
    if step < warm:
        return (step + 1) / warm
    return 0.5 + 0.5 * math.cos(math.pi * (step - warm) / max(1, total - warm))
