"""Countermeasures of those who know the method, against their definitions."""

import numpy as np
import pytest
import torch

from unlearnable.evaluation import countermeasure
from unlearnable.evaluation.countermeasures.class_means import ClassMeanSubtraction, class_means


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
    with pytest.raises(ValueError, match="expected a band, one of full, low, high, colour"):
        ClassMeanSubtraction("coarse")
    assert countermeasure("class-mean-subtraction-low") == ClassMeanSubtraction("low")
