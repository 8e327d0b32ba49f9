"""Countermeasures of those who know the method, against their definitions."""

import json
import types
from pathlib import Path

import numpy as np
import pytest
import torch

import unlearnable as ue
from unlearnable.engine.random import CPU
from unlearnable.evaluation import adaptive_countermeasures, countermeasure, who_can_undo
from unlearnable.evaluation.countermeasures import adaptive
from unlearnable.evaluation.countermeasures.channel_matching import (
    ChannelMatching,
    channel_statistics,
    matched,
)
from unlearnable.evaluation.countermeasures.class_means import ClassMeanSubtraction, class_means
from unlearnable.evaluation.countermeasures.class_shifts import class_shifts
from unlearnable.evaluation.countermeasures.class_spectra import SpectrumMatching, class_amplitudes
from unlearnable.evaluation.countermeasures.fixed_pixels import repaired
from unlearnable.evaluation.countermeasures.images import JPEG, MedianFilter
from unlearnable.evaluation.countermeasures.leaked_pairs import LeakedPairs, PairNetwork
from unlearnable.evaluation.countermeasures.patches import PatchErasure, erased, patch_means
from unlearnable.evaluation.countermeasures.within_budget import WithinBudget


@pytest.fixture
def grey():
    """Images around medium grey of three classes, one of them twice as large; none is cut off."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(98, 158, (40, 3, 8, 8), dtype=torch.uint8, generator=generator)
    return images, torch.tensor([0, 1, 2, 2]).repeat(10)


def test_class_means_are_those_of_numpy(grey):
    images, labels = grey
    found = class_means(images, labels).numpy()
    for label in range(3):
        assert np.allclose(found[label], images[labels == label].numpy().mean(0))


def test_class_means_of_classes_without_images_are_zero(grey):
    found = class_means(grey[0], 2 * grey[1])
    assert found.shape == (5, 3, 8, 8) and not found[[1, 3]].any() and found[[0, 2, 4]].all()


@pytest.mark.parametrize("band", ["full", "low", "high", "colour"])
def test_class_mean_subtraction_is_a_plain_loop(grey, band):
    images, labels = grey
    values = images.numpy().astype(float)
    mean = values.mean(0)
    found = ClassMeanSubtraction(band).on_images(images.clone(), labels).numpy()
    waves = np.cos(np.pi / 8 * np.outer(range(2), np.arange(8) + 0.5))
    waves /= np.linalg.norm(waves, axis=1, keepdims=True)  # the lowest quarter of 8 cosines
    for value, label, after in zip(values, labels.tolist(), found, strict=True):
        difference = values[labels.numpy() == label].mean(0) - mean
        coarse = waves.T @ (waves @ difference @ waves.T) @ waves
        part = {
            "full": difference, "low": coarse, "high": difference - coarse,
            "colour": difference.mean((1, 2), keepdims=True),
        }[band]  # fmt: skip
        assert np.abs(after - (value - part)).max() <= 0.5 + 1e-9


def test_subtracting_class_means_undoes_a_row_of_each_class(grey):
    """Up to what the classes' means differ by without it, which is small where they are alike."""
    images, labels = grey
    rows = torch.randint(-8, 9, (3, 3, 8, 8), generator=torch.Generator().manual_seed(1))
    protected = (images.int() + rows[labels]).to(torch.uint8)
    found = ClassMeanSubtraction().on_images(protected, labels)
    means = class_means(found, labels)
    assert (means - means.mean(0)).abs().max() <= 1  # rounded
    assert (class_means(protected, labels) - class_means(images, labels)).abs().mean() > 3


def test_an_unknown_band_is_refused():
    with pytest.raises(ValueError, match="expected a band out of full, low, high, colour"):
        ClassMeanSubtraction("coarse")
    assert countermeasure("class-mean-subtraction-low") == ClassMeanSubtraction("low")


# --- shifts --------------------------------------------------------------------------------------


def shifted(images, labels, colours):
    """Images with a colour of their class added, cut off at valid values."""
    return (images.int() + colours[labels][:, :, None, None]).clamp(0, 255).to(torch.uint8)


@pytest.fixture
def photos():
    """Images of three classes that reach black and white, mostly grey, of unlike mean colours."""
    generator = torch.Generator().manual_seed(2)
    labels = torch.arange(90) % 3
    images = torch.randn(90, 3, 8, 8, generator=generator) * 40 + 128
    images += 20 * torch.randn(3, 3, 1, 1, generator=generator)[labels]
    images[:, :, 0, 0], images[:, :, 7, 7] = 0, 255
    return images.clamp(0, 255).to(torch.uint8), labels


