"""The images of a dataset on their way into an export."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Collection, Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...data.batches import RawBatch
from ...data.image import Images
from ...data.labels import check_listed
from ...data.photo import PhotoReader
from ...data.raw import RawDataset
from ..manifest import Exported
from ..metrics import Distortion, compare


class ImagesToExport:
    """Prepares the images of a dataset for an export, one batch at a time.

    Files read by the ``reader`` are opened and decoded only once. No reference to an image is kept,
    so a large photo is freed as soon as its consumer is done with it.

    Args:
        raw: The dataset.
        chosen: Which images are protected, bool (N,).
        reader: Reader of photos.
        compared: Indices of the images whose change is measured on the way.

    Attributes:
        changes: The measured changes by index.
    """

    def __init__(
        self,
        raw: RawDataset,
        chosen: NDArray[np.bool_],
        reader: PhotoReader,
        compared: Collection[int] = (),
    ) -> None:
        self._raw, self._reader, self._compared = raw, reader, frozenset(compared)
        self._labels: list[Any] = raw.labels.tolist()
        self._chosen, self._some = chosen, bool(chosen.any())
        self.changes: dict[int, Distortion] = {}

    def of(self, batches: Iterable[tuple[RawBatch, Images, Images]]) -> Iterator[Exported]:
        """All images of batches that were read, prepared but clean, and protected."""
        return itertools.chain.from_iterable(map(self._each, batches))

    def _each(self, read: tuple[RawBatch, Images, Images]) -> Iterator[Exported]:
        batch, prepared, protected = read
        if self._raw.labelled:
            check_listed(batch.labels, self._labels, batch.indices)
        found: deque[Exported] = deque()
        for index, clean, unchanged, pixels in zip(
            batch.indices, batch.pixels, prepared, protected, strict=True
        ):
            path = self._raw.path(index)
            info = None if path is None else self._reader.info(path)
            if index in self._compared:
                self.changes[index] = compare(unchanged, pixels)
            chosen = bool(self._chosen[index])
            label = self._labels[index]
            found.append(Exported(index, label, clean, unchanged, pixels, chosen, self._some, info))
        return _taken(found)


def _taken(images: deque[Exported]) -> Iterator[Exported]:
    while images:
        yield images.popleft()
