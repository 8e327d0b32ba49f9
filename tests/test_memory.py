"""Batches that are too large to keep whole: less of them is kept, and the result is the same."""

import contextlib
import gc
import weakref

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import unlearnable as ue
from unlearnable.datasets import Shapes
from unlearnable.engine import allocator, memory
from unlearnable.engine.memory import bytes_per_image, saved_bytes
from unlearnable.engine.models import Ensemble, build_model
from unlearnable.engine.run import Run
from unlearnable.engine.train import sgd, to_float

CPU = torch.device("cpu")
SMALL = 400_000  # bytes; a batch of the networks here keeps more


def make_run(limit=None, size=32, side=32, **options):
    shapes = Shapes(size=size, side=side)
    images = torch.from_numpy(shapes.data).permute(0, 3, 1, 2).contiguous()
    return Run(images, torch.tensor(shapes.targets), 10, memory=limit, **options)


def kept_at_once(call, *args):
    """The most bytes that ``call`` kept for gradients at once, and what it returns.

    What is computed a second time is not counted.
    """
    alive, most = {}, [0]

    class Kept:
        def __init__(self, tensor):
            self.tensor = tensor
            key = tensor.untyped_storage().data_ptr()
            alive.setdefault(key, [0, tensor.untyped_storage().nbytes()])[0] += 1
            most[0] = max(most[0], sum(size for _, size in alive.values()))
            self.key = key

        def __del__(self):
            alive[self.key][0] -= 1
            if not alive[self.key][0]:
                del alive[self.key]

    with torch.autograd.graph.saved_tensors_hooks(Kept, lambda kept: kept.tensor):
        found = call(*args)
    return most[0], found


def searched(run, model, images, labels, sizes):
    """A search's gradient and logits; ``sizes`` gets those of the batches that go through."""
    leaf = images.clone().requires_grad_()
    with run.frozen(model) as network:
        first = next(network.children())
        first.register_forward_pre_hook(lambda layer, inputs: sizes.append(len(inputs[0])))
        (slope,) = torch.autograd.grad(
            F.cross_entropy(network(leaf), labels, reduction="sum"), leaf
        )
        with torch.no_grad():
            return slope, network(images)


@pytest.mark.parametrize("name", ["tiny", "resnet9"])
def test_a_search_in_parts_finds_the_gradient_of_the_whole_batch(name):
    found = []
    for limit in (None, 20 * SMALL):
        run, model = make_run(limit), build_model(name, 10)
        run.track(surrogate=model)
        images = to_float(run.images)
        sizes = []
        kept, values = kept_at_once(searched, run, model, images, run.labels, sizes)
        found.append((kept, values, run.passes, max(sizes)))
        run.close()
    each = bytes_per_image(build_model(name, 10), images)
    whole, parts = found
    torch.testing.assert_close(parts[1], whole[1], rtol=1e-3, atol=1e-5)
    assert parts[2] == whole[2]  # what is computed anew counts once
    assert parts[0] < whole[0] / 4
    assert whole[3] == 32 and parts[3] * each < 20 * SMALL / 4


def test_small_batches_go_through_whole(monkeypatch):
    run, model = make_run(10**9), build_model("tiny", 10)
    run.track(surrogate=model)
    calls = []
    monkeypatch.setattr("unlearnable.engine.frugal.in_parts", calls.append)
    monkeypatch.setattr("unlearnable.engine.frugal.checkpoint_blocks", calls.append)
    searched(run, model, to_float(run.images), run.labels, [])
    run.train_step(model, sgd(model), lambda net: net(to_float(run.images)).square().mean())
    assert not calls
    run.close()
    assert "forward" not in vars(model)


class Residual(nn.Module):
    """Random and counting layers in a block, and a forward of its own."""

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(8, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8, momentum=None)
        self.drop = nn.Dropout2d(0.5)

    def forward(self, x):
        return x + self.drop(self.norm(self.convolution(x)).relu_())


def callers_own():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), Residual(), Residual(), Residual(), Residual(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 10),
    )  # fmt: skip


NETWORKS = {
    "tiny": lambda: build_model("tiny", 10),
    "tiny-resnet": lambda: build_model("tiny-resnet", 10),
    "a caller's own": callers_own,
}


def trained(make, limit):
    run, model = make_run(limit), make()
    optimizer = sgd(model)
    run.track(surrogate=model, optimizer=optimizer)

    def learn():
        for index in run.batches(3, 32):
            run.train_step(
                model,
                optimizer,
                lambda net, index=index: F.cross_entropy(
                    net(to_float(run.images[index])), run.labels[index]
                ),
            )
        return {name: value.clone() for name, value in model.state_dict().items()}

    kept, state = kept_at_once(learn)
    passes = run.passes
    run.close()
    assert not any("forward" in vars(module) for module in model.modules())
    return kept, state, passes


