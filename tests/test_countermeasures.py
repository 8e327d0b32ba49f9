"""Each countermeasure against its definition."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import Subset
from torchvision.transforms import v2

import unlearnable as ue
from unlearnable import ProtectedDataset
from unlearnable.datasets import Shapes
from unlearnable.engine.models import MODELS, build_model, reset_weights
from unlearnable.engine.run import Run
from unlearnable.engine.train import Batch, cross_entropy, sgd, to_float, train
from unlearnable.evaluation import COUNTERMEASURES, Countermeasure, countermeasure
from unlearnable.evaluation.countermeasures import NAMES, automatic, operations, projection
from unlearnable.evaluation.countermeasures import pretrained as pretraining
from unlearnable.evaluation.countermeasures.adversarial import (
    AdversarialTraining,
    ShiftAdversarialTraining,
)
from unlearnable.evaluation.countermeasures.automatic import RandAugment
from unlearnable.evaluation.countermeasures.channels import ChannelNormalization
from unlearnable.evaluation.countermeasures.colours import ShiftNoise
from unlearnable.evaluation.countermeasures.displacement import Displacement, displaced
from unlearnable.evaluation.countermeasures.imagenet import (
    FineTuningImageNet,
    LinearProbeImageNet,
)
from unlearnable.evaluation.countermeasures.images import (
    JPEG,
    BitDepth,
    Filter,
    GaussianBlur,
    Grayscale,
    MeanFilter,
    MedianFilter,
)
from unlearnable.evaluation.countermeasures.leaked_pairs import LeakedPairs
from unlearnable.evaluation.countermeasures.mixing import CutMix, Cutout, MixUp
from unlearnable.evaluation.countermeasures.pretrained import FineTuning, Start, pretrained
from unlearnable.evaluation.countermeasures.projection import OrthogonalProjection, without
from unlearnable.evaluation.countermeasures.ueraser import UEraser, plasma
from unlearnable.evaluation.countermeasures.unprotected import Unprotected
from unlearnable.evaluation.countermeasures.within_budget import WithinBudget


@pytest.fixture(scope="module")
def pixels():
    """24 images and labels of 3 classes, uint8 (N, 3, 16, 12)."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (24, 3, 16, 12), dtype=torch.uint8, generator=generator)
    return images, torch.arange(24) % 3


def linear(size=3 * 16 * 12, classes=3):
    model = nn.Sequential(nn.Flatten(), nn.Linear(size, classes))
    reset_weights(model, seed=0)
    return model


def on_batch(counter, images, labels, *, done=0.0, classes=3, seed=0):
    """What becomes of all images as one batch, and their order in it; float images stay."""
    run = Run(images, labels, classes, seed=seed)
    for index in run.batches(1, len(images)):
        seen = images[index] if images.is_floating_point() else to_float(images[index])
        return counter.on_batch(Batch(seen, labels[index]), run, done), index


# --- names ---------------------------------------------------------------------------------------


def examples():
    """A name for every template."""
    numbers = {"l2-RADIUS": "l2-0.5", "RADIUS": "4", "STEPS": "3", "QUALITY": "10", "BITS": "2"}
    more = {"PERCENT": "20", "LEVELS": "8", "SHIFT": "25", "PAIRS": "500", "PIXELS": "8"}
    names = list(NAMES)
    for placeholder, number in (numbers | more).items():
        names = [name.replace(placeholder, number) for name in names]
    return names


@pytest.mark.parametrize("name", sorted({*examples(), *COUNTERMEASURES}))
def test_names_lead_to_countermeasures_and_back(name):
    found = countermeasure(name)
    assert found.name == name and countermeasure(found) is found
    assert found.description.startswith("a victim that ")
    assert json.loads(json.dumps(found.parameters)) == found.parameters


def test_none_and_decimal_radii_have_names():
    assert countermeasure(None).name == "none"
    assert countermeasure("adversarial-training-l2-0.5") == AdversarialTraining(0.5, "L2")
    assert countermeasure("adversarial-training-8-steps-3").parameters == {
        "radius": 8, "norm": "Linf", "steps": 3,
    }  # fmt: skip


@pytest.mark.parametrize("name", ["jpg-10", "jpeg", "jpeg-1.5", "JPEG-10", "grayscale-2", ""])
def test_unknown_names_raise_with_the_list(name):
    with pytest.raises(ValueError, match=r"jpeg-QUALITY.*fine-tuning"):
        countermeasure(name)


@pytest.mark.parametrize(
    ("name", "near"), [("jpg-10", "jpeg-10"), ("standrd", "standard"), ("adaptve", "adaptive")]
)
def test_a_near_countermeasure_or_set_is_suggested(name, near):
    with pytest.raises(ValueError, match=rf"got '{name}'; did you mean '{near}'\?"):
        countermeasure(name)


