"""One run of a learning algorithm: what the algorithm sees of the world.

An algorithm that takes everything from its :class:`Run` (images, batches, random draws, training
steps, where to write) is counted, shown, checkpointed, resumed and spread over processes without
knowing it. A resumed run enters the algorithm from the top again: loops that had ended give no
steps, and the one that was under way continues after its last complete step.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Hashable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from .batching import Batching
from .checkpoint import Checkpoint, RowStore
from .distributed import Group
from .estimate import Work
from .loops import Loops
from .mask import Mask
from .networks import Network, Networks, frozen
from .outcome import Outcome
from .prefetch import ImageSource
from .progress import Progress
from .random import CPU, Draws, Seeds
from .sampler import Batches, Shards
from .state import State
from .tallies import Tallies
from .trial import Trial


class Run(Batching, Outcome):
    """Images, batches, randomness, training steps and results of one run.

    Loop only over :meth:`steps`, :meth:`batches` and :meth:`sweep`; draw only from :meth:`rng`;
    update weights only in :meth:`train_step`; write perturbations to :attr:`rows` or
    :meth:`result`, and anything on top of them to :meth:`on_top`. State that changes from step to
    step and is needed later must be registered with :meth:`track` or counted with :meth:`tally`: no
    other variable may outlive a step.

    Args:
        images: uint8, (N, C, H, W).
        labels: int64 class indices, (N,), on the run's device.
        num_classes: K; labels are 0 to K - 1.
        rows: Store for perturbations.
        mask: Function that returns the mask of a batch, like :meth:`mask`.
        seed: Seed of all randomness.
        precision: Precision of network passes: ``"float32"`` (without TF32), ``"bf16"`` (autocast),
            or ``"auto"``, which is decided by a short trial of the first tracked network.
        compile: Compile the networks given to :meth:`track`.
        memory: Bytes that a batch may keep for its gradient; a larger batch is computed in parts or
            a second time. None means :func:`~.memory.usual_limit`.
        group: The processes that share the work; other processes may continue a run.
        checkpoint: Where the state is saved.
        work: The work to be done; its time and memory are estimated with the first tracked network
            and logged.
        progress: Shows progress and measures time.
        callback: Called with each record of :meth:`log`.

    Attributes:
        device: Device of the labels.
        history: See :class:`~.outcome.Outcome`, as for ``results`` and ``tops``.

    Raises:
        ValueError: There are fewer images than shards, or fewer shards than processes.
    """

    def __init__(
        self,
        images: ImageSource,
        labels: Tensor,
        num_classes: int,
        *,
        rows: RowStore | None = None,
        mask: Callable[[Tensor], Mask] | None = None,
        seed: Hashable = 0,
        precision: str = "float32",
        compile: bool = False,
        memory: int | None = None,
        group: Group | None = None,
        checkpoint: Checkpoint | None = None,
        work: Work | None = None,
        progress: Progress | None = None,
        callback: Callable[[dict[str, Any]], None] | None = None,
    ) -> None:
        self.images = images
        self.labels = labels
        self.num_classes = num_classes
        self.seed = seed
        self.device = device = labels.device
        progress = progress or Progress(show=False)
        super().__init__(rows, mask, progress, callback)
        self._group = group = group or Group()
        self._checkpoint = checkpoint
        self._loops = Loops(progress)
        self._seeds = Seeds(seed)
        self._tallies = Tallies(device, group)
        self._state = State(self._loops, checkpoint, device)
        state = None if checkpoint is None else checkpoint.load()
        prefetch = getattr(images, "prefetch", None)
        count = None if state is None else state["shards"]
        self._shards = Shards(len(images), seed=seed, group=group, count=count)
        weight = self._shards.weight
        self._networks = Networks(
            device, precision, compile=compile, group=group, weight=weight, memory=memory
        )
        if work is not None and work.is_tiny(images.shape[1:].numel()):
            work = None
        self._trial = Trial(self._networks, work, group, self._sample, labels)
        self._batches = Batches(self._shards, device, prefetch, fixed_shapes=compile)
        if state is not None:
            self._restore(state)

    # State

    def track(self, **state: Any) -> None:
        """Registers the models, optimisers, schedules and tensors that change during the run.

        Models are placed as in :meth:`place`. In a resumed run everything is restored to its saved
        state, so call this before the loops and after setting initial values.
        """
        for name, item in state.items():
            if isinstance(item, nn.Module):
                self.settle_precision(item)
                self._networks.place_trained(item, self._sample(2))
                self._trial.estimate(item)
            self._state.track(name, item)

    def settle_precision(self, network: nn.Module) -> None:
        """Resolves ``"auto"`` with the run's first network, in the first process for all."""
        self._trial.settle(network)

    def place(self, model: nn.Module) -> None:
        """Adds a model whose weights no step changes and no checkpoint stores.

        It is moved to the run's device and to channels-last weights (convolutions are then faster
        on both CPU and GPU), and the images that pass through it are counted.
        """
        self._networks.place(model, self._sample(2))

    def _sample(self, count: int) -> Tensor:
        """The first images, float (B, C, H, W)."""
        index = torch.arange(min(count, len(self.images)), device=self.device)
        return self.images[index].float() / 255

    def cached(self, name: str, make: Callable[[], Any]) -> Any:
        """Returns the result of ``make``, computed once and stored; it must not be modified.

        Args:
            name: Name of letters, digits and dashes.
            make: Function that may loop and returns tensors, possibly in nested dicts and lists.
        """
        return self._state.cached(name, make)

    def save(self) -> None:
        """Writes a checkpoint of the current state, at the end of a step."""
        assert self._checkpoint is not None
        with self._progress.timed("checkpoints", self.device):
            written = None if self._rows is None else self.sum(self._rows.written.to(torch.uint8))
            self._checkpoint.save(
                {
                    "path": self._loops.path,
                    "shards": self._shards.count,
                    "precision": (self._networks.precision, self._networks.precision_reason),
                    "passes": self.all_passes(),
                    "history": self.history,
                    "outer": self._outer,
                    "positions": self._batches.positions,
                    "draws": self._seeds.asked,
                    "tallies": self._tallies.state(),
                    "written": written,
                    **self._state.state(),
                }
            )

    def _restore(self, state: dict[str, Any]) -> None:
        self._loops.resume(state["path"])
        self._networks.precision, self._networks.precision_reason = state["precision"]
        self._networks.passes = state["passes"] if self._group.rank == 0 else 0
        self.history = state["history"]
        self._known = state.get("outer", 0)
        self._batches.positions = state["positions"]
        self._seeds.asked = state["draws"]
        self._tallies.restore(state["tallies"])
        self._state.restore(state)
        if self._rows is not None:
            self._rows.written |= self._shards.own_of(state["written"].to(self.device).bool())

    def finish(self) -> None:
        """Checks, after the algorithm, that everything in a checkpoint was resumed."""
        self._loops.finish()

    def close(self) -> None:
        """Removes hooks and compiled code from the models and closes the progress bars."""
        self._networks.close()
        self._progress.close()

    # Loops

    def steps(self, count: int, title: str = "steps") -> Iterator[int]:
        """0 to ``count`` - 1, ended early by :meth:`stop`."""
        others = self._group.size / self._shards.weight
        return self._loops.walk(count, title, lambda: int(self.passes * others), self._after_step)

    def stop(self, flag: bool) -> None:
        """Ends the innermost loop after this step if ``flag`` is true in any process."""
        if self._group.max(int(flag)):
            self._loops.stop()

    def _after_step(self, depth: int) -> None:
        self._tallies.forget(depth)
        if self._checkpoint is not None:
            self._checkpoint.after_step(self.save)

    # Randomness

    def rng(self, purpose: str, device: str | torch.device | None = None) -> Draws:
        """Draws for the current batch, from seed, purpose, number of earlier requests, and shard.

        Args:
            purpose: Purpose of the draws; each has a separate sequence.
            device: Device on which numbers are drawn before they are moved to the run's device,
                such as ``"cpu"`` for device-independent numbers. None draws on the run's device or,
                for a CUDA device and few numbers per image, on the CPU (:class:`Draws`).
        """
        self._loops.act()
        seeds = self._seeds.next(purpose, self._shards.own)
        draw_on = None if device is None else torch.device(device)
        return Draws(seeds, self._batches.counts, self.device, draw_on=draw_on)

    def global_rng(self, purpose: str) -> Draws:
        """Draws for tensors that belong to no batch, such as one row per class.

        They are the same in every process and, because they are drawn on the CPU, on every device.
        """
        return Draws([self._seeds.of(purpose)], None, self.device, draw_on=CPU)

    def weight_seed(self, name: str) -> int:
        """The seed of a network's initial weights."""
        return self._seeds.of("weights", name)

    # Learning

    @property
    def precision(self) -> str:
        """Precision of network passes, as requested or resolved; float32 without a network."""
        decided = self._networks.precision
        return "float32" if decided == "auto" else decided

    @property
    def precision_reason(self) -> str:
        """The reason for this precision, in a few words."""
        return self._networks.precision_reason

    @property
    def passes(self) -> int:
        """Number of images passed through placed and tracked networks in this process."""
        return self._networks.passes

    def all_passes(self) -> int:
        """Number of image passes in all processes."""
        return int(self.sum(torch.tensor(self.passes, device=self.device)))

    def autocast(self) -> contextlib.AbstractContextManager[None]:
        """Applies the precision of network passes."""
        return self._networks.autocast()

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
            loss_fn: Function from the network to a scalar, the mean over this process's images.
            clip_norm: Largest norm of the whole gradient.
        """
        self._loops.act()
        (seed,) = self._seeds.next("layers", [self._group.rank])
        with self._progress.timed("surrogate steps", self.device), self._group.explaining_loss():
            return self._networks.update(model, optimizer, loss_fn, clip_norm=clip_norm, seed=seed)

    @contextlib.contextmanager
    def frozen(self, model: Network) -> Iterator[Network]:
        """The network in evaluation mode and without weight gradients, restored on any exit.

        Gives the network to call inside: a copy in which BatchNorm is folded into the convolutions
        and weights have the run's precision.
        """
        timed = self._progress.timed("perturbation steps", self.device)
        with frozen(model), timed, self.autocast():
            yield self._networks.for_search(model)

    def sum(self, value: Tensor) -> Tensor:
        """The sum of ``value`` over all processes."""
        return self._group.sum(value)

    def gather(self, value: Tensor) -> Tensor:
        """Concatenates the values of all processes for a batch, the same in each process.

        Gradients flow back only to this process's own part, so the gradient of a loss over all
        parts is complete.
        """
        return self._group.gather(value)

    def sum_into(self, totals: Tensor, index: Tensor, terms: Tensor) -> None:
        """Adds each term to a row of ``totals``, over all processes.

        Args:
            totals: The same in all processes, (K, …), changed in place.
            index: Row of ``totals`` for each of this process's terms, (B,).
            terms: Terms to add, (B, …).
        """
        if self._group.size == 1:
            totals.index_add_(0, index, terms)
        else:
            totals += self.sum(torch.zeros_like(totals).index_add_(0, index, terms))
