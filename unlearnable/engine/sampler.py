"""Which images are in which batch, and whose: the same for any number of processes.

Image i belongs to virtual shard i mod 8. Every batch takes as many images from each shard, a
process has the images of its own shards, and orders depend only on seed, epoch and shard.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Hashable, Iterator

import torch
from torch import Tensor

from .device import send
from .distributed import Group
from .random import seed_of

SHARDS = 8  # any number of processes that divides it sees the same batches


def images_per_epoch(num_images: int, batch_size: int) -> int:
    """How many images the whole batches of an epoch hold together, in all processes."""
    shards = Shards(num_images)
    return shards.batches_per_epoch(batch_size) * shards.per_shard(batch_size) * shards.count


class Shards:
    """The virtual shards of a set of images, and the part of one process.

    Args:
        num_images: N.
        seed: Of the orders.
        group: The processes.

    Attributes:
        count: Number of shards: 8, or 1 for fewer than 8 images.
        own: Shards of this process.

    Raises:
        ValueError: The processes cannot share the images evenly.
    """

    def __init__(
        self,
        num_images: int,
        *,
        seed: Hashable = 0,
        group: Group | None = None,
    ) -> None:
        group = group or Group()
        self.count = SHARDS if num_images >= SHARDS else 1
        if self.count % group.size:
            raise ValueError(
                f"expected a number of processes that divides {self.count}, got {group.size} for "
                f"{num_images} images"
            )
        each = self.count // group.size
        self.own = range(group.rank * each, (group.rank + 1) * each)
        self._num_images = num_images
        self._seed = seed
        self._orders: dict[str, tuple[int, list[Tensor]]] = {}

    def per_shard(self, batch_size: int) -> int:
        """Images of each shard in a shuffled batch."""
        return min(max(1, batch_size // self.count), self._num_images // self.count)

    def batches_per_epoch(self, batch_size: int) -> int:
        """How many shuffled batches there are before the images are shuffled again."""
        return self._num_images // self.count // self.per_shard(batch_size)

    def batch(self, stream: str, position: int, batch_size: int) -> list[Tensor]:
        """This process's part of a shuffled batch, by shard, int64, on the CPU."""
        epoch, offset = divmod(position, self.batches_per_epoch(batch_size))
        if self._orders.get(stream, (-1, []))[0] != epoch:
            order = [self._shuffled(stream, epoch, shard) for shard in self.own]
            self._orders[stream] = epoch, order
        size = self.per_shard(batch_size)
        rows = slice(offset * size, (offset + 1) * size)
        return [shard[rows] for shard in self._orders[stream][1]]

    def sweep_length(self, batch_size: int) -> int:
        """How many batches hold every image once, the same in all processes."""
        return -(-self._num_images // (self.count * max(1, batch_size // self.count)))

    def sweep(self, step: int, batch_size: int) -> list[Tensor]:
        """This process's part of a batch in order, by shard, likewise; the last may be empty."""
        size = self.count * max(1, batch_size // self.count)
        end = min((step + 1) * size, self._num_images)
        first = step * size
        return [torch.arange(min(first + shard, end), end, self.count) for shard in self.own]

    def _shuffled(self, stream: str, epoch: int, shard: int) -> Tensor:
        generator = torch.Generator().manual_seed(
            seed_of(self._seed, "order", stream, epoch, shard)
        )
        size = len(range(shard, self._num_images, self.count))
        order = torch.randperm(size, generator=generator)
        return order * self.count + shard


class Batches:
    """The batches of one run, whose images are read ahead where they are streamed.

    Args:
        shards: Which images are whose.
        device: Where indices are wanted.
        prefetch: Begins to read the images of an index, which it gets on the device and on the CPU;
            or None.
        fixed_shapes: Networks are compiled for batches of one size.
    """

    def __init__(
        self,
        shards: Shards,
        device: torch.device,
        prefetch: Callable[[Tensor, Tensor], None] | None,
        *,
        fixed_shapes: bool,
    ) -> None:
        self.counts = [0] * len(shards.own)  # images of each shard in the current batch
        self.positions: dict[str, int] = {}  # batches drawn from each stream so far
        self._shards = shards
        self._device = device
        self._prefetch = prefetch
        self._fixed_shapes = fixed_shapes

    def shuffled(
        self, steps: Iterator[int], count: int, batch_size: int, stream: str
    ) -> Iterator[Tensor]:
        """A batch for each of ``count`` steps, int64 of shape (B,), from a stream's position on."""

        def parts(step: int, ahead: int) -> list[Tensor]:
            position = self.positions.get(stream, 0) + ahead
            return self._shards.batch(stream, position, batch_size)

        for index in self._indices(steps, count, parts):
            yield index
            self.positions[stream] = self.positions.get(stream, 0) + 1

    def in_order(self, steps: Iterator[int], count: int, batch_size: int) -> Iterator[Tensor]:
        """A batch for each of ``count`` steps, int64 of shape (B,), of the images in order."""
        whole = max(1, batch_size // self._shards.count) * len(self._shards.own)

        def parts(step: int, ahead: int) -> list[Tensor]:
            return self._shards.sweep(step + ahead, batch_size)

        for index in self._indices(steps, count, parts):
            # The one smaller batch is not worth compiling again.
            odd = self._fixed_shapes and len(index) < whole
            with torch.compiler.set_stance("force_eager") if odd else contextlib.nullcontext():
                yield index

    def _indices(
        self, steps: Iterator[int], count: int, parts: Callable[[int, int], list[Tensor]]
    ) -> Iterator[Tensor]:
        """Each step's indices; ``parts`` takes a step and how many steps ahead of it, 0 or 1."""
        coming: tuple[list[int], Tensor] | None = None
        for step in steps:
            self.counts, index = coming or self._index(parts(step, 0))
            coming = None
            if self._prefetch is not None and step + 1 < count:
                ahead = parts(step, 1)
                coming = self._index(ahead)
                self._prefetch(coming[1], torch.cat(ahead))
            yield index

    def _index(self, parts: list[Tensor]) -> tuple[list[int], Tensor]:
        return [len(part) for part in parts], send(torch.cat(parts), self._device)
