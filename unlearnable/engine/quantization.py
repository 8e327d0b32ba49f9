"""Weights in 8 bits: a quarter of the room of float32, for networks that come with the package."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from .checkpoint import save_tensors

_MARK = {"weights": "8 bits"}
_SCALE = ":scale"
_MOST = 127


def save_quantized(path: Path, state: dict[str, Tensor]) -> None:
    """Writes the weights of a state dict in 8 bits, for :func:`load_weights`.

    Raises:
        OSError: The disk is full or read-only.
    """
    save_tensors(path, quantized(state), _MARK)


def load_weights(path: Path) -> dict[str, Tensor]:
    """The state dict in a file, of :func:`save_quantized` or any other safetensors file.

    Raises:
        ValueError: The scales of weights in 8 bits do not fit them.
        SafetensorError: The file is damaged.
    """
    with safe_open(path, "pt") as file:
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        marked = (file.metadata() or {}).items() >= _MARK.items()
    return dequantized(state) if marked else state


def quantized(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state dict in 8 bits, for :func:`dequantized`.

    Every slice of a tensor along its first dimension, such as an output channel of a convolution,
    becomes integers of -127 to 127 times a scale of its own, which stands beside the tensor under
    its name and ``:scale``. Tensors of fewer than two dimensions, as in norms, and integers stay.
    What :func:`dequantized` gives is quantized without further loss.
    """
    small = {}
    for name, value in state.items():
        small[name] = value
        if value.is_floating_point() and value.dim() >= 2 and value.numel():
            # The few bits of bfloat16 make level times scale exact, so that nothing is lost twice.
            largest = value.float().flatten(1).abs().amax(1)
            scale = (largest / _MOST).bfloat16()
            levels = value.float() / _along_first(scale.where(scale > 0, 1), value)
            small[name] = levels.round().clamp(-_MOST, _MOST).to(torch.int8).contiguous()
            small[name + _SCALE] = scale
    return small


def dequantized(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """What :func:`quantized` made, with its weights as floats.

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
