"""The one training loop, for surrogates and for victims."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .augment import CropFlip
from .pgd import pgd, random_start
from .run import Run


class Batch(NamedTuple):
    """What a network learns from in one update.

    Attributes:
        images: Input images, float (B, C, H, W), or (B * draws, C, H, W) with several adjacent
            draws of each image.
        targets: Class indices, int64 of shape (B,), or class probabilities, float of shape (B, K).
    """

    images: Tensor
    targets: Tensor


class Stepped(Protocol):
    """A scheduler of any kind."""

    def step(self) -> None:
        """Called after every update."""


def to_float(images: Tensor) -> Tensor:
    """uint8 images as float32 in [0, 1]."""
    return images.float() / 255


def sgd(
    model: nn.Module, *, lr: float = 0.1, momentum: float = 0.9, weight_decay: float = 5e-4
) -> torch.optim.SGD:
    """The usual optimiser in this field: SGD with momentum."""
    return torch.optim.SGD(model.parameters(), lr=lr, momentum=momentum, weight_decay=weight_decay)


def augmented(
    run: Run, purpose: str = "crop", *, before: Callable[[Tensor], Tensor] | None = None
) -> Callable[[Tensor], Tensor]:
    """Inputs for :func:`train`: the run's images, randomly cropped and flipped.

    ``before`` is a function applied to them first, from float (B, C, H, W) to the same shape.
    """

    def inputs(index: Tensor) -> Tensor:
        images = to_float(run.images[index])
        images = images if before is None else before(images)
        return CropFlip.draw(len(index), run.rng(purpose))(images)

    return inputs


def adversary(
    run: Run,
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    epsilon: float,
    step_size: float,
    steps: int,
    norm: str = "Linf",
) -> Tensor:
    """Searches the change within a budget that raises the loss most, (B, C, H, W).

    Args:
        run: Provides the random start.
        model: A tracked network.
        images: Images as the network sees them, augmented or not. The changed images may not leave
            [0, 1] further than these do.
        labels: Labels for the loss, (B,).
        epsilon: Radius of the budget; 0 gives zeros.
        step_size: Length of a step.
        steps: Number of steps.
        norm: ``"Linf"`` or ``"L2"``.
    """
    if epsilon == 0:
        return torch.zeros_like(images)
    start = random_start(images, epsilon, run.rng("adversary"), norm)
    with run.frozen(model) as network:
        return pgd(
            lambda x: F.cross_entropy(network(x), labels, reduction="sum"),
            images,
            start,
            epsilon=epsilon,
            step_size=step_size,
            steps=steps,
            norm=norm,
            maximize=True,
        )


def cross_entropy(logits: Tensor, targets: Tensor, smoothing: float = 0.0) -> Tensor:
    """Mean cross-entropy over images; of several draws of an image, the worst one counts.

    Args:
        logits: float, (B, K) or (B * draws, K).
        targets: Class indices (B,) or probabilities (B, K).
        smoothing: Share of the target that is spread over all classes.
    """
    if len(logits) == len(targets):
        return F.cross_entropy(logits, targets, label_smoothing=smoothing)
    targets_of_draws = _per_draw(targets, logits)
    each = F.cross_entropy(logits, targets_of_draws, reduction="none", label_smoothing=smoothing)
    return each.unflatten(0, (len(targets), -1)).amax(1).mean()


def _per_draw(targets: Tensor, logits: Tensor) -> Tensor:
    """Targets repeated for every draw, (B * draws,) or (B * draws, K)."""
    return targets.repeat_interleave(len(logits) // len(targets), dim=0)


def train(
    run: Run,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    steps: int,
    batch_size: int,
    inputs: Callable[[Tensor], Tensor | Batch],
    scheduler: Stepped | None = None,
    clip_norm: float | None = None,
    label_smoothing: float = 0.0,
    among: int | None = None,
) -> dict[str, float]:
    """Minimises cross-entropy over shuffled batches of a run.

    Args:
        run: Provides batches and labels, and performs the steps.
        model: A tracked network.
        optimizer: Its optimiser.
        steps: Number of updates.
        batch_size: Images per update.
        inputs: Function from image indices (B,) to what the network sees, (B, C, H, W), or to a
            :class:`Batch` with targets other than the run's labels.
        scheduler: Scheduler stepped after every update.
        clip_norm: Largest norm of the whole gradient.
        label_smoothing: Share of the target that is spread over all classes.
        among: Number of images that batches are drawn from; None means all.

    Returns:
        Mean ``loss`` and ``accuracy`` over the images as the network saw them; for mixed labels,
        the most probable one counts.
    """
    for index in run.batches(steps, batch_size, among=among):
        seen = inputs(index)
        batch = seen if isinstance(seen, Batch) else Batch(seen, run.labels[index])

        def loss_fn(network: nn.Module, batch: Batch = batch) -> Tensor:
            images, targets = batch
            logits = network(images)
            labels = targets if targets.ndim == 1 else targets.argmax(1)
            right = logits.argmax(1) == _per_draw(labels, logits)
            run.tally("accuracy", right.sum(), len(right))
            return cross_entropy(logits, targets, label_smoothing)

        loss = run.train_step(model, optimizer, loss_fn, clip_norm=clip_norm)
        run.tally("loss", loss * len(index), len(index))
        if scheduler is not None:
            scheduler.step()
    return {"loss": run.mean("loss"), "accuracy": run.mean("accuracy")}


Schedule = Callable[[torch.optim.Optimizer, int], torch.optim.lr_scheduler.LRScheduler]


def tenfold_decay(*milestones: float) -> Schedule:
    """A schedule whose learning rate drops tenfold after these shares of all updates."""

    def schedule(optimizer: torch.optim.Optimizer, updates: int) -> Any:
        decays = [round(share * updates) for share in milestones]
        return torch.optim.lr_scheduler.MultiStepLR(optimizer, decays, gamma=0.1)

    return schedule


def train_surrogate(
    run: Run,
    surrogate: nn.Module,
    optimizer: torch.optim.Optimizer,
    schedule: Schedule,
    *,
    epochs: int,
    batch_size: int,
    inputs: Callable[[Tensor], Tensor],
    after: Callable[[int], None] | None = None,
) -> None:
    """Tracks a surrogate and trains it on the run's images, logging a record per epoch.

    Args:
        run: Provides batches and labels, and performs the steps.
        surrogate: A network that is not tracked yet.
        optimizer: Its optimiser.
        schedule: Function from the optimiser and the total number of updates to a scheduler.
        epochs: Number of passes over the images.
        batch_size: Images per update.
        inputs: As in :func:`train`.
        after: Called at the end of every epoch with its number, from 1.
    """
    steps = run.batches_per_epoch(batch_size)
    scheduler = schedule(optimizer, epochs * steps)
    run.track(surrogate=surrogate, optimizer=optimizer, scheduler=scheduler)
    for epoch in run.steps(epochs, "epochs"):
        learned = train(
            run,
            surrogate,
            optimizer,
            steps=steps,
            batch_size=batch_size,
            inputs=inputs,
            scheduler=scheduler,
        )
        if not math.isfinite(learned["loss"]):
            raise ValueError(
                f"expected a finite loss, got {learned['loss']} in epoch {epoch + 1} of {epochs}: "
                f'the surrogate diverged; lower its learning rate, or use precision="float32"'
            )
        if after is not None:
            after(epoch + 1)
        run.log(epoch=epoch + 1, **learned)


@torch.no_grad()
def count_correct(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Number of images that a network in its current mode classifies correctly, float32 scalar.

    It is NaN if any of the logits is, whose largest would be that of the first class.

    Args:
        model: Network from (B, C, H, W) in [0, 1] to logits.
        images: uint8, (B, C, H, W).
        labels: int64, (B,).
    """
    logits = model(to_float(images))
    correct = (logits.argmax(1) == labels).sum()
    return torch.where(logits.isnan().any(), math.nan, correct.float())