@pytest.mark.parametrize(
    "name",
    ["jpeg-0", "jpeg-101", "bit-depth-9", "adversarial-training-0", "unprotected-0",
     "clean-part-only-101", "adversarial-training-4-steps-0"],
)  # fmt: skip
def test_numbers_out_of_range_are_refused(name):
    with pytest.raises(ValueError, match="expected"):
        countermeasure(name)


def test_the_documentation_lists_all_of_them():
    page = (Path(__file__).parents[1] / "docs/explanation/countermeasures.md").read_text("utf-8")
    for name in examples():
        counter = countermeasure(name)
        parameters = ", ".join(f"{key}={value!r}" for key, value in counter.parameters.items())
        does = counter.description.removeprefix("a victim that ")
        row = f"| `{name}` | {does} | {parameters} |"
        assert row in page, row
    assert page.count("\n| `") == len(NAMES) + len(MODELS) + 9  # and the hooks


# --- images --------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_is_pillows(pixels, channels):
    images, labels = pixels[0][:2, :channels], pixels[1][:2]
    found = countermeasure("jpeg-10").on_images(images, labels)
    for image, after in zip(images, found, strict=True):
        file = io.BytesIO()
        array = image.permute(1, 2, 0).numpy()
        Image.fromarray(array if channels == 3 else array[..., 0]).save(file, "JPEG", quality=10)
        expected = np.asarray(Image.open(file)).reshape(16, 12, channels)
        assert np.array_equal(after.permute(1, 2, 0).numpy(), expected)


def test_bit_depth_keeps_the_high_bits(pixels):
    images, labels = pixels
    assert torch.equal(countermeasure("bit-depth-2").on_images(images, labels), images & 0b11000000)


def test_test_images_are_grey_where_all_are_and_not_saved_as_jpeg(pixels):
    images, labels = pixels
    grey = countermeasure("grayscale").on_images(images.clone(), labels)
    both = countermeasure("jpeg-10+grayscale-everywhere")
    assert torch.equal(both.on_test_images(images.clone(), labels), grey)
    assert not torch.equal(both.on_images(images.clone(), labels), grey)
    assert torch.equal(
        both.on_images(images.clone(), labels),
        countermeasure("jpeg-10+grayscale").on_images(images.clone(), labels),
    )


def test_grayscale_is_pillows_luma_in_all_channels(pixels):
    images, labels = pixels
    grey = countermeasure("grayscale").on_images(images, labels)
    assert torch.equal(grey[:, 0], grey[:, 1]) and torch.equal(grey[:, 0], grey[:, 2])
    luma = np.asarray(Image.fromarray(images[0].permute(1, 2, 0).numpy()).convert("L"))
    assert np.abs(grey[0, 0].numpy().astype(int) - luma).max() <= 1


def neighbourhoods(image):
    """(H, W, 9) of an image (H, W), mirrored at its edges."""
    padded = np.pad(image, 1, mode="reflect")
    height, width = image.shape
    return np.stack(
        [padded[y : y + height, x : x + width] for y in range(3) for x in range(3)], axis=-1
    )


def test_median_and_mean_are_those_of_numpy(pixels):
    images, labels = pixels[0][:2], pixels[1][:2]
    squares = neighbourhoods(images[1, 2].numpy())
    median = MedianFilter().on_images(images, labels)
    assert np.array_equal(median[1, 2].numpy(), np.median(squares, axis=-1))
    mean = MeanFilter().on_images(images, labels)
    assert np.abs(mean[1, 2].numpy() - squares.mean(axis=-1)).max() <= 0.5 + 1e-4


def test_gaussian_blur_weighs_by_the_normal_density(pixels):
    images, labels = pixels[0][:2], pixels[1][:2]
    density = np.exp(-np.array([1, 0, 1]) / (2 * 0.8**2))
    kernel = np.outer(density, density) / density.sum() ** 2
    expected = neighbourhoods(images[0, 0].numpy()) @ kernel.ravel()
    blurred = GaussianBlur(3, 0.8).on_images(images, labels)
    assert np.abs(blurred[0, 0].numpy() - expected).max() <= 0.5 + 1e-3
    assert torch.equal(GaussianBlur(3, 0.1).on_images(images, labels), images)  # the published one


