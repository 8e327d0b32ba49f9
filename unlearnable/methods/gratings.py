"""Gratings: stripes and checks, a period and direction for each class, a place for each image."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from ..engine.random import seed_of
from ..engine.run import Run
from ..perturbation.kinds.generators import TURN
from .base import Method
from .farthest import farthest
from .parameters import Untrained, positive
from .spread_budget import spread_budget

_LEAST_CYCLES, _MOST_CYCLES = 2.0, 5.0  # in the shorter side
_LEVELS = 12 / 255  # that each value of a row is away from zero


@dataclass(kw_only=True, repr=False, eq=False)
class Gratings(Untrained, Method):
    """Class-wise gratings. (built on Yu et al., KDD 2022, arXiv:2111.00898)

    Stripes and checks, the same in all channels. Each value of a row is the budget's share up or
    down: along each axis the period depends on the class, and the phase is drawn for each image.
    The periods are meant to be easier to learn than the picture, and are long so as to outlast
    compression, blurring and downscaling. Because rows are grey, removing colour does not remove
    them; because their phases are random, they cancel out in the mean of a class. Anyone who looks
    for them finds them in the mean power spectrum of a class.

    This is this package's own method, based on the paper's idea of shortcuts that are easy to tell
    apart. Nothing is trained, and new images get their own rows.

    Args:
        epsilon: L2 norm of a row in [0, 1] units; None means 12/255 times the square root of the
            number of values, 2.61 for 32x32 colour images.
        least_cycles: Smallest number of periods in the image's shorter side.
        most_cycles: Largest number. JPEG compression removes short periods, of less than about six
            pixels, first.
        granularity: Only ``"sample-wise"``; a row depends on seed, class and image.
        seed: Seed of the phases; the periods depend only on the number of classes.

    Example:
        >>> from unlearnable.datasets import Shapes
        >>> Gratings().fit(Shapes(size=20), progress=False).perturbation_
        Perturbation(Gratings, sample-wise, L2 2.608, 10 classes of 3x32x32)
    """

    kind = "procedural"
    granularities = ("sample-wise",)
    masked = True
    norm = "L2"
    levels: ClassVar[float] = _LEVELS

    epsilon: float | None = None
    least_cycles: float = positive(_LEAST_CYCLES)
    most_cycles: float = positive(_MOST_CYCLES)
    granularity: str = "sample-wise"
    seed: int = 0

    def _validate(self) -> None:
        super()._validate()
        if self.least_cycles > self.most_cycles:
            raise ValueError(
                f"expected least_cycles of at most most_cycles={self.most_cycles:g}, got "
                f"{self.least_cycles:g}"
            )

    def _budget(self, shape: Sequence[int]) -> tuple[float | None, str | None]:
        usual = self.levels * math.sqrt(math.prod(shape))
        return spread_budget(self.epsilon, usual, shape), self.norm

    def amplitude(self, shape: Sequence[int]) -> float:
        """How far each value of a row is from zero, before rounding.

        Args:
            shape: (C, H, W) of the images.

        Returns:
            In [0, 1] units.

        Raises:
            ValueError: The budget leaves each value less than half a pixel level.
        """
        epsilon, _ = self._budget(shape)
        assert epsilon is not None
        return epsilon / math.sqrt(math.prod(shape))

    def _learn(self, run: Run) -> None:
        height, width = run.images.shape[2:]
        steps = grating_steps(run.num_classes, (height, width), self.least_cycles, self.most_cycles)
        run.result(
            "procedural", generator="gratings-1", seed=seed_of(self.seed, "rows"), steps=steps
        )


def grating_steps(
    classes: int,
    size: tuple[int, int],
    least_cycles: float = _LEAST_CYCLES,
    most_cycles: float = _MOST_CYCLES,
) -> Tensor:
    """The phase step from pixel to pixel, down and right, for each class.

    Periods are spaced evenly on a logarithmic scale, and having no period along an axis is one more
    choice. Classes get pairs of periods that are as far as possible from one another.

    Args:
        classes: K.
        size: (H, W).
        least_cycles: Smallest number of periods in the shorter side.
        most_cycles: Largest number of periods.

    Returns:
        int64 (K, 2), in fractions of a turn, where ``TURN`` is a full turn. No pair is zero, and
        all are different.

    Raises:
        ValueError: The image has too few pixels for this many cycles or classes.
    """
    shorter, least = min(size), math.ceil(2 * most_cycles)
    if shorter < least:
        raise ValueError(
            f"expected images of at least {least} pixels a side, because a period takes two "
            f"pixels, got {size[0]}x{size[1]}; pass image_size={least} or more, or a smaller "
            f"most_cycles"
        )
    along = math.isqrt(classes) + 1  # choices along an axis, none among them
    ratios = np.linspace(0, 1, along - 1) if along > 2 else np.zeros(1)
    cycles = least_cycles * (most_cycles / least_cycles) ** ratios
    # Having no period counts as one step below the fewest periods.
    places = np.concatenate([[-1 / max(1, along - 2)], ratios])
    steps = np.rint(np.concatenate([[0.0], cycles]) / shorter * TURN).astype(np.int64)
    pairs = np.array(list(itertools.product(range(along), repeat=2))[1:])
    chosen = pairs[farthest(classes, places[pairs])]
    found = steps[chosen]
    if len(np.unique(found, axis=0)) < classes:
        raise ValueError(
            f"expected enough periods for {classes} classes, got fewer between {least_cycles:g} "
            f"and {most_cycles:g} cycles; choose a wider range"
        )
    return torch.from_numpy(found)
