"""Labels of a protected dataset as training code reads them: a list that stays as it is."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class Targets(list[int]):
    """A list of class indices that cannot be changed, because no item would change with it."""

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise AttributeError(
            "expected labels to be set on the wrapped dataset before it is protected, because a "
            "protected dataset reads its images and labels from there; list(targets) is a copy"
        )

    __setitem__ = __delitem__ = __iadd__ = __imul__ = _refuse
    append = extend = insert = pop = remove = clear = sort = reverse = _refuse

    def __reduce__(self) -> Any:
        return type(self), (list(self),)


def _compared(compare: Callable[[Any, Any], Any]) -> Callable[[ArrayTargets, object], Any]:
    def made(self: ArrayTargets, other: object) -> Any:
        elementwise = isinstance(other, (int, float, np.generic, np.ndarray, Tensor))
        return compare(self._values if elementwise else list(self), other)

    return made


class ArrayTargets(Targets):
    """Of a dataset whose own are an array: masks, parts and methods give what its own give."""

    __hash__ = None  # type: ignore[assignment]
    __eq__ = _compared(operator.eq)
    __ne__ = _compared(operator.ne)
    __lt__ = _compared(operator.lt)
    __le__ = _compared(operator.le)
    __gt__ = _compared(operator.gt)
    __ge__ = _compared(operator.ge)

    @functools.cached_property
    def _values(self) -> Any:
        values = np.array(list(self), np.int64)
        values.flags.writeable = False
        return values

    def __getitem__(self, index: Any) -> Any:
        if not isinstance(index, slice) and np.ndim(index) == 0:
            return super().__getitem__(index)
        part = self._values[index]
        return part.clone() if isinstance(part, Tensor) else part.copy()

    def copy(self) -> Any:
        return self._values.copy()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(self._values, name)


class TensorTargets(ArrayTargets):
    """The same for a dataset whose own are a tensor."""

    copy = list.copy

    @functools.cached_property
    def _values(self) -> Any:
        return torch.tensor(list(self), dtype=torch.int64)

    def __getattr__(self, name: str) -> Any:
        if name.endswith("_") and not name.startswith("_"):  # would change a copy in place
            return self._refuse
        found = super().__getattr__(name)
        return getattr(self._values.clone(), name) if callable(found) else found


def targets_like(labels: NDArray[np.int64], own: Any) -> Targets:
    """Labels as a list, for a dataset with its ``own``."""
    kind = Targets
    if isinstance(own, (np.ndarray, Tensor)) and own.shape == labels.shape:
        kind = ArrayTargets if isinstance(own, np.ndarray) else TensorTargets
    return kind(labels.tolist())
