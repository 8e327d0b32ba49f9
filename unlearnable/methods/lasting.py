"""Lasting: gratings that most processing leaves in place, and a smooth field per class on top."""

from __future__ import annotations

from dataclasses import dataclass

from ..engine.run import Run
from .gratings import Gratings
from .parameter_checks import check_change
from .parameters import checked
from .smooth_fields import smooth_fields

_LEVELS = 20 / 255  # that each value of a grating is away from zero
_FIELD_EPSILON = 12 / 255


@dataclass(kw_only=True, repr=False, eq=False)
class Lasting(Gratings):
    """Gratings, and smooth fields on top. (built on Yu et al., KDD 2022, arXiv:2111.00898)

    Protection designed to last when others process the pictures before they train: two patterns
    that are meant to be easier to learn than the picture, each made to outlast what removes the
    other. The gratings are grey and their phases are random, against greyscale, channel
    normalisation, JPEG compression, subtracting the mean of each class, and projecting out what a
    linear model finds. Filtering out the periods of each class is what removes them; the field of
    light and colour that each class gets as in SmoothFields is there for that case.

    Anyone who knows the method can undo it, by removing both in turn. It far exceeds the usual
    budget of 8/255: a value changes by up to 20/255 and ``field_epsilon``, and stripes, checks and
    tints are plain to see unless a visibility mask lowers both. Rows learned by SEM or another
    method can go underneath: ``sem.perturbation_.then(lasting.perturbation_)``.

    This is this package's own method. Nothing is trained, and new images get their own rows.

    The parameters are those of :class:`Gratings`, with a larger budget, and one more.

    Args:
        epsilon: L2 norm of a grating in [0, 1] units; None means 20/255 times the square root of
            the number of values, 4.35 for 32x32 colour images.
        field_epsilon: Largest change of a value by the field of its class, in [0, 1] units.

    Example:
        >>> from unlearnable.datasets import Shapes
        >>> Lasting().fit(Shapes(size=20), progress=False).perturbation_
        Perturbation(Lasting, sample-wise, procedural + additive, 10 classes of 3x32x32)
    """

    kind = "stack"
    below = "procedural"
    levels = _LEVELS

    field_epsilon: float = checked(_FIELD_EPSILON, check_change)

    def _learn(self, run: Run) -> None:
        fields = smooth_fields(run.global_rng("fields"), run.num_classes, run.images.shape[1:])
        rows = self.field_epsilon * fields.to(run.device)
        run.on_top("class-wise", rows=rows, epsilon=self.field_epsilon)
        super()._learn(run)
