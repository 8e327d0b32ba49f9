"""Lasting: learned rows that grey pictures keep, and a smooth field per class on top."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from ..engine.run import Run
from .expectation import transformations
from .sem import SEM
from .smooth_fields import smooth_fields

# All that makes it another method than SEM.
_AUGMENT = {"grayscale": 0.6}
_FIELD_EPSILON = 24 / 255


@dataclass(kw_only=True, repr=False, eq=False)
class Lasting(SEM):
    """SEM, and smooth fields on top. (built on Liu et al., AAAI 2024, arXiv:2311.13091)

    Protection designed to last when pictures are shared. The rows, learned as in SEM with many
    greyscale draws, withstand greyscale. The field of light and colour for each class, added
    afterwards as in SmoothFields, withstands JPEG compression, even combined with greyscale or
    channel normalisation, which remove SEM's rows as well as a mere tint. Each part covers what
    undoes the other.

    It has the weaknesses of class-wise patterns: subtracting the mean of each class, or projecting
    out what a linear model finds, removes the fields and leaves only the learned rows. The fields
    far exceed the usual budget of 8/255: a value changes by up to ``epsilon + field_epsilon``, and
    images look as if lit by coloured lamps, unless a visibility mask lowers both.

    The parameters are those of :class:`SEM`, with different draws, and one more.

    Args:
        augment: As in :class:`SEM`; by default mostly greyscale.
        field_epsilon: Largest change of a value by the field of its class, in [0, 1] units.

    Example:
        >>> from unlearnable.datasets import Shapes
        >>> method = Lasting.preset("demo", train_steps=2)
        >>> method.fit(Shapes(size=64), progress=False).perturbation_
        Perturbation(Lasting, sample-wise, additive + additive, 64 images of 3x32x32)
    """

    kind = "stack"

    augment: Mapping[str, float] | None = transformations(_AUGMENT)
    field_epsilon: float = _FIELD_EPSILON

    @property
    def _identity(self) -> dict[str, Any]:
        identity = super()._identity
        identity["parameters"]["augment"] = self.augment  # None is not the default here
        return identity

    def _learn(self, run: Run) -> nn.Module:
        fields = smooth_fields(run.global_rng("fields"), run.num_classes, run.images.shape[1:])
        rows = self.field_epsilon * fields.to(run.device)
        run.on_top("class-wise", rows=rows, epsilon=self.field_epsilon)
        return super()._learn(run)