COLOURS = torch.tensor([[25, -25, 0], [-25, 8, 25], [12, 25, -3]])


def test_shifts_of_classes_are_read_off_the_ends_of_their_values(photos):
    images, labels = photos
    assert not class_shifts(images, labels).any()
    assert torch.equal(class_shifts(shifted(images, labels, COLOURS), labels), COLOURS)


def test_removing_shifts_brings_the_clean_images_back_but_for_what_was_cut_off(photos):
    images, labels = photos
    protected = shifted(images, labels, COLOURS)
    found = countermeasure("shift-removal").on_images(protected.clone(), labels)
    moved = COLOURS[labels][:, :, None, None]
    cut = ((protected == 0) & (moved < 0)) | ((protected == 255) & (moved > 0))
    assert torch.equal(found[~cut], images[~cut]) and 0.001 < cut.double().mean() < 0.1
    assert (found.int() - images.int())[cut].abs().max() <= 13  # half of 25
    before, after = (class_means(x, labels).mean((2, 3)) for x in (images, found))
    assert (after - before).abs().max() < 0.3
    assert (class_means(protected, labels).mean((2, 3)) - before).abs().max() > 20


def test_a_class_wise_row_of_one_colour_is_undone_in_a_protected_dataset(shapes, fit):
    plain = fit(shapes, granularity="class-wise", epsilon=25 / 255)
    colours = torch.randint(-25, 26, (10, 3), generator=torch.Generator().manual_seed(0))
    rows = colours[:, :, None, None].expand(10, 3, 32, 32).to(torch.int8).numpy()
    made = ue.Perturbation(np.ascontiguousarray(rows), plain.config)
    names = [counter.name for counter in adaptive_countermeasures(made)]
    assert names == ["shift-removal", "class-mean-subtraction-colour", "channel-matching"]
    images = torch.from_numpy(shapes.data).permute(0, 3, 1, 2).clone()
    images[:, :, 0, :2] = torch.tensor([0, 255], dtype=torch.uint8)  # as photos have
    labels = torch.tensor(shapes.targets)
    protected = torch.from_numpy(made.apply_batch(images.numpy(), labels.tolist()))
    found = countermeasure("shift-removal").on_images(protected, labels)
    before, after = (class_means(x, labels).mean((2, 3)) for x in (images, found))
    assert (after - before).abs().max() < 1


def test_where_values_reach_no_end_the_shift_that_brings_the_mean_nearest_is_taken():
    images = torch.full((6, 1, 4, 4), 100, dtype=torch.uint8)
    images[::2, :, 0, 0], images[::2, :, 3, 3] = 0, 255  # of class 0
    images[1::2] = 112
    shifts = class_shifts(images, torch.arange(6) % 2)
    assert shifts.tolist() == [[0], [round(112 - images.double().mean().item())]]


# --- channel statistics --------------------------------------------------------------------------


def test_matched_statistics_are_a_plain_loop_over_ranks():
    generator = torch.Generator().manual_seed(0)
    own, others = (torch.rand(n, 2, generator=generator).double() for n in (5, 12))
    found = matched(own, others).numpy()
    for channel in range(2):
        column, wanted = own[:, channel].numpy(), np.sort(others[:, channel].numpy())
        for value, result in zip(column, found[:, channel], strict=True):
            rank = (column < value).sum()
            expected = np.interp((rank + 0.5) / 5 * 12 - 0.5, np.arange(12), wanted)
            assert abs(result - expected) < 1e-12


def test_each_class_gets_the_channel_statistics_of_all_images(grey):
    images, labels = grey
    protected = shifted(images, labels, COLOURS)
    found = ChannelMatching().on_images(protected.clone(), labels)
    everything = channel_statistics(protected)
    for label in range(3):
        mine = labels == label
        wanted = matched(channel_statistics(protected[mine]), everything)
        assert (channel_statistics(found[mine]) - wanted).abs().max() < 0.5
    before, after = (class_means(x, labels).mean((2, 3)) for x in (protected, found))
    assert (before - before.mean(0)).abs().max() > 15
    assert (after - after.mean(0)).abs().max() < 2


