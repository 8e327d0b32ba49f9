"""A choice of points that are far from one another. (Gonzalez, 1985)"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def farthest(count: int, *views: NDArray[np.floating]) -> NDArray[np.int64]:
    """Indices of ``count`` of the points: the first, and then always the farthest.

    That is the one whose nearest chosen point is farthest away; of several such, the first. None is
    taken twice. How far two points are apart is the least of their mean squared differences in any
    of the views.

    Args:
        count: Up to the number of points.
        views: What points look like, each (P, D) with a D of its own.

    Returns:
        int64 (count,).
    """
    chosen = np.zeros(count, np.int64)
    nearest = np.full(len(views[0]), np.inf)
    for number in range(1, count):
        last = chosen[number - 1]
        for view in views:
            nearest = np.minimum(nearest, np.square(view - view[last]).mean(1))
        nearest[last] = -1
        chosen[number] = nearest.argmax()
    return chosen
