"""MIUE: its loss by its definition, its features from any network, its batches and new images."""

import sys

import numpy as np
import pytest
import torch
from test_contract import HERE, run_script
from test_methods import make_run
from torch import nn
from torch.nn import functional as F

import unlearnable as ue
from unlearnable.datasets import Shapes
from unlearnable.engine.distributed import Group
from unlearnable.engine.features import WithExamples, features_of
from unlearnable.engine.models import MODELS, build_model
from unlearnable.engine.run import Run
from unlearnable.engine.sampler import Shards
from unlearnable.engine.train import to_float
from unlearnable.methods.miue import first_of_each, information_loss

QUIET = {"device": "cpu", "precision": "float32", "progress": False}
SMALL = {"train_epochs": 2, "steps": 2, "batch_size": 16, "extend_steps": 4}
WEIGHTS = {"temperature": 0.1, "distance_weight": 0.1}


def fitted(size=40, **options):
    return ue.MIUE.preset("demo", **(SMALL | options)).fit(Shapes(size=size), **QUIET)


def by_loops(features, labels, others, their_labels, itself):
    """The published loss, term by term."""
    features, others = features.double(), others.double()
    total = torch.zeros((), dtype=torch.float64)
    for z, label in zip(features, labels, strict=True):
        compared = [*zip(others, their_labels, strict=True), *([(z, label)] if itself else [])]
        above = below = distances = 0.0
        for other, their_label in compared:
            power = torch.exp(F.cosine_similarity(z, other, dim=0) / 0.1)
            below = below + power
            if label == their_label:
                above = above + power
                if not torch.equal(z, other):  # where a distance has no gradient
                    distances = distances + (z - other).norm()
        total = total - torch.log(above / below)
        total = total + 0.1 * torch.log(torch.as_tensor(1 + distances / len(z)))
    return total / len(features)


def some_features(count=12, width=7, scale=1.0):
    generator = torch.Generator().manual_seed(0)
    return (scale * torch.randn(count, width, generator=generator)).requires_grad_()


@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_the_loss_is_the_double_loops(scale):
    features, labels = (
        some_features(scale=scale),
        torch.tensor([0, 0, 0, 1, 1, 1, 2, 2, 2, 2, 4, 0]),
    )
    found = information_loss(features, labels, features, labels, num_classes=5, **WEIGHTS)
    expected = by_loops(features, labels, features, labels, itself=False)
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    slopes = [torch.autograd.grad(loss, features)[0] for loss in (found, expected)]
    torch.testing.assert_close(*slopes, rtol=1e-4, atol=1e-6)


