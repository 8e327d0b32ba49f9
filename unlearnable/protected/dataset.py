"""A dataset and a perturbation, seen as one torchvision dataset."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import ConcatDataset, Subset

from ..data.batches import RawBatch
from ..data.image import Images, Pixels, to_pil
from ..data.photo import PhotoReader
from ..data.raw import RawDataset
from ..engine.numbers import integer
from ..io.png import html_image
from ..perturbation.perturbation import Perturbation, check_perturbation
from .alignment import Alignment, check_fraction, select
from .exported import refuse_exports
from .figures import comparison
from .metrics import Distortion, compare, spread, together
from .publish import PublishedView
from .targets import targets_like


class ProtectedDataset(PublishedView):
    """A torchvision dataset whose images carry a perturbation.

    The perturbation changes the uint8 pixels; then the dataset's own transforms are applied as
    before: those that it has when an item is read, or those that are set here. Items keep the
    dataset's own form, such as tuples or dicts, and only the image is replaced. Rows are found by
    the image's content, so subsets, shuffled copies, concatenations and re-read exports are
    protected correctly. Attributes of the wrapped dataset can be read here, too, except those that
    lead to clean images.

    Args:
        dataset: A map-style dataset of (image, label) pairs, or of longer tuples or dicts if image
            and label can be told apart or ``from_items`` says where they are. Images are PIL
            images, uint8 tensors (1 or 3, H, W) or uint8 arrays (H, W, 1 or 3). The dataset is not
            modified.
        perturbation: The perturbation to apply, after its resize and crop if it has one.
        fraction: Share of images to protect, from 0 to 1. Exactly ``round(fraction * N)`` images
            are chosen by a hash of seed and content, so their order does not matter.
        seed: Seed of this choice, an integer.
        align: ``"content"`` finds rows by the pixels. ``"index"`` uses the row with the same index,
            for decoders that give slightly different pixels, and checks each image against a 4x4
            thumbnail.
        full_size: Keep photos at their own size and enlarge the perturbation to it; see
            docs/how-to/photos.md.
        check: Number of images to look up immediately. Pass 0 if the perturbation was just learned
            on these photos; class-wise rows need no lookup.

    Attributes:
        base: The wrapped dataset.
        perturbation: The perturbation that is applied.
        transforms: Transforms applied to items, as are ``transform`` and ``target_transform``.
            Setting one (None for no transform) replaces the dataset's own here; the wrapped dataset
            is not modified.

    Raises:
        UnknownImageError: An image was not fitted. ``check`` images, evenly spread, are looked up
            immediately, the others when they are read.
        ValueError: Classes differ, the dataset is already protected or an export, or an argument is
            invalid.
        TypeError: Image and label cannot be told apart, or transforms cannot be separated from the
            dataset.

    Example:
        >>> from unlearnable import RandomNoise
        >>> from unlearnable.datasets import Shapes
        >>> dataset = Shapes(size=16)
        >>> protected = RandomNoise().fit(dataset, progress=False).protect(dataset)
        >>> image, label = protected[0]
        >>> image.size, label == dataset[0][1]
        ((32, 32), True)
    """

    def __init__(
        self,
        dataset: Any,
        perturbation: Perturbation,
        *,
        fraction: float = 1.0,
        seed: int = 0,
        align: str = "content",
        full_size: bool = False,
        check: int = 64,
    ) -> None:
        check_perturbation(perturbation)
        raw = RawDataset(dataset)
        if raw.holds(ProtectedDataset):
            raise ValueError(
                "expected a dataset that is not protected yet, got a ProtectedDataset; protect "
                "the dataset that it wraps (its .base); to apply two perturbations, use p.then(q)"
            )
        refuse_exports(raw)
        super().__init__(raw, root=getattr(raw.originals[0], "root", None))
        self.base = dataset
        self.perturbation = perturbation
        self.fraction = check_fraction(fraction)
        self.seed = integer("seed", seed)
        self.align = align
        self.full_size = full_size
        if full_size:
            perturbation.check_full_size()
        self._alignment = Alignment(raw, perturbation, align)
        photos = raw.reads_photos
        looked_up = 0 if photos and not perturbation.keyed else max(not photos, check)
        sample = np.unique(np.linspace(0, len(raw) - 1, looked_up).astype(int))
        self._from_arrays = False
        for batch in raw.batches(sample.tolist()):
            self._alignment.rows(batch)
            self._from_arrays |= any(restore is not to_pil for restore in batch.restores)
        self._select()
        self._listed: tuple[Any, Any] = (None, None)  # labels, and what shows them
        self._changes = {}

    def raw_batches(self, indices: Sequence[int]) -> Iterator[RawBatch]:
        """Batches of protected images, before the dataset's transforms, in the given order."""
        for batch, _, protected in self.paired_batches(indices):
            yield batch._replace(pixels=protected)

    def paired_batches(
        self, indices: Sequence[int], *, reader: PhotoReader | None = None
    ) -> Iterator[tuple[RawBatch, Images, Images]]:
        """Batches of images as read, prepared but clean, and protected; each is read once.

        Files that this package opens itself are opened by the reader, if there is one.
        """
        raw = self._raw if reader is None else self._raw.read_by(reader)
        return map(self._paired, raw.batches(indices))  # which does not hold on to a batch

    def _paired(self, batch: RawBatch) -> tuple[RawBatch, Images, Images]:
        prepared = self._prepared(batch)
        return batch, prepared, self._protected(batch, prepared)

    def _prepared(self, batch: RawBatch) -> Images:
        return self.perturbation.prepare_batch(batch.pixels, full_size=self.full_size)

    def _protected(self, batch: RawBatch, prepared: Images) -> Images:
        """What becomes of a batch's images, which were prepared for it."""
        if self._chosen is None:
            return self._apply(batch, prepared)
        places = np.flatnonzero(self.chosen[batch.indices]).tolist()
        if not places:
            return prepared
        images = prepared.copy()
        images[places] = self._apply(batch.part(places), prepared[places])
        return images

    def _apply(self, batch: RawBatch, prepared: Images) -> Images:
        rows = self._alignment.rows(batch)
        return self.perturbation.apply_batch(prepared, rows, full_size=self.full_size)

    def pixel_pairs(self, indices: Sequence[int]) -> Iterator[tuple[Pixels, Pixels]]:
        """Clean and protected pixels of images, before transforms, uint8 (1 or 3, H, W) each."""
        for _, clean, protected in self.paired_batches(indices):
            yield from zip(clean, protected, strict=True)

    def _read(self, indices: Sequence[int]) -> list[Any]:
        count = len(self)
        batches = self.raw_batches([_checked(index, count) for index in indices])
        return [item for batch in batches for item in self._items(batch)]

    def _items(self, batch: RawBatch) -> list[Any]:
        """A batch's items, after the transforms."""
        return self._raw.finished(batch, batch.images(), self._chosen_transforms)

    def __len__(self) -> int:
        return len(self._raw)

    def __getitem__(self, index: int) -> Any:
        """The dataset's item with its image protected, after the transforms."""
        return self._read([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        """A batch of protected items, as requested by ``DataLoader``."""
        if type(self).__getitem__ is not ProtectedDataset.__getitem__:
            return [self[index] for index in indices]
        return self._read(indices)

    def __iter__(self) -> Iterator[Any]:
        return (self[index] for index in range(len(self)))

    def clean(self, index: int) -> Any:
        """The item without its perturbation, resized and transformed like the protected one."""
        batch = next(self._raw.batches([_checked(index, len(self))]))
        return self._items(batch._replace(pixels=self._prepared(batch)))[0]

    def without_transforms(self) -> ProtectedDataset:
        """The same protected images, without the dataset's own transforms."""
        return self._with(_chosen_transforms={"transforms": None})

    def with_fraction(self, fraction: float) -> ProtectedDataset:
        """The same images with a different share protected, by the same ranking."""
        other = self._with(fraction=check_fraction(fraction), _changes={})
        other._select()
        return other

    def with_keys(self, keys: NDArray[np.uint64]) -> ProtectedDataset:
        """The same images with known keys, so that :meth:`with_fraction` need not read them.

        Args:
            keys: Keys of the clean images before any resize, uint64 (N,).
        """
        return self._with(_raw=self._raw.with_keys(keys))

    def _select(self) -> None:
        self._chosen = select(self._raw, self.fraction, self.seed)
        self._chosen_by = None if self._chosen is None else self._raw.keys

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_listed": (None, None)}  # copies of which could be changed

    def _with(self, **changed: Any) -> ProtectedDataset:
        other = object.__new__(ProtectedDataset)
        other.__dict__.update(self.__dict__, **changed)
        return other

    @property
    def chosen(self) -> NDArray[np.bool_]:
        """Which images are protected, bool of shape (N,)."""
        if self._chosen is None:
            return np.ones(len(self), dtype=bool)
        if self._raw.keys is not self._chosen_by:  # images were set on the wrapped dataset since
            self._select()
        return self._chosen.copy()

    @property
    def targets(self) -> Any:
        """Class indices of all images, before any ``target_transform``, which cannot be changed.

        A tensor or an array where the dataset's own are one, otherwise a list.
        """
        if not self.labelled:
            raise AttributeError("expected a dataset with labels, got one with label=None")
        labels = self._raw.labels
        if self._listed[0] is not labels:
            below = self._below()
            one = not isinstance(below, (tuple, Subset, ConcatDataset))
            own = getattr(below, "targets", None) if one else None
            self._listed = (labels, targets_like(labels, own))
        return self._listed[1]

    def get_labels(self) -> Any:
        """The labels for samplers that ask for them: the dataset's own answer, or ``targets``."""
        own = getattr(self._below(), "get_labels", None)
        return self.targets if own is None else own()

    @property
    def labelled(self) -> bool:
        """Whether the images have labels."""
        return self._raw.labelled

    @property
    def classes(self) -> list[str] | None:
        """Names of the classes in the dataset's order, or None if it has none."""
        return self._raw.classes

    @property
    def class_to_idx(self) -> dict[str, int] | None:
        """Class index by name, or None if the dataset has no names."""
        return None if self.classes is None else {name: i for i, name in enumerate(self.classes)}

    def change(self, images: int = 256) -> Distortion:
        """Measures the change of protected images: largest and mean change, PSNR, SSIM.

        Args:
            images: Number of images to compare, spread evenly over the dataset.
        """
        return self._change(range(len(self)), images)

    def change_by_class(self, images: int = 64) -> dict[int, Distortion]:
        """Measures the change separately for each class, by class index.

        Args:
            images: Largest number of images to compare per class.
        """
        labels = np.asarray(self.targets)
        return {
            label: self._change(np.flatnonzero(labels == label).tolist(), images)
            for label in np.unique(labels).tolist()
        }

    def _change(self, places: Sequence[int], count: int) -> Distortion:
        chosen = spread(places, count)
        others = [index for index in chosen if index not in self._changes]
        pairs = self.pixel_pairs(others)
        known = self._changes | dict(zip(others, itertools.starmap(compare, pairs), strict=True))
        return together([known[index] for index in chosen])

    def to_tensors(self) -> tuple[Tensor, Tensor]:
        """All protected images, before transforms, uint8 (N, C, H, W), and labels, int64 (N,).

        Labels are all 0 if the images have none.

        Raises:
            ValueError: Their sizes differ.
        """
        batches = [batch.pixels for batch in self.raw_batches(range(len(self)))]
        if len({pixels.shape[1:] for pixels in batches}) > 1:
            raise ValueError(
                "expected images of one size, got several; omit full_size=True to get images of "
                "the learned size"
            )
        images = np.concatenate(batches)
        return torch.from_numpy(images), torch.from_numpy(self._raw.labels.copy())

    def extra_repr(self) -> str:
        way = f"{self.fraction:.0%} of images protected, aligned by {self.align}"
        way += ", full size" * self.full_size
        return f"Base: {self._raw.name}\n{self.perturbation!r}\n{way}"

    def _repr_html_(self) -> str:
        picture = comparison(self.pixel_pairs(range(min(8, len(self)))))
        return html_image(picture, "clean images, amplified perturbation, protected images")


def _checked(index: Any, count: int) -> int:
    try:
        number = operator.index(index)
    except TypeError as error:
        raise TypeError(
            f"expected an integer as index, got {index!r:.60}; items are read one by one, so use a "
            f"Subset for a part of them, and targets for the labels"
        ) from error
    if not -count <= number < count:
        raise IndexError(f"expected an index below {count}, got {number}")
    return number % count
