"""The kind ``shift`` and ColourShift: colours of classes, on images of any size."""

import json
import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision.datasets import ImageFolder

import unlearnable as ue
from unlearnable import ArtefactError, Perturbation, ProtectedDataset
from unlearnable.cli.main import main
from unlearnable.data.image import pixels_of
from unlearnable.datasets import Shapes
from unlearnable.engine.models import Ensemble, build_model
from unlearnable.engine.pgd import target_classes
from unlearnable.engine.random import CPU, Draws
from unlearnable.engine.run import Run
from unlearnable.engine.similarity import psnr, ssim
from unlearnable.engine.swarm import Swarm
from unlearnable.methods.farthest import farthest
from unlearnable.methods.spread_colours import spread_colours
from unlearnable.methods.swarm_colours import _costs, _first_of_each, targets_of
from unlearnable.perturbation.config import FORMAT
from unlearnable.protected.metrics import compare

QUIET = {"device": "cpu", "precision": "float32", "progress": False}


def shift(colours, epsilon=25 / 255, shape=(3, 8, 6), **config):
    colours = np.array(colours, np.int8)
    described = {
        "method": "Test", "kind": "shift", "granularity": "class-wise", "epsilon": epsilon,
        "norm": "Linf", "image_shape": list(shape), "classes": None, "num_classes": len(colours),
        "source": {"name": "Test", "images": 1}, "preprocessing": None,
    }  # fmt: skip
    return Perturbation.of_kind({"colours": colours}, described | config)


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def by_hand(image, colour):
    changed = image.copy()
    for channel, row, column in np.ndindex(image.shape):
        total = int(image[channel, row, column]) + int(colour[channel % len(colour)])
        changed[channel, row, column] = min(255, max(0, total))
    return changed


def draws(seed=0):
    return Draws([seed], None, CPU)


# --- the kind ------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(8, 6), (1, 1), (13, 40)])
def test_a_colour_is_added_to_every_pixel_and_clipped(size):
    colours = [[25, -5, 0], [-25, 25, 12]]
    p, image = shift(colours), noise(3, *size)
    before = image.copy()
    for label, colour in enumerate(colours):
        expected = by_hand(image, colour)
        for full_size in (False, True):
            np.testing.assert_array_equal(p.apply(image, label, full_size=full_size), expected)
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("colour", [-128, -127, -1, 0, 1, 127])
def test_every_level_of_every_value_is_exact(colour):
    values = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    p = shift([[colour]], None, (1, 16, 16))
    np.testing.assert_array_equal(p.apply(values, 0)[0], np.clip(values[0] + float(colour), 0, 255))


def test_images_lie_in_memory_as_they_did():
    interleaved = noise(2, 8, 6, 3).transpose(0, 3, 1, 2)
    found = shift([[9, -9, 3]]).apply_batch(interleaved, [0, 0])
    assert found.strides == interleaved.strides and found.dtype == np.uint8


def test_photos_of_any_size_get_the_same_without_a_resize():
    photos = [Image.fromarray(noise(h, w, 3)) for h, w in ((8, 6), (30, 17), (5, 50), (64, 64))]
    labels, colours = [0, 1, 1, 0], [[20, -20, 5], [-3, 7, -25]]
    for options in ({}, {"full_size": True}):
        protected = ProtectedDataset(
            list(zip(photos, labels, strict=True)), shift(colours), **options
        )
        for index, photo in enumerate(photos):
            expected = by_hand(pixels_of(photo), colours[labels[index]])
            np.testing.assert_array_equal(pixels_of(protected[index][0]), expected)


def test_what_was_learned_at_another_size_is_stacked_with_rows():
    rows = ue.RandomNoise().fit(Shapes(size=20), **QUIET).perturbation_
    other = shift([[label, -label, 9] for label in range(10)], shape=(3, 100, 80))
    for stack in (rows.then(other), other.then(rows)):
        assert stack.config["image_shape"] == [3, 32, 32]
        assert ProtectedDataset(Shapes(size=20), stack).change().linf > 8
    with pytest.raises(ValueError, match="image_shape"):
        rows.then(shift([[label] for label in range(10)], shape=(1, 32, 32)))


