"""What a run finds out with its first network: how precisely it works, and what that takes."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from .distributed import Group
from .estimate import Work, estimate
from .networks import Networks
from .precision import Pace, Precision, choose_precision, measure_pace


class Trial:
    """A trial of a run's first network, in the first process for all processes.

    Args:
        networks: The run's networks, whose precision may be ``"auto"`` so far.
        work: The work to be done, or None if nothing is estimated.
        group: The processes of the run.
        sample: Function that returns the first images, as many as requested, float (B, C, H, W).
        labels: Labels of all images, (N,).
    """

    def __init__(
        self,
        networks: Networks,
        work: Work | None,
        group: Group,
        sample: Callable[[int], Tensor],
        labels: Tensor,
    ) -> None:
        self._networks = networks
        self._work = work
        self._group = group
        self._sample = sample
        self._labels = labels
        self._pace: Pace | None = None

    def settle(self, network: nn.Module) -> None:
        """Resolves ``"auto"``, and times the network if work is to be estimated."""
        asked = self._networks.precision
        to_time = self._work is not None and self._pace is None
        if asked != "auto" and not to_time:
            return
        with self._group.rank_zero_first() as first:
            chosen = None
            if first:
                images = self._sample(64)
                labels = self._labels[: len(images)]
                network.to(images.device)
                chosen = Precision(asked, self._networks.precision_reason)
                if asked == "auto":
                    chosen = choose_precision(network, images, labels)
                if to_time:
                    self._pace = chosen.pace or measure_pace(network, images, labels, chosen.name)
        decided = self._group.share(chosen and chosen[:2])
        self._networks.precision, self._networks.precision_reason = decided

    def estimate(self, network: nn.Module) -> None:
        """Logs once what the work is expected to take, with a placed network."""
        work, self._work = self._work, None
        if work is None or self._group.rank > 0:
            return
        images, done = self._sample(2), self._networks.passes
        whole, size = max(1, min(work.batch, len(self._labels))), self._group.size
        own = -(-whole // size)  # images of a batch that this process has
        searched = own * (work.searched // max(1, work.batch))
        kept = self._networks.kept(network, images, own, searched)
        estimate(
            work._replace(passes=max(0, work.passes - done), batch=own, searched=searched),
            network,
            images,
            self._networks.precision,
            self._pace,
            kept,
            size,
            self._group.size_here(),
        ).say()
