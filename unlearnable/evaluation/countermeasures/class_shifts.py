"""Shifts of a class's colours, estimated from where its values end, and undone."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .base import Countermeasure
from .channels import to_levels
from .class_means import class_means

_WHITE = 255


@dataclass(frozen=True)
class ShiftRemoval(Countermeasure):
    """Estimates how far each class's channels were shifted and shifts them back.

    Images of any class reach black and white somewhere. A class whose values begin at 25 was
    shifted up by 25, and values above 230 were clipped at white; such pixels get the middle of
    their possible original values. If a class reaches neither end, the possible shift that brings
    its mean closest to the mean of all images is chosen.
    """

    name = "shift-removal"
    description = "a victim that estimates each class's shift of colours and undoes it"
    knows_method = True

    def on_images(self, images: Tensor, labels: Tensor) -> Tensor:
        shifts = class_shifts(images, labels)
        for label in labels.unique().tolist():
            mine = labels == label
            shift = shifts[label][:, None, None]
            own = images[mine].long()
            moved = (own - shift).double()
            half = shift.double() / 2
            moved = torch.where((own == _WHITE) & (shift > 0), _WHITE - half, moved)
            moved = torch.where((own == 0) & (shift < 0), -half, moved)
            images[mine] = to_levels(moved)
        return images


def class_shifts(images: Tensor, labels: Tensor) -> Tensor:
    """The number of levels by which each class's channels were shifted up, int64 (K, C)."""
    means = class_means(images, labels).mean((2, 3))
    counts = labels.bincount(minlength=len(means)).double()
    everything = (counts / counts.sum()) @ means
    shifts = torch.zeros(means.shape, dtype=torch.int64)
    for label in labels.unique().tolist():
        own = images[labels == label]
        darkest, brightest = (end((0, 2, 3)).long() for end in (own.amin, own.amax))
        # Before the shift no value was below 0 or above 255.
        least, most = brightest - _WHITE, darkest
        nearest = (means[label] - everything).round().long().clamp(least, most)
        one_end = torch.where(darkest > 0, most, least)
        both_free = (darkest > 0) & (brightest < _WHITE)
        shifts[label] = torch.where(both_free, nearest, one_end)
    return shifts