def test_gaussian_blur_changes_most_pixels_of_a_textured_image():
    images, labels = (
        torch.from_numpy(Shapes(size=8).data).permute(0, 3, 1, 2), torch.zeros(8).long()
    )  # fmt: skip
    changed = countermeasure("gaussian-blur").on_images(images, labels) != images
    assert changed.any(1).float().mean() > 0.8


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (AdversarialTraining, "radius"), (AdversarialTraining, "steps"), (BitDepth, "bits"),
        (CutMix, "probability"), (CutMix, "mixes"), (Cutout, "size"), (Displacement, "distance"),
        (Displacement, "seed"), (FineTuning, "epochs"), (FineTuning, "learning_rate"),
        (GaussianBlur, "kernel_size"), (GaussianBlur, "sigma"), (JPEG, "quality"),
        (MedianFilter, "kernel_size"), (OrthogonalProjection, "epochs"),
        (OrthogonalProjection, "min_updates"), (OrthogonalProjection, "batch_size"),
        (RandAugment, "operations"), (RandAugment, "magnitude"), (UEraser, "draws"),
        (UEraser, "until"), (UEraser, "probability"), (Unprotected, "percent"),
    ],
)  # fmt: skip
def test_parameters_are_plain_numbers(make, name):
    default = make()
    value = getattr(default, name)
    given = 5 if value is None else value
    own = make(**{name: np.float64(given) if type(given) is float else np.int64(given)})
    assert own == make(**{name: given}) and own.name == make(**{name: given}).name
    assert json.loads(json.dumps(own.parameters)) == make(**{name: given}).parameters
    for wrong in (True, "1", [1]):
        with pytest.raises(ValueError, match=f"expected {name} to be"):
            make(**{name: wrong})
    if not isinstance(given, float) and name not in ("radius", "percent"):
        with pytest.raises(ValueError, match=f"expected {name} to be an integer"):
            make(**{name: 1.5})


def test_displacement_is_bilinear(pixels):
    image = pixels[0][:1]
    moves = torch.empty(1, 16, 12, 2).uniform_(-2, 2, generator=torch.Generator().manual_seed(1))
    found = displaced(image, moves)[0, 1].numpy()
    source = image[0, 1].numpy().astype(float)
    for y in range(16):
        for x in range(12):
            right = np.clip(x + moves[0, y, x, 0].item(), 0, 11)
            down = np.clip(y + moves[0, y, x, 1].item(), 0, 15)
            x0, y0 = int(right), int(down)
            x1, y1 = min(x0 + 1, 11), min(y0 + 1, 15)
            u, v = right - x0, down - y0
            value = (1 - v) * ((1 - u) * source[y0, x0] + u * source[y0, x1]) + v * (
                (1 - u) * source[y1, x0] + u * source[y1, x1]
            )
            assert abs(found[y, x] - value) <= 0.5 + 1e-2


def test_displacement_takes_pixels_from_at_most_two_away():
    ramp = (20 * torch.arange(12, dtype=torch.uint8)).expand(8, 1, 16, 12)
    moved = Displacement().on_images(ramp, torch.zeros(8, dtype=torch.int64))
    off = (moved.int() - ramp.int()).abs()
    assert 30 < off.max() <= 40 and off[0].ne(off[1]).any()
    assert torch.equal(moved, Displacement().on_images(ramp, torch.zeros(8, dtype=torch.int64)))


# --- batches -------------------------------------------------------------------------------------


def test_cutout_cuts_a_square_off_at_the_edges():
    images = torch.full((64, 1, 32, 32), 255, dtype=torch.uint8)
    batch, _ = on_batch(Cutout(), images, torch.zeros(64, dtype=torch.int64), classes=1)
    whole = 0
    for image in batch.images[:, 0]:
        rows, columns = (image == 0).nonzero().unbind(1)
        height, width = (int(line.max() - line.min()) + 1 for line in (rows, columns))
        assert len(rows) == height * width and max(height, width) <= 16
        for line, length in ((rows, height), (columns, width)):
            assert length == 16 or line.min() == 0 or line.max() == 31
        whole += height == width == 16
    assert 4 < whole < 40  # a quarter, where the centre is uniform over the pixels


def test_cutmix_mixes_labels_by_area():
    labels = torch.arange(32)
    images = (labels / 32)[:, None, None, None].expand(32, 3, 16, 12)
    batch, index = on_batch(CutMix(mixes=1), images, labels, classes=32)
    assert batch.images.shape == images.shape and batch.targets.shape == (32, 32)
    kept = 0
    for image, target, own in zip(batch.images, batch.targets, index, strict=True):
        sources = (32 * image[0]).round().long().flatten()
        area = torch.bincount(sources, minlength=32) / sources.numel()
        assert torch.allclose(target, area, atol=1e-6)
        kept += bool(target[own] == 1)
    assert 6 < kept < 30  # half of them are left alone


def test_mixup_mixes_images_as_labels():
    """An image whose channels are its one-hot label: every pixel is then the target."""
    labels = torch.arange(24) % 3
    images = nn.functional.one_hot(labels).float()[:, :, None, None].expand(24, 3, 4, 4)
    batch, _ = on_batch(MixUp(), images, labels)
    assert torch.allclose(batch.images[:, :, 1, 2], batch.targets, atol=1e-6)
    assert torch.allclose(batch.targets.sum(1), torch.ones(24), atol=1e-6)
    assert ((batch.targets > 0.01) & (batch.targets < 0.99)).any()


