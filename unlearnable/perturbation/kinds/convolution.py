"""Images convolved with a kernel of their class."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ...data.image import Images, Pixels
from .base import MAX_WEIGHT, Kind, RowRef

_MAX_SUM = 1 << 35  # of a kernel's weights: 510 times a sum of pixels is exact in float64


class Convolution(Kind):
    """One kernel per class, with which every channel is convolved, with zero padding."""

    name = "convolution"
    tensor_names = ("kernels",)

    def _check(self) -> None:
        size = len(self.tensors["kernels"].T) if self.tensors["kernels"].ndim else 0
        kernels = self._expect("kernels", np.int64, (self.num_classes, size, size))
        if size % 2 == 0 or size > 255:
            raise ValueError(f"expected kernels of an odd size up to 255, got {size}")
        weights = kernels.sum((1, 2))
        if (kernels < 0).any() or (kernels > MAX_WEIGHT).any() or (weights >= _MAX_SUM).any():
            raise ValueError("expected kernels with non-negative weights of moderate size")
        if not weights.all():
            raise ValueError("expected kernels that are not all zero")
        if self.settings.get("normalize") not in ("max", "sum"):
            raise ValueError(f"expected normalize of {self.settings} to be 'max' or 'sum'")

    def describe(self) -> str:
        return "{}x{} kernels".format(*self.tensors["kernels"].shape[1:])

    def canvas(self) -> Pixels:
        dot = np.zeros(self.shape, np.uint8)
        dot[:, self.shape[1] // 2, self.shape[2] // 2] = 255
        return dot

    def change(self, images: Images, rows: Sequence[RowRef]) -> Images:
        changed = np.empty_like(images)
        classes = np.asarray(rows)
        for row in np.unique(classes):
            mine = np.flatnonzero(classes == row)
            changed[mine] = self._convolve(images[mine], self.tensors["kernels"][row])
        return changed

    def _convolve(self, images: Images, kernel: NDArray[np.int64]) -> Images:
        half, (count, channels, height, width) = len(kernel) // 2, images.shape
        weight = int(kernel.sum())
        kind = np.int32 if 255 * weight < 1 << 31 else np.int64
        padded = np.zeros((count, channels, height + 2 * half, width + 2 * half), kind)
        padded[..., half : half + height, half : half + width] = images
        total, term = np.zeros(images.shape, kind), np.empty(images.shape, kind)
        for down, right in np.argwhere(kernel).tolist():
            seen = padded[..., down : down + height, right : right + width]
            total += np.multiply(seen, kernel[down, right].astype(kind), out=term)
        # In floats, which divide faster: integers below 2^53 by integers below 2^46, so that no
        # quotient is rounded up to the next integer, and casting rounds it down.
        if self.settings["normalize"] == "max":
            most = np.maximum(total.max(axis=(1, 2, 3), keepdims=True), 1)  # black stays black
            largest = most.astype(np.float64)
            return ((total * 510.0 + largest) / (2 * largest)).astype(np.uint8)
        return ((total * 2.0 + weight) / (2 * weight)).astype(np.uint8)
