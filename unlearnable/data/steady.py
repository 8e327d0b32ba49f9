"""Whether items without transforms are the same each time they are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .calls import Log
from .compare import random_state, same

AGAIN = 16  # readings of one item of a dataset that draws random numbers


class Refused(TypeError):
    """Why one way of separating transforms fails; the most informative reason is raised."""

    def __init__(self, message: str, weight: int) -> None:
        super().__init__(message)
        self.weight = weight


def check_steady(
    dataset: Any,
    bare: Any,
    samples: Sequence[int],
    items: Mapping[int, Any] | None = None,
    logged: tuple[Log, Mapping[int, Log]] | None = None,
    *,
    draws: bool = True,
) -> None:
    """Refuses random augmentation outside transforms: items must be the same at every reading."""
    if items is None:
        with random_state(1):
            items = {index: bare[index] for index in samples}
    repeated = [*samples, *([samples[0]] * AGAIN if draws else [])]
    for seed, index in enumerate(repeated, 2):
        if logged is not None:
            logged[0].clear()
        with random_state(seed):
            item = bare[index]
        called = logged is None or [c[0] for c in logged[0]] == [c[0] for c in logged[1][index]]
        again = same(item, items[index])
        if again and not called:
            raise Refused(
                f"expected {type(dataset).__name__} to apply its transforms each time an item is "
                f"read, got different calls when item {index} was read again; it caches "
                f"transformed items, or transforms at random. Cache items before the transform, "
                f"and put randomness into the transform itself",
                4,
            )
        if not again:
            raise Refused(
                f"expected {type(dataset).__name__} to return the same item each time it is read "
                f"without its transforms, got a different one for item {index}; move the random "
                f"augmentation in its __getitem__ or loader into its transform= (an attribute "
                f"self.transform, which is applied after the perturbation)",
                4,
            )
