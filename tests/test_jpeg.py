"""The JPEG that gradients go through: Pillow's pixels, and gradients that lead somewhere."""

import io

import numpy as np
import pytest
import torch
from fake_gpu import CUDA, FakeGPU
from PIL import Image

from unlearnable.engine import jpeg as module
from unlearnable.engine.jpeg import SUBSAMPLINGS, jpeg

QUALITIES = [10, 30, 50, 75, 85, 95]
SIZES = [(64, 64), (61, 90), (33, 47), (17, 4), (5, 16), (1, 9), (40, 2), (3, 1)]


def picture(height, width, channels=3, seed=0):
    """What photos have: amplitudes that fall with frequency, channels that go together."""
    rng = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None])
    amplitude = 1 / np.maximum(frequency, 1 / max(height, width))
    noise = np.fft.fft2(rng.normal(size=(3, height, width)))
    planes = np.fft.ifft2(noise * amplitude).real
    planes /= planes.std() + 1e-9
    mixed = np.einsum("oc,chw->ohw", [[1, 0.35, 0.1], [1, 0, -0.2], [1, -0.35, 0.3]], planes)
    return np.clip(128 + 55 * mixed[:channels], 0, 255).round().astype(np.uint8)


def by_pillow(pixels, quality, subsampling="4:2:0"):
    file = io.BytesIO()
    image = Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0))
    image.save(file, "JPEG", quality=quality, subsampling=subsampling)
    opened = np.asarray(Image.open(file))
    return opened[None] if opened.ndim == 2 else opened.transpose(2, 0, 1)


def levels(images):
    return (255 * images).round().detach().numpy().astype(int)


def by_us(pixels, quality, subsampling="4:2:0"):
    images = torch.from_numpy(pixels)[None] / 255
    return levels(jpeg(images, torch.tensor([quality]), subsampling=subsampling))[0]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("subsampling", SUBSAMPLINGS)
@pytest.mark.parametrize("quality", QUALITIES)
def test_pixels_are_pillows_at_any_size(quality, subsampling, channels):
    differences = []
    for seed, size in enumerate(SIZES):
        pixels = picture(*size, channels, seed)
        found, expected = (f(pixels, quality, subsampling) for f in (by_us, by_pillow))
        differences.append(np.abs(found - expected.astype(int)).mean())
    assert max(differences) < 1.5 and np.mean(differences) < 0.25, differences


@pytest.mark.parametrize("quality", QUALITIES)
def test_flat_pictures_whose_means_lie_between_two_steps_are_pillows(quality):
    flat = np.arange(256, dtype=np.uint8)[:, None, None, None].repeat(3, 1).repeat(8, 2)
    flat = flat.repeat(8, 3)
    found = levels(jpeg(torch.from_numpy(flat) / 255, torch.full((256,), quality)))
    expected = np.stack([by_pillow(pixels, quality) for pixels in flat])
    assert np.array_equal(found, expected)


def test_tables_are_those_that_pillow_writes():
    qualities = torch.arange(1, 101)
    for quality, found in zip(qualities.tolist(), module._tables(qualities), strict=True):
        file = io.BytesIO()
        Image.new("RGB", (8, 8)).save(file, "JPEG", quality=quality)
        written = Image.open(file).quantization
        assert found.tolist() == [written[0], written[1]]


def test_each_image_has_its_own_quality():
    pixels = np.stack([picture(20, 28, seed=seed) for seed in range(6)])
    together = levels(jpeg(torch.from_numpy(pixels) / 255, torch.tensor(QUALITIES)))
    alone = [by_us(own, quality) for own, quality in zip(pixels, QUALITIES, strict=True)]
    assert np.array_equal(together, np.stack(alone))


def test_images_of_other_channels_are_so_many_grey_ones():
    pixels = picture(20, 28)[:2]
    found = by_us(pixels, 40)
    assert np.array_equal(found, np.concatenate([by_us(pixels[[c]], 40) for c in (0, 1)]))


