"""Draws of JPEG, resizing and greyscale inside the searches of SEM and REM."""

import itertools
import json

import numpy as np
import pytest
import torch
from PIL import Image
from test_jpeg import by_pillow, levels, picture
from test_methods import make_run, smooth

import unlearnable as ue
from unlearnable.cli.main import main
from unlearnable.datasets import Shapes
from unlearnable.engine.checkpoint import Checkpoint
from unlearnable.engine.degradation import DEGRADATIONS, Degradation, check_probabilities
from unlearnable.engine.filters import resized_and_back
from unlearnable.engine.random import Draws

EACH = {"resize": 0.3, "jpeg": 0.3, "grayscale": 0.3}
QUICK = {"train_steps": 3, "steps": 1, "final_steps": 1, "batch_size": 16, "surrogate": "tiny"}
QUIET = {"device": "cpu", "precision": "float32", "progress": False}


def draws(seed=0):
    return Draws([seed], None, torch.device("cpu"))


def pictures(count, height=24, width=24, channels=3):
    made = [picture(height, width, channels, seed) for seed in range(count)]
    return torch.from_numpy(np.stack(made)) / 255


def only(name, count, seed=0):
    return Degradation.draw(count, draws(seed), {name: 1.0})


def method(cls=ue.SEM, **options):
    known = {name: value for name, value in QUICK.items() if name in cls.__dataclass_fields__}
    return cls.preset("demo", **(known | options))


# --- what is drawn -------------------------------------------------------------------------------


def test_shares_qualities_and_sizes_are_drawn_as_they_are_said():
    found = Degradation.draw(20_000, draws(), {"jpeg": 0.3, "grayscale": 0.6})
    shares = found.kinds.bincount(minlength=3) / 20_000
    assert dict(zip((*found.names, None), shares.tolist(), strict=True)) == pytest.approx(
        {"jpeg": 0.3, "grayscale": 0.6, None: 0.1}, abs=0.02
    )
    assert (found.qualities.min(), found.qualities.max()) == (10, 95)
    assert 0.5 <= found.shares.min() < 0.51 and 0.99 < found.shares.max() <= 1
    assert found.bicubic.float().mean() == pytest.approx(0.5, abs=0.02)


def test_certain_degradations_leave_no_image_alone():
    assert (Degradation.draw(5000, draws(), {"jpeg": 0.5, "resize": 0.5}).kinds < 2).all()


def test_each_image_of_a_mixed_batch_is_what_it_is_alone():
    images = pictures(24)
    shares = dict.fromkeys((*DEGRADATIONS, "grayscale+jpeg"), 1 / 9)
    drawn = Degradation.draw(24, draws(1), shares)
    assert set(drawn.kinds.tolist()) == set(range(9))
    together = drawn(images)
    for index in range(24):
        alone = Degradation(drawn.names, *(part[[index]] for part in drawn[1:]))(images[[index]])
        assert (together[[index]] - alone).abs().max() < 1e-6
    assert torch.equal(together[drawn.kinds == 8], images[drawn.kinds == 8])


def test_jpeg_is_pillows():
    images, drawn = pictures(8), only("jpeg", 8)
    expected = [
        by_pillow(levels(own).astype(np.uint8), quality)
        for own, quality in zip(images, drawn.qualities.tolist(), strict=True)
    ]
    assert np.abs(levels(drawn(images)) - np.stack(expected)).mean() < 0.25


def test_greyscale_is_pillows_in_all_channels():
    images = pictures(4)
    seen = only("grayscale", 4)(images)
    for own, grey in zip(levels(images), levels(seen), strict=True):
        expected = Image.fromarray(own.astype(np.uint8).transpose(1, 2, 0)).convert("L")
        assert np.abs(grey - np.asarray(expected)).max() <= 1


@pytest.mark.parametrize("bicubic", [True, False])
@pytest.mark.parametrize("size", [(32, 32), (31, 50), (9, 1)])
def test_resizing_there_and_back_is_pillows(size, bicubic):
    images = 0.3 + 0.4 * pictures(4, *size)  # so that nothing is clipped
    shares = torch.tensor([0.5, 0.64, 0.88, 1.0])
    seen = resized_and_back(images, shares, torch.full((4,), bicubic))
    resampling = Image.Resampling.BICUBIC if bicubic else Image.Resampling.BILINEAR
    for own, share, found in zip(images, shares, seen, strict=True):
        smaller = [max(1, round(side * share.item())) for side in reversed(size)]
        for plane, result in zip(own.numpy(), found.numpy(), strict=True):
            there = Image.fromarray(plane, "F").resize(smaller, resampling)
            back = np.asarray(there.resize(size[::-1], resampling))
            assert np.abs(back - result).max() < 1e-3


