"""What learning and writing cost on this machine, measured on a few of the photos."""

from __future__ import annotations

import contextlib
import io
import math
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from ..data.cache import read_images
from ..data.image import pixels_of, to_pil
from ..data.image_folder import Survey, file_of, survey_folder
from ..data.photo import load_photo
from ..engine.device import pick_device, usable_cores
from ..engine.memory import bytes_per_image
from ..engine.models import build_model
from ..engine.precision import choose_precision, measure_pace
from ..perturbation.perturbation import Perturbation
from ..protected.export.encoding import Encoding
from ..protected.export.writing import BESIDE

_LOOKED_AT = 16  # photos
_FAST = ("tiny",)  # networks that are measured at the size of photos
_MEASURED_AT = 96  # pixels, for the others, whose time is taken to grow with the area
_TRIED = 1000  # pixels of the part of a photo that writing is measured on, along each axis
_BESIDE = 1.75  # times the network's passes alone: crops, steps and masks
PROGRAM = 0.6e9  # bytes that the program takes before it reads a photo
_OPEN = 26  # bytes for each pixel of the photo that is written
_KEPT = 2  # times what a batch keeps in evaluation mode
_INPUTS = 6  # times a batch of images in float32: as they are seen, what is added, and gradients


class Learning(NamedTuple):
    """The cost of one network pass over one image.

    Attributes:
        seconds: Time of a forward and backward pass at ``size`` pixels.
        size: Side of the images that were measured.
        bytes: Memory kept for the backward pass, per image.
    """

    seconds: float
    size: int
    bytes: int

    def of_passes(self, passes: int, size: int) -> float:
        """Seconds that this many passes take at another size."""
        return passes * self.seconds * (size / self.size) ** 2 * _BESIDE

    def memory(self, images: int, batch: int, size: int, limit: float) -> int:
        """Bytes needed while learning: the program, the images with their rows, and one batch."""
        kept = min(_KEPT * batch * self.bytes * (size / self.size) ** 2, limit)
        return int(PROGRAM + (7 * images + 12 * _INPUTS * batch) * size**2 + kept)


def measure_learning(
    network: str | nn.Module, dataset: Any, size: int, device: str, precision: str
) -> Learning:
    """Times a network on some of the photos for about a second.

    Args:
        network: A name, or a module that takes images (B, 3, H, W).
        dataset: The photos.
        size: The largest side considered.
        device: As in :meth:`Method.fit`.
        precision: As in :meth:`Method.fit`.
    """
    place = pick_device(device)
    if place.type == "cpu" and network not in _FAST:
        size = min(size, _MEASURED_AT)
    places = np.unique(np.linspace(0, len(dataset) - 1, _LOOKED_AT).astype(int)).tolist()
    with _naming_all_bad(dataset):
        store = read_images(torch.utils.data.Subset(dataset, places), size)
    images, labels = store.images.to(place).float() / 255, store.labels.to(place)
    model = network
    if isinstance(model, str):
        model = build_model(model, max(2, store.num_classes), images.shape[1], seed=0)
    model = model.to(place)
    chosen = precision
    if precision == "auto":
        chosen = choose_precision(model, images, labels).name
    pace = measure_pace(model, images, labels, chosen)
    seconds = math.nan if pace is None else (pace.training + pace.search) / 2
    return Learning(seconds, size, bytes_per_image(model, images[:2]))


@contextlib.contextmanager
def _naming_all_bad(dataset: Any) -> Iterator[None]:
    """Around reading some of the photos: where one is damaged, an error names all such ones."""
    try:
        yield
    except (OSError, ValueError):
        survey_folder(dataset)
        raise


class Writing(NamedTuple):
    """The cost of writing the copies.

    Attributes:
        seconds: Time for all photos.
        memory: Bytes for the program and the largest photo.
        disk: Bytes that the copies take as PNG files.
    """

    seconds: float
    memory: int
    disk: int = 0


def measure_writing(dataset: Any, survey: Survey, visibility: str | None) -> Writing:
    """Times decoding a photo from the middle of the list, and changing and writing part of it."""
    place = len(dataset) // 2
    start = time.thread_time()
    path = file_of(dataset, place)
    with _naming_all_bad(dataset):
        whole = pixels_of(load_photo(path) if path is not None else dataset[place][0])
    read = (time.thread_time() - start) / whole[0].size
    pixels = whole[:, :_TRIED, :_TRIED]
    change = _any_change(len(pixels), min(224, *pixels.shape[1:])).with_visibility(visibility)
    start = time.thread_time()
    copy = change.apply(pixels, 0, full_size=True)
    changed = (time.thread_time() - start) / pixels[0].size
    start, file = time.thread_time(), io.BytesIO()
    Encoding.of("png", None).save(to_pil(copy), file, None)
    written = (time.thread_time() - start) / pixels[0].size
    whole_set = sum(width * height * count for (width, height), count in survey.sizes.items())
    largest = max(width * height for width, height in survey.sizes)
    both = read + changed + written
    if whole[0].size in BESIDE:
        both = max(read + changed, written, both / usable_cores())
    # Each photo is read twice: to learn, and to write its copy.
    disk = file.tell() * whole_set // pixels[0].size
    return Writing((read + both) * whole_set, int(PROGRAM + _OPEN * largest), disk)


def _any_change(channels: int, side: int) -> Perturbation:
    """Random signs of 8/255, which take as long as what is learned."""
    signs = np.random.default_rng(0).integers(0, 2, (1, channels, side, side), np.int8)
    config = {
        "method": "random signs",
        "kind": "additive",
        "granularity": "class-wise",
        "epsilon": 8 / 255,
        "norm": "Linf",
        "image_shape": [channels, side, side],
        "classes": None,
        "num_classes": 1,
        "source": {"name": "a trial", "images": 1},
        "preprocessing": {"fit": [side, side]},
    }
    return Perturbation((2 * signs - 1) * np.int8(8), config)
