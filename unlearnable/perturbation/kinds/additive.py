"""Rows that are added to images: the kind of perturbation that most methods learn."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...data.fingerprint import THUMBNAIL_TOLERANCE, image_keys, thumbnail
from ...data.image import Images, Pixels
from ...errors import ArtefactError, UnknownImageError
from ..quantize import Levels
from .base import Kind, RowRef, add_levels


class Additive(Kind):
    """int8 rows, one per fitted image or class, that are added; the result is clipped to 0…255."""

    name = "additive"
    has_rows = True

    @classmethod
    def names(cls, config: Mapping[str, Any]) -> set[str]:
        keyed = config["granularity"] == "sample-wise"
        return {"rows", "checksums"} | ({"keys", "labels", "thumbnails"} if keyed else set())

    def _check(self) -> None:
        rows = self.tensors["rows"]
        if rows.dtype != np.int8 or rows.ndim != 4 or rows.shape[1:] != self.shape:
            raise ValueError(
                f"expected int8 rows of shape (N, {', '.join(map(str, self.shape))}), got "
                f"{rows.dtype} {rows.shape}"
            )
        if not len(rows):
            raise ValueError("expected at least one row, got none")
        self._expect("checksums", np.uint32, (len(rows),))
        self.keyed = "keys" in self.tensors
        self.by_class = not self.keyed
        if self.keyed:
            self._expect("keys", np.uint64, (len(rows),))
            self._expect("labels", np.int64, (len(rows),))
            labels = self.tensors["labels"]
            if labels.min() < 0 or labels.max() >= self.num_classes:
                raise ValueError(
                    f"expected labels from 0 to {self.num_classes - 1}, got {labels.min()} to "
                    f"{labels.max()}"
                )
            self._expect("thumbnails", np.uint8, (len(rows), 3, 4, 4))
        elif len(rows) != self.num_classes:
            raise ValueError(
                f"expected one row for each of {self.num_classes} classes, got {len(rows)}"
            )
        self._order: NDArray[np.int64] | None = None
        self._verified = np.zeros(len(rows), bool)

    def __len__(self) -> int:
        return len(self.tensors["rows"])

    def describe(self) -> str:
        return "rows"

    def find(
        self, images: Images, labels: Sequence[int], indices: Sequence[int] | None = None
    ) -> list[RowRef]:
        if not self.keyed:
            return super().find(images, labels, indices)
        return self.known(self.search(images, labels, indices), indices)

    def known(self, found: list[int], indices: Sequence[int] | None) -> list[RowRef]:
        """The rows found; raises ``UnknownImageError`` if one is missing."""
        if -1 in found:
            where = "" if indices is None else f" at index {indices[found.index(-1)]}"
            raise UnknownImageError(
                f"expected an image that {self.config['method']} was fitted on "
                f"({self.config['source']['name']}, {len(self):,} images), got another "
                f"one{where}; use test and validation images without protection, because only "
                f"training images are protected; for new training images, learn rows with "
                f"method.extend(dataset)"
            )
        return found

    def search(
        self, images: Images, labels: Sequence[int], indices: Sequence[int] | None = None
    ) -> list[int]:
        """The row of each image; -1 if there is none.

        For duplicates, that is the row at the image's own index if its label is the same too, then
        the first with its label, the one at its own index, and the first.
        """
        keys, wanted = self.tensors["keys"], image_keys(images)
        found = [-1] * len(wanted)
        if indices is not None and len(keys):
            same = zip(keys.take(indices, mode="clip").tolist(), wanted, indices, strict=True)
            found = [i if own == key and i < len(keys) else -1 for own, key, i in same]
        own_labels = self.tensors["labels"]
        rest = [
            place
            for place, number in enumerate(found)
            if number < 0 or own_labels[number] != labels[place] >= 0
        ]
        if not rest:
            return found
        if self._order is None:
            self._order = np.argsort(keys, kind="stable")
        left = np.array([wanted[place] for place in rest], np.uint64)
        low = np.searchsorted(keys, left, "left", sorter=self._order).tolist()
        high = np.searchsorted(keys, left, "right", sorter=self._order).tolist()
        for place, first, end in zip(rest, low, high, strict=True):
            candidates = self._order[first:end]  # images of one key
            same_label = candidates[own_labels[candidates] == labels[place]]
            if len(same_label):
                found[place] = int(same_label[0])
            elif len(candidates) and found[place] < 0:
                found[place] = int(candidates[0])
        return found

    def resembles(self, pixels: Pixels, row: int) -> bool:
        """See :meth:`Perturbation.resembles`."""
        own = self.tensors["thumbnails"][row].astype(np.int16)
        return bool(np.abs(own - thumbnail(pixels)).max() <= THUMBNAIL_TOLERANCE)

    def rows(self, rows: Sequence[RowRef]) -> Levels:
        """int8 rows, (B, C, H, W), each verified against its checksum when it is first read."""
        added = np.ascontiguousarray(self.tensors["rows"][rows])
        for place in np.flatnonzero(~self._verified[rows]).tolist():
            row = rows[place]
            if zlib.crc32(added[place]) != self.tensors["checksums"][row]:
                raise ArtefactError(
                    f"expected row {row} to match its checksum, got different bytes: {self.where} "
                    f"was damaged or edited; download or create it again"
                )
            self._verified[row] = True
        return added

    def change(self, images: Images, rows: Sequence[RowRef]) -> Images:
        return add_levels(images, self.rows(rows), self.mask)
