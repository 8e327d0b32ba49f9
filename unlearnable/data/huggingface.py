"""Hugging Face datasets as (image, label) pairs. The package ``datasets`` is not imported."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from torch.utils.data import Dataset
from torchvision.datasets import VisionDataset
from torchvision.datasets.vision import StandardTransform

from .compare import random_state

Transforms: TypeAlias = Callable[[Any, Any], tuple[Any, Any]]
_SAMPLE = 16  # images that are asked for their files
_COLUMNS = {"image": ("Image", "image", "img"), "label": ("ClassLabel", "label", "labels")}


def from_hf(
    dataset: Any,
    image: str | None = None,
    label: str | None = None,
    *,
    transform: Callable[[Any], Any] | None = None,
    target_transform: Callable[[Any], Any] | None = None,
) -> HuggingFaceImages:
    """Converts a Hugging Face dataset to a torchvision dataset of (image, label) pairs.

    Wherever this package takes a dataset, it also takes a ``datasets.Dataset`` and converts it with
    this function. Call it only to name the columns or to set a transform.

    Args:
        dataset: A ``datasets.Dataset``, which is not modified. Its own transform, from
            ``set_transform`` or ``with_transform``, is removed and applied after the perturbation,
            to one image at a time and only to the image and label columns.
        image: Column of images. None takes the only column of type ``Image`` or named ``image`` or
            ``img``.
        label: Column of class indices. None takes the only column of type ``ClassLabel`` or named
            ``label`` or ``labels``.
        transform: Transform from a PIL image to what the model expects, as in torchvision.
        target_transform: Transform of the class index.

    Raises:
        TypeError: It is not a ``datasets.Dataset`` but, for example, a ``DatasetDict`` or an
            ``IterableDataset``.
        ValueError: A column is missing or ambiguous, labels are not class indices, or the dataset
            has a format, such as ``"torch"``.
    """
    refuse_collections(dataset)
    if not is_hf_dataset(dataset):
        raise TypeError(f"expected a datasets.Dataset, got a {type(dataset).__name__}")
    return HuggingFaceImages(dataset, image, label, transform, target_transform)


def is_hf_dataset(dataset: Any) -> bool:
    """Whether a dataset is a ``datasets.Dataset``."""
    return _is_a(dataset, "arrow_dataset", "Dataset")


def refuse_collections(dataset: Any) -> None:
    """Raises ``TypeError`` for dict and iterable datasets of the package ``datasets``."""
    if _is_a(dataset, "dataset_dict", "DatasetDict", "IterableDatasetDict"):
        splits = ", ".join(f'dataset["{name}"]' for name in dataset)
        raise TypeError(
            f"expected one dataset, got a {type(dataset).__name__} of several; pass one of them: "
            f"{splits}"
        )
    if _is_a(dataset, "iterable_dataset", "IterableDataset"):
        raise TypeError(
            "expected a map-style dataset, got an IterableDataset, whose images have no index; "
            "load it without streaming=True, or collect it: "
            "datasets.Dataset.from_list(list(dataset), features=dataset.features)"
        )


def _is_a(dataset: Any, module: str, *names: str) -> bool:
    known = [(f"datasets.{module}", name) for name in names]
    return any((part.__module__, part.__name__) in known for part in type(dataset).__mro__)


class HuggingFaceImages(VisionDataset):
    """The result of :func:`from_hf`.

    Attributes:
        classes: Names of the classes, or None if the label column has none.
        class_to_idx: Their indices.
        targets: Class indices of all images.
    """

    def __init__(
        self,
        dataset: Any,
        image: str | None,
        label: str | None,
        transform: Callable[[Any], Any] | None,
        target_transform: Callable[[Any], Any] | None,
    ) -> None:
        features = dataset.features
        self._image = _column(features, image, "image")
        self._label = _column(features, label, "label")
        if getattr(features[self._image], "decode", True) is False:
            raise ValueError(
                f"expected images in column {self._image!r}, got encoded ones; decode them with "
                f"dataset.cast_column({self._image!r}, datasets.Image())"
            )
        if str(getattr(features[self._label], "dtype", "")) in ("string", "large_string"):
            raise ValueError(
                f"expected class indices in column {self._label!r}, got strings; give each class "
                f"an index with dataset.class_encode_column({self._label!r})"
            )
        own = _own_transform(dataset, self._image, self._label)
        if own is not None and (transform is not None or target_transform is not None):
            raise ValueError(
                "expected one transform, got both transform= and set_transform; remove the latter "
                "with dataset.with_format(None)"
            )
        super().__init__(root=None, transform=transform, target_transform=target_transform)
        self._dataset = dataset
        self._rows = dataset.with_format(None).select_columns([self._image, self._label])
        names = getattr(features[self._label], "names", None)
        self.classes: list[str] | None = None if names is None else list(names)
        self.class_to_idx = names and {name: index for index, name in enumerate(names)}

    @property
    def transforms(self) -> Transforms | None:
        """Transforms of image and label: those set here, otherwise those of the dataset."""
        if self._joint is not None:
            return self._joint
        if self.transform is not None or self.target_transform is not None:
            return StandardTransform(self.transform, self.target_transform)
        # As it is now: set_transform changes the dataset itself.
        return None if self._off else _own_transform(self._dataset, self._image, self._label)

    @transforms.setter
    def transforms(self, transforms: Transforms | None) -> None:
        pair = isinstance(transforms, StandardTransform)  # VisionDataset sets it beside its parts
        self._joint = None if pair else transforms
        self._off = transforms is None and hasattr(self, "_dataset")

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        row = self._rows[index]
        image, label = row[self._image], row[self._label]
        transforms = self.transforms
        return (image, label) if transforms is None else transforms(image, label)

    @property
    def targets(self) -> list[Any]:
        return list(self._rows.select_columns([self._label])[:][self._label])

    @property
    def file_names(self) -> list[str]:
        """Names of the files that a sample of images was read from, as far as known."""
        return _file_names(self._rows, self._image)

    def extra_repr(self) -> str:
        return f"Columns: {self._image}, {self._label}"


class HuggingFaceRows(Dataset[Any]):
    """The unchanged rows of a Hugging Face dataset, as dicts of all columns.

    Attributes:
        classes: Always None, because the label column is not known here.
    """

    classes = None

    def __init__(self, dataset: Any, *, transformed: bool = True) -> None:
        self._dataset, self._transformed = dataset, transformed
        _check_format(dataset)
        self._rows = dataset.with_format(None)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Any:
        return (self._dataset if self._transformed else self._rows)[index]

    @property
    def file_names(self) -> list[str]:
        """Names of the files that a sample of images was read from, as far as known."""
        kinds = {name: type(kind).__name__ for name, kind in self._rows.features.items()}
        columns = [name for name, kind in kinds.items() if kind == "Image"]
        return [name for column in columns for name in _file_names(self._rows, column)]

    def without_transform(self) -> HuggingFaceRows:
        """The rows without the dataset's transform."""
        return HuggingFaceRows(self._dataset, transformed=False)

    def names_of(self, column: Any) -> list[str] | None:
        """The class names of a column, if it has some."""
        feature: Any = self._dataset.features
        for key in column if isinstance(column, tuple) else (column,):
            feature = feature.get(key) if isinstance(feature, Mapping) else None
        names = getattr(feature, "names", None)
        return None if names is None else list(names)

    @property
    def row_transform(self) -> Callable[[Any], Any] | None:
        """What the dataset's format does to a single row: selects columns, and transforms them."""
        state = _check_format(self._dataset)
        columns, all_columns = list(state["columns"]), state["output_all_columns"]
        transform = state["format_kwargs"].get("transform")
        if transform is None and (all_columns or len(columns) == len(self._dataset.features)):
            return None
        return functools.partial(_formatted_row, transform, columns, all_columns)