@pytest.mark.parametrize("mixing", [CutMix(probability=0), MixUp(probability=0)])
def test_mixes_of_probability_0_leave_everything(pixels, mixing):
    images, labels = pixels
    batch, index = on_batch(mixing, images, labels)
    assert torch.equal(batch.images, to_float(images[index]))
    assert torch.equal(batch.targets.argmax(1), labels[index])


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (v2.TrivialAugmentWide, automatic.TRIVIAL_AUGMENT),
        (v2.RandAugment, automatic.rand_augment_list(16, 12)),
    ],
)
def test_operations_are_torchvisions(pixels, theirs, ours):
    images = to_float(pixels[0][:2])
    transform = theirs()
    for (name, (magnitudes, signed)), operation in zip(
        theirs._AUGMENTATION_SPACE.items(), ours, strict=True
    ):
        for level, sign in ((0, 1), (9, -1), (17, 1), (30, -1)):
            values = magnitudes(31, 16, 12)
            magnitude = 0.0 if values is None else float(values[level]) * (sign if signed else 1)
            expected = transform._apply_image_or_video_transform(
                images, name, magnitude, interpolation=transform.interpolation, fill=transform._fill
            )
            found = operation.apply(
                images, operation.magnitude(torch.full((2,), level), torch.full((2,), sign))
            )
            assert torch.allclose(found, expected, atol=1e-5), (name, level, sign)


def test_autocontrast_is_torchvisions_to_the_bit_and_leaves_a_flat_channel(pixels):
    images = to_float(pixels[0][:2]).clone()
    images[0, 1] = 0.25
    found = operations.autocontrast(images)
    assert torch.equal(found, v2.functional.autocontrast(images))
    assert torch.equal(found[0, 1], images[0, 1])


def test_operations_take_a_magnitude_per_image(pixels):
    images = to_float(pixels[0][:2])
    found = operations.rotate(images, torch.tensor([0.0, 90.0]))
    assert torch.equal(found[0], images[0]) and not torch.equal(found[1], images[1])


def test_a_turn_without_scale_and_shear_is_a_rotation(pixels):
    images = to_float(pixels[0][:2, :, :12])
    quarter = torch.full((2,), 90.0)
    found = operations.turned(images, quarter, torch.zeros(2), torch.ones(2))
    assert torch.allclose(found, operations.rotate(images, quarter), atol=1e-4)
    larger = operations.turned(images, torch.zeros(2), torch.zeros(2), torch.full((2,), 3.0))
    assert torch.allclose(larger[:, :, 4, 4], images[:, :, 5, 5], atol=0.02)


def test_rand_augment_draws_for_each_image(pixels):
    images = pixels[0][:1].expand(32, -1, -1, -1)
    batch, _ = on_batch(countermeasure("randaugment"), images, torch.zeros(32).long(), classes=1)
    assert len(batch.images.unique(dim=0)) > 20
    assert batch.images.min() >= 0 and batch.images.max() <= 1


