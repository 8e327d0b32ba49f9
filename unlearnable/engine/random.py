"""Random draws that depend on seed, purpose, position and shard, and on nothing else."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import torch
from torch import Tensor


def seed_of(*parts: object) -> int:
    """A 63-bit seed from anything with a stable ``repr``."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


class Draws:
    """Random tensors whose part for each virtual shard depends on that shard alone.

    The first dimension of every shape counts the images of the current batch, or that number times
    a whole factor (several draws per image, next to one another).

    Args:
        seeds: One per shard that this process owns.
        counts: Images of each shard in the current batch; None for tensors of no batch, and one
            seed.
        device: Where tensors are drawn.
    """

    def __init__(self, seeds: list[int], counts: list[int] | None, device: torch.device) -> None:
        self._counts = counts
        self._device = device
        self._generators = [torch.Generator(device).manual_seed(seed) for seed in seeds]

    def _fill(self, out: Tensor, fill: Callable[[Tensor, torch.Generator], object]) -> Tensor:
        if self._counts is None:
            fill(out, self._generators[0])
            return out
        present = sum(self._counts)
        factor, rest = divmod(len(out), present) if present else (0, len(out))
        if rest:
            raise ValueError(
                f"expected a multiple of the batch's {present} images as first dimension, got "
                f"{len(out)}"
            )
        sizes = [factor * count for count in self._counts]
        for part, generator in zip(out.split(sizes), self._generators, strict=True):
            fill(part, generator)
        return out

    def uniform(self, shape: tuple[int, ...], low: float, high: float) -> Tensor:
        """float32 between ``low`` and ``high``."""
        out = torch.empty(shape, device=self._device)
        return self._fill(out, lambda part, rng: part.uniform_(low, high, generator=rng))

    def normal(self, shape: tuple[int, ...]) -> Tensor:
        """float32, standard normal."""
        out = torch.empty(shape, device=self._device)
        return self._fill(out, lambda part, rng: part.normal_(generator=rng))

    def integers(self, shape: tuple[int, ...], low: int, high: int) -> Tensor:
        """int64 from ``low`` to ``high - 1``."""
        out = torch.empty(shape, dtype=torch.int64, device=self._device)
        return self._fill(out, lambda part, rng: part.random_(low, high, generator=rng))
