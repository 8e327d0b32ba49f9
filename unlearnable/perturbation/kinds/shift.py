"""Colours that are added to whole images: the kind of perturbation of ColourShift."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ...data.image import Images
from .base import Kind, RowRef


class Shift(Kind):
    """One colour per class, int8 (C,), that is added to every pixel; clipped to 0…255.

    It works at any size, including photos at full size. A grey image among colour images is
    converted to RGB and gets the tint of its class like any other.
    """

    name = "shift"
    tensor_names = ("colours",)
    sized = False

    def _check(self) -> None:
        colours = self._expect("colours", np.int8, (self.num_classes, self.shape[0]))
        epsilon, norm = self.config["epsilon"], self.config["norm"]
        if norm not in (None, "Linf"):
            raise ValueError(f"expected colours with an Linf budget or none, got norm {norm!r}")
        largest = int(np.abs(colours.astype(np.int16)).max())
        if epsilon is not None and largest > math.floor(255 * epsilon + 1e-6):
            raise ValueError(
                f"expected colours within epsilon, {255 * epsilon:g}/255, got one of {largest}/255"
            )

    def describe(self) -> str:
        return f"colours up to {np.abs(self.tensors['colours'].astype(np.int16)).max()}/255"

    def change(self, images: Images, rows: Sequence[RowRef]) -> Images:
        colours = self.tensors["colours"][np.asarray(rows, np.int64)].astype(np.int16)
        added = colours[:, :, None, None]
        more, less = (np.maximum(part, 0).astype(np.uint8) for part in (added, -added))
        # Clipped before it is added or taken away, so that all of it is done in bytes.
        changed = np.minimum(images, 255 - more)
        changed += more
        np.maximum(changed, less, out=changed)
        changed -= less
        return changed
