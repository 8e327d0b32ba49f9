"""Lasting: learned rows that are seen in grey pictures too, and a colour per class on top."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from ..engine.run import Run
from .expectation import transformations
from .parameters import proportion
from .sem import SEM
from .spread_colours import spread_colours

# All that makes it another method than SEM; measured by benchmarks/lasting.py.
_AUGMENT = {"grayscale": 0.6}
_COLOUR_EPSILON = 25 / 255


@dataclass(kw_only=True, repr=False, eq=False)
class Lasting(SEM):
    """SEM, and a colour shift on top. (built on Liu et al., AAAI 2024, arXiv:2311.13091)

    Protection that is meant to stay when pictures are shared. What is learned as by SEM withstands
    greyscale, of which it sees much while it is learned; the colour of its class, added to the
    whole image afterwards as by ColourShift, withstands JPEG compression, resizing and adversarial
    training. Each covers what undoes the other.

    Its natural enemies are those of class-wise tints: whoever brings the channels of every image to
    one mean and spread, or subtracts the mean of each class, removes the colours, and what was
    learned is then alone. The tint exceeds the usual budget of 8/255 by far: a value changes by up
    to ``epsilon + colour_epsilon``, and images look as with another white balance; grey ones get a
    tint as well.

    The parameters are those of :class:`SEM`, with other draws, and two more.

    Args:
        augment: As for :class:`SEM`, mostly greyscale by default.
        colour_epsilon: Half a side of the cube that colours are chosen from: the most that a value
            changes by its tint, in [0, 1] units.
        luminance: How much the choice counts differences in luminance instead of those in colour,
            from 0 to 1.

    Example:
        >>> from unlearnable.datasets import Shapes
        >>> method = Lasting.preset("demo", train_steps=2)
        >>> method.fit(Shapes(size=64), progress=False).perturbation_
        Perturbation(Lasting, sample-wise, additive + shift, 64 images of 3x32x32)
    """

    kind = "stack"

    augment: Mapping[str, float] | None = transformations(_AUGMENT)
    colour_epsilon: float = _COLOUR_EPSILON
    luminance: float = proportion(0.0)

    @property
    def _identity(self) -> dict[str, Any]:
        identity = super()._identity
        identity["parameters"]["augment"] = self.augment  # None is not the default here
        return identity

    def _learn(self, run: Run) -> nn.Module:
        choice = (run.num_classes, run.images.shape[1], self.colour_epsilon, self.luminance)
        colours = spread_colours(run.global_rng("colours"), *choice)
        run.on_top("shift", colours=colours, epsilon=self.colour_epsilon)
        return super()._learn(run)
