"""Photos of one kind together with other pictures, from which they are told apart."""

from __future__ import annotations

import copy
import filecmp
from collections import defaultdict
from pathlib import Path
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

    Others that are the photos themselves are left out. If there are many others, an evenly spaced
    selection of twice as many as there are photos is used.

    Raises:
        ValueError: All others are the photos themselves.
    """
    found = _without(photos, others)
    count = min(len(found), max(_LEAST, _MOST * len(photos)))
    places = np.unique(np.linspace(0, len(found) - 1, count).astype(int)).tolist()
    chosen = [found[place] for place in places]
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


def _without(photos: ImageFolder, others: ImageFolder) -> list[tuple[str, int]]:
    """The files of others and their labels, without files of the same bytes as a photo's."""
    own = defaultdict(list)
    for path, _ in photos.samples:
        own[_size(path)].append(path)
    found = [
        (path, label)
        for path, label in others.samples
        if not any(filecmp.cmp(path, photo, shallow=False) for photo in own[_size(path)])
    ]
    if not found:
        raise ValueError(
            "expected other pictures to tell the photos apart from, got only the photos "
            "themselves; choose different pictures"
        )
    return found


def _size(path: str) -> int | str:
    """Bytes of a file; of one that is not there, which is refused when it is read, its path."""
    try:
        return Path(path).stat().st_size
    except OSError:
        return path


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