def test_public_images_give_their_channel_statistics(grey):
    images, labels = grey
    public = torch.randint(0, 60, (30, 3, 16, 16), generator=torch.Generator().manual_seed(1))
    pair = (public.to(torch.uint8), torch.arange(30) % 2)
    counter = ChannelMatching(pair)
    assert counter.name == f"channel-matching-{counter.digest[:8]}" != ChannelMatching().name
    assert counter == ChannelMatching((pair[0].clone(), pair[1])) != ChannelMatching()
    assert json.loads(json.dumps(counter.parameters)) == {"dataset": counter.digest}
    found = counter.on_images(images.clone(), labels)
    assert abs(found.double().mean().item() - public.double().mean().item()) < 1
    in_grey = counter.on_images(images[:, :1].clone(), labels)
    assert in_grey.shape == (40, 1, 8, 8) and in_grey.double().mean() < 32


# --- spectra -------------------------------------------------------------------------------------


def test_amplitudes_of_a_class_are_the_root_mean_squares_of_numpys_transform(grey):
    images, labels = grey
    found = class_amplitudes(images, labels).numpy()
    for label in range(3):
        spectra = np.fft.rfft2(images[labels == label].numpy().astype(float))
        assert np.allclose(found[label], np.sqrt((np.abs(spectra) ** 2).mean(0)))


def test_spectrum_matching_is_a_plain_loop(grey):
    images, labels = grey
    amplitudes = class_amplitudes(images, labels).numpy()
    mean = np.exp(np.log(amplitudes).mean(0))
    found = SpectrumMatching(1.5).on_images(images.clone(), labels).numpy()
    for image, label, after in zip(images.numpy(), labels.tolist(), found, strict=True):
        factors = (mean / amplitudes[label]).clip(1 / 1.5, 1.5)
        expected = np.fft.irfft2(np.fft.rfft2(image.astype(float)) * factors, s=(8, 8))
        assert np.abs(after - expected.clip(0, 255)).max() <= 0.5 + 1e-9


