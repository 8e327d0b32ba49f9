"""Recipes: which weights learn how fast, from which images."""

import copy
import dataclasses

import pytest
import torch

import unlearnable as ue
from unlearnable.datasets import Shapes
from unlearnable.engine.augment import CropFlip
from unlearnable.engine.models import build_model
from unlearnable.engine.recipes import FAST, STANDARD, triangle
from unlearnable.engine.resnet9 import ResNet9, whitening_filters
from unlearnable.engine.run import Run
from unlearnable.engine.train import to_float


def run_of(images=24):
    data = Shapes(size=images)
    pixels = torch.from_numpy(data.data).permute(0, 3, 1, 2).contiguous()
    return Run(pixels, torch.tensor(data.targets), 10)


def test_the_standard_recipe_is_the_fields_protocol():
    model = build_model("tiny", 10)
    (group,) = STANDARD.optimizer(model).param_groups
    assert (group["lr"], group["momentum"], group["weight_decay"]) == (0.1, 0.9, 5e-4)
    assert len(group["params"]) == len(list(model.parameters()))
    assert STANDARD.optimizer(model, 0.01).param_groups[0]["lr"] == pytest.approx(0.001)


def test_biases_of_norms_learn_faster_in_the_fast_recipe():
    model = build_model("resnet9", 10)
    weights, biases = FAST.optimizer(model).param_groups
    assert len(biases["params"]) == 6
    assert biases["lr"] == 64 * weights["lr"]
    assert biases["lr"] * biases["weight_decay"] == pytest.approx(
        weights["lr"] * weights["weight_decay"]
    )
    assert len(weights["params"]) + 6 == len(list(model.parameters()))


def test_the_triangle_rises_and_falls():
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler, rates = triangle(optimizer, 100), []
    for _ in range(100):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates[0] == pytest.approx(0.2) and rates[23] == pytest.approx(1.0)
    assert rates.index(max(rates)) == 23 and rates[-1] == pytest.approx(0.082, abs=1e-3)


def test_flips_alternate_from_epoch_to_epoch():
    run, seen = run_of(), []
    still = dataclasses.replace(FAST, padding=0)
    for epoch in range(3):
        for index in run.sweep(24):
            seen.append(still.inputs(run, epoch)(index))
    images = to_float(run.images[index])
    flipped = (seen[0] != images).flatten(1).any(1)
    assert 0 < flipped.sum() < 24
    assert torch.equal(seen[0][flipped], images[flipped].flip(3))
    assert torch.equal(seen[1], seen[0].flip(3)) and torch.equal(seen[2], seen[0])


def test_mirrored_crops_continue_the_image():
    image = torch.arange(16.0).view(1, 1, 4, 4)
    crop = CropFlip(torch.tensor([[-1, 2]]), torch.tensor([False]))
    plain, mirrored = crop(image), crop(image, mirrored=True)
    assert torch.equal(plain[0, 0, 0], torch.zeros(4))
    assert torch.equal(mirrored[0, 0, 1:, :2], image[0, 0, :3, 2:])
    assert torch.equal(mirrored[0, 0, 0, :2], image[0, 0, 0, 2:])
    assert torch.equal(mirrored[0, 0, 1, 2:], image[0, 0, 0, [3, 2]])


@pytest.mark.parametrize("channels", [1, 3])
def test_whitening_filters_are_orthogonal_and_come_with_their_negatives(channels):
    filters = whitening_filters(channels).flatten(1)
    half = len(filters) // 2
    assert torch.equal(filters[:half], -filters[half:])
    gram = filters[:half] @ filters[:half].T
    off = gram - torch.diag(gram.diagonal())
    assert off.abs().max() < 1e-4 * gram.diagonal().max()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("side", [32, 33, 64, 96])
def test_resnet9_takes_images_of_many_sizes(channels, side):
    assert ResNet9(7, channels)(torch.rand(2, channels, side, side)).shape == (2, 7)


