"""Which transformations a search is an expectation over: the same choice in every such method."""

import math

import numpy as np
import pytest
import torch
from PIL import Image
from test_degradation import draws, only, pictures
from test_jpeg import by_pillow, levels
from test_methods import make_run, smooth
from torchvision.transforms import v2

import unlearnable as ue
from unlearnable.cli.main import main
from unlearnable.datasets import Shapes
from unlearnable.engine.augment import CropFlip, jittered
from unlearnable.engine.degradation import (
    DEGRADATIONS,
    Degradation,
    check_probabilities,
    normalized,
)
from unlearnable.engine.filters import blurred, without_bands
from unlearnable.engine.pgd import pgd
from unlearnable.engine.train import to_float

QUIET = {"device": "cpu", "precision": "float32", "progress": False}
SMALL = {
    "train_steps": 1, "steps": 1, "final_steps": 1, "batch_size": 16, "surrogate": "tiny",
    "max_rounds": 1, "round_steps": 1, "stop_error": 1.0, "train_epochs": 1, "checkpoints": 1,
    "restarts": 1, "robust_steps": 1,
}  # fmt: skip
METHODS = [method for method in ue.METHODS if "augment" in method.__dataclass_fields__]
CROPPED = [method for method in METHODS if method.crops]


def make(cls, **options):
    known = cls.__dataclass_fields__
    return cls.preset("demo", **{n: v for n, v in SMALL.items() if n in known} | options)


def learned(cls, **options):
    return make(cls, **options).fit(Shapes(size=40), **QUIET).perturbation_


# --- what the transformations are ----------------------------------------------------------------


@pytest.mark.parametrize("size", [(24, 24), (17, 30)])
def test_blur_is_torchvisions(size):
    images, sigmas = pictures(3, *size), torch.tensor([0.1, 0.8, 1.5])
    found = blurred(images, sigmas)
    for own, sigma, reach, seen in zip(images, sigmas.tolist(), (1, 3, 5), found, strict=True):
        expected = v2.functional.gaussian_blur(own, [2 * reach + 1] * 2, [sigma] * 2)
        assert (seen - expected).abs().max() < 1e-5


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (9, 1)])
def test_blur_of_few_pixels_goes_to_and_fro_between_mirrors(size):
    images = pictures(1, *size)
    row = np.asarray(images[0, 0, :, 0])
    weights = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
    height = len(row)
    there_and_back = [*range(height), *range(height - 2, 0, -1)]
    expected = [
        sum(
            weight * row[there_and_back[(place + offset) % len(there_and_back)]]
            for offset, weight in zip(range(-5, 6), weights / weights.sum(), strict=True)
        )
        for place in range(height)
    ]
    found = blurred(images[:, :, :, :1], torch.tensor([1.5]))
    assert np.abs(np.asarray(found[0, 0, :, 0]) - expected).max() < 1e-5


def cosine_transform(plane):
    """By its definition: a sum over pixels for each pair of frequencies."""
    height, width = plane.shape
    found = np.zeros((height, width))
    for u in range(height):
        for v in range(width):
            waves = np.outer(
                np.cos(np.pi * u * (np.arange(height) + 0.5) / height),
                np.cos(np.pi * v * (np.arange(width) + 0.5) / width),
            )
            scale = math.sqrt((2 - (u == 0)) * (2 - (v == 0)) / (height * width))
            found[u, v] = scale * (waves * plane).sum()
    return found


def test_what_a_spectral_mask_leaves_out_is_gone_and_the_rest_is_as_it_was():
    images = 0.4 + 0.2 * pictures(2, 16, 24)  # so that nothing is clipped
    kept = torch.rand(2, 8, 8, generator=torch.Generator().manual_seed(0)) < 0.5
    kept[:, 0, 0] = True
    found = without_bands(images, kept)
    for own, seen, bands in zip(images, found, kept, strict=True):
        mask = np.kron(np.asarray(bands), np.ones((2, 3)))  # bands of 2x3 frequencies
        expected = cosine_transform(own[0].double().numpy()) * mask
        assert np.abs(cosine_transform(seen[0].double().numpy()) - expected).max() < 1e-4
    assert torch.allclose(without_bands(images, torch.ones(2, 8, 8) > 0), images, atol=1e-5)


def test_half_of_the_spectral_masks_are_low_passes_and_all_keep_the_mean():
    bands = only("spectral", 4000).bands
    assert bands[:, 0, 0].all()
    highest = torch.maximum(torch.arange(8)[:, None], torch.arange(8))
    edges = [torch.equal(own, highest <= own[0].sum() - 1) for own in bands]
    assert np.mean(edges) == pytest.approx(0.5, abs=0.05)
    sizes = {int(own[0].sum()) for own, is_edge in zip(bands, edges, strict=True) if is_edge}
    assert {2, 3, 4, 5, 6, 7} <= sizes
    left_out = 1 - bands.float().mean((1, 2))
    others = left_out[~torch.tensor(edges)]
    assert others.mean() == pytest.approx(0.25, abs=0.02) and others.max() < 0.75
    images = 0.4 + 0.2 * pictures(8)
    seen = only("spectral", 8)(images)
    assert torch.allclose(seen.mean((2, 3)), images.mean((2, 3)), atol=1e-3)


