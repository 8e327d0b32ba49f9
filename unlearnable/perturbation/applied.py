"""What a perturbation says of itself, and what it does to images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.image import Images, Pixels, ResizeCrop
from ..io.sharded_rows import JoinedRows
from . import summary
from .kinds.additive import Additive
from .kinds.base import Kind, RowRef
from .kinds.stack import parts_of
from .quantize import Levels
from .resample import apply_full_size, check_full_size
from .serialization import digest_of


class AppliedKind:
    """The reading part of :class:`Perturbation`: its properties and its application to images."""

    _kind: Kind

    @property
    def config(self) -> dict[str, Any]:
        """The configuration, as in ``config.json``; see the class."""
        return self._kind.config

    @property
    def kind(self) -> str:
        """What it does, such as ``"additive"``, ``"pixel"``, ``"convolution"`` or ``"stack"``."""
        return str(self.config["kind"])

    @property
    def tensors(self) -> Mapping[str, Any]:
        """The kind's arrays by name; memory-mapped if loaded from a folder.

        Rows spread over several files or arrays are ``JoinedRows``; see :attr:`rows`.
        """
        return self._kind.tensors

    @property
    def rows(self) -> Levels | JoinedRows:
        """int8 levels of 1/255, (N or K, C, H, W); only of kind ``"additive"``.

        An array; or ``JoinedRows`` if the rows are spread over several shards or were concatenated.
        ``JoinedRows`` has ``shape`` and ``len()`` and can be indexed by integers, slices or arrays.
        It copies only the indexed rows; ``np.asarray(rows)`` copies all of them.
        """
        if self.kind != "additive":
            raise AttributeError(
                f'a perturbation of kind "{self.kind}" has no rows; its tensors are '
                f"{sorted(self.tensors)}"
            )
        return self.tensors["rows"]

    @property
    def keys(self) -> NDArray[np.uint64] | None:
        """Key of each row's image, or None if there are no rows per image."""
        return self.tensors.get("keys")

    @property
    def labels(self) -> NDArray[np.int64] | None:
        """Class index of each row's image, or None if there are no rows per image."""
        return self.tensors.get("labels")

    @property
    def granularity(self) -> str:
        """``"sample-wise"`` if images of a class get different changes, else ``"class-wise"``."""
        return str(self.config["granularity"])

    @property
    def keyed(self) -> bool:
        """Whether it applies only to the images that it was fitted on."""
        return self._kind.keyed

    @property
    def by_class(self) -> bool:
        """Whether an image's class determines what is done to it."""
        return self._kind.by_class

    @property
    def fit_size(self) -> ResizeCrop | None:
        """Resize and crop of images before anything is applied, or None."""
        return self._kind.fit

    @property
    def parts(self) -> list[Kind]:
        """The kinds that are applied in sequence, several for a stack, otherwise one."""
        return parts_of(self._kind)

    @property
    def nbytes(self) -> int:
        """Size of all tensors in bytes."""
        return self._kind.nbytes

    @property
    def digest(self) -> str:
        """Fingerprint of tensors and config."""
        return digest_of(self.tensors, self.config)

    def __len__(self) -> int:
        return len(self._kind)

    def info(self) -> dict[str, Any]:
        """A summary: method, budget, images, size on disk, digest, strength."""
        return summary.info(self._kind, self.digest)

    def __repr__(self) -> str:
        return summary.line(self._kind)

    def _repr_html_(self) -> str:
        return summary.page(self._kind, self.digest)

    def find(self, pixels: Pixels, label: int, index: int | None = None) -> RowRef:
        """Finds what belongs to an image: for rows, the number of its row.

        Args:
            pixels: uint8, (1 or 3, H, W), before any resize.
            label: Class index; it selects class-wise rows and decides between duplicates.
            index: Position in the dataset, which is tried first so that usually no search is
                needed.

        Raises:
            UnknownImageError: Nothing belongs to the image.
        """
        indices = None if index is None or index < 0 else [index]
        return self._kind.find(pixels[None], [label], indices)[0]

    def find_batch(
        self, images: Images, labels: Sequence[int], indices: Sequence[int] | None = None
    ) -> list[RowRef]:
        """:meth:`find` for a batch of images (B, 1 or 3, H, W)."""
        return self._kind.find(images, labels, indices)

    def resembles(self, pixels: Pixels, row: int) -> bool:
        """Whether an image resembles the row's own at 4x4 pixels, whatever the decoder."""
        assert isinstance(self._kind, Additive)
        return self._kind.resembles(pixels, row)

    def prepare(self, pixels: Pixels, *, full_size: bool = False) -> Pixels:
        """The image before anything is applied: resized, cropped, and converted to RGB if needed.

        Args:
            pixels: uint8, (1 or 3, H, W).
            full_size: Keep the size.
        """
        return self.prepare_batch(pixels[None], full_size=full_size)[0]

    def prepare_batch(self, images: Images, *, full_size: bool = False) -> Images:
        """:meth:`prepare` for a batch of images (B, 1 or 3, H, W)."""
        return self._kind.prepare(images, full_size=full_size)

    def apply(self, pixels: Pixels, row: RowRef, *, full_size: bool = False) -> Pixels:
        """Perturbed uint8 pixels, (1 or 3, H, W).

        Args:
            pixels: uint8, of the perturbation's shape; a grey perturbation also fits a colour
                image.
            row: The result of :meth:`find`.
            full_size: Enlarge the perturbation to ``pixels`` of any size; see
                docs/how-to/photos.md.

        Raises:
            ValueError: The image has another shape.
            ArtefactError: The row is damaged.
        """
        return self.apply_batch(pixels[None], [row], full_size=full_size)[0]

    def apply_batch(
        self, images: Images, rows: Sequence[RowRef], *, full_size: bool = False
    ) -> Images:
        """:meth:`apply` for a batch of images (B, 1 or 3, H, W)."""
        if full_size:
            return apply_full_size(self._kind, images, rows)
        return self._kind.apply(images, rows)

    def resizes(self, sizes: Iterable[tuple[int, int]]) -> bool:
        """Whether images of these sizes, (width, height), are resized to the learned size."""
        learned = tuple(self.config["image_shape"][:0:-1])
        return self.fit_size is not None or set(sizes) != {learned}

    def check_full_size(self) -> None:
        """Raises ``ValueError`` if the perturbation cannot be enlarged."""
        check_full_size(self._kind)
