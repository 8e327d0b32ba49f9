"""Perturbations from the files that other programs write, as artefacts of this package."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._version import __version__
from ..data.cache import ImageStore, read_images
from ..data.raw import RawDataset
from ..engine import NORMS
from ..engine.numbers import integer
from ..methods.parameter_checks import check_epsilon
from ..perturbation import GRANULARITIES
from ..perturbation.perturbation import Perturbation
from ..perturbation.quantize import Result
from . import VALUE_FORMATS
from .arrays import read_array, read_image_files
from .levels import ROWS, Deltas, check_not_images, checked_rows, value_format
from .parts import ordered_files
from .places import Places

_MOST_CLASSES = 1 << 16  # rows of which those of the dataset's classes may be chosen


def import_perturbation(
    path: str | Path | Sequence[str | Path],
    dataset: Any,
    *,
    method: str,
    epsilon: float,
    norm: str = "Linf",
    granularity: str | None = None,
    class_to_row: Sequence[int] | Mapping[Any, int] | None = None,
    format: str | None = None,
    image_size: int | Sequence[int] | None = None,
) -> Perturbation:
    """Imports a perturbation from a file that another program wrote for a dataset.

    Reads ``.npy`` and ``.npz`` files, torch files (EM's ``perturbation.pt``), safetensors, pickles
    of arrays (those of REM and SEM), and folders of PNGs named by index; arrays are NCHW or NHWC.
    Instead of one array there may be a list with one array per image, or a dict of arrays by index,
    by the names of the dataset's files, or by its classes. Nothing in a file is executed. Files
    without names do not say which images they belong to: row ``i`` is assigned to image ``i`` of
    the dataset, whose key is stored.

    Args:
        path: The file or folder. Several files, or a folder of numbered ones (SEP's), are joined in
            the order of the numbers in their names: ``part_2.npy`` before ``part_10.npy``.
        dataset: The dataset that the perturbation was made for, in the same order.
        method: Name of the method, stored with the perturbation.
        epsilon: The budget that it was made with, in [0, 1] units; no row may exceed it.
        norm: ``"Linf"`` or ``"L2"``.
        granularity: ``"sample-wise"``, one row per image, or ``"class-wise"``, one row per class.
            By default it follows from the number of rows, if that is unambiguous.
        class_to_row: For class-wise rows, which row the images of each class get, if it is not the
            row with the class's index: an integer per class, or a dict by class name or index.
            ``[1, 2, 0]`` is noise that was applied as ``noise[(label + 1) % 3]``.
        format: What the values are: ``"levels"`` of 1/255; ``"unit"``, in [0, 1] units; or
            ``"images"``, protected images in 0…255 or [0, 1], from which the dataset is subtracted.
            None decides automatically: PNGs and uint8 are images; other integers are levels; floats
            up to 0.5 are in [0, 1] units, floats above 1 are levels.
        image_size: If images vary in size: the side, or (height, width), to which they were resized
            and cropped.

    Raises:
        FileNotFoundError: The file does not exist.
        ArtefactError: The file is damaged or does not contain exactly one array of numbers. Pickles
            that would run code are refused without running it.
        ValueError: Count, shape or values do not fit the dataset and the budget, or are ambiguous.

    Integers of an L2 budget stay as they are where rounding explains what is beyond it.

    Warns:
        UserWarning: Integers exceed an L-inf budget by no more than rounding or truncation
            explains: up to half a level, or in images less than a level downwards. They are clipped
            to it. Labels beside the rows differ from the dataset's, as in another order.

    Example:
        >>> import numpy as np, tempfile
        >>> from unlearnable.datasets import Shapes
        >>> dataset = Shapes(size=20)
        >>> rows = np.random.default_rng(0).integers(-8, 9, (20, 3, 32, 32), dtype=np.int8)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.save(f"{folder}/rem.npy", rows)
        ...     import_perturbation(f"{folder}/rem.npy", dataset, method="REM", epsilon=8 / 255)
        Perturbation(REM, sample-wise, Linf 8/255, 20 images of 3x32x32)
    """
    for name, value, known in (
        ("norm", norm, NORMS),
        ("granularity", granularity, (None, *GRANULARITIES)),
        ("format", format, (None, *VALUE_FORMATS)),
    ):
        if value not in known:
            raise ValueError(f"expected {name} to be one of {list(known)}, got {value!r}")
    epsilon = check_epsilon("epsilon", epsilon, norm, zero=False)
    paths = ordered_files(path)
    images = read_images(dataset, image_size)
    chosen = None if class_to_row is None else rows_of_classes(class_to_row, images)
    if chosen is not None and granularity == "sample-wise":
        raise ValueError(
            "expected class_to_row only with class-wise rows, got sample-wise ones; omit it"
        )
    raw = RawDataset(dataset)
    granularity, values, deltas = _read(paths, raw, images, granularity, format, chosen)
    count = len(images.images) if granularity == "sample-wise" else images.num_classes
    rows = checked_rows(deltas, (count, *images.images.shape[1:]), epsilon, norm, values)
    imported: dict[str, Any] = {"file": paths[0].name, "format": values}
    if len(paths) > 1:
        imported["parts"] = len(paths)
    if chosen is not None:
        imported["class_to_row"] = chosen
    config = {
        "method": method,
        "parameters": {},
        "granularity": granularity,
        "epsilon": epsilon,
        "norm": norm,
        "seed": None,
        "threads": None,
        "versions": {"unlearnable": __version__},
        "history": {"passes": None, "last": None},
        "imported": imported,
    }
    return Perturbation.from_fit(Result("additive", {"rows": rows}, {}), images, config)


def _read(
    paths: list[Path],
    dataset: RawDataset,
    images: ImageStore,
    granularity: str | None,
    format: str | None,
    chosen: list[int] | None,
) -> tuple[str, str, Deltas]:
    """Granularity, format and levels of the arrays in files, or of a folder's protected images."""
    shape = tuple(images.images.shape[1:])
    if paths[0].is_dir():
        if granularity == "class-wise" or chosen is not None or format not in (None, "images"):
            raise ValueError(
                f"expected a file, got the folder {paths[0]}, whose PNGs are protected images; "
                f'omit format, or pass format="images"'
            )
        places = Places(dataset, lambda _: None)
        found = read_image_files(paths[0], len(images.images), shape, places)
        return "sample-wise", "images", _deltas((p[None] for p in found), "images", 1, images)
    # Of several files, and where rows are chosen, each may hold any number of rows.
    known = {len(images.images), images.num_classes}
    counts = known if len(paths) == 1 and chosen is None else None
    most = max(*known, 0 if chosen is None else _MOST_CLASSES)
    single = len(paths) > 1  # a file may be of one image
    accept = partial(_check_shape, images=images, counts=counts, most=most, single=single)
    places = Places(dataset, accept)
    arrays = [_rows(read_array(path, places, most), images) for path in paths]
    _check_parts(arrays, paths)
    if single:
        arrays = _in_order(arrays, paths, places)
    count = sum(map(len, arrays))
    if chosen is not None:
        if granularity is None and count == len(images.images) != images.num_classes:
            raise ValueError(
                f"expected rows of classes with class_to_row, got {count:,} rows for {count:,} "
                f"images of {images.num_classes:,} classes; omit class_to_row if each image has "
                f'a row of its own, or pass granularity="class-wise"'
            )
        granularity = "class-wise"
        if max(chosen) >= count:
            raise ValueError(
                f"expected class_to_row to name rows from 0 to {count - 1:,}, got {max(chosen):,}"
            )
        arrays = [np.concatenate(arrays)[chosen] if len(arrays) > 1 else arrays[0][chosen]]
    else:
        granularity = _granularity(count, images, granularity)
    values = value_format(arrays, format)
    if format is None and granularity == "sample-wise" and values == "levels":
        first = next(_deltas(iter([arrays[0][:ROWS]]), values, 1, images))
        check_not_images(first, images.images[: len(first)].numpy())
    scale = 255 if values == "unit" else 1
    if values == "images":
        if granularity == "class-wise":
            raise ValueError("expected class-wise perturbations, got images, one per image")
        low = min(float(array.min()) for array in arrays)
        high = max(float(array.max()) for array in arrays)
        if low < 0 or high > 255:
            raise ValueError(f"expected images within 0…255, got values from {low:g} to {high:g}")
        scale = 255 if arrays[0].dtype.kind == "f" and high <= 1 else 1
    parts = (
        array[start : start + ROWS] for array in arrays for start in range(0, len(array), ROWS)
    )
    return granularity, values, _deltas(parts, values, scale, images)


def rows_of_classes(given: Sequence[int] | Mapping[Any, int], images: ImageStore) -> list[int]:
    """The row of each class, in class order."""
    if isinstance(given, Mapping):
        indices = list(range(images.num_classes))
        names: list[Any] = indices if set(given) == set(indices) else images.classes or indices
        if set(given) != set(names) or len(set(names)) < len(names):
            wrong = sorted(map(str, set(given) ^ set(names)))
            raise ValueError(
                f"expected class_to_row to have each class name of the dataset, or each index, as "
                f"a key exactly once; check {', '.join(wrong[:5]) or 'names that occur twice'}"
            )
        given = [given[name] for name in names]
    if isinstance(given, (str, bytes)) or not isinstance(given, Iterable):
        raise TypeError(
            f"expected class_to_row to be a list of rows or a dict by class, got {given!r:.60}"
        )
    chosen = [integer("a row in class_to_row", row, least=0) for row in given]
    if len(chosen) != images.num_classes:
        raise ValueError(
            f"expected class_to_row to have a row for each of {images.num_classes:,} classes, got "
            f"{len(chosen):,}"
        )
    return chosen


def _check_parts(arrays: list[NDArray[Any]], paths: list[Path]) -> None:
    for array, path in zip(arrays, paths, strict=True):
        first = arrays[0]
        if array.dtype != first.dtype or array.shape[1:] != first.shape[1:]:
            raise ValueError(
                f"expected parts of one type and shape, got {first.dtype.name} of "
                f"{first.shape} in {paths[0]} and {array.dtype.name} of {array.shape} in {path}"
            )


def _in_order(arrays: list[NDArray[Any]], paths: list[Path], places: Places) -> list[NDArray[Any]]:
    """Files as they are; those of one row each by the names of the dataset's files or classes."""
    lengths = list(map(len, arrays))
    if set(lengths) == {1}:
        folder, stems = paths[0].parent, [path.with_suffix("") for path in paths]
        if all(stem.name.isdecimal() for stem in stems):
            places.check_indices([stem.name for stem in stems], folder)
            return arrays
        names = [stem.name for stem in stems]
        order = places.files([stem.as_posix() for stem in stems], folder)
        order = places.files(names, folder) if order is None else order
        order = places.classes(names, folder) if order is None else order
        return arrays if order is None else [arrays[place] for place in order]
    if places.named_by_class([path.stem for path in paths]) and places.may_be_classes(lengths):
        raise ValueError(
            f"expected files that follow one another in the dataset's order, got {paths[0]} and "
            f"others with as many rows as the classes have images; save them as one dict by the "
            f"names of classes, with pickle.dump"
        )
    return arrays


def _shapes_of_images(images: ImageStore) -> list[tuple[int, ...]]:
    channels, height, width = images.images.shape[1:]
    known: list[tuple[int, ...]] = [(channels, height, width), (height, width, channels)]
    return [*known, (height, width)] if channels == 1 else known


def _rows(array: NDArray[Any], images: ImageStore) -> NDArray[Any]:
    """Rows as they are; one image as a row."""
    return array[None] if array.shape in _shapes_of_images(images) else array


def _check_shape(
    shape: tuple[int, ...], images: ImageStore, counts: set[int] | None, most: int, single: bool
) -> None:
    """Refuses a shape that is not one of images, or has other ``counts`` of rows than are known.

    Accepts that of one image alone if it may be ``single``.
    """
    known = _shapes_of_images(images)
    if single and shape in known:
        return
    channels, height, width = images.images.shape[1:]
    fits = bool(shape) and (shape[0] in counts if counts else 1 <= shape[0] <= most)
    fits = fits and all(type(side) is int for side in shape)
    if not fits or shape[1:] not in known:
        number = f"N from 1 to {most:,}"
        if counts:
            number = (
                f"N the {len(images.images):,} images or {images.num_classes:,} classes of the "
                f"dataset"
            )
        raise ValueError(
            f"expected an array of shape (N, {channels}, {height}, {width}) or (N, {height}, "
            f"{width}, {channels}), with {number}, got {shape}"
        )


def _granularity(count: int, images: ImageStore, given: str | None) -> str:
    per = {"sample-wise": len(images.images), "class-wise": images.num_classes}
    fitting = [name for name, number in per.items() if number == count]
    if not fitting:
        raise ValueError(
            f"expected a row for each of {per['sample-wise']:,} images or {per['class-wise']:,} "
            f"classes, got {count:,} rows in all parts"
        )
    if given is None and fitting != ["sample-wise"]:
        choices = " or ".join(f'"{name}"' for name in fitting)
        raise ValueError(
            f"expected a row for each of {per['sample-wise']:,} images, got {count:,} rows, which "
            f"is also the number of classes; pass granularity={choices} (--granularity)"
        )
    if given is not None and given not in fitting:
        raise ValueError(f"expected {per[given]:,} {given} rows, got {count:,}")
    return given or "sample-wise"


def _deltas(parts: Deltas, values: str, scale: int, images: ImageStore) -> Deltas:
    """Levels that consecutive parts of an array add to pixels."""
    start = 0
    for part in parts:
        if part.ndim == 3:
            part = part[:, None]
        elif part.shape[1:] != tuple(images.images.shape[1:]):
            part = part.transpose(0, 3, 1, 2)
        if part.dtype.kind in "iu":
            part = part.astype(np.int16 if part.dtype.itemsize == 1 else np.int64)
        else:
            part = part.astype(np.float64) * scale
        if values == "images":
            before = images.images[start : start + len(part)].numpy()
            part = np.rint(part).astype(np.int16) - before
        yield part
        start += len(part)
