"""One array out of what a file holds: an array, a list or dict of images' arrays, or one in a dict.

Nothing is guessed: what is left out is said, and of several that fit none is chosen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Accept: TypeAlias = Callable[[tuple[int, ...]], None]  # raises ValueError for a wrong shape
Value = TypeVar("Value")
_SHOWN = 5  # names that an error lists
_DEEPEST = 3


def gather(found: Any, accept: Accept, path: Path) -> NDArray[Any]:
    """The single array (N, …) in a file's content, whose shape was passed to ``accept``.

    Rows may be an array; a list or tuple of one array per image (…) or of parts (n, …); a dict of
    these, keyed by index in any order; or one of these as the only such value of a dict or list.
    Raises ``ValueError`` for anything else, and for a dict that lacks an index, before anything is
    copied.
    """
    return _gather(found, accept, path, _DEEPEST)


def _gather(found: Any, accept: Accept, path: Path, depth: int) -> NDArray[Any]:
    if isinstance(found, (Tensor, np.ndarray)):
        accept(tuple(found.shape))
        return _array(found, path)
    parts = _parts(found, path)
    if parts is not None:
        return _joined(parts, accept, path)
    if isinstance(found, (list, tuple)):
        found = dict(enumerate(found))
    if not isinstance(found, dict) or not depth:
        raise ValueError(f"expected a plain tensor in {path}, got a {type(found).__name__}")
    fitting = [name for name, value in found.items() if _may_be_rows(value, path)]
    inner = [name for name, value in found.items() if isinstance(value, dict) and value]
    if not fitting and len(inner) == 1:
        return _gather(found[inner[0]], accept, path, depth - 1)
    return _gather(found[only(fitting, list(found), path)], accept, path, depth - 1)


def only(chosen: Sequence[Any], names: Sequence[Any], path: Path) -> Any:
    """The only chosen one of ``names``; raises ``ValueError`` if there are none or several."""
    if len(chosen) != 1:
        some = ", ".join(f"{name!s:.80}" for name in names[:_SHOWN])
        more = ", …" if len(names) > _SHOWN else ""
        several = f"{len(chosen)} among {some}{more}" if names else "none"
        raise ValueError(
            f"expected one array of images or perturbations in {path}, got {several}; save "
            f"only that one with numpy.save"
        )
    return chosen[0]


def _may_be_rows(found: Any, path: Path) -> bool:
    if isinstance(found, (Tensor, np.ndarray)):
        return found.ndim > 2
    return _parts(found, path) is not None


def _parts(found: Any, path: Path) -> list[Any] | None:
    """The arrays of a list, or of a dict of indices in their order; None where it is neither."""
    if isinstance(found, (list, tuple)):
        return list(found) if _are_alike(list(found)) else None
    if not isinstance(found, dict):
        return None
    ordered = by_index(found, path) if _are_alike(list(found.values())) else None
    return None if ordered is None else list(ordered.values())


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


def _are_alike(arrays: list[Any]) -> bool:
    """Whether they are arrays of two dimensions or more, as many in each."""
    if not arrays or not all(isinstance(array, (Tensor, np.ndarray)) for array in arrays):
        return False
    return {array.ndim for array in arrays} in ({2}, {3}, {4})


def _joined(parts: list[Any], accept: Accept, path: Path) -> NDArray[Any]:
    """Images' arrays one upon the other, or parts of several images one after the other."""
    one_type([str(part.dtype) for part in parts], path)
    join = joining([tuple(part.shape) for part in parts], accept, path)
    return join([_array(part, path) for part in parts])


def one_type(dtypes: Sequence[str], path: Path) -> None:
    """Raises ``ValueError`` for arrays of several types: their values may differ in meaning."""
    if len(kinds := sorted(set(dtypes))) > 1:
        raise ValueError(f"expected arrays of one type in {path}, got {' and '.join(kinds)}")


def joining(
    shapes: Sequence[tuple[int, ...]], accept: Accept, path: Path
) -> Callable[[list[NDArray[Any]]], NDArray[Any]]:
    """Whether ``numpy.stack`` or ``concatenate`` makes an accepted array of these shapes."""
    place = next((number for number, shape in enumerate(shapes) if shape != shapes[0]), None)
    wrong: ValueError | None = None
    if place is None:
        try:
            accept((len(shapes), *shapes[0]))
            return np.stack
        except ValueError as error:
            wrong = error
    if len({shape[1:] for shape in shapes}) == 1 and len(shapes[0]) > 2:
        try:
            accept((sum(shape[0] for shape in shapes), *shapes[0][1:]))
            return np.concatenate
        except ValueError as error:
            wrong = wrong or error
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
