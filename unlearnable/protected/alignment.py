"""Which images are protected, and by which row: found by their content or their index."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.batches import RawBatch
from ..data.labels import check_labels
from ..data.raw import RawDataset
from ..engine.numbers import number
from ..errors import UnknownImageError
from ..perturbation.kinds.base import RowRef
from ..perturbation.perturbation import Perturbation


class Alignment:
    """Finds the rows of a dataset's images; arguments and errors as for ``ProtectedDataset``."""

    def __init__(self, raw: RawDataset, perturbation: Perturbation, align: str) -> None:
        if align not in ("content", "index"):
            raise ValueError(f'expected align "content" or "index", got {align!r}')
        self._perturbation, self._align = perturbation, align
        self._labelled = raw.labelled
        if perturbation.by_class and not raw.labelled:
            raise ValueError(
                f"expected a dataset with labels, by which {perturbation!r} finds rows, got one "
                f"without; say where they are: unlearnable.from_items(dataset, label=…)"
            )
        self._class_of = _match_classes(raw, perturbation)
        if align == "content":
            return
        if perturbation.kind != "additive" or not perturbation.keyed:
            raise ValueError(
                f'expected a sample-wise perturbation of kind "additive" with align="index", '
                f"got {perturbation!r}"
            )
        if len(raw) != len(perturbation):
            raise ValueError(
                f'expected {len(perturbation):,} images with align="index", got {len(raw):,}'
            )
        warnings.warn(
            'align="index" trusts the order of the dataset; each image is checked only against '
            "a 4x4 thumbnail",
            stacklevel=3,
        )

    def _labels(self, batch: RawBatch) -> list[int]:
        if not self._labelled:
            return [-1] * len(batch.labels)  # no row's own
        if all(type(label) is int for label in batch.labels):
            return batch.labels
        return check_labels(batch.labels, None, batch.indices).tolist()

    def rows(self, batch: RawBatch) -> list[RowRef]:
        """What belongs to each image of a batch, or an ``UnknownImageError``."""
        labels = self._labels(batch)
        if self._class_of is not None:
            for index, label in zip(batch.indices, labels, strict=True):
                if not 0 <= label < len(self._class_of):
                    raise UnknownImageError(
                        f"expected a class index below {len(self._class_of)}, got {label} for "
                        f"image {index}"
                    )
            labels = [self._class_of[label] for label in labels]
        if self._align == "content":
            return self._perturbation.find_batch(batch.pixels, labels, batch.indices)
        for index, pixels in zip(batch.indices, batch.pixels, strict=True):
            if not self._perturbation.resembles(pixels, index):
                raise UnknownImageError(
                    f"expected image {index} to look like the one that was fitted, got a different "
                    f"one; the dataset's order or content differs"
                )
        return list(batch.indices)


def _match_classes(raw: RawDataset, perturbation: Perturbation) -> list[int] | None:
    """For each class index of the dataset that of the perturbation; None where they are equal."""
    expected: list[str] | None = perturbation.config["classes"]
    count = perturbation.config["num_classes"]
    if expected is not None and raw.classes is not None:
        if sorted(expected) != sorted(raw.classes):
            raise ValueError(
                f"expected a dataset with the {len(expected)} classes {_some(expected)}, got "
                f"{len(raw.classes)}: {_some(raw.classes)}"
            )
        same = expected == raw.classes
        return None if same else [expected.index(name) for name in raw.classes]
    if perturbation.by_class:
        found = raw.num_classes
        if found > count or (raw.classes is not None and found != count):
            raise ValueError(f"expected a dataset with {count} classes, got {found}")
    return None


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")


def check_fraction(value: Any) -> float:
    """A share of images as a ``float``, or a ``ValueError`` if it is not from 0 to 1."""
    fraction = number("fraction", value)
    if not 0 <= fraction <= 1:
        raise ValueError(f"expected a fraction from 0 to 1, got {fraction}")
    return fraction


def select(raw: RawDataset, fraction: float, seed: int) -> NDArray[np.bool_] | None:
    """Exactly ``round(fraction * N)`` images, ranked by a hash of seed and content.

    The result is bool of shape (N,), or None for all of them.
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
