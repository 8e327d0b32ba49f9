"""The images of a dataset on their way into an export."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...data.batches import RawBatch
from ...data.image import Images
from ...data.labels import check_listed
from ...data.photo import PhotoReader
from ...data.raw import RawDataset
from ..manifest import Exported


def images_to_export(
    raw: RawDataset,
    batches: Iterable[tuple[RawBatch, Images, Images]],
    chosen: NDArray[np.bool_],
    reader: PhotoReader,
) -> Iterator[Exported]:
    """All images in order, from batches as they are read, prepared but clean, and protected.

    Each file was opened and decoded once where it was read by the ``reader``.
    """
    labels: list[Any] = raw.labels.tolist()
    which, some = chosen.tolist(), bool(chosen.any())
    for batch, prepared, protected in batches:
        if raw.labelled:
            check_listed(batch.labels, labels, batch.indices)
        for index, clean, unchanged, pixels in zip(
            batch.indices, batch.pixels, prepared, protected, strict=True
        ):
            path = raw.path(index)
            info = None if path is None else reader.info(path)
            label = labels[index]
            yield Exported(index, label, clean, unchanged, pixels, which[index], some, info)