def _file_names(rows: Any, column: str) -> list[str]:
    kind = type(rows.features[column])
    named: list[Any] = list(getattr(rows.info, "download_checksums", None) or {})
    if hasattr(kind, "decode"):
        encoded = rows.select_columns([column]).cast_column(column, kind(decode=False))
        sample = range(0, len(encoded), max(1, len(encoded) // _SAMPLE))
        images = encoded.select(sample)[column]
        named += [image["path"] for image in images if image is not None]
    return [name for name in named if name]


def columns_of_rows(dataset: Any) -> tuple[str, str] | None:
    """Columns of image and label if the dataset's transform makes others, else None.

    Such rows, as used by trainers, are not pairs (image, label), even if they keep the image.
    """
    if _check_format(dataset)["type"] is None:
        return None
    image, label = (_column(dataset.features, None, what) for what in ("image", "label"))
    with random_state(1):
        made = set(dataset[0])
    return (image, label) if image not in made or made.difference(dataset.features) else None


def _formatted_row(
    transform: Any, columns: list[str], all_columns: bool, row: dict[str, Any]
) -> dict[str, Any]:
    made = {name: row[name] for name in columns}
    if transform is not None:
        result = transform({name: [value] for name, value in made.items()})
        made = {name: values[0] for name, values in result.items()}
    others = set(row).difference(columns) if all_columns else ()
    return made | {name: row[name] for name in row if name in others}


def _column(features: Any, given: str | None, what: str) -> str:
    listed = ", ".join(features)
    if given is not None:
        if given not in features:
            raise ValueError(f"expected a column {given!r}, got a dataset of the columns {listed}")
        return given
    type_name, *names = _COLUMNS[what]
    found = [n for n, f in features.items() if type(f).__name__ == type_name or n in names]
    if len(found) != 1:
        several = f"several: {', '.join(found)}" if found else f"none among {listed}"
        raise ValueError(
            f'expected one column of {what}s, got {several}; name it: from_hf(dataset, {what}="…")'
        )
    return found[0]


def _own_transform(dataset: Any, image: str, label: str) -> Transforms | None:
    """What ``set_transform`` gave the dataset, as a torchvision transform of image and label."""
    state = _check_format(dataset)
    if state["type"] is None:
        return None
    columns = [name for name in (image, label) if name in state["columns"]]
    transform = state["format_kwargs"]["transform"]
    return functools.partial(_transformed, transform, (image, label), columns)


def _check_format(dataset: Any) -> dict[str, Any]:
    """The dataset's format: none, or a transform."""
    state: dict[str, Any] = dataset.format
    if state["type"] not in (None, "custom"):
        raise ValueError(
            f'expected a dataset without a format, got the format "{state["type"]}", which '
            f"turns images into arrays before they can be protected; remove it with "
            f"dataset.with_format(None), and pass from_hf(dataset, transform=…) instead"
        )
    return state


def _transformed(
    transform: Any, names: tuple[str, str], columns: list[str], image: Any, label: Any
) -> tuple[Any, Any]:
    """One image and label after a transform of batches, which are dicts of lists."""
    row = dict(zip(names, (image, label), strict=True))
    hint = (
        "pass the dataset without it, dataset.with_format(None), and from_hf(dataset, "
        "transform=…) instead"
    )
    try:
        result = transform({name: [row[name]] for name in columns})
    except KeyError as error:
        raise ValueError(
            f"expected the dataset's transform to need only the columns {columns}, got a "
            f"KeyError: {error}; {hint}"
        ) from error
    if not {names[0], *columns}.issubset(result):
        raise ValueError(
            f"expected the dataset's transform to return the columns {columns}, got "
            f"{list(result)}; {hint}"
        )
    return result[names[0]][0], result[names[1]][0] if names[1] in result else label
