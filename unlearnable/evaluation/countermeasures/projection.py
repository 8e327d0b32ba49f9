"""Orthogonal projection: what a linear model learns is removed.

(Sandoval-Segura et al., NeurIPS 2023, 2305.19254)
"""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ...engine.models import reset_weights
from ...engine.random import Draws
from ...engine.run import Run
from ...engine.sampler import Shards, images_per_epoch
from ...engine.train import Batch, sgd, tenfold_decay, to_float, train_surrogate
from . import operations
from .base import Countermeasure
from .mixing import CutMix

_CHUNK = 512  # images that are projected at once


@dataclass(frozen=True)
class OrthogonalProjection(Countermeasure):
    """Removes the directions of a logistic regression's weights from every training image.

    The regression is trained on the images' pixels. Then the network is trained on the remainder
    around the mean image, rounded and clipped to valid pixels, with CutMix, rotation, shear,
    scaling and colour jitter.

    Args:
        epochs: Epochs of the regression.
        min_updates: Smallest number of updates of the regression. A small set is seen more often,
            because 20 epochs of it would learn, and so remove, a shortcut only by half. The default
            corresponds to 20 epochs of 50,000 images.
        batch_size: Batch size of the regression.
        augment: Whether the network is trained with augmentation.
    """

    epochs: int = 20
    min_updates: int = 960
    batch_size: int = 1024
    augment: bool = True

    name = "orthogonal-projection"
    description = "a victim that removes what a linear model learns from its training images"

    def __post_init__(self) -> None:
        self._integers(epochs=1, min_updates=0, batch_size=1)

    @property
    def needs_one_draw(self) -> bool:  # type: ignore[override]
        return self.augment

    def for_timing(self, few: int, count: int) -> OrthogonalProjection:
        # Each image is seen as often as among all of them: min_updates would have it seen more.
        batches = Shards(count).batches_per_epoch(self.batch_size)
        seen = self._epochs(batches) * images_per_epoch(count, self.batch_size) / count
        return replace(self, epochs=max(1, round(seen)), min_updates=0)

    def _epochs(self, batches: int) -> int:
        """Of the regression, given the number of batches in one."""
        return max(self.epochs, math.ceil(self.min_updates / batches))

    def on_images(self, images: Tensor, labels: Tensor) -> Tensor:
        directions = torch.linalg.qr(self.regression(images, labels).T).Q
        # Around the mean image, which takes half of the pixels of few images out of their range.
        mean = sum(part.sum(0, dtype=torch.float64) for part in images.split(_CHUNK)) / len(images)
        mean = mean.flatten().float()
        parts = [
            (mean + without(part.flatten(1).float() - mean, directions)).round().clamp(0, 255)
            for part in images.split(_CHUNK)
        ]
        return torch.cat([part.to(torch.uint8) for part in parts]).view_as(images)

    def regression(self, images: Tensor, labels: Tensor) -> Tensor:
        """Weights of the logistic regression, float (K, C * H * W), on uint8 (N, C, H, W)."""
        classes = int(labels.max()) + 1
        linear = nn.utils.skip_init(nn.Linear, images[0].numel(), classes, bias=False)
        model = nn.Sequential(nn.Flatten(), linear)
        with contextlib.closing(Run(images, labels, classes, seed=self.name)) as run:
            reset_weights(linear, seed=run.weight_seed("regression"))
            train_surrogate(
                run,
                model,
                sgd(model),
                tenfold_decay(0.5, 0.75),
                epochs=self._epochs(run.batches_per_epoch(self.batch_size)),
                batch_size=self.batch_size,
                inputs=lambda index: to_float(run.images[index]),
            )
        weights: Tensor = linear.weight.detach()
        return weights

    def on_batch(self, batch: Batch, run: Run, done: float) -> Batch:
        if not self.augment:
            return batch
        distorted = _distorted(batch.images, run.rng("distortion"))
        return CutMix(0.5, 1).on_batch(batch._replace(images=distorted), run, done)


def without(images: Tensor, directions: Tensor) -> Tensor:
    """Flat images (B, D) without their components along orthonormal ``directions`` (D, K)."""
    return images - images @ directions @ directions.T


def _distorted(images: Tensor, draws: Draws) -> Tensor:
    """Rotation and shear to ±10 degrees, 0.8 to 1.2 of the size, and colours to ±20 %."""
    turn, shear, scale, *factors = draws.uniform((len(images), 6), -1, 1).unbind(1)
    images = operations.turned(images, 10 * turn, 10 * shear, 1 + 0.2 * scale)
    for change, factor in zip(
        (operations.brightness, operations.contrast, operations.saturation), factors, strict=True
    ):
        images = change(images, 1 + 0.2 * factor)
    return images
