"""PIL: rows min 0.9 CE(g(-r), y) + 0.1 KL(uniform, g(x + r)), g linear. (Liu et al., 2601.19967)"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..engine.models import reset_weights
from ..engine.pgd import pgd, random_start
from ..engine.run import Run
from ..engine.sampler import images_per_epoch
from ..engine.train import sgd, to_float, train_surrogate
from .base import Method
from .parameters import count, length, proportion

# As many surrogate updates as the paper's from a third of the epochs.
_FAST: dict[str, Any] = {"train_epochs": 10, "batch_size": 128, "steps": 12, "step_size": 2 / 255}
# A small set needs small batches: after a few hundred updates the surrogate is still close to its
# random start.
_DEMO: dict[str, Any] = {"batch_size": 32}


def linear_surrogate(image_shape: Sequence[int], num_classes: int) -> nn.Module:
    """Two linear layers without bias, from pixels to K and K to K; weights are uninitialised."""
    pixels = image_shape[0] * image_shape[1] * image_shape[2]
    return nn.Sequential(
        nn.Flatten(),
        nn.utils.skip_init(nn.Linear, pixels, num_classes, bias=False),
        nn.utils.skip_init(nn.Linear, num_classes, num_classes, bias=False),
    )


@dataclass(kw_only=True, repr=False, eq=False)
class PILNoise(Method):
    """Perturbation-induced linearisation. (Liu et al., ICLR 2026, arXiv:2601.19967)

    A linear classifier g is trained on the clean images. Then every image gets a perturbation from
    which g recognises the class, but which leaves g undecided about the perturbed image: victims
    learn to read the perturbation linearly and little else. The surrogate is far smaller than a
    network.

    The paper subtracts its perturbation d, which g(d) classifies as y: x' = x - d. Rows here are
    what is added, r = -d. So g(-r) should be the class, and in terms of r the loss is ``0.9
    CE(g(-r), y) + 0.1 KL(uniform || softmax g(x + r))``.

    Args:
        epsilon: Budget in [0, 1] units.
        norm: ``"Linf"`` or ``"L2"``.
        step_size: Length of a step of the search; None means a tenth of ``epsilon``.
        steps: Steps of the search from a random start.
        uniform_weight: Weight of the second term, 0 to 1; the first term gets the rest.
        train_epochs: Epochs of the linear surrogate, on clean images without augmentation.
        granularity: ``"sample-wise"``; the method has no other.
        batch_size: Images per surrogate step and search; choose a smaller one if it leaves fewer
            than a few thousand surrogate steps.
        seed: Seed of weights, batches and starts.

    Example:
        >>> from unlearnable.datasets import Shapes
        >>> method = PILNoise.preset("demo", train_epochs=1)
        >>> method.fit(Shapes(size=64), progress=False).perturbation_
        Perturbation(PILNoise, sample-wise, Linf 8/255, 64 images of 3x32x32)
    """

    presets: ClassVar[dict[str, dict[str, Any]]] = {"paper": {}, "fast": _FAST, "demo": _DEMO}
    granularities = ("sample-wise",)
    masked = True

    epsilon: float = 8 / 255
    norm: str = "Linf"
    step_size: float | None = length(None)
    steps: int = count(30, least=0)
    uniform_weight: float = proportion(0.1)
    train_epochs: int = count(30)
    granularity: str = "sample-wise"
    batch_size: int = 512
    seed: int = 0

    def passes(self, num_images: int) -> int:
        """Image passes through the linear surrogate; each step of the search takes two."""
        seen = images_per_epoch(num_images, self.batch_size)
        return self.train_epochs * seen + 2 * self.steps * num_images

    def _empty_surrogate(self, config: dict[str, Any]) -> nn.Module:
        return linear_surrogate(config["image_shape"], config["num_classes"])

    def _learn(self, run: Run) -> nn.Module:
        surrogate = linear_surrogate(run.images.shape[1:], run.num_classes)
        reset_weights(surrogate, seed=run.weight_seed("surrogate"))
        train_surrogate(
            run,
            surrogate,
            sgd(surrogate, lr=0.003, weight_decay=0),
            torch.optim.lr_scheduler.CosineAnnealingLR,
            epochs=self.train_epochs,
            batch_size=self.batch_size,
            inputs=lambda index: to_float(run.images[index]),
        )
        for index in run.sweep(self.batch_size, title="perturbations"):
            run.rows[index] = self._perturb(run, index, surrogate)
        return surrogate

    def _perturb(self, run: Run, index: Tensor, surrogate: nn.Module) -> Tensor:
        images, labels = to_float(run.images[index]), run.labels[index]

        def loss(perturbed: Tensor) -> Tensor:
            own = F.cross_entropy(network(images - perturbed), labels, reduction="sum")
            # Up to a constant, the divergence of the network's answer from the uniform one.
            undecided = -F.log_softmax(network(perturbed), dim=1).mean(1).sum()
            return (1 - self.uniform_weight) * own + self.uniform_weight * undecided

        with run.frozen(surrogate) as network:
            return pgd(
                loss,
                images,
                random_start(images, self.epsilon, run.rng("start"), self.norm),
                epsilon=self.epsilon,
                step_size=self.step_size or self.epsilon / 10,
                steps=self.steps,
                norm=self.norm,
                mask=run.mask(index),
            )
