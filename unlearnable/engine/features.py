"""What a network's last Linear layer is given: the features that its logits are made of."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


def features_of(
    layers: nn.Module, images: Tensor, forward: Callable[[Tensor], Any] | None = None
) -> Tensor:
    """The inputs of the Linear layer called last, float32 (B, D).

    Args:
        layers: The network, or the part of it that contains the layer.
        images: Input images, (B, C, H, W).
        forward: Function that calls the layers; None means the network itself.

    Raises:
        ValueError: There is no Linear layer.
    """
    seen: list[tuple[nn.Module, Tensor]] = []
    hooks = [
        layer.register_forward_hook(lambda layer, inputs, output: seen.append((layer, inputs[0])))
        for layer in layers.modules()
        if isinstance(layer, nn.Linear)
    ]
    # Compiled code does not know of the hooks; where nothing is compiled, its module is not there.
    compiled = "torch._dynamo" in sys.modules
    eager = torch.compiler.set_stance("force_eager") if compiled else contextlib.nullcontext()
    try:
        with eager:
            (forward or layers)(images)
    finally:
        for hook in hooks:
            hook.remove()
    if not seen:
        raise ValueError(
            f"expected a surrogate with a Linear layer, whose inputs are used as features, got a "
            f"{type(layers).__name__} without one; add one as the last layer"
        )
    # A large batch goes through in parts, and then this layer has been called for each.
    last, parts = seen[-1][0], list[Tensor]()
    for layer, features in reversed(seen):
        if layer is last and (not parts or sum(map(len, parts)) < len(images)):
            parts.insert(0, features)
    return torch.cat(parts).flatten(1).float()


class WithExamples(nn.Module):
    """A network together with features of images learned with it.

    Args:
        network: Network from images to logits.
        features: Features of the images, float32 (n, D).
        labels: Their classes, int64 (n,).
    """

    features: Tensor
    labels: Tensor

    def __init__(self, network: nn.Module, features: Tensor, labels: Tensor) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("features", features)
        self.register_buffer("labels", labels)

    def forward(self, images: Tensor) -> Tensor:
        """The network's logits."""
        logits: Tensor = self.network(images)
        return logits
