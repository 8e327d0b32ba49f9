"""TAP: min δ, E t of the loss of t(x + δ) to another class. (Fowl et al., 2106.10807)"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..engine.mask import protected
from ..engine.pgd import pgd, target_classes
from ..engine.run import Run
from ..engine.sampler import images_per_epoch
from ..engine.train import augmented, sgd, tenfold_decay, to_float, train_surrogate
from .expectation import Expectation, transformations
from .parameters import any_integer, count, flag, length, positive

_FAST: dict[str, Any] = {"train_epochs": 20, "steps": 30, "step_size": 1.6 / 255, "restarts": 1}


@dataclass(repr=False, eq=False)
class TAP(Expectation):
    """Targeted adversarial poisoning. (Fowl et al., NeurIPS 2021, arXiv:2106.10807)

    The perturbation is an adversarial example for an ordinarily trained surrogate: it shows the
    features of another class, under random crops and flips. A victim learns these features under
    the wrong label.

    Args:
        surrogate: Name of a network or a module, which is copied and starts from fresh weights.
        epsilon: Budget in [0, 1] units.
        norm: ``"Linf"`` or ``"L2"``.
        step_size: Length of a perturbation step; None means a twentieth of ``epsilon``.
        steps: Steps per restart.
        restarts: Number of random starts; each image keeps the result with the lowest loss.
        targeted: Lower the loss for the target class; otherwise raise the loss for the image's own
            class.
        shift: The target class is this many indices further on, wrapping around.
        augment: Transformations drawn anew for each image in each step, as name -> probability:
            ``"crop-flip"`` (1 if absent) and before it one of ``"resize"``, ``"jpeg"``,
            ``"grayscale"``, ``"blur"``, ``"spectral"``, ``"normalize"`` and ``"jitter"``, or a
            combination such as ``"grayscale+jpeg"``. The perturbation then withstands them, but is
            mostly weaker without them. The surrogate is also trained on such draws, and always on
            crops and flips. None means only crops and flips.
        train_epochs: Epochs of the surrogate; its learning rate drops tenfold after 3/8, 5/8 and
            7/8.
        learning_rate: Initial learning rate of the surrogate, for fresh weights; pretrained ones
            are usually trained at a lower one, such as 0.01.
        granularity: ``"sample-wise"``; the method has no other.
        pretrained_surrogate: Keep the weights of a surrogate given as a module, or start from those
            of a named network (:func:`unlearnable.pretrained_network`).
        batch_size: Images per step, rounded down to a multiple of 8, at least 8.
        seed: Seed of weights, batches, starts and augmentation.

    Example:
        >>> from unlearnable.datasets import Shapes
        >>> method = TAP.preset("demo", train_epochs=1, steps=1)
        >>> method.fit(Shapes(size=64), progress=False).perturbation_
        Perturbation(TAP, sample-wise, Linf 8/255, 64 images of 3x32x32)
    """

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": {},
        "fast": _FAST,
        "demo": _FAST | {"surrogate": "tiny", "train_epochs": 15, "steps": 25},
    }
    granularities = ("sample-wise",)
    crops = 1.0
    later = ("augment", "learning_rate")
    masked = True

    surrogate: str | nn.Module = "resnet18"
    _: KW_ONLY
    epsilon: float = 8 / 255
    norm: str = "Linf"
    step_size: float | None = length(None)
    steps: int = count(250, least=0)
    restarts: int = count(8)
    targeted: bool = flag(True)
    shift: int = any_integer(1)
    augment: Mapping[str, float] | None = transformations()
    train_epochs: int = count(40)
    learning_rate: float = positive(0.1)
    granularity: str = "sample-wise"
    pretrained_surrogate: bool = False
    batch_size: int = 128
    seed: int = 0

    def passes(self, num_images: int) -> int:
        seen = images_per_epoch(num_images, self.batch_size)
        return self.train_epochs * seen + num_images * self.restarts * (self.steps + 1)

    def _learn(self, run: Run) -> nn.Module:
        self._aims(run, run.labels)  # a shift that leads nowhere is refused before the work
        surrogate = self._build_surrogate(run)
        train_surrogate(
            run,
            surrogate,
            sgd(surrogate, lr=self.learning_rate),
            tenfold_decay(3 / 8, 5 / 8, 7 / 8),
            epochs=self.train_epochs,
            batch_size=self.batch_size,
            inputs=augmented(run, before=partial(self._degraded, run)),
        )
        for index in run.sweep(self.batch_size, title="perturbations"):
            run.rows[index] = self._perturb(run, index, surrogate)
        return surrogate

    def _aims(self, run: Run, labels: Tensor) -> Tensor:
        """The classes whose loss is lowered, or raised."""
        return target_classes(labels, self.shift, run.num_classes) if self.targeted else labels

    def _perturb(self, run: Run, index: Tensor, surrogate: nn.Module) -> Tensor:
        best = torch.zeros((len(index), *run.images.shape[1:]), device=run.device)
        lowest = torch.full((len(index),), torch.inf, device=run.device)
        for _ in range(self.restarts):
            delta = self._restart(run, index, surrogate)
            loss = self._loss(run, index, surrogate, delta)
            best = torch.where((loss < lowest)[:, None, None, None], delta, best)
            lowest = torch.minimum(loss, lowest)
        return best

    def _restart(self, run: Run, index: Tensor, surrogate: nn.Module) -> Tensor:
        """Perturbations from one random start, (B, C, H, W)."""
        images, aims = to_float(run.images[index]), self._aims(run, run.labels[index])

        def loss(perturbed: Tensor) -> Tensor:
            seen = self._seen(run, perturbed, "search")
            return F.cross_entropy(network(seen), aims, reduction="sum")

        with run.frozen(surrogate) as network:
            return pgd(
                loss,
                images,
                self.epsilon * run.rng("start").normal(images.shape),  # pgd brings it inside
                epsilon=self.epsilon,
                step_size=self.step_size or 0.05 * self.epsilon,
                steps=self.steps,
                norm=self.norm,
                maximize=not self.targeted,
                mask=run.mask(index),
            )

    @torch.no_grad()
    def _loss(self, run: Run, index: Tensor, surrogate: nn.Module, delta: Tensor) -> Tensor:
        """What restarts are compared by: the loss of each whole image, (B,); lower is better."""
        images, aims = to_float(run.images[index]), self._aims(run, run.labels[index])
        mask = run.mask(index)
        shown = images + delta if mask is None else protected(images, delta, mask)
        with run.frozen(surrogate) as network:
            loss = F.cross_entropy(network(shown), aims, reduction="none")
        return loss if self.targeted else -loss
