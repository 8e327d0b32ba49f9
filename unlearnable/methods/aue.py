"""AUE: min over θ and δ of E t of the loss at t(x + δ), t contrastive. (Wang et al., 2402.04010)"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..engine.contrastive_augment import ContrastiveAugment
from ..engine.mask import protected
from ..engine.pgd import pgd
from ..engine.run import Run
from ..engine.sampler import images_per_epoch
from ..engine.train import sgd, to_float, train_surrogate
from .base import Method
from .class_rows import ClassRows
from .parameters import count, length, proportion

_LEVEL = 1 / 255  # what a visit's steps reach at least, since rows are rounded after it
_FAST: dict[str, Any] = {"steps": 1, "step_size": 2 / 255, "train_epochs": 20}


@dataclass(repr=False, eq=False)
class AUE(Method):
    """Augmented unlearnable examples. (Wang et al., NeurIPS 2024, arXiv:2402.04010)

    EM under the strong augmentation of contrastive learning: surrogate and perturbation take turns
    in lowering the same loss on augmented images. The perturbation is designed to mislead both
    victims trained with labels and victims trained by contrastive learning.

    Args:
        surrogate: Name of a network or a module, which is copied and starts from fresh weights.
        epsilon: Budget in [0, 1] units.
        norm: ``"Linf"`` or ``"L2"``.
        step_size: Length of a perturbation step; None means a tenth of ``epsilon``, or more if
            otherwise, for sample-wise Linf rows, ``steps * step_size`` would be below 1/255.
            Presets other than ``"paper"`` set it for Linf; for L2, pass your own.
        steps: Steps per perturbation after each epoch, each with a new draw of the augmentation;
            None means 5 sample-wise and 1 class-wise. Sample-wise, ``steps * step_size`` must
            exceed 0.5/255, half a pixel level, and for L2 that times the square root of C * H * W.
        strength: Strength of the augmentation, 0 to 1; the paper uses 0.6 for CIFAR-10 and 1.0 for
            CIFAR-100.
        train_epochs: Epochs of the surrogate, and sweeps over the perturbations.
        extend_steps: Steps per perturbation in :meth:`extend`; in a fit, steps add up over the
            epochs.
        granularity: ``"sample-wise"``, or ``"class-wise"``, where a row takes the mean step of its
            images.
        pretrained_surrogate: Keep the weights of a surrogate given as a module, or start from those
            of a named network (:func:`unlearnable.pretrained_network`).
        batch_size: Images per surrogate step and per perturbation step, rounded down to a
            multiple of 8, at least 8.
        seed: Seed of weights, batches and augmentation.

    Example:
        >>> from unlearnable.datasets import Shapes
        >>> method = AUE.preset("demo", train_epochs=1)
        >>> method.fit(Shapes(size=64), progress=False).perturbation_
        Perturbation(AUE, sample-wise, Linf 8/255, 64 images of 3x32x32)
    """

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": {},
        "fast": _FAST,
        "demo": _FAST | {"surrogate": "tiny"},
    }

    masked = True

    surrogate: str | nn.Module = "resnet18"
    _: KW_ONLY
    epsilon: float = 8 / 255
    norm: str = "Linf"
    step_size: float | None = length(None)
    steps: int | None = count(None, least=0)
    strength: float = proportion(0.6)
    train_epochs: int = count(60)
    extend_steps: int = count(50, least=0)
    granularity: str = "sample-wise"
    pretrained_surrogate: bool = False
    batch_size: int = 128
    seed: int = 0

    @property
    def _visit(self) -> tuple[int, float] | None:
        return (self._steps, self._step_size) if self._has_rows else None

    @property
    def _step_size(self) -> float:
        if self.step_size is not None:
            return self.step_size
        rounded = self._has_rows and self.norm == "Linf"
        return max(self.epsilon / 10, _LEVEL / max(1, self._steps) if rounded else 0.0)

    @property
    def _steps(self) -> int:
        usual = 5 if self._has_rows else 1
        return usual if self.steps is None else self.steps

    def passes(self, num_images: int) -> int:
        seen = images_per_epoch(num_images, self.batch_size)
        return self.train_epochs * (seen + self._steps * num_images)

    def _learn(self, run: Run) -> nn.Module:
        surrogate = self._build_surrogate(run)
        rows = run.rows if self._has_rows else ClassRows(run)

        def augmented(index: Tensor) -> Tensor:
            perturbed = protected(to_float(run.images[index]), rows[index], run.mask(index))
            return ContrastiveAugment.draw(len(index), run.rng("train"), self.strength)(perturbed)

        def perturb(epoch: int) -> None:
            for index in run.sweep(self.batch_size, title="perturbations"):
                rows[index] = self._descend(run, index, surrogate, rows[index], self._steps)

        train_surrogate(
            run,
            surrogate,
            sgd(surrogate, weight_decay=1e-4),
            partial(torch.optim.lr_scheduler.CosineAnnealingLR, eta_min=1e-6),
            epochs=self.train_epochs,
            batch_size=self.batch_size,
            inputs=augmented,
            after=perturb,
        )
        if isinstance(rows, ClassRows):
            run.result("class-wise", rows=rows.by_class)
        return surrogate

    def _perturb(self, run: Run, index: Tensor, surrogate: nn.Module) -> Tensor:
        return self._descend(run, index, surrogate, run.rows[index], self.extend_steps)

    def _descend(
        self, run: Run, index: Tensor, surrogate: nn.Module, start: Tensor, steps: int
    ) -> Tensor:
        """Perturbations (B, C, H, W) after ``steps`` steps down the augmented images' loss."""
        labels = run.labels[index]

        def loss(perturbed: Tensor) -> Tensor:
            draw = ContrastiveAugment.draw(len(index), run.rng("search"), self.strength)
            return F.cross_entropy(network(draw(perturbed)), labels, reduction="sum")

        with run.frozen(surrogate) as network:
            return pgd(
                loss,
                to_float(run.images[index]),
                start,
                epsilon=self.epsilon,
                step_size=self._step_size,
                steps=steps,
                norm=self.norm,
                shared=not self._has_rows,
                mask=run.mask(index),
            )
