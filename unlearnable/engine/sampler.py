"""Which images are in which batch, and whose: the same for any number of processes up to 8.

Image i belongs to virtual shard i mod 8, or mod the number of processes where a fit begins with
more. Every batch takes as many images from each shard, a process has the images of its own shards,
and orders depend only on seed, epoch, shard and the number of shards.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Hashable, Iterator

import torch
from torch import Tensor

from .device import send
from .distributed import Group
from .random import seed_of

SHARDS = 8  # up to as many processes see the same batches
_COMPANIONS = 4  # images of a group that a mixed sweep keeps together, at least


def dealt(shards: int, rank: int, size: int) -> range:
    """The shards of process ``rank`` of ``size``; numbers differ by at most one."""
    each, more = divmod(shards, size)
    first = rank * each + min(rank, more)
    return range(first, first + each + (rank < more))


def images_per_epoch(num_images: int, batch_size: int) -> int:
    """Number of images in the complete batches of an epoch, with up to 8 processes."""
    batches = Shards(num_images).batches_per_epoch(batch_size)
    return batches * images_per_batch(num_images, batch_size)


def images_per_batch(num_images: int, batch_size: int, among: int | None = None) -> int:
    """Number of images in a shuffled batch, with up to 8 processes."""
    shards = Shards(num_images)
    return shards.per_shard(batch_size, among) * shards.count


def batches_for(visits: float, num_images: int, batch_size: int, among: int | None = None) -> int:
    """Number of shuffled batches, at least 1, that visit each image this often."""
    batch = images_per_batch(num_images, batch_size, among)
    return max(1, round(visits * images_among(num_images, among) / batch))


def images_among(num_images: int, among: int | None) -> int:
    """Number of images used if ``among`` of them are requested; None means all."""
    return Shards(num_images).images_among(among)


def ranks_within(groups: Tensor) -> Tensor:
    """For each item, how many before it are of the same group, int64 (n,), on the CPU.

    Args:
        groups: Group of every item, such as an image's class, int64 (n,), on the CPU.
    """
    order, sizes = groups.argsort(stable=True), groups.bincount()
    starts = sizes.cumsum(0) - sizes
    ranks = torch.empty_like(groups)
    ranks[order] = torch.arange(len(groups)) - starts[groups[order]]
    return ranks


class Shards:
    """The virtual shards of a set of images, and the part of this process.

    Args:
        num_images: N.
        seed: Seed of the orders.
        group: The processes.
        count: Number of shards that a resumed run started with.

    Attributes:
        count: Number of shards: 8, or the number of processes if that is larger, or 1 for a single
            process with fewer than 8 images.
        own: Shards of this process.
        weight: Weight, in the mean over processes, of a mean over this process's images of a
            shuffled batch, so that all images count equally: 1.0 if all have the same number of
            shards.

    Raises:
        ValueError: There are fewer images than shards, or fewer shards than processes.
    """

    def __init__(
        self,
        num_images: int,
        *,
        seed: Hashable = 0,
        group: Group | None = None,
        count: int | None = None,
    ) -> None:
        group = group or Group()
        if count is None:
            alone = group.size == 1 and num_images < SHARDS
            count = 1 if alone else max(SHARDS, group.size)
            if num_images < count and not alone:
                raise ValueError(
                    f"expected at least {count} images for {group.size} processes, got "
                    f"{num_images}; use fewer processes"
                )
        elif group.size > count:
            raise ValueError(
                f"expected at most as many processes as the {count} shards that this fit started "
                f"with, got {group.size}; use fewer processes"
            )
        self.count = count
        self.own = dealt(count, group.rank, group.size)
        self.weight = len(self.own) * group.size / count
        self._num_images = num_images
        self._seed = seed
        self._orders: dict[str, tuple[int, list[Tensor]]] = {}

    def per_shard(self, batch_size: int, among: int | None = None) -> int:
        """Number of images of each shard in a shuffled batch."""
        return min(max(1, batch_size // self.count), self._used(among))

    def batches_per_epoch(self, batch_size: int, among: int | None = None) -> int:
        """Number of shuffled batches before the images are shuffled again."""
        return self._used(among) // self.per_shard(batch_size, among)

    def batch(
        self, stream: str, position: int, batch_size: int, among: int | None = None
    ) -> list[Tensor]:
        """This process's part of a shuffled batch, by shard, int64, on the CPU.

        ``among`` is the number of images that batches are drawn from, chosen by the seed and the
        same in each epoch; None means all.
        """
        epoch, offset = divmod(position, self.batches_per_epoch(batch_size, among))
        if self._orders.get(stream, (-1, []))[0] != epoch:
            order = [self._shuffled(stream, epoch, shard, among) for shard in self.own]
            self._orders[stream] = epoch, order
        size = self.per_shard(batch_size, among)
        rows = slice(offset * size, (offset + 1) * size)
        return [shard[rows] for shard in self._orders[stream][1]]

    def sweep_length(self, batch_size: int, among: int | None = None) -> int:
        """Number of batches that contain every image once, the same in all processes."""
        each = max(1, batch_size // self.count)
        if self._is_part(among):
            return -(-self._used(among) // each)
        return -(-self._num_images // (self.count * each))

    def sweep(self, step: int, batch_size: int, among: int | None = None) -> list[Tensor]:
        """This process's part of a batch in order, by shard; the last one may be empty.

        ``among`` is as in :meth:`batch`, which chooses the same images.
        """
        each = max(1, batch_size // self.count)
        if self._is_part(among):
            rows = slice(step * each, (step + 1) * each)
            return [self._images(shard, self._chosen(shard, among)[rows]) for shard in self.own]
        size = self.count * each
        end = min((step + 1) * size, self._num_images)
        first = step * size
        return [torch.arange(min(first + shard, end), end, self.count) for shard in self.own]

    def mixed(self, stream: str, position: int, batch_size: int, groups: Tensor) -> list[Tensor]:
        """This process's part of a batch of a shuffled sweep, by shard.

        Each sweep contains every image once, in batches with several images of each of their
        groups: the images of a group come from one shard each, or more if few shards have any, in
        an order shared by all shards, which spreads each group over the whole sweep.

        Args:
            stream: Name of the stream of sweeps.
            position: Number of batches of the stream so far.
            batch_size: Largest number of images per batch, over all processes.
            groups: Group of every image, int64 (N,), on the CPU.
        """
        length = self.sweep_length(batch_size)
        sweep, offset = divmod(position, length)
        if self._orders.get(stream, (-1, []))[0] != sweep:
            self._orders[stream] = sweep, self._grouped(stream, sweep, groups)
        size = -(-self._num_images // (self.count * length))
        rows = slice(offset * size, (offset + 1) * size)
        return [shard[rows] for shard in self._orders[stream][1]]

    def _grouped(self, stream: str, sweep: int, groups: Tensor) -> list[Tensor]:
        """The images of each own shard in the order of :meth:`mixed`."""
        number = int(groups.max()) + 1
        shards = torch.arange(len(groups)) % self.count
        held = (shards * number + groups).bincount(minlength=self.count * number)
        held = held.view(self.count, number)  # images of each shard and group
        most, total = held.amax(0), held.sum(0).clamp_min(1)
        together = (-(-_COMPANIONS * most // total)).clamp_min(1)  # of a shard, at once
        parts = (most // together).clamp_min(1)  # of a group, one after the other in every shard
        generator = torch.Generator().manual_seed(seed_of(self._seed, "mixed", stream, sweep))
        jitter = torch.rand(int(parts.sum()), generator=generator, dtype=torch.float64)
        first = parts.cumsum(0) - parts
        found = []
        for shard in self.own:
            size = len(range(shard, self._num_images, self.count))
            order = self._permutation(size, "mixed", stream, sweep, shard)
            group = groups[self._images(shard, order)]
            part = ranks_within(group) * parts[group] // most[group]
            places = (part + jitter[first[group] + part]) / parts[group]
            found.append(self._images(shard, order[places.argsort(stable=True)]))
        return found

    def own_of(self, flags: Tensor) -> Tensor:
        """Flags of images, bool (N,), set to False for images of other processes."""
        shards = torch.arange(self._num_images, device=flags.device) % self.count
        return flags & (shards >= self.own.start) & (shards < self.own.stop)

    def images_among(self, among: int | None) -> int:
        """Number of images that batches are drawn from, in all processes."""
        return self._used(among) * self.count if self._is_part(among) else self._num_images

    def _is_part(self, among: int | None) -> bool:
        return among is not None and among < self._num_images

    def _used(self, among: int | None) -> int:
        """Images of each shard that batches are drawn from."""
        used = self._num_images if among is None else min(among, self._num_images)
        return max(1, used // self.count)

    def _chosen(self, shard: int, among: int | None) -> Tensor:
        """Places in a shard of the images that stand for all, in order."""
        size = len(range(shard, self._num_images, self.count))
        return self._permutation(size, "among", shard)[: self._used(among)].sort().values

    def _shuffled(self, stream: str, epoch: int, shard: int, among: int | None) -> Tensor:
        size = len(range(shard, self._num_images, self.count))
        order = self._permutation(size, "order", stream, epoch, shard)
        if self._is_part(among):
            chosen = self._chosen(shard, among)
            order = chosen[order[order < len(chosen)]]
        return self._images(shard, order)

    def _images(self, shard: int, places: Tensor) -> Tensor:
        return places * self.count + shard

    def _permutation(self, size: int, *purpose: Hashable) -> Tensor:
        generator = torch.Generator().manual_seed(seed_of(self._seed, *purpose))
        return torch.randperm(size, generator=generator)


class Batches:
    """The batches of a run; streamed images are read ahead.

    Args:
        shards: Assignment of images to processes.
        device: Device of the indices.
        prefetch: Function that starts reading the images of an index, passed on the device and on
            the CPU; or None.
        fixed_shapes: Whether networks are compiled for batches of one size.
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
        self,
        steps: Iterator[int],
        count: int,
        batch_size: int,
        stream: str,
        among: int | None = None,
    ) -> Iterator[Tensor]:
        """A batch for each of ``count`` steps, int64 (B,), starting at a stream's position."""
        return self._from_stream(
            steps, count, stream, lambda at: self._shards.batch(stream, at, batch_size, among)
        )

    def mixed(
        self, steps: Iterator[int], count: int, batch_size: int, stream: str, groups: Tensor
    ) -> Iterator[Tensor]:
        """A batch for each step of a sweep of ``count`` steps, from :meth:`Shards.mixed`."""
        return self._from_stream(
            steps, count, stream, lambda at: self._shards.mixed(stream, at, batch_size, groups)
        )

    def _from_stream(
        self,
        steps: Iterator[int],
        count: int,
        stream: str,
        parts_at: Callable[[int], list[Tensor]],
    ) -> Iterator[Tensor]:
        """Each step's indices, by the number of batches that the stream gave before."""

        def parts(step: int, ahead: int) -> list[Tensor]:
            return parts_at(self.positions.get(stream, 0) + ahead)

        for index in self._indices(steps, count, parts):
            yield index
            self.positions[stream] = self.positions.get(stream, 0) + 1

    def in_order(
        self, steps: Iterator[int], count: int, batch_size: int, among: int | None = None
    ) -> Iterator[Tensor]:
        """A batch for each of ``count`` steps, int64 (B,), of the images in order."""
        whole = max(1, batch_size // self._shards.count) * len(self._shards.own)

        def parts(step: int, ahead: int) -> list[Tensor]:
            return self._shards.sweep(step + ahead, batch_size, among)

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
