"""One run of a learning algorithm: its images, batches, randomness, progress and results.

An algorithm that takes everything from its :class:`Run` (images, batches, random draws, training
steps, where to write) can be counted, shown, stopped and spread over processes without knowing it.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import time
from collections.abc import Callable, Hashable, Iterator
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

logger = logging.getLogger(__name__)

SHARDS = 8  # virtual shards: any number of processes that divides it sees the same batches


class Rows(Protocol):
    """Where a run writes perturbations: rounds and clips what it is given, in [0, 1] units."""

    def __getitem__(self, index: Tensor) -> Tensor: ...

    def __setitem__(self, index: Tensor, delta: Tensor) -> None: ...


def _seed(*parts: object) -> int:
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


class Draws:
    """Random tensors whose part for each virtual shard depends on that shard alone.

    The first dimension of every shape counts the images of the current batch, or that number times
    a whole factor (several draws per image, next to one another).

    Args:
        seeds: One per shard that this process owns.
        counts: Images of each shard in the current batch; None for tensors of no batch, and one
            seed.
        device: Where tensors are drawn.
    """

    def __init__(self, seeds: list[int], counts: list[int] | None, device: torch.device) -> None:
        self._counts = counts
        self._device = device
        self._generators = [torch.Generator(device).manual_seed(seed) for seed in seeds]

    def _fill(self, out: Tensor, fill: Callable[[Tensor, torch.Generator], object]) -> Tensor:
        if self._counts is None:
            fill(out, self._generators[0])
            return out
        factor, rest = divmod(len(out), sum(self._counts))
        if rest:
            raise ValueError(
                f"expected a multiple of the batch's {sum(self._counts)} images as first "
                f"dimension, got {len(out)}"
            )
        sizes = [factor * count for count in self._counts]
        for part, generator in zip(out.split(sizes), self._generators, strict=True):
            fill(part, generator)
        return out

    def uniform(self, shape: tuple[int, ...], low: float, high: float) -> Tensor:
        """float32 between ``low`` and ``high``."""
        out = torch.empty(shape, device=self._device)
        return self._fill(out, lambda part, rng: part.uniform_(low, high, generator=rng))

    def normal(self, shape: tuple[int, ...]) -> Tensor:
        """float32, standard normal."""
        out = torch.empty(shape, device=self._device)
        return self._fill(out, lambda part, rng: part.normal_(generator=rng))

    def integers(self, shape: tuple[int, ...], low: int, high: int) -> Tensor:
        """int64 from ``low`` to ``high - 1``."""
        out = torch.empty(shape, dtype=torch.int64, device=self._device)
        return self._fill(out, lambda part, rng: part.random_(low, high, generator=rng))


class Run:
    """What an algorithm sees of the world.

    Loop only over :meth:`steps`, :meth:`batches` and :meth:`sweep`; draw only from :meth:`rng`;
    update weights only in :meth:`train_step`; write perturbations to :attr:`rows` or
    :meth:`result`. Then the run can count, show and stop the work.

    Args:
        images: uint8, (N, C, H, W), on the run's device.
        labels: int64 class indices, (N,), on the same device.
        num_classes: K; labels are 0 to K - 1.
        rows: Where perturbations are written.
        seed: All randomness follows from it.
        precision: ``"float32"`` or ``"bf16"`` (autocast in the network passes).
        progress: Show a bar per nested loop.
        on_rate: Called once with image passes per second when a few seconds have been measured.
        callback: Called with each record of :meth:`log`.
        title: Left of the progress bar.

    Attributes:
        passes: Images that went forward through networks given to :meth:`track`, so far.
        history: Records of :meth:`log`.
        results: What :meth:`result` was given: kind -> tensors.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        num_classes: int,
        *,
        rows: Rows | None = None,
        seed: Hashable = 0,
        precision: str = "float32",
        progress: bool = False,
        on_rate: Callable[[float], None] | None = None,
        callback: Callable[[dict[str, Any]], None] | None = None,
        title: str = "",
    ) -> None:
        self.images = images
        self.labels = labels
        self.num_classes = num_classes
        self.seed = seed
        self.device = images.device
        self.passes = 0
        self.history: list[dict[str, Any]] = []
        self.results: dict[str, dict[str, Tensor]] = {}
        self._rows = rows
        self._precision = precision
        self._progress = progress
        self._on_rate = on_rate
        self._callback = callback
        self._title = title
        shards = SHARDS if len(images) >= SHARDS else 1
        self._shards = list(range(shards))
        self._shard_sizes = [len(range(s, len(images), shards)) for s in self._shards]
        self._counts = [0] * shards
        self._positions: dict[str, int] = {}  # batches drawn of each stream so far
        self._draws: dict[str, int] = {}  # generators handed out for each purpose so far
        self._tracked: dict[str, Any] = {}
        self._kept: dict[str, Any] = {}
        self._hooks: list[Any] = []
        self._stopped = False
        self._depth = 0
        self._bar: tqdm[Any] | None = None
        self._rate_start: tuple[float, int] | None = None

    # State

    def track(self, **state: Any) -> None:
        """Names the models, optimisers, schedules and tensors that change while the run goes on.

        Models are moved to the run's device, to channels-last weights (convolutions on them are
        faster on CPU and GPU alike), and the images that pass through them are counted.
        """
        for name, item in state.items():
            if name in self._tracked:
                raise ValueError(f"expected a new name to track, got {name!r} again")
            self._tracked[name] = item
            if isinstance(item, nn.Module):
                item.to(self.device)
                item.to(memory_format=torch.channels_last)
                self._hooks.append(item.register_forward_pre_hook(self._count))

    def _count(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self.passes += len(inputs[0])

    def once(self, name: str, make: Callable[[], Any]) -> Any:
        """What ``make`` returns, made the first time and kept; it must not be changed."""
        if name not in self._kept:
            self._kept[name] = make()
        return self._kept[name]

    def close(self) -> None:
        """Takes the counting hooks off the models and ends the progress bar."""
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    # Loops

    def steps(self, count: int, title: str = "") -> Iterator[int]:
        """0 to ``count`` - 1, ended early by :meth:`stop`."""
        with self._loop(count, title or "steps") as advance:
            for step in range(count):
                yield step
                advance()
                if self._stopped:
                    self._stopped = False
                    return

    def batches(self, count: int, batch_size: int, stream: str = "train") -> Iterator[Tensor]:
        """``count`` shuffled batches of image indices, int64 of shape (B,).

        Epoch after epoch without replacement; a call goes on where the last one of the same
        ``stream`` ended. Every batch takes the same number of images from each of 8 virtual
        shards, so B is ``batch_size`` rounded down to a multiple of 8, or less in a small set.
        """
        per_shard = self._per_shard(batch_size)
        epoch_length = self.batches_per_epoch(batch_size)
        order: list[Tensor] = []
        order_of = -1
        with self._loop(count, "steps") as advance:
            for _ in range(count):
                position = self._positions.get(stream, 0)
                epoch, offset = divmod(position, epoch_length)
                if epoch != order_of:
                    order, order_of = (
                        [self._shuffled(stream, epoch, s) for s in self._shards],
                        epoch,
                    )
                self._counts = [per_shard] * len(self._shards)
                self._positions[stream] = position + 1
                lo = offset * per_shard
                yield torch.cat([shard[lo : lo + per_shard] for shard in order])
                advance()

    def sweep(self, batch_size: int, title: str = "sweep") -> Iterator[Tensor]:
        """Batches of image indices, int64 of shape (B,), that hold every image exactly once."""
        per_shard = max(1, batch_size // len(self._shards))
        count = -(-max(self._shard_sizes) // per_shard)
        with self._loop(count, title) as advance:
            for step in range(count):
                parts = [
                    torch.arange(s, len(self.images), len(self._shards), device=self.device)[
                        step * per_shard : (step + 1) * per_shard
                    ]
                    for s in self._shards
                ]
                self._counts = [len(part) for part in parts]
                yield torch.cat(parts)
                advance()

    def batches_per_epoch(self, batch_size: int) -> int:
        """How many batches :meth:`batches` draws before it shuffles anew."""
        return min(self._shard_sizes) // self._per_shard(batch_size)

    def batch_images(self, batch_size: int) -> int:
        """How many images a batch of :meth:`batches` really holds."""
        return self._per_shard(batch_size) * len(self._shards)

    def stop(self, flag: bool) -> None:
        """Ends the innermost :meth:`steps` loop after this step if ``flag`` is true."""
        self._stopped = bool(flag)

    def _per_shard(self, batch_size: int) -> int:
        return min(max(1, batch_size // len(self._shards)), min(self._shard_sizes))

    def _shuffled(self, stream: str, epoch: int, shard: int) -> Tensor:
        generator = torch.Generator().manual_seed(_seed(self.seed, "order", stream, epoch, shard))
        order = torch.randperm(self._shard_sizes[shard], generator=generator)
        return (order * len(self._shards) + shard).to(self.device)

    @contextlib.contextmanager
    def _loop(self, count: int, title: str) -> Iterator[Callable[[], None]]:
        outermost = self._depth == 0
        self._depth += 1
        if outermost:
            label = f"{self._title}: {title}" if self._title else title
            # None leaves the bar out where standard error is no terminal.
            self._bar = tqdm(total=count, desc=label, disable=None if self._progress else True)

        def advance() -> None:
            self._measure()
            if outermost and self._bar is not None:
                self._bar.update()

        try:
            yield advance
        finally:
            self._depth -= 1
            if outermost and self._bar is not None:
                self._bar.close()
                self._bar = None

    def _measure(self) -> None:
        """Reports the rate once, 3 seconds after the first step (which warms everything up)."""
        if self._on_rate is None:
            return
        now = time.perf_counter()
        if self._rate_start is None:
            self._rate_start = (now, self.passes)
        elif now - self._rate_start[0] > 3 and self.passes > self._rate_start[1]:
            rate = (self.passes - self._rate_start[1]) / (now - self._rate_start[0])
            report, self._on_rate = self._on_rate, None
            report(rate)

    # Randomness

    def rng(self, purpose: str) -> Draws:
        """Draws for the current batch, from seed, purpose, times asked before, and shard."""
        position = self._draws.get(purpose, 0)
        self._draws[purpose] = position + 1
        seeds = [_seed(self.seed, purpose, position, shard) for shard in self._shards]
        return Draws(seeds, self._counts, self.device)

    def whole_rng(self, purpose: str) -> Draws:
        """Draws for tensors of no batch, such as one row per class: the same in every process."""
        return Draws([_seed(self.seed, purpose)], None, self.device)

    def weight_seed(self, name: str) -> int:
        """The seed of a network's first weights."""
        return _seed(self.seed, "weights", name)

    # Learning

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """The precision of network passes."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self._precision == "bf16")

    def train_step(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        loss_fn: Callable[[nn.Module], Tensor],
        *,
        clip_norm: float | None = None,
    ) -> Tensor:
        """One update of the weights in training mode; returns the loss, detached.

        Args:
            model: A tracked network.
            optimizer: Its optimiser.
            loss_fn: Takes the network and returns a scalar: the mean over this process's images.
            clip_norm: Largest norm of the whole gradient.
        """
        model.train()
        with self.autocast():
            loss = loss_fn(model)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if clip_norm is not None:
            nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
        optimizer.step()
        return loss.detach()

    @contextlib.contextmanager
    def frozen(self, model: nn.Module) -> Iterator[nn.Module]:
        """The network in evaluation mode and without weight gradients, restored on any exit."""
        modes = {module: module.training for module in model.modules()}
        trainable = [weight for weight in model.parameters() if weight.requires_grad]
        model.eval()
        for weight in trainable:
            weight.requires_grad_(False)
        try:
            with self.autocast():
                yield model
        finally:
            for weight in trainable:
                weight.requires_grad_(True)
            for module, training in modes.items():
                module.training = training

    def sum(self, value: Tensor) -> Tensor:
        """The sum of ``value`` over all processes."""
        return value

    # Results

    @property
    def rows(self) -> Rows:
        """Sample-wise perturbations by image index: float in [0, 1] units, rounded when written."""
        if self._rows is None:
            raise RuntimeError("expected a run that learns perturbations, got one that trains")
        return self._rows

    def result(self, kind: str, **tensors: Tensor) -> None:
        """The result of a run that does not write :attr:`rows`, such as class-wise rows."""
        self.results[kind] = tensors

    def log(self, **values: float | Tensor) -> None:
        """Keeps a record in :attr:`history` and shows it beside the progress bar."""
        record = {name: float(value) for name, value in values.items()}
        self.history.append(record)
        if self._bar is not None:
            self._bar.set_postfix({name: f"{value:.3g}" for name, value in record.items()})
        if self._callback is not None:
            self._callback(record)
