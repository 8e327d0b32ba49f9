"""A choice of points that are far from one another. (Gonzalez, 1985)"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def farthest(count: int, *views: NDArray[np.floating]) -> NDArray[np.int64]:
    """Indices of ``count`` points: the first, and then always the farthest.

    That is the point whose nearest chosen point is farthest away; of several such points, the
    first. No point is chosen twice. The distance of two points is the smallest of their mean
    squared differences in any of the views.

    Args:
        count: Number of points to choose.
        views: Descriptions of the points, each (P, D), where D may differ.

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
