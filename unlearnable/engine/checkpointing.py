"""Blocks of a network that are computed anew for their gradient, so that little of them is kept.

(Chen et al., 1604.06174) Running statistics follow a batch once, and random layers draw the same.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .memory import counting_saved
from .random import global_seed

logger = logging.getLogger(__name__)
# What a segment of a sequence may begin with: nothing that changes its input in place.
_STARTS = (nn.Conv2d, nn.Linear, nn.MaxPool2d)


class _Recomputed:
    """In place of a ``forward``: the same, in training computed a second time for its gradient.

    Args:
        forward: What is computed.
        module: Holds the buffers that it changes.
        owner: Is in training mode or not.
        held: Bytes that it keeps meanwhile.
    """

    def __init__(
        self, forward: Callable[..., Any], module: nn.Module, owner: nn.Module, held: int
    ) -> None:
        self._forward = forward
        self._module = module
        self._owner = owner
        self.held = held

    def __call__(self, *inputs: Any) -> Any:
        if not (self._owner.training and torch.is_grad_enabled()):
            return self._forward(*inputs)
        return checkpoint(self._forward, *inputs, use_reentrant=False, context_fn=self._contexts)

    def _contexts(self) -> tuple[Any, Any]:
        return contextlib.nullcontext(), _statistics_kept(self._module)


class _Chain:
    """In place of the ``forward`` of a sequence: each step takes what the one before it gave."""

    def __init__(self, steps: Sequence[Callable[..., Any]]) -> None:
        self._steps = steps
        self.held = max((step.held for step in steps if isinstance(step, _Recomputed)), default=0)

    def __call__(self, x: Any) -> Any:
        for step in self._steps:
            x = step(x)
        return x


@contextlib.contextmanager
def _statistics_kept(module: nn.Module) -> Iterator[None]:
    """Running statistics follow what happens in copies, which are dropped."""
    owned = [(layer._buffers, dict(layer._buffers)) for layer in module.modules()]
    for buffers, own in owned:
        copies = {name: None if b is None else b.clone() for name, b in own.items()}
        buffers.update(copies)
    try:
        yield
    finally:
        for buffers, own in owned:
            buffers.update(own)


class Checkpointed(NamedTuple):
    """Modules with a replaced ``forward`` in their ``__dict__``, and the memory that they keep."""

    blocks: list[nn.Module]
    kept: int  # bytes, of the images that it was tried on


def checkpoint_blocks(network: nn.Module, images: Tensor, most: int) -> Checkpointed:
    """Replaces the ``forward`` of a network's blocks by one that keeps only its inputs.

    It is tried on a few images first: if a gradient or a running statistic differs, or the network
    has no blocks, the network is not changed.

    Args:
        network: Network in training mode.
        images: A few images of a batch, (B, C, H, W).
        most: Bytes that a block may keep for them, unless it contains no blocks.
    """
    with _buffers_restored(network), global_seed(0, images.device):
        held = _held(network, images)
    blocks = _blocks(network, held, most, held[network] // 2)
    expected = _learned(network, images)
    for module, forward in blocks.items():
        replaced: Any = module
        replaced.forward = forward
    try:
        torch.testing.assert_close(_learned(network, images), expected, rtol=1e-3, atol=1e-5)
    except Exception as error:  # a caller's network may do anything
        for module in blocks:
            del module.__dict__["forward"]
        logger.info("large batches are kept whole (%s)", type(error).__name__)
        return Checkpointed([], held[network])
    with _buffers_restored(network), global_seed(0, images.device):
        kept = _held(network, images)[network]
    return Checkpointed(list(blocks), kept + max((by.held for by in blocks.values()), default=0))


def _learned(network: nn.Module, images: Tensor) -> list[Tensor]:
    """Gradients of the weights, and the buffers after the pass, which leaves no trace."""
    weights = [weight for weight in network.parameters() if weight.requires_grad]
    with _buffers_restored(network), global_seed(0, images.device):
        loss = network.forward(images).float().square().sum()
        slopes = torch.autograd.grad(loss, weights, allow_unused=True)
        return [slope for slope in slopes if slope is not None] + [
            buffer.clone() for buffer in network.buffers()
        ]


@contextlib.contextmanager
def _buffers_restored(network: nn.Module) -> Iterator[None]:
    before = [buffer.clone() for buffer in network.buffers()]
    try:
        yield
    finally:
        for buffer, value in zip(network.buffers(), before, strict=True):
            buffer.copy_(value)


def _held(network: nn.Module, images: Tensor) -> dict[nn.Module, int]:
    """Bytes that each module keeps of the images for its gradient."""
    held = dict.fromkeys(network.modules(), 0)
    weights = {weight.untyped_storage().data_ptr() for weight in network.parameters()}
    inside = [network]

    def count(storage: torch.UntypedStorage) -> None:
        if storage.data_ptr() not in weights:
            for module in inside:
                held[module] += storage.nbytes()

    def enter(module: nn.Module, inputs: Any) -> None:
        inside.append(module)

    def leave(module: nn.Module, inputs: Any, output: Any) -> None:
        inside.pop()

    hooks = []
    for module in held.keys() - {network}:
        hooks += [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]
    try:
        with counting_saved(count):
            network.forward(images)
    finally:
        for hook in hooks:
            hook.remove()
    return held


Blocks = dict[nn.Module, _Recomputed | _Chain]


def _blocks(module: nn.Module, held: dict[nn.Module, int], most: int, largest: int) -> Blocks:
    """The blocks inside a module, and what replaces the forward of each.

    Args:
        module: Keeps more than ``most``.
        held: What each keeps.
        most: A block keeps no more, or there are no blocks inside it.
        largest: What keeps more is no block: nothing would be gained by it.
    """

    def of(child: nn.Module) -> Blocks:
        inner = _blocks(child, held, most, largest) if held[child] > most else {}
        if inner or not any(child.children()) or not 0 < held[child] <= largest:
            return inner
        return {child: _Recomputed(child.forward, child, child, held[child])}

    if type(module) is not nn.Sequential:
        return {block: by for child in module.children() for block, by in of(child).items()}
    found: Blocks = {}
    steps: list[Callable[..., Any]] = []
    segment: list[nn.Module] = []

    def close() -> None:
        joined = nn.Sequential(*segment)
        keeps = sum(held[layer] for layer in segment)
        steps.append(_Recomputed(joined.forward, joined, module, keeps) if keeps else joined)
        segment.clear()

    for child in module:
        inner = of(child) if held[child] > most else {}
        full = sum(held[layer] for layer in segment) >= most and isinstance(child, _STARTS)
        if segment and (inner or full):
            close()
        if inner:
            found |= inner
            steps.append(child)
        else:
            segment.append(child)
    if segment:
        close()
    return found | {module: _Chain(steps)} if len(steps) > 1 else {}
