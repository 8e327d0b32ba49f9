"""One array out of what a file holds: an array, a list or dict of images' arrays, or one in a dict.

Nothing is guessed: what is left out is said, and of several that fit none is chosen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..io.markdown import printable
from .places import Join, Places

Value = TypeVar("Value")
_SHOWN = 5  # names that an error lists
_DEEPEST = 3


def gather(found: Any, places: Places, path: Path) -> NDArray[Any]:
    """The single array (N, …) in a file's content, whose shape ``places`` accept.

    Rows may be an array; a list or tuple of one array per image (…) or of parts (n, …); a dict of
    these, keyed by index in any order, by the names of the dataset's files, or by its classes; or
    one of these as the only such value of a dict or list. Raises ``ValueError`` for anything else,
    and for a dict that lacks an index or a name, before anything is copied.
    """
    return _gather(found, places, path, _DEEPEST)


def _gather(found: Any, places: Places, path: Path, depth: int) -> NDArray[Any]:
    if isinstance(found, (Tensor, np.ndarray)):
        places.accept(tuple(found.shape))
        return _array(found, path)
    parts = _parts(found, places, path)
    if parts is not None:
        return _joined(parts, places, path)
    if isinstance(found, (list, tuple)):
        found = dict(enumerate(found))
    if not isinstance(found, dict) or not depth:
        raise ValueError(f"expected a plain tensor in {path}, got a {type(found).__name__}")
    fitting = [name for name, value in found.items() if _may_be_rows(value, places, path)]
    inner = [name for name, value in found.items() if isinstance(value, dict) and value]
    if not fitting and len(inner) == 1:
        return _gather(found[inner[0]], places, path, depth - 1)
    values = list(found.values())
    if len(fitting) > 1 and _are_alike(values) and are_of_one_image([v.shape for v in values]):
        raise places.unknown(list(found), path)
    chosen = only(fitting, list(found), path)
    places.check_labels((value for name, value in found.items() if name != chosen), path)
    return _gather(found[chosen], places, path, depth - 1)


def only(chosen: Sequence[Any], names: Sequence[Any], path: Path) -> Any:
    """The only chosen one of ``names``; raises ``ValueError`` if there are none or several."""
    if len(chosen) != 1:
        some = ", ".join(printable(f"{name!s:.80}") for name in names[:_SHOWN])
        more = ", …" if len(names) > _SHOWN else ""
        several = f"{len(chosen)} among {some}{more}" if names else "none"
        advice = "save only that one"
        if not chosen:
            advice = "stack those of all images in the dataset's order, and save that one"
        raise ValueError(
            f"expected one array of images or perturbations in {path}, got {several}; {advice} "
            f"with numpy.save"
        )
    return chosen[0]


def _may_be_rows(found: Any, places: Places, path: Path) -> bool:
    if isinstance(found, (Tensor, np.ndarray)):
        return found.ndim > 2
    return _parts(found, places, path) is not None


class Ordered(NamedTuple):
    """Arrays in the order of ``by``: ``"index"``, the dataset's ``"file"`` names or ``"class"``."""

    arrays: list[Any]
    by: str


def _parts(found: Any, places: Places, path: Path) -> Ordered | None:
    """The arrays of a list, or of a dict in their order; None where it is neither."""
    if isinstance(found, (list, tuple)):
        return Ordered(list(found), "index") if _are_alike(list(found)) else None
    if not isinstance(found, dict) or not _are_alike(list(found.values())):
        return None
    return ordered_values(found, places, path)


def ordered_values(found: Mapping[Any, Any], places: Places, path: Path) -> Ordered | None:
    """The values of a dict in the order of its keys: indices, names of classes or of files."""
    indexed = by_index(found, path)
    if indexed is not None:
        if all(isinstance(key, str) for key in found):
            keys = by_index({key: key for key in found}, path) or {}
            places.check_indices(list(keys.values()), path)
        return Ordered(list(indexed.values()), "index")
    names, values = list(found), list(found.values())
    for by, order in (("class", places.classes), ("file", places.files)):
        if (chosen := order(names, path)) is not None:
            return Ordered([values[place] for place in chosen], by)
    return None


