"""What was learned at one size, on photos of their own size."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torch.utils.data import DataLoader

from unlearnable import AR, LSP, OPS, ClassConvolution, ColourShift, ProtectedDataset, RandomNoise
from unlearnable.data.image import ResizeCrop, to_pil
from unlearnable.data.raw import RawDataset
from unlearnable.datasets import Shapes
from unlearnable.perturbation.perturbation import Perturbation
from unlearnable.perturbation.resample import _Enlarged, _region

SIZES = [(20, 30), (60, 90), (33, 47), (50, 120), (70, 45), (13, 40), (7, 5)]  # height, width
LEARNED = (20, 30)


def grey(size, channels=3):
    return np.full((channels, *size), 128, np.uint8)


def additive(rows, epsilon=8 / 255, norm="Linf", **config):
    """Class-wise rows as an artefact."""
    described = {
        "method": "Test",
        "kind": "additive",
        "granularity": "class-wise",
        "epsilon": epsilon,
        "norm": norm,
        "image_shape": list(rows.shape[1:]),
        "classes": None,
        "num_classes": len(rows),
        "source": {"name": "Test", "images": 1},
        "preprocessing": {"fit": list(rows.shape[2:])},
        **config,
    }
    return Perturbation(rows.astype(np.int8), described)


def noise(shape=(2, 3, *LEARNED), most=8):
    return np.random.default_rng(0).integers(-most, most + 1, shape).astype(np.int8)


def enlarged(levels, size):
    made = _Enlarged(levels, size, _region(levels.shape[1:], size))
    return np.concatenate([values for _, values in made.blocks()], axis=1) / (1 << 22)


@pytest.mark.parametrize("size", SIZES)
def test_enlarging_is_a_bicubic_resize_of_the_row_mirrored_over_the_margins(size):
    levels = noise()[0]
    (top, tall), (left, wide) = _region(LEARNED, size)
    down, right = LEARNED[0] / tall, LEARNED[1] / wide
    mirrored = np.pad(levels.astype(np.float32), ((0, 0), (60, 60), (60, 60)), "symmetric")
    box = (
        60 - left * right, 60 - top * down,
        60 + (size[1] - left) * right, 60 + (size[0] - top) * down,
    )  # fmt: skip
    expected = [
        np.asarray(Image.fromarray(channel).resize(size[::-1], Image.Resampling.BICUBIC, box=box))
        for channel in mirrored
    ]
    np.testing.assert_allclose(enlarged(levels, size), expected, atol=0.02)


@pytest.mark.parametrize("size", SIZES[:-1])
def test_the_region_is_that_of_the_learned_crop(size):
    """Where the crop has been, and only there, the photo's own pixels come through it."""
    across = np.arange(size[1]) * 255 / size[1]
    photo = np.broadcast_to(across.astype(np.uint8), (3, *size)).copy()
    _, (left, wide) = _region(LEARNED, size)
    cropped = ImageOps.fit(to_pil(photo), (30, 20), Image.Resampling.BILINEAR)
    first, last = np.asarray(cropped)[10, [1, -2], 0]
    centres = left + (np.array([1.5, 28.5]) / 30) * wide
    np.testing.assert_allclose([first, last], (centres - 0.5) * 255 / size[1], atol=5)


@pytest.mark.parametrize("size", SIZES)
def test_linf_budget_holds_on_the_pixels_that_leave(size):
    rng = np.random.default_rng(0)
    perturbation = additive(noise() * 100)  # beyond the budget already: clipped again
    photo = rng.integers(0, 256, (3, *size), dtype=np.uint8)
    if size == LEARNED:
        return
    protected = perturbation.apply(photo, 1, full_size=True)
    change = protected.astype(int) - photo
    assert protected.dtype == np.uint8 and protected.shape == photo.shape
    assert np.abs(change).max() == 8
    margins = change[:, :, 0], change[:, :, -1], change[:, 0], change[:, -1]
    assert all(edge.any() for edge in margins)  # the whole photo is covered


