"""Random draws that depend on seed, purpose, position and shard, and on nothing else."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import math
from collections.abc import Callable, Hashable, Iterable, Iterator

import torch
from torch import Tensor

from .device import send

CPU = torch.device("cpu")
# Numbers per image up to which a CUDA device gets draws from the CPU: one copy takes the place of a
# generator and a kernel for each shard. Of more, the CPU could not draw as fast as networks run.
_FEW = 64


def seed_of(*parts: object) -> int:
    """A 63-bit seed from anything with a stable ``repr``."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


@contextlib.contextmanager
def global_seed(seed: int, device: torch.device = CPU) -> Iterator[None]:
    """Seeds torch's global generators, the CPU's and the device's, and restores them afterwards."""
    on_gpu = device.type == "cuda"
    with torch.random.fork_rng([device] if on_gpu else []):
        torch.default_generator.manual_seed(seed)
        if on_gpu:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield


class Seeds:
    """The seeds of a run; ``asked`` counts how often new ones were requested, by purpose."""

    def __init__(self, seed: Hashable) -> None:
        self._seed = seed
        self.asked: dict[str, int] = {}

    def of(self, *purpose: str) -> int:
        """The single seed for a purpose."""
        return seed_of(self._seed, *purpose)

    def next(self, purpose: str, parts: Iterable[int]) -> list[int]:
        """New seeds for a purpose, one for each of ``parts``: shards or processes."""
        position = self.asked.get(purpose, 0)
        self.asked[purpose] = position + 1
        return [seed_of(self._seed, purpose, position, part) for part in parts]


class Draws:
    """Random tensors whose part for each virtual shard depends only on that shard.

    The first dimension of every shape is the number of images in the current batch, or an integer
    multiple of it (several adjacent draws per image). On a CUDA device, up to 64 numbers per image,
    such as for crops and flips, are drawn on the CPU and equal those of a run on the CPU. Larger
    draws, such as noise for each pixel, are made on the device and differ.

    Args:
        seeds: One seed per shard of this process.
        counts: Images of each shard in the current batch; None for tensors that belong to no batch,
            with one seed.
        device: Device of the resulting tensors.
        draw_on: Device on which numbers are drawn, because each type of device draws different
            numbers from the same seed; None decides by their number.
    """

    def __init__(
        self,
        seeds: list[int],
        counts: list[int] | None,
        device: torch.device,
        *,
        draw_on: torch.device | None = None,
    ) -> None:
        self._seeds = seeds
        self._counts = counts
        self._device = device
        self._draw_on = draw_on
        self._generators: dict[str, list[torch.Generator]] = {}  # by type of device

    def on_cpu(self) -> Draws:
        """The same draws, made and kept on the CPU, for decisions in Python."""
        twin = copy.copy(self)  # with the same generators
        twin._device = twin._draw_on = CPU
        return twin

    def _draw(
        self,
        shape: tuple[int, ...],
        fill: Callable[[Tensor, torch.Generator], object],
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        place = self._draw_on or self._device
        # Whatever the number of images, which depends on that of the processes.
        few = math.prod(shape[1:]) <= _FEW
        if self._draw_on is None and place.type == "cuda" and few:
            place = CPU
        out = torch.empty(shape, dtype=dtype, device=place)
        parts = out.split(self._sizes(len(out)))
        for part, generator in zip(parts, self._generators_on(place), strict=True):
            fill(part, generator)
        return send(out, self._device)

    def _generators_on(self, place: torch.device) -> list[torch.Generator]:
        """One per shard; made when they are first needed."""
        if place.type not in self._generators:
            made = [torch.Generator(place).manual_seed(seed) for seed in self._seeds]
            self._generators[place.type] = made
        return self._generators[place.type]

    def _sizes(self, length: int) -> list[int]:
        """How much of the first dimension is each shard's."""
        if self._counts is None:
            return [length]
        present = sum(self._counts)
        factor, rest = divmod(length, present) if present else (0, length)
        if rest:
            raise ValueError(
                f"expected a multiple of the batch's {present} images as the first dimension, got "
                f"{length}"
            )
        return [factor * count for count in self._counts]

    def uniform(self, shape: tuple[int, ...], low: float, high: float) -> Tensor:
        """float32 between ``low`` and ``high``."""
        return self._draw(shape, lambda part, rng: part.uniform_(low, high, generator=rng))

    def normal(self, shape: tuple[int, ...]) -> Tensor:
        """float32, standard normal."""
        return self._draw(shape, lambda part, rng: part.normal_(generator=rng))

    def integers(self, shape: tuple[int, ...], low: int, high: int) -> Tensor:
        """int64 from ``low`` to ``high - 1``."""
        return self._draw(
            shape, lambda part, rng: part.random_(low, high, generator=rng), torch.int64
        )
