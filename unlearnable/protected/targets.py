"""Labels of a protected dataset as training code reads them: a list that stays as it is."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Mapping
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


_ELEMENTWISE = (int, float, np.generic, np.ndarray, Tensor)


def _compared(compare: Callable[[Any, Any], Any]) -> Callable[[ArrayTargets, object], Any]:
    def made(self: ArrayTargets, other: object) -> Any:
        return compare(self._values if isinstance(other, _ELEMENTWISE) else list(self), other)

    return made


def _computed(
    compute: Callable[[Any, Any], Any], *, swapped: bool = False
) -> Callable[[ArrayTargets, Any], Any]:
    def made(self: ArrayTargets, other: Any) -> Any:
        other = _values_of(other)
        own = self._values if isinstance(other, _ELEMENTWISE) else list(self)
        return compute(other, own) if swapped else compute(own, other)

    return made


def _values_of(value: Any) -> Any:
    """A value with copies of the arrays in place of such lists."""
    if isinstance(value, ArrayTargets):
        return value[:]
    if isinstance(value, Mapping):
        return {name: _values_of(part) for name, part in value.items()}
    return type(value)(map(_values_of, value)) if type(value) in (list, tuple) else value


class ArrayTargets(Targets):
    """Of a dataset whose own are an array: what is computed from them is what its own give."""

    __hash__ = None  # type: ignore[assignment]
    __eq__ = _compared(operator.eq)
    __ne__ = _compared(operator.ne)
    __lt__ = _compared(operator.lt)
    __le__ = _compared(operator.le)
    __gt__ = _compared(operator.gt)
    __ge__ = _compared(operator.ge)
    __add__ = _computed(operator.add)
    __radd__ = _computed(operator.add, swapped=True)
    __sub__ = _computed(operator.sub)
    __rsub__ = _computed(operator.sub, swapped=True)
    __mul__ = _computed(operator.mul)
    __rmul__ = _computed(operator.mul, swapped=True)
    __truediv__ = _computed(operator.truediv)
    __floordiv__ = _computed(operator.floordiv)
    __mod__ = _computed(operator.mod)
    __pow__ = _computed(operator.pow)

    def __neg__(self) -> Any:
        return -self._values

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

    @classmethod
    def __torch_function__(
        cls, function: Callable[..., Any], _: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return function(*_values_of(args), **_values_of(kwargs or {}))

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
