"""A colour per class, each the one farthest from those before."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from ..engine.augment import luma
from ..engine.random import Draws
from .farthest import farthest

_POINTS = 4000  # random colours to choose from
_GRID = 1 << 18  # colours at most that are all thought of, where those do not go round


def spread_colours(
    draws: Draws, count: int, channels: int, epsilon: float, luminance: float = 0.0
) -> Tensor:
    """Colours in pixel levels inside a cube; none is black, and all are different.

    They are chosen from random colours on the surface of the cube, each as far as possible from
    those before. Greys, whose cube is a line, are chosen from the whole line; if there are many
    classes and the cube is small, colours are chosen from the whole cube.

    Args:
        draws: Random draws that belong to no batch.
        count: Number of colours, K.
        channels: C, 1 or 3.
        epsilon: Half the side of the cube, in [0, 1] units.
        luminance: Weight, from 0 to 1, of differences in luminance rather than in colour.

    Returns:
        Float (K, C), in [0, 1] units, on the CPU.

    Raises:
        ValueError: The cube holds too few colours.
    """
    most = math.floor(255 * epsilon + 1e-6)
    draws = draws.on_cpu()
    points = draws.uniform((_POINTS, channels), -1, 1)
    if channels > 1:
        axis = draws.integers((_POINTS, 1), 0, channels)
        side = 2.0 * draws.integers((_POINTS, 1), 0, 2) - 1
        points = points.scatter(1, axis, side)
    levels = _distinct((most * points).round().long())
    if len(levels) < count:
        levels = _all_levels(most, channels, count)
    seen = levels.double()
    if luminance and channels > 1:  # of greys both differ alike
        grey = math.sqrt(channels) * luma(seen[:, :, None, None])[:, :, 0, 0]
        seen = torch.cat([math.sqrt(1 - luminance) * seen, math.sqrt(luminance) * grey], 1)
    chosen = farthest(count, seen.numpy())
    return levels[torch.from_numpy(chosen)].float() / 255


def _distinct(levels: Tensor) -> Tensor:
    """Colours without black, each once, in the order of their first."""
    levels = levels[levels.any(1)]
    _, first = np.unique(levels.numpy(), axis=0, return_index=True)
    return levels[torch.from_numpy(np.sort(first))]


def _all_levels(most: int, channels: int, count: int) -> Tensor:
    least = most
    while (2 * least + 1) ** channels - 1 < count:
        least += 1
    if least > most:
        raise ValueError(
            f"expected epsilon of at least {least} / 255 for {count} classes and {channels} "
            f"channel{'s' if channels > 1 else ''}, got {most} / 255, which allows fewer colours "
            f"than classes"
        )
    side = torch.arange(-most, most + 1)
    while len(side) ** channels > _GRID:  # every other level, and so on
        side = side[::2]
    grid = torch.cartesian_prod(*[side] * channels).reshape(-1, channels)
    return _distinct(grid)
