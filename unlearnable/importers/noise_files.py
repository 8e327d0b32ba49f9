"""Perturbations from the files that other programs write, as artefacts of this package."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from .._version import __version__
from ..data.cache import ImageStore, read_images
from ..engine import NORMS
from ..methods.parameters import check_epsilon
from ..perturbation import GRANULARITIES
from ..perturbation.perturbation import Perturbation
from ..perturbation.quantize import Levels, Result, quantize
from ..perturbation.summary import format_epsilon
from . import VALUE_FORMATS
from .arrays import read_array, read_indexed_images

_ROWS = 512  # converted at once
# Floats up to the one can only be in [0, 1] units, since as levels they would round to nothing;
# floats above the other can only be levels.
_UNIT, _LEVELS = 0.5, 1.0


def import_perturbation(
    path: str | Path,
    dataset: Any,
    *,
    method: str,
    epsilon: float,
    norm: str = "Linf",
    granularity: str | None = None,
    format: str | None = None,
    image_size: int | Sequence[int] | None = None,
) -> Perturbation:
    """Makes a perturbation of a file that another program wrote for a dataset.

    Reads ``.npy`` and ``.npz`` files, torch files (EM's ``perturbation.pt``), pickles of one array
    (those of REM and SEM), and folders of PNGs named by index; arrays are NCHW or NHWC. Nothing
    in a file is executed. Such files do not say which images they belong to: row ``i`` is taken for
    image ``i`` of the dataset, whose keys are kept.

    Args:
        path: The file or folder.
        dataset: What the perturbation was made for, in the same order.
        method: Name of the method, to be kept.
        epsilon: The budget it was made with, in [0, 1] units; no row may exceed it.
        norm: ``"Linf"`` or ``"L2"``.
        granularity: ``"sample-wise"``, a row per image, the default where there
            is no doubt; or ``"class-wise"``, a row per class.
        format: What values are: ``"levels"`` of 1/255; ``"unit"``, in [0, 1] units; or
            ``"images"``, protected images, in 0…255 or [0, 1], whose difference from the
            dataset is taken. None decides: PNGs and uint8 are images; other integers are
            levels; floats up to 0.5 are in [0, 1] units, floats above 1 are levels.
        image_size: Where images vary in size: the side, or (height, width), that they were resized
            and cropped to.

    Raises:
        FileNotFoundError: There is no such file.
        ArtefactError: The file is damaged, or holds more than one array of numbers; pickles that
            would run code are refused, and do not run.
        ValueError: Count, shape or values do not fit the dataset and the budget, or are ambiguous.

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
    path = Path(path)
    for name, value, known in (
        ("norm", norm, NORMS),
        ("granularity", granularity, (None, *GRANULARITIES)),
        ("format", format, (None, *VALUE_FORMATS)),
    ):
        if value not in known:
            raise ValueError(f"expected {name} to be one of {list(known)}, got {value!r}")
    epsilon = check_epsilon("epsilon", epsilon, norm, zero=False)
    if not path.exists():
        raise FileNotFoundError(f"expected a file or a folder of PNGs, got {path}")
    images = read_images(dataset, image_size)
    granularity, values, deltas = _read(path, images, granularity, format)
    count = len(images.images) if granularity == "sample-wise" else images.num_classes
    rows = _rows(deltas, (count, *images.images.shape[1:]), epsilon, norm, values)
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
        "imported": {"file": path.name, "format": values},
    }
    return Perturbation.from_fit(Result("additive", {"rows": rows}, {}), images, config)


_Deltas: TypeAlias = Iterator[NDArray[Any]]  # levels, (B, C, H, W): integers where exact, or floats


def _read(
    path: Path, images: ImageStore, granularity: str | None, format: str | None
) -> tuple[str, str, _Deltas]:
    """Granularity, format and levels of the array in a file, or of a folder's protected images."""
    if path.is_dir():
        if granularity == "class-wise" or format not in (None, "images"):
            raise ValueError(
                f"expected a file, got the folder {path}, whose PNGs are protected images"
            )
        found = read_indexed_images(path, len(images.images), tuple(images.images.shape[1:]))
        return "sample-wise", "images", _deltas((p[None] for p in found), "images", 1, images)
    array = read_array(path, lambda shape: _check_shape(shape, images))
    granularity = _granularity(len(array), images, granularity)
    values = _values(array, format)
    scale = 255 if values == "unit" else 1
    if values == "images":
        if granularity == "class-wise":
            raise ValueError("expected class-wise perturbations, got images, one per image")
        low, high = float(array.min()), float(array.max())
        if low < 0 or high > 255:
            raise ValueError(f"expected images within 0…255, got values from {low:g} to {high:g}")
        scale = 255 if array.dtype.kind == "f" and high <= 1 else 1
    parts = (array[start : start + _ROWS] for start in range(0, len(array), _ROWS))
    return granularity, values, _deltas(parts, values, scale, images)


