"""What the classes of a dataset are called, by their indices.

Datasets name their classes in many ways. Only names that are certain are taken: where they are not,
there are none, and classes go by their indices.
"""

from __future__ import annotations

import operator
import unicodedata
from collections.abc import Iterable, KeysView, Mapping, Sequence, ValuesView
from pathlib import Path
from typing import Any, TypeAlias, TypeGuard

from torchvision.datasets import Caltech101, Caltech256, INaturalist, OxfordIIITPet
from torchvision.datasets.folder import DatasetFolder

from .export_marker import export_at

_Names: TypeAlias = dict[int, tuple[str, ...]]  # of each class, by its index
LABEL_NAMES = ("targets", "labels", "_labels")  # of attributes that list the labels of items
MOST_CLASSES = 1 << 20  # what is not below it is no class index


def class_names(dataset: Any) -> list[str] | None:
    """Names of a dataset's classes in index order, or None if they are unknown.

    They are taken from its ``class_to_idx`` or, if that agrees or is missing, from its ``classes``:
    a list, a dict from index to name or from name to index, or a method that returns one of these.
    Several names of a class are joined by commas, and a missing name becomes, for example, ``class
    3``. Folders of an export have the original names of their classes.
    """
    listed, indices = _stated(dataset)
    by_index = _by_index(indices) if isinstance(indices, Mapping) else None
    found = _listed(listed)
    if found is not None and by_index is None and len(found) == len(dataset):
        found = _of_items(found, dataset)
    if found is None or (by_index is not None and not _agree(found, by_index)):
        found = by_index
    return None if found is None else _before_export(dataset, _in_order(found))


def given_names(classes: Any) -> list[str]:
    """Class names in index order, as a user gives them: a list, or a dict as ``class_to_idx``.

    Raises:
        TypeError: Which name belongs to which index would be a guess.
    """
    found = _listed(classes)
    if found is None:
        raise TypeError(
            f"expected classes to be a list of names in index order, or a dict of indices by name, "
            f"got {type(classes).__name__} {classes!r:.60}"
        )
    return _in_order(found)


def common_names(datasets: Sequence[Any], named: Sequence[list[str] | None]) -> list[str] | None:
    """The class names shared by all parts of a dataset; None if a part has none.

    Raises:
        ValueError: The parts' class names or their order differ.
    """
    listed = [found for x in datasets if (found := _listed(_stated(x)[0])) is not None]
    if None in named:
        return None
    if any(names != named[0] for names in named) or any(found != listed[0] for found in listed):
        raise ValueError(
            "expected the parts of a ConcatDataset to have the same classes in the same order, "
            "got different ones; give them the same class_to_idx"
        )
    return named[0]


def _stated(dataset: Any) -> tuple[Any, Any]:
    """What a dataset says of its classes and their indices."""
    if isinstance(dataset, (Caltech101, Caltech256)):
        return dataset.categories, None
    if isinstance(dataset, OxfordIIITPet) and dataset._target_types == ["binary-category"]:
        return dataset.bin_classes, dataset.bin_class_to_idx
    if isinstance(dataset, INaturalist) and len(dataset.target_type) == 1:
        kind = dataset.target_type[0]
        full = kind == "full"
        return (dataset.all_categories, None) if full else (None, dataset.categories_index[kind])
    listed, indices = _asked(dataset, "classes"), _asked(dataset, "class_to_idx")
    info = getattr(dataset, "__dict__", {}).get("info")  # of MedMNIST
    if listed is None and indices is None and isinstance(info, Mapping):
        labels = info.get("label")
        if isinstance(labels, Mapping) and "multi-label" not in str(info.get("task")):
            listed = labels
    return listed, indices


def _asked(dataset: Any, name: str) -> Any:
    """An attribute, or what a method of that name returns; None where there is none."""
    try:
        value = getattr(dataset, name, None)
        return value() if callable(value) else value
    except Exception:  # code of the dataset's own, whose names are then unknown
        return None


def _listed(value: Any) -> _Names | None:
    """Names by index from ``classes``."""
    if isinstance(value, Mapping):
        numbers = all(class_index(part) is not None for pair in value.items() for part in pair)
        return None if numbers else _by_index(value)
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, (KeysView, ValuesView)):
        value = list(value)
    if not isinstance(value, Sequence) or isinstance(value, (str, bytes)):
        return None
    found: _Names = {}
    for index, entry in enumerate(value):
        names = _synonyms(entry)
        if names is not None:
            found[index] = names
        elif entry is not None:  # which stands for an index without a name
            return None
    return found or None


