"""Groups of similar photos, which stand in for kinds of picture if photos are not sorted."""

from __future__ import annotations

import copy
from collections.abc import Sequence

from ..data.clusters import clusters
from ..data.image_folder import ImageFolder

_SIDE = 128  # pixels at which photos are compared


def group_photos(photos: ImageFolder, count: int, *, device: str) -> list[int]:
    """The group of each photo, counted from 0.

    Raises:
        ImportError: The extra ``pretrained`` is not installed.
        ValueError: The photos lie in several class folders, or there are too few of them.
    """
    filled = sorted({photos.classes[label] for label in photos.targets})
    if len(filled) > 1:
        raise ValueError(
            f"expected photos without class folders with --clusters, got {len(filled)} folders "
            f"({', '.join(filled[:5])}), which already are the kinds of picture to tell apart; "
            f"omit --clusters"
        )
    return clusters(photos, count, image_size=_SIDE, device=device, progress=False).targets


def grouped(photos: ImageFolder, groups: Sequence[int]) -> ImageFolder:
    """The same photos, with the groups as their classes."""
    found = copy.copy(photos)
    found.classes = [f"group {number}" for number in range(1, max(groups) + 2)]
    found.class_to_idx = {name: index for index, name in enumerate(found.classes)}
    paths = [path for path, _ in photos.samples]
    found.samples = found.imgs = list(zip(paths, groups, strict=True))
    found.targets = list(groups)
    return found
