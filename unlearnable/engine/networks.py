"""The networks of a run: where they are, how precisely they work, and how their weights change."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from .allocator import KeptMemory
from .distributed import Group
from .folding import FoldedNetwork
from .frugal import Frugal
from .kernels import fastest_convolutions
from .memory import bytes_per_image, usual_limit
from .precision import full_float32
from .random import global_seed

Network = TypeVar("Network", bound=nn.Module)


class Networks:
    """The networks of a run.

    Args:
        device: Device of the networks.
        precision: Precision of passes.
        compile: Compile those that are trained.
        group: The processes that train them together.
        weight: Weight of this process's mean loss in the mean over processes.
        memory: Bytes that a batch may keep for its gradient before less of it is kept; None means
            :func:`~.memory.usual_limit`.

    Attributes:
        precision: Precision of passes: ``"float32"`` or ``"bf16"``; ``"auto"`` before the first
            network.
        precision_reason: The reason for this precision.
        passes: Number of images passed forward in this process.
    """

    def __init__(
        self,
        device: torch.device,
        precision: str,
        *,
        compile: bool,
        group: Group,
        weight: float = 1.0,
        memory: int | None = None,
    ) -> None:
        self.passes = 0
        self.precision = precision
        self.precision_reason = "no network" if precision == "auto" else "asked for"
        self._device = device
        self._compile = compile
        self._group = group
        self._kept_memory = KeptMemory(device)
        self._weight = weight
        self._hooks: list[Any] = []
        self._compiled: list[nn.Module] = []
        self._parallel: dict[int, nn.Module] = {}
        self._folded: dict[int, FoldedNetwork] = {}
        self._frugal: dict[int, Frugal] = {}
        self._memory = usual_limit(device, group.size_here()) if memory is None else memory

    def place(self, model: nn.Module, sample: Tensor) -> None:
        """Moves a model to the device, with channels-last weights, and counts its images.

        Without compilation, a copy for searches is made, which is tested on the float ``sample``.
        """
        model.to(self._device)
        model.to(memory_format=torch.channels_last)
        if not self._compile:
            half = self.precision == "bf16"
            with global_seed(0, self._device):
                self._folded[id(model)] = FoldedNetwork(model, sample, low_precision=half)
            copied = self._folded[id(model)].refreshed()
            if copied is not model:
                self._hooks.append(copied.register_forward_pre_hook(self._count))
                self._save_memory(copied, sample)
            self._save_memory(model, sample)
        self._hooks.append(model.register_forward_pre_hook(self._count))

    def place_trained(self, model: nn.Module, sample: Tensor) -> None:
        """Like :meth:`place`; also compiles the model if the run compiles."""
        self.place(model, sample)
        if self._compile:
            # Not model.compile(): that traces the hook too, whose counter never stays.
            model.forward = torch.compile(model.forward, dynamic=False)
            self._compiled.append(model)

    def _save_memory(self, model: nn.Module, sample: Tensor) -> None:
        with self.autocast(), global_seed(0, self._device):
            per_image = bytes_per_image(model, sample)
        # Kept memory leaves holes between buffers of many sizes, as much as a quarter of it.
        scarce = self._kept_memory.close
        self._frugal[id(model)] = Frugal(model, per_image, self._memory, scarce)

    def kept(self, model: nn.Module, few: Tensor, batch: int, searched: int) -> float:
        """Largest number of bytes that passes through a placed network keep for gradients.

        Args:
            model: The network, which is in training mode afterwards.
            few: Images for it, float (B, C, H, W).
            batch: Images that it learns from at once.
            searched: Images that a search sees at once.
        """
        if id(model) not in self._frugal:  # compiled
            return 0
        copied = self._frugal.get(id(self.for_search(model)), self._frugal[id(model)])
        with self.autocast():
            trained = self._frugal[id(model)].kept_in_training(few, batch)
        return max(trained, copied.kept_in_search(searched))

    def _count(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self.passes += len(inputs[0])

    @contextlib.contextmanager
    def autocast(self) -> Iterator[None]:
        """Applies the precision of passes."""
        half = torch.autocast(self._device.type, torch.bfloat16, enabled=self.precision == "bf16")
        with self._kernels(), half:
            yield

    @contextlib.contextmanager
    def _kernels(self) -> Iterator[None]:
        """Torch's settings for passes forward and backward."""
        half = self.precision == "bf16"
        exact = contextlib.nullcontext() if half else full_float32(self._device)
        with fastest_convolutions(self._device), exact:
            yield

    def update(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        loss_fn: Callable[[nn.Module], Tensor],
        *,
        clip_norm: float | None,
        seed: int,
    ) -> Tensor:
        """One optimiser step; ``seed`` is for layers that draw random numbers, such as dropout."""
        model.train()
        network = model
        if self._group.size > 1:
            if id(model) not in self._parallel:
                self._parallel[id(model)] = self._group.parallel(model)
            network = self._parallel[id(model)]
        with self.autocast(), global_seed(seed, self._device):
            loss = loss_fn(network)
        if not loss.requires_grad:
            raise ValueError(
                "expected a network with weights to train, got one whose weights are all frozen; "
                "call requires_grad_(True) on those to train"
            )
        optimizer.zero_grad(set_to_none=True)
        with self._kernels():
            # Gradients are averaged over processes, whatever the number of their images.
            (loss if self._weight == 1 else loss * self._weight).backward()
        if clip_norm is not None:
            nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
        optimizer.step()
        self._group.mean_buffers(model, self._weight)
        return loss.detach()

    def for_search(self, model: Network) -> Network:
        """The folded copy, used for a placed model while its weights do not change."""
        if id(model) not in self._folded:
            return model
        folded: Any = self._folded[id(model)].refreshed()
        return folded

    def close(self) -> None:
        """Restores the models: no longer counted or compiled."""
        for hook in self._hooks:
            hook.remove()
        for frugal in self._frugal.values():
            frugal.close()
        for model in self._compiled:
            model.__dict__.pop("forward", None)
        self._hooks.clear()
        self._compiled.clear()
        self._parallel.clear()
        self._folded.clear()
        self._frugal.clear()
        self._kept_memory.close()


@contextlib.contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """A network in evaluation mode and without weight gradients, restored on any exit."""
    modes = {module: module.training for module in model.modules()}
    trainable = [weight for weight in model.parameters() if weight.requires_grad]
    model.eval().requires_grad_(False)
    try:
        yield
    finally:
        for weight in trainable:
            weight.requires_grad_(True)
        for module, training in modes.items():
            module.training = training
