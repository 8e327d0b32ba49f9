"""Weights in 8 bits: a quarter of the room of float32, for networks that come with the package."""

from __future__ import annotations

import torch
from torch import Tensor

_SCALE = ":scale"  # no name in a state dict ends so
_MOST = 127


def quantized(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state dict in 8 bits, for :func:`dequantized`.

    Every slice of a tensor along its first dimension, such as an output channel of a convolution,
    becomes integers of -127 to 127 times a scale of its own, which stands beside the tensor under
    its name and ``:scale``. Floats of fewer than two dimensions, as in norms, become float16, and
    integers stay. What :func:`dequantized` gives is quantized without further loss.
    """
    small = {}
    for name, value in state.items():
        if not value.is_floating_point():
            small[name] = value
        elif value.dim() < 2:
            small[name] = value.half()
        else:
            # The few bits of bfloat16 make level times scale exact, so that nothing is lost twice.
            largest = value.float().flatten(1).abs().amax(1)
            scale = (largest / _MOST).bfloat16()
            levels = value.float() / _along_first(scale.where(scale > 0, 1), value)
            small[name] = levels.round().clamp(-_MOST, _MOST).to(torch.int8)
            small[name + _SCALE] = scale
    return small


def dequantized(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """What :func:`quantized` made, or any other state dict as it is, with its weights as floats.

    Raises:
        ValueError: There is not one scale for each slice of a tensor.
    """
    weights = {name: value for name, value in state.items() if not name.endswith(_SCALE)}
    for name in [name for name in weights if name + _SCALE in state]:
        value, scale = weights[name], state[name + _SCALE]
        if scale.shape != value.shape[:1]:
            raise ValueError(f"expected {len(value)} scales for {name}, got {tuple(scale.shape)}")
        weights[name] = value * _along_first(scale, value)
    return weights


def _along_first(scale: Tensor, value: Tensor) -> Tensor:
    """A scale (N,) as (N, 1, ...) float32, to multiply a tensor with."""
    return scale.float().view(-1, *[1] * (value.dim() - 1))
