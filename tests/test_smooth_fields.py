"""SmoothFields: saturated sums of the lowest cosines, far apart in brightness and in all."""

import numpy as np
import pytest
import torch

import unlearnable as ue
from unlearnable.datasets import Shapes
from unlearnable.engine.augment import luma
from unlearnable.engine.run import Run
from unlearnable.methods.farthest import farthest
from unlearnable.methods.smooth_fields import smooth_fields

QUIET = {"device": "cpu", "progress": False}


def draws(seed=0):
    images = torch.zeros(16, 3, 8, 8, dtype=torch.uint8)
    return Run(images, torch.zeros(16, dtype=torch.long), 2, seed=seed).global_rng("fields")


@pytest.fixture(scope="module")
def rows():
    found = ue.SmoothFields().fit(Shapes(size=20), **QUIET).perturbation_
    return np.asarray(found.rows).astype(float)


def test_rows_mirror_themselves_and_use_the_budget(rows):
    assert rows.shape == (10, 3, 32, 32) and np.abs(rows).max() == 8
    np.testing.assert_array_equal(rows, rows[:, :, :, ::-1])
    assert np.abs(rows).mean() > 5


def test_a_field_is_a_saturated_sum_of_the_lowest_cosines():
    fields = smooth_fields(draws(), 6, (3, 16, 24)).double()
    sums = torch.atanh(fields.clamp(-1 + 1e-6, 1 - 1e-6))
    inside = fields.abs() < 0.999
    places = [torch.pi * (torch.arange(n) + 0.5) / n for n in (16, 24)]
    waves = [
        torch.outer((a * places[0]).cos(), (2 * b * places[1]).cos()).double().flatten()
        for a in range(3)
        for b in range(3)
        if a or b
    ]
    basis = torch.stack(waves, 1)
    for field, known in zip(sums.flatten(0, 1), inside.flatten(0, 1), strict=True):
        target, mask = field.flatten(), known.flatten()
        found = torch.linalg.lstsq(basis[mask], target[mask, None]).solution
        torch.testing.assert_close(basis[mask] @ found, target[mask, None], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("classes", [2, 10, 100])
def test_classes_are_apart_in_grey_too(classes):
    fields = smooth_fields(draws(), classes, (3, 32, 32))
    assert torch.pdist(fields.flatten(1)).square().min() / fields[0].numel() > 0.2
    assert torch.pdist(luma(fields).flatten(1)).square().min() / 1024 > 0.2


def test_the_view_in_which_two_are_nearest_says_how_far_they_are_apart():
    one, other = np.array([[0.0], [1.0], [9.0]]), np.array([[0.0, 0.0], [5.0, 5.0], [1.0, 1.0]])
    assert farthest(2, one).tolist() == [0, 2] and farthest(2, other).tolist() == [0, 1]
    assert farthest(2, 3 * one[[0, 1, 2]], other).tolist() == [0, 1]  # 9 of 25 against 1 of 729


def test_each_is_the_farthest_from_those_before():
    few, more = (smooth_fields(draws(), n, (3, 32, 32)) for n in (4, 7))
    torch.testing.assert_close(more[:4], few)


def test_grey_fields_on_request_and_for_grey_images():
    grey = smooth_fields(draws(), 4, (3, 16, 16), 3, 0.0)
    torch.testing.assert_close(grey, grey[:, :1].expand_as(grey))
    assert smooth_fields(draws(), 4, (1, 16, 16)).shape == (4, 1, 16, 16)


def test_channel_means_hardly_change(rows):
    assert np.abs(rows.mean((2, 3))).max() < 4


def test_another_seed_has_other_fields(rows):
    other = ue.SmoothFields(seed=1).fit(Shapes(size=20), **QUIET).perturbation_.rows
    assert (np.asarray(other) != rows).mean() > 0.3


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"frequencies": 1}, "frequencies"),
        ({"colourfulness": 2}, "colourfulness"),
        ({"granularity": "sample-wise"}, "granularity"),
    ],
)
def test_bad_parameters_are_explained(wrong, words):
    with pytest.raises(ValueError, match=words):
        ue.SmoothFields(**wrong).fit(Shapes(size=20), **QUIET)
