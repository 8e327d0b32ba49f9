"""Whether a dataset's own loader gives its files in RGB, as exported files are written."""

from __future__ import annotations

import numpy as np

from ...data.image import Pixels, pixels_of
from ...data.photo import load_photo
from ...data.raw import RawDataset

_SAMPLED = 3
_APART = 2.0  # levels, on average: other decoders of JPEG stay far below


def check_channels(raw: RawDataset) -> None:
    """Raises ``ValueError`` if the loader returns photos in BGR, as OpenCV does.

    This can be detected if the dataset lists its files: some are read again and compared.
    """
    if raw.reads_photos:
        return
    for index in np.unique(np.linspace(0, len(raw) - 1, _SAMPLED).astype(int)).tolist():
        path = raw.path(index)
        if path is None:
            continue
        try:
            shown, given = pixels_of(load_photo(str(path))), raw[index].pixels
        except (OSError, ValueError):  # said when it is exported
            continue
        if shown.shape != given.shape or len(given) != 3:
            continue
        if _apart(shown, given) > _APART > 4 * _apart(shown[::-1], given):
            raise ValueError(
                f"expected images in RGB, got {path} in BGR from the dataset's loader, as OpenCV "
                f"reads it, so exported files would show red as blue; convert images in the "
                f"loader with cv2.cvtColor(image, cv2.COLOR_BGR2RGB) and fit again"
            )


def _apart(one: Pixels, other: Pixels) -> float:
    return float(np.abs(one.astype(np.int16) - other).mean())
