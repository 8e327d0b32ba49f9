"""What an audit trains and tests on, checked as a whole before any training."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from torch.utils.data import Subset

from ...data.cache import ImageStore, read_images
from ...data.fingerprint import image_keys
from ...data.image import ResizeCrop, to_pil
from ...data.raw import RawDataset
from ...io.png import png_base64
from ...perturbation.perturbation import Perturbation
from ...protected.dataset import ProtectedDataset
from ...protected.figures import triple
from ...protected.metrics import Distortion, compare
from ..evaluate import check_pair, refuse_protected

_OPTIONS = ("fraction", "seed", "align", "full_size")  # of a protected dataset
logger = logging.getLogger(__name__)
_EXAMPLES = 8  # images shown, each of another class
_SHOWN = 160  # pixels of a shown image's longer side, at most
_COMPARED = 512  # images that imperceptibility is measured on, and as many of all classes together


class AuditData(NamedTuple):
    """Training images with and without their perturbation, and test images.

    Attributes:
        protected: The protected training images.
        clean: The same without perturbation, resized and cropped just as they are.
        test: Clean images to test on.
        image_size: As :func:`evaluate` takes it.
        dataset: What a report says of the training images.
        tested: What it says of the test images.
    """

    protected: ProtectedDataset
    clean: ProtectedDataset
    test: Any
    image_size: tuple[int, ...] | None
    dataset: dict[str, Any]
    tested: dict[str, Any]

    @property
    def identity(self) -> dict[str, Any]:
        """What tells it from other data."""
        return {
            "dataset": self.dataset["digest"],
            "perturbation": self.protected.perturbation.digest,
            "test": self.tested["digest"],
            "options": {name: getattr(self.protected, name) for name in _OPTIONS},
        }

    def change_by_class(self) -> dict[str, Distortion]:
        """Imperceptibility by class name."""
        each = max(1, _COMPARED // self.dataset["num_classes"])
        changes = self.protected.change_by_class(each)
        return {class_name(self.dataset, label): change for label, change in changes.items()}

    def change(self) -> Distortion:
        """Imperceptibility of all classes together."""
        return self.protected.change(_COMPARED)

    def examples(self) -> list[dict[str, Any]]:
        """An image of each class to look at, as a report keeps them."""
        labels = np.asarray(self.protected.targets)
        first = np.sort(np.unique(labels, return_index=True)[1])[:_EXAMPLES].tolist()
        examples = []
        for index, pair in zip(first, self.protected.pixel_pairs(first), strict=True):
            change = compare(*pair)
            pictures = [to_pil(pixels) for pixels in triple(*pair)]
            for picture in pictures:
                picture.thumbnail((_SHOWN, _SHOWN))
            shown = dict(
                zip(("clean", "change", "protected"), map(png_base64, pictures), strict=True)
            )
            label = class_name(self.dataset, int(labels[index]))
            examples.append({"label": label} | plain_change(change) | shown)
        return examples


def class_name(dataset: dict[str, Any], label: int) -> str:
    """The name of a class, or its number."""
    return f"class {label}" if dataset["classes"] is None else str(dataset["classes"][label])


def plain_change(change: Distortion) -> dict[str, Any]:
    """For JSON, which knows no infinity."""
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
    """Reads everything once; arguments are those of :func:`audit`.

    Raises:
        ValueError: What was given does not belong together.
        UnknownImageError: An image is not among those that the perturbation was fitted on.
    """
    if isinstance(test, tuple):
        test = RawDataset(test).originals[0]
    protected, tested = _divide(dataset, perturbation, test, held_out)
    size = _image_size(image_size, protected)
    # The clean images go through the perturbation's resize and crop too.
    clean = protected.with_fraction(0)
    learned = read_images(clean, size, progress=progress)
    held = read_images(tested, size, progress=progress)
    _check(learned, held)
    read_images(protected, size, progress=progress)  # so that every image's row was looked up
    keys = _keys(protected.base)
    overlap = len(np.intersect1d(keys, held.keys))
    if overlap:
        logger.warning(
            "%d of the test images are among the training images: expect accuracies that are too "
            "high",
            overlap,
        )
    told = {
        "name": RawDataset(protected.base).name,
        "images": len(learned.labels),
        "classes": learned.classes,
        "num_classes": learned.num_classes,
        "digest": learned._replace(keys=keys).digest,
        "fraction": protected.fraction,
    }
    told_of_test = {
        "name": held.name,
        "images": len(held.labels),
        "digest": held.digest,
        "chance": int(held.labels.bincount().max()) / len(held.labels),
        "held_out": held_out if test is None else None,
        "overlap": overlap,
    }
    return AuditData(protected, clean, tested, size, told, told_of_test)


def _divide(
    dataset: Any, perturbation: Perturbation | None, test: Any, held_out: float
) -> tuple[ProtectedDataset, Any]:
    """The protected training images, and what to test on."""
    options: dict[str, Any] = {}
    if isinstance(dataset, ProtectedDataset):
        if perturbation is not None and perturbation.digest != dataset.perturbation.digest:
            raise ValueError(
                "expected no perturbation beside a ProtectedDataset, which has its own; got another"
            )
        perturbation = dataset.perturbation
        options = {name: getattr(dataset, name) for name in _OPTIONS}
        dataset = dataset.base
    if perturbation is None:
        raise ValueError("expected a perturbation beside a clean dataset, got None")
    if test is not None:
        if hasattr(test, "__len__") and not len(test):
            raise ValueError("expected a test set with images, got an empty one")
        refuse_protected(test)
        return ProtectedDataset(dataset, perturbation, **options), test
    if options.get("align") == "index":
        raise ValueError('expected test= with align="index", whose images cannot be divided')
    if isinstance(dataset, tuple):
        dataset = RawDataset(dataset).originals[0]
    kept, held = split(dataset, held_out)
    return ProtectedDataset(Subset(dataset, kept), perturbation, **options), Subset(dataset, held)


def split(dataset: Any, held_out: float) -> tuple[list[int], list[int]]:
    """Indices to train on and to test on, by a hash of each image's content.

    The order of the images does not matter, and copies of an image are on the same side.

    Raises:
        ValueError: One side would be empty.
    """
    if not 0 < held_out < 1:
        raise ValueError(f"expected a share to hold out between 0 and 1, got {held_out}")
    keys = _keys(dataset)
    ranks = np.array([_rank(key) for key in keys.tolist()], dtype=np.uint64)
    held = ranks < np.sort(ranks)[round(held_out * (len(ranks) - 1))]
    if held.all() or not held.any():
        raise ValueError(
            f"expected enough images to hold out {held_out:.0%} of them, got {len(keys)}; pass "
            f"test="
        )
    return np.flatnonzero(~held).tolist(), np.flatnonzero(held).tolist()


def _rank(key: int) -> int:
    digest = hashlib.blake2b(key.to_bytes(8, "little"), digest_size=8, person=b"held out")
    return int.from_bytes(digest.digest(), "little")


def _keys(dataset: Any) -> np.ndarray[Any, np.dtype[np.uint64]]:
    raw = RawDataset(dataset)
    keys = np.empty(len(raw), dtype=np.uint64)
    for batch in raw.batches(range(len(raw))):
        keys[batch.indices] = image_keys(batch.pixels)
    return keys


def _image_size(
    image_size: int | Sequence[int] | None, protected: ProtectedDataset
) -> tuple[int, ...] | None:
    asked, own = ResizeCrop.parse(image_size), protected.perturbation.fit_size
    if own is not None and asked not in (None, own) and not protected.full_size:
        raise ValueError(
            f"expected the image_size of the perturbation, {tuple(own)}, got {tuple(asked or ())}"
        )
    size = asked or own
    return None if size is None else tuple(size)


def _check(learned: ImageStore, tested: ImageStore) -> None:
    check_pair(learned, tested)
    if learned.num_classes < 2 or len(learned.labels) < learned.num_classes:
        raise ValueError(
            f"expected at least two classes and an image of each to train on, got "
            f"{len(learned.labels)} images of {learned.num_classes} classes"
        )
