"""Adversarial training against a plain loop, and its step rule."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from unlearnable.engine.models import reset_weights
from unlearnable.engine.run import Run
from unlearnable.engine.train import Batch, to_float
from unlearnable.evaluation import countermeasure
from unlearnable.evaluation.countermeasures.adversarial import (
    AdversarialTraining,
    ShiftAdversarialTraining,
)


@pytest.fixture(scope="module")
def pixels():
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (16, 3, 8, 8), dtype=torch.uint8, generator=generator)
    return images, torch.arange(16) % 3


class Recorded:
    """A run's draws, kept as they come."""

    def __init__(self, draws):
        self._draws, self.kept = draws, []

    def _keep(self, tensor):
        self.kept.append(tensor.clone())
        return tensor

    def uniform(self, *args):
        return self._keep(self._draws.uniform(*args))

    def normal(self, *args):
        return self._keep(self._draws.normal(*args))


def attacked(counter, images, labels, monkeypatch):
    """The batch before and after, the network, and what was drawn."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.Tanh(), nn.Linear(8, 3))
    for layer in model[1::2]:
        reset_weights(layer, seed=0)
    run = Run(images, labels, 3, seed=0)
    run.track(model=model)
    rng, draws = run.rng, []

    def recorded(purpose):
        draws.append(Recorded(rng(purpose)))
        return draws[-1]

    for index in run.batches(1, 16):
        batch = Batch(to_float(images[index]), labels[index])
        monkeypatch.setattr(run, "rng", recorded)
        found = counter.on_step(batch, model, run)
    return batch, found, model, draws[0].kept


def slope(model, x, labels):
    leaf = x.clone().requires_grad_()
    F.cross_entropy(model(leaf), labels, reduction="sum").backward()
    return leaf.grad


@pytest.mark.parametrize("name", ["adversarial-training-4-steps-3", "adversarial-training-8"])
def test_adversarial_training_is_a_plain_loop_of_projected_steps(pixels, name, monkeypatch):
    counter = countermeasure(name)
    before, after, model, (start,) = attacked(counter, *pixels, monkeypatch)
    radius, steps = counter.radius / 255, counter.steps
    assert start.abs().max() <= radius and start.abs().max() > 0.9 * radius
    x = (before.images + start).clamp(0, 1)
    for _ in range(steps):
        x = x + 2 * radius / steps * slope(model, x, before.targets).sign()
        x = torch.minimum(torch.maximum(x, before.images - radius), before.images + radius)
        x = x.clamp(0, 1)
    assert torch.allclose(after.images, x, atol=1e-6)


@pytest.mark.parametrize("steps", [1, 7, 10])
def test_its_steps_are_enough_to_cross_the_ball_and_no_more(steps):
    """Where the gradient keeps its signs, as of a linear model of two classes."""
    images = torch.full((8, 1, 4, 4), 128, dtype=torch.uint8)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    reset_weights(model[1], seed=0)
    run = Run(images, torch.arange(8) % 2, 2, seed=0)
    run.track(model=model)
    for index in run.batches(1, 8):
        batch = Batch(to_float(images[index]), run.labels[index])
        found = AdversarialTraining(4, steps=steps).on_step(batch, model, run).images
    change = 255 * (found - batch.images)
    weights = model[1].weight.detach()
    uphill = torch.where(batch.targets == 0, 1, -1)[:, None] * (weights[1] - weights[0]).sign()
    assert torch.allclose(change.flatten(1), 4 * uphill, atol=1e-4)
    assert AdversarialTraining(4, steps=steps).passes == steps + 1


@pytest.mark.parametrize(
    ("name", "shift"),
    [("adversarial-training-4-shift-25", 25), ("adversarial-training-2-steps-3-shift-8", 8)],
)
def test_the_adversarys_colour_takes_steps_along_the_same_gradient(
    pixels, name, shift, monkeypatch
):
    counter = countermeasure(name)
    assert counter.name == name and isinstance(counter, ShiftAdversarialTraining)
    before, after, model, (start, colour) = attacked(counter, *pixels, monkeypatch)
    radius, most, steps = counter.radius / 255, shift / 255, counter.steps
    assert colour.shape == (16, 3, 1, 1) and colour.abs().max() <= most
    x = (before.images + start).clamp(0, 1)
    for _ in range(steps):
        leaf = x.clone().requires_grad_()
        seen = (leaf + colour).clamp(0, 1)
        F.cross_entropy(model(seen), before.targets, reduction="sum").backward()
        total = leaf.grad.sum((2, 3), keepdim=True)
        colour = (colour + 2 * most / steps * total.sign()).clamp(-most, most)
        x = x + 2 * radius / steps * leaf.grad.sign()
        x = torch.minimum(torch.maximum(x, before.images - radius), before.images + radius)
        x = x.clamp(0, 1)
    assert torch.allclose(after.images, (x + colour).clamp(0, 1), atol=1e-5)
    assert counter.passes == steps + 1


def test_the_names_of_today_keep_their_parameters():
    assert countermeasure("adversarial-training-4").parameters == {
        "radius": 4, "norm": "Linf", "steps": 10,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"shift": 0}, "shift above 0"), ({"shift": 256}, "up to 255"), ({"norm": "L2"}, "Linf")],
)
def test_colours_out_of_range_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        ShiftAdversarialTraining(**wrong)
