"""UEraser: the strongest of several strong augmentations. (Qin et al., 2303.15127)"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ...engine.random import Draws
from ...engine.run import Run
from ...engine.train import Batch
from .automatic import trivial_augment
from .base import Countermeasure
from .operations import columns, shuffle_channels


@dataclass(frozen=True)
class UEraser(Countermeasure):
    """Learns from whichever of several augmented draws has the largest loss.

    Each draw changes brightness and contrast along a random cloud, each with a given probability,
    shuffles the channels with probability 0.5, and applies TrivialAugment.

    Args:
        draws: Draws per image; 1 is UEraser-lite.
        until: Share of the epochs with several draws; after that there is one.
        probability: Probability of each cloud.
    """

    draws: int = 5
    until: float = 0.3
    probability: float = 0.5

    def __post_init__(self) -> None:
        self._integers(draws=1)
        self._numbers("until", "probability")
        if not 0 <= self.until <= 1 or not 0 <= self.probability <= 1:
            raise ValueError(
                f"expected shares from 0 to 1, got until={self.until} and "
                f"probability={self.probability}"
            )

    @property
    def several_draws(self) -> bool:  # type: ignore[override]
        return self.draws > 1 and self.until > 0

    @property
    def passes(self) -> float:
        return self.until * self.draws + 1 - self.until

    @property
    def name(self) -> str:
        if self.draws == 1:
            return "ueraser-lite"
        return "ueraser-max" if self.until == 1 else "ueraser"

    @property
    def description(self) -> str:
        strong = "a victim that augments each image strongly"
        if self.draws == 1:
            return f"{strong} (UEraser-lite)"
        when = "" if self.until == 1 else f" for the first {100 * self.until:g} % of epochs"
        return f"{strong} and learns from the worst of {self.draws} draws{when} (UEraser)"

    def on_batch(self, batch: Batch, run: Run, done: float) -> Batch:
        count = self.draws if done < self.until else 1
        images = batch.images.repeat_interleave(count, dim=0)
        draws = run.rng("ueraser")
        clouds = self._cloud(images, draws)
        strength = columns(draws.uniform((len(images),), 0.5, 1))
        brighter = (images + strength * (2 * clouds - 1)).clamp(0, 1)
        images = torch.where(self._chosen(len(images), draws), brighter, images)
        clouds = self._cloud(images, draws)
        sharper = (0.5 + 4 * clouds * (images - 0.5)).clamp(0, 1)
        images = torch.where(self._chosen(len(images), draws), sharper, images)
        images = shuffle_channels(images, draws, 0.5)
        return batch._replace(images=trivial_augment(images, draws))

    def _cloud(self, images: Tensor, draws: Draws) -> Tensor:
        return plasma(images.shape, draws.uniform((len(images),), 0.3, 0.7), draws)

    def _chosen(self, count: int, draws: Draws) -> Tensor:
        return columns(draws.uniform((count,), 0, 1) < self.probability)


def plasma(shape: torch.Size, roughness: Tensor, draws: Draws) -> Tensor:
    """Random clouds from 0 to 1, one per channel, by the diamond-square construction.

    A grid of four corners is refined until it covers the image; new points are the mean of their
    neighbours plus noise, whose spread shrinks by the factor ``roughness`` (B,), 0 to 1, from one
    grid to the next. (Fournier et al., Communications of the ACM 1982)
    """
    count, channels, height, width = shape

    def noise(rows: int, places: int) -> Tensor:
        return spread * draws.uniform((count, channels, rows, places), -1, 1)

    spread = torch.ones_like(columns(roughness))
    grid = noise(2, 2)
    for _ in range(max(1, math.ceil(math.log2(max(height, width, 2) - 1)))):
        spread = spread * columns(roughness)
        n = grid.shape[2] - 1
        corners = grid[:, :, :-1] + grid[:, :, 1:]
        middle = (corners[..., :-1] + corners[..., 1:]) / 4 + noise(n, n)
        above_below = F.pad(middle, (0, 0, 1, 0)) + F.pad(middle, (0, 0, 0, 1))
        left_right = F.pad(middle, (1, 0, 0, 0)) + F.pad(middle, (0, 1, 0, 0))
        neighbours = torch.full((n + 1,), 4.0, device=grid.device)
        neighbours[0] = neighbours[-1] = 3
        rows = (grid[..., :-1] + grid[..., 1:] + above_below) / neighbours[:, None]
        stands = (grid[:, :, :-1] + grid[:, :, 1:] + left_right) / neighbours
        finer = grid.new_empty(count, channels, 2 * n + 1, 2 * n + 1)
        finer[..., ::2, ::2] = grid
        finer[..., 1::2, 1::2] = middle
        finer[..., ::2, 1::2] = rows + noise(n + 1, n)
        finer[..., 1::2, ::2] = stands + noise(n, n + 1)
        grid = finer
    clouds = grid[..., :height, :width]
    low, high = clouds.amin((2, 3), keepdim=True), clouds.amax((2, 3), keepdim=True)
    return (clouds - low) / (high - low).clamp_min(1e-12)
