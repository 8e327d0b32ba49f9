"""AUE, AAP and PILNoise, and the strong augmentation that two of them search through."""

import numpy as np
import pytest
import torch
from test_methods import make_run, make_run_in_batch, smooth
from torch import nn
from torch.nn import functional as F

import unlearnable as ue
from unlearnable.datasets import Shapes
from unlearnable.engine.contrastive_augment import ContrastiveAugment
from unlearnable.engine.distributed import Group
from unlearnable.engine.pgd import random_start
from unlearnable.engine.random import Draws
from unlearnable.engine.run import Run
from unlearnable.engine.sampler import images_per_epoch
from unlearnable.engine.train import to_float

METHODS = [ue.PILNoise, ue.AUE, ue.AAP]


def draws(seed=0):
    return Draws([seed], None, torch.device("cpu"))


def images_of(count, channels=3, height=8, width=8, seed=0):
    return torch.rand(
        (count, channels, height, width), generator=torch.Generator().manual_seed(seed)
    )


class Pictures:
    """Random images of any shape and number of classes."""

    def __init__(self, size, shape, classes):
        rng = np.random.default_rng(0)
        self.images = rng.integers(0, 256, (size, *shape), dtype=np.uint8)
        self.targets = [i % classes for i in range(size)]

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.images[index], self.targets[index]


# The augmentation


def without(**changes):
    """A draw for one image that changes nothing but what is named."""
    one, nothing = torch.ones(1), torch.zeros(1)
    still = ContrastiveAugment(
        centres=torch.zeros(1, 2),
        sides=torch.ones(1, 2),
        flips=nothing.bool(),
        brightness=one,
        contrast=one,
        saturation=one,
        hue=nothing,
        grey=nothing.bool(),
    )
    return still._replace(**changes)


def test_every_image_has_draws_of_its_own():
    images = images_of(1).expand(16, -1, -1, -1)
    seen = ContrastiveAugment.draw(16, draws(), 1.0)(images)
    distances = torch.cdist(seen.flatten(1), seen.flatten(1))
    assert (distances + torch.eye(16) > 1e-3).all()


@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize(("height", "width"), [(8, 8), (5, 12), (12, 5)])
def test_without_strength_there_is_only_the_flip(channels, height, width):
    images = images_of(32, channels, height, width)
    draw = ContrastiveAugment.draw(32, draws(), 0.0)
    expected = torch.where(draw.flips[:, None, None, None], images.flip(3), images)
    assert 0 < draw.flips.sum() < 32
    assert torch.allclose(draw(images), expected, atol=1e-5)


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_augmented_images_are_images(channels):
    hard = torch.cat((images_of(200, channels).round(), images_of(200, channels)))
    seen = ContrastiveAugment.draw(400, draws(), 1.0)(hard)
    assert seen.shape == hard.shape and seen.min() >= 0 and seen.max() <= 1
    assert ContrastiveAugment.draw(0, draws(), 1.0)(hard[:0]).shape == (0, channels, 8, 8)


def test_draws_have_the_ranges_and_shares_of_the_paper():
    draw, strength = ContrastiveAugment.draw(20_000, draws(), 0.6), 0.6
    area = draw.sides.prod(1)
    assert 0.46 - 1e-4 < area.min() < 0.47 and area.max() > 0.99
    ratio = draw.sides[:, 1] / draw.sides[:, 0]
    assert 0.75 - 1e-4 < ratio.min() < 0.76 and 1.32 < ratio.max() < 4 / 3 + 1e-4
    assert (draw.centres.abs() + draw.sides).max() <= 1 + 1e-5  # inside the image
    assert draw.flips.float().mean() == pytest.approx(0.5, abs=0.02)
    assert draw.grey.float().mean() == pytest.approx(0.2 * strength, abs=0.02)
    jittered = draw.brightness != 1
    assert jittered.float().mean() == pytest.approx(0.8 * strength, abs=0.02)
    assert torch.equal(jittered, draw.hue != 0)
    for factor in (draw.brightness, draw.contrast, draw.saturation):
        assert 0.76 - 1e-4 < factor.min() < 0.77 and 1.23 < factor.max() < 1.24 + 1e-4
    assert 0.055 < draw.hue.abs().max() <= 0.06 + 1e-6


