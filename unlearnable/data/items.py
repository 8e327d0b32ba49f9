"""Where image and label lie in the items of a dataset: found where that is clear, or said."""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from .class_names import given_names
from .image import pixels_of

Key = str | int | tuple[str | int, ...]
"""A key, position or attribute, or several that lead inwards one after another."""
Label = Key | Callable[[Any], int] | None
Classes = Sequence[str] | Mapping[Any, Any]
_NAMES = {
    "image": ("image", "images", "img", "imgs", "picture", "photo"),
    "label": ("label", "labels", "target", "targets", "y"),
}


class Whole:
    """Stands for the item itself, in place of a key or a position."""

    def __repr__(self) -> str:
        return "the item"

    def __reduce__(self) -> str:
        return "ITEM"


ITEM = Whole()


class Within(tuple[Any, ...]):
    """Keys and positions that lead inwards one after another; a plain tuple may be a key itself."""

    __slots__ = ()


class Layout(NamedTuple):
    """Where image and label are in an item."""

    image: Any = 0  # key, position or path of them; ITEM for the item itself
    label: Any = 1  # key, position, path, function of the item, or None

    @property
    def is_pair(self) -> bool:
        """Whether items are read as pairs (image, label)."""
        return (self.image, self.label) == (0, 1)

    def label_of(self, item: Any) -> Any:
        """The class index of an item as returned by the dataset; None without labels."""
        if self.label is None or callable(self.label):
            return None if self.label is None else self.label(item)
        return field_of(item, self.label)

    def counted(self, item: Any) -> Layout:
        """The same with positions counted from the front of an item, also those given as -1."""
        if not isinstance(item, (tuple, list)):
            return self
        return Layout(*(k + len(item) if isinstance(k, int) and k < 0 else k for k in self))


def _inwards(key: Any) -> Any:
    if not isinstance(key, tuple):
        return key
    return Within(key) if len(key) > 1 else key[0]


def is_key(key: Any) -> bool:
    """Whether it names a field of an item, directly or through others."""
    if isinstance(key, tuple):
        return len(key) > 0 and all(map(is_key, key))
    return isinstance(key, (str, int)) and not isinstance(key, bool)


def field_of(item: Any, key: Any) -> Any:
    """The value at a key or position of an item, or of an attribute, or at a path of such."""
    if key is ITEM:
        return item
    if isinstance(key, Within):
        return functools.reduce(field_of, key, item)
    if isinstance(key, str) and not isinstance(item, Mapping):
        return getattr(item, key)
    return item[key]


def named_field(name: str, item: Any, key: Any, what: str, index: int) -> Any:
    """The value at a key, position or path that was given for the items of a dataset.

    Raises:
        TypeError: There is none, or it would be a row of an image's pixels.
    """
    value = item
    for step in key if isinstance(key, Within) else (key,):
        if isinstance(step, int) and _has_pixels(value):
            advice = "pass image=None" if value is item else "end the path before it"
            raise TypeError(
                f"expected {what} at {key!r} in the items of {name}, got an image of which that is "
                f"a row of pixels for item {index}; {advice}"
            )
        try:
            value = field_of(value, step)
        except (AttributeError, IndexError, KeyError, TypeError) as error:
            raise TypeError(
                f"expected {what} at {key!r} in the items of {name}, got "
                f"{type(error).__name__}: {error} for item {index}"
            ) from error
    return value


def with_field(item: Any, key: Any, value: Any) -> Any:
    """The same item, of the same type, with a new value at a key, position or path."""
    if key is ITEM:
        return value
    if isinstance(key, Within):
        for depth in range(len(key) - 1, -1, -1):
            value = with_field(field_of(item, Within(key[:depth])), key[depth], value)
        return value
    if isinstance(item, tuple):
        names: Any = getattr(item, "_fields", None)
        if names:
            return item._replace(**{key if isinstance(key, str) else names[key]: value})  # type: ignore[attr-defined]
        place = key % len(item)
        return type(item)((*item[:place], value, *item[place + 1 :]))
    if isinstance(key, str) and not isinstance(item, Mapping) and dataclasses.is_dataclass(item):
        return dataclasses.replace(item, **{key: value})  # type: ignore[type-var]
    other = item.clone() if isinstance(item, Tensor) else copy.copy(item)  # copies share memory
    if isinstance(key, str) and not isinstance(item, Mapping):
        setattr(other, key, value)
    else:
        other[key] = value
    return other


class ItemDataset(Dataset[Any]):
    """The result of :func:`from_items`: the dataset's items, with the location of image and label.

    Attributes:
        dataset: The original dataset.
        layout: Where image and label are.
        classes: Names of the classes, or None to use those of the dataset.
    """

    def __init__(self, dataset: Any, image: Any, label: Label, classes: Classes | None) -> None:
        self.dataset = dataset
        self.layout = Layout(ITEM if image is None else _inwards(image), _inwards(label))
        self.classes = None if classes is None else given_names(classes)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        return self.dataset[index]


