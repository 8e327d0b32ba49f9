"""How victims are trained: what an evaluation was asked for, checked."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch

from ..engine.device import pick_device
from ..engine.numbers import integer
from ..engine.precision import check_precision
from ..engine.recipes import Recipe


class Training(NamedTuple):
    """How victims are trained; the attributes are checked arguments of :func:`evaluate`."""

    recipe: Recipe
    epochs: int
    seeds: list[int]
    batch_size: int
    peak_images: int | None
    device: torch.device
    precision: str

    @classmethod
    def checked(
        cls,
        recipe: Recipe,
        epochs: int | None,
        seeds: int | Iterable[int],
        batch_size: int | None,
        peak_images: int | None,
        device: str | torch.device,
        precision: str,
    ) -> Training:
        """Checks arguments of :func:`evaluate`; raises ``ValueError`` if one is out of range."""
        if isinstance(seeds, Iterable) and getattr(seeds, "ndim", 1) != 0:
            chosen = [integer("each of seeds", seed) for seed in seeds]
        else:
            chosen = list(range(integer("seeds", seeds, least=1)))
        if not chosen:
            raise ValueError("expected at least one seed, got none")
        place = pick_device(device)
        return cls(
            recipe,
            integer("epochs", recipe.epochs if epochs is None else epochs, least=1),
            chosen,
            integer("batch_size", recipe.batch_size if batch_size is None else batch_size, least=1),
            None if peak_images is None else integer("peak_images", peak_images, least=1),
            place,
            check_precision(precision),
        )