@pytest.mark.parametrize("name", NETWORKS)
def test_training_that_keeps_less_ends_with_the_same_network(name):
    whole, expected, passes = trained(NETWORKS[name], None)
    less, found, counted = trained(NETWORKS[name], SMALL)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert counted == passes
    assert less < 0.75 * whole


def test_features_of_a_large_batch_are_those_of_all_its_images():
    found = []
    for limit in (None, SMALL):
        run, ensemble = make_run(limit), Ensemble(build_model("tiny", 10), 2)
        run.place(ensemble)
        leaf = to_float(run.images).requires_grad_()
        with run.frozen(ensemble) as network:
            features = network.features_of(leaf, 1)
            (slope,) = torch.autograd.grad(features.square().sum(), leaf)
        found.append((features, slope))
        run.close()
    assert found[0][0].shape == (32, 384)
    torch.testing.assert_close(found[1], found[0], rtol=1e-3, atol=1e-5)


def test_members_of_an_ensemble_count_one_at_a_time():
    images, network = torch.rand(2, 3, 32, 32), build_model("tiny", 10)
    assert bytes_per_image(Ensemble(network, 3), images) == bytes_per_image(network, images)


class BatchDependent(nn.Module):
    """In evaluation, too, every image is seen beside the others."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, track_running_stats=False), nn.ReLU(),
            nn.Flatten(), nn.Linear(7200, 10),
        )  # fmt: skip

    def forward(self, images):
        return self.layers(images)


def test_images_that_depend_on_one_another_are_not_taken_apart():
    run, model, sizes = make_run(SMALL), BatchDependent(), []
    run.track(surrogate=model)
    searched(run, model, to_float(run.images), run.labels, sizes)
    run.close()
    assert set(sizes) == {32}


class Forgetful(Residual):
    """A block that gives something else when it is computed a second time."""

    calls = 0

    def forward(self, x):
        self.calls += torch.is_grad_enabled() and self.training
        return super().forward(x) * self.calls


def test_blocks_that_cannot_be_computed_again_are_kept_whole():
    torch.manual_seed(0)
    model = callers_own()
    for block in (1, 2, 3, 4):
        model[block] = Forgetful()
    run = make_run(SMALL)
    run.track(surrogate=model)
    run.train_step(model, sgd(model), lambda net: net(to_float(run.images)).square().mean())
    assert not any("forward" in vars(module) for module in model.children())
    run.close()


def test_the_usual_limit_is_an_eighth_of_the_machine_or_half_of_what_is_free(monkeypatch):
    monkeypatch.setattr(memory, "memory_of_host", lambda: 16 << 30)
    for free, limit in ((12 << 30, 2 << 30), (2 << 30, 1 << 30)):
        monkeypatch.setattr(memory, "_free_on_host", lambda free=free: free)
        assert memory.usual_limit(torch.device("cpu")) == limit
        assert memory.usual_limit(torch.device("cpu"), 4) == limit / 4
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (10 << 30, 80 << 30))
    assert memory.usual_limit(torch.device("cuda"), 4) == 5 << 30


@pytest.mark.skipif(not allocator._is_glibc(), reason="only glibc has mallopt")
@pytest.mark.parametrize(
    ("training", "limit", "kept"),
    [
        (False, 1 << 30, True),
        (False, 400_000, False),  # its images take more than a sixteenth
        (True, 1 << 30, True),
        (True, 400_000, False),
    ],
)
def test_freed_memory_is_not_kept_where_batches_are_large(training, limit, kept):
    before = allocator._open
    with contextlib.closing(make_run(limit)) as run:
        model = build_model("tiny", 10)
        optimizer = sgd(model)
        run.track(model=model, optimizer=optimizer)
        assert allocator._open == before + 1
        images, labels = to_float(run.images), run.labels
        if training:
            run.train_step(model, optimizer, lambda net: F.cross_entropy(net(images), labels))
        else:
            searched(run, model, images, labels, [])
        assert allocator._open == before + kept
    assert allocator._open == before


def living_tensors():
    gc.collect()
    return sum(issubclass(type(found), torch.Tensor) for found in gc.get_objects())


def test_what_was_counted_is_released():
    network, images = build_model("tiny", 10), torch.rand(2, 3, 32, 32)
    saved_bytes(network, images)
    assert bytes_per_image(network, images) > 0
    weight = weakref.ref(next(network.parameters()))
    del network
    gc.collect()
    assert weight() is None


def test_a_second_fit_leaves_no_more_tensors_than_the_first():
    counts = []
    for _ in range(3):
        method = ue.SEM.preset("demo", train_steps=4, batch_size=16)
        method.fit(Shapes(size=64), device="cpu", progress=False)
        del method
        counts.append(living_tensors())
    assert counts[2] == counts[1]
