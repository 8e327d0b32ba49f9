"""The kinds of perturbation: what each one holds, and how it changes uint8 images.

Nothing else changes pixels. All arithmetic is on whole numbers, or rounded alike on every machine,
so that an artefact gives the same bytes wherever it is applied.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .arrays import Images
from .batches import Pixels
from .data import Fit, image_keys
from .errors import ArtefactError, UnknownImageError
from .generators import GENERATORS, levels
from .rows import UNIT, Levels

Tensors: TypeAlias = dict[str, Any]  # arrays; rows may be JoinedRows
Row: TypeAlias = Any  # what find gives and apply takes: an index, or more in some kinds

_MOST = 64 * UNIT  # no weight of a kernel or process is that large: sums stay far from overflow
_WEIGHT = 1 << 35  # nor all of a kernel: 510 times a sum of pixels is exact in float64


class Kind(ABC):
    """A kind of perturbation.

    Args:
        tensors: Its arrays by name.
        config: As in :attr:`Perturbation.config`.
        where: What to call the artefact in errors.

    Attributes:
        keyed: It knows the images it was fitted on, and refuses others.
        by_class: What it does to an image follows from the image's class.

    Raises:
        ValueError: Tensors or config are not as they should be.
    """

    name: ClassVar[str]
    keyed = False
    by_class = True

    def __init__(self, tensors: Tensors, config: dict[str, Any], where: str) -> None:
        self.tensors = tensors
        self.config = config
        self.where = where
        self.shape: tuple[int, int, int] = tuple(config["image_shape"])
        self.num_classes: int = config["num_classes"]
        self.settings: Mapping[str, Any] = config.get("settings") or {}
        fit = config["preprocessing"]
        self.fit = None if fit is None else Fit(*fit["fit"])
        extra = set(tensors) - self.names(config)
        if extra:
            raise ValueError(f"expected no tensors {sorted(extra)} of kind {self.name!r}")
        self._check()

    @classmethod
    @abstractmethod
    def names(cls, config: Mapping[str, Any]) -> set[str]:
        """Names of the tensors that an artefact of this kind has."""

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
        """Number of images or classes that it has something of its own for."""
        return self.num_classes

    @abstractmethod
    def describe(self) -> str:
        """Its extent in words, for kinds without a budget."""

    def example(self, index: int) -> Row:
        """Something of its own, to be shown."""
        return index

    def canvas(self) -> Pixels:
        """A picture on which can be seen what it does."""
        return np.full(self.shape, 128, np.uint8)

    def prepare(self, images: Images) -> Images:
        """Images as they are before anything is applied: resized, and in colour if need be."""
        if self.fit is not None and images.shape[2:] != self.fit:
            images = np.stack([self.fit(pixels) for pixels in images])
        if images.shape[1] < self.shape[0]:
            images = np.repeat(images, 3, axis=1)  # grey images among colour ones
        return images

    def find(
        self, images: Images, labels: Sequence[int], indices: Sequence[int] | None = None
    ) -> list[Row]:
        """As :meth:`Perturbation.find_batch`; here, the classes."""
        for label in labels:
            if not 0 <= label < self.num_classes:
                raise UnknownImageError(
                    f"expected a class index below {self.num_classes}, got {label}: the "
                    f"perturbation has no row for it"
                )
        return list(labels)

    def apply(self, images: Images, rows: Sequence[Row]) -> Images:
        """As :meth:`Perturbation.apply_batch`."""
        if images.shape[2:] != self.shape[1:] or images.shape[1] < self.shape[0]:
            raise ValueError(
                f"expected an image of shape {self.shape} (channels, height, width) as the "
                f"perturbation's rows, got {tuple(images.shape[1:])}"
            )
        return self._change(images, rows)

    @abstractmethod
    def _change(self, images: Images, rows: Sequence[Row]) -> Images:
        """The perturbed images, of images whose shape has been checked; those stay as they are."""


class Pixel(Kind):
    """Per class a few positions, and the colours that overwrite what is there."""

    name = "pixel"

    @classmethod
    def names(cls, config: Mapping[str, Any]) -> set[str]:
        return {"positions", "colours"}

    def _check(self) -> None:
        number = self.tensors["positions"].shape[1] if self.tensors["positions"].ndim == 3 else 0
        positions = self._expect("positions", np.int64, (self.num_classes, number, 2))
        self._expect("colours", np.uint8, (self.num_classes, number, self.shape[0]))
        if (positions < 0).any() or (positions >= self.shape[1:]).any():
            raise ValueError(f"expected (row, column) positions inside {self.shape[1:]}")

    def describe(self) -> str:
        number = self.tensors["positions"].shape[1]
        return f"{number} pixel{'s' if number > 1 else ''}"

    def _change(self, images: Images, rows: Sequence[Row]) -> Images:
        changed = images.copy()
        positions = self.tensors["positions"][rows]  # (B, pixels, 2)
        changed[
            np.arange(len(images))[:, None, None],
            np.arange(images.shape[1])[:, None],
            positions[:, None, :, 0],
            positions[:, None, :, 1],
        ] = self.tensors["colours"][rows].transpose(0, 2, 1)
        return changed


class Convolution(Kind):
    """Per class a kernel that every channel is convolved with, zero beyond the border."""

    name = "convolution"

    @classmethod
    def names(cls, config: Mapping[str, Any]) -> set[str]:
        return {"kernels"}

    def _check(self) -> None:
        size = len(self.tensors["kernels"].T) if self.tensors["kernels"].ndim else 0
        kernels = self._expect("kernels", np.int64, (self.num_classes, size, size))
        if size % 2 == 0 or size > 255:
            raise ValueError(f"expected kernels of an odd size up to 255, got {size}")
        weights = kernels.sum((1, 2))
        if (kernels < 0).any() or (kernels > _MOST).any() or (weights >= _WEIGHT).any():
            raise ValueError("expected kernels of moderate weights, none negative")
        if not weights.all():
            raise ValueError("expected kernels that are not all zero")
        if self.settings.get("normalize") not in ("max", "sum"):
            raise ValueError(f"expected normalize of {self.settings} to be 'max' or 'sum'")

    def describe(self) -> str:
        size = self.tensors["kernels"].shape[-1]
        return f"{size}x{size} kernels"

    def canvas(self) -> Pixels:
        dot = np.zeros(self.shape, np.uint8)
        dot[:, self.shape[1] // 2, self.shape[2] // 2] = 255
        return dot

    def _change(self, images: Images, rows: Sequence[Row]) -> Images:
        return self.convolve(images, rows)

    def convolve(self, images: Images, rows: Sequence[Row]) -> Images:
        """The convolved images, of whatever size."""
        changed = np.empty_like(images)
        classes = np.asarray(rows)
        for row in np.unique(classes):
            mine = np.flatnonzero(classes == row)
            changed[mine] = self._convolve(images[mine], self.tensors["kernels"][row])
        return changed

    def _convolve(self, images: Images, kernel: NDArray[np.int64]) -> Images:
        half, (count, channels, height, width) = len(kernel) // 2, images.shape
        weight = int(kernel.sum())
        kind = np.int32 if 255 * weight < 1 << 31 else np.int64
        padded = np.zeros((count, channels, height + 2 * half, width + 2 * half), kind)
        padded[..., half : half + height, half : half + width] = images
        total, term = np.zeros(images.shape, kind), np.empty(images.shape, kind)
        for down, right in np.argwhere(kernel).tolist():
            seen = padded[..., down : down + height, right : right + width]
            total += np.multiply(seen, kernel[down, right].astype(kind), out=term)
        # In floats, which divide faster: whole numbers below 2^53 by ones below 2^46, so that no
        # quotient is rounded up to the next whole number, and casting rounds it down.
        if self.settings["normalize"] == "max":
            most = np.maximum(total.max(axis=(1, 2, 3), keepdims=True), 1)  # black stays black
            largest = most.astype(np.float64)
            return ((total * 510.0 + largest) / (2 * largest)).astype(np.uint8)
        return ((total * 2.0 + weight) / (2 * weight)).astype(np.uint8)


class Procedural(Kind):
    """Rows computed from the seed, the class and the image's key, for images seen or not."""

    name = "procedural"

    @classmethod
    def names(cls, config: Mapping[str, Any]) -> set[str]:
        return set(cls._shapes(config))

    @staticmethod
    def _shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
        settings = config["settings"]
        if settings["generator"] not in GENERATORS:
            raise ValueError(
                f"expected a generator, one of {sorted(GENERATORS)}, got "
                f"{settings['generator']!r}; a newer release of unlearnable may have it"
            )
        shapes = GENERATORS[settings["generator"]].shapes
        return shapes(settings, config["num_classes"], tuple(config["image_shape"]))

    def _check(self) -> None:
        for name, shape in self._shapes(self.config).items():
            if (np.abs(self._expect(name, np.int64, shape)) > _MOST).any():
                raise ValueError(f"expected {name} of moderate size")
        if not isinstance(self.settings["seed"], int) or not self.config["epsilon"]:
            raise ValueError("expected a whole seed and a budget")

    def describe(self) -> str:
        return str(self.settings["generator"])

    def example(self, index: int) -> Row:
        return index, index

    def find(
        self, images: Images, labels: Sequence[int], indices: Sequence[int] | None = None
    ) -> list[Row]:
        classes = super().find(images, labels, indices)
        return list(zip(classes, image_keys(images), strict=True))

    def levels(self, labels: NDArray[np.int64], keys: NDArray[np.uint64]) -> Levels:
        """int8 rows of images of these classes and keys, (B, C, H, W)."""
        generator = GENERATORS[self.settings["generator"]]
        fields = generator.fields(self.tensors, self.settings, self.shape, labels, keys)
        return levels(fields, self.config["epsilon"])

    def rows(self, rows: Sequence[Row]) -> Levels:
        """int8 rows, (B, C, H, W), computed."""
        labels, keys = zip(*rows, strict=True)
        try:
            return self.levels(np.array(labels, np.int64), np.array(keys, np.uint64))
        except ValueError as error:
            raise ArtefactError(f"could not compute a row of {self.where}: {error}") from error

    def _change(self, images: Images, rows: Sequence[Row]) -> Images:
        return add_levels(images, self.rows(rows))


def add_levels(images: Images, added: Levels) -> Images:
    """The images with int8 levels added, clipped to 0…255."""
    total = np.add(images, added, dtype=np.int16)
    np.maximum(total, 0, out=total)
    np.minimum(total, 255, out=total)
    return total.astype(np.uint8)