def test_plasma_is_the_diamond_square_construction():
    noises = []

    class Recorded:
        def uniform(self, shape, low, high):
            generator = torch.Generator().manual_seed(len(noises))
            noises.append(torch.empty(shape).uniform_(low, high, generator=generator))
            return noises[-1]

    found = plasma(torch.Size((1, 1, 5, 4)), torch.tensor([0.6]), Recorded())[0, 0]
    grid = np.full((5, 5), np.nan)
    grid[::4, ::4] = noises[0]
    for level, step in enumerate((4, 2)):
        half, spread = step // 2, 0.6 ** (level + 1)
        middle, rows, stands = (
            spread * noise[0, 0].numpy() for noise in noises[1 + 3 * level :][:3]
        )
        for y in range(half, 5, step):
            for x in range(half, 5, step):
                corners = grid[y - half : y + half + 1 : step, x - half : x + half + 1 : step]
                grid[y, x] = corners.mean() + middle[y // step, x // step]
        for y in range(0, 5, half):
            for x in range(0 if y % step else half, 5, step):
                around = [
                    grid[y + down, x + right]
                    for down, right in ((-half, 0), (half, 0), (0, -half), (0, half))
                    if 0 <= y + down < 5 and 0 <= x + right < 5
                ]
                noise = stands[y // step, x // step] if y % step else rows[y // step, x // step]
                grid[y, x] = np.mean(around) + noise
    grid = grid[:, :4]
    expected = (grid - grid.min()) / (grid.max() - grid.min())
    assert np.allclose(found.numpy(), expected, atol=1e-5)


def test_ueraser_draws_several_times_while_it_should(pixels):
    images, labels = pixels
    for counter, done, draws in (
        (UEraser(), 0.29, 5),
        (UEraser(), 0.3, 1),
        (UEraser(until=1), 0.99, 5),
        (UEraser(draws=1), 0, 1),
    ):
        batch, index = on_batch(counter, images, labels, done=done)
        assert len(batch.images) == draws * 24 and torch.equal(batch.targets, labels[index])
        assert batch.images[0].ne(batch.images[-1]).any()
        assert batch.images.min() >= 0 and batch.images.max() <= 1


def test_the_loss_is_that_of_each_images_worst_draw(pixels):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(12, 3, generator=generator)
    labels = torch.tensor([0, 1, 2, 1])
    each = -logits.log_softmax(1)[torch.arange(12), labels.repeat_interleave(3)]
    assert torch.isclose(cross_entropy(logits, labels), each.view(4, 3).max(1).values.mean())
    soft = nn.functional.one_hot(labels, 3).float()
    assert torch.isclose(cross_entropy(logits, soft), cross_entropy(logits, labels))
    assert torch.isclose(
        cross_entropy(logits[:4], soft), nn.functional.cross_entropy(logits[:4], labels)
    )

    images, labels = pixels
    model = linear()
    run = Run(images, labels, 3)
    run.track(model=model)
    with torch.no_grad():
        expected = [
            nn.functional.cross_entropy(model(x), labels, reduction="none")
            for x in (to_float(images), 1 - to_float(images))
        ]

    def inputs(index):
        x = to_float(images[index])
        return Batch(torch.stack((x, 1 - x), dim=1).flatten(0, 1), labels[index])

    learned = train(run, model, sgd(model), steps=1, batch_size=24, inputs=inputs)
    assert learned["loss"] == pytest.approx(torch.stack(expected).amax(0).mean().item(), rel=1e-5)


@pytest.mark.parametrize(("radius", "norm"), [(8, "Linf"), (0.5, "L2")])
def test_adversarial_examples_are_inside_their_ball_and_worse(pixels, radius, norm):
    images, labels = pixels
    counter = AdversarialTraining(radius, norm)
    model = linear()
    run = Run(images, labels, 3)
    run.track(model=model)
    for index in run.batches(1, 24):
        batch = Batch(to_float(images[index]), labels[index])
        found = counter.on_step(batch, model, run)
        delta = (found.images - batch.images).flatten(1)
        size = delta.abs().amax(1) if norm == "Linf" else delta.norm(dim=1)
        assert (size <= counter.epsilon + 1e-6).all() and (size > 0.8 * counter.epsilon).all()
        assert found.images.min() >= 0 and found.images.max() <= 1
        with torch.no_grad():
            before, after = (
                nn.functional.cross_entropy(model(x.images), x.targets, reduction="none")
                for x in (batch, found)
            )
        assert (after > before).all()
        assert model.training and all(weight.requires_grad for weight in model.parameters())


# --- datasets and starts -------------------------------------------------------------------------


def test_projection_is_orthogonal_to_the_learned_weights(pixels):
    images, labels = pixels
    counter = OrthogonalProjection(epochs=3, min_updates=1)
    weights = counter.regression(images, labels)
    assert weights.shape == (3, 3 * 16 * 12)
    mean = images.flatten(1).float().mean(0)
    flat = images.flatten(1).float() - mean
    directions = torch.linalg.qr(weights.T).Q
    left = without(flat, directions)
    lengths = left.norm(dim=1)[:, None] * weights.norm(dim=1)
    assert ((left @ weights.T).abs() / lengths).max() < 1e-4
    # What is taken away lies in the weights' span.
    coordinates = np.linalg.lstsq(weights.T.numpy(), (flat - left).T.numpy(), rcond=None)[0]
    assert np.allclose(weights.T.numpy() @ coordinates, (flat - left).T.numpy(), atol=0.02)
    found = counter.on_images(images, labels)
    assert (found.flatten(1) - (mean + left).clamp(0, 255)).abs().max() <= 0.5 + 1e-3


def test_projection_learns_as_long_on_few_images(pixels, monkeypatch):
    counted = []

    def counting(*args, epochs, batch_size, **rest):
        counted.append((epochs, batch_size))

    monkeypatch.setattr(projection, "train_surrogate", counting)
    images, labels = pixels
    OrthogonalProjection().regression(images, labels)
    many = images[:1].expand(50_000, -1, -1, -1)
    OrthogonalProjection().regression(many, torch.zeros(50_000, dtype=torch.int64))
    assert counted == [(960, 1024), (20, 1024)]


def test_projection_removes_a_linear_shortcut():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(96) % 3
    marks = torch.randint(0, 2, (3, 3, 8, 8), generator=generator) * 60 - 30
    clean = torch.randint(98, 158, (96, 3, 8, 8), generator=generator)
    protected = (clean + marks[labels]).to(torch.uint8)
    left = OrthogonalProjection().on_images(protected, labels).float()

    def gap(images):
        """How far apart the classes' means are along the marks."""
        means = torch.stack([images[labels == label].mean(0) for label in range(3)])
        difference = (marks[0] - marks[1]).float()
        return ((means[0] - means[1]) * difference).sum() / difference.norm()

    assert gap(left) < 0.2 * gap(protected.float())


@pytest.mark.parametrize("align", ["content", "index"])
@pytest.mark.filterwarnings("ignore:align")
def test_the_unprotected_share_is_exact(shapes, perturbation, align):
    protected = ProtectedDataset(shapes, perturbation, align=align)
    mixed = countermeasure("unprotected-20").on_dataset(protected)
    only = countermeasure("clean-part-only-20").on_dataset(protected)
    clean = torch.from_numpy(shapes.data).permute(0, 3, 1, 2)
    images, labels = mixed.to_tensors()
    untouched = (images == clean).flatten(1).all(1)
    assert untouched.sum() == 8 and labels.tolist() == shapes.targets
    assert torch.equal(images[~untouched], protected.to_tensors()[0][~untouched])
    assert only.indices == untouched.nonzero()[:, 0].tolist() and len(only) == 8
    assert all(only[n] == shapes[index] for n, index in enumerate(only.indices))
    assert protected.fraction == 1 and protected.chosen.all()


def test_the_clean_images_of_a_larger_share_include_those_of_a_smaller(shapes, perturbation):
    protected = ProtectedDataset(shapes, perturbation, fraction=0.9, seed=3)
    ten, five = (
        countermeasure(f"unprotected-{percent}").on_dataset(protected) for percent in (40, 5)
    )
    assert (~ten.chosen).sum() == 16 and (~five.chosen).sum() == 4
    assert (five.chosen | ~ten.chosen).all()


def test_a_share_of_no_image_is_refused(shapes, perturbation):
    few = ProtectedDataset(Subset(shapes, range(20)), perturbation)
    assert (~countermeasure("unprotected-5").on_dataset(few).chosen).sum() == 1
    for name in ("unprotected-2", "clean-part-only-2"):
        with pytest.raises(ValueError, match=f"for {name} to leave one unprotected, got 20"):
            countermeasure(name).on_dataset(few)


def test_only_protected_datasets_have_an_unprotected_share(shapes):
    with pytest.raises(ValueError, match="ProtectedDataset"):
        countermeasure("unprotected-20").on_dataset(shapes)


def small_network():
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=4), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 64, 5)
    )


