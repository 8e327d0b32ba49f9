"""The kinds of perturbation: what each one holds, and how it changes uint8 images.

Nothing else changes pixels. All arithmetic is on integers, or is rounded alike on every machine, so
that an artefact gives the same bytes wherever it is applied.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ...data.image import Images, Pixels, ResizeCrop, laid_like
from ...errors import UnknownImageError
from ..quantize import UNIT, Levels
from ..visibility import VisibilityMask

Tensors: TypeAlias = dict[str, Any]  # arrays; rows may be JoinedRows
RowRef: TypeAlias = Any  # what find gives and apply takes: an index, or more in some kinds
MAX_WEIGHT = 64 * UNIT  # of a kernel or process: sums stay far from overflow


class Kind(ABC):
    """A kind of perturbation: its arrays by name and its config; errors refer to it as ``where``.

    Attributes:
        keyed: Whether it applies only to the images that it was fitted on.
        by_class: Whether an image's class determines what is done to it.
        sized: Whether it needs images of the size in its config; others work at any size.
        mask: The visibility mask that lowers its rows where they would be visible, or None.
    """

    name: ClassVar[str]
    tensor_names: ClassVar[tuple[str, ...]] = ()
    has_rows: ClassVar[bool] = False  # that a visibility mask can lower
    keyed = False
    by_class = True
    sized = True

    def __init__(self, tensors: Tensors, config: dict[str, Any], where: str) -> None:
        self.tensors = tensors
        self.config = config
        self.where = where
        self.shape: tuple[int, int, int] = tuple(config["image_shape"])
        self.num_classes: int = config["num_classes"]
        self.settings: Mapping[str, Any] = config.get("settings") or {}
        fit = config["preprocessing"]
        self.fit = None if fit is None else ResizeCrop(*fit["fit"])
        self.mask = VisibilityMask.of(config)
        if self.mask is not None and not self.has_rows:
            raise ValueError(
                f"expected no visibility with kind {self.name!r}, which has no rows that a mask "
                f"could lower; omit it"
            )
        extra = set(tensors) - self.names(config)
        if extra:
            raise ValueError(f"expected no tensors {sorted(extra)} with kind {self.name!r}")
        self._check()

    @classmethod
    def names(cls, config: Mapping[str, Any]) -> set[str]:
        """Names of the tensors in an artefact of this kind."""
        return set(cls.tensor_names)

    @abstractmethod
    def _check(self) -> None:
        """Raises ``ValueError`` for tensors or settings that are not as they should be."""

    def _expect(self, name: str, dtype: type, shape: tuple[int, ...]) -> NDArray[Any]:
        found = self.tensors[name]
        if found.dtype != dtype or found.shape != shape:
            raise ValueError(
                f"expected {name} to be {np.dtype(dtype)} of shape {shape}, got {found.dtype} "
                f"{found.shape}"
            )
        return found

    def __len__(self) -> int:
        """Number of images or classes that it distinguishes."""
        return self.num_classes

    @property
    def nbytes(self) -> int:
        """Size of all tensors in bytes."""
        return sum(tensor.nbytes for tensor in self.tensors.values())

    @abstractmethod
    def describe(self) -> str:
        """Describes the extent of the change, for kinds without a budget."""

    def example(self, index: int) -> RowRef:
        """A result of ``find`` for some image, used to show the change."""
        return index

    def canvas(self) -> Pixels:
        """A picture on which the effect is visible."""
        return np.full(self.shape, 128, np.uint8)

    def prepare(self, images: Images, *, full_size: bool = False) -> Images:
        """See :meth:`Perturbation.prepare_batch`."""
        if self.fit is not None and not full_size and images.shape[2:] != self.fit:
            images = np.stack([self.fit(pixels) for pixels in images])
        if images.shape[1] < self.shape[0]:
            return np.repeat(images, 3, axis=1)  # grey images among colour ones
        return images

    def find(
        self, images: Images, labels: Sequence[int], indices: Sequence[int] | None = None
    ) -> list[RowRef]:
        """See :meth:`Perturbation.find_batch`; by default, returns the classes."""
        for label in labels:
            if not 0 <= label < self.num_classes:
                raise UnknownImageError(
                    f"expected a class index below {self.num_classes}, got {label}; the "
                    f"perturbation has no row for this class"
                )
        return list(labels)

    def apply(self, images: Images, rows: Sequence[RowRef]) -> Images:
        """See :meth:`Perturbation.apply_batch`."""
        fits = images.shape[2:] == self.shape[1:] or not self.sized
        if not fits or images.shape[1] < self.shape[0]:
            raise ValueError(
                f"expected an image of the perturbation's shape {self.shape} (channels, height, "
                f"width), got {tuple(images.shape[1:])}; resize it, or fit a perturbation for "
                f"this shape"
            )
        return self.change(images, rows)

    @abstractmethod
    def change(self, images: Images, rows: Sequence[RowRef]) -> Images:
        """The perturbed images; their shape was checked, and the inputs are not modified."""


def add_levels(images: Images, added: Levels, mask: VisibilityMask | None = None) -> Images:
    """Adds int8 levels to images, lowered by a mask if there is one, and clips to 0…255."""
    if mask is not None:
        added = mask.lower(images, added)
    total = np.add(images, laid_like(images, added), dtype=np.int16)
    return np.clip(total, 0, 255, out=total).astype(np.uint8)