def test_normalised_channels_have_one_mean_and_one_spread():
    images = 0.2 + 0.1 * pictures(4)
    images[3, 1] = 0.7  # without a spread
    seen = normalized(images)
    for own, found in zip(images.double().numpy(), seen.double().numpy(), strict=True):
        for plane, result in zip(own, found, strict=True):
            spread = max(plane.std(), 1 / 255)
            expected = (0.5 + 0.25 * (plane - plane.mean()) / spread).clip(0, 1)
            assert np.abs(result - expected).max() < 1e-4
    leaf = images.clone().requires_grad_()
    (slope,) = torch.autograd.grad(normalized(leaf).square().sum(), leaf)
    assert slope.isfinite().all()


def test_jitter_is_torchvisions_but_for_the_hue():
    images = pictures(1)
    one = torch.ones(1)
    for name, place in (("brightness", 0), ("contrast", 1), ("saturation", 2)):
        for factor in (0.6, 1.3):
            factors = [one, one, one, 0 * one]
            factors[place] = factor * one
            expected = getattr(v2.functional, f"adjust_{name}")(images, factor)
            assert (jittered(images, *factors) - expected).abs().max() < 2e-3
    turned = jittered(images, one, one, one, one / 3)
    assert torch.allclose(turned, images[:, [2, 0, 1]], atol=1e-5)
    drawn = only("jitter", 5000).factors
    assert drawn[:, :3].min() == pytest.approx(0.6, abs=0.01)
    assert drawn[:, :3].max() == pytest.approx(1.4, abs=0.01)
    assert drawn[:, 3].abs().max() == pytest.approx(0.1, abs=0.001)


def test_blurs_are_drawn_as_they_are_said():
    sigmas = only("blur", 5000).sigmas
    assert (sigmas.min().item(), sigmas.max().item()) == pytest.approx((0.1, 1.5), abs=0.01)


def test_jpeg_of_a_grey_image_is_pillows_of_pillows():
    images, drawn = pictures(6), only("grayscale+jpeg", 6)
    grey = [
        Image.fromarray(own.astype(np.uint8).transpose(1, 2, 0)).convert("L").convert("RGB")
        for own in levels(images)
    ]
    expected = [
        by_pillow(np.asarray(own).transpose(2, 0, 1), quality)
        for own, quality in zip(grey, drawn.qualities.tolist(), strict=True)
    ]
    assert np.abs(levels(drawn(images)) - np.stack(expected)).mean() < 0.6


def test_several_come_one_after_the_other_as_they_are_named():
    images = pictures(4)
    first = only("blur+grayscale+normalize", 4)
    alone = [Degradation.draw(4, draws(), {name: 1.0}) for name in ("blur", "grayscale")]
    assert torch.equal(first(images), normalized(alone[1](alone[0](images))))
    other = only("normalize+grayscale", 4)(images)
    assert not torch.allclose(other, only("grayscale+normalize", 4)(images), atol=1e-2)


def test_draws_of_the_first_three_do_not_depend_on_the_others():
    one = Degradation.draw(50, draws(), {"jpeg": 0.5})
    other = Degradation.draw(50, draws(), {"jpeg": 0.5, "blur": 0.2, "grayscale+jpeg": 0.1})
    assert torch.equal(one.qualities, other.qualities) and torch.equal(one.shares, other.shares)
    assert torch.equal(one.kinds == 0, other.kinds == 0)


def test_names_have_one_order():
    given = {"jitter": 0.1, "jpeg+grayscale": 0.1, "crop-flip": 0.5, "jpeg": 0.1}
    expected = ["jpeg", "jitter", "crop-flip", "jpeg+grayscale"]
    assert list(check_probabilities("augment", given)) == expected
    assert check_probabilities("augment", {"crop-flip": 0, "jpeg": 0}) == {"crop-flip": 0.0}


@pytest.mark.parametrize("share", [0.25, 1.0])
def test_a_share_of_the_images_is_cropped_and_flipped(share):
    drawn = CropFlip.draw(4000, draws(), share=share)
    same = (drawn.shifts == 0).all(1) & ~drawn.flips
    assert 1 - same.float().mean() == pytest.approx(share * (1 - 1 / 162), abs=0.03)
    whole = CropFlip.draw(4000, draws())
    assert torch.equal(drawn.shifts[~same], whole.shifts[~same])


# --- in the methods ------------------------------------------------------------------------------


def test_the_methods_that_have_the_choice():
    assert {ue.EM, ue.REM, ue.SEM, ue.TAP, ue.SEP, ue.HYPO} <= set(METHODS)
    assert {ue.REM, ue.SEM, ue.TAP, ue.HYPO} <= set(CROPPED) and ue.SEP not in CROPPED