def test_a_crop_is_the_bilinear_resize_of_its_part():
    images = images_of(1, height=16, width=16)
    corner = without(centres=torch.tensor([[-0.5, 0.5]]), sides=torch.tensor([[0.5, 0.5]]))
    expected = F.interpolate(images[:, :, :8, 8:], size=16, mode="bilinear", align_corners=False)
    inside = (..., slice(0, 15), slice(1, 16))  # at the cut, the crop sees the pixel beyond it
    assert torch.allclose(corner(images)[inside], expected[inside], atol=1e-5)
    flipped = corner._replace(flips=torch.ones(1, dtype=torch.bool))
    assert torch.allclose(flipped(images), corner(images).flip(3), atol=1e-5)


def test_colours_change_as_their_names_say():
    images = 0.3 + 0.4 * images_of(1)
    luma = (images * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1, keepdim=True)

    def seen(**changes):
        return without(**{name: torch.tensor([value]) for name, value in changes.items()})(images)

    assert torch.allclose(seen(brightness=0.5), images / 2, atol=1e-5)
    assert torch.allclose(seen(contrast=0.0), luma.mean().expand_as(images), atol=1e-5)
    assert torch.allclose(seen(saturation=0.0), luma.expand_as(images), atol=1e-5)
    assert torch.allclose(seen(grey=True), luma.expand_as(images), atol=1e-5)
    assert torch.allclose(seen(hue=1 / 3), images.roll(1, dims=1), atol=1e-5)  # red to green
    turned = seen(hue=0.05)
    assert torch.allclose(turned.mean(1), images.mean(1), atol=1e-5)
    assert not torch.allclose(turned, images, atol=1e-3)


@pytest.mark.parametrize("channels", [1, 3])
def test_gradients_flow_through_the_augmentation(channels):
    # In the middle of the range nothing is clipped, so that finite differences are exact.
    images = (0.4 + 0.2 * images_of(3, channels, 5, 4)).double().requires_grad_()
    draw = ContrastiveAugment.draw(3, draws(seed=2), 0.5)
    draw = ContrastiveAugment(
        *(part.double() if part.is_floating_point() else part for part in draw)
    )
    assert (draw.hue != 0).any() and (draw.sides < 0.9).any()
    assert torch.autograd.gradcheck(draw, (images,))


# What the methods have in common


@pytest.mark.parametrize(("number", "batch_size"), [(1, 8), (5, 2), (20, 8), (43, 40), (43, 512)])
def test_an_epoch_has_the_stated_shape(number, batch_size):
    images = torch.zeros((number, 1, 2, 2), dtype=torch.uint8)
    run = Run(images, torch.zeros(number, dtype=torch.int64), 2)
    drawn = list(run.batches(run.batches_per_epoch(batch_size), batch_size))
    assert len({len(index) for index in drawn}) == 1
    assert len(torch.cat(drawn).unique()) == images_per_epoch(number, batch_size)


def small(method, **overrides):
    params = {"train_epochs": 2, "steps": 3, "batch_size": 16}
    if method is not ue.PILNoise:
        params["surrogate"] = "tiny"
    return method(**(params | overrides))


@pytest.mark.parametrize("number", [5, 43])
@pytest.mark.parametrize(
    ("method", "granularity"),
    [(method, "sample-wise") for method in METHODS] + [(ue.AUE, "class-wise")],
)
def test_the_stated_number_of_image_passes_is_the_number_made(method, granularity, number):
    fitted = small(method, granularity=granularity).fit(Shapes(size=number), progress=False)
    made = fitted.perturbation_.config["history"]["passes"]
    assert made == fitted.passes(number)
    assert [record["epoch"] for record in fitted.history_] == [1, 2]


def test_the_papers_schedules_need_the_passes_that_are_documented():
    assert ue.PILNoise().passes(50_000) == pytest.approx(4.5e6, rel=0.01)
    assert ue.AUE().passes(50_000) == pytest.approx(18e6, rel=0.01)
    assert ue.AAP().passes(50_000) == pytest.approx(14.5e6, rel=0.01)
    for method in METHODS:
        assert method.preset("fast").passes(50_000) < method().passes(50_000) / 2.5
    for method in (ue.AUE, ue.AAP):
        assert method.preset("demo").passes(3_000) <= 150_000


@pytest.mark.parametrize(
    ("shape", "classes"), [((12, 20, 3), 7), ((20, 12), 2), ((16, 16, 3), 100)]
)
@pytest.mark.parametrize("method", METHODS)
def test_any_shape_and_number_of_classes(method, shape, classes):
    pictures = Pictures(100, shape, classes)
    fitted = small(method, train_epochs=1, steps=1).fit(pictures, progress=False)
    channels = shape[2] if len(shape) == 3 else 1
    assert fitted.perturbation_.rows.shape == (100, channels, *shape[:2])
    assert fitted.perturbation_.rows.any(axis=(1, 2, 3)).all()


