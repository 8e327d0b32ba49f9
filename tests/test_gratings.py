"""Gratings: square waves of a class's periods at an image's phases, exactly."""

import numpy as np
import pytest
import torch
from PIL import Image

import unlearnable as ue
from unlearnable.datasets import Shapes
from unlearnable.methods.gratings import grating_steps
from unlearnable.perturbation.kinds.generators import TURN, normals

QUIET = {"device": "cpu", "progress": False}


@pytest.fixture(scope="module")
def shapes():
    return Shapes(size=60)


@pytest.fixture(scope="module")
def perturbation(shapes):
    return ue.Gratings().fit(shapes, **QUIET).perturbation_


def rows_of(perturbation, dataset):
    images = np.stack([np.asarray(image).transpose(2, 0, 1) for image, _ in dataset])
    labels = [label for _, label in dataset]
    refs = perturbation.find_batch(images, labels)
    return perturbation._kind.rows(refs).astype(int), np.array(labels), refs


def test_a_row_is_the_product_of_two_square_waves(perturbation, shapes):
    rows, labels, refs = rows_of(perturbation, shapes)
    steps = perturbation.tensors["steps"]
    keys = np.array([key for _, key in refs], np.uint64)
    drawn = normals(perturbation.config["settings"]["seed"], labels, keys, 2) % (1 << 16)
    for row, label, start in zip(rows, labels, drawn, strict=True):
        for y in range(32):
            for x in range(32):
                turns = [
                    (int(at) * 16 + int(step) * place) % TURN / TURN
                    for at, step, place in zip(start, steps[label], (y, x), strict=True)
                ]
                sign = 1 if (turns[0] < 0.5) == (turns[1] < 0.5) else -1
                assert (row[:, y, x] == 12 * sign).all()


def test_all_channels_change_alike_by_the_whole_budget(perturbation, shapes):
    rows, _, _ = rows_of(perturbation, shapes)
    assert (np.abs(rows) == 12).all() and (rows == rows[:, :1]).all()
    assert perturbation.config["epsilon"] == pytest.approx(12 / 255 * 3072**0.5)


def test_the_mean_of_a_class_shows_nothing_and_its_spectrum_the_periods(shapes):
    many = Shapes(size=600)
    found = ue.Gratings().fit(many, **QUIET).perturbation_
    rows, labels, _ = rows_of(found, many)
    for label in range(10):
        mine = rows[labels == label][:, 0]
        assert np.abs(mine.mean(0)).max() < 12
        power = (np.abs(np.fft.rfft2(mine)) ** 2).mean(0)
        cycles = found.tensors["steps"][label] / TURN * 32
        at = np.unravel_index(power.argmax(), power.shape)
        assert abs(min(at[0], 32 - at[0]) - cycles[0]) <= 1 and abs(at[1] - cycles[1]) <= 1


@pytest.mark.parametrize("classes", [1, 2, 3, 10, 35, 100, 1000])
def test_every_class_has_periods_of_its_own(classes):
    steps = grating_steps(classes, (224, 224))
    assert steps.shape == (classes, 2) and steps.dtype == torch.int64
    assert len(np.unique(steps.numpy(), axis=0)) == classes and steps.any(1).all()
    cycles = steps[steps > 0] / TURN * 224
    assert cycles.min() > 1.99 and cycles.max() < 5.01


def test_classes_are_as_far_apart_as_their_number_allows():
    few, many = (grating_steps(n, (32, 32)).double().clamp_min(TURN / 32).log() for n in (4, 100))
    apart = [torch.pdist(found).min() for found in (few, many)]
    assert apart[0] > 0.6 > apart[1] > 0


def test_periods_are_of_the_shorter_side():
    assert torch.equal(grating_steps(10, (32, 64)), grating_steps(10, (32, 32)))


def test_another_seed_has_other_phases_and_the_same_periods(perturbation, shapes):
    other = ue.Gratings(seed=1).fit(shapes, **QUIET).perturbation_
    assert np.array_equal(other.tensors["steps"], perturbation.tensors["steps"])
    assert (rows_of(other, shapes)[0] != rows_of(perturbation, shapes)[0]).any()


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"least_cycles": 6}, "least_cycles of at most most_cycles=5"),
        ({"least_cycles": 0}, "least_cycles"),
        ({"most_cycles": 17}, "at least 34 pixels a side.* got 32x32; pass image_size=34"),
        ({"least_cycles": 4, "most_cycles": 4}, "enough periods for 10 classes"),
        ({"epsilon": 8 / 255}, "epsilon of at least 0.109"),
    ],
)
def test_what_cannot_be_made_is_refused(wrong, words, shapes):
    with pytest.raises(ValueError, match=words):
        ue.Gratings(**wrong).fit(shapes, **QUIET)


def test_jpeg_keeps_them(perturbation, shapes):
    from io import BytesIO

    rows, _, _ = rows_of(perturbation, shapes)
    left = []
    for row in rows[:20]:
        file = BytesIO()
        grey = (128 + row).astype(np.uint8).transpose(1, 2, 0)
        Image.fromarray(grey).save(file, "JPEG", quality=10)
        seen = np.asarray(Image.open(file)).astype(float).transpose(2, 0, 1) - 128
        left.append((seen * row).sum() / (row * row).sum())
    assert np.mean(left) > 0.6


def test_new_images_have_rows_and_photos_of_another_size_too(perturbation):
    new = Shapes(size=8, seed=5)
    assert ue.ProtectedDataset(new, perturbation).change().linf == 12
    large = Shapes(size=8, side=64)
    learned = ue.Gratings().fit(large, image_size=32, **QUIET)
    assert learned.protect(large, full_size=True).change().linf <= 24


def test_the_amplitude_is_what_each_value_is_away_from_zero(perturbation, shapes):
    rows, _, _ = rows_of(perturbation, shapes)
    assert set(np.abs(rows).ravel()) == {12}
    assert ue.Gratings().amplitude((3, 32, 32)) == pytest.approx(12 / 255)
    assert ue.Gratings(epsilon=1.0).amplitude((3, 20, 10)) == pytest.approx(600**-0.5)