def test_a_grey_photo_among_colour_ones_is_tinted_and_a_grey_dataset_gets_greys():
    p = shift([[25, 0, -25]])
    grey = noise(1, 4, 4)
    prepared = p.prepare(grey)
    np.testing.assert_array_equal(p.apply(prepared, 0), by_hand(prepared, [25, 0, -25]))
    with pytest.raises(ValueError, match=r"got \(1, 4, 4\)"):
        p.apply(grey, 0)
    of_grey = shift([[25]], shape=(1, 4, 4))
    np.testing.assert_array_equal(of_grey.apply(grey, 0), by_hand(grey, [25]))
    colour = noise(3, 4, 4)
    np.testing.assert_array_equal(of_grey.apply(colour, 0), by_hand(colour, [25]))


@pytest.mark.parametrize(
    "method",
    [
        ue.RandomNoise(), ue.RandomNoise(granularity="class-wise"), ue.OPS(), ue.LSP(), ue.AR(),
        ue.ClassConvolution(), ue.ColourShift(seed=1),
    ],
    ids=repr,
)  # fmt: skip
def test_it_lies_under_and_over_every_other_kind(method, shapes, tmp_path):
    other = method.fit(shapes, **QUIET).perturbation_
    own = ue.ColourShift().fit(shapes, **QUIET).perturbation_
    clean = shapes.data.transpose(0, 3, 1, 2)
    for below, above in ((own, other), (other, own)):
        stack = below.then(above)
        found = ProtectedDataset(shapes, stack).to_tensors()[0].numpy()
        rows = [p.find_batch(clean, shapes.targets, range(40)) for p in (below, above)]
        expected = above.apply_batch(below.apply_batch(clean, rows[0]), rows[1])
        np.testing.assert_array_equal(found, expected)
        loaded = Perturbation.from_pretrained(stack.save_pretrained(tmp_path / below.digest))
        assert loaded.digest == stack.digest and repr(loaded) == repr(stack)
        if not isinstance(method, ue.OPS):
            big = [(Image.fromarray(shapes.data[3]).resize((48, 40)), shapes.targets[3])]
            if other.keyed:
                continue
            protected = ProtectedDataset(big, stack, full_size=True)
            pixels = pixels_of(big[0][0])
            each = [p.find(pixels, big[0][1]) for p in (below, above)]
            step = below.apply(pixels, each[0], full_size=True)
            step = above.apply(step, each[1], full_size=True)
            np.testing.assert_array_equal(pixels_of(protected[0][0]), step)


def test_rows_above_are_found_by_the_clean_image(shapes):
    below = ue.ColourShift().fit(shapes, **QUIET)
    for data in (shapes, below.protect(shapes)):
        above = ue.RandomNoise().fit(data, **QUIET).perturbation_
        stack = below.perturbation_.then(above)
        tinted = below.protect(shapes).to_tensors()[0].numpy().astype(int)
        expected = np.clip(tinted + above.rows, 0, 255)
        found = ProtectedDataset(shapes, stack).to_tensors()[0].numpy()
        np.testing.assert_array_equal(found, expected)


def test_a_mask_lowers_the_rows_of_a_stack_and_not_its_shift(shapes):
    own = ue.ColourShift().fit(shapes, **QUIET).perturbation_
    rows = ue.RandomNoise().fit(shapes, **QUIET).perturbation_
    masked = rows.then(own).with_visibility("low")
    assert [part.mask is None for part in masked.parts] == [False, True]
    low = rows.with_visibility("low").then(own)
    found, expected = (ProtectedDataset(shapes, p).to_tensors()[0] for p in (masked, low))
    assert torch.equal(found, expected)
    for refused in (own, own.then(own)):
        with pytest.raises(ValueError, match="no rows"):
            refused.with_visibility("low")
        assert refused.with_visibility("full") is refused


def test_the_file_is_of_version_3_and_older_ones_with_it_are_refused(tmp_path):
    p = shift([[25, -5, 0]])
    folder = p.save_pretrained(tmp_path / "p")
    described = json.loads((folder / "config.json").read_text())
    assert (described["format"], described["format_version"]) == (FORMAT, 3)
    assert p.digest == "f1659b5e59fc35087b5d0cf2023279f2"  # for ever
    for version, message in ((2, "edited"), (4, "newer release")):
        (folder / "config.json").write_text(json.dumps(described | {"format_version": version}))
        with pytest.raises(ArtefactError, match=message):
            Perturbation.from_pretrained(folder)
    rows = ue.RandomNoise().fit(Shapes(size=8), **QUIET).perturbation_.with_visibility("low")
    stack = rows.then(shift([[3, 3, 3]] * 10, shape=(3, 32, 32)))
    folder = stack.save_pretrained(tmp_path / "stack")
    assert json.loads((folder / "config.json").read_text())["format_version"] == 3
    assert Perturbation.from_pretrained(folder).digest == stack.digest