def test_images_are_8_bit_ones_and_inside_the_range_first():
    images = torch.from_numpy(picture(16, 16))[None] / 255
    quality = torch.tensor([90])
    within = images + 0.4 / 255 * torch.rand_like(images)
    assert torch.equal(jpeg(within, quality), jpeg(images, quality))
    wild = 3 * images - 1
    assert torch.equal(jpeg(wild, quality), jpeg(wild.clamp(0, 1), quality))


def test_an_empty_batch_stays_empty():
    assert jpeg(torch.zeros(0, 3, 12, 20), torch.zeros(0, dtype=torch.int64)).shape == (
        0,
        3,
        12,
        20,
    )


def test_an_unknown_subsampling_is_refused():
    with pytest.raises(ValueError, match=r"one of \['4:2:0', '4:4:4'\], got '4:2:2'"):
        jpeg(torch.zeros(1, 3, 8, 8), torch.tensor([50]), subsampling="4:2:2")


@pytest.mark.parametrize("subsampling", SUBSAMPLINGS)
@pytest.mark.parametrize("quality", QUALITIES)
def test_gradients_are_finite_and_reach_every_pixel(quality, subsampling):
    pixels = np.clip(picture(19, 37), 40, 215)  # nothing is clipped afterwards
    images = (torch.from_numpy(pixels)[None] / 255).requires_grad_()
    target = torch.rand(images.shape, generator=torch.Generator().manual_seed(0))
    loss = (jpeg(images, torch.tensor([quality]), subsampling=subsampling) - target).square().sum()
    (slope,) = torch.autograd.grad(loss, images)
    assert slope.isfinite().all() and (slope != 0).float().mean() > 0.99


@pytest.mark.parametrize("subsampling", SUBSAMPLINGS)
def test_descent_through_compression_comes_near_what_it_is_to_look_like(subsampling):
    quality = torch.tensor([75])
    aim = torch.from_numpy(by_pillow(picture(32, 32, seed=1), 75)[None].copy()) / 255
    images = torch.full_like(aim, 0.5)
    losses = []
    for _ in range(30):
        images.requires_grad_()
        loss = (jpeg(images, quality, subsampling=subsampling) - aim).square().sum()
        (slope,) = torch.autograd.grad(loss, images)
        images = (images - 0.5 * slope).detach().clamp(0, 1)
        losses.append(loss.item())
    assert losses[-1] < 0.05 * losses[0]


def test_the_gradient_of_rounding_is_partly_smooth_and_never_gone():
    images = torch.full((1, 1, 8, 8), 128 / 255)  # all coefficients are 0, and nothing was rounded
    images.requires_grad_()
    weights = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    (slope,) = torch.autograd.grad((jpeg(images, torch.tensor([50])) * weights).sum(), images)
    assert torch.allclose(slope, 0.25 * weights, atol=1e-5)


def test_straight_through_alone_is_the_identity(monkeypatch):
    monkeypatch.setattr(module, "_SMOOTH", 0.0)
    images = (64 + 128 * torch.rand(2, 1, 13, 19)) / 255
    images.requires_grad_()
    weights = torch.rand(2, 1, 13, 19)
    (slope,) = torch.autograd.grad((jpeg(images, torch.tensor([95, 90])) * weights).sum(), images)
    assert torch.allclose(slope, weights, atol=1e-5)


def test_autocast_changes_nothing():
    images = (torch.from_numpy(picture(24, 24))[None] / 255).requires_grad_()
    quality = torch.tensor([60])

    def both():
        seen = jpeg(images, quality)
        return seen, torch.autograd.grad(seen.square().sum(), images)[0]

    plain = both()
    with torch.autocast("cpu", torch.bfloat16):
        assert all(map(torch.equal, both(), plain))


def test_nothing_waits_for_a_gpu():
    with FakeGPU() as gpu:
        images = torch.rand(4, 3, 20, 33, device=CUDA).requires_grad_()
        for subsampling in SUBSAMPLINGS:
            seen = jpeg(images, torch.tensor([10, 50, 75, 95]), subsampling=subsampling)
            assert seen.device == CUDA and seen.shape == images.shape
            (slope,) = torch.autograd.grad(seen.sum(), images)
            assert slope.device == CUDA
    assert not +gpu.waits
