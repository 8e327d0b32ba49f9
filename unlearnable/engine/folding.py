"""A network for searches: BatchNorm folded into the convolutions before it, weights cast once.

In evaluation mode BatchNorm is one factor and one summand per channel, which the convolution before
it can have in its weights. (Jacob et al., CVPR 2018, 1712.05877) Under autocast, weights without
gradients are cast at every pass; a copy of low precision is cast once.
"""

from __future__ import annotations

import copy
import inspect
from collections import Counter
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from .architectures import ResizedInput

_CAST = (nn.Conv2d, nn.Linear)  # what autocast runs in low precision


class Pair(NamedTuple):
    """Names of a convolution and of the BatchNorm that is the only user of its output."""

    convolution: str
    norm: str


class _Tracer(fx.Tracer):
    def is_leaf_module(self, module: nn.Module, qualified_name: str) -> bool:
        leaf = isinstance(module, (nn.Conv2d, nn.BatchNorm2d, ResizedInput))
        return leaf or super().is_leaf_module(module, qualified_name)


def foldable(network: nn.Module) -> list[Pair]:
    """The pairs of a network that can be folded; its state may change, so pass a copy.

    There may be a maximum over pixels between the two if the norm's scale is fixed and positive.

    Raises:
        Exception: Anything raised by a forward that does not accept stand-ins for tensors.
    """
    parameters = inspect.signature(network.forward).parameters.values()
    usual = {p.name: p.default for p in parameters if p.default is not p.empty}
    graph = _Tracer().trace(network, usual)
    calls = Counter(str(node.target) for node in graph.nodes if node.op == "call_module")
    aliases = Counter(id(m) for _, m in network.named_modules(remove_duplicate=False))
    owners = Counter(id(w) for _, w in network.named_parameters(remove_duplicate=False))
    read = {str(node.target) for node in graph.nodes if node.op == "get_attr"}

    def called(node: fx.Node, kind: type[nn.Module]) -> Any:
        """The plain module of that kind that a node calls, if nothing else refers to it."""
        if node.op != "call_module" or calls[str(node.target)] != 1:
            return None
        found: Any = network.get_submodule(str(node.target))
        plain = (
            isinstance(found, kind)
            and type(found).forward is kind.forward
            and getattr(type(found), "_conv_forward", None) is getattr(kind, "_conv_forward", None)
            and "forward" not in vars(found)
            and not (found._forward_hooks or found._forward_pre_hooks)
            and aliases[id(found)] == 1
            and all(owners[id(weight)] == 1 for weight in found.parameters())
            and not any(name.startswith(f"{node.target}.") for name in read)
        )
        return found if plain else None

    pairs = []
    for node in graph.nodes:
        norm = called(node, nn.BatchNorm2d)
        if norm is None or norm.running_mean is None:
            continue
        before, pooled = _input(node), False
        if before is not None and len(before.users) == 1 and _is_maximum(before, network):
            before, pooled = _input(before), True
        if before is None or len(before.users) != 1:
            continue
        convolution = called(before, nn.Conv2d)
        if convolution is None or "weight" not in convolution._parameters:
            continue
        fixed = not norm.affine or not (norm.weight.requires_grad or (norm.weight <= 0).any())
        if fixed or not pooled:
            pairs.append(Pair(str(before.target), str(node.target)))
    return pairs


def _input(node: fx.Node) -> fx.Node | None:
    """The one node whose result a node takes first."""
    first = node.args[0] if node.args else None
    return first if isinstance(first, fx.Node) else None


def _is_maximum(node: fx.Node, network: nn.Module) -> bool:
    if node.op == "call_module":
        return type(network.get_submodule(str(node.target))) is nn.MaxPool2d
    return node.op == "call_function" and node.target in (F.max_pool2d, torch.max_pool2d)


class FoldedNetwork:
    """A copy of a network for evaluation, updated by :meth:`refreshed`.

    Args:
        network: Is not modified; its parameters require gradients as in training.
        sample: Images for it, float (B, C, H, W) on its device, on which the copy's outputs are
            compared. A network that cannot be copied or folded correctly is used itself.
        low_precision: Store the weights of convolutions and linear layers in bfloat16.
    """

    def __init__(self, network: nn.Module, sample: Tensor, *, low_precision: bool) -> None:
        self._network = network
        self.pairs: list[Pair] = []
        self._copy: nn.Module | None = None
        for folds in (True, False):
            try:
                pairs = foldable(copy.deepcopy(network).eval()) if folds else []
                copied = copy.deepcopy(network).eval().requires_grad_(False)
                self._fold(copied, pairs, sample, low_precision)
            except Exception:  # a caller's network may do anything
                self.pairs, self._copy = [], None
            else:
                return

    def _fold(
        self, copied: nn.Module, pairs: list[Pair], sample: Tensor, low_precision: bool
    ) -> None:
        for convolution, norm in pairs:
            layer: Any = copied.get_submodule(convolution)
            layer.bias = nn.Parameter(layer.weight.new_zeros(len(layer.weight)), False)
            copied.set_submodule(norm, nn.Identity())
        self.pairs, self._copy = pairs, copied
        training = {module: module.training for module in self._network.modules()}
        try:
            with torch.no_grad(), torch.autocast(sample.device.type, enabled=False):
                torch.testing.assert_close(
                    self.refreshed()(sample), self._network.eval()(sample), rtol=1e-3, atol=1e-3
                )
        finally:
            for module, mode in training.items():
                module.training = mode
        if low_precision:
            for module in copied.modules():
                if isinstance(module, _CAST):
                    module.to(torch.bfloat16)
            with torch.no_grad(), torch.autocast(sample.device.type, torch.bfloat16):
                self.refreshed()(sample)

    @torch.no_grad()
    def refreshed(self) -> nn.Module:
        """The copy with the network's current weights, or the network if there is no copy."""
        if self._copy is None:
            return self._network
        folded = {f"{name}." for pair in self.pairs for name in pair}
        mine, state = _tensors(self._copy), _tensors(self._network)
        for name, tensor in mine.items():
            if f"{name.rpartition('.')[0]}." not in folded:
                tensor.copy_(state[name])
        for convolution, norm in self.pairs:
            layer: Any = self._network.get_submodule(convolution)
            weight, bias = _folded(layer, self._network.get_submodule(norm))
            mine[f"{convolution}.weight"].copy_(weight)
            mine[f"{convolution}.bias"].copy_(bias)
        return self._copy


def _tensors(network: nn.Module) -> dict[str, Tensor]:
    return dict(network.named_parameters()) | dict(network.named_buffers())


def _folded(convolution: nn.Conv2d, norm: Any) -> tuple[Tensor, Tensor]:
    """Weights (O, I, h, w) and summands (O,) of a convolution that normalises too."""
    factor = (norm.running_var + norm.eps).rsqrt()
    if norm.affine:
        factor = factor * norm.weight
    bias = -norm.running_mean if convolution.bias is None else convolution.bias - norm.running_mean
    bias = bias * factor + (norm.bias if norm.affine else 0)
    return convolution.weight * factor[:, None, None, None], bias