def test_it_tells_its_budget_or_its_largest_colour():
    assert repr(shift([[3, -9, 0]], 25 / 255)) == (
        "Perturbation(Test, class-wise, Linf 25/255, 1 classes of 3x8x6)"
    )
    assert repr(shift([[3, -9, 0]], None, norm=None)) == (
        "Perturbation(Test, class-wise, colours up to 9/255, 1 classes of 3x8x6)"
    )
    assert shift([[3, -9, 0]]).info()["epsilon"] == "25/255"


# --- colours far from one another ----------------------------------------------------------------


def greedy(points, count):
    """The definition, one distance at a time."""
    chosen = [0]
    while len(chosen) < count:
        best, place = -1.0, None
        for number, point in enumerate(points.tolist()):
            if number in chosen:
                continue
            near = min(math.dist(point, points[k].tolist()) ** 2 for k in chosen)
            if near > best + 1e-9:
                best, place = near, number
        chosen.append(place)
    return chosen


def test_each_is_the_farthest_from_those_before():
    points = np.random.default_rng(0).integers(-25, 26, (60, 3)).astype(np.float64)
    assert farthest(12, points).tolist() == greedy(points, 12)
    same = np.zeros((5, 2))
    assert sorted(farthest(5, same)) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("count", [1, 2, 10, 50])
@pytest.mark.parametrize("luminance", [0, 0.5, 1])
def test_colours_are_distinct_and_inside_the_cube(channels, count, luminance):
    colours = 255 * spread_colours(draws(), count, channels, 25 / 255, luminance)
    assert colours.shape == (count, channels) and torch.equal(colours, colours.round())
    assert len(colours.unique(dim=0)) == count and colours.abs().max() <= 25
    assert colours.any(1).all()
    if channels == 3:
        assert (colours.abs().amax(1) == 25).all()  # on the surface


@pytest.mark.parametrize(
    ("count", "levels"), [(100, 25), (1000, 25), (100, 8), (1000, 8), (120, 2)]
)
def test_many_classes_stay_distinct(count, levels):
    colours = 255 * spread_colours(draws(), count, 3, levels / 255)
    assert len(colours.unique(dim=0)) == count and colours.abs().max() <= levels
    apart = torch.cdist(colours, colours).fill_diagonal_(torch.inf).min()
    assert apart >= (8 if (count, levels) == (100, 25) else 1)


def test_too_many_classes_for_a_cube_are_refused_with_the_one_that_does():
    with pytest.raises(
        ValueError, match=r"at least 50 / 255 for 100 classes and 1 channel, got 25"
    ):
        spread_colours(draws(), 100, 1, 25 / 255)
    assert len(spread_colours(draws(), 100, 1, 50 / 255).unique(dim=0)) == 100
    with pytest.raises(ValueError, match=r"at least 2 / 255 for 27 classes and 3 channels, got 1"):
        spread_colours(draws(), 27, 3, 1 / 255)


def test_luminance_spreads_luminance():
    def spread(luminance):
        colours = 255 * spread_colours(draws(), 10, 3, 25 / 255, luminance)
        seen = (colours @ torch.tensor([0.299, 0.587, 0.114])).sort().values
        return float(seen.diff().min())

    assert spread(1) > 4 > spread(0)


def test_a_cube_is_chosen_whatever_the_device_and_the_images():
    one, other = (ue.ColourShift().fit(Shapes(size=n), **QUIET).perturbation_ for n in (20, 40))
    np.testing.assert_array_equal(one.tensors["colours"], other.tensors["colours"])
    assert np.abs(one.tensors["colours"]).max() == 25
    small = ue.ColourShift(epsilon=8 / 255).fit(Shapes(size=20), **QUIET).perturbation_
    assert small.info()["epsilon"] == "8/255" and np.abs(small.tensors["colours"]).max() == 8


