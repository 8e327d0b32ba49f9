"""Photos of one kind together with other pictures, from which they are told apart."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from ..data.fingerprint import digest_of_images
from ..data.image_folder import FlatFolder, ImageFolder
from ..methods.base import Method
from ..perturbation.kinds.base import Kind
from ..perturbation.perturbation import Perturbation

_MOST, _LEAST = 2, 64  # others for each photo, and in all where photos are few


def joined(photos: ImageFolder, others: ImageFolder) -> ImageFolder:
    """The photos, followed by other pictures as separate classes.

    If there are many others, an evenly spaced selection of twice as many as there are photos is
    used.
    """
    count = min(len(others), max(_LEAST, _MOST * len(photos)))
    places = np.unique(np.linspace(0, len(others) - 1, count).astype(int)).tolist()
    chosen = [others.samples[place] for place in places]
    known = sorted({label for _, label in chosen})
    first = len(photos.classes)
    names = ["others" if isinstance(others, FlatFolder) else others.classes[n] for n in known]
    both = copy.copy(photos)
    both.classes = _apart(photos.classes, names)
    both.class_to_idx = {name: index for index, name in enumerate(both.classes)}
    more = [(path, first + known.index(label)) for path, label in chosen]
    both.samples = both.imgs = [*photos.samples, *more]
    both.targets = [label for _, label in both.samples]
    return both


def _apart(names: list[str], more: list[str]) -> list[str]:
    found = list(names)
    for name in more:
        while name in found:
            name = f"other {name}"
        found.append(name)
    return found


def of_photos(method: Method, photos: Any) -> Perturbation:
    """Only what was learned for the photos, which come first among the fitted images.

    Class-wise parts on top of the rows keep the photos' classes, which also come first.
    """
    rows, *on_top = method.perturbation_.parts
    assert rows.keyed
    classes = list(photos.classes)
    keys, labels = rows.tensors["keys"][: len(photos)], np.asarray(photos.targets)
    known = {
        "classes": classes,
        "num_classes": len(classes),
        "source": {
            "name": type(photos).__name__,
            "images": len(photos),
            "digest": digest_of_images(keys, labels),
        },
    }
    made = _first_of(rows, len(photos), known, labels=labels)
    return made.below([_first_of(part, len(classes), known).parts[0] for part in on_top])


def _first_of(part: Kind, count: int, known: dict[str, Any], **own: Any) -> Perturbation:
    """A part's rows, or what it has by class, up to ``count``; of what is ``known``."""
    tensors = {name: np.asarray(tensor[:count]) for name, tensor in part.tensors.items()} | own
    return Perturbation.of_kind(tensors, part.config | known)
