"""Pixels that are overwritten: the kind of perturbation of OPS."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...data.image import Images
from .base import Kind, RowRef


class Pixel(Kind):
    """A few positions per class, and the colours that overwrite these pixels."""

    name = "pixel"
    tensor_names = ("positions", "colours")

    def _check(self) -> None:
        number = self.tensors["positions"].shape[1] if self.tensors["positions"].ndim == 3 else 0
        positions = self._expect("positions", np.int64, (self.num_classes, number, 2))
        self._expect("colours", np.uint8, (self.num_classes, number, self.shape[0]))
        if (positions < 0).any() or (positions >= self.shape[1:]).any():
            raise ValueError(f"expected (row, column) positions inside {self.shape[1:]}")

    def describe(self) -> str:
        number = self.tensors["positions"].shape[1]
        return f"{number} pixel{'s' if number > 1 else ''}"

    def change(self, images: Images, rows: Sequence[RowRef]) -> Images:
        changed = images.copy()
        positions = self.tensors["positions"][rows]  # (B, pixels, 2)
        changed[
            np.arange(len(images))[:, None, None],
            np.arange(images.shape[1])[:, None],
            positions[:, None, :, 0],
            positions[:, None, :, 1],
        ] = self.tensors["colours"][rows].transpose(0, 2, 1)
        return changed
