"""Which images are protected where only a share of them is."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.raw import RawDataset
from ..engine.numbers import number


def check_fraction(value: Any) -> float:
    """A share of images as a ``float``, or a ``ValueError`` if it is not from 0 to 1."""
    fraction = number("fraction", value)
    if not 0 <= fraction <= 1:
        raise ValueError(f"expected a fraction from 0 to 1, got {fraction}")
    return fraction


def select(raw: RawDataset, fraction: float, seed: int) -> NDArray[np.bool_] | None:
    """Exactly ``round(fraction * N)`` images, ranked by a hash of seed and content.

    Returns:
        Which images are selected, bool of shape (N,); None for all of them.
    """
    if fraction == 1:
        return None
    salt = seed.to_bytes(8, "little", signed=True)
    ranks = []
    for index, key in enumerate(raw.keys.tolist()):
        rank = hashlib.blake2b(key.to_bytes(8, "little"), digest_size=8, key=salt)
        ranks.append((int.from_bytes(rank.digest(), "little"), index))
    selected = np.zeros(len(raw), dtype=bool)
    selected[[index for _, index in sorted(ranks)[: round(fraction * len(raw))]]] = True
    return selected
