"""Rows that are computed for each image when it is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...data.fingerprint import image_keys
from ...data.image import Images
from ...errors import ArtefactError
from ..quantize import Levels
from .base import MAX_WEIGHT, Kind, RowRef, add_levels
from .generators import GENERATORS, levels
from .row_cache import RowCache


class Procedural(Kind):
    """Rows computed from the seed, the class and the image's key, also for unseen images."""

    name = "procedural"
    has_rows = True
    _cache: RowCache | None = None

    @classmethod
    def names(cls, config: Mapping[str, Any]) -> set[str]:
        return set(cls._shapes(config))

    @staticmethod
    def _shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
        settings = config["settings"]
        if settings["generator"] not in GENERATORS:
            raise ValueError(
                f"expected a generator, one of {sorted(GENERATORS)}, got "
                f"{settings['generator']!r}; a newer release of unlearnable may have it"
            )
        shapes = GENERATORS[settings["generator"]].shapes
        return shapes(settings, config["num_classes"], tuple(config["image_shape"]))

    def _check(self) -> None:
        for name, shape in self._shapes(self.config).items():
            if (np.abs(self._expect(name, np.int64, shape)) > MAX_WEIGHT).any():
                raise ValueError(f"expected {name} of moderate size")
        if not isinstance(self.settings["seed"], int) or not self.config["epsilon"]:
            raise ValueError("expected an integer as the seed, and a budget")

    def describe(self) -> str:
        return str(self.settings["generator"])

    def example(self, index: int) -> RowRef:
        return index, index

    def find(
        self, images: Images, labels: Sequence[int], indices: Sequence[int] | None = None
    ) -> list[RowRef]:
        if self._cache is None:  # here, so that a loader's workers are forked with it
            self._cache = RowCache(self.shape, self.levels)
        classes = super().find(images, labels, indices)
        return list(zip(classes, image_keys(images), strict=True))

    def levels(self, labels: NDArray[np.int64], keys: NDArray[np.uint64]) -> Levels:
        """int8 rows for images of these classes and keys, (B, C, H, W)."""
        compute = GENERATORS[self.settings["generator"]].fields
        fields = compute(self.tensors, self.settings, self.shape, labels, keys)
        return levels(fields, self.config["epsilon"])

    def rows(self, rows: Sequence[RowRef]) -> Levels:
        """int8 rows, (B, C, H, W)."""
        labels, keys = zip(*rows, strict=True)
        compute = self.levels if self._cache is None else self._cache.rows
        try:
            return compute(np.array(labels, np.int64), np.array(keys, np.uint64))
        except ValueError as error:
            raise ArtefactError(f"could not compute a row of {self.where}: {error}") from error

    def change(self, images: Images, rows: Sequence[RowRef]) -> Images:
        return add_levels(images, self.rows(rows), self.mask)
