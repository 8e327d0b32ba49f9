"""Mixtures: some of the victim's images are clean. They are the ones that nobody protected."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from torch.utils.data import Subset

from ...protected.dataset import ProtectedDataset
from .base import Countermeasure


@dataclass(frozen=True)
class Unprotected(Countermeasure):
    """A share of the training images is as it was before protection.

    Args:
        percent: Of all images, at least. Exactly the rounded number, where the dataset is wholly
            protected; in one that is protected in part, its clean images are among them.
    """

    percent: float = 20

    def __post_init__(self) -> None:
        if not 0 < self.percent <= 100:
            raise ValueError(f"expected a percentage above 0 and up to 100, got {self.percent}")

    @property
    def name(self) -> str:
        return f"unprotected-{self.percent:g}"

    @property
    def description(self) -> str:
        return f"a victim that has a training set of which {self.percent:g} % is not protected"

    def on_dataset(self, dataset: Any) -> Any:
        return self._mixed(dataset)

    def _mixed(self, dataset: Any) -> ProtectedDataset:
        if not isinstance(dataset, ProtectedDataset):
            raise ValueError(
                f"expected a ProtectedDataset for {self.name}, which knows its clean images, got "
                f"{type(dataset).__name__}"
            )
        mixed = dataset.with_fraction(min(dataset.fraction, 1 - self.percent / 100))
        if mixed.chosen.all():
            raise ValueError(
                f"expected images enough to leave one unprotected by {self.name}, got {len(mixed)}"
            )
        return mixed


@dataclass(frozen=True)
class CleanPartOnly(Unprotected):
    """The control of :class:`Unprotected`: its clean images without the protected ones."""

    @property
    def name(self) -> str:
        return f"clean-part-only-{self.percent:g}"

    @property
    def description(self) -> str:
        return f"a victim that has only the {self.percent:g} % of images that are not protected"

    def on_dataset(self, dataset: Any) -> Any:
        mixed = self._mixed(dataset)
        return Subset(mixed, np.flatnonzero(~mixed.chosen).tolist())