@pytest.mark.parametrize("cls", METHODS)
def test_searches_and_surrogates_see_what_is_drawn(cls, monkeypatch):
    asked = []

    def draw(count, draws, probabilities):
        asked.append((count, probabilities))
        return lambda images: images

    monkeypatch.setattr(Degradation, "draw", draw)
    run, shares = make_run(), {"jpeg": 0.25, "grayscale+jpeg": 0.5}
    method = make(cls, surrogate=smooth(), augment=shares)
    method._validate()
    method._learn(run)
    assert {"search degradation", "train degradation"} <= run._seeds.asked.keys()
    assert all(probabilities == shares for _, probabilities in asked)
    assert ("search crop" in run._seeds.asked) == (cls in CROPPED)


@pytest.mark.parametrize("cls", METHODS)
def test_crops_and_flips_may_be_chosen_or_left_out(cls):
    chosen = make(cls, augment={"crop-flip": float(cls not in CROPPED)}, surrogate=smooth())
    chosen._validate()
    chosen._learn(run := make_run())
    assert ("search crop" in run._seeds.asked) == (cls not in CROPPED)
    plain = make(cls, augment={"crop-flip": float(cls in CROPPED)})
    plain._validate()
    assert "augment" not in plain._identity["parameters"] and plain.augment is not None


@pytest.mark.parametrize("cls", METHODS)
def test_what_is_chosen_changes_what_is_learned_and_its_name_in_the_record(cls):
    plain, same, other = (
        learned(cls, augment=augment)
        for augment in (None, {"crop-flip": float(cls in CROPPED), "jpeg": 0}, {"grayscale": 1})
    )
    assert plain.digest == same.digest
    recorded = plain.config["parameters"]
    assert "augment" not in recorded
    assert other.config["parameters"]["augment"] == {"grayscale": 1.0}
    assert plain.digest != other.digest


def test_em_descends_the_loss_of_what_is_drawn():
    method = ue.EM(smooth(), augment={"grayscale": 1.0, "crop-flip": 1.0}, steps=1)
    by_method, by_hand = make_run(), make_run()
    index = next(by_method.batches(1, 16))
    assert torch.equal(index, next(by_hand.batches(1, 16)))
    images, labels = to_float(by_hand.images[index]), by_hand.labels[index]

    def loss(perturbed):
        red, green, blue = perturbed.split(1, dim=1)
        grey = (0.299 * red + 0.587 * green + 0.114 * blue).expand_as(perturbed)
        crop = CropFlip.draw(16, by_hand.rng("search crop"))
        return torch.nn.functional.cross_entropy(smooth()(crop(grey)), labels)

    found = method._descend(by_method, index, smooth(), torch.zeros_like(images), 1)
    step = {"epsilon": 8 / 255, "step_size": method.step_size, "steps": 1}
    expected = pgd(loss, images, torch.zeros_like(images), **step)
    assert (found - expected).abs().max() < 1e-6
    grey_change = found.sign().amax(1) == found.sign().amin(1)  # alike in all channels
    inside = ((images > 0) & (images < 1)).all(1)
    assert grey_change[inside].all()


def test_checkpoints_of_a_step_see_the_same_draws(monkeypatch):
    seen = []
    apply = CropFlip.__call__
    monkeypatch.setattr(
        CropFlip, "__call__", lambda self, images: seen.append(self.shifts) or apply(self, images)
    )
    method = make(ue.SEP, surrogate=smooth(), checkpoints=3, train_epochs=3, steps=2)
    method.augment = {"crop-flip": 1.0}
    run = make_run()
    method._learn(run)
    steps = seen[-6:]
    assert all(torch.equal(steps[0], other) for other in steps[1:3])
    assert all(torch.equal(steps[3], other) for other in steps[4:])
    assert not torch.equal(steps[0], steps[3])


def test_what_another_library_calls_it_is_answered():
    with pytest.raises(TypeError, match="no parameter 'eot'; did you mean 'augment'"):
        ue.EM(eot="crop-flip")


@pytest.mark.parametrize("name", ["em", "tap"])
def test_the_command_line_takes_the_choice(name, tmp_path):
    out = tmp_path / "learned"
    words = ["fit", "shapes:16", str(out), "--method", name, "--preset", "demo", "--quiet"]
    small = {"em": ["max_rounds=1", "stop_error=1"], "tap": ["train_epochs=1", "steps=1"]}[name]
    shares = 'augment={"grayscale+jpeg": 0.3, "blur": 0.2}'
    assert main([*words, "--device", "cpu", "--set", *small, shares]) in (0, None)
    assert ue.Perturbation.from_pretrained(out).config["parameters"]["augment"] == {
        "blur": 0.2, "grayscale+jpeg": 0.3,
    }  # fmt: skip


@pytest.mark.parametrize("name", DEGRADATIONS)
def test_empty_batches_stay_empty(name):
    assert only(name, 0)(torch.zeros(0, 3, 8, 8)).shape == (0, 3, 8, 8)
