"""One run of a learning algorithm: its images, batches, randomness, progress and results.

An algorithm that takes everything from its :class:`Run` (images, batches, random draws, training
steps, where to write) is counted, shown, checkpointed, resumed and spread over processes without
knowing it. A resumed run enters the algorithm from the top again: loops that had ended give no
steps, and the one that was under way goes on after its last complete step.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Hashable, Iterator
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from .checkpoint import Checkpoint
from .distributed import Group
from .loops import Loops
from .progress import Progress
from .random import Draws, seed_of
from .sampler import Shards


class ImageSource(Protocol):
    """uint8 images (N, C, H, W), on the device or on their way there."""

    shape: torch.Size

    def __len__(self) -> int: ...

    def __getitem__(self, index: Tensor, /) -> Tensor: ...


class RowStore(Protocol):
    """Where a run writes perturbations: rounds and clips what it is given, in [0, 1] units."""

    written: Tensor

    def __getitem__(self, index: Tensor, /) -> Tensor: ...

    def __setitem__(self, index: Tensor, delta: Tensor, /) -> None: ...


class Run:
    """What an algorithm sees of the world.

    Loop only over :meth:`steps`, :meth:`batches` and :meth:`sweep`; draw only from :meth:`rng`;
    update weights only in :meth:`train_step`; write perturbations to :attr:`rows` or
    :meth:`result`. What changes from step to step and is needed later is named to :meth:`track` or
    counted by :meth:`tally`: no other variable may outlive a step.

    Args:
        images: uint8, (N, C, H, W).
        labels: int64 class indices, (N,), on the run's device.
        num_classes: K; labels are 0 to K - 1.
        rows: Where perturbations are written.
        seed: All randomness follows from it.
        precision: ``"float32"`` or ``"bf16"`` (autocast in the network passes).
        compile: Compile the networks given to :meth:`track`.
        group: The processes that share the work; their number divides 8.
        checkpoint: Where the state is kept.
        progress: What shows the work and measures its time.
        callback: Called with each record of :meth:`log`.

    Attributes:
        precision: As it was given.
        passes: Images that went forward through networks given to :meth:`track` or :meth:`place`
            in this process.
        history: Records of :meth:`log`.
        results: What :meth:`result` was given: kind -> parts.

    Raises:
        ValueError: The processes cannot share the images evenly.
    """

    def __init__(
        self,
        images: ImageSource,
        labels: Tensor,
        num_classes: int,
        *,
        rows: RowStore | None = None,
        seed: Hashable = 0,
        precision: str = "float32",
        compile: bool = False,
        group: Group | None = None,
        checkpoint: Checkpoint | None = None,
        progress: Progress | None = None,
        callback: Callable[[dict[str, Any]], None] | None = None,
    ) -> None:
        self.images = images
        self.labels = labels
        self.num_classes = num_classes
        self.seed = seed
        self.device = labels.device
        self.passes = 0
        self.history: list[dict[str, Any]] = []
        self.results: dict[str, dict[str, Any]] = {}
        self._rows = rows
        self.precision = precision
        self._compile = compile
        self._group = group or Group()
        self._checkpoint = checkpoint
        self._progress = progress or Progress(show=False)
        self._callback = callback
        self._prefetch = getattr(images, "prefetch", None)
        # Where indices are made: on the device, or on the CPU where images are read from there.
        indexing = torch.device("cpu") if self._prefetch is not None else self.device
        self._shards = Shards(len(images), seed=seed, group=self._group, device=indexing)
        self._counts = [0] * len(self._shards.own)
        self._positions: dict[str, int] = {}  # batches drawn of each stream so far
        self._draws: dict[str, int] = {}  # generators handed out for each purpose so far
        self._tallies: dict[str, Tensor] = {}  # "level/name" -> sum and count
        self._tracked: dict[str, Any] = {}
        self._parallel: dict[int, nn.Module] = {}
        self._kept: dict[str, int] = {}  # name -> loops that making it took
        self._in_memory: dict[str, Any] = {}
        self._hooks: list[Any] = []
        self._loops = Loops(self._progress)
        self._restored: dict[str, Any] = {}
        if checkpoint is not None and (state := checkpoint.load()) is not None:
            self._restore(state)

    # State

    def track(self, **state: Any) -> None:
        """Names the models, optimisers, schedules and tensors that change while the run goes on.

        Models are placed as by :meth:`place`. In a resumed run everything takes the state it had:
        track before the loops, and after whatever sets first values.
        """
        for name, item in state.items():
            if name in self._tracked:
                raise ValueError(f"expected a new name to track, got {name!r} again")
            self._tracked[name] = item
            if isinstance(item, nn.Module):
                self.place(item)
                if self._compile:
                    # Not item.compile(): that traces the hook too, whose counter never stays.
                    item.forward = torch.compile(item.forward, dynamic=False)
            if name in self._restored:
                if isinstance(item, Tensor):
                    item.copy_(self._restored[name])
                else:
                    item.load_state_dict(self._restored[name])

    def place(self, model: nn.Module) -> None:
        """Makes a model part of the run whose weights no step changes, and no checkpoint carries.

        It is moved to the run's device, to channels-last weights (convolutions on them are faster
        on CPU and GPU alike), and the images that pass through it are counted.
        """
        model.to(self.device)
        model.to(memory_format=torch.channels_last)
        self._hooks.append(model.register_forward_pre_hook(self._count))

    def _count(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self.passes += len(inputs[0])

    def cached(self, name: str, make: Callable[[], Any]) -> Any:
        """What ``make`` returns, made the first time and kept; it must not be changed.

        Args:
            name: Of letters, digits and dashes.
            make: May loop; returns tensors, in dicts and lists at will.
        """
        if name not in self._kept:
            before = self._loops.begun
            self._in_memory[name] = make()
            self._kept[name] = self._loops.begun - before
            if self._checkpoint is not None:
                self._checkpoint.keep(name, self._in_memory[name])
        elif name not in self._in_memory:
            assert self._checkpoint is not None
            self._loops.skip(self._kept[name])
            self._in_memory[name] = _moved(self._checkpoint.kept(name), self.device)
        return self._in_memory[name]

    def tally(self, name: str, total: Tensor, count: int) -> None:
        """Adds to a sum over the steps of this loop, which :meth:`mean` divides after the loop.

        Args:
            name: Of what is summed.
            total: Sum over ``count`` images, a scalar.
            count: ImageSource of this process.
        """
        self._loops.act()
        key = f"{self._loops.depth - 1}/{name}"
        if key not in self._tallies:
            kind = torch.float32 if self.device.type == "mps" else torch.float64
            self._tallies[key] = torch.zeros(2, dtype=kind, device=self.device)
        self._tallies[key][0] += total
        self._tallies[key][1] += count

    def mean(self, name: str) -> float:
        """The mean over all images that the loops of this body have tallied, in all processes."""
        tally = self._tallies.get(f"{self._loops.depth}/{name}")
        if tally is None:
            return 0.0
        total, count = self.sum(tally).tolist()
        return total / count if count else 0.0

    def save(self) -> None:
        """Writes a checkpoint of this moment, which is the end of a step."""
        assert self._checkpoint is not None
        with self._progress.timed("checkpoints", self.device):
            tallies = {name: self.sum(tally) for name, tally in self._tallies.items()}
            written = None if self._rows is None else self.sum(self._rows.written.to(torch.uint8))
            passes = self.all_passes()
            self._checkpoint.save(
                {
                    "path": self._loops.path,
                    "passes": passes,
                    "history": self.history,
                    "positions": self._positions,
                    "draws": self._draws,
                    "tallies": tallies,
                    "written": written,
                    "kept": self._kept,
                    "tracked": {
                        name: item if isinstance(item, Tensor) else item.state_dict()
                        for name, item in self._tracked.items()
                    },
                }
            )

    def _restore(self, state: dict[str, Any]) -> None:
        self._loops.resume(state["path"])
        self.history = state["history"]
        self._positions, self._draws, self._kept = (
            state["positions"],
            state["draws"],
            state["kept"],
        )
        self._restored = state["tracked"]
        tallies = _moved(state["tallies"], self.device)
        first = self._group.rank == 0  # sums over all processes: one of them goes on with them
        self.passes = state["passes"] if first else 0
        self._tallies = tallies if first else {n: torch.zeros_like(t) for n, t in tallies.items()}
        if self._rows is not None:
            # Only its own: what others wrote is counted by them.
            owned = torch.zeros_like(self._rows.written)
            for shard in self._shards.own:
                owned[shard :: self._shards.count] = True
            self._rows.written |= state["written"].to(self.device).bool() & owned

    def all_passes(self) -> int:
        """Image passes of all processes."""
        return int(self.sum(torch.tensor(self.passes, device=self.device)))

    def seconds(self, whole: float) -> dict[str, float]:
        """Where the time went, by part, of ``whole`` seconds; needs a profiling progress."""
        parts = dict(self._progress.seconds)
        return parts | {"everything else": whole - sum(parts.values())}

    def finish(self) -> None:
        """After the algorithm: everything that a checkpoint promised was done."""
        self._loops.finish()

    def close(self) -> None:
        """Takes the counting hooks off the models and ends the progress bars."""
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()
        if self._compile:
            for item in self._tracked.values():
                if isinstance(item, nn.Module):
                    item.__dict__.pop("forward", None)
        self._parallel.clear()
        self._progress.close()

    # Loops

    def steps(self, count: int, title: str = "steps") -> Iterator[int]:
        """0 to ``count`` - 1, ended early by :meth:`stop`."""
        yield from self._loop(count, title)

    def batches(
        self, count: int, batch_size: int, stream: str = "train", title: str = "steps"
    ) -> Iterator[Tensor]:
        """``count`` shuffled batches of image indices, int64 of shape (B,).

        Epoch after epoch without replacement; a call goes on where the last one of the same
        ``stream`` ended. Every batch takes the same number of images from each of 8 virtual
        shards, so B is ``batch_size`` rounded down to a multiple of 8, or less in a small set; a
        process has the images of its own shards.
        """

        def batch(step: int, ahead: int) -> Tensor:
            return self._shards.batch(stream, self._positions.get(stream, 0) + ahead, batch_size)

        for _, index in self._indexed(count, title, batch):
            self._counts = [self._shards.per_shard(batch_size)] * len(self._shards.own)
            yield index
            self._positions[stream] = self._positions.get(stream, 0) + 1

    def sweep(self, batch_size: int, title: str = "sweep") -> Iterator[Tensor]:
        """Batches of image indices, int64 of shape (B,), that hold every image exactly once.

        All processes get the same number of batches; the last ones may be empty.
        """
        whole = max(1, batch_size // self._shards.count) * len(self._shards.own)

        def batch(step: int, ahead: int) -> Tensor:
            return torch.cat(self._shards.sweep(step + ahead, batch_size))

        for step, index in self._indexed(self._shards.sweep_length(batch_size), title, batch):
            self._counts = [len(part) for part in self._shards.sweep(step, batch_size)]
            # Compiled networks have fixed shapes; the one smaller batch is not worth another.
            odd = self._compile and len(index) < whole
            with torch.compiler.set_stance("force_eager") if odd else contextlib.nullcontext():
                yield index

    def _indexed(
        self, count: int, title: str, batch: Callable[[int, int], Tensor]
    ) -> Iterator[tuple[int, Tensor]]:
        """A loop's steps with image indices, while the images of the next step are fetched.

        ``batch`` takes the present step and 0 or 1 steps ahead of it.
        """
        prefetch = self._prefetch
        coming: Tensor | None = None
        for step in self._loop(count, title):
            index = batch(step, 0).to(self.device) if coming is None else coming
            coming = None
            if prefetch is not None and step + 1 < count:
                rows = batch(step, 1)
                coming = rows.to(self.device)
                prefetch(coming, rows)
            yield step, index

    def batches_per_epoch(self, batch_size: int) -> int:
        """How many batches :meth:`batches` draws before it shuffles anew."""
        return self._shards.batches_per_epoch(batch_size)

    def stop(self, flag: bool) -> None:
        """Ends the innermost loop after this step if ``flag`` is true in any process."""
        if self._group.max(int(flag)):
            self._loops.stop()

    def _loop(self, count: int, title: str) -> Iterator[int]:
        def passes() -> int:
            return self.passes * self._group.size

        return self._loops.walk(count, title, passes, self._after_step)

    def _after_step(self, depth: int) -> None:
        for key in [key for key in self._tallies if int(key.split("/")[0]) > depth]:
            del self._tallies[key]
        if self._checkpoint is not None:
            self._keep_up(self._checkpoint)

    def _keep_up(self, checkpoint: Checkpoint) -> None:
        save, end = checkpoint.wanted()
        if save:
            self.save()
        if end:
            raise KeyboardInterrupt(
                f"interrupted; the work so far is kept: the same fit with "
                f"checkpoint={str(checkpoint.folder)!r} goes on from here"
            )

    # Randomness

    def rng(self, purpose: str, device: torch.device | None = None) -> Draws:
        """Draws for the current batch, from seed, purpose, times asked before, and shard."""
        position = self._next(purpose)
        seeds = [seed_of(self.seed, purpose, position, shard) for shard in self._shards.own]
        return Draws(seeds, self._counts, device or self.device)

    def _next(self, purpose: str) -> int:
        self._loops.act()
        position = self._draws.get(purpose, 0)
        self._draws[purpose] = position + 1
        return position

    def global_rng(self, purpose: str) -> Draws:
        """Draws for tensors of no batch, such as one row per class: the same in every process."""
        return Draws([seed_of(self.seed, purpose)], None, self.device)

    def weight_seed(self, name: str) -> int:
        """The seed of a network's first weights."""
        return seed_of(self.seed, "weights", name)

    # Learning

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """The precision of network passes."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")

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
        with self._progress.timed("surrogate steps", self.device), self._group.explaining_loss():
            network = model
            if self._group.size > 1:
                if id(model) not in self._parallel:
                    self._parallel[id(model)] = self._group.parallel(model)
                network = self._parallel[id(model)]
            with self.autocast(), self._layers_own_randomness():
                loss = loss_fn(network)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            if clip_norm is not None:
                nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
            optimizer.step()
            self._group.mean_buffers(model)
        return loss.detach()

    @contextlib.contextmanager
    def _layers_own_randomness(self) -> Iterator[None]:
        """Dropout and its like draw from torch's global generators: seeded here, then put back."""
        seed = seed_of(self.seed, "layers", self._next("layers"), self._group.rank)
        on_gpu = self.device.type == "cuda"
        with torch.random.fork_rng([self.device] if on_gpu else []):
            torch.default_generator.manual_seed(seed)
            if on_gpu:
                with torch.cuda.device(self.device):
                    torch.cuda.manual_seed(seed)
            yield

    @contextlib.contextmanager
    def frozen(self, model: nn.Module) -> Iterator[nn.Module]:
        """The network in evaluation mode and without weight gradients, restored on any exit."""
        modes = {module: module.training for module in model.modules()}
        trainable = [weight for weight in model.parameters() if weight.requires_grad]
        model.eval()
        for weight in trainable:
            weight.requires_grad_(False)
        try:
            with self._progress.timed("perturbation steps", self.device), self.autocast():
                yield model
        finally:
            for weight in trainable:
                weight.requires_grad_(True)
            for module, training in modes.items():
                module.training = training

    def sum(self, value: Tensor) -> Tensor:
        """The sum of ``value`` over all processes."""
        return self._group.sum(value)

    def sum_into(self, totals: Tensor, index: Tensor, terms: Tensor) -> None:
        """Adds each term to a row of ``totals``, over all processes.

        Args:
            totals: The same in all processes, (K, …), changed in place.
            index: RowStore that this process's terms belong to, (B,).
            terms: What is added, (B, …).
        """
        if self._group.size == 1:
            totals.index_add_(0, index, terms)
        else:
            totals += self.sum(torch.zeros_like(totals).index_add_(0, index, terms))

    # Results

    @property
    def rows(self) -> RowStore:
        """Sample-wise perturbations by image index: float in [0, 1] units, rounded when written."""
        if self._rows is None:
            raise RuntimeError("expected a run that learns perturbations, got one that trains")
        return self._rows

    def result(self, kind: str, **parts: Tensor | str | float) -> None:
        """The result of a run that does not write :attr:`rows`.

        Args:
            kind: ``"class-wise"`` with ``rows``, in [0, 1] units; ``"pixel"`` with ``positions``
                and ``colours``; ``"convolution"`` with ``kernels`` and ``normalize``;
                ``"procedural"`` with ``generator``, ``seed`` and what the generator takes.
            parts: Tensors and plain values. Floats are rounded when they are kept.
        """
        self.results[kind] = parts

    def log(self, **values: float | Tensor) -> None:
        """Keeps a record in :attr:`history` and shows it beside the progress bar."""
        self._loops.act()
        record = {name: float(value) for name, value in values.items()}
        self.history.append(record)
        self._progress.note(record)
        if self._callback is not None:
            self._callback(record)


def _moved(tree: Any, device: torch.device) -> Any:
    if isinstance(tree, Tensor):
        return tree.to(device)
    if isinstance(tree, dict):
        return {name: _moved(item, device) for name, item in tree.items()}
    if isinstance(tree, list):
        return [_moved(item, device) for item in tree]
    return tree
