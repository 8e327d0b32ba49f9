"""What a protected dataset shows of the dataset below it: its transforms and its attributes."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import ConcatDataset, Dataset, Subset
from torchvision.datasets import VisionDataset

from ..data.class_names import LABEL_NAMES
from ..data.huggingface import is_hf_dataset
from ..data.items import ItemDataset
from ..data.raw import RawDataset
from .targets import fixed

# What leads to clean images or their files by these names; by others, if it is seen to do so.
_CLEAN = re.compile(
    r"_?(samples|readers?|imgs?|images?|data|tensors|pictures?|photos?|pixels|files?|paths?|loader|"
    r"file_?names?|(train|test)_data|(image|img|file|sample)_?(files?|paths?|names?)|rows)"
)
_LABELS = (*LABEL_NAMES, "classes", "class_to_idx")
_HELD_LABELS = re.compile(r"_?((train|test)_)?(targets|labels)")
_PARTS = ("indices", "dataset", "datasets")  # of a Subset or ConcatDataset
_READS = re.compile(
    r"(?!_?(n|num|number|count)_)(.*(load|read|open|fetch|decode|raw|item|image|img|sample|photo"
    r"|picture|example)|_?get$)"
)
_PICTURE = re.compile(r".\.(jpe?g|png|webp|bmp|gif|tiff?|ppm|pgm|avif|heic|npy|npz|h5)$", re.I)


class View(VisionDataset):
    """Readable and replaceable transforms, and access to attributes of the wrapped dataset."""

    base: Any

    def __init__(self, raw: RawDataset, root: Any) -> None:
        self._raw = raw
        self._chosen_transforms: Mapping[str, Any] = {}
        super().__init__(root=root)
        self._chosen_transforms = {}  # torchvision's constructor sets all three to None

    @property
    def transform(self) -> Any:
        """Transform of images; None if there is none or parts of the dataset differ."""
        return self._raw.applied("transform", self._chosen_transforms)

    @transform.setter
    def transform(self, transform: Any) -> None:
        self._choose("transform", transform)

    @property
    def target_transform(self) -> Any:
        """Transform of labels; None if there is none or parts of the dataset differ."""
        return self._raw.applied("target_transform", self._chosen_transforms)

    @target_transform.setter
    def target_transform(self, target_transform: Any) -> None:
        self._choose("target_transform", target_transform)

    @property
    def transforms(self) -> Any:
        """Joint transform of image and label; None if there is none or parts differ."""
        return self._raw.applied("transforms", self._chosen_transforms)

    @transforms.setter
    def transforms(self, transforms: Any) -> None:
        self._chosen_transforms = {"transforms": transforms}

    def _choose(self, name: str, transform: Any) -> None:
        """Replaces one of the pair; the other is that of ``transforms``, where that was set."""
        kept = dict(self._chosen_transforms)
        if "transforms" in kept:
            kept = {"transform": self.transform, "target_transform": self.target_transform}
        self._chosen_transforms = {**kept, name: transform}

    def __setattr__(self, name: str, value: Any) -> None:
        fixed = _CLEAN.fullmatch(name) or name in _LABELS or self._is_part_of_base(name)
        if "base" in self.__dict__ and fixed:
            raise AttributeError(
                f"expected {name!r} to be set on the wrapped dataset before it is protected, "
                f"because a protected dataset reads its images and labels from there"
            )
        if not self._is_of_base(name):
            super().__setattr__(name, value)
        elif callable(getattr(self._below(), name)):
            raise AttributeError(
                f"expected {name!r} to be set on the wrapped dataset, protected.base.{name} = …; a "
                f"protected dataset itself has transform, target_transform and transforms"
            )
        else:
            setattr(self._below(), name, value)

    def _is_part_of_base(self, name: str) -> bool:
        """Whether the images of a wrapped ``Subset`` or ``ConcatDataset`` depend on it."""
        parted = isinstance(self._below(), (Subset, ConcatDataset))
        return name in _PARTS and parted and not self._adds_its_own()

    def _adds_its_own(self) -> bool:
        return not type(self).__module__.startswith("unlearnable.")

    def _is_of_base(self, name: str) -> bool:
        """Whether the wrapped dataset has an attribute that this one, once made, does not."""
        own, below = self.__dict__, self._below()
        if "_changes" not in own or name in own or hasattr(type(self), name):
            return False
        if self._adds_its_own():
            return False
        return not isinstance(below, (tuple, Subset, ConcatDataset)) and hasattr(below, name)

    def _below(self) -> Any:
        base = self.__dict__.get("base")
        while isinstance(base, ItemDataset):
            base = base.dataset
        return base

    def __getattr__(self, name: str) -> Any:
        """An attribute of the wrapped dataset, unless it leads to clean images."""
        if name.startswith("__") or "base" not in self.__dict__ or hasattr(type(self), name):
            return object.__getattribute__(self, name)  # raises its own error
        base = self._below()
        there = not isinstance(base, tuple) and hasattr(base, name)
        value = getattr(base, name) if there else None
        if _CLEAN.fullmatch(name) or _leads_to_images(value, name, base):
            raise AttributeError(
                f"expected an attribute that does not lead to clean images, got {name!r}, which a "
                f"protected dataset does not have; use protected[i] or to_tensors() for images, "
                f"targets for labels, and base for the clean dataset"
                + "; for methods such as map, use to_hf_dataset() first"
                * is_hf_dataset(base)
            )
        if not there:
            raise AttributeError(
                f"{type(self).__name__!r} object has no attribute {name!r}, nor does the "
                f"{type(base).__name__} that it wraps"
            )
        held = _HELD_LABELS.fullmatch(name) and isinstance(value, (list, np.ndarray, Tensor))
        return fixed(value) if held else value


def _leads_to_images(value: Any, name: str, base: Any) -> bool:
    """Whether a value is a dataset, pixels or files of pictures, or a method that may give some."""
    if isinstance(value, Dataset) or is_hf_dataset(value):
        return True
    if isinstance(value, (np.ndarray, Tensor)):
        bytes_ = value.dtype in (np.uint8, torch.uint8)
        return value.ndim > 3 or (bytes_ and value.ndim > 1 and math.prod(value.shape[1:]) > 63)
    if isinstance(value, Mapping):
        value = [*value.values()][:4]
    if isinstance(value, (list, tuple)):
        return any(_is_picture(part) or _leads_to_images(part, name, base) for part in value[:4])
    if callable(value) and getattr(value, "__self__", None) is base:
        return is_hf_dataset(base) or bool(_READS.match(name))
    return isinstance(value, (Image.Image, bytes))


def _is_picture(value: Any) -> bool:
    if isinstance(value, (str, os.PathLike)):
        return bool(_PICTURE.search(os.fsdecode(value)))
    return isinstance(value, (Image.Image, bytes))
