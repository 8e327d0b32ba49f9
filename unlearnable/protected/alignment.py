"""Which images are protected, and by which row: found by their content or their index."""

from __future__ import annotations

import hashlib
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.batches import RawBatch
from ..data.class_matching import match_classes, warn_of_numbers
from ..data.labels import check_labels
from ..data.raw import RawDataset
from ..engine.numbers import number
from ..errors import UnknownImageError
from ..perturbation.kinds.base import RowRef
from ..perturbation.perturbation import Perturbation

_NOT_TRAINED_ON = ("test", "val", "valid", "validation")


class Alignment:
    """Finds the rows of a dataset's images; arguments and errors as in ``ProtectedDataset``."""

    def __init__(self, raw: RawDataset, perturbation: Perturbation, align: str) -> None:
        if align not in ("content", "index"):
            raise ValueError(f'expected align to be "content" or "index", got {align!r}')
        self._perturbation, self._align = perturbation, align
        self._labelled = raw.labelled
        if perturbation.by_class and not raw.labelled:
            raise ValueError(
                f"expected a dataset with labels, by which {perturbation!r} finds rows, got one "
                f"without; say where the labels are with unlearnable.from_items(dataset, label=…)"
            )
        self._class_of = _match_classes(raw, perturbation)
        self._split = _test_split(raw)
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
            'align="index" relies on the order of the dataset; each image is only checked '
            "against a 4x4 thumbnail",
            stacklevel=3,
        )

    def _labels(self, batch: RawBatch) -> list[int]:
        if not self._labelled:
            return [-1] * len(batch.labels)  # no row's own
        if all(type(label) is int for label in batch.labels):
            return batch.labels
        return check_labels(batch.labels, None, batch.indices).tolist()

    def rows(self, batch: RawBatch) -> list[RowRef]:
        """Finds what belongs to each image of a batch; raises ``UnknownImageError`` for others."""
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
            try:
                return self._perturbation.find_batch(batch.pixels, labels, batch.indices)
            except UnknownImageError as error:
                if self._split is None:
                    raise
                raise UnknownImageError(
                    f"expected training images, got those of a dataset with {self._split}; test "
                    f"and validation images stay clean, so use the dataset without protection"
                ) from error
        for index, pixels in zip(batch.indices, batch.pixels, strict=True):
            if not self._perturbation.resembles(pixels, index):
                raise UnknownImageError(
                    f"expected image {index} to look like the one that was fitted, got a "
                    f"different one; restore the dataset's order and content, or use "
                    f'align="content"'
                )
        return list(batch.indices)


def _test_split(raw: RawDataset) -> str | None:
    """How the dataset says that its images are no training images; None where it does not."""
    for leaf in raw.originals:
        if getattr(leaf, "train", None) is False:
            return "train=False"
        split = getattr(leaf, "split", None)
        if isinstance(split, str) and split.lower() in _NOT_TRAINED_ON:
            return f"split={split!r}"
    return None


def _match_classes(raw: RawDataset, perturbation: Perturbation) -> list[int] | None:
    """For each class index of the dataset that of the perturbation; None where they are equal."""
    expected: list[str] | None = perturbation.config["classes"]
    count = perturbation.config["num_classes"]
    if expected is not None and raw.classes is not None:
        indices = match_classes(expected, raw.classes, "a dataset", some=True)
        return None if indices == list(range(len(expected))) else indices
    if perturbation.by_class:
        found = raw.num_classes
        if found > count or (raw.classes is not None and found != count):
            raise ValueError(f"expected a dataset with {count} classes, got {found}")
        warn_of_numbers(expected, raw.classes)
    return None


def check_fraction(value: Any) -> float:
    """A share of images as a ``float``; raises ``ValueError`` unless it is from 0 to 1."""
    fraction = number("fraction", value)
    if not 0 <= fraction <= 1:
        raise ValueError(f"expected a fraction from 0 to 1, got {fraction}")
    return fraction


def select(raw: RawDataset, fraction: float, seed: int) -> NDArray[np.bool_] | None:
    """Selects exactly ``round(fraction * N)`` images, ranked by a hash of seed and content.

    The result is bool of shape (N,), or None for all images.
    """
    if fraction == 1:
        return None
    # Of 8 bytes where they suffice, as ever; blake2b takes up to 64.
    salt = seed.to_bytes(max(8, (seed + (seed < 0)).bit_length() // 8 + 1), "little", signed=True)
    ranks = []
    for index, key in enumerate(raw.keys.tolist()):
        rank = hashlib.blake2b(key.to_bytes(8, "little"), digest_size=8, key=salt)
        ranks.append((int.from_bytes(rank.digest(), "little"), index))
    selected = np.zeros(len(raw), dtype=bool)
    selected[[index for _, index in sorted(ranks)[: round(fraction * len(raw))]]] = True
    return selected
