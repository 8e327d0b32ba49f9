"""What aims at the colours and the fine detail of images, against its definition."""

import math

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torchvision.transforms import v2

from unlearnable.engine.run import Run
from unlearnable.engine.train import Batch, to_float
from unlearnable.evaluation import countermeasure
from unlearnable.evaluation.countermeasures import operations
from unlearnable.evaluation.countermeasures.channels import (
    ChannelNormalization,
    ColourWhitening,
    HistogramEqualization,
)
from unlearnable.evaluation.countermeasures.colours import ColourJitter, HueShift, ShiftNoise
from unlearnable.evaluation.countermeasures.lowpass import LowPass, cosines
from unlearnable.evaluation.countermeasures.sharpening import Sharpening


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
     ("low-pass", False), ("grayscale", False), ("class-mean-subtraction", False),
     ("grayscale-everywhere", True), ("jpeg-10+grayscale-everywhere", True)],
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


def test_sharpening_is_a_plain_loop_over_kernels_that_sum_to_1(loud):
    images, labels = loud
    counter = Sharpening()
    kernels = counter.kernels(5).double().numpy()
    assert np.allclose(kernels.sum((1, 2)), 1, atol=1e-6)
    assert (kernels[:, 1, 1] >= 1).all() and len(np.unique(kernels[:, 1, 1])) == 5
    assert (np.delete(kernels.reshape(5, 9), 4, axis=1) <= 0).all()
    assert abs(counter.kernels(4000)[:, 1, 1].mean().item() - 2.5) < 0.05
    found = counter.on_images(images.clone(), labels).numpy()
    for image, kernel, after in zip(images.numpy(), kernels, found, strict=True):
        padded = np.pad(image.astype(float), ((0, 0), (1, 1), (1, 1)), mode="edge")
        for row in range(9):
            for column in range(8):
                square = padded[:, row : row + 3, column : column + 3]
                expected = (square * kernel).sum((1, 2)).clip(0, 255)
                assert np.abs(after[:, row, column] - expected).max() <= 0.5 + 1e-3
    for wrong in ({"centre": 0.5}, {"spread": -1}):
        with pytest.raises(ValueError, match="expected a centre of 1 or more"):
            Sharpening(**wrong)


# --- colours of batches --------------------------------------------------------------------------


class Fixed:
    """Draws that are given, and the bounds that they were asked within."""

    def __init__(self, *tensors):
        self.left, self.asked = list(tensors), []

    def uniform(self, shape, low, high):
        self.asked.append((tuple(shape), low, high))
        return self.left.pop(0).reshape(shape)

    def normal(self, shape):
        self.asked.append((tuple(shape), "normal"))
        return self.left.pop(0).reshape(shape)


class Given:
    """A run whose draws are given."""

    def __init__(self, draws):
        self.draws = draws

    def rng(self, purpose):
        return self.draws


def test_hues_are_torchvisions(loud):
    images = to_float(loud[0])
    images[0] = images[0, :1]  # a grey one
    for turn in (-0.5, -0.2, 0.0, 0.1, 0.37, 0.5):
        found = operations.hue(images, torch.full((5,), turn))
        expected = v2.functional.adjust_hue(images, turn)
        assert torch.allclose(found, expected, atol=1e-5)
    assert torch.equal(operations.hue(images[:, :1], torch.ones(5)), images[:, :1])
    each = operations.hue(images, torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5]))
    expected = v2.functional.adjust_hue(images[2], 0.3)
    assert torch.allclose(each[2], expected, atol=1e-5)


def test_colour_jitter_is_torchvisions_functions_in_one_order(loud):
    images = to_float(loud[0])
    drawn = torch.rand(5, 4, generator=torch.Generator().manual_seed(0)) * 2 - 1
    draws = Fixed(drawn)
    batch = ColourJitter(0.3, 0.2, 0.5, 0.1).on_batch(Batch(images, loud[1]), Given(draws), 0.0)
    assert draws.asked == [((5, 4), -1, 1)] and batch.targets is loud[1]
    for image, (brighter, sharper, livelier, turn), found in zip(
        images, drawn.tolist(), batch.images, strict=True
    ):
        expected = v2.functional.adjust_brightness(image, 1 + 0.3 * brighter)
        expected = v2.functional.adjust_contrast(expected, 1 + 0.2 * sharper)
        expected = v2.functional.adjust_saturation(expected, 1 + 0.5 * livelier)
        expected = v2.functional.adjust_hue(expected, 0.1 * turn)
        assert torch.allclose(found, expected, atol=1e-5)
    for wrong in ({"hue": 0.6}, {"brightness": -0.1}, {"contrast": 2}):
        with pytest.raises(ValueError, match=f"expected {next(iter(wrong))} from 0"):
            ColourJitter(**wrong)


def test_a_hue_shift_turns_each_image_by_its_own_draw(loud):
    images = to_float(loud[0])
    turns = torch.tensor([-0.5, -0.1, 0.0, 0.2, 0.4])
    draws = Fixed(turns)
    found = HueShift().on_batch(Batch(images, loud[1]), Given(draws), 0.0).images
    assert draws.asked == [((5,), -0.5, 0.5)]
    for image, turn, after in zip(images, turns.tolist(), found, strict=True):
        assert torch.allclose(after, v2.functional.adjust_hue(image, turn), atol=1e-5)
    with pytest.raises(ValueError, match="turn above 0"):
        HueShift(0)


def test_shift_noise_adds_one_colour_to_an_image_and_noise_to_each_pixel(loud):
    images = to_float(loud[0])
    generator = torch.Generator().manual_seed(0)
    shift = torch.rand(5, 3, 1, 1, generator=generator) * 16 / 255 - 8 / 255
    noise = torch.randn(5, 3, 9, 8, generator=generator)
    draws = Fixed(shift, noise)
    found = countermeasure("shift-noise-8").on_batch(Batch(images, loud[1]), Given(draws), 0.0)
    assert draws.asked == [((5, 3, 1, 1), -8 / 255, 8 / 255), ((5, 3, 9, 8), "normal")]
    expected = np.clip(images.numpy() + shift.numpy() + 4 / 255 * noise.numpy(), 0, 1)
    assert np.allclose(found.images.numpy(), expected, atol=1e-6)
    for wrong in ({"levels": -1}, {"noise": 300}):
        with pytest.raises(ValueError, match="from 0 to 255"):
            ShiftNoise(**wrong)


@pytest.mark.parametrize("name", ["colour-jitter", "hue-shift", "shift-noise-8"])
def test_each_image_of_a_batch_is_changed_by_draws_of_its_own(name):
    images = torch.tensor([200, 100, 50], dtype=torch.uint8).view(1, 3, 1, 1)
    images = images.expand(16, 3, 4, 4).contiguous()
    run = Run(images, torch.zeros(16).long(), 1, seed=0)
    for index in run.batches(1, 16):
        batch = countermeasure(name).on_batch(
            Batch(to_float(images[index]), torch.zeros(16).long()), run, 0.0
        )
    assert len(batch.images.unique(dim=0)) == 16
    assert batch.images.min() >= 0 and batch.images.max() <= 1


def test_colours_may_be_spelt_as_elsewhere():
    assert countermeasure("color-jitter") == ColourJitter()
    assert countermeasure("color-whitening+hue-shift").name == "colour-whitening+hue-shift"
