"""Mixtures: some of the victim's images are clean, because nobody protected them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from torch.utils.data import Subset

from ...protected.dataset import ProtectedDataset
from .base import Countermeasure, NoCountermeasure


@dataclass(frozen=True)
class Unprotected(Countermeasure):
    """A share of the training images is left unprotected.

    Args:
        percent: Percentage of all images, above 0 and up to 100, rounded to whole images. It is
            exact if the whole dataset is protected, and a minimum if only part of it is.
    """

    percent: float = 20

    needs_clean_images = True

    def __post_init__(self) -> None:
        self._numbers("percent")
        if not 0 < self.percent <= 100:
            raise ValueError(f"expected a percentage above 0 and up to 100, got {self.percent}")

    @property
    def name(self) -> str:
        return f"unprotected-{self.percent:g}"

    @property
    def description(self) -> str:
        return f"a victim that trains on a set of which {self.percent:g} % is not protected"

    def for_timing(self, few: int, count: int) -> Countermeasure:
        return NoCountermeasure()  # it trains as without any, on other images

    def on_dataset(self, dataset: Any) -> Any:
        if not isinstance(dataset, ProtectedDataset):
            raise ValueError(
                f"expected a ProtectedDataset, which has clean images, for {self.name}, got "
                f"{type(dataset).__name__}"
            )
        mixed = dataset.with_fraction(min(dataset.fraction, 1 - self.percent / 100))
        if mixed.chosen.all():
            raise ValueError(
                f"expected enough images for {self.name} to leave one unprotected, got "
                f"{len(mixed)}; add images, or leave a larger share unprotected"
            )
        return mixed


@dataclass(frozen=True)
class CleanPartOnly(Unprotected):
    """The control for :class:`Unprotected`: its clean images without the protected ones."""

    @property
    def name(self) -> str:
        return f"clean-part-only-{self.percent:g}"

    @property
    def description(self) -> str:
        return (
            f"a victim that trains only on the {self.percent:g} % of images that are not protected"
        )

    def on_dataset(self, dataset: Any) -> Any:
        mixed = super().on_dataset(dataset)
        return Subset(mixed, np.flatnonzero(~mixed.chosen).tolist())
