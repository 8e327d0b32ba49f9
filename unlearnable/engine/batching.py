"""Batches of image indices, shuffled, in order or with companions."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator

from torch import Tensor

from .sampler import Batches, Shards


class Batching:
    """The part of :class:`~.run.Run` that walks over images."""

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

        Epoch after epoch without replacement; a call continues where the last one of the same
        ``stream`` ended. Every batch takes the same number of images from each virtual shard (8,
        or as many as processes that began the run), so B is ``batch_size`` rounded down to a
        multiple of those, or less in a small set; a process has the images of its own shards.
        With ``among``, batches are drawn from so many images only, which the seed chooses.
        """
        return self._batches.shuffled(self.steps(count, title), count, batch_size, stream, among)

    def sweep(
        self, batch_size: int, title: str = "sweep", *, among: int | None = None
    ) -> Iterator[Tensor]:
        """Batches of image indices, int64 of shape (B,), that hold every image exactly once.

        All processes get the same number of batches; the last ones may be empty. With ``among``,
        these are the images that :meth:`batches` takes with it.
        """
        count = self._shards.sweep_length(batch_size, among)
        return self._batches.in_order(self.steps(count, title), count, batch_size, among)

    def mixed(
        self, groups: Tensor, batch_size: int, stream: str = "mixed", title: str = "sweep"
    ) -> Iterator[Tensor]:
        """As :meth:`sweep`, in batches that hold several images of each of their groups.

        Each sweep of the same ``stream`` shuffles anew. Batches are about equally large and hold
        all groups in proportion or, where those are many, some of them.

        Args:
            groups: Of every image, int64 (N,), on the CPU: such as classes.
            batch_size: Images of a batch, at most.
            stream: Of sweeps.
            title: Shown beside the bar.
        """
        count = self._shards.sweep_length(batch_size)
        return self._batches.mixed(self.steps(count, title), count, batch_size, stream, groups)

    def batches_per_epoch(self, batch_size: int) -> int:
        """How many batches :meth:`batches` draws before it shuffles anew."""
        return self._shards.batches_per_epoch(batch_size)
