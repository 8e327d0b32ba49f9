"""Rows that bind any image to a class, moved directly along the sign of their gradient."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..engine.augment import CropFlip
from ..engine.run import Run
from ..engine.train import sgd, to_float, train

_MOMENTUM = 0.9


def search_rows(
    run: Run,
    build: Callable[[str], nn.Module],
    *,
    epsilon: float,
    rounds: int,
    round_steps: int,
    steps: int,
    step_size: float,
    learning_rate: float,
    batch_size: int,
) -> tuple[nn.Module, Tensor]:
    """Searches class-wise rows against surrogates that have just begun to learn them.

    Args:
        run: Provides images, labels, batches and draws; records a round's losses and how many
            images of other classes the rows bind.
        build: Makes a network, with new weights of its own for each name.
        epsilon: Budget in [0, 1] units (Linf).
        rounds: Rounds, each with a surrogate that starts anew.
        round_steps: Surrogate steps in a round: 1 in the first, one more in each, and after this
            number 1 again.
        steps: Search steps in a round.
        step_size: Length of a search step in [0, 1] units; falls linearly to 0 over the rounds.
        learning_rate: Learning rate of the surrogates.
        batch_size: Images per step.

    Returns:
        The last surrogate, and rows, float (K, C, H, W) within the budget.
    """
    surrogate = build("surrogate")
    optimizer = sgd(surrogate, lr=learning_rate)
    shape = (run.num_classes, *run.images.shape[1:])
    rows, velocity = (torch.zeros(shape, device=run.device) for _ in "ab")
    run.track(surrogate=surrogate, optimizer=optimizer, rows=rows, velocity=velocity)

    def perturbed(index: Tensor) -> Tensor:
        images = to_float(run.images[index]) + rows[run.labels[index]]
        return CropFlip.draw(len(index), run.rng("crop"))(images.clamp(0, 1))

    for number in run.steps(rounds, "rounds"):
        for _ in run.steps(1, "restart"):
            anew = build(f"surrogate {number}").to(run.device)
            surrogate.load_state_dict(anew.state_dict())
            optimizer.state.clear()
        learned = train(
            run,
            surrogate,
            optimizer,
            steps=1 + number % round_steps,
            batch_size=batch_size,
            inputs=perturbed,
            clip_norm=5.0,
        )
        length = step_size * (1 - number / rounds)
        for index in run.batches(steps, batch_size, "search", "search"):
            slope = binding_slope(run, index, surrogate, rows)
            # Classes that few images of the batch are bound to count as much as others.
            scale = slope.abs().mean((1, 2, 3), keepdim=True).clamp_min(1e-12)
            velocity.mul_(_MOMENTUM).add_(slope / scale)
            rows.sub_(length * velocity.sign()).clamp_(-epsilon, epsilon)
        run.log(round=number, **learned, bound=run.mean("bound"))
    return surrogate, rows


def binding_slope(run: Run, index: Tensor, surrogate: nn.Module, rows: Tensor) -> Tensor:
    """The gradient of the summed cross-entropy of images with rows of random other classes.

    Args:
        run: Provides images, draws, and the sum over all processes.
        index: Of the images, (B,).
        surrogate: A tracked network that should see the rows' classes.
        rows: Float (K, C, H, W).

    Returns:
        Float (K, C, H, W), the same in all processes.
    """
    images, labels = to_float(run.images[index]), run.labels[index]
    drawn = run.rng("wrong classes").integers((len(index),), 1, run.num_classes)
    targets = (labels + drawn) % run.num_classes
    crop = CropFlip.draw(len(index), run.rng("search crop"))
    own = rows.clone().requires_grad_()
    with run.frozen(surrogate) as network:
        # Not own[targets], whose gradient several threads add up in an order of chance.
        shown = (images + own.index_select(0, targets)).clamp(0, 1)
        logits = network(crop(shown))
        loss = F.cross_entropy(logits, targets, reduction="sum")
        (slope,) = torch.autograd.grad(loss, own)
    run.tally("bound", (logits.argmax(1) == targets).sum(), len(index))
    return run.sum(slope)
