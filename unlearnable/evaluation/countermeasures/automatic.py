"""Augmentation by operations drawn from a list: RandAugment and TrivialAugment.

The lists and magnitudes are torchvision's; the operations act on a batch at once, since an image
at a time is too slow for training.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as v2

from ...engine.device import send
from ...engine.random import Draws
from ...engine.run import Run
from ...engine.train import Batch
from . import operations
from .base import Countermeasure

_TOP = 30  # the highest of torchvision's 31 magnitudes


class Operation(NamedTuple):
    """A function that changes images (B, C, H, W) by magnitudes (B,), and their range."""

    apply: Callable[[Tensor, Tensor], Tensor]
    lowest: float = 0  # at level 0
    highest: float = 0  # at level 30
    signed: bool = False  # the sign is drawn
    around: float = 0  # what the magnitude is added to
    whole: bool = False  # rounded

    def magnitude(self, level: Tensor, sign: Tensor) -> Tensor:
        """The magnitudes for levels from 0 to 30 and signs ±1, both (B,)."""
        value = self.lowest + (self.highest - self.lowest) * level / _TOP
        value = value.round() if self.whole else value
        return self.around + (sign * value if self.signed else value)


def _list(
    *, shear: float, right: float, down: float, degrees: float, colour: float, bits: int
) -> tuple[Operation, ...]:
    return (
        Operation(lambda images, _: images),
        Operation(operations.shear_x, highest=shear, signed=True),
        Operation(operations.shear_y, highest=shear, signed=True),
        Operation(operations.translate_x, highest=right, signed=True),
        Operation(operations.translate_y, highest=down, signed=True),
        Operation(operations.rotate, highest=degrees, signed=True),
        Operation(operations.brightness, highest=colour, signed=True, around=1),
        Operation(operations.saturation, highest=colour, signed=True, around=1),
        Operation(operations.contrast, highest=colour, signed=True, around=1),
        Operation(operations.sharpness, highest=colour, signed=True, around=1),
        Operation(operations.posterize, lowest=8, highest=bits, whole=True),
        Operation(operations.solarize, lowest=1, highest=0),
        Operation(lambda images, _: operations.autocontrast(images)),
        Operation(lambda images, _: v2.equalize(images)),
    )


def rand_augment_list(height: int, width: int) -> tuple[Operation, ...]:
    """RandAugment's operations for images of this size."""
    share = 150 / 331
    return _list(
        shear=0.3, right=share * width, down=share * height, degrees=30, colour=0.9, bits=4
    )


TRIVIAL_AUGMENT = _list(shear=0.99, right=32, down=32, degrees=135, colour=0.99, bits=2)


def _augmented(
    images: Tensor, draws: Draws, chosen_from: tuple[Operation, ...], level: Tensor
) -> Tensor:
    """One operation per image, at its level of magnitude, which is on the CPU as the draws are.

    Which image gets which operation is known on the CPU, so that no shape depends on a GPU.
    """
    which = draws.integers((len(images),), 0, len(chosen_from))
    sign = 2 * draws.integers((len(images),), 0, 2) - 1
    order = which.argsort(stable=True)
    counts = which.bincount(minlength=len(chosen_from)).tolist()
    parts = zip(chosen_from, level[order].split(counts), sign[order].split(counts), strict=True)
    magnitudes = torch.cat([operation.magnitude(*drawn) for operation, *drawn in parts])
    order, magnitudes = send(order, images.device), send(magnitudes, images.device)
    out = images.clone()
    for operation, mine, magnitude in zip(
        chosen_from, order.split(counts), magnitudes.split(counts), strict=True
    ):
        if len(mine):
            out[mine] = operation.apply(images[mine], magnitude)
    return out


def trivial_augment(images: Tensor, draws: Draws) -> Tensor:
    """TrivialAugment Wide: one random operation. (Müller & Hutter, ICCV 2021, 2103.10158)

    Takes and returns float images in [0, 1], (B, C, H, W).
    """
    draws = draws.on_cpu()
    level = draws.integers((len(images),), 0, _TOP + 1)
    return _augmented(images, draws, TRIVIAL_AUGMENT, level)


@dataclass(frozen=True)
class RandAugment(Countermeasure):
    """Random operations, all of the same magnitude. (Cubuk et al., NeurIPS 2020, 1909.13719)

    Args:
        operations: Number of operations per image.
        magnitude: Magnitude from 0 to 30.
    """

    operations: int = 2
    magnitude: int = 9

    name = "randaugment"
    description = "a victim that distorts each image with random operations (RandAugment)"

    def __post_init__(self) -> None:
        self._integers(operations=1, magnitude=0)
        if self.magnitude > _TOP:
            raise ValueError(f"expected a magnitude up to {_TOP}, got {self.magnitude}")

    def on_batch(self, batch: Batch, run: Run, done: float) -> Batch:
        images = batch.images
        chosen_from = rand_augment_list(*images.shape[2:])
        level = torch.full((len(images),), self.magnitude)
        for _ in range(self.operations):
            images = _augmented(images, run.rng("randaugment").on_cpu(), chosen_from, level)
        return batch._replace(images=images)
