"""SmoothFields: a smooth pattern of light and colour per class, far from the others'."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..engine.augment import luma
from ..engine.random import Draws
from ..engine.run import Run
from .base import Method
from .farthest import farthest
from .parameters import Untrained, count, proportion

_FREQUENCIES, _COLOURFULNESS = 3, 0.7
_PATTERNS = 4000  # random ones to choose from
_GRID = 8  # cells of a side at which patterns are compared
_STEEPNESS = 2.5  # of standard deviations that a field is divided by before it saturates


@dataclass(kw_only=True, repr=False, eq=False)
class SmoothFields(Untrained, Method):
    """Class-wise smooth fields. (built on Yu et al., KDD 2022, arXiv:2111.00898)

    A row consists of large patches of light, shade and colour: a random sum of the lowest
    frequencies of a cosine transform, pushed to the ends of the budget by a hyperbolic tangent. It
    is symmetric, so flips do not change it. These patches are meant to be easier to learn than the
    picture, too large for JPEG to remove, and different in brightness as well as in colour, against
    greyscale and channel normalisation. The mean of each class reveals them, and linear models can
    find them: subtracting the former or projecting out the latter removes them.

    This is this package's own method, based on the paper's idea of shortcuts that are easy to tell
    apart. Patterns are chosen from random ones, each as far as possible from those before, both in
    brightness and overall. Nothing is trained, and there is one row per class.

    Args:
        epsilon: Budget in [0, 1] units (Linf).
        frequencies: Number of the lowest frequencies to use along each axis, at least 2.
        colourfulness: Spread of colour differences relative to that of brightness; 0 is grey.
        granularity: Only ``"class-wise"``.
        seed: Seed of the patterns.

    Example:
        >>> from unlearnable.datasets import Shapes
        >>> SmoothFields().fit(Shapes(size=20), progress=False).perturbation_
        Perturbation(SmoothFields, class-wise, Linf 8/255, 10 classes of 3x32x32)
    """

    granularities = ("class-wise",)
    masked = True
    norm = "Linf"

    epsilon: float = 8 / 255
    frequencies: int = count(_FREQUENCIES, least=2)
    colourfulness: float = proportion(_COLOURFULNESS)
    granularity: str = "class-wise"
    seed: int = 0

    def _learn(self, run: Run) -> None:
        shape = run.images.shape[1:]
        chosen = smooth_fields(
            run.global_rng("fields"), run.num_classes, shape, self.frequencies, self.colourfulness
        )
        run.result("class-wise", rows=self.epsilon * chosen.to(run.device))


def smooth_fields(
    draws: Draws,
    classes: int,
    shape: Sequence[int],
    frequencies: int = _FREQUENCIES,
    colourfulness: float = _COLOURFULNESS,
) -> Tensor:
    """One pattern per class, each as far as possible from those before.

    Args:
        draws: Random draws that belong to no batch.
        classes: K.
        shape: (C, H, W).
        frequencies: Number of frequencies of a cosine transform along each axis.
        colourfulness: Spread of colour differences relative to that of brightness.

    Returns:
        Float (K, C, H, W) from -1 to 1, on the CPU.
    """
    channels, height, width = shape
    # Even ones across, which mirror themselves; the first is no wave at all.
    waves = [(down, 2 * across) for down in range(frequencies) for across in range(frequencies)]
    axes = _axes(channels, colourfulness)
    number = max(_PATTERNS, 4 * classes)
    weights = draws.on_cpu().normal((number, len(waves) - 1, len(axes))) @ axes  # (P, W, C)
    coarse = torch.einsum("pwc,whv->pchv", weights, _cosines(waves[1:], _GRID, _GRID))
    spread = coarse.flatten(1).std(1)[:, None, None, None]
    coarse = torch.tanh(_STEEPNESS * coarse / spread)
    # In brightness and in all, so that they are apart in grey pictures too.
    chosen = farthest(classes, luma(coarse).flatten(1).numpy(), coarse.flatten(1).numpy())
    index = torch.from_numpy(chosen)
    fields = torch.einsum("pwc,whv->pchv", weights[index], _cosines(waves[1:], height, width))
    return torch.tanh(_STEEPNESS * fields / spread[index])


def _axes(channels: int, colourfulness: float) -> Tensor:
    """Brightness and differences of colour, as rows, (axes, C)."""
    if channels != 3:
        return torch.full((1, channels), channels**-0.5)
    axes = torch.tensor([[1.0, 1.0, 1.0], [1.0, -1.0, 0.0], [1.0, 1.0, -2.0]])
    axes = axes / axes.norm(dim=1, keepdim=True)
    return axes * torch.tensor([[1.0], [colourfulness], [colourfulness]])


def _cosines(waves: Sequence[tuple[int, int]], height: int, width: int) -> Tensor:
    """Products of cosines down and across, (W, H, W)."""
    down, across = (np.pi * (torch.arange(side) + 0.5) / side for side in (height, width))
    return torch.stack([torch.outer((a * down).cos(), (b * across).cos()) for a, b in waves])
