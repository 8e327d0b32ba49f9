"""Filters that go no further than the budget: what was added need not be looked for beyond it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from .base import Countermeasure
from .images import Filter


@dataclass(frozen=True)
class WithinBudget(Countermeasure):
    """A filter whose result is limited to a number of levels from the original image.

    A trainer who knows the L-inf budget knows that the clean image is no further away. This keeps
    detail that the filter by itself would lose.

    Args:
        filter: Filter to apply to the images.
        levels: The budget in levels of 1/255, 1 or more.
    """

    filter: Filter
    levels: int = 8

    knows_method = True

    def __post_init__(self) -> None:
        self._integers(levels=1)
        if not isinstance(self.filter, Filter):
            raise ValueError(
                f"expected a filter, such as JPEG(30), got {type(self.filter).__name__}"
            )
        if self.filter.test_images:
            raise ValueError(f"expected a filter of training images, got {self.filter!r}")

    @property
    def name(self) -> str:
        return f"{self.filter.name}-within-{self.levels}"

    @property
    def description(self) -> str:
        return f"{self.filter.description}, by at most {self.levels}/255"

    @property
    def parameters(self) -> dict[str, object]:
        return {"filter": self.filter.name, "levels": self.levels} | self.filter.parameters

    def on_images(self, images: Tensor, labels: Tensor) -> Tensor:
        filtered = self.filter.on_images(images.clone(), labels).short()
        low, high = images.short() - self.levels, images.short() + self.levels
        return filtered.clamp(low, high).to(images.dtype)
