"""Labels of a protected dataset as training code reads them: a list that stays as it is."""

from __future__ import annotations

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


class TensorTargets(Targets):
    """Of a dataset whose own are a tensor: compared with a number, they give a mask as it does."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> Any:
        return torch.tensor(self) == other if _is_number(other) else super().__eq__(other)

    def __ne__(self, other: object) -> Any:
        return torch.tensor(self) != other if _is_number(other) else super().__ne__(other)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, np.integer)) or (isinstance(value, Tensor) and value.ndim == 0)


def targets_like(labels: NDArray[np.int64], own: Any) -> Targets:
    """Labels as a list, for a dataset with its ``own``."""
    alike = isinstance(own, Tensor) and own.shape == labels.shape
    return (TensorTargets if alike else Targets)(labels.tolist())