def test_the_loss_beside_other_images_is_the_double_loops_with_the_image_itself():
    features, others = some_features(4), some_features(9).detach() + 0.1
    labels, theirs = torch.tensor([0, 1, 1, 3]), torch.arange(9) % 3
    found = information_loss(features, labels, others, theirs, num_classes=5, **WEIGHTS)
    expected = by_loops(features, labels, others, theirs, itself=True)
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    slopes = [torch.autograd.grad(loss, features)[0] for loss in (found, expected)]
    torch.testing.assert_close(*slopes, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("what", ["zeros", "twins", "near"])
def test_features_that_are_alike_have_a_finite_gradient(what):
    features = torch.zeros(6, 5) if what == "zeros" else torch.full((6, 5), 3.0)
    if what == "near":
        features += 1e-4 * some_features(6, 5).detach()
    features.requires_grad_()
    labels = torch.arange(6) % 2
    loss = information_loss(features, labels, features, labels, num_classes=2, **WEIGHTS)
    (slope,) = torch.autograd.grad(loss, features)
    assert loss.isfinite() and slope.isfinite().all()
    if what == "near":
        expected = by_loops(features, labels, features, labels, itself=False)
        assert loss.item() == pytest.approx(expected.item(), rel=1e-4)


def test_the_loss_is_the_same_under_autocast():
    features, labels = some_features(), torch.arange(12) % 3
    plain = information_loss(features, labels, features, labels, num_classes=3, **WEIGHTS)
    with torch.autocast("cpu", torch.bfloat16):
        found = information_loss(features, labels, features, labels, num_classes=3, **WEIGHTS)
    assert torch.equal(plain, found)


# --- features ------------------------------------------------------------------------------------


class Head(nn.Module):
    """A caller's own, whose head is not its last module."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(6, 10)
        self.body = nn.Sequential(
            nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        )

    def forward(self, images):
        return self.head(self.body(images))


def with_statistics(model):
    """With running statistics that are not those of a new network."""
    generator = torch.Generator().manual_seed(0)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.1, generator=generator)
            layer.running_var.uniform_(0.5, 2, generator=generator)
    return model


@pytest.mark.parametrize("name", ["tiny", "tiny-resnet", "resnet9", "vit-small", "own", "linear"])
def test_features_of_a_folded_network_are_its_own(name):
    own = {"own": Head, "linear": lambda: nn.Sequential(nn.Flatten(), nn.Linear(3072, 10))}
    model = with_statistics(own[name]() if name in own else build_model(name, 10)).eval()
    images = to_float(torch.from_numpy(Shapes(size=4).data).permute(0, 3, 1, 2))
    seen = []
    hook = [layer for layer in model.modules() if isinstance(layer, nn.Linear)]
    head = next(layer for layer in hook if layer.out_features == 10)
    handle = head.register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0]))
    model(images)
    handle.remove()
    found = []
    for memory in (None, 200_000):  # whole, and in parts
        pixels = (255 * images).round().to(torch.uint8)
        run = Run(pixels, torch.arange(4), 10, memory=memory)
        run.place(model)
        leaf = images.clone().requires_grad_()
        with run.frozen(model) as network:
            features = features_of(network, leaf)
            found.append((features, *torch.autograd.grad(features.square().sum(), leaf)))
        run.close()
    torch.testing.assert_close(found[0][0], seen[0].flatten(1), rtol=1e-3, atol=1e-4)
    (whole, gradient), (parts, in_parts) = found
    torch.testing.assert_close(parts, whole, rtol=1e-3, atol=1e-4)
    # Which of two almost equal values is the largest of a pool is up to rounding.
    largest = gradient.abs().max().item()
    torch.testing.assert_close(in_parts, gradient, rtol=1e-3, atol=2e-4 * max(1, largest))


def test_a_compiled_network_shows_its_features_too():
    model = Head().eval()
    images = torch.rand(2, 3, 8, 8)
    expected = features_of(model, images)
    model.forward = torch.compile(model.forward, backend="eager")
    model(images)
    assert torch.equal(features_of(model, images), expected)


def test_every_network_of_the_package_has_features():
    with torch.device("meta"):
        for name in MODELS:
            assert features_of(build_model(name, 10), torch.rand(2, 3, 32, 32)).shape[0] == 2


def test_a_network_without_a_linear_layer_is_refused_before_it_is_trained():
    model = nn.Sequential(nn.Conv2d(3, 10, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(ValueError, match=r"with a Linear layer.*got a Sequential without"):
        ue.MIUE(model, train_epochs=10**6).fit(Shapes(size=16), **QUIET)


# --- batches -------------------------------------------------------------------------------------


def batches_of(groups, batch_size, sweep=0, **options):
    shards = Shards(len(groups), **options)
    length = shards.sweep_length(batch_size)
    positions = range(sweep * length, (sweep + 1) * length)
    return [torch.cat(shards.mixed("a", at, batch_size, groups)) for at in positions]


GROUPS = {
    "in order": torch.arange(1003) // 101,
    "in turn": torch.arange(1003) % 10,
    "many": torch.arange(1003) // 5,
    "many in turn": torch.arange(1003) % 200,
    "one for each shard": torch.arange(1003) % 8,
    "uneven": (torch.arange(1003).float().sqrt() / 3).long(),
    "one": torch.zeros(1003, dtype=torch.int64),
}


@pytest.mark.parametrize("name", GROUPS)
@pytest.mark.parametrize("batch_size", [16, 100, 512, 2000])
def test_a_mixed_sweep_holds_every_image_once_in_batches_alike_in_size(name, batch_size):
    found = batches_of(GROUPS[name], batch_size)
    assert torch.cat(found).sort().values.tolist() == list(range(1003))
    sizes = [len(batch) for batch in found]
    assert max(sizes) <= max(8, batch_size) and max(sizes[:-1], default=0) - min(sizes) <= 120
    again = batches_of(GROUPS[name], batch_size, sweep=1)
    assert torch.cat(again).sort().values.tolist() == list(range(1003))
    assert [batch.tolist() for batch in again] != [batch.tolist() for batch in found]


@pytest.mark.parametrize("name", GROUPS)
@pytest.mark.parametrize("batch_size", [100, 512])
def test_images_of_a_mixed_batch_have_companions(name, batch_size):
    groups, alone = GROUPS[name], []
    for batch in batches_of(groups, batch_size):
        counts = groups[batch].bincount(minlength=200)
        alone.append((counts == 1).sum() / len(batch))
    assert np.mean(alone) < 0.1


@pytest.mark.parametrize("name", ["in order", "in turn"])
def test_few_groups_are_all_in_every_batch_in_proportion(name):
    for batch in batches_of(GROUPS[name], 256):
        counts = GROUPS[name][batch].bincount(minlength=10).float() / len(batch)
        assert counts.min() > 0.05 and counts.max() < 0.16


def test_mixed_batches_are_the_same_for_any_number_of_processes():
    groups = GROUPS["uneven"]
    alone = Shards(1003)
    for size in (2, 3, 8):
        parts = [Shards(1003, group=Group(rank, size)) for rank in range(size)]
        for at in range(7):
            expected = alone.mixed("a", at, 200, groups)
            found = [shard for part in parts for shard in part.mixed("a", at, 200, groups)]
            assert all(map(torch.equal, found, expected))


def test_a_mixed_sweep_goes_on_where_a_run_stopped(tmp_path):
    from test_engine import make_run as run_with

    def batches(run, most=99):
        found = []
        for _ in run.steps(3):
            for index in run.mixed(torch.arange(100) % 5, 32):
                found.append(index.tolist())
                if len(found) == most:
                    return found
        return found

    expected = batches(run_with(100))
    assert len(expected) == 12 and len({tuple(batch) for batch in expected}) == 12
    begun = batches(run_with(100, folder=tmp_path), most=6)
    assert begun == expected[:6]
    assert batches(run_with(100, folder=tmp_path)) == expected[5:]


def test_gathered_values_of_processes_stand_in_order_and_keep_their_own_gradient(tmp_path):
    run_script(sys.executable, str(HERE / "fit_everything.py"), "gather", str(tmp_path))
    for rank, slope in enumerate(([[0.0, 0.0]], [[1.0, 1.0], [2.0, 2.0]], np.zeros((0, 2)))):
        loaded = np.load(tmp_path / f"{rank}.npz")
        assert loaded["found"].tolist() == [[0, 0], [1, 1], [1, 1]]
        assert np.array_equal(loaded["slope"], slope)


# --- the method ----------------------------------------------------------------------------------


def test_steps_change_in_length_from_epoch_to_epoch():
    method = ue.MIUE()
    expected = [0.4 + (100 - e + 1) / 100 * (0.2 - 0.4) for e in (1, 50, 100)]
    found = [255 * method._step_size_after(e) for e in (1, 50, 100)]
    assert found == pytest.approx(expected) and found[0] == pytest.approx(0.2)


def test_a_step_is_along_the_sign_of_the_gradient_of_the_whole_batch():
    method = ue.MIUE(Head(), train_epochs=1, steps=1, pretrained_surrogate=True)
    run, model = make_run(), Head().eval()
    index = next(run.mixed(run.labels, 16))
    images, labels = to_float(run.images[index]), run.labels[index]
    leaf = images.clone().requires_grad_()
    features = features_of(model, leaf)
    loss = by_loops(features, labels, features, labels, itself=False)
    (slope,) = torch.autograd.grad(loss, leaf)
    expected = (images - 0.4 / 255 * slope.float().sign()).clamp(0, 1) - images

    def of(features):
        return method._loss(run, features, labels, features, labels)

    found = method._descend(run, index, model, of, torch.zeros_like(images), 0.4 / 255, 1)
    assert (found != expected).float().mean() < 0.01


def test_features_of_a_class_become_alike():
    dataset = Shapes(size=64)
    method = ue.MIUE.preset("demo", train_epochs=3, batch_size=32).fit(dataset, **QUIET)
    model = method.surrogate_.network
    losses = []
    for pixels in (torch.from_numpy(dataset.data), method.protect(dataset).to_tensors()[0]):
        pixels = pixels if pixels.shape[1] == 3 else pixels.permute(0, 3, 1, 2)
        features = features_of(model, to_float(pixels)).detach()
        labels = torch.tensor(dataset.targets)
        losses.append(
            information_loss(features, labels, features, labels, num_classes=10, **WEIGHTS)
        )
    assert losses[1] < 0.9 * losses[0]


def test_the_stated_passes_are_those_made():
    method = fitted(search_batch_size=16)
    assert method.perturbation_.config["history"]["passes"] == method.passes(40)


def test_the_surrogate_holds_the_features_of_protected_images():
    method = fitted(size=70, search_batch_size=32)
    surrogate, dataset = method.surrogate_, Shapes(size=70)
    assert isinstance(surrogate, WithExamples)
    labels = torch.tensor(dataset.targets)
    chosen = first_of_each(labels, 4)
    assert labels[chosen].bincount().max() == 4
    assert torch.equal(surrogate.labels, labels[chosen])
    images = to_float(method.protect(dataset).to_tensors()[0][chosen])
    torch.testing.assert_close(
        surrogate.features, features_of(surrogate.network, images), rtol=1e-3, atol=1e-4
    )
    logits = surrogate(images)
    assert torch.equal(logits, surrogate.network(images))


def test_a_new_image_has_the_row_it_has_alone():
    method, new = fitted(), Shapes(size=9, seed=5)
    together = method.extend(new, device="cpu", progress=False).rows
    assert np.abs(together).max() > 2
    alone = method.extend(torch.utils.data.Subset(new, [3]), device="cpu", progress=False).rows
    assert np.abs(alone[0].astype(int) - together[3]).max() <= 1
    assert (alone[0] == together[3]).mean() > 0.98


def test_new_images_come_to_features_like_those_of_their_class():
    method, new = fitted(size=64, train_epochs=3, extend_steps=20), Shapes(size=20, seed=5)
    rows = method.extend(new, device="cpu", progress=False).rows[:]
    clean = to_float(torch.from_numpy(new.data).permute(0, 3, 1, 2))
    losses = [
        method._loss(
            make_run_of(10),
            features_of(method.surrogate_, images).detach(),
            torch.tensor(new.targets),
            method.surrogate_.features,
            method.surrogate_.labels,
        )
        for images in (clean, clean + torch.from_numpy(rows.astype(np.float32)) / 255)
    ]
    assert losses[1] < losses[0]


def make_run_of(classes):
    run = make_run()
    run.num_classes = classes
    return run


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0}, "temperature above 0"),
        ({"distance_weight": -1}, "distance_weight from 0"),
        ({"search_batch_size": 0}, "search_batch_size"),
        ({"steps": 1, "first_step_size": 0.2 / 255}, "above half a pixel level"),
        ({"granularity": "class-wise"}, "sample-wise"),
    ],
)
def test_bad_parameters_are_explained(options, message):
    with pytest.raises(ValueError, match=message):
        ue.MIUE("tiny", **options).fit(Shapes(size=16), **QUIET)