@pytest.mark.parametrize("method", METHODS)
def test_a_process_without_images_in_a_batch_goes_on(method):
    fitted = small(method, norm="L2", epsilon=1.0)
    rows = torch.zeros(9, 3, 8, 8)
    run = Run(rows, torch.arange(9) % 5, 5, rows=rows, group=Group(1, 2))
    *_, nothing = run.sweep(8)  # the second process has no image of the last batch
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 5, bias=False))
    assert fitted._perturb(run, nothing, model).shape == (0, 3, 8, 8)


@pytest.mark.parametrize(
    ("method", "wrong"),
    [
        (ue.PILNoise, {"uniform_weight": 1.1}),
        (ue.PILNoise, {"train_epochs": 0}),
        (ue.AUE, {"strength": 1.5}),
        (ue.AUE, {"extend_steps": -1}),
        (ue.AAP, {"strength": -0.1}),
        (ue.AAP, {"shift": 1.0}),
        (ue.AAP, {"shift": 10}),
        (ue.AAP, {"step_size": 0.0}),
        (ue.AAP, {"learning_rate": 0.0}),
    ],
)
def test_parameters_of_their_own_are_checked(method, wrong):
    (name,) = wrong
    with pytest.raises(ValueError, match=name):
        small(method, **wrong).fit(Shapes(size=20), progress=False)


def step_by_hand(images, start, loss, step_size, sign=-1):
    """One signed step on autograd's gradient of ``loss`` with respect to the perturbation."""
    delta = start.clone().requires_grad_()
    loss(images + delta).backward()
    moved = (start + sign * step_size * delta.grad.sign()).clamp(-8 / 255, 8 / 255)
    return (images + moved).clamp(0, 1) - images


# PILNoise


def linear():
    generator = torch.Generator().manual_seed(3)
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(3 * 8 * 8, 5, bias=False), nn.Linear(5, 5, bias=False)
    )
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(std=0.3, generator=generator)
    return model


def test_a_pil_step_is_autograd_on_the_papers_loss_and_the_row_is_minus_its_perturbation():
    run, by_hand, model = make_run_in_batch(), make_run_in_batch(), linear()
    index, method = torch.arange(16), ue.PILNoise(steps=1)
    images, labels = to_float(run.images), run.labels
    d = -random_start(images, 8 / 255, by_hand.rng("start"))  # the paper's, x' = x - d
    d = images - (images - d).clamp(0, 1)
    leaf = d.clone().requires_grad_()
    uniform = torch.full((16, 5), 1 / 5)
    told = F.cross_entropy(model(leaf), labels)
    undecided = F.kl_div(model(images - leaf).log_softmax(1), uniform, reduction="batchmean")
    (0.9 * told + 0.1 * undecided).backward()
    d = (d - 0.8 / 255 * leaf.grad.sign()).clamp(-8 / 255, 8 / 255)
    found = method._perturb(run, index, model)
    assert torch.allclose(found, (images - d).clamp(0, 1) - images, atol=1e-6)


def test_the_linear_surrogate_reads_the_class_from_minus_the_row():
    run, model = make_run_in_batch(), linear()
    index = torch.arange(16)
    losses = []
    for steps in (0, 10, 30):
        again = make_run_in_batch()
        row = ue.PILNoise(steps=steps)._perturb(again, index, model)
        losses.append(F.cross_entropy(model(-row), run.labels).item())
    assert losses[0] > losses[1] > losses[2]


@pytest.mark.slow
def test_pil_rows_alone_are_linearly_separable():
    fitted = ue.PILNoise.preset("demo").fit(Shapes(size=800), progress=False)
    rows = torch.from_numpy(fitted.perturbation_.rows.copy()).flatten(1).double() / 8
    answers = F.one_hot(torch.tensor(Shapes(size=800).targets), 10).double()
    # Ridge regression on one half, by its dual; the other half it has not seen.
    known, unknown = rows[:400], rows[400:]
    ridge = torch.linalg.solve(known @ known.T + 100 * torch.eye(400), answers[:400])
    for part, labels in ((known, answers[:400]), (unknown, answers[400:])):
        guess = (part @ known.T @ ridge).argmax(1)
        assert (guess == labels.argmax(1)).double().mean() > 0.99


