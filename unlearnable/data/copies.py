"""Copies of an image elsewhere in its item, which no protection would reach."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from .calls import other_keys
from .image import Pixels, pixels_of
from .items import Within, field_of, fields_of

_DEPTH = 3  # of containers within an item's field
_LEAST = 64  # numbers that agree by more than chance
_AGREES = 0.9999  # correlation: the same picture in other units, as float or normalised


def copy_of(image: Any, item: Any, key: Any) -> Any | None:
    """Where the image at ``key`` is once more in an item, in whatever units; None if nowhere."""
    pixels = pixels_of(image)
    if pixels.size < _LEAST or pixels.min() == pixels.max():
        return None
    paths = [(path, 0) for path in other_keys(item, [key])]
    while paths:
        path, depth = paths.pop(0)
        value = field_of(item, path)
        if _shows(value, pixels):
            return tuple(path) if isinstance(path, Within) else path
        if depth < _DEPTH:
            outer = path if isinstance(path, Within) else (path,)
            inner = [Within((*outer, field)) for field in fields_of(value)]
            paths += [(deeper, depth + 1) for deeper in inner if deeper != key]
    return None


def twice_in(item: Any) -> tuple[Any, Any] | None:
    """Two places of one image in an item, at most one level inside; None if there are none."""
    keys: list[Any] = fields_of(item)
    inner = [Within((key, deeper)) for key in keys for deeper in fields_of(field_of(item, key))]
    for key in [*keys, *inner]:
        try:
            again = copy_of(field_of(item, key), item, key)
        except (TypeError, ValueError):  # no image
            continue
        if again is not None:
            return tuple(key) if isinstance(key, Within) else key, again
    return None


def _shows(value: Any, pixels: Pixels) -> bool:
    if isinstance(value, Image.Image):
        try:
            return np.array_equal(pixels_of(value), pixels)
        except ValueError:  # of a mode that is refused
            return False
    if not isinstance(value, (np.ndarray, Tensor)):
        return False
    found = value.detach().cpu().float().numpy() if isinstance(value, Tensor) else value
    if found.dtype.kind not in "uif" or found.size != pixels.size:
        return False
    found = found.reshape(found.shape[-3:]) if found.ndim > 3 else found
    ways = [found] if found.ndim == 3 else [found[None]] if found.ndim == 2 else []
    ways += [way.transpose(2, 0, 1) for way in ways]
    return any(way.shape == pixels.shape and _agree(way, pixels) for way in ways)


def _agree(found: NDArray[Any], pixels: Pixels) -> bool:
    """Whether each channel is that of the image, apart from its scale and its offset."""
    for channel, expected in zip(found, pixels, strict=True):
        one = channel.astype(np.float64).ravel() - channel.mean(dtype=np.float64)
        other = expected.astype(np.float64).ravel() - expected.mean(dtype=np.float64)
        most = np.linalg.norm(one) * np.linalg.norm(other)
        if most > 0 and not abs(one @ other) >= _AGREES * most:
            return False
        if most == 0 and (one.any() or other.any()):
            return False
    return True