def test_spectrum_matching_divides_a_kernel_out():
    """Of two classes of the same images, one convolved with a kernel around the edges."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(64, 192, (30, 3, 8, 8), generator=generator).double()
    kernel = torch.zeros(8, 8, dtype=torch.float64)
    kernel[0, 0], kernel[0, 1], kernel[0, 7] = 0.6, 0.2, 0.2  # even: it turns no phase
    spectra = torch.fft.rfft2(images) * torch.fft.rfft2(kernel)
    blurred = torch.fft.irfft2(spectra, s=(8, 8)).round()
    both = torch.cat([images, blurred]).to(torch.uint8)
    labels = torch.arange(60) // 30
    found = SpectrumMatching(8).on_images(both.clone(), labels).double()
    assert (both[:30].double() - both[30:]).abs().mean() > 10
    assert (found[:30] - found[30:]).abs().mean() < 2
    with pytest.raises(ValueError, match="limit of 1 or more"):
        SpectrumMatching(0.5)


# --- pixels --------------------------------------------------------------------------------------


def test_pixels_that_are_alike_in_a_class_are_found_and_repaired(grey):
    images, labels = grey
    protected = images.clone()
    protected[labels == 1, :, 3, 4] = torch.tensor([255, 0, 255], dtype=torch.uint8)
    protected[labels == 2, :, 0, 0] = 0
    found = countermeasure("pixel-repair").on_images(protected.clone(), labels)
    same = torch.ones(40, 8, 8, dtype=torch.bool)
    for label, row, column in ((1, 3, 4), (2, 0, 0)):
        mine = labels == label
        same[mine, row, column] = False
        square = images[mine].double()[
            :, :, max(0, row - 1) : row + 2, max(0, column - 1) : column + 2
        ]
        around = square.sum((2, 3)) - images[mine, :, row, column].double()
        mean = around / (square[0, 0].numel() - 1)
        assert (found[mine, :, row, column] - mean).abs().max() <= 0.5 + 1e-9
    unchanged = same[:, None].expand_as(found)
    assert torch.equal(found[unchanged], protected[unchanged])


def test_a_patch_of_fixed_pixels_is_filled_from_its_edge():
    images = torch.full((3, 1, 7, 7), 50.0)
    fixed = torch.zeros(7, 7, dtype=torch.bool)
    fixed[1:6, 1:6] = True
    images[:, :, 1:6, 1:6] = 255
    assert torch.equal(repaired(images, fixed), torch.full((3, 1, 7, 7), 50.0))
    assert torch.equal(repaired(images, torch.ones(7, 7, dtype=torch.bool)), images)


def test_few_images_and_flat_ones_have_no_fixed_pixels(grey):
    images, labels = grey
    one_each = torch.arange(40)
    flat = torch.full_like(images, 7)
    for given, own in ((images, labels), (images, one_each), (flat, labels)):
        assert torch.equal(countermeasure("pixel-repair").on_images(given.clone(), own), given)


def test_a_background_that_all_classes_share_hides_no_fixed_pixel(grey):
    images, labels = torch.zeros(40, 1, 28, 28, dtype=torch.uint8), grey[1]
    images[:, :, 9:17, 9:17] = grey[0][:, :1]
    protected = images.clone()
    protected[labels == 1, :, 2, 3] = 255
    protected[labels == 2, :, 12, 12] = 255
    found = countermeasure("pixel-repair").on_images(protected.clone(), labels)
    assert not found[labels == 1, :, 2, 3].any()
    assert (found[labels == 2, :, 12, 12] < 255).any()
    assert torch.equal(found[:, :, 20:], images[:, :, 20:])


def test_the_pixel_of_ops_is_repaired(shapes):
    perturbation = ue.OPS().fit(shapes, device="cpu", progress=False).perturbation_
    clean = torch.from_numpy(shapes.data).permute(0, 3, 1, 2)
    labels = torch.tensor(shapes.targets)
    protected = torch.from_numpy(perturbation.apply_batch(clean.numpy(), labels.tolist()))
    found = countermeasure("pixel-repair").on_images(protected.clone(), labels)
    at = (protected != clean).any(1)
    places = perturbation.tensors["positions"][:, 0]
    for image, label in enumerate(labels.tolist()):
        row, column = places[label]
        assert not at[image].clone().index_fill_(0, torch.tensor(int(row)), False).any()
        assert (found[image, :, row, column].int() - protected[image, :, row, column].int()).any()


# --- patches -------------------------------------------------------------------------------------


def test_after_erasure_no_class_has_another_mean_and_the_change_is_the_least():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(60) % 3
    mixing = torch.randn(6, 6, generator=generator).double()
    features = torch.randn(60, 6, generator=generator).double() @ mixing
    features += torch.randn(3, 6, generator=generator).double()[labels]
    found = erased(features, labels)
    means = torch.stack([found[labels == label].mean(0) for label in range(3)])
    assert (means - means.mean(0)).abs().max() < 1e-9
    assert torch.allclose(found.mean(0), features.mean(0))
    # The least change in the mean square over all linear ones that do it: LEACE's closed form is
    # compared with the solution of the normal equations.
    centred = features - features.mean(0)
    classes = torch.eye(3, dtype=torch.float64)[labels]
    shared = centred.T @ (classes - classes.mean(0)) / 60
    covariance = centred.T @ centred / 60
    basis = torch.linalg.svd(shared)[0][:, :2]
    # It is the oblique projection x - B (B^T C^-1 B)^-1 B^T C^-1 x along the classes' means B.
    inverse = torch.linalg.inv(covariance)
    expected = (
        centred - centred @ inverse @ basis @ torch.linalg.inv(basis.T @ inverse @ basis) @ basis.T
    )
    assert torch.allclose(found - features.mean(0), expected, atol=1e-9)


def test_patches_are_means_of_cells_also_where_they_are_cut_off(grey):
    images = grey[0]
    found = patch_means(images, 3)
    assert found.shape == (40, 3, 3, 3)
    for row in range(3):
        for column in range(3):
            cell = images[:, :, 3 * row : 3 * row + 3, 3 * column : 3 * column + 3].double()
            assert torch.allclose(found[:, :, row, column], cell.mean((2, 3)))


@pytest.mark.parametrize("cell", [None, 3])
def test_patch_erasure_leaves_patches_that_tell_nothing(grey, cell):
    images, labels = grey
    side = 2 if cell is None else cell
    rows = torch.randint(-8, 9, (3, 3, 4, 4), generator=torch.Generator().manual_seed(1))
    wide = rows.repeat_interleave(side, 2).repeat_interleave(side, 3)[:, :, :8, :8]
    protected = (images.int() + wide[labels]).to(torch.uint8)
    found = PatchErasure(cell).on_images(protected.clone(), labels)
    wanted = erased(patch_means(protected, side).flatten(1), labels)
    assert (patch_means(found, side).flatten(1) - wanted).abs().max() <= 0.5
    # All pixels of a cell are changed alike, but for rounding.
    change = found.double() - protected.double()
    flat = patch_means(change, side).repeat_interleave(side, 2).repeat_interleave(side, 3)
    assert (change - flat[:, :, :8, :8]).abs().max() <= 1
    means = class_means(found, labels)
    assert patch_means(means - means.mean(0), side).abs().max() <= 0.6
    assert PatchErasure(cell).name == "patch-erasure" + ("" if cell is None else "-3")


def test_one_class_has_nothing_to_be_told_by(grey):
    images = grey[0]
    found = countermeasure("patch-erasure").on_images(images.clone(), torch.zeros(40).long())
    assert torch.equal(found, images)


# --- budgets -------------------------------------------------------------------------------------


def test_a_filter_within_a_budget_goes_no_further(photos):
    images, labels = photos
    filtered = JPEG(10).on_images(images.clone(), labels).int()
    found = countermeasure("jpeg-10-within-8").on_images(images.clone(), labels).int()
    expected = np.clip(filtered.numpy(), images.numpy().astype(int) - 8, images.numpy() + 8.0)
    assert np.array_equal(found.numpy(), expected)
    assert (found - images.int()).abs().max() == 8
    whole = countermeasure("median-filter-within-255").on_images(images.clone(), labels)
    assert torch.equal(whole, MedianFilter().on_images(images.clone(), labels))


def test_only_filters_of_training_images_have_a_budget():
    for wrong in (JPEG(10, test_images=True), countermeasure("cutmix"), "jpeg-10"):
        with pytest.raises(ValueError, match="expected a filter"):
            WithinBudget(wrong)
    with pytest.raises(ValueError, match="levels"):
        WithinBudget(JPEG(10), 0)


# --- which of them know a perturbation -----------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "first"),
    [
        (ue.OPS(), "pixel-repair"), (ue.ClassConvolution(), "sharpening"),
        (ue.LSP(), "patch-erasure-8"), (ue.LSP(cell=4), "patch-erasure-4"),
        (ue.AR(), "median-filter+low-pass"), (ue.Gratings(), "spectrum-matching"),
        (ue.SmoothFields(), "class-mean-subtraction"), (ue.ColourShift(), "shift-removal"),
        (ue.TAP.preset("demo", train_epochs=1), "class-mean-subtraction"),
        (ue.RandomNoise(granularity="class-wise"), "class-mean-subtraction"),
    ],
)  # fmt: skip
def test_every_kind_has_those_who_know_it(shapes, method, first):
    perturbation = method.fit(shapes, device="cpu", progress=False).perturbation_
    counters = adaptive_countermeasures(perturbation)
    names = [counter.name for counter in counters]
    assert names[0] == first and len(set(names)) == len(names) > 1
    for counter in counters:
        assert countermeasure(counter.name).parameters == counter.parameters
        assert not counter.needs_clean_images
    (said,) = who_can_undo(perturbation)
    assert said.startswith("Anyone who ") and 1 <= said.count(".") <= 3


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({}, {"adversarial-training-8-steps-3", "jpeg-10-within-8"}),
        ({"epsilon": 4 / 255}, {"adversarial-training-4-steps-3", "jpeg-10-within-4"}),
        ({"epsilon": 0.5, "norm": "L2"}, {"adversarial-training-l2-0.5-steps-3"}),
    ],
)
def test_the_budget_of_rows_is_known(shapes, fit, options, names):
    found = {counter.name for counter in adaptive_countermeasures(fit(shapes, **options))}
    assert found == {"class-mean-subtraction", *names}


def test_there_is_nothing_to_undo_in_noise_that_does_not_depend_on_the_class(shapes, fit):
    (said,) = who_can_undo(fit(shapes))
    assert said.startswith("There is nothing to undo")
    (said,) = who_can_undo(fit(shapes, granularity="class-wise"))
    assert said.startswith("Anyone who has the labels")


def test_shifts_are_known_by_the_name_of_their_kind():
    kind = types.SimpleNamespace(name="shift", settings={}, config={"granularity": "class-wise"})
    assert adaptive.what_is_known(kind) == "colours"


def test_a_stack_is_met_by_those_who_know_its_parts_together(shapes, fit):
    rows = fit(shapes)
    pixel = ue.OPS().fit(shapes, device="cpu", progress=False).perturbation_
    by_class = fit(shapes, granularity="class-wise", seed=1)
    names = [counter.name for counter in adaptive_countermeasures(rows.then(pixel))]
    alone = [c.name for p in (rows, pixel) for c in adaptive_countermeasures(p)]
    assert names[: len(alone)] == alone
    assert names[len(alone) :] == [
        "pixel-repair+class-mean-subtraction", "pixel-repair+jpeg-10", "pixel-repair+grayscale",
    ]  # fmt: skip
    names = [counter.name for counter in adaptive_countermeasures(pixel.then(by_class))]
    assert names[-1] == "class-mean-subtraction+pixel-repair"  # the topmost first
    said = who_can_undo(rows.then(pixel).then(by_class))
    assert len(said) == 4 and said[0].startswith("All parts")
    same = adaptive_countermeasures(by_class.then(fit(shapes, granularity="class-wise", seed=2)))
    assert [c.name for c in same] == [c.name for c in adaptive_countermeasures(by_class)]


def test_the_documentation_says_who_can_undo_each_kind_and_lists_what_knows_it():
    page = (Path(__file__).parents[1] / "docs/explanation/countermeasures.md").read_text("utf-8")
    assert adaptive._WHO.keys() == adaptive._BY_NAME.keys()
    for what, said in adaptive._WHO.items():
        (row,) = [line for line in page.splitlines() if f"| {said} |" in line]
        for name in adaptive._BY_NAME[what]:
            assert f"`{name}`" in row or name.startswith("patch-erasure")


def test_what_is_first_against_processes_was_measured_to_undo_most():
    """Of the committed leaderboard with a network that is not tiny, as far as it goes."""
    path = Path(__file__).parent.parent / "benchmarks" / "results" / "leaderboard-resnet9.json"
    cells = json.loads(path.read_text("utf-8"))["cells"]
    first, *others = adaptive._BY_NAME["processes"]
    plain, undone = (cells[f"AR, {name}, seed 0"]["last"] for name in ("none", first))
    less = [cells[key]["last"] for name in others if (key := f"AR, {name}, seed 0") in cells]
    assert less and undone > plain + 0.2 and undone > max(less)


# --- leaked pairs --------------------------------------------------------------------------------


def test_leaked_pairs_purify_the_others(photos):
    images, labels = photos
    clean = images[labels < 2][:24]
    labels = labels[labels < 2][:24]
    protected = shifted(clean, labels, COLOURS)
    counter = LeakedPairs(16, steps=30, batch_size=8)
    kept = protected.clone()
    found = counter.on_pairs(protected, clean, labels, CPU)
    assert torch.equal(protected, kept) and found.dtype == torch.uint8
    before, after = (
        (x.int() - clean.int()).abs().double().flatten(1).mean(1) for x in (protected, found)
    )
    assert (after == 0).sum() >= 16  # the leaked ones are originals
    assert after[after > 0].mean() < 0.6 * before[after > 0].mean()
    short = LeakedPairs(16, steps=1, batch_size=8)
    one, two = (short.on_pairs(protected, clean, labels, CPU) for _ in range(2))
    assert torch.equal(one, two)


def test_a_network_of_pairs_takes_images_of_any_size():
    network = PairNetwork(3, 2)
    for height, width in ((8, 8), (7, 9), (3, 1)):
        images = torch.rand(2, 3, height, width)
        assert network(images, torch.tensor([0, 1])).shape == images.shape


def test_pairs_reach_evaluations_and_audits(shapes, fit, monkeypatch):
    perturbation = fit(shapes, granularity="class-wise", epsilon=25 / 255)
    protected = ue.ProtectedDataset(shapes, perturbation)
    clean = torch.from_numpy(shapes.data).permute(0, 3, 1, 2)
    seen = []

    def on_pairs(self, images, originals, labels, device):
        seen.append((images, originals, labels))
        return originals

    monkeypatch.setattr(LeakedPairs, "on_pairs", on_pairs)
    options = {"epochs": 1, "device": "cpu", "progress": False}
    ue.evaluate(protected, shapes, "tiny", countermeasure="leaked-pairs-8", seeds=1, **options)
    report = ue.audit(
        protected, None, shapes, victims="tiny", countermeasures="leaked-pairs-8+jpeg-90", **options
    )
    assert [cell.trained_on for cell in report.cells] == ["protected", "clean", "protected"]
    assert report.countermeasures[1]["needs_clean"]
    assert report.worst().countermeasure == "none"
    for images, originals, labels in seen:
        assert torch.equal(originals, clean) and labels.tolist() == shapes.targets
        assert torch.equal(images, protected.to_tensors()[0])
    assert len(seen) == 2
    with pytest.raises(ValueError, match="expected a ProtectedDataset, which has clean images"):
        ue.evaluate(shapes, shapes, "tiny", countermeasure="leaked-pairs-8", seeds=1, **options)