def from_items(
    dataset: Any,
    image: Key | None = 0,
    label: Label = 1,
    *,
    classes: Classes | None = None,
) -> ItemDataset:
    """Declares where image and label are in a dataset's items; everything else is passed through.

    Protected items keep their type, and only the image is replaced. This function is not needed for
    pairs (image, label), nor for dicts and longer tuples in which image and label are obvious.

    Args:
        dataset: Any map-style dataset, or a Hugging Face dataset, whose items stay dicts of all
            columns. It is not modified.
        image: Key, position or attribute of the image, or a tuple of them for one that lies deeper,
            such as ``("inputs", "pixels")``; None if the item itself is the image.
        label: The same for the class index; or a function from the item, before any transform, to
            the class index, such as ``one_hot_index`` or one of several
            attributes; or None for a dataset without labels, which methods that need no labels
            accept. The item's own field does not change. With spawned worker processes, a function
            must be picklable.
        classes: Names of the classes in index order, or a dict such as ``class_to_idx``. By default
            those of the dataset, or none if ``label`` is a function.

    Returns:
        A dataset of the same items.

    Example:
        >>> from unlearnable import RandomNoise
        >>> from unlearnable.datasets import Shapes
        >>> rows = [{"photo": image, "kind": label} for image, label in Shapes(size=4)]
        >>> dataset = from_items(rows, image="photo", label="kind")
        >>> protected = RandomNoise().fit(dataset, progress=False).protect(dataset)
        >>> sorted(protected[0]), protected[0]["photo"].size
        (['kind', 'photo'], (32, 32))
    """
    if image is not None and not is_key(image):
        raise TypeError(f"expected a key, a position or a tuple of them as image, got {image!r}")
    if not (label is None or callable(label) or is_key(label)):
        raise TypeError(
            f"expected a key, a position, a tuple of them, a function of the item or None as "
            f"label, got {label!r}"
        )
    return ItemDataset(dataset, image, label, classes)


def find_layout(
    name: str, samples: Mapping[int, Any], listed: Sequence[Any] | None = None
) -> Layout:
    """Finds where image and label are, from sample items of a dataset by index.

    Args:
        name: Name of the dataset's class, for messages.
        samples: Items without transforms.
        listed: Labels that the dataset lists separately.

    Raises:
        TypeError: It is ambiguous; the message says how to name them.
    """
    item = next(iter(samples.values()))
    if isinstance(item, (tuple, list)) and len(item) == 2 and not hasattr(item, "_fields"):
        return Layout()
    fields = fields_of(item)
    if not fields:
        image = "None" if _is_image(item) else "…"
        raise _unclear(name, item, "pairs (image, label)", f"(dataset, image={image}, label=…)")
    names = _NAMES["image"] if isinstance(fields[0], str) else ()
    images = [key for key in fields if key in names or _is_image(field_of(item, key))]
    if len(images) != 1:
        inside = "…" if images else _deeper(item, fields)
        call = f"(dataset, image={inside}, label=…)"
        call += (
            "; only that image is protected then, so for pairs or triplets of images that need it, "
            "protect the dataset that they are taken from"
        ) * bool(images)
        raise _unclear(name, item, "one image in each item", call, images)
    labels = _labels(fields, samples, listed, images[0])
    if len(labels) != 1:
        raise _unclear(name, item, "one label in each item", "(dataset, image=…, label=…)", labels)
    return Layout(images[0], labels[0])


def _deeper(item: Any, fields: list[Any]) -> str:
    """The path of the only image one level further inside, for messages."""
    paths = [Within((key, inner)) for key in fields for inner in fields_of(field_of(item, key))]
    found = [path for path in paths if _is_image(field_of(item, path))]
    return repr(tuple(found[0])) if len(found) == 1 else "…"


def _labels(
    fields: list[Any], samples: Mapping[int, Any], listed: Sequence[Any] | None, image: Any
) -> list[Any]:
    """Keys of fields that may be the label: by name, or integers that do not count the items."""
    if isinstance(fields[0], str):
        return [key for key in fields if key in _NAMES["label"] and key != image]
    found = []
    for key in fields:
        values = {index: _integer(field_of(item, key)) for index, item in samples.items()}
        # First or last and equal to the index: it counts the items.
        counts = key in (fields[0], fields[-1]) and len(samples) > 1
        counts = counts and all(value == index for index, value in values.items())
        if None not in values.values() and not counts:
            found.append(key)
    if len(found) > 1 and listed is not None:
        agree = [
            key
            for key in found
            if all(_integer(field_of(item, key)) == listed[i] for i, item in samples.items())
        ]
        return agree or found
    return found


def fields_of(item: Any) -> list[Any]:
    """Keys, positions or names of the fields of an item; none if it is no container."""
    if isinstance(item, Mapping):
        return list(item)
    if isinstance(item, (tuple, list)):
        return list(getattr(item, "_fields", range(len(item))))
    if dataclasses.is_dataclass(item):
        return [field.name for field in dataclasses.fields(item)]
    return []


def _is_image(value: Any) -> bool:
    try:
        pixels_of(value)
    except TypeError:
        return False
    except ValueError:  # an image of a mode that is refused with a reason
        pass
    return True


def _has_pixels(value: Any) -> bool:
    """Whether positions in it are rows or columns of pixels, also of an image that is refused."""
    if isinstance(value, np.ndarray) and value.ndim == 3 and value.shape[-1] <= 4:
        return True
    return _is_image(value)


def _integer(value: Any) -> int | None:
    if isinstance(value, (Tensor, np.ndarray, np.generic)) and value.ndim == 0:
        value = value.item()
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _unclear(
    name: str, item: Any, expected: str, call: str, found: Sequence[Any] | None = None
) -> TypeError:
    got = f"a {type(item).__name__}"
    if isinstance(item, (tuple, list, Mapping)) or dataclasses.is_dataclass(item):
        fields = [f"{key}: {type(field_of(item, key)).__name__}" for key in fields_of(item)]
        got += f" of {', '.join(fields)}" if fields else " of nothing"
    if found is not None:
        some = ", ".join(map(str, found))
        got = f"{f'several ({some})' if found else 'none'} in {got}"
    return TypeError(
        f"expected {name} to have {expected}, got {got}; name image and label with "
        f"unlearnable.from_items{call}"
    )
