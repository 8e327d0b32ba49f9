"""Batches in which parts of images are removed or replaced by other images."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ...engine.random import Draws
from ...engine.run import Run
from ...engine.train import Batch
from .base import Countermeasure

Mix = tuple[Tensor, Tensor]  # images (B, C, H, W), and how much of themselves they keep (B,)


def boxes(images: Tensor, heights: Tensor, widths: Tensor, draws: Draws) -> Tensor:
    """Masks of one box per image, clipped at the image's edges, bool (B, 1, H, W).

    Heights and widths are int64 (B,). A box may be centred on any pixel; it begins half its height
    above and half its width to the left of the centre, rounded down.
    """

    def inside(length: Tensor, pixels: int) -> Tensor:
        first = (draws.integers((len(images),), 0, pixels) - length // 2)[:, None]
        position = torch.arange(pixels, device=images.device)
        return (position >= first) & (position < first + length[:, None])

    rows, columns = inside(heights, images.shape[2]), inside(widths, images.shape[3])
    return (rows[:, :, None] & columns[:, None, :])[:, None]


@dataclass(frozen=True)
class Cutout(Countermeasure):
    """Blacks out one square in every image. (DeVries & Taylor, 1708.04552)

    Args:
        size: Side of the square in pixels; it may be centred on any pixel, so parts of it may lie
            outside the image. None means half the image's shorter side: 16 for 32x32.
    """

    size: int | None = None

    name = "cutout"
    description = "a victim that blacks out a random square of each image (Cutout)"

    def __post_init__(self) -> None:
        if self.size is not None:
            self._integers(size=1)

    def on_batch(self, batch: Batch, run: Run, done: float) -> Batch:
        images = batch.images
        side = min(images.shape[2:]) // 2 if self.size is None else self.size
        sides = torch.full((len(images),), side, device=images.device)
        hole = boxes(images, sides, sides, run.rng("cutout"))
        return batch._replace(images=images.masked_fill(hole, 0))


@dataclass(frozen=True)
class _Mixing(Countermeasure):
    """Mixes images with others of their batch, and their labels likewise.

    Args:
        probability: Probability of each mix for each image.
        mixes: Number of mixes in sequence.
    """

    probability: float = 0.5
    mixes: int = 2

    needs_one_draw = True

    def __post_init__(self) -> None:
        self._numbers("probability")
        self._integers(mixes=1)
        if not 0 <= self.probability <= 1:
            raise ValueError(f"expected a probability from 0 to 1, got {self.probability}")

    def on_batch(self, batch: Batch, run: Run, done: float) -> Batch:
        images, count = batch.images, len(batch.images)
        targets = batch.targets
        if targets.ndim == 1:
            targets = F.one_hot(targets, run.num_classes).to(images.dtype)
        others, other_targets = images, targets
        for _ in range(self.mixes):
            draws = run.rng(self.name)
            partner = draws.uniform((count,), 0, 1).argsort()
            chosen = draws.uniform((count,), 0, 1) < self.probability
            # Beta(1, 1), the published choice, is uniform.
            weight = torch.where(chosen, draws.uniform((count,), 0, 1), 1.0)
            images, weight = self._mix(images, others[partner], weight, draws)
            targets = torch.lerp(other_targets[partner], targets, weight[:, None])
        return Batch(images, targets)

    @abstractmethod
    def _mix(self, images: Tensor, others: Tensor, weight: Tensor, draws: Draws) -> Mix:
        """Images that keep about ``weight`` (B,) of themselves, and how much they do keep."""


@dataclass(frozen=True)
class CutMix(_Mixing):
    """Pastes a box of another image; labels mix by area. (Yun et al., ICCV 2019, 1905.04899)"""

    name = "cutmix"
    description = "a victim that pastes parts of other images into each (CutMix)"

    def _mix(self, images: Tensor, others: Tensor, weight: Tensor, draws: Draws) -> Mix:
        share = (1 - weight).sqrt()
        height, width = ((side * share).long() for side in images.shape[2:])
        box = boxes(images, height, width, draws)
        return torch.where(box, others, images), 1 - box.float().mean((1, 2, 3))


@dataclass(frozen=True)
class MixUp(_Mixing):
    """Averages two images and their labels. (Zhang et al., ICLR 2018, 1710.09412)"""

    name = "mixup"
    description = "a victim that averages each image with another one (MixUp)"

    def _mix(self, images: Tensor, others: Tensor, weight: Tensor, draws: Draws) -> Mix:
        return torch.lerp(others, images, weight[:, None, None, None]), weight
