"""MIUE: min δ so that features of a class are alike, in EM's loop. (Zhu et al., 2603.03725)"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..engine.features import WithExamples, features_of
from ..engine.mask import protected
from ..engine.pgd import pgd
from ..engine.run import Run
from ..engine.sampler import images_per_epoch, ranks_within
from ..engine.train import sgd, to_float, train_surrogate
from .expectation import Expectation, transformations
from .parameters import count, length, positive, zero_or_more

_TINY = 1e-12  # below which a squared distance has no gradient
_LEAST = 4  # images of each class that new ones are compared with, at least
_FAST: dict[str, Any] = {
    "surrogate": "resnet9",
    "train_epochs": 20,
    "steps": 3,
    "first_step_size": 0.7 / 255,
    "step_size": 1.4 / 255,
}


@dataclass(repr=False, eq=False)
class MIUE(Expectation):
    """Mutual-information unlearnable examples. (Zhu et al., ICLR 2026, arXiv:2603.03725)

    As in EM, a surrogate learns from the perturbed images while these move, but here they move so
    that its features become similar within each class and different between classes. The less the
    features vary within a class, the less they reveal about the clean images.

    Args:
        surrogate: Name of a network or a module, which is copied and starts from fresh weights;
            its features are the inputs of the Linear layer called last.
        epsilon: Budget in [0, 1] units.
        norm: ``"Linf"`` or ``"L2"``.
        step_size: What the length of a perturbation step changes to: after the last epoch, it is
            one epoch's change away from it.
        first_step_size: Length of a step after the first epoch; it changes linearly.
        steps: Steps per perturbation after each epoch. ``steps`` times the shorter length must
            exceed 0.5/255, half a pixel level, and for L2 that times the square root of C * H * W.
        temperature: Divisor of the cosines between features.
        distance_weight: Weight of the distances between features of a class, in addition to the
            cosines; 0 means no distances.
        augment: Transformations drawn anew for each image in each step, as name -> probability:
            ``"crop-flip"`` (0 if absent) and before it one of ``"resize"``, ``"jpeg"``,
            ``"grayscale"``, ``"blur"``, ``"spectral"``, ``"normalize"`` and ``"jitter"``, or a
            combination such as ``"grayscale+jpeg"``. The perturbation then withstands them, but is
            mostly weaker without them. The surrogate is also trained on such draws. None means no
            transformations.
        train_epochs: Epochs of the surrogate, and sweeps over the perturbations.
        extend_steps: Steps per perturbation in :meth:`extend`; in a fit, steps add up over the
            epochs.
        granularity: ``"sample-wise"``; the method has no other.
        pretrained_surrogate: Keep the weights of a surrogate given as a module, or start from those
            of a named network (:func:`unlearnable.pretrained_network`).
        batch_size: Images per surrogate step, rounded down to a multiple of 8, at least 8.
        search_batch_size: Largest number of images that move together; each is compared with all
            others. They are of all classes or, if there are many classes, of some.
        seed: Seed of weights, batches and augmentation.

    New images are compared with protected images from the fit, at least four per class, whose
    features are stored in ``surrogate_``. They are not compared with one another, so a row does not
    depend on other new images.

    Example:
        >>> from unlearnable.datasets import Shapes
        >>> method = MIUE.preset("demo", train_epochs=1)
        >>> method.fit(Shapes(size=64), progress=False).perturbation_
        Perturbation(MIUE, sample-wise, Linf 8/255, 64 images of 3x32x32)
    """

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": {},
        "fast": _FAST,
        "demo": _FAST | {"surrogate": "tiny"},
    }
    granularities = ("sample-wise",)
    masked = True

    surrogate: str | nn.Module = "resnet18"
    _: KW_ONLY
    epsilon: float = 8 / 255
    norm: str = "Linf"
    step_size: float = length(0.4 / 255)
    first_step_size: float = length(0.2 / 255)
    steps: int = count(10, least=0)
    temperature: float = positive(0.1)
    distance_weight: float = zero_or_more(0.1)
    augment: Mapping[str, float] | None = transformations()
    train_epochs: int = count(100)
    extend_steps: int = count(50, least=0)
    granularity: str = "sample-wise"
    pretrained_surrogate: bool = False
    batch_size: int = 128
    search_batch_size: int = count(512)
    seed: int = 0

    _visit_step = "step_size= and first_step_size"

    @property
    def _visit(self) -> tuple[int, float] | None:
        return (self.steps, min(self.step_size, self.first_step_size))

    def passes(self, num_images: int) -> int:
        seen = images_per_epoch(num_images, self.batch_size)
        return self.train_epochs * (seen + self.steps * num_images) + num_images

    def _learn(self, run: Run) -> nn.Module:
        surrogate = self._build_surrogate(run)
        classes = run.labels.cpu()
        chosen = first_of_each(classes, max(_LEAST, self.search_batch_size // run.num_classes))
        found = self._no_features(run, surrogate, len(chosen) + 1)  # one for all other images
        run.track(features=found)

        def perturbed(index: Tensor) -> Tensor:
            return protected(to_float(run.images[index]), run.rows[index], run.mask(index))

        def perturb(epoch: int) -> None:
            step_size = self._step_size_after(epoch)
            for index in run.mixed(classes, self.search_batch_size, title="perturbations"):
                labels = run.gather(run.labels[index])

                def loss(features: Tensor, labels: Tensor = labels) -> Tensor:
                    features = run.gather(features)
                    return self._loss(run, features, labels, features, labels)

                start = run.rows[index]
                rows = self._descend(run, index, surrogate, loss, start, step_size, self.steps)
                run.rows[index] = rows

        train_surrogate(
            run,
            surrogate,
            sgd(surrogate, weight_decay=1e-4),
            partial(torch.optim.lr_scheduler.CosineAnnealingLR, eta_min=1e-6),
            epochs=self.train_epochs,
            batch_size=self.batch_size,
            inputs=lambda index: self._seen(run, perturbed(index), "train"),
            after=perturb,
        )
        places = torch.full((len(classes),), len(chosen))
        places[chosen] = torch.arange(len(chosen))
        places = places.to(run.device)
        for index in run.sweep(self.search_batch_size, title="features"):
            with run.frozen(surrogate) as network, torch.no_grad():
                run.sum_into(found, places[index], features_of(network, perturbed(index)))
        examples = found[:-1].clone(), classes[chosen].to(run.device)
        return WithExamples(surrogate, *examples)

    def _restore_surrogate(self, network: nn.Module, state: dict[str, Tensor]) -> nn.Module:
        features = state["features"].to(torch.float32, copy=True)  # float16 in what is shipped
        return WithExamples(network, features, state["labels"].clone())

    def _step_size_after(self, epoch: int) -> float:
        """Length of the steps after an epoch, from 1."""
        left = (self.train_epochs - epoch + 1) / self.train_epochs
        return self.step_size + left * (self.first_step_size - self.step_size)

    @torch.no_grad()
    def _no_features(self, run: Run, surrogate: nn.Module, number: int) -> Tensor:
        """Zeros for the features of so many images, (number, D)."""
        blank = torch.zeros((1, *run.images.shape[1:]))
        width = features_of(surrogate.cpu().eval(), blank).shape[1]
        return torch.zeros((number, width), device=run.device)

    def _loss(
        self, run: Run, features: Tensor, labels: Tensor, others: Tensor, theirs: Tensor
    ) -> Tensor:
        return information_loss(
            features,
            labels,
            others,
            theirs,
            num_classes=run.num_classes,
            temperature=self.temperature,
            distance_weight=self.distance_weight,
        )

    def _perturb(self, run: Run, index: Tensor, surrogate: WithExamples) -> Tensor:
        """Of new images, beside those whose features the surrogate holds."""
        labels, step_size = run.labels[index], self._step_size_after(self.train_epochs)

        def loss(features: Tensor) -> Tensor:
            return self._loss(run, features, labels, surrogate.features, surrogate.labels)

        start, steps = run.rows[index], self.extend_steps
        return self._descend(run, index, surrogate, loss, start, step_size, steps)

    def _descend(
        self,
        run: Run,
        index: Tensor,
        surrogate: nn.Module,
        loss_fn: Callable[[Tensor], Tensor],
        start: Tensor,
        step_size: float,
        steps: int,
    ) -> Tensor:
        """Perturbations (B, C, H, W) after ``steps`` steps down a loss of features (B, D)."""

        def loss(perturbed: Tensor) -> Tensor:
            return loss_fn(features_of(network, self._seen(run, perturbed, "search")))

        with run.frozen(surrogate) as network:
            return pgd(
                loss,
                to_float(run.images[index]),
                start,
                epsilon=self.epsilon,
                step_size=step_size,
                steps=steps,
                norm=self.norm,
                mask=run.mask(index),
            )


def information_loss(
    features: Tensor,
    labels: Tensor,
    others: Tensor,
    their_labels: Tensor,
    *,
    num_classes: int,
    temperature: float,
    distance_weight: float,
) -> Tensor:
    """Mean loss: low if features are similar within a class and different between classes.

    For image i it is ``-log(sum of exp(cosine / temperature) over its class / that over all)``,
    plus ``distance_weight * log(1 + sum of the distances to its class / D)``; the sums include i
    itself.

    Args:
        features: Features of images, float32 (B, D).
        labels: Their classes, int64 (B,).
        others: Features to compare with, (n, D): the same tensor, or those of other images.
        their_labels: Classes of ``others``, int64 (n,).
        num_classes: K.
        temperature: Divisor of the cosines.
        distance_weight: Weight of the distances.
    """
    with torch.autocast(features.device.type, enabled=False):
        same = labels[:, None] == their_labels
        cosines = F.normalize(features) @ F.normalize(others).T / temperature
        within = cosines.masked_fill(~same, -torch.inf)
        if others is features:
            same = same.clone().fill_diagonal_(False)  # at no distance
        else:
            itself = cosines.new_full((len(features), 1), 1 / temperature)
            cosines, within = (torch.cat((part, itself), 1) for part in (cosines, within))
        unlike = cosines.logsumexp(1) - within.logsumexp(1)
        # Around the mean of the class: distances within it are small beside the features.
        members = F.one_hot(their_labels, num_classes).to(others.dtype)  # (n, K)
        means = members.T @ others.detach() / members.sum(0).clamp_min(1)[:, None]
        own, their = features - means[labels], others - means[their_labels]
        squares = own.square().sum(1)[:, None] + their.square().sum(1) - 2 * own @ their.T
        spread = (squares.clamp_min(_TINY).sqrt() * same).sum(1) / features.shape[1]
        return unlike.mean() + distance_weight * spread.log1p().mean()


def first_of_each(classes: Tensor, most: int) -> Tensor:
    """Indices of the first ``most`` images of each class, in order, int64 (n,)."""
    return (ranks_within(classes) < most).nonzero()[:, 0]
