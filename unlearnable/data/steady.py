"""Whether items without transforms are the same each time they are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .calls import Log
from .compare import random_state, same

AGAIN = 16  # readings of one item of a dataset that draws random numbers


class Refused(TypeError):
    """Why one way of taking transforms off does not do; the most telling one is raised."""

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
    """Refuses random augmentation that is no transform: items must be the same in each reading."""
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
                f"expected {type(dataset).__name__} to apply its transforms each time that an item "
                f"is read, got other calls for item {index} when it was read again: it keeps what "
                f"it has transformed, or transforms at random; keep items as they are before the "
                f"transform, and let the transform itself be random",
                4,
            )
        if not again:
            raise Refused(
                f"expected {type(dataset).__name__} to give the same item each time it is read "
                f"without its transforms, got another for item {index}: there is random "
                f"augmentation in its __getitem__ or its loader; put that into its transform= (an "
                f"attribute self.transform, which is taken off and applied after the perturbation)",
                4,
            )