def test_a_loaded_pil_surrogate_is_the_linear_one(tmp_path):
    fitted = small(ue.PILNoise).fit(Pictures(20, (12, 20), 7), progress=False)
    loaded = ue.PILNoise.from_pretrained(fitted.save_pretrained(tmp_path / "m"))
    images = images_of(4, 1, 12, 20)
    assert torch.equal(loaded.surrogate_(images), fitted.surrogate_(images))
    shapes = [tuple(weight.shape) for weight in loaded.surrogate_.parameters()]
    assert shapes == [(7, 240), (7, 7)]


# AUE and AAP


@torch.no_grad()
def loss_of(method, dataset, shift=0):
    """Cross-entropy of the surrogate on a dataset, for the class ``shift`` further on."""
    images = np.stack([np.asarray(dataset[i][0]) for i in range(len(dataset))])
    images = torch.from_numpy(images).permute(0, 3, 1, 2)
    labels = (torch.tensor(dataset.targets) + shift) % 10
    return F.cross_entropy(method.surrogate_(to_float(images)), labels).item()


def test_an_aue_step_is_autograd_through_the_same_augmentation():
    run, by_hand, model = make_run_in_batch(), make_run_in_batch(), smooth()
    index, start = torch.arange(16), 0.01 * images_of(16, seed=4)
    found = ue.AUE(model)._descend(run, index, model, start, steps=1)
    images, labels = to_float(run.images), run.labels
    draw = ContrastiveAugment.draw(16, by_hand.rng("search"), 0.6)
    start = (images + start).clamp(0, 1) - images
    expected = step_by_hand(
        images, start, lambda x: F.cross_entropy(model(draw(x)), labels), 0.8 / 255
    )
    assert torch.allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("shift", [1, 3, None])
def test_an_aap_step_is_autograd_towards_the_class_further_on(shift):
    run, by_hand, model = make_run_in_batch(), make_run_in_batch(), smooth()
    method = ue.AAP(model, steps=1, shift=shift, step_size=2 / 255)
    found = method._perturb(run, torch.arange(16), model)
    images, labels = to_float(run.images), run.labels
    towards = labels if shift is None else (labels + shift) % 5
    draw = ContrastiveAugment.draw(16, by_hand.rng("search"), 0.4)
    sign = 1 if shift is None else -1
    expected = step_by_hand(
        images,
        torch.zeros_like(images),
        lambda x: F.cross_entropy(model(draw(x)), towards),
        2 / 255,
        sign,
    )
    assert torch.allclose(found, expected, atol=1e-6)


def test_every_step_has_an_augmentation_of_its_own():
    run, model, asked = make_run_in_batch(), smooth(), []
    rng = run.rng
    run.rng = lambda purpose: asked.append(purpose) or rng(purpose)
    ue.AAP(model, steps=4)._perturb(run, torch.arange(16), model)
    assert asked.count("search") == 4


def test_class_wise_aue_moves_each_class_to_the_mean_of_its_images_steps():
    method = ue.AUE(smooth(), granularity="class-wise", train_epochs=1, batch_size=16)
    run = make_run()
    model = method._learn(run)
    by_class = run.results["class-wise"]["rows"]
    again = make_run()
    index = next(again.sweep(16))
    delta = method._descend(again, index, model, torch.zeros(16, 3, 8, 8), 1)
    for label in range(5):
        mine = delta[again.labels[index] == label]
        assert torch.allclose(by_class[label], mine.mean(0), atol=1e-6)


@pytest.mark.parametrize("granularity", ["sample-wise", "class-wise"])
def test_aue_lowers_the_loss_of_its_surrogate(granularity):
    dataset = Shapes(size=64)
    method = ue.AUE.preset("demo", train_epochs=4, batch_size=16, granularity=granularity)
    method.fit(dataset, progress=False)
    assert loss_of(method, method.protect(dataset)) < loss_of(method, dataset)


@pytest.mark.slow
def test_new_images_get_as_strong_rows_as_those_of_the_fit():
    method = ue.AUE.preset("demo", train_epochs=6, batch_size=16).fit(
        Shapes(size=64), progress=False
    )
    new = method.extend(Shapes(size=64, seed=9), progress=False)
    fitted, extended = (np.abs(p.rows.astype(float)).mean() for p in (method.perturbation_, new))
    assert extended > 0.7 * fitted


@pytest.mark.parametrize("shift", [1, None])
def test_aap_misleads_its_surrogate(shift):
    dataset = Shapes(size=64)
    method = ue.AAP.preset("demo", shift=shift, batch_size=16, train_epochs=8, steps=10)
    protected = method.fit(dataset, progress=False).protect(dataset)
    if shift is None:
        assert loss_of(method, protected) > loss_of(method, dataset)
    else:
        assert loss_of(method, protected, shift) < loss_of(method, dataset, shift)