def by_index(found: Mapping[Any, Value], path: Path) -> dict[int, Value] | None:
    """A dict in the order of its keys, 0 to N - 1, or None if some keys are not indices.

    Keys are integers or digits, possibly after the ``arr_`` of ``numpy.savez``. Raises
    ``ValueError`` if an index is missing or occurs twice.
    """
    indices = [_index(key) for key in found]
    if None in indices:
        return None
    values = dict(zip(indices, found.values(), strict=True))
    if len(values) != len(found):
        raise ValueError(f"expected one array per index in {path}, got two with the same index")
    missing = [index for index in range(len(values)) if index not in values]
    if missing:
        some = ", ".join(map(str, missing[:_SHOWN])) + (", …" if len(missing) > _SHOWN else "")
        raise ValueError(
            f"expected arrays of the indices 0 to {len(values) - 1:,} in {path}, got "
            f"{len(values):,} without {some}; number them from 0 without gaps"
        )
    return {index: values[index] for index in range(len(values))}


def _index(key: Any) -> int | None:
    if isinstance(key, int) and not isinstance(key, bool):
        return key
    digits = key.removeprefix("arr_") if isinstance(key, str) else ""
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 19 else None


def are_of_one_image(shapes: Sequence[tuple[int, ...]]) -> bool:
    """Whether these may be the shapes of single images."""
    return all(len(shape) in (2, 3) or (len(shape) == 4 and shape[0] == 1) for shape in shapes)


def _are_alike(arrays: list[Any]) -> bool:
    """Whether they are arrays of two dimensions or more, as many in each."""
    if not arrays or not all(isinstance(array, (Tensor, np.ndarray)) for array in arrays):
        return False
    return {array.ndim for array in arrays} in ({2}, {3}, {4})


def _joined(parts: Ordered, places: Places, path: Path) -> NDArray[Any]:
    """Images' arrays one upon the other, or parts of several images one after the other."""
    one_type([str(array.dtype) for array in parts.arrays], path)
    join = joining(parts.by, [tuple(array.shape) for array in parts.arrays], places, path)
    return join([_array(array, path) for array in parts.arrays])


def one_type(dtypes: Sequence[str], path: Path) -> None:
    """Raises ``ValueError`` for arrays of several types: their values may differ in meaning."""
    if len(kinds := sorted(set(dtypes))) > 1:
        raise ValueError(f"expected arrays of one type in {path}, got {' and '.join(kinds)}")


def joining(by: str, shapes: Sequence[tuple[int, ...]], places: Places, path: Path) -> Join:
    """What makes an accepted array of arrays of these shapes, in the order ``by`` something."""
    place = next((number for number, shape in enumerate(shapes) if shape != shapes[0]), None)
    wrong: ValueError | None = None
    if place is None:
        try:
            places.accept((len(shapes), *shapes[0]))
            return np.stack
        except ValueError as error:
            wrong = error
    if len({shape[1:] for shape in shapes}) == 1 and len(shapes[0]) > 2:
        try:
            places.accept((sum(shape[0] for shape in shapes), *shapes[0][1:]))
        except ValueError as error:
            wrong = wrong or error
        else:
            return places.concatenation(by, [shape[0] for shape in shapes], path)
    raise wrong or ValueError(
        f"expected arrays of one shape in {path}, got {shapes[0]} for 0 and "
        f"{shapes[place or 0]} for {place}"
    )


def _array(found: Any, path: Path) -> NDArray[Any]:
    if isinstance(found, np.ndarray):
        return found
    if found.layout != torch.strided or found.device.type != "cpu":
        raise ValueError(f"expected a plain tensor in {path}, got a {type(found).__name__}")
    try:
        found = found.detach()
        array: NDArray[Any] = (found.float() if found.dtype == torch.bfloat16 else found).numpy()
    except (TypeError, RuntimeError) as error:
        raise ValueError(f"expected a plain tensor in {path}: {error}") from error
    return array