@pytest.mark.parametrize("where", ["everywhere", "edge"])
def test_l2_keeps_the_strength_per_pixel(where):
    rows = noise()
    if where == "edge":  # what the mirror repeats most
        rows[:, :, 3:-3] = 0
    epsilon = float(np.linalg.norm(rows[0].astype(float))) / 255
    perturbation = additive(rows, epsilon, "L2")
    size = (200, 120)
    change = perturbation.apply(grey(size), 0, full_size=True).astype(float) - 128
    most = 255 * epsilon * math.sqrt(math.prod(size) / math.prod(LEARNED))
    rounding = 0.5 * math.sqrt(change.size)
    assert 0.5 * most < np.linalg.norm(change) <= most + rounding
    if where == "everywhere":
        assert np.linalg.norm(change) <= most


@pytest.mark.parametrize("channels", [1, 3])
def test_at_the_learned_size_it_is_the_usual_thing(channels):
    perturbation = additive(noise((2, channels, *LEARNED)))
    photo = np.random.default_rng(1).integers(0, 256, (channels, *LEARNED), dtype=np.uint8)
    usual = perturbation.apply(photo, 0)
    np.testing.assert_array_equal(perturbation.apply(photo, 0, full_size=True), usual)


def test_grey_photos_get_colour_if_rows_have_it_and_grey_rows_fit_colour():
    perturbation = additive(noise())
    photo = grey((40, 60), 1)
    assert perturbation.prepare(photo, full_size=True).shape == (3, 40, 60)
    assert perturbation.apply(photo, 0, full_size=True).shape == (3, 40, 60)
    on_grey = additive(noise((2, 1, *LEARNED)))
    assert on_grey.prepare(photo, full_size=True).shape == (1, 40, 60)
    change = on_grey.apply(grey((40, 60)), 0, full_size=True).astype(int) - 128
    assert change.any() and (change[0] == change[2]).all()


def correlation(one, other):
    return np.corrcoef(one.ravel(), other.ravel())[0, 1]


def test_a_victim_that_resizes_sees_much_of_it():
    levels = noise()[0]
    photo = grey((60, 90))
    protected = additive(levels[None]).apply(photo, 0, full_size=True)
    seen = ResizeCrop(*LEARNED)(protected).astype(float) - 128
    assert correlation(seen, levels) > 0.9
    bilinear = [
        np.asarray(Image.fromarray(channel).resize((90, 60), Image.Resampling.BILINEAR))
        for channel in levels.astype(np.float32)
    ]
    softer = (photo + np.rint(bilinear)).astype(np.uint8)
    assert correlation(seen, levels) > correlation(
        ResizeCrop(*LEARNED)(softer).astype(float) - 128, levels
    )


def test_damaged_rows_are_found():
    perturbation = additive(noise())
    perturbation.rows[0, 0, 0, 0] ^= 1
    with pytest.raises(ValueError, match="checksum"):
        perturbation.apply(grey((40, 60)), 0, full_size=True)


# --- kinds ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def photos():
    """12 photos of three sizes and two classes, as (images, labels)."""
    rng = np.random.default_rng(0)
    sizes = [(24, 32), (32, 24), (40, 40)]
    patches = rng.integers(64, 192, (12, 8, 8, 3), dtype=np.uint8)
    images = [
        np.asarray(Image.fromarray(patch).resize(sizes[i % 3], Image.Resampling.BICUBIC))
        for i, patch in enumerate(patches)
    ]
    return images, [i % 2 for i in range(12)]


def fitted(method, photos, size=16):
    return method.fit(photos, device="cpu", image_size=size, progress=False).perturbation_


