"""What an audit trains and tests on, checked as a whole before any training."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Subset

from ...data.batches import RawBatch
from ...data.cache import ImageStore, read_images
from ...data.class_matching import distinct
from ...data.fingerprint import image_keys, thumbnail
from ...data.image import Pixels, ResizeCrop, to_pil
from ...data.raw import RawDataset
from ...engine.random import CPU
from ...io.png import png_base64
from ...perturbation.perturbation import Perturbation
from ...protected.dataset import ProtectedDataset
from ...protected.figures import triple
from ...protected.metrics import Distortion, compare, measure, spread
from ..countermeasures.base import Countermeasure
from ..evaluate import with_pairs
from ..pair import check_pair, refuse_protected, refuse_single_class
from ..report.figures import PROTECTED

_OPTIONS = ("fraction", "seed", "align", "full_size")  # of a protected dataset
logger = logging.getLogger(__name__)
_EXAMPLES = 8  # images shown, each of another class
_SHOWN = 160  # pixels of a shown image's longer side, at most
_COMPARED = 512  # images that imperceptibility is measured on, and as many of all classes together


class AuditData(NamedTuple):
    """Training images with and without their perturbation, and test images."""

    given: ProtectedDataset  # the training images
    protected: ImageStore  # the same, read
    clean: ImageStore  # the same without perturbation, resized and cropped just as they are
    test: ImageStore
    image_size: tuple[int, ...] | None
    dataset: dict[str, Any]  # what a report says about the training images
    tested: dict[str, Any]  # and about the test images

    @property
    def identity(self) -> dict[str, Any]:
        """The values that identify this data."""
        return {
            "dataset": self.dataset["digest"],
            "perturbation": self.given.perturbation.digest,
            "test": self.tested["digest"],
            "options": {name: getattr(self.given, name) for name in _OPTIONS},
        }

    def training_images(
        self, trained_on: str, counter: Countermeasure, device: torch.device = CPU
    ) -> ImageStore:
        """The ``"protected"`` or ``"clean"`` images that a victim trains on."""
        given = self.given if trained_on == PROTECTED else self.given.with_fraction(0)
        chosen = counter.on_dataset(given)
        found = self._images_of(chosen)
        if counter.takes_pairs:
            found = with_pairs(found, self._clean_of(chosen), counter, device)
        # The choice need not have an image of each class.
        return found._replace(num_classes=max(found.num_classes, self.clean.num_classes))

    def _clean_of(self, dataset: Any) -> ImageStore:
        """Images of the audited dataset, or of a part of it, without their perturbation."""
        if type(dataset) is Subset:
            return part_of(self._clean_of(dataset.dataset), dataset.indices)
        return self.clean

    def _images_of(self, dataset: Any) -> ImageStore:
        """Images of a dataset; those of the audited one are not decoded again."""
        if type(dataset) is Subset:
            return part_of(self._images_of(dataset.dataset), dataset.indices)
        own = self.given
        same = type(dataset) is ProtectedDataset and all(
            getattr(dataset, name) is getattr(own, name)
            for name in ("base", "perturbation", "align", "full_size")
        )
        if not same or (dataset.chosen & ~own.chosen).any():
            return read_images(dataset, self.image_size)
        if not dataset.chosen.any():
            return self.clean
        if (dataset.chosen == own.chosen).all():
            return self.protected
        chosen = torch.from_numpy(dataset.chosen)[:, None, None, None]
        return self.clean._replace(
            images=torch.where(chosen, self.protected.images, self.clean.images)
        )

    def change_by_class(self) -> dict[str, dict[str, Any]]:
        """Imperceptibility by class name, as JSON values."""
        each = max(1, _COMPARED // self.dataset["num_classes"])
        labels = self.clean.labels.numpy()
        return {
            self._class_name(label): self._change(np.flatnonzero(labels == label).tolist(), each)
            for label in np.unique(labels).tolist()
        }

    def change(self) -> dict[str, Any]:
        """Imperceptibility over all classes, as JSON values."""
        return self._change(range(len(self.clean.labels)), _COMPARED)

    def _change(self, indices: Sequence[int], count: int) -> dict[str, Any]:
        return _plain(measure(self._pairs(spread(indices, count))))

    def _class_name(self, label: int) -> str:
        classes = self.dataset["classes"]
        return f"class {label}" if classes is None else distinct(classes)[label]

    def _pairs(self, indices: Sequence[int]) -> Iterator[tuple[Pixels, Pixels]]:
        """Clean and protected pixels, of the size at which they are published."""
        if self.given.full_size or self.image_size != self.given.perturbation.fit_size:
            yield from self.given.pixel_pairs(indices)
        else:
            for index in indices:
                yield self.clean.images[index].numpy(), self.protected.images[index].numpy()

    def examples(self) -> list[dict[str, Any]]:
        """One example image per class, in the form that reports keep."""
        labels = self.clean.labels.numpy()
        first = np.sort(np.unique(labels, return_index=True)[1])[:_EXAMPLES].tolist()
        examples = []
        for index, pair in zip(first, self._pairs(first), strict=True):
            pictures = [to_pil(pixels) for pixels in triple(*pair)]
            for picture in pictures:
                picture.thumbnail((_SHOWN, _SHOWN))
            names = ("clean", "change", "protected")
            shown = dict(zip(names, map(png_base64, pictures), strict=True))
            label = self._class_name(int(labels[index]))
            examples.append({"label": label} | _plain(compare(*pair)) | shown)
        return examples


def part_of(store: ImageStore, indices: Sequence[int]) -> ImageStore:
    """Some of the images, keeping the number of classes."""
    chosen = np.asarray(indices, dtype=np.int64)
    return store._replace(
        images=store.images[chosen],
        labels=store.labels[chosen],
        keys=store.keys[chosen],
        thumbnails=store.thumbnails[chosen],
    )


def _plain(change: Distortion) -> dict[str, Any]:
    """For JSON, which has no infinity."""
    plain = change._asdict()
    return plain | {"psnr": None if math.isinf(change.psnr) else change.psnr}


def read_audit_data(
    dataset: Any,
    perturbation: Perturbation | None,
    test: Any,
    *,
    held_out: float,
    image_size: int | Sequence[int] | None,
    progress: bool,
) -> AuditData:
    """Reads both datasets once, after splitting if needed; takes the arguments of :func:`audit`."""
    if isinstance(test, tuple):
        test = RawDataset(test).originals[0]
    given, tested = _divide(dataset, perturbation, test, held_out)
    asked, own = ResizeCrop.parse(image_size), given.perturbation.fit_size
    if own is not None and asked not in (None, own) and not given.full_size:
        raise ValueError(
            f"expected the image_size of the perturbation, {tuple(own)}, got "
            f"{tuple(asked or ())}; omit image_size, or use a perturbation for that size"
        )
    fit = asked or own
    size = None if fit is None else tuple(fit)
    clean, protected = _read_both(given, size, progress)
    refuse_single_class(clean.labels.tolist(), clean.classes)
    given = given.with_keys(clean.keys)
    held = check_pair(clean, read_images(tested, size, progress=progress))
    if len(clean.labels) < clean.num_classes:
        raise ValueError(
            f"expected at least one training image per class, got {len(clean.labels)} images of "
            f"{clean.num_classes} classes; add images"
        )
    overlap = len(np.intersect1d(clean.keys, held.keys))
    if overlap:
        logger.warning(
            "%d of the test images are also training images, so accuracies will be too high; "
            "remove them from the test set",
            overlap,
        )
    about_training = {
        "name": clean.name,
        "images": len(clean.labels),
        "classes": clean.classes,
        "num_classes": clean.num_classes,
        "digest": clean.digest,
        "fraction": given.fraction,
    }
    about_test = {
        "name": held.name,
        "images": len(held.labels),
        "digest": held.digest,
        "chance": int(held.labels.bincount().max()) / len(held.labels),
        "held_out": held_out if test is None else None,
        "overlap": overlap,
    }
    return AuditData(given, protected, clean, held, size, about_training, about_test)


class _Watched:
    """Protected images, each of them kept as it was before, too."""

    def __init__(self, given: ProtectedDataset, fit: ResizeCrop | None) -> None:
        self.given, self.fit, self.classes = given, fit, given.classes
        self.clean: dict[int, Pixels] = {}
        self.keys = np.empty(len(given), np.uint64)
        self.thumbnails = np.empty((len(given), 3, 4, 4), np.uint8)

    def __len__(self) -> int:
        return len(self.given)

    def __getitem__(self, index: int) -> Any:
        return self.given[index]

    def raw_batches(self, indices: Sequence[int]) -> Iterator[RawBatch]:
        for batch, prepared, protected in self.given.paired_batches(indices):
            self.keys[batch.indices] = image_keys(batch.pixels)
            for index, raw, clean in zip(batch.indices, batch.pixels, prepared, strict=True):
                self.thumbnails[index] = thumbnail(raw)
                self.clean[index] = clean if self.fit is None else self.fit(clean)
            yield batch._replace(pixels=protected)


def _read_both(
    given: ProtectedDataset, size: tuple[int, ...] | None, progress: bool
) -> tuple[ImageStore, ImageStore]:
    """The images clean and protected, from one reading."""
    watched = _Watched(given, ResizeCrop.parse(size))
    protected = read_images(watched, size, progress=progress)
    # A perturbation in colour makes grey images colour ones, clean or not.
    images, name = torch.empty_like(protected.images), RawDataset(given.base).name
    for index in range(len(images)):
        images.numpy()[index] = watched.clean.pop(index)
    keys, thumbnails = watched.keys, watched.thumbnails
    return protected._replace(images=images, keys=keys, thumbnails=thumbnails, name=name), protected


def _divide(
    dataset: Any, perturbation: Perturbation | None, test: Any, held_out: float
) -> tuple[ProtectedDataset, Any]:
    """The protected training images, and what to test on."""
    options: dict[str, Any] = {}
    given = dataset if isinstance(dataset, ProtectedDataset) else None
    if given is not None:
        if perturbation is not None and perturbation.digest != given.perturbation.digest:
            raise ValueError(
                "expected no perturbation together with a ProtectedDataset, which has its own, "
                "got another one; omit it, or pass the clean dataset"
            )
        perturbation, dataset = given.perturbation, given.base
        options = {name: getattr(given, name) for name in _OPTIONS}
    if perturbation is None:
        raise ValueError(
            "expected a perturbation together with a clean dataset, got None; pass perturbation="
        )
    if test is not None:
        if hasattr(test, "__len__") and not len(test):
            raise ValueError("expected a test set with images, got an empty one")
        refuse_protected(test)
        return given or ProtectedDataset(dataset, perturbation), test
    if options.get("align") == "index":
        raise ValueError(
            'expected test= with align="index", because such a dataset cannot be split; pass '
            "clean test images"
        )
    if isinstance(dataset, tuple):
        dataset = RawDataset(dataset).originals[0]
    if not 0 < held_out < 1:
        raise ValueError(f"expected a share to hold out between 0 and 1, got {held_out}")
    keys = RawDataset(dataset).keys
    kept, held = split(keys, held_out)
    fraction = options.pop("fraction", 1.0)
    given = ProtectedDataset(Subset(dataset, kept), perturbation, **options)
    return given.with_keys(keys[kept]).with_fraction(fraction), Subset(dataset, held)


def split(keys: NDArray[np.uint64], held_out: float) -> tuple[list[int], list[int]]:
    """Splits indices into training and test, by a hash of each image's key.

    The order of the images does not matter, and copies of an image end up on the same side. Raises
    ``ValueError`` if one side would be empty.
    """
    hashed = b"".join(
        hashlib.blake2b(key.to_bytes(8, "little"), digest_size=8, person=b"held out").digest()
        for key in keys.tolist()
    )
    ranks = np.frombuffer(hashed, dtype="<u8")
    held = ranks < np.sort(ranks)[round(held_out * (len(ranks) - 1))]
    if held.all() or not held.any():
        raise ValueError(
            f"expected enough images to hold out {held_out:.0%} of them, got {len(keys)}; pass "
            f"test="
        )
    return np.flatnonzero(~held).tolist(), np.flatnonzero(held).tolist()
