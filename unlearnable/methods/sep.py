"""SEP: min δ of the mean loss to another class over checkpoints. (Chen et al., 2211.12005)"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from functools import partial, reduce
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..engine.models import Ensemble
from ..engine.pgd import gradient, projected_steps, target_classes, variance_reduced
from ..engine.run import Run
from ..engine.sampler import images_per_epoch
from ..engine.train import to_float
from .expectation import Expectation, transformations
from .parameters import any_integer, count, flag, length, positive
from .self_ensemble import check_checkpoints, train_checkpoints


@dataclass(repr=False, eq=False)
class SEP(Expectation):
    """Self-ensemble protection. (Chen et al., ICLR 2023, arXiv:2211.12005)

    The perturbation moves each image towards another class for all checkpoints of one ordinary
    training run at once, because what they have in common also affects other networks. The
    extensions are ``feature_alignment`` (SEP-FA) and, on top of it, ``variance_reduction``
    (SEP-FA-VR).

    Args:
        surrogate: Name of a network or a module, which is copied and starts from fresh weights.
        epsilon: Budget in [0, 1] units.
        norm: ``"Linf"`` or ``"L2"``.
        step_size: Length of a perturbation step.
        steps: Number of perturbation steps.
        augment: Transformations drawn anew for each image in each step, as name -> probability:
            ``"crop-flip"`` (0 if absent) and before it one of ``"resize"``, ``"jpeg"``,
            ``"grayscale"``, ``"blur"``, ``"spectral"``, ``"normalize"`` and ``"jitter"``, or a
            combination such as ``"grayscale+jpeg"``. The perturbation then withstands them, but is
            mostly weaker without them. All checkpoints see the same draws in a step. The surrogate
            is also trained on such draws, and always on crops and flips. None means no
            transformations.
        train_epochs: Epochs of the surrogate; its learning rate drops tenfold after 5/8 and 3/4.
        checkpoints: Number of its states to use, equally spaced and including the last epoch's;
            None means the paper's 30, or 15 with both extensions.
        learning_rate: Initial learning rate of the surrogate, for fresh weights; pretrained ones
            are usually trained at a lower one, such as 0.01.
        shift: The target class is this many indices further on, wrapping around; None means half
            the number of classes.
        feature_alignment: Move the inputs of the last Linear layer towards their mean over the
            target class instead of lowering the cross-entropy to it.
        variance_reduction: Step along a sum of corrected gradients of single checkpoints (SVRG).
        inner_steps: Number of gradients in this sum.
        granularity: ``"sample-wise"``; the method has no other.
        pretrained_surrogate: Keep the weights of a surrogate given as a module, or start from those
            of a named network (:func:`unlearnable.pretrained_network`).
        batch_size: Images per step, rounded down to a multiple of 8, at least 8.
        seed: Seed of weights, batches, augmentation and the order of checkpoints.

    After ``fit``, ``surrogate_`` holds the checkpoints: ``surrogate_(images)`` returns their mean
    logits, ``surrogate_(images, k)`` the logits of checkpoint k.

    Example:
        >>> from unlearnable.datasets import Shapes
        >>> method = SEP.preset("demo", train_epochs=2, checkpoints=2, steps=1)
        >>> method.fit(Shapes(size=64), progress=False).perturbation_
        Perturbation(SEP, sample-wise, Linf 2/255, 64 images of 3x32x32)
    """

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": {},
        "fast": {"train_epochs": 24, "checkpoints": 8, "steps": 8},
        "demo": {"surrogate": "tiny", "train_epochs": 15, "checkpoints": 5, "steps": 5},
    }
    granularities = ("sample-wise",)
    later = ("augment", "learning_rate")
    masked = True

    surrogate: str | nn.Module = "resnet18"
    _: KW_ONLY
    epsilon: float = 2 / 255
    norm: str = "Linf"
    step_size: float = length(1 / 255)
    steps: int = count(30, least=0)
    augment: Mapping[str, float] | None = transformations()
    train_epochs: int = count(120)
    checkpoints: int | None = count(None)
    learning_rate: float = positive(0.1)
    shift: int | None = any_integer(None)
    feature_alignment: bool = flag(False)
    variance_reduction: bool = flag(False)
    inner_steps: int = count(16, least=0)
    granularity: str = "sample-wise"
    pretrained_surrogate: bool = False
    batch_size: int = 128
    seed: int = 0

    def _validate(self) -> None:
        super()._validate()
        if self.variance_reduction and self.inner_steps < 1:
            raise ValueError(f"expected inner_steps >= 1, got {self.inner_steps}")
        check_checkpoints(self._size, self.train_epochs)

    @property
    def _size(self) -> int:
        if self.checkpoints is not None:
            return self.checkpoints
        return 15 if self.feature_alignment and self.variance_reduction else 30

    def passes(self, num_images: int) -> int:
        a_step = self._size + (self.inner_steps if self.variance_reduction else 0)
        search = self.steps * a_step + (self._size if self.feature_alignment else 0)
        seen = images_per_epoch(num_images, self.batch_size)
        return self.train_epochs * seen + num_images * search

    def _learn(self, run: Run) -> Ensemble:
        self._targets(run, run.labels)  # a shift that leads nowhere is refused before the work
        surrogate = self._build_surrogate(run)
        ensemble = Ensemble(surrogate, self._size).to(run.device)
        if self.feature_alignment:
            ensemble.features = self._no_features(run, ensemble)
            run.track(features=ensemble.features)
        train_checkpoints(
            run,
            surrogate,
            ensemble,
            epochs=self.train_epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            before=partial(self._degraded, run),
        )
        if ensemble.features is not None:
            self._fill_features(run, ensemble, ensemble.features)
        for index in run.sweep(self.batch_size, title="perturbations"):
            run.rows[index] = self._perturb(run, index, ensemble)
        return ensemble

    def _restore_surrogate(self, network: nn.Module, state: dict[str, Tensor]) -> nn.Module:
        features = state.get("features")
        return Ensemble(network, self._size, None if features is None else features.clone())

    def _targets(self, run: Run, labels: Tensor) -> Tensor:
        shift = run.num_classes // 2 if self.shift is None else self.shift
        return target_classes(labels, shift, run.num_classes)

    @torch.no_grad()
    def _no_features(self, run: Run, ensemble: Ensemble) -> Tensor:
        """Zeros for the mean features of each class under each checkpoint, (n, K, D)."""
        targets = self._targets(run, run.labels)
        _check_present(_counts(run) > 0, targets)
        blank = torch.zeros((1, *run.images.shape[1:]), device=run.device)
        width = ensemble.eval().features_of(blank, 0).shape[1]
        return torch.zeros((self._size, run.num_classes, width), device=run.device)

    def _fill_features(self, run: Run, ensemble: Ensemble, features: Tensor) -> None:
        counts = _counts(run)
        for index in run.sweep(self.batch_size, title="mean features"):
            images, labels = to_float(run.images[index]), run.labels[index]
            with run.frozen(ensemble) as network, torch.no_grad():
                seen = torch.stack([network.features_of(images, k) for k in range(self._size)])
            shares = F.one_hot(labels, run.num_classes) / counts[labels][:, None]  # (B, K)
            features += run.sum(torch.einsum("bk,nbd->nkd", shares, seen))
        features[:, counts == 0] = torch.nan

    def _perturb(self, run: Run, index: Tensor, surrogate: Ensemble) -> Tensor:
        images, targets = to_float(run.images[index]), self._targets(run, run.labels[index])
        features = surrogate.features
        if features is not None:
            _check_present(~features.isnan().any(2).any(0), targets)
        # The same for every image, however they are shared.
        order = run.global_rng("order").on_cpu()
        step: dict[str, Any] = {
            "epsilon": self.epsilon,
            "step_size": self.step_size,
            "norm": self.norm,
            "mask": run.mask(index),
        }

        def loss(k: int, perturbed: Tensor) -> Tensor:
            if features is None:
                return F.cross_entropy(network(perturbed, k), targets, reduction="sum")
            found = network.features_of(perturbed, k)
            return F.mse_loss(found, features[k, targets], reduction="sum")

        def direction(perturbed: Tensor) -> Tensor:
            # One draw: it is the same expectation, and variance reduction compares like with like.
            seen = self._draw(run, len(perturbed), "search")

            def slope(k: int, moved: Tensor) -> Tensor:
                return gradient(lambda x: loss(k, seen(x)), moved)

            if self.variance_reduction:
                drawn = order.integers((self.inner_steps,), 0, self._size).tolist()
                return variance_reduced(slope, self._size, drawn, images, perturbed, **step)
            return reduce(torch.add, (slope(k, perturbed) for k in range(self._size)))

        with run.frozen(surrogate) as network:
            return projected_steps(
                direction, images, torch.zeros_like(images), steps=self.steps, **step
            )


def _counts(run: Run) -> Tensor:
    """Images of each class, int64 (K,)."""
    counts = torch.zeros(run.num_classes, dtype=torch.int64, device=run.device)
    return counts.index_add_(0, run.labels, torch.ones_like(run.labels))


def _check_present(present: Tensor, targets: Tensor) -> None:
    missing = targets[~present[targets]]
    if len(missing):
        raise ValueError(
            f"expected images of every target class for feature_alignment=True, got none of class "
            f"{int(missing[0])}; choose another shift, or omit feature_alignment"
        )