def test_nothing_trains_the_whitening_or_the_norms_scales():
    model = build_model("resnet9", 10)
    fixed = {name for name, weight in model.named_parameters() if not weight.requires_grad}
    assert fixed == {"whitening.weight"} | {
        f"groups.{group}.norm{norm}.weight" for group in range(3) for norm in (1, 2)
    }


def test_only_networks_whose_norms_have_no_scale_learn_so_fast():
    for name, rates in (("resnet9", [1.5, 96.0]), ("resnet18", [0.05]), ("tiny", [0.05])):
        groups = FAST.optimizer(build_model(name, 10)).param_groups
        assert [group["lr"] for group in groups] == rates
        assert sum(len(group["params"]) for group in groups[1:]) == 6 * (name == "resnet9")
        model = build_model(name, 10)
        for layer in model.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):  # as in fine-tuning
                layer.requires_grad_(False)
        assert [group["lr"] for group in FAST.optimizer(model).param_groups] == [0.05]
        assert FAST.optimizer(build_model(name, 10), 0.5).param_groups[0]["lr"] == rates[0] / 2


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["tiny", "tiny-resnet", "resnet18"])
def test_other_networks_learn_by_the_fast_recipe_too(victim):
    found = ue.evaluate(
        Shapes(size=600), Shapes(train=False, size=200), victim,
        recipe="fast", epochs=8, batch_size=64, seeds=1, device="cpu", progress=False,
    )  # fmt: skip
    assert found.train[0] > 0.2


@pytest.mark.slow
def test_resnet9_learns_fast_by_the_fast_recipe():
    found = ue.evaluate(
        Shapes(size=600), Shapes(train=False, size=200), "resnet9",
        recipe="fast", epochs=8, batch_size=64, seeds=1, device="cpu", progress=False,
    )  # fmt: skip
    assert found.recipe == "fast" and found.last[0] > 0.5


def test_an_unknown_recipe_is_refused():
    data = Shapes(size=20)
    with pytest.raises(ValueError, match=r"expected a recipe out of \['standard', 'fast'\], got"):
        ue.evaluate(data, data, "tiny", recipe="quick", progress=False)


def stepped(optimizer, scheduler):
    optimizer.step()
    scheduler.step()


def test_the_slow_copy_leads_less_and_less_and_stands_at_the_end():
    model = torch.nn.BatchNorm1d(1)
    model.running_mean.fill_(1.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    scheduler = FAST.scheduler(optimizer, model, 40)
    pulled = []
    for update in range(40):
        with torch.no_grad():
            model.weight.fill_(update + 1.0)
            model.running_mean.fill_(update + 1.0)
        stepped(optimizer, scheduler)
        assert model.running_mean.item() == pytest.approx(model.weight.item())
        pulled.append(update + 1 - model.weight.item())
    assert all(pull == 0 for update, pull in enumerate(pulled[:-1]) if (update + 1) % 5)
    assert 0 < pulled[4] < pulled[19] < pulled[34] < 5
    assert pulled[39] == pytest.approx(pulled[34] + 5)  # the copy of five updates before
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.07)


def test_a_resumed_slow_copy_goes_on_from_where_it_was():
    weights = []
    for resumed in (False, True):
        model = torch.nn.Linear(1, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        with torch.no_grad():
            model.weight.zero_()
        scheduler = FAST.scheduler(optimizer, model, 20)
        for update in range(20):
            if resumed and update == 7:
                state = copy.deepcopy(scheduler.state_dict())
                scheduler = FAST.scheduler(optimizer, model, 20)
                scheduler.load_state_dict(state)
            with torch.no_grad():
                model.weight.fill_(float(update))
            stepped(optimizer, scheduler)
        weights.append(model.weight.item())
    assert weights[0] == weights[1] > 0


@pytest.mark.parametrize("updates", [1, 4])
def test_a_training_of_few_updates_has_no_slow_copy(updates):
    model = torch.nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    scheduler = FAST.scheduler(optimizer, model, updates)
    with torch.no_grad():
        model.weight.fill_(7.0)
    for _ in range(updates):
        stepped(optimizer, scheduler)
    assert model.weight.item() == 7