def test_nothing_has_to_be_trained_and_nothing_extended():
    method = ue.ColourShift()
    assert method.passes(50_000) == 0 and ue.ColourShift(search="swarm").passes(50_000) > 1e6
    fitted = method.fit(Shapes(size=20), **QUIET)
    assert fitted.surrogate_ is None
    with pytest.raises(ValueError, match="covers new images"):
        fitted.extend(Shapes(size=8, seed=1), progress=False)
    with pytest.raises(ValueError, match='"additive"'):
        Perturbation.concat([fitted.perturbation_, fitted.perturbation_])


# --- swarms --------------------------------------------------------------------------------------


def test_swarms_find_the_minimum_of_convex_functions():
    """Each of its own: squared distances to points."""
    targets = torch.tensor([[0.3, -0.2, 0.1], [-0.5, 0.5, 0.0], [0.0, 0.9, -0.9]])
    swarm = Swarm(draws().uniform((3, 30, 3), -1, 1), draws(1).uniform((3, 30, 3), -0.1, 0.1), 1.0)
    for _ in range(40):
        swarm.update((swarm.positions - targets[:, None]).square().sum(2))
    assert (swarm.best - targets).norm(dim=1).max() < 0.1
    assert torch.allclose(swarm.best_value, (swarm.best - targets).square().sum(1))


def test_particles_stay_within_the_limit():
    swarm = Swarm(draws().uniform((1, 10, 3), -1, 1), torch.ones(1, 10, 3), 1.0)
    for _ in range(10):
        swarm.update(-swarm.positions.sum(2))
        assert swarm.positions.abs().max() <= 1
    assert swarm.best.tolist() == [[1, 1, 1]]


def test_moves_are_those_of_the_paper():
    start, first = torch.tensor([[[0.5], [-0.2]]]), torch.tensor([[[0.1], [0.0]]])
    swarm = Swarm(start.clone(), first.clone(), 10)
    swarm.update(swarm.positions[..., 0].square())
    v = [0.5 * 0.1 + 0.3 * (-0.2 - 0.5), 0.0]
    x = [0.5 + v[0], -0.2]
    assert swarm.positions.flatten().tolist() == pytest.approx(x)
    swarm.update(torch.tensor([[0.01, 9.0]]))  # the first is now the best of all, here
    v = [0.5 * v[0], 0.3 * (-0.2 + 0.2) + 0.3 * (x[0] + 0.2)]
    assert swarm.positions.flatten().tolist() == pytest.approx([x[0] + v[0], x[1] + v[1]])


def test_the_best_is_a_copy_that_stays():
    swarm = Swarm(torch.tensor([[[1.0], [2.0]]]), torch.full((1, 2, 1), 5.0), 100)
    swarm.update(torch.tensor([[3.0, 7.0]]))
    swarm.update(torch.tensor([[8.0, 9.0]]))
    assert swarm.best.tolist() == [[1.0]] and swarm.best_value.tolist() == [3.0]
    assert swarm.positions[0, 0].item() != 1.0


def test_psnr_and_ssim_are_those_of_the_metrics():
    one, other = noise(2, 3, 20, 11), noise(2, 3, 20, 11, seed=1)
    other[1] = np.clip(one[1].astype(int) + 9, 0, 255)
    a, b = (torch.from_numpy(x).float() / 255 for x in (one, other))
    for index in range(2):
        found = compare(one[index], other[index])
        assert float(psnr(a, b)[index]) == pytest.approx(found.psnr, rel=1e-4)
        assert float(ssim(a, b)[index]) == pytest.approx(found.ssim, abs=1e-4)
    assert psnr(a, a).tolist() == [math.inf] * 2 and ssim(a, a).tolist() == pytest.approx([1, 1])


