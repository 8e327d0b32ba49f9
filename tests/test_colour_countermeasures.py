"""What aims at the colours and the fine detail of images, against its definition."""

import math

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from unlearnable.evaluation import countermeasure
from unlearnable.evaluation.countermeasures.channels import (
    ChannelNormalization,
    ColourWhitening,
    HistogramEqualization,
)
from unlearnable.evaluation.countermeasures.lowpass import LowPass, cosines


@pytest.fixture(scope="module")
def soft():
    """Images with little contrast and other colours each, so that nothing is cut off."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(-12, 13, (5, 3, 9, 8), generator=generator)
    colours = torch.randint(60, 180, (5, 3, 1, 1), generator=generator)
    return (images + colours).to(torch.uint8), torch.arange(5) % 3


@pytest.fixture(scope="module")
def loud():
    """Images of all values."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (5, 3, 9, 8), dtype=torch.uint8, generator=generator)
    return images, torch.arange(5) % 3


# --- statistics of an image ----------------------------------------------------------------------


def test_channel_normalization_is_a_plain_loop_over_channels(soft, loud):
    for images, labels in (soft, loud):
        found = countermeasure("channel-normalization").on_images(images.clone(), labels)
        for image, after in zip(images.numpy().astype(float), found.numpy(), strict=True):
            for channel, result in zip(image, after, strict=True):
                moved = 127.5 + 63.75 * (channel - channel.mean()) / channel.std()
                assert np.abs(result - moved.clip(0, 255)).max() <= 0.5 + 1e-9


def test_channel_normalization_takes_a_mean_and_a_spread(soft):
    found = ChannelNormalization(0.4, 0.1).on_images(soft[0].clone(), soft[1]).double()
    assert (found.mean((2, 3)) - 0.4 * 255).abs().max() < 0.3
    assert (found.std((2, 3), correction=0) - 25.5).abs().max() < 0.3
    for wrong in ({"mean": 1.5}, {"spread": 0}, {"spread": 8}, {"mean": 127}):
        with pytest.raises(ValueError, match=r"in \[0, 1\] units"):
            ChannelNormalization(**wrong)