@pytest.mark.parametrize("name", DEGRADATIONS)
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_degraded_images_are_images_with_gradients(name, channels):
    images = torch.cat((pictures(4, 17, 30), pictures(4, 17, 30).round()))[:, :channels]
    images = images.clone().requires_grad_()
    seen = only(name, 8)(images)
    assert seen.shape == images.shape and seen.min() >= 0 and seen.max() <= 1
    (slope,) = torch.autograd.grad((seen - 0.3).square().sum(), images)
    assert slope.isfinite().all() and slope.any()
    assert only(name, 0)(images[:0]).shape == (0, channels, 17, 30)


@pytest.mark.parametrize("name", DEGRADATIONS)
def test_autocast_changes_nothing(name):
    images, drawn = pictures(4, 17, 30).requires_grad_(), only(name, 4)

    def both():
        seen = drawn(images)
        return seen, torch.autograd.grad(seen.square().sum(), images)[0]

    plain = both()
    with torch.autocast("cpu", torch.bfloat16):
        assert all(map(torch.equal, both(), plain))


def test_the_gradient_of_resizing_is_that_of_its_matrices():
    images = pictures(2, 12, 9).double().requires_grad_()
    shares, bicubic = torch.tensor([0.5, 0.7]), torch.tensor([True, False])
    weights = pictures(2, 12, 9) - 0.5
    (slope,) = torch.autograd.grad(
        (resized_and_back(images, shares, bicubic) * weights).sum(), images
    )
    step = 1e-2 * slope / slope.norm()
    change = resized_and_back(images + step, shares, bicubic) - resized_and_back(
        images - step, shares, bicubic
    )
    expected = 2e-2 * slope.norm()
    assert (change * weights).sum().item() == pytest.approx(expected.item(), rel=1e-2)


def test_draws_are_those_of_the_shard_for_any_number_of_processes():
    images, seeds = pictures(24), list(range(8))
    whole = Degradation.draw(24, Draws(seeds, [3] * 8, torch.device("cpu")), EACH)(images)
    for size in (2, 3):
        edges = [round(8 * rank / size) for rank in range(size + 1)]
        parts = []
        for start, end in itertools.pairwise(edges):
            own = Draws(seeds[start:end], [3] * (end - start), torch.device("cpu"))
            drawn = Degradation.draw(3 * (end - start), own, EACH)
            parts.append(drawn(images[3 * start : 3 * end]))
        assert torch.equal(torch.cat(parts), whole)


# --- probabilities -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("jpeg", r'some of .*such as \{"jpeg": 0.3\}, got \'jpeg\''),
        (["jpeg"], "got .'jpeg'."),
        (0.3, "got 0.3"),
        ({"grey": 0.3}, "out of .*'grayscale'.*, got 'grey'"),
        ({"greyscale": 0.3}, "did you mean 'grayscale'"),
        ({"JPEG": 0.3}, "did you mean 'jpeg'"),
        ({3: 0.3}, "got 3"),
        ({"jpeg": "often"}, r"expected augment\['jpeg'\] to be a finite number, got 'often'"),
        ({"jpeg": True}, "finite number"),
        ({"jpeg": float("nan")}, "finite number"),
        ({"jpeg": -0.1}, r"expected augment\['jpeg'\] from 0 to 1, got -0.1"),
        ({"jpeg": 30}, r"from 0 to 1, got 30"),
        ({"jpeg": 0.7, "resize": 0.4}, "sum to at most 1.*got 1.1"),
        ({"jpeg": 0.7, "grayscale+jpeg": 0.4}, "sum to at most 1.*got 1.1"),
        ({"grayscale+jpg": 0.3}, "combinations such as.*got 'grayscale.jpg'; did you mean 'jpeg'"),
        ({"jpeg+jpeg": 0.3}, "at most once per name in augment, got 'jpeg.jpeg'"),
        ({"jpeg+": 0.3}, "out of .*got 'jpeg.'"),
        ({"crop-flip+jpeg": 0.3}, '"crop-flip" as a separate entry in augment, got'),
        ({"crop-flip": 2}, r"expected augment\['crop-flip'\] from 0 to 1, got 2"),
    ],
)
@pytest.mark.parametrize("cls", [ue.SEM, ue.EM, ue.SEP])
def test_what_are_no_probabilities_is_explained(cls, value, message):
    with pytest.raises(ValueError, match=message):
        method(cls, augment=value).fit(Shapes(size=16), **QUIET)


