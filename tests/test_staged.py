"""Staged training against its definition: which weights move in which epoch."""

import itertools
import math

import pytest
import torch
from torch import nn

from unlearnable.datasets import Shapes
from unlearnable.engine.models import build_model
from unlearnable.engine.run import Run
from unlearnable.engine.train import Batch, sgd, to_float, train
from unlearnable.evaluation import countermeasure, evaluate
from unlearnable.evaluation.countermeasures import operations
from unlearnable.evaluation.countermeasures.colours import ColourJitter
from unlearnable.evaluation.countermeasures.staged import StagedTraining, layers_of


def network():
    """Five layers with weights."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(),
        nn.Conv2d(4, 4, 3, bias=False), nn.ReLU(), nn.Flatten(),
        nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 3),
    )  # fmt: skip


@pytest.fixture
def run():
    images = torch.randint(0, 256, (24, 3, 8, 8), dtype=torch.uint8)
    return Run(images, torch.arange(24) % 3, 3, seed=0)


def moved(counter, run, losses):
    """By layer, whether the next epoch changes it after epochs of these losses."""
    model = network()
    optimizer = sgd(model)
    run.track(model=model, optimizer=optimizer)
    run.history[:] = [{"loss": loss, "accuracy": 1.0} for loss in losses]
    before = [[weight.clone() for weight in weights] for weights in layers_of(model)]
    counter.on_epoch(model, run)
    options = {"steps": 3, "batch_size": 8, "inputs": lambda index: to_float(run.images[index])}
    train(run, model, optimizer, **options)
    pairs = zip(before, layers_of(model), strict=True)
    return [not all(map(torch.equal, old, new)) for old, new in pairs]


GUESS = math.log(3)


@pytest.mark.parametrize(
    ("losses", "held"),
    [
        ([], 0),
        ([GUESS, 0.51 * GUESS], 0),
        ([GUESS, 0.49 * GUESS], 1),
        ([0.4, 0.4, 0.4], 3),
        ([0.4, 2.0, 0.4], 2),
        ([0.1] * 9, 4),
    ],
)
def test_each_epoch_that_was_too_easy_holds_a_part_of_the_shallow_layers_more(run, losses, held):
    assert moved(StagedTraining(), run, losses) == [False] * held + [True] * (5 - held)


@pytest.mark.parametrize(("stages", "held"), [(1, 4), (2, 2), (3, 1), (8, 0)])
def test_the_last_stage_holds_all_layers_but_the_last(run, stages, held):
    found = moved(StagedTraining(stages=stages), run, [0.1])
    assert found == [False] * held + [True] * (5 - held)


def test_weights_that_are_fixed_by_design_stay_so():
    model = build_model("resnet9", 3, 3, seed=0)
    fixed = [name for name, weight in model.named_parameters() if not weight.requires_grad]
    run = Run(torch.zeros(3, 3, 8, 8, dtype=torch.uint8), torch.arange(3), 3, seed=0)
    StagedTraining().on_epoch(model, run)
    still = [name for name, weight in model.named_parameters() if not weight.requires_grad]
    assert fixed == still and "whitening.weight" in fixed


def test_a_layer_is_whatever_has_weights_of_its_own_in_the_order_of_definition():
    shapes = [[tuple(weight.shape) for weight in weights] for weights in layers_of(network())]
    assert shapes == [
        [(4, 3, 3, 3), (4,)], [(4,), (4,)], [(4, 4, 3, 3)], [(8, 64), (8,)], [(3, 8), (3,)],
    ]  # fmt: skip


def test_colours_are_jittered_and_a_share_of_the_images_is_grey(run):
    batch = Batch(to_float(run.images), run.labels)
    counter = StagedTraining(grey=0.5)
    for _ in run.batches(1, 24):
        found = counter.on_batch(batch, run, 0).images
    again = Run(run.images, run.labels, 3, seed=0)
    for _ in again.batches(1, 24):
        jittered = ColourJitter().on_batch(batch, again, 0).images
        grey = again.rng("grey").uniform((24, 1, 1, 1), 0, 1).flatten() < 0.5
    assert 0 < grey.sum() < 24
    assert torch.equal(found[~grey], jittered[~grey])
    assert torch.equal(found[grey], operations.grey(jittered[grey]).expand(-1, 3, -1, -1))
    assert (found[grey].amax(1) == found[grey].amin(1)).all()


def test_a_victim_in_stages_is_evaluated_as_any_other(monkeypatch):
    held = []
    on_epoch = StagedTraining.on_epoch

    def watched(self, model, run):
        on_epoch(self, model, run)
        held.append(sum(not weights[0].requires_grad for weights in layers_of(model)))

    monkeypatch.setattr(StagedTraining, "on_epoch", watched)
    data = Shapes(size=64), Shapes(train=False, size=32)
    options = {"epochs": 3, "seeds": 1, "progress": False}
    counter = countermeasure("staged-training")
    assert counter == StagedTraining() and counter.passes == 1
    evaluate(*data, "tiny", countermeasure=StagedTraining(watched=0.999), **options)
    assert held[0] == 0 and held == sorted(held) and held[-1] > 0
    held.clear()
    found = evaluate(*data, "tiny", countermeasure="grayscale+staged-training", **options)
    assert len(held) == 3 and found.countermeasure == "grayscale+staged-training"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"stages": 0}, "stages"), ({"watched": 1}, "below 1"), ({"grey": 1.1}, "from 0 to 1")],
)
def test_numbers_out_of_range_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        StagedTraining(**wrong)


def test_held_layers_stay_as_they_are_with_a_slow_copy_of_the_weights(monkeypatch):
    weights = []

    class Spy(StagedTraining):
        def on_epoch(self, model, run):
            if run.history:
                run.history[-1]["loss"] = 0.0
            super().on_epoch(model, run)
            layers = [layer[0] for layer in layers_of(model)]
            weights.append([(w.detach().clone(), w.requires_grad) for w in layers])

    evaluate(
        Shapes(size=40), Shapes(train=False, size=20), "tiny", countermeasure=Spy(), epochs=5,
        recipe="fast", batch_size=16, seeds=1, precision="float32", device="cpu", progress=False,
    )  # fmt: skip
    still = 0
    for before, after in itertools.pairwise(weights):
        for (old, learns), (new, _) in zip(before, after, strict=True):
            assert torch.equal(old, new) == (not learns)
            still += not learns
    assert still
