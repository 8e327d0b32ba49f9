"""Subtracts what the images of a class have in common, found by averaging them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .base import Countermeasure
from .channels import to_levels
from .lowpass import low_frequencies

_BANDS = {
    "full": "the class's mean image",
    "low": "the coarse part of the class's mean image",
    "high": "the fine part of the class's mean image",
    "colour": "the class's mean colour",
}
_COARSE = 0.25  # share of the frequencies of each axis that counts as coarse: 8 of 32


@dataclass(frozen=True)
class ClassMeanSubtraction(Countermeasure):
    """Subtracts the difference between the class's mean and the overall mean from every image.

    This undoes whatever is the same for all images of a class, such as class-wise rows and shifts,
    and the part of learned rows that a class shares. It also removes what the class itself looks
    like on average. Test images have no labels to use and are not changed.

    Args:
        band: Part of the difference to subtract: ``"full"``; ``"low"``, the lowest quarter of the
            frequencies of each axis; ``"high"``, the rest; ``"colour"``, the mean over all pixels.
    """

    band: str = "full"

    knows_method = True

    def __post_init__(self) -> None:
        if self.band not in _BANDS:
            raise ValueError(f"expected a band out of {', '.join(_BANDS)}, got {self.band!r}")

    @property
    def name(self) -> str:
        band = "" if self.band == "full" else f"-{self.band}"
        return f"class-mean-subtraction{band}"

    @property
    def description(self) -> str:
        what = _BANDS[self.band]
        return (
            f"a victim that subtracts from each image the difference between {what} and that "
            f"of all images"
        )

    def on_images(self, images: Tensor, labels: Tensor) -> Tensor:
        means = class_means(images, labels)
        counts = labels.bincount(minlength=len(means)).double()
        mean = (counts / counts.sum()) @ means.flatten(1)
        difference = means - mean.view(images.shape[1:])
        coarse = low_frequencies(difference, _COARSE)
        part = {
            "full": difference,
            "low": coarse,
            "high": difference - coarse,
            "colour": difference.mean((2, 3), keepdim=True).expand_as(difference),
        }[self.band]
        for label in labels.unique().tolist():
            mine = labels == label
            images[mine] = to_levels(images[mine].double() - part[label])
        return images


def class_means(images: Tensor, labels: Tensor) -> Tensor:
    """Mean image of each class in levels of 1/255, float64 (K, C, H, W); 0 without images."""
    classes = int(labels.max()) + 1
    sums = torch.zeros(classes, *images.shape[1:], dtype=torch.float64)
    for part, own in zip(images.split(512), labels.split(512), strict=True):
        sums.index_add_(0, own, part.double())
    counts = labels.bincount(minlength=classes).clamp_min(1)
    return sums / counts[:, None, None, None]