@pytest.mark.parametrize("victim", ["tiny", small_network()], ids=["name", "module"])
def test_fine_tuning_starts_from_the_pretrained_weights(victim):
    images = torch.zeros(8, 3, 32, 32, dtype=torch.uint8)
    counter = FineTuning(Shapes(size=16), epochs=1)
    models = []
    for seed in range(2):
        run = Run(images, torch.arange(8) % 5, 5, seed=seed)
        model = build_model("tiny", 5, seed=seed) if victim == "tiny" else small_network()
        fresh = {name: weight.clone() for name, weight in model.state_dict().items()}
        counter.on_start(model, victim, run)
        models.append(model.state_dict())
        head = next(reversed(fresh)).rpartition(".")[0]
        for name, weight in model.state_dict().items():
            stays = name.startswith(f"{head}.")
            assert torch.equal(weight, fresh[name]) == stays, name
    body = [name for name in fresh if not name.startswith(f"{head}.")]
    assert all(torch.equal(models[0][name], models[1][name]) for name in body)
    start = Start(counter.dataset, counter.digest, counter.epochs)
    learned = pretrained(victim, start, (3, 32, 32), "cpu", "float32")
    assert all(torch.equal(models[0][name], learned[name]) for name in body)
    assert learned[f"{head}.weight"].shape[0] == 10


def test_pretraining_happens_once(pixels):
    victim, dataset = linear(), Shapes(size=16)
    before = pretrained.cache_info().misses
    for learning_rate in (0.001, 0.01):
        counter = FineTuning(dataset, 1, learning_rate)
        ue.evaluate(
            pixels, pixels, victim, countermeasure=counter, epochs=1, seeds=3, progress=False
        )
    assert pretrained.cache_info().misses == before + 1


