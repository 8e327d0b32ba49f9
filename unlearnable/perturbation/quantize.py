"""What methods give becomes integers here, the one place that rounds and clips to the budget."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

Levels = NDArray[np.int8]
UNIT = 1 << 16  # weights and coefficients are kept as integer multiples of 1 / UNIT


def quantize(delta: Tensor, epsilon: float, norm: str) -> Tensor:
    """Rounds perturbations (B, C, H, W), float in [0, 1] units, to int8 levels of 1/255.

    For ``"Linf"`` no value exceeds the budget after rounding. For ``"L2"`` the norm is clipped
    before rounding, which adds at most half a level per value, and in practice 0.29 levels times
    the square root of their number.
    """
    import torch  # here, since what is kept is read without it

    levels = delta.float() * 255
    if norm == "Linf":
        most = math.floor(epsilon * 255 + 1e-6)
        levels = levels.round().clamp(-most, most)
    else:
        length = torch.linalg.vector_norm(levels, dim=(1, 2, 3), keepdim=True)
        levels = (levels * (255 * epsilon / length.clamp_min(1e-12)).clamp_max(1)).round()
    return levels.clamp(-127, 127).to(torch.int8)


class Result(NamedTuple):
    """What a method has learned, ready to store: a kind, its arrays and its settings.

    Parts on top of a method's rows have their own ``budget``: epsilon and norm.
    """

    kind: str
    tensors: dict[str, NDArray[Any]]
    settings: dict[str, Any]
    budget: tuple[float | None, str | None] = (None, None)


def encode(kind: str, parts: Mapping[str, Any], epsilon: float | None, norm: str | None) -> Result:
    """Encodes the arguments of ``run.result`` as integers; ``"class-wise"`` are additive rows.

    Rows and colours are rounded within the budget, other floats to multiples of 2^-16.
    """
    import torch
    from torch import Tensor

    tensors = {name: value for name, value in parts.items() if isinstance(value, Tensor)}
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and (broken := int((~tensor.isfinite()).sum())):
            raise ValueError(not_finite(broken, name))
    if kind == "class-wise":
        assert epsilon is not None and norm is not None
        rows = quantize(tensors["rows"], epsilon, norm)
        return Result("additive", {"rows": rows.cpu().numpy()}, {})
    if kind == "shift":
        colours = tensors["colours"][:, :, None, None]
        colours = quantize(colours, 127 / 255 if epsilon is None else epsilon, "Linf")[:, :, 0, 0]
        return Result(kind, {"colours": colours.cpu().numpy()}, {})
    integers = {
        name: (t.double() * UNIT).round().to(torch.int64) if t.is_floating_point() else t
        for name, t in tensors.items()
    }
    settings = {name: value for name, value in parts.items() if name not in tensors}
    return Result(kind, {name: tensor.cpu().numpy() for name, tensor in integers.items()}, settings)


def not_finite(count: int, what: str = "rows") -> str:
    """The message about NaN or infinite numbers."""
    return (
        f"expected finite numbers, got {count:,} {what} with NaN or infinity, because the "
        f'surrogate diverged; lower its learning rate, or use precision="float32"'
    )