@pytest.mark.parametrize(
    "name", ["channel-normalization", "colour-whitening", "class-mean-subtraction-colour"]
)
def test_a_shift_of_all_pixels_is_undone(soft, name):
    """Two classes of the same images, one of them shifted by a colour."""
    images = torch.cat([soft[0], soft[0] + torch.tensor([25, 0, 50]).view(3, 1, 1).byte()])
    found = countermeasure(name).on_images(images, torch.arange(10) // 5)
    assert (found[:5].int() - found[5:].int()).abs().max() <= 1


def test_a_flat_image_becomes_medium_grey(soft):
    flat = torch.tensor([10, 100, 240], dtype=torch.uint8).view(1, 3, 1, 1).expand(1, 3, 9, 8)
    for name in ("channel-normalization", "colour-whitening"):
        found = countermeasure(name).on_images(flat.clone(), torch.zeros(1).long())
        assert found.unique().tolist() in ([127], [128])


def test_histogram_equalization_is_pillows_of_each_channel(soft, loud):
    for images, labels in (soft, loud):
        found = HistogramEqualization().on_images(images.clone(), labels)
        for image, after in zip(images.numpy(), found.numpy(), strict=True):
            for channel, result in zip(image, after, strict=True):
                expected = np.asarray(ImageOps.equalize(Image.fromarray(channel)))
                assert np.array_equal(result, expected)


def yuv(image):
    """Luma and differences of colour of an image (3, H, W), by the defining factors."""
    red, green, blue = image.reshape(3, -1)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    return np.stack([luma, 0.492 * (blue - luma), 0.877 * (red - luma)])


def test_whitened_colours_are_uncorrelated_and_of_one_spread(soft):
    found = ColourWhitening(0.1, 0.04).on_images(soft[0].clone(), soft[1])
    for image in found.numpy().astype(float):
        points = yuv(image)
        assert np.abs(points.mean(1) - [127.5, 0, 0]).max() < 0.5
        expected = np.diag([25.5, 10.2, 10.2]) ** 2
        assert np.abs(np.cov(points, bias=True) - expected).max() < 0.02 * 25.5**2
    for wrong in ({"luma": 0}, {"chroma": 2}):
        with pytest.raises(ValueError, match="spreads in"):
            ColourWhitening(**wrong)


def test_whitening_is_by_the_inverse_root_of_the_covariance(soft):
    image = soft[0][:1]
    points = yuv(image[0].numpy().astype(float))
    points -= points.mean(1, keepdims=True)
    values, axes = np.linalg.eigh(points @ points.T / points.shape[1])
    white = axes @ np.diag(values**-0.5) @ axes.T @ points
    y, u, v = np.diag([63.75, 15.3, 15.3]) @ white
    red, blue = y + v / 0.877, y + u / 0.492
    green = (y - 0.299 * red - 0.114 * blue) / 0.587
    expected = 127.5 + np.stack([red, green, blue]).reshape(3, 9, 8)
    found = countermeasure("colour-whitening").on_images(image.clone(), soft[1][:1])[0].numpy()
    assert np.abs(found - expected.clip(0, 255)).max() <= 0.5 + 0.05


def test_whitening_leaves_grey_images_grey(soft):
    grey = soft[0][:, :1]
    as_colours = grey.expand(-1, 3, -1, -1).clone()
    one, three = (ColourWhitening().on_images(x.clone(), soft[1]) for x in (grey, as_colours))
    assert (three.int() - one.int()).abs().max() <= 1
    alike = ChannelNormalization().on_images(grey.clone(), soft[1])
    assert (one.int() - alike.int()).abs().max() <= 1


@pytest.mark.parametrize(
    ("name", "treated"),
    [("channel-normalization", True), ("histogram-equalization", True), ("colour-whitening", True),
     ("low-pass", False), ("grayscale", False), ("class-mean-subtraction", False)],
)  # fmt: skip
def test_who_normalizes_does_it_to_test_images_too(name, treated):
    assert countermeasure(name).test_images == treated


# --- detail --------------------------------------------------------------------------------------


def test_the_cosine_transform_is_its_definition_and_orthonormal():
    found = cosines(7).numpy()
    for k in range(7):
        for n in range(7):
            scale = math.sqrt((1 if k == 0 else 2) / 7)
            assert abs(found[k, n] - scale * math.cos(math.pi * k * (2 * n + 1) / 14)) < 1e-12
    assert np.allclose(found @ found.T, np.eye(7))


def test_low_pass_keeps_the_lowest_cosines(loud):
    images, labels = loud
    found = LowPass(0.5).on_images(images.clone(), labels)
    rows, columns = cosines(9).numpy(), cosines(8).numpy()
    for image, after in zip(images.numpy(), found.numpy(), strict=True):
        for channel, result in zip(image.astype(float), after, strict=True):
            expected = np.zeros((9, 8))
            for k in range(4):  # half of 9 and of 8
                for m in range(4):
                    wave = np.outer(rows[k], columns[m])
                    expected += (channel * wave).sum() * wave
            assert np.abs(result - expected.clip(0, 255)).max() <= 0.5 + 1e-9


def test_low_pass_of_all_frequencies_changes_nothing_and_of_none_is_refused(loud):
    images, labels = loud
    assert torch.equal(LowPass(1).on_images(images.clone(), labels), images)
    mean = LowPass(0.01).on_images(images.clone(), labels).double()
    expected = images.double().mean((2, 3), keepdim=True)
    assert (mean - expected).abs().max() <= 0.5 + 1e-9
    for share in (0, 1.5):
        with pytest.raises(ValueError, match="share above 0"):
            LowPass(share)
