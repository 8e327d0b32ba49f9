"""Batches of image indices, shuffled, in order or with companions."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator

from torch import Tensor

from .sampler import Batches, Shards


class Batching:
    """The part of :class:`~.run.Run` that iterates over images."""

    _batches: Batches
    _shards: Shards

    @abstractmethod
    def steps(self, count: int, title: str = "steps") -> Iterator[int]:
        """0 to ``count`` - 1, ended early by :meth:`Run.stop <.run.Run.stop>`."""

    def batches(
        self,
        count: int,
        batch_size: int,
        stream: str = "train",
        title: str = "steps",
        *,
        among: int | None = None,
    ) -> Iterator[Tensor]:
        """``count`` shuffled batches of image indices, int64 of shape (B,).

        Images are drawn epoch after epoch without replacement; a call continues where the last one
        of the same ``stream`` ended. Every batch takes the same number of images from each virtual
        shard (8, or the number of processes that started the run, if larger), so B is
        ``batch_size`` rounded down to a multiple of that, or less for a small set; each process
        gets the images of its own shards. With ``among``, batches are drawn from only this many
        images, chosen by the seed.
        """
        return self._batches.shuffled(self.steps(count, title), count, batch_size, stream, among)

    def sweep(
        self, batch_size: int, title: str = "sweep", *, among: int | None = None
    ) -> Iterator[Tensor]:
        """Batches of image indices, int64 of shape (B,), that contain every image exactly once.

        All processes get the same number of batches; the last ones may be empty. With ``among``,
        these are the images that :meth:`batches` uses.
        """
        count = self._shards.sweep_length(batch_size, among)
        return self._batches.in_order(self.steps(count, title), count, batch_size, among)

    def mixed(
        self, groups: Tensor, batch_size: int, stream: str = "mixed", title: str = "sweep"
    ) -> Iterator[Tensor]:
        """Like :meth:`sweep`, in batches that contain several images of each of their groups.

        Each sweep of the same ``stream`` shuffles anew. Batches are of about equal size and contain
        all groups in proportion or, if there are many, some of them.

        Args:
            groups: Group of every image, such as its class, int64 (N,), on the CPU.
            batch_size: Largest number of images per batch.
            stream: Name of the stream of sweeps.
            title: Shown next to the progress bar.
        """
        count = self._shards.sweep_length(batch_size)
        return self._batches.mixed(self.steps(count, title), count, batch_size, stream, groups)

    def batches_per_epoch(self, batch_size: int) -> int:
        """Number of batches that :meth:`batches` draws before it shuffles again."""
        return self._shards.batches_per_epoch(batch_size)