@pytest.mark.parametrize(
    "method",
    [
        RandomNoise(),
        RandomNoise(granularity="class-wise"),
        LSP(),
        AR(),
        ClassConvolution(),
        ColourShift(),
    ],
    ids=["sample-wise", "class-wise", "LSP", "AR", "convolution", "shift"],
)
def test_kinds_keep_the_photos_size(method, photos):
    protected = ProtectedDataset(photos, fitted(method, photos), full_size=True)
    for index, image in enumerate(photos[0]):
        clean, found = protected.clean(index)[0], protected[index][0]
        np.testing.assert_array_equal(clean, image)
        assert found.shape == image.shape and (found != image).any()
        # Seen at the learned size it is about what the perturbation does there.
        perturbation = protected.perturbation
        pixels = image.transpose(2, 0, 1)
        small = perturbation.prepare(pixels).astype(int)
        row = perturbation.find(pixels, photos[1][index], index)
        wanted = perturbation.apply(small.astype(np.uint8), row).astype(int) - small
        seen = ResizeCrop(16, 16)(found.transpose(2, 0, 1)).astype(int) - small
        inner = np.s_[:, 2:-2, 2:-2]  # a kernel darkens the photo's border, not that of the crop
        assert correlation(seen[inner], wanted[inner]) > 0.85
    assert protected.change(12).images == 12
    assert "full size" in repr(protected)


def test_single_pixels_are_refused(photos):
    pixels = fitted(OPS(), photos)
    stack = fitted(RandomNoise(), photos).then(pixels)
    for perturbation in (pixels, stack):
        with pytest.raises(ValueError, match="single pixels"):
            ProtectedDataset(photos, perturbation, full_size=True)
    with pytest.raises(ValueError, match="single pixels"):
        OPS().fit(photos, image_size=16, progress=False).protect(photos, full_size=True)


def test_stacks_apply_one_after_the_other(photos):
    first, second = fitted(RandomNoise(), photos), fitted(ClassConvolution(), photos)
    found = ProtectedDataset(photos, first.then(second), full_size=True)[3][0]
    pixels = photos[0][3].transpose(2, 0, 1)
    below = first.apply(pixels, 3, full_size=True)
    expected = second.apply(below, photos[1][3], full_size=True)
    np.testing.assert_array_equal(found.transpose(2, 0, 1), expected)


# --- datasets ------------------------------------------------------------------------------------


def test_what_needs_one_size_says_so(photos):
    perturbation = fitted(RandomNoise(), photos)
    protected = ProtectedDataset(photos, perturbation, full_size=True)
    with pytest.raises(ValueError, match="full_size"):
        protected.to_tensors()
    same = (photos[0][2::3], photos[1][2::3])
    images, labels = ProtectedDataset(same, perturbation, full_size=True).to_tensors()
    assert images.shape == (4, 3, 40, 40) and images.dtype == torch.uint8 and len(labels) == 4


def test_fraction_and_batches(photos):
    protected = ProtectedDataset(
        photos, fitted(RandomNoise(), photos), fraction=0.5, full_size=True
    )
    changed = [(protected[i][0] != image).any() for i, image in enumerate(photos[0])]
    assert sum(changed) == 6
    batches = DataLoader(protected, batch_size=4, collate_fn=list)
    read = [image for batch in batches for image, _ in batch]
    for index, image in enumerate(read):
        np.testing.assert_array_equal(image, protected[index][0])


def test_photos_are_learned_at_one_size_and_written_at_theirs(varying_folder, fit, tmp_path):
    perturbation = fit(varying_folder, image_size=6)
    protected = ProtectedDataset(varying_folder, perturbation, full_size=True)
    folder = protected.export(tmp_path / "out", progress=False)
    for index, (file, _) in enumerate(varying_folder.samples):
        (path,) = folder.rglob(Path(file).name)
        with Image.open(path) as image:
            assert image.size == varying_folder[index][0].size
            np.testing.assert_array_equal(np.asarray(image), np.asarray(protected[index][0]))
    again = RawDataset(protected)  # what a victim reads, and resizes
    assert {again[index].pixels.shape for index in range(4)} == {
        (3, 6, 8), (3, 10, 10), (3, 12, 6), (3, 8, 8),
    }  # fmt: skip


def test_shapes_of_any_side():
    small, large = Shapes(size=30), Shapes(size=30, side=64)
    assert large.data.shape == (30, 64, 64, 3) and large.targets == small.targets
    assert large.data.std() == pytest.approx(small.data.std(), rel=0.2)
    assert not np.array_equal(large.data[:, ::2, ::2], small.data)
    with pytest.raises(ValueError, match="side to be an integer >= 8"):
        Shapes(size=1, side=4)
