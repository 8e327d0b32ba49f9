"""How much of a perturbation's change is left in images that a lossy format has changed."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ..data.image import Pixels

_STRIP = 1 << 18  # values of an image that are compared at once: memory does not grow with it

HARDLY = 0.5  # of the change, below which files are hardly protected


class ShareLeft:
    """Sums over images: the regression of what is left on what was added, and the residual error.

    Attributes:
        share: ``sum(a * b) / sum(b * b)`` over all values of all images, where ``b`` is what was
            added to them and ``a`` is the difference between the changed and the clean images: 1 if
            all of it is left, 0 if nothing is. None if nothing was added.
        psnr: Peak signal-to-noise ratio of the mean squared error between the changed and the
            protected images, in dB. None if they are identical.
    """

    def __init__(self) -> None:
        self._along = self._added = self._error = self._values = 0

    def add(self, clean: Pixels, protected: Pixels, changed: Pixels) -> float | None:
        """Adds an image, given three times as uint8 (1 or 3, H, W); returns the share left in it.

        Images with one channel count as RGB.
        """
        own = ShareLeft()
        _, height, width = clean.shape
        rows = max(1, _STRIP // (3 * width))
        for top in range(0, height, rows):
            parts = (image[:, top : top + rows] for image in (clean, protected, changed))
            before, added, after = (
                np.broadcast_to(part, (3, *part.shape[1:])).astype(np.int32) for part in parts
            )
            own._error += int(((after - added) ** 2).sum(dtype=np.int64))
            added -= before
            own._along += int(((after - before) * added).sum(dtype=np.int64))
            own._added += int((added**2).sum(dtype=np.int64))
            own._values += added.size
        self.merge(own)
        return own.share

    @property
    def sums(self) -> tuple[int, int, int, int]:
        """The internal sums, from which :meth:`of` restores it."""
        return self._along, self._added, self._error, self._values

    @classmethod
    def of(cls, sums: Sequence[int]) -> ShareLeft:
        """Restores one from its sums."""
        self = cls()
        self._along, self._added, self._error, self._values = map(int, sums)
        return self

    def merge(self, other: ShareLeft) -> None:
        """Adds all images of another one."""
        self._along += other._along
        self._added += other._added
        self._error += other._error
        self._values += other._values

    @property
    def share(self) -> float | None:
        return self._along / self._added if self._added else None

    @property
    def psnr(self) -> float | None:
        return 10 * math.log10(255**2 * self._values / self._error) if self._error else None
