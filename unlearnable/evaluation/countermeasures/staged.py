"""Training in stages that slow down the shallow layers. (after Dang et al., 2306.02064)"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn

from ...engine.run import Run
from ...engine.train import Batch
from . import operations
from .base import Countermeasure
from .colours import ColourJitter

_JITTER = ColourJitter()


@dataclass(frozen=True)
class StagedTraining(Countermeasure):
    """The victim watches itself for shortcuts, and stops its shallow layers from learning them.

    Shallow layers learn a perturbation first, and deeper ones then learn from nothing else. (Dang
    et al., arXiv:2306.02064.) This is our own simple form of that paper's progressive staged
    training. It is defined as follows.

    A victim has D layers with weights, in the order in which they are defined. Training is at stage
    0 first, and one stage further after each epoch whose mean training loss was below ``watched``
    times the logarithm of the number of classes, the loss of a guess; there are no more than
    ``stages``. At stage s the weights of the first ``round(s / stages * (D - 1))`` layers are held:
    no update changes them. The last layer always learns. BatchNorm is a layer like any other, and
    normalizes by each batch as before.

    In every batch the colours of each image change as in ``colour-jitter``, and an image is grey
    with the probability ``grey``.

    Args:
        stages: Number of stages after the first, at least 1.
        watched: Share of the loss of a guess, above 0 and below 1.
        grey: From 0 to 1.
    """

    stages: int = 4
    watched: float = 0.5
    grey: float = 0.2

    name = "staged-training"
    description = (
        "a victim that stops its shallow layers from learning as soon as training looks too easy, "
        "and changes the colours of each image at random in every batch"
    )

    def __post_init__(self) -> None:
        self._integers(stages=1)
        self._numbers("watched", "grey")
        if not 0 < self.watched < 1:
            raise ValueError(f"expected watched above 0 and below 1, got {self.watched}")
        if not 0 <= self.grey <= 1:
            raise ValueError(f"expected grey from 0 to 1, got {self.grey}")

    def on_epoch(self, model: nn.Module, run: Run) -> None:
        layers = layers_of(model)
        bound = self.watched * math.log(run.num_classes)
        stage = min(self.stages, sum(record["loss"] < bound for record in run.history))
        held = round(stage / self.stages * (len(layers) - 1))
        for weights in layers[:held]:  # stages only go up, so none is ever let go
            for weight in weights:
                weight.requires_grad_(False)

    def on_batch(self, batch: Batch, run: Run, done: float) -> Batch:
        images = _JITTER.on_batch(batch, run, done).images
        drawn = run.rng("grey").uniform((len(images), 1, 1, 1), 0, 1)
        return batch._replace(
            images=torch.where(drawn < self.grey, operations.grey(images), images)
        )


def layers_of(model: nn.Module) -> list[list[nn.Parameter]]:
    """The weights of each layer that has any of its own, in the order in which they are defined."""
    found = [list(module.parameters(recurse=False)) for module in model.modules()]
    return [weights for weights in found if weights]