def test_fine_tuning_needs_a_layer_to_replace(pixels, monkeypatch):
    def train(*args, **kwargs):
        raise AssertionError("nothing is to be trained")

    monkeypatch.setattr(pretraining, "train_surrogate", train)
    convolutions = nn.Sequential(nn.Conv2d(3, 3, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    for victim in (convolutions, "torchvision:squeezenet1_1"):
        with pytest.raises(ValueError, match="Linear layer"):
            ue.evaluate(
                pixels, pixels, victim, countermeasure=FineTuning(Shapes(size=16), 1), seeds=1,
                device="cpu", progress=False,
            )  # fmt: skip
    for name in MODELS:
        FineTuning().check_victim(name)


class OutOfOrder(nn.Module):
    """The layer that gives the logits is defined before the one that it is used after."""

    def __init__(self, hidden):
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.head = nn.Linear(hidden, 3)
        self.first = nn.Linear(3 * 16 * 12, hidden)

    def forward(self, images):
        return self.head(self.first(self.norm(images).flatten(1)).relu())


class Aside(OutOfOrder):
    """The layer that is defined last is not used."""

    def forward(self, images):
        return self.norm(images).flatten(2).mean(2)


@pytest.mark.parametrize("victim", [OutOfOrder(8), OutOfOrder(10), Aside(8)])
def test_fine_tuning_needs_the_logits_from_the_layer_that_is_defined_last(
    victim, pixels, monkeypatch
):
    monkeypatch.setattr(pretraining, "train_surrogate", None)
    weights = {name: weight.clone() for name, weight in victim.state_dict().items()}
    state = torch.get_rng_state()
    # With 10 hidden features, the wrong layer would fit as a head for the ten classes of Shapes.
    with pytest.raises(ValueError, match=r"last Linear layer outputs the logits.* first, defined"):
        ue.evaluate(
            pixels, pixels, victim, countermeasure=FineTuning(Shapes(size=16), 1), seeds=1,
            device="cpu", progress=False,
        )  # fmt: skip
    assert torch.equal(torch.get_rng_state(), state) and victim.training
    assert all(torch.equal(weight, weights[name]) for name, weight in victim.state_dict().items())


@pytest.mark.parametrize("as_array", [torch.as_tensor, np.asarray], ids=["tensors", "arrays"])
def test_fine_tuning_from_arrays_is_told_apart_by_their_content(pixels, as_array):
    images, labels = pixels

    def tuning(images, labels, **options):
        if as_array is np.asarray:
            images = images.permute(0, 2, 3, 1)
        return FineTuning((as_array(images), as_array(labels)), epochs=1, **options)

    first, copy = tuning(images, labels), tuning(images.clone(), labels.clone())
    assert first == copy and hash(first) == hash(copy) and len({first, copy}) == 1
    assert first.name == copy.name == f"fine-tuning-{first.digest[:8]}"
    assert first.parameters["dataset"] == f"arrays, 24 images, digest {first.digest}"
    assert "24" not in repr(first)
    others = [tuning(255 - images, labels), tuning(images, (labels + 1) % 3), FineTuning(epochs=1)]
    assert len({first, *others}) == len({other.name for other in (first, *others)}) == 4
    assert first != tuning(images, labels, learning_rate=0.1)
    before = pretrained.cache_info().misses
    victim = linear()
    for counter in (first, copy):
        found = ue.evaluate(
            pixels, pixels, victim, countermeasure=counter, epochs=1, seeds=1, device="cpu",
            progress=False,
        )  # fmt: skip
    assert pretrained.cache_info().misses == before + 1 and found.countermeasure == first.name


# --- in evaluations ------------------------------------------------------------------------------


class Recorder(Countermeasure):
    """Writes down where it is called, and does nothing."""

    name = "recorder"
    description = "a victim that is watched"
    learning_rate = 0.0

    def __init__(self, test_images=False):
        self.test_images = test_images
        self.calls = []

    def on_dataset(self, dataset):
        self.calls.append("dataset")
        return dataset

    def on_images(self, images, labels):
        self.calls.append(f"images {len(images)}")
        return images

    def on_start(self, model, victim, run):
        self.calls.append("start")

    def on_batch(self, batch, run, done):
        self.calls.append(f"batch {done}")
        return batch

    def on_step(self, batch, model, run):
        self.calls.append("step")
        return batch


def test_every_hook_has_its_place(pixels):
    images, labels = pixels
    recorder = Recorder()
    found = ue.evaluate(
        pixels, (images[:8], labels[:8]), linear(), countermeasure=recorder, epochs=2, seeds=2,
        progress=False,
    )  # fmt: skip
    training = ["start", "batch 0.0", "step", "batch 0.5", "step"]
    assert recorder.calls == ["dataset", "images 24", *training, *training]
    assert found.countermeasure == "recorder" and "recorder" in str(found)
    assert all(curve[0] == curve[1] for curve in found.curves)  # a learning rate of 0
    recorder = Recorder(test_images=True)
    ue.evaluate(
        pixels, (images[:8], labels[:8]), linear(), countermeasure=recorder, epochs=1, seeds=1,
        progress=False,
    )  # fmt: skip
    assert recorder.calls[1:3] == ["images 24", "images 8"]


@pytest.mark.parametrize("name", COUNTERMEASURES)
@pytest.mark.slow
def test_victims_follow_from_their_seed_and_leave_the_global_state_alone(
    name, shapes, perturbation
):
    protected = ProtectedDataset(shapes, perturbation)
    short = {
        "fine-tuning": FineTuning(Shapes(size=16), 1),
        "leaked-pairs-500": LeakedPairs(steps=2),
    }
    counter = short.get(name) or countermeasure(name)
    victim = nn.Sequential(nn.Conv2d(3, 4, 3, stride=4), nn.Flatten(), nn.Linear(4 * 64, 10))
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    first, again = (
        ue.evaluate(
            protected, shapes, victim, countermeasure=counter, epochs=1, seeds=1, batch_size=16,
            device="cpu", progress=False,
        )
        for _ in range(2)
    )  # fmt: skip
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002
    assert first.losses == again.losses and first.countermeasure == counter.name
    assert json.loads(json.dumps(first.to_dict()))["parameters"] == counter.parameters


def test_grey_images_can_be_evaluated_under_all(tensors):
    images, labels = tensors[0][:, :1], tensors[1]
    for name in COUNTERMEASURES:
        if name == "fine-tuning" or countermeasure(name).needs_clean_images:
            continue
        found = ue.evaluate(
            (images, labels), (images, labels), linear(64), countermeasure=name, epochs=1, seeds=1,
            device="cpu", progress=False,
        )  # fmt: skip
        assert found.losses[0][0] > 0


NAMED = [
    JPEG(10, test_images=True),
    Displacement(test_images=True),
    Grayscale(),
    BitDepth(3, test_images=True),
    MeanFilter(test_images=True),
    ChannelNormalization(test_images=False),
    WithinBudget(MedianFilter(), 4),
    WithinBudget(GaussianBlur(), 4),
    Unprotected(12.5),
    ShiftNoise(2.5),
    ShiftAdversarialTraining(4, shift=12.5),
    AdversarialTraining(2_000_000),
    AdversarialTraining(5e-5, "L2", 3),
    AdversarialTraining(0.12345678, "L2"),
]


@pytest.mark.parametrize("counter", NAMED, ids=str)
def test_names_say_what_is_processed_and_by_how_much(counter):
    assert countermeasure(counter.name) == counter
    usual = counter.name.removesuffix("-everywhere").removesuffix("-training-only")
    assert usual == counter.name or countermeasure(usual) != counter
    every = getattr(counter, "test_images", False) and not counter.name.startswith("channel")
    assert ("that it sees" in counter.description) == every


@pytest.mark.parametrize("name", ["cutmix-everywhere", "ueraser-within-4", "-everywhere"])
def test_only_filters_are_of_all_images_or_within_a_budget(name):
    with pytest.raises(ValueError, match="expected a countermeasure out of"):
        countermeasure(name)


@pytest.mark.parametrize(
    "make",
    [
        lambda: FineTuning(learning_rate=0),
        lambda: FineTuning(learning_rate=-1),
        lambda: FineTuningImageNet(learning_rate=-0.1),
        lambda: LinearProbeImageNet(weight_decay=-1e-3),
    ],
)
def test_rates_and_decays_that_learn_nothing_are_refused(make):
    with pytest.raises(ValueError, match=r"expected a (learning rate above|weight decay of)"):
        make()


def test_grey_stays_as_it_is_in_grey(pixels):
    levels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(1, 3, 16, 16)
    assert torch.equal(Grayscale().on_images(levels.contiguous(), torch.zeros(1)), levels)
    found = Grayscale().on_images(pixels[0].clone(), pixels[1])
    for image, grey in zip(pixels[0], found, strict=True):
        expected = np.asarray(Image.fromarray(image.permute(1, 2, 0).numpy()).convert("L"))
        assert np.array_equal(grey.numpy(), np.stack([expected] * 3))


# Others start from weights, or need a set of images.
ANY_SIZE = [
    name
    for name in sorted(examples())
    if not name.startswith(("fine-tuning", "linear-probe", "leaked", "unprotected", "clean-part"))
]


@pytest.mark.parametrize("shape", [(3, 1, 1), (1, 2, 2), (3, 1, 9), (3, 2, 5)], ids=str)
@pytest.mark.parametrize("name", ANY_SIZE)
def test_images_may_be_tiny(name, shape):
    counter = countermeasure(name)
    images = torch.randint(0, 256, (6, *shape), dtype=torch.uint8)
    found = counter.on_images(images.clone(), labels := torch.arange(6) % 3)
    assert found.shape == images.shape and found.dtype == torch.uint8
    seen, _ = on_batch(counter, found, labels)
    assert seen.images.shape[1:] == images.shape[1:] and seen.images.isfinite().all()


def test_a_distance_below_0_is_refused():
    with pytest.raises(ValueError, match="a distance of at least 0, got -1"):
        Displacement(-1)


def test_a_filter_of_ones_own_may_name_itself():
    class Inverted(Filter):
        name = "inverted"
        description = "a victim that inverts its training images"

        def _filter(self, images):
            return 255 - images

    counter = Inverted()
    assert (str(counter), counter.description[:15]) == ("inverted", "a victim that i")
    assert int(counter.on_images(torch.full((2, 1, 3, 3), 5, dtype=torch.uint8), None).max()) == 250
