"""Labels of a protected dataset as training code reads them: in its dataset's form, read-only."""

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
        return Targets, (list(self),)


def targets_like(labels: NDArray[np.int64], own: Any) -> Any:
    """Labels as the tensor or array that a dataset's own are, in a copy, or else as a list."""
    alike = getattr(own, "shape", None) == labels.shape
    if alike and isinstance(own, Tensor):
        return torch.from_numpy(labels.copy())
    if alike and isinstance(own, np.ndarray):
        return labels.copy()
    return Targets(labels.tolist())
