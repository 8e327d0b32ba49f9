"""Victims that start from ImageNet weights: all of them are fine-tuned, or a last layer learned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...engine.efficientnet_lite import LEAST_SIDE
from ...engine.models import LITE0, last_linear
from ...engine.pretrained import (
    check_pretrained,
    features,
    pretrained_network,
    without_head,
)
from ...engine.run import Run
from .base import Countermeasure

_ITERATIONS = 200  # of L-BFGS, at most; it ends long before


class _OwnNetwork(Countermeasure):
    """A countermeasure that trains a pretrained network, whatever the victim is."""

    network: str
    least_side: int

    def check_victim(self, victim: str | nn.Module, shape: Sequence[int] | None = None) -> None:
        check_pretrained(self.network)

    def build_victim(
        self, victim: str | nn.Module, num_classes: int, channels: int, *, seed: int
    ) -> nn.Module:
        return pretrained_network(
            self.network, num_classes, channels=channels, least_side=self.least_side, seed=seed
        )


@dataclass(frozen=True)
class FineTuningImageNet(_OwnNetwork):
    """Fine-tunes all weights of a network pretrained on ImageNet, whatever the victim is.

    The network gets a new last layer and is trained by the protocol at a low learning rate. As in
    other victims, its BatchNorm layers use batch statistics in training and running statistics in
    testing. Images are resized inside the network.

    Args:
        network: As in :func:`unlearnable.pretrained_network`.
        learning_rate: Initial learning rate.
        least_side: Side in pixels to which smaller images are enlarged.

    Raises:
        ImportError: The extra ``pretrained`` is not installed; raised before any training.
    """

    network: str = LITE0
    learning_rate: float = 0.001
    least_side: int = LEAST_SIDE

    def __post_init__(self) -> None:
        self._numbers("learning_rate")
        if self.learning_rate <= 0:
            raise ValueError(f"expected a learning rate above 0, got {self.learning_rate}")
        self._integers(least_side=32)

    @property
    def name(self) -> str:
        return _name("fine-tuning-imagenet", self.network)

    @property
    def description(self) -> str:
        return f"a victim that fine-tunes all ImageNet weights of {self.network}"


@dataclass(frozen=True)
class LinearProbeImageNet(_OwnNetwork):
    """A linear classifier on the features of a frozen network that was trained on ImageNet.

    Features are computed once, from the images without crops and flips, and with the BatchNorm
    statistics of ImageNet. The classifier is multinomial logistic regression, fitted by L-BFGS
    until convergence; so epochs, recipe and seed make no difference, and the peak equals the last
    accuracy.

    Args:
        network: As in :func:`unlearnable.pretrained_network`.
        weight_decay: Weight decay of the classifier.
        least_side: Side in pixels to which smaller images are enlarged.

    Raises:
        ImportError: The extra ``pretrained`` is not installed; raised before any training.
    """

    network: str = LITE0
    weight_decay: float = 5e-4
    least_side: int = LEAST_SIDE

    trains = False

    def __post_init__(self) -> None:
        self._numbers("weight_decay")
        if self.weight_decay < 0:
            raise ValueError(f"expected a weight decay of at least 0, got {self.weight_decay}")
        self._integers(least_side=32)

    @property
    def name(self) -> str:
        return _name("linear-probe-imagenet", self.network)

    @property
    def description(self) -> str:
        return (
            f"a victim that learns a linear classifier on features of {self.network} with "
            f"ImageNet weights"
        )

    def on_start(self, model: nn.Module, victim: str | nn.Module, run: Run) -> None:
        found = features(run, without_head(model).to(run.device))
        head: Any = model.get_submodule(last_linear(model))
        weight, bias = fit_linear(found, run.labels, run.num_classes, self.weight_decay)
        with torch.no_grad():
            head.weight.copy_(weight)
            head.bias.copy_(bias)

    @property
    def passes(self) -> float:
        return 1 / 3  # forward only, and once


def fit_linear(
    inputs: Tensor, labels: Tensor, num_classes: int, weight_decay: float
) -> tuple[Tensor, Tensor]:
    """Multinomial logistic regression: minimises the mean cross-entropy with weight decay.

    Args:
        inputs: Float (N, D).
        labels: int64, (N,).
        num_classes: K.
        weight_decay: Half of it, times the sum of the squared weights, is added to the loss.

    Returns:
        Weights (K, D) and biases (K,).
    """
    weight = inputs.new_zeros(num_classes, inputs.shape[1]).requires_grad_()
    bias = inputs.new_zeros(num_classes).requires_grad_()
    optimizer = torch.optim.LBFGS(
        [weight, bias], max_iter=_ITERATIONS, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(F.linear(inputs, weight, bias), labels)
        loss = loss + weight_decay / 2 * weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return weight.detach(), bias.detach()


def _name(countermeasure: str, network: str) -> str:
    """With the network, where it is another one than usual."""
    return countermeasure if network == LITE0 else f"{countermeasure}-{network.split(':')[-1]}"