def _of_items(listed: _Names, dataset: Any) -> _Names | None:
    """Names by index from a list as long as the dataset, which may name the class of each item."""
    if len(set(listed.values())) == len(listed):
        return listed  # or each item is a class of its own
    stated = (_asked(dataset, name) for name in LABEL_NAMES)
    labels = next((x for x in stated if hasattr(x, "__len__") and len(x) == len(listed)), None)
    if labels is None:
        return None
    of_items: _Names = {}
    for item, label in enumerate(labels):
        index = class_index(label)
        if index is None:
            return None
        if of_items.setdefault(index, listed[item]) != listed[item]:
            return listed  # items of one class cannot have two names
    apart = len(set(of_items.values())) == len(of_items)
    return of_items if apart or of_items == listed else None


def _by_index(value: Mapping[Any, Any]) -> _Names | None:
    """Names by index from a dict of indices by name, or of names by index."""
    indices = [class_index(entry) for entry in value.values()]
    entries: Iterable[Any] = value
    if None in indices:
        indices = [class_index(int(key) if _is_number(key) else key) for key in value]
        entries = value.values()
    found: _Names = {}
    for index, entry in zip(indices, entries, strict=True):
        names = _synonyms(entry)
        if index is None or names is None:
            return None
        found[index] = found.get(index, ()) + names
    return found or None


def _is_number(key: Any) -> bool:
    """Whether it is a number that JSON made a string, as it does with keys."""
    return isinstance(key, str) and key.isascii() and key.isdecimal() and len(key) < 8


def class_index(value: Any) -> int | None:
    """A class index of any integer type."""
    try:
        index = -1 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        return None
    return index if 0 <= index < MOST_CLASSES else None


def _synonyms(entry: Any) -> tuple[str, ...] | None:
    """The names of a class, which may have several."""
    names = []
    for part in entry if isinstance(entry, (tuple, list)) else (entry,):
        if isinstance(part, bytes):
            names.append(part.decode("utf-8", "surrogateescape"))
        elif isinstance(part, str):
            names.append(str(part))
        elif class_index(part) is not None:
            names.append(str(int(part)))
        else:
            return None
    return tuple(names) or None


def _agree(listed: _Names, by_index: _Names) -> bool:
    """Whether a list has the names of a ``class_to_idx`` at their indices, and maybe others.

    Of a name that two classes have, ``class_to_idx`` gives one index only: the last.
    """
    index_of = {name: index for index, names in by_index.items() for name in names}
    for index, names in listed.items():
        for name in names:
            stated = index_of.get(name, index)
            if stated < index or (stated > index and name not in listed.get(stated, ())):
                return False
    shared = 0
    for index, own in by_index.items():
        names = listed.get(index, ())
        if set(own) & set(names):
            shared += 1
        elif not names or any(name in index_of for name in names):
            return False  # else the class was renamed
    return shared > 0


def _in_order(found: _Names) -> list[str]:
    """A name for each index up to the highest."""
    names = {index: ", ".join(dict.fromkeys(entry)) for index, entry in found.items()}
    taken = set(names.values())
    for index in range(max(names)):
        if index not in names:
            names[index] = f"class {index}"
            while names[index] in taken:
                names[index] += "_"
    return [names[index] for index in range(len(names))]


def _before_export(dataset: Any, names: list[str]) -> list[str] | None:
    """What classes were called before an export named its folders; None if they had no names."""
    root = getattr(dataset, "root", None)
    if not isinstance(dataset, DatasetFolder) or not isinstance(root, (str, Path)):
        return names
    described = export_at(root) or {}
    folders, classes = described.get("folders"), described.get("classes")
    if not _are_names(folders):
        return names
    if classes is None and names == folders:
        return None
    if not _are_names(classes) or len(classes) != len(folders):
        return names
    before = dict(zip(map(composed, folders), classes, strict=True))
    return [before.get(composed(name), name) for name in names]


def _are_names(value: Any) -> TypeGuard[list[str]]:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def composed(name: str) -> str:
    """A uniform spelling of accented letters, in which file systems differ."""
    return unicodedata.normalize("NFC", name)
