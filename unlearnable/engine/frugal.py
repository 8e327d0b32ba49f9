"""Networks that keep less of large batches, and give the same.

In evaluation mode images do not depend on one another: a batch goes through in parts, of which all
but the last are computed a second time when their gradient is due. In training mode BatchNorm sees
the whole batch, so there the network's blocks are (:mod:`.checkpointing`). Either gives what the
whole batch gives, up to the order of floating-point sums.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .checkpointing import Checkpointed, checkpoint_blocks

_PARTS = 16  # of what a batch may keep: smaller parts take no more time


class Frugal:
    """Replaces a network's ``forward`` by an equivalent one that keeps less of a large batch.

    Args:
        network: Its ``forward`` is replaced until :meth:`close`.
        per_image: Bytes kept per image, 0 if unknown.
        limit: Bytes above which a batch is large.
        scarce: Called when the network learns from a batch of at least half this size, and when a
            search's images by themselves exceed the parts that they are split into.
    """

    def __init__(
        self, network: nn.Module, per_image: int, limit: int, scarce: Callable[[], None]
    ) -> None:
        self._network: Any = network
        self._forward = self._in_training = network.forward
        self._per_image = per_image
        self._limit = limit
        self._scarce = scarce
        self._checkpointed: Checkpointed | None = None
        self._network.forward = self

    def __call__(self, images: Tensor, *args: Any) -> Tensor:
        large = self._is_large(len(images))
        if self._network.training:
            if self._is_large(2 * len(images)):
                self._scarce()
            if large and torch.is_grad_enabled():
                self._checkpoint(images[:2].detach(), len(images))
            return self._in_training(images, *args)
        if large:
            if images.nbytes > self._limit // _PARTS:
                self._scarce()
            return in_parts(self._forward, images, self._part, *args)
        return self._forward(images, *args)

    def _is_large(self, batch: int) -> bool:
        return batch * self._per_image > self._limit

    @property
    def _part(self) -> int:
        """Images of a part."""
        return max(1, self._limit // _PARTS // self._per_image)

    def _checkpoint(self, few: Tensor, batch: int) -> Checkpointed:
        """Its blocks, found once."""
        if self._checkpointed is None:
            del self._network.forward
            most = self._limit // _PARTS * len(few) // batch
            self._checkpointed = checkpoint_blocks(self._network, few, most)
            self._in_training = self._network.forward  # another one where it is a chain of blocks
            self._network.forward = self
        return self._checkpointed

    def kept_in_training(self, few: Tensor, batch: int) -> float:
        """Largest number of bytes that a batch keeps, determined with a few images (B, C, H, W)."""
        if not self._is_large(batch):
            return batch * self._per_image
        self._network.train()
        return self._checkpoint(few, batch).kept * batch / len(few)

    def kept_in_search(self, batch: int) -> int:
        """Largest number of bytes that a batch keeps in evaluation mode."""
        return (self._part if self._is_large(batch) else batch) * self._per_image

    def close(self) -> None:
        """Restores the ``forward`` of the network and its blocks."""
        blocks = self._checkpointed.blocks if self._checkpointed else []
        for module in {self._network, *blocks}:
            module.__dict__.pop("forward", None)


def in_parts(forward: Callable[..., Tensor], images: Tensor, most: int, *args: Any) -> Tensor:
    """Applies ``forward`` to a batch, at most ``most`` images at a time.

    If a gradient is needed, all parts except the last are computed a second time.

    Args:
        forward: Function from images (B, …) to (B, …) that treats each image independently.
        images: (B, …).
        most: Images per part, at least 1.
        args: Further arguments of ``forward``.
    """
    *others, last = images.split(most)
    if torch.is_grad_enabled():
        found = [checkpoint(forward, part, *args, use_reentrant=False) for part in others]
    else:
        found = [forward(part, *args) for part in others]
    return torch.cat([*found, forward(last, *args)])
