"""BAIT: rows that bind any image to a class, in spite of pretrained weights. (2603.04731)"""

from __future__ import annotations

import copy
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..engine.generator import ImageToImage
from ..engine.models import LITE0
from ..engine.random import global_seed
from ..engine.run import Run
from ..engine.sampler import Shards
from ..engine.train import sgd, to_float, train
from .base import Method
from .parameters import count, flag, positive

_STAGES = 3


@dataclass(repr=False, eq=False)
class BAIT(Method):
    """Perturbations bound to wrong classes. (Li et al., ICLR 2026, arXiv:2603.04731)

    They target victims that start from pretrained weights: such a victim already knows what images
    show and needs no shortcut. So a class's row is searched on images of all other classes:
    whatever a pretrained surrogate sees in them, the row should make it see the class. A generator
    produces a perturbation for every image; a class's row is the mean over its images. The wrong
    classes are first those that the surrogate finds most likely, then random ones, then the least
    likely.

    Args:
        surrogate: Name of a network, or a module, which is copied.
        epsilon: Budget in [0, 1] units (Linf).
        rounds: Rounds in all three stages together. A round consists of a look-ahead of one
            surrogate step, an epoch of the generator, and the surrogate's own steps.
        round_steps: Surrogate steps in a round.
        learning_rate: Learning rate of the surrogate.
        generator_rate: Learning rate of the generator (Adam).
        generator_width: Channels of the generator at full size, a multiple of 4.
        generator_blocks: Residual blocks of the generator.
        granularity: ``"class-wise"``; the method has no other.
        pretrained_surrogate: Start from the pretrained weights of a named network
            (:func:`unlearnable.pretrained_network`), with a new last layer, or keep those of a
            module. Otherwise start from fresh weights.
        batch_size: Images per step, rounded down to a multiple of 8, at least 8.
        seed: Seed of weights, batches and wrong classes.

    The generator is convolutional, with 8 residual blocks at a quarter of the size; its width and
    its GroupNorm are our choice. The preset ``"demo"`` only shows how the method runs, on a small
    network without pretrained weights; ``"paper"`` and ``"fast"`` need the extra ``pretrained``.

    Example:
        >>> from unlearnable.datasets import Shapes
        >>> method = BAIT.preset("demo", rounds=3)
        >>> method.fit(Shapes(size=64), progress=False).perturbation_
        Perturbation(BAIT, class-wise, Linf 8/255, 10 classes of 3x32x32)
    """

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": {},
        "fast": {"rounds": 15, "round_steps": 4, "batch_size": 128, "generator_width": 16},
        "demo": {
            "surrogate": "tiny",
            "pretrained_surrogate": False,
            "rounds": 9,
            "round_steps": 10,
            "batch_size": 128,
            "generator_width": 8,
            "generator_blocks": 2,
        },
    }
    granularities = ("class-wise",)
    norm = "Linf"

    surrogate: str | nn.Module = LITE0
    _: KW_ONLY
    epsilon: float = 8 / 255
    rounds: int = count(90)
    round_steps: int = count(1)
    learning_rate: float = positive(0.1)
    generator_rate: float = positive(0.001)
    generator_width: int = count(32, least=4)
    generator_blocks: int = count(8)
    granularity: str = "class-wise"
    pretrained_surrogate: bool = flag(True)
    batch_size: int = 512
    seed: int = 0

    def _validate(self) -> None:
        super()._validate()
        if self.generator_width % 4:
            raise ValueError(
                f"expected generator_width to be a multiple of 4, got {self.generator_width}"
            )

    def passes(self, num_images: int) -> int:
        """Image passes, including those through the generator."""
        shards = Shards(num_images)
        a_batch = shards.per_shard(self.batch_size) * shards.count
        seen = shards.batches_per_epoch(self.batch_size) * a_batch
        return self.rounds * ((1 + self.round_steps) * a_batch + 4 * seen + num_images)

    def _learn(self, run: Run) -> nn.Module:
        surrogate = self._build_surrogate(run)
        ahead = copy.deepcopy(surrogate)
        with global_seed(run.weight_seed("generator")):
            shape = run.images.shape[1:]
            generator = ImageToImage(shape[0], self.generator_width, self.generator_blocks)
        optimizer = sgd(surrogate, lr=self.learning_rate)
        one_step = sgd(ahead, lr=self.learning_rate, momentum=0)
        adam = torch.optim.Adam(generator.parameters(), lr=self.generator_rate)
        rows, totals = (torch.zeros((run.num_classes, *shape), device=run.device) for _ in "ab")
        run.track(surrogate=surrogate, ahead=ahead, generator=generator, rows=rows, totals=totals)
        run.track(optimizer=optimizer, one_step=one_step, adam=adam)
        counts = torch.zeros(run.num_classes, device=run.device)
        counts.index_add_(0, run.labels, torch.ones_like(run.labels, dtype=counts.dtype))
        counts = counts.clamp_min(1)[:, None, None, None]

        def perturbed(index: Tensor) -> Tensor:
            return (to_float(run.images[index]) + rows[run.labels[index]]).clamp(0, 1)

        for number in run.steps(self.rounds, "rounds"):
            for index in run.batches(1, self.batch_size, "ahead", "ahead"):
                totals.zero_()
                ahead.load_state_dict(surrogate.state_dict())
                seen, labels = perturbed(index), run.labels[index]

                def loss_fn(
                    network: nn.Module, seen: Tensor = seen, labels: Tensor = labels
                ) -> Tensor:
                    return F.cross_entropy(network(seen), labels)

                run.train_step(ahead, one_step, loss_fn, clip_norm=5.0)
            steps = run.batches_per_epoch(self.batch_size)
            for index in run.batches(steps, self.batch_size, "generator", "generator"):
                stage = _STAGES * number // self.rounds
                self._step(run, index, stage, ahead, generator, adam, rows)
            for index in run.sweep(self.batch_size, title="perturbations"):
                with run.frozen(generator) as network, torch.no_grad():
                    made = self.epsilon * network(to_float(run.images[index])).float()
                run.sum_into(totals, run.labels[index], made)
            rows.copy_(totals / counts)
            learned = train(
                run,
                surrogate,
                optimizer,
                steps=self.round_steps,
                batch_size=self.batch_size,
                inputs=perturbed,
                clip_norm=5.0,
            )
            run.log(round=number, **learned)
        run.result("class-wise", rows=rows)
        return surrogate

    def _step(
        self,
        run: Run,
        index: Tensor,
        stage: int,
        ahead: nn.Module,
        generator: nn.Module,
        adam: torch.optim.Optimizer,
        rows: Tensor,
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
        means = torch.where(held, means, rows / self.epsilon).requires_grad_()
        with run.frozen(ahead) as network:
            with torch.no_grad():
                logits = network(images).float()
            if stage == 1:
                drawn = run.rng("wrong classes").integers((len(index),), 1, run.num_classes)
                targets = (labels + drawn) % run.num_classes
            else:
                targets = wrong_classes(logits, labels, largest=stage == 0)
            # Not means[targets], whose gradient several threads add up in an order of chance.
            seen = (images + self.epsilon * means.index_select(0, targets)).clamp(0, 1)
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