def test_a_colour_costs_what_the_paper_says():
    images = torch.from_numpy(noise(6, 3, 32, 32))
    labels = torch.tensor([0, 1, 2, 3, 0, 1])
    run = Run(images, labels, 4)
    ensemble = Ensemble(build_model("tiny", 4, 3, seed=0), 2)
    ensemble.members[1] = build_model("tiny", 4, 3, seed=1)
    run.place(ensemble.eval())
    colours = torch.rand(6, 2, 3, generator=torch.Generator().manual_seed(0)) - 0.5
    targets = target_classes(labels, 3, 4)
    found = _costs(run, ensemble, torch.arange(6), colours, targets)
    for index in range(6):
        for number in range(2):
            clean = images[index : index + 1].float() / 255
            shown = (clean + colours[index, number][:, None, None]).clamp(0, 1)
            with torch.no_grad():
                chances = [m(shown).softmax(1)[0, targets[index]] for m in ensemble.members]
            levels = (clean - shown).square().mean()
            expected = -sum(math.log(chance) for chance in chances) / 2
            expected += max(0, 20 + 10 * math.log10(levels)) + max(
                0, 0.8 - float(ssim(clean, shown))
            )
            assert float(found[index, number]) == pytest.approx(expected, rel=1e-3)
    run.close()


def test_the_first_images_of_each_class_are_looked_at():
    labels = torch.tensor([2, 0, 0, 2, 0, 2, 2])
    judged, counts = _first_of_each(labels, 4, 2)
    assert judged.tolist() == [True, True, True, True, False, False, False]
    assert counts[:, 0].tolist() == [2, 1, 2, 1]
    judged, counts = _first_of_each(labels, 4, 4)
    assert judged is None and counts[:, 0].tolist() == [3, 1, 4, 1]


def test_targets_lead_to_another_class_whatever_their_number():
    for classes in (2, 3, 4, 10):
        labels = torch.arange(classes)
        found = targets_of(labels, None, classes)
        assert (found != labels).all()
        assert found[0] == (1 if classes == 3 else 3 % classes)
    with pytest.raises(ValueError, match="leads to another class, got 4 for 4"):
        targets_of(torch.arange(4), 4, 4)


def test_a_swarm_lowers_the_loss_to_the_other_class():
    """Networks that only see the mean colour: the best colours are known to lie on their side."""
    labels = torch.arange(30) % 3
    images = 100 + 40 * torch.eye(3)[labels][:, :, None, None]
    images = images + torch.from_numpy(noise(30, 3, 8, 8) % 9)
    dataset = torch.utils.data.TensorDataset(images.to(torch.uint8), labels)
    network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 3))
    with torch.no_grad():
        network[2].weight.copy_(20 * torch.eye(3))
        network[2].bias.zero_()
    given = {"pretrained_surrogate": True, "train_epochs": 1, "checkpoints": 1, "batch_size": 8}
    method = ue.ColourShift(network, search="swarm", **given)
    colours = method.fit(dataset, **QUIET).perturbation_.tensors["colours"].astype(int)
    for label in range(3):  # more of the next class's channel than of its own
        assert colours[label, (label + 1) % 3] > colours[label, label] + 10
    assert np.abs(colours).max() <= 25


# --- as users use it -----------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    for index in range(8):
        place = tmp_path / "photos" / f"class{index % 2}"
        place.mkdir(parents=True, exist_ok=True)
        size = [(24, 32), (40, 30)][index % 3 > 1]
        Image.fromarray(noise(*size, 3, seed=index)).save(place / f"{index}.png")
    grey = Image.fromarray(noise(20, 20, seed=99))
    grey.save(tmp_path / "photos" / "class0" / "grey.png")
    return tmp_path / "photos"


def test_a_folder_is_protected_verified_and_previewed_from_the_command_line(
    folder, tmp_path, capsys
):
    out, kept = tmp_path / "out", tmp_path / "kept"
    command = ["protect", str(folder), str(out), "--method", "colour-shift", "--quiet"]
    assert main([*command, "--save-perturbation", str(kept), "--json"]) == 0
    assert "up to 25/255 per value" in json.loads(capsys.readouterr().out)["change"]
    assert main(["verify", str(out), str(kept), "--quiet"]) == 0
    colours = Perturbation.from_pretrained(kept).tensors["colours"]
    for (before, label), (after, _) in zip(ImageFolder(folder), ImageFolder(out), strict=True):
        expected = by_hand(pixels_of(before), colours[label])
        np.testing.assert_array_equal(pixels_of(after), expected)
    capsys.readouterr()
    preview = ["preview", str(folder / "class0" / "0.png"), "--perturbation", str(kept), "--json"]
    assert main([*preview, "--out", str(tmp_path / "preview.png")]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert "largest 25/255" in shown["full"] and "low" not in shown