def test_probabilities_are_plain_numbers_in_one_order():
    given = {"grayscale": np.float32(0.5), "resize": 0, "jpeg": torch.tensor(0.25)}
    found = check_probabilities("augment", given)
    assert list(found.items()) == [("jpeg", 0.25), ("grayscale", 0.5)]
    assert all(type(probability) is float for probability in found.values())
    assert check_probabilities("augment", {"jpeg": 0.7, "resize": 0.2, "grayscale": 0.1})
    assert check_probabilities("augment", {"jpeg": 0.0}) is None
    assert check_probabilities("augment", {}) is None


# --- in a fit ------------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", [ue.SEM, ue.REM])
def test_the_search_and_the_surrogate_both_see_draws(cls, monkeypatch):
    run, seen = make_run(), []
    monkeypatch.setattr(
        Degradation, "__call__", lambda self, images: seen.append(len(images)) or images
    )
    learner = cls(smooth(), eot_samples=3, steps=2, robust_steps=1, train_steps=1, augment=EACH)
    learner = learner.set_params(batch_size=16)
    learner._learn(run)
    assert seen == [48, 48, 16, 48, 48]  # two steps, the surrogate's one, the last sweep
    asked = run._seeds.asked
    assert (asked["search degradation"], asked["train degradation"]) == (4, 1)


def test_draws_change_what_is_learned_and_none_leaves_it():
    dataset = Shapes(size=33)
    plain, none, drawn = (
        method(augment=augment).fit(dataset, **QUIET).perturbation_
        for augment in (None, {"jpeg": 0.0}, EACH)
    )
    assert plain.digest == none.digest and "augment" not in plain.config["parameters"]
    assert not np.array_equal(plain.rows, drawn.rows)


def test_probabilities_are_recorded_and_come_back(tmp_path):
    fitted = method(augment={"jpeg": 0.25, "resize": 0.5}).fit(Shapes(size=16), **QUIET)
    expected = {"resize": 0.5, "jpeg": 0.25}
    folder = fitted.save_pretrained(tmp_path / "saved")
    for name in ("config.json", "method.json"):
        saved = json.loads((folder / name).read_text())
        assert saved["parameters"]["augment"] == expected
    loaded = ue.SEM.from_pretrained(folder)
    assert loaded.augment == expected
    assert "augment={'resize': 0.5, 'jpeg': 0.25}" in repr(loaded)
    assert eval(repr(loaded), {"SEM": ue.SEM}).get_params() == loaded.get_params()
    new = Shapes(size=8, seed=3)
    rows = [own.extend(new, device="cpu", progress=False).rows for own in (fitted, loaded)]
    assert np.array_equal(*rows)


@pytest.mark.parametrize("visibility", [None, "low"])
def test_a_resumed_fit_ends_with_the_same_bytes(visibility, tmp_path, monkeypatch):
    def fit(folder):
        options = QUIET | {"checkpoint": folder, "checkpoint_every": 0, "visibility": visibility}
        return method(augment=EACH).fit(Shapes(size=33), **options)

    expected, save = fit(tmp_path / "whole").perturbation_, Checkpoint.save

    class Crash(Exception):
        pass

    def crash(self, state):
        save(self, state)
        if self.number == 3:
            raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "save", crash)
        with pytest.raises(Crash):
            fit(tmp_path / "cut")
    with pytest.raises(ValueError, match=r"parameters.augment.jpeg: 0.3 there"):
        method(augment={"resize": 0.3}).fit(
            Shapes(size=33), checkpoint=tmp_path / "cut", visibility=visibility, **QUIET
        )
    assert fit(tmp_path / "cut").perturbation_.digest == expected.digest


def test_networks_in_bf16_learn_through_draws_too():
    fitted = method(augment=EACH).fit(Shapes(size=16), **(QUIET | {"precision": "bf16"}))
    assert fitted.perturbation_.rows.any()


def test_the_global_state_is_left_alone():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    Degradation.draw(16, draws(), EACH)(pictures(16))
    assert torch.equal(torch.get_rng_state(), before)


def test_the_command_line_takes_them_as_json(tmp_path, capsys):
    out = tmp_path / "learned"
    words = ["fit", "shapes:16", str(out), "--preset", "demo", "--quiet", "--device", "cpu"]
    words += ["--set", "train_steps=1", "surrogate=tiny"]
    assert main([*words, 'augment={"jpeg": 0.3, "grayscale": 0.6}']) in (0, None)
    config = json.loads((out / "config.json").read_text())
    assert config["parameters"]["augment"] == {"jpeg": 0.3, "grayscale": 0.6}
    capsys.readouterr()
    assert main(["info", str(out), "--json"]) in (0, None)
    shown = json.loads(capsys.readouterr().out)
    assert shown["config"]["parameters"]["augment"] == {"jpeg": 0.3, "grayscale": 0.6}
