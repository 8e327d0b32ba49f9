"""The budget of methods whose rows have a length, spread over all values of an image."""

from __future__ import annotations

import math
from collections.abc import Sequence


def spread_budget(epsilon: float | None, usual: float, shape: Sequence[int]) -> float:
    """L2 norm over all values of an image (C, H, W), in [0, 1] units; None means the ``usual`` one.

    Raises ``ValueError`` if it leaves each value less than half a pixel level.
    """
    if epsilon is None:
        return usual
    least = 0.5 / 255 * math.sqrt(math.prod(shape))
    if epsilon < least:
        raise ValueError(
            f"expected epsilon of at least {least:.3g} for images of {'x'.join(map(str, shape))}: "
            f"it is the L2 norm over all values ({usual:.3g} by default), and {epsilon:.3g} "
            f"would leave most pixels unchanged"
        )
    return epsilon