def _check_shape(shape: tuple[int, ...], images: ImageStore) -> None:
    channels, height, width = images.images.shape[1:]
    counts = (len(images.images), images.num_classes)
    known: list[tuple[int, ...]] = [(channels, height, width), (height, width, channels)]
    if channels == 1:
        known.append((height, width))
    if not shape or shape[0] not in counts or shape[1:] not in known:
        raise ValueError(
            f"expected an array of shape (N, {channels}, {height}, {width}) or (N, {height}, "
            f"{width}, {channels}), with N the {counts[0]:,} images or {counts[1]:,} classes of "
            f"the dataset, got {shape}"
        )


def _granularity(count: int, images: ImageStore, given: str | None) -> str:
    per = {"sample-wise": len(images.images), "class-wise": images.num_classes}
    fitting = [name for name, number in per.items() if number == count]
    if given is None and fitting != ["sample-wise"]:
        choices = " or ".join(f'"{name}"' for name in fitting)
        raise ValueError(
            f"expected a row for each of {per['sample-wise']:,} images, got {count:,} rows, which "
            f"are as many as there are classes; say granularity={choices} (--granularity)"
        )
    if given is not None and given not in fitting:
        raise ValueError(f"expected {per[given]:,} {given} rows, got {count:,}")
    return given or "sample-wise"


def _values(array: NDArray[Any], given: str | None) -> str:
    """Which of ``VALUE_FORMATS`` an array's values are."""
    dtype = array.dtype
    if dtype.kind in "iu":
        usual = "images" if dtype == np.uint8 else "levels"
        if given == "unit" or (given not in (None, usual) and dtype.itemsize == 1):
            raise ValueError(f"expected {usual} in an array of {dtype.name}, got format={given!r}")
        return given or usual
    most = 0.0
    for start in range(0, len(array), _ROWS):
        part = array[start : start + _ROWS]
        if not np.isfinite(part).all():
            raise ValueError(f"expected finite numbers, got others in rows from {start}")
        most = max(most, float(np.abs(part).max()))
    if given is None and _UNIT < most <= _LEVELS:
        raise ValueError(
            f'expected floats whose unit is clear, got some up to {most:g}; say format="levels", '
            f'"unit" or, for protected images, "images"'
        )
    return given or ("unit" if most <= _UNIT else "levels")


def _deltas(parts: _Deltas, values: str, scale: int, images: ImageStore) -> _Deltas:
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


def _rows(
    deltas: _Deltas, shape: tuple[int, ...], epsilon: float, norm: str, values: str
) -> Levels:
    """int8 rows, or the ``ValueError`` that says which is the largest beyond the budget."""
    rows = np.empty(shape, np.int8)
    start, beyond, largest, place = 0, 0, 0.0, 0
    for delta in deltas:
        size, limit = _sizes(delta, epsilon, norm)
        wrong = size > limit
        beyond += int(wrong.sum())
        if wrong.any():
            worst = int(np.where(wrong, size, -1).argmax())
            if size[worst] > largest:
                largest, place = float(size[worst]), start + worst
        else:
            most = max(float(delta.max()), -float(delta.min()))
            if most >= 127.5:
                raise ValueError(f"expected changes up to 127 levels, got {most:g}")
            exact = delta.dtype.kind == "i"
            levels = delta if exact else quantize(torch.from_numpy(delta / 255), epsilon, norm)
            rows[start : start + len(delta)] = levels
        start += len(delta)
    if beyond:
        hint = "state the epsilon that they were made with"
        if values == "images":
            hint += ", or give the dataset, in the order, that the images were made from"
        raise ValueError(
            f"expected rows within {norm} {format_epsilon(epsilon, norm)}, got {beyond:,} of "
            f"{len(rows):,} beyond it, the largest {format_epsilon(largest / 255, norm)} in row "
            f"{place}; {hint}"
        )
    if not rows.any():
        raise ValueError("expected a perturbation, got rows that change nothing once rounded")
    return rows


def _sizes(delta: NDArray[Any], epsilon: float, norm: str) -> tuple[NDArray[np.float64], Any]:
    """The norm of each row and the most it may be, in levels."""
    flat = delta.reshape(len(delta), -1)
    exact = delta.dtype.kind == "i"
    limit: Any = 255 * epsilon + (1e-6 if exact else 1e-3 + 0.255 * epsilon)  # slack of float16
    if norm == "Linf":
        # As floats before the sign is changed: the lowest integer has no opposite.
        above, below = flat.max(axis=1).astype(np.float64), flat.min(axis=1).astype(np.float64)
        return np.maximum(above, -below), limit
    if exact:
        limit += 0.5 * np.sqrt((flat != 0).sum(axis=1))  # what rounding can have added
    return np.linalg.norm(flat.astype(np.float64), axis=1), limit
