"""Labels of a protected dataset as training code reads them: in the dataset's form, and fixed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def _refuse(*_: Any, **__: Any) -> NoReturn:
    raise AttributeError(
        "expected labels to be set on the wrapped dataset before it is protected, because a "
        "protected dataset reads its images and labels from there; list(targets) is a copy, or "
        "targets.clone() where they are a tensor"
    )


class Targets(list[Any]):
    """A list of labels that cannot be changed, because no item would change with it."""

    __setitem__ = __delitem__ = __iadd__ = __imul__ = _refuse
    append = extend = insert = pop = remove = clear = sort = reverse = _refuse

    def __reduce__(self) -> Any:
        return type(self), (list(self),)


class TensorTargets(Tensor):
    """The same as a tensor; what is computed from it is a plain tensor that shares no memory."""

    _labels: Tensor

    @classmethod
    def of(cls, values: Tensor) -> TensorTargets:
        """Labels that are the values in this tensor, also when these change."""
        targets = values.clone().as_subclass(cls)  # torch.LongTensor(targets) shares its memory
        targets._labels = values
        return targets

    @classmethod
    def __torch_function__(
        cls, function: Callable[..., Any], _: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if function is Tensor.__getitem__ and isinstance(args[0], cls):  # without a copy of all
            return args[0]._labels[args[1]].clone()
        copies: list[Tensor] = []

        def copied(value: Any) -> Any:
            if isinstance(value, cls):
                with torch.inference_mode(False):  # in which no change would be noted
                    copies.append(value._labels.clone())
                return copies[-1]
            return type(value)(map(copied, value)) if type(value) in (list, tuple) else value

        result = function(*copied(args), **{k: copied(v) for k, v in (kwargs or {}).items()})
        if any(copy._version for copy in copies):
            _refuse()
        return result


def fixed(values: Any) -> Any:
    """Labels in their own form, a tensor, an array or a list, so that they cannot be changed."""
    if isinstance(values, Tensor):
        return TensorTargets.of(values)
    if isinstance(values, np.ndarray):
        values = values.view()
        values.flags.writeable = False
        return values
    return Targets(values)


def targets_like(labels: NDArray[np.int64], own: Any) -> Any:
    """Labels in the form of the dataset's ``own``, if these are class indices as well."""
    listed = labels.tolist()
    if isinstance(own, (np.ndarray, Tensor)):
        values = own.tolist()
        if values == listed and set(map(type, values)) == {int}:
            return fixed(own)
    return fixed(listed)
