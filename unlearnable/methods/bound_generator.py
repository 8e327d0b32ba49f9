"""Rows that bind any image to a class, as the means of what a generator makes."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..engine.generator import ImageToImage
from ..engine.random import global_seed
from ..engine.run import Run
from ..engine.train import sgd, to_float, train

_STAGES = 3


def search_generator(
    run: Run,
    surrogate: nn.Module,
    *,
    epsilon: float,
    rounds: int,
    round_steps: int,
    learning_rate: float,
    generator_rate: float,
    width: int,
    blocks: int,
    batch_size: int,
) -> tuple[nn.Module, Tensor]:
    """Learns a generator, and class-wise rows from it, against a surrogate that learns the rows.

    Args:
        run: Provides images, labels, batches and draws; records a round's losses.
        surrogate: A network that is trained here.
        epsilon: Budget in [0, 1] units (Linf).
        rounds: Rounds in all three stages together.
        round_steps: Surrogate steps in a round.
        learning_rate: Learning rate of the surrogate.
        generator_rate: Learning rate of the generator (Adam).
        width: Channels of the generator at full size.
        blocks: Residual blocks of the generator.
        batch_size: Images per step.

    Returns:
        The trained surrogate, and rows, float (K, C, H, W) within the budget.
    """
    ahead = copy.deepcopy(surrogate)
    with global_seed(run.weight_seed("generator")):
        shape = run.images.shape[1:]
        generator = ImageToImage(shape[0], width, blocks)
    optimizer = sgd(surrogate, lr=learning_rate)
    one_step = sgd(ahead, lr=learning_rate, momentum=0)
    adam = torch.optim.Adam(generator.parameters(), lr=generator_rate)
    rows, totals = (torch.zeros((run.num_classes, *shape), device=run.device) for _ in "ab")
    run.track(surrogate=surrogate, ahead=ahead, generator=generator, rows=rows, totals=totals)
    run.track(optimizer=optimizer, one_step=one_step, adam=adam)
    counts = torch.zeros(run.num_classes, device=run.device)
    counts.index_add_(0, run.labels, torch.ones_like(run.labels, dtype=counts.dtype))
    counts = counts.clamp_min(1)[:, None, None, None]

    def perturbed(index: Tensor) -> Tensor:
        return (to_float(run.images[index]) + rows[run.labels[index]]).clamp(0, 1)

    for number in run.steps(rounds, "rounds"):
        for index in run.batches(1, batch_size, "ahead", "ahead"):
            totals.zero_()
            ahead.load_state_dict(surrogate.state_dict())
            seen, labels = perturbed(index), run.labels[index]

            def loss_fn(network: nn.Module, seen: Tensor = seen, labels: Tensor = labels) -> Tensor:
                return F.cross_entropy(network(seen), labels)

            run.train_step(ahead, one_step, loss_fn, clip_norm=5.0)
        steps = run.batches_per_epoch(batch_size)
        for index in run.batches(steps, batch_size, "generator", "generator"):
            stage = _STAGES * number // rounds
            generator_step(run, index, stage, ahead, generator, adam, rows, epsilon)
        for index in run.sweep(batch_size, title="perturbations"):
            with run.frozen(generator) as network, torch.no_grad():
                made = epsilon * network(to_float(run.images[index])).float()
            run.sum_into(totals, run.labels[index], made)
        rows.copy_(totals / counts)
        learned = train(
            run,
            surrogate,
            optimizer,
            steps=round_steps,
            batch_size=batch_size,
            inputs=perturbed,
            clip_norm=5.0,
        )
        run.log(round=number, **learned)
    return surrogate, rows


def generator_step(
    run: Run,
    index: Tensor,
    stage: int,
    ahead: nn.Module,
    generator: nn.Module,
    adam: torch.optim.Optimizer,
    rows: Tensor,
    epsilon: float,
) -> None:
    """One step of the generator, for the class means of a batch over all processes."""
    images, labels = to_float(run.images[index]), run.labels[index]
    members = F.one_hot(labels, run.num_classes).to(images.dtype)  # (B, K)
    counts = run.sum(members.sum(0))
    shares = members / counts.clamp_min(1)
    with run.frozen(generator) as network, torch.no_grad():
        made = network(images).float()
    means = run.sum(torch.einsum("bk,bchw->kchw", shares, made))
    # Classes that the batch does not hold have the row of the last round.
    held = (counts > 0)[:, None, None, None]
    means = torch.where(held, means, rows / epsilon).requires_grad_()
    with run.frozen(ahead) as network:
        with torch.no_grad():
            logits = network(images).float()
        if stage == 1:
            drawn = run.rng("wrong classes").integers((len(index),), 1, run.num_classes)
            targets = (labels + drawn) % run.num_classes
        else:
            targets = wrong_classes(logits, labels, largest=stage == 0)
        # Not means[targets], whose gradient several threads add up in an order of chance.
        seen = (images + epsilon * means.index_select(0, targets)).clamp(0, 1)
        loss = F.cross_entropy(network(seen), targets, reduction="sum")
        (slope,) = torch.autograd.grad(loss, means)
    # The loss of all processes depends on each one's images: their slopes are added first.
    total = counts.sum()
    slope = run.sum(slope) / total
    share = total / max(1, len(index))  # train_step takes means over a process's images

    def loss_fn(network: nn.Module) -> Tensor:
        own = torch.einsum("bk,bchw->kchw", shares, network(images).float())
        return share * (slope * own).sum()

    run.train_step(generator, adam, loss_fn)


def wrong_classes(logits: Tensor, labels: Tensor, *, largest: bool) -> Tensor:
    """For each image, the other class with the largest or smallest logit, int64 (B,).

    Args:
        logits: Float (B, K), K of at least 2.
        labels: int64 (B,).
        largest: Whether to take the largest or the smallest.
    """
    own = F.one_hot(labels, logits.shape[1]).bool()
    if largest:
        return logits.masked_fill(own, -torch.inf).argmax(1)
    return logits.masked_fill(own, torch.inf).argmin(1)
