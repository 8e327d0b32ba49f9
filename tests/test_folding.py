"""Networks for searches: BatchNorm in the convolutions, weights of the run's precision."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from unlearnable.datasets import Shapes
from unlearnable.engine.folding import FoldedNetwork, foldable
from unlearnable.engine.models import MODELS, Ensemble, build_model
from unlearnable.engine.run import Run
from unlearnable.engine.train import sgd, to_float, train

FEW = {"resnet50", "wrn28-10", "densenet121"}  # large, and made of the same parts as others


def folded_of(model, size=32, low_precision=False):
    """What a search would run on."""
    kind = next(model.parameters()).dtype
    sample = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(7)).to(kind)
    found = FoldedNetwork(model, sample, low_precision=low_precision).refreshed()
    assert found is not model
    return found


def lively(model):
    """A network whose statistics and scales are not those of the start."""
    generator = torch.Generator().manual_seed(0)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.3, generator=generator)
            layer.running_var.uniform_(0.5, 2, generator=generator)
            with torch.no_grad():
                layer.bias.normal_(0, 0.2, generator=generator)
    return model.eval()


@pytest.mark.parametrize("name", sorted(MODELS.keys() - FEW))
@pytest.mark.slow
def test_a_folded_network_gives_the_same_logits_and_gradients(name):
    model = lively(build_model(name, 10)).double()  # in which no rounding is amplified
    folded = folded_of(model)
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(2, 3, 32, 32, generator=generator, dtype=torch.float64)
    slopes = []
    for network in (model, folded):
        leaf = images.clone().requires_grad_()
        network(leaf).square().sum().backward()
        slopes.append(leaf.grad)
    torch.testing.assert_close(folded(images), model(images))
    torch.testing.assert_close(slopes[1] / slopes[0].norm(), slopes[0] / slopes[0].norm())


@pytest.mark.parametrize("name", ["tiny", "tiny-resnet", "resnet9", "resnet18", "vgg16"])
def test_every_norm_after_a_convolution_is_folded(name):
    model = build_model(name, 10)
    norms = [name for name, layer in model.named_modules() if isinstance(layer, nn.BatchNorm2d)]
    assert sorted(pair.norm for pair in foldable(model)) == sorted(norms)
    folded = folded_of(model)
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in folded.modules())


class Net(nn.Module):
    """conv, norm and a head; subclasses do something unusual with them."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 10)

    def features(self, images):
        return self.norm(self.conv(images))

    def forward(self, images):
        return self.head(self.features(images).relu().mean((2, 3)))


class UsedTwice(Net):
    def features(self, images):
        return self.norm(self.conv(images)) + self.norm(self.conv(1 - images))


class ReadElsewhere(Net):
    def features(self, images):
        seen = self.conv(images)
        return self.norm(seen) + seen


class WeightsRead(Net):
    def features(self, images):
        return self.norm(self.conv(images)) + F.conv2d(images, self.conv.weight, padding=1)


class TwoNames(Net):
    def __init__(self):
        super().__init__()
        self.block = nn.Sequential(self.conv, self.norm)

    def features(self, images):
        return self.block(images)


class Tied(Net):
    def __init__(self):
        super().__init__()
        self.other, self.second = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.other.weight = self.conv.weight

    def features(self, images):
        return self.norm(self.conv(images)) + self.second(self.other(1 - images))


class Activated(nn.BatchNorm2d):
    def forward(self, x):
        return super().forward(x).relu() - 1


class Subclass(Net):
    def __init__(self):
        super().__init__()
        self.norm = Activated(4)


class Hooked(Net):
    def __init__(self):
        super().__init__()
        self.norm.register_forward_hook(lambda layer, inputs, output: 2 * output)


class Pooled(Net):
    """The sign of a trained scale decides what a maximum before it gives."""

    def features(self, images):
        return self.norm(F.max_pool2d(self.conv(images), 2))


class Normed(Net):
    def __init__(self):
        super().__init__()
        self.conv = nn.utils.parametrizations.weight_norm(self.conv)


class Branching(Net):
    def features(self, images):
        return super().features(images) if images.mean() > 0 else self.conv(images)


class ByKeyword(Net):
    def features(self, images):
        return self.norm(input=self.conv(input=images))


UNUSUAL = [
    UsedTwice, ReadElsewhere, WeightsRead, TwoNames, Tied, Subclass, Hooked, Pooled, Normed,
    Branching, ByKeyword,
]  # fmt: skip


@pytest.mark.parametrize("kind", UNUSUAL)
def test_what_is_unusual_is_not_folded_wrongly(kind):
    model = lively(kind())
    folded = folded_of(model, 8)
    images = torch.rand(2, 3, 8, 8)
    torch.testing.assert_close(folded(images), model(images))
    with torch.no_grad():  # as training may change them
        model.norm.weight[0] = -1
        model.norm.running_mean += 1
        model.head.weight.data += 0.1
    refreshed = FoldedNetwork(model, images, low_precision=False)
    assert refreshed.pairs == []
    torch.testing.assert_close(refreshed.refreshed()(images), model(images))


def test_the_plain_network_of_these_is_folded_and_follows_any_change():
    model = lively(Net())
    images = torch.rand(2, 3, 8, 8)
    found = FoldedNetwork(model, images, low_precision=False)
    assert found.pairs == [("conv", "norm")]
    with torch.no_grad():
        model.norm.weight[0] = -1
        model.norm.running_mean += 1
    model.conv.weight.data += 0.1  # without a trace in the tensor's version
    torch.testing.assert_close(found.refreshed()(images), model(images))


class Stubborn(Net):
    """Runs a layer in float32 whatever it is told, and cannot be copied once it has run."""

    def forward(self, images):
        self.kept = self.conv(images)
        with torch.autocast("cpu", enabled=False):
            return self.head(self.kept.float().mean((2, 3)))


def test_a_network_that_cannot_be_cast_is_used_itself():
    model = Stubborn()
    found = FoldedNetwork(model, torch.rand(2, 3, 8, 8), low_precision=True)
    assert found.refreshed() is model and model.training


def test_members_of_an_ensemble_are_folded_one_by_one():
    ensemble = lively(Ensemble(build_model("tiny", 10), 2))
    folded = folded_of(ensemble)
    images = torch.rand(2, 3, 32, 32)
    for member in range(2):
        torch.testing.assert_close(
            folded.features_of(images, member), ensemble.features_of(images, member)
        )


def test_low_precision_keeps_the_weights_in_bf16_and_the_logits_close():
    model = lively(build_model("tiny", 10))
    folded = folded_of(model, low_precision=True)
    assert {weight.dtype for weight in folded.parameters()} == {torch.bfloat16}
    images = torch.rand(4, 3, 32, 32)
    with torch.autocast("cpu", torch.bfloat16):
        logits = folded(images).float()
    assert F.cosine_similarity(logits, model(images)).min() > 0.99


def run_of(images=40, **options):
    data = Shapes(size=images)
    pixels = torch.from_numpy(data.data).permute(0, 3, 1, 2).contiguous()
    return Run(pixels, torch.tensor(data.targets), 10, **options)


class Casts(TorchDispatchMode):
    """Counts casts of a network's weights."""

    def __init__(self, network):
        super().__init__()
        self.places = {weight.data_ptr() for weight in network.parameters()}
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten._to_copy.default and args[0].data_ptr() in self.places:
            self.count += 1
        return func(*args, **(kwargs or {}))


def test_no_weight_is_cast_in_a_search():
    model = lively(build_model("resnet18", 10))
    counts = []
    for network in (model, folded_of(model, low_precision=True)):
        network.requires_grad_(False)
        with Casts(network) as casts, torch.autocast("cpu", torch.bfloat16):
            network(torch.rand(2, 3, 32, 32))
        counts.append(casts.count)
    assert counts == [22, 0]  # its convolutions, and weights and biases of its last layer


def test_a_search_sees_the_weights_of_its_time_and_its_images_are_counted():
    run, model = run_of(), build_model("tiny", 10)
    optimizer = sgd(model)
    run.track(model=model, optimizer=optimizer)
    images = to_float(run.images[:4])
    for _ in run.steps(2):
        train(
            run, model, optimizer, steps=1, batch_size=8,
            inputs=lambda index: to_float(run.images[index]),
        )  # fmt: skip
        before = run.passes
        with run.frozen(model) as network, torch.no_grad():
            found = network(images)
        assert run.passes == before + 4
        with torch.no_grad():
            expected = copy.deepcopy(model).eval()(images)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    run.close()


def test_a_search_has_no_gradient_of_weights_and_the_network_has_its_own_again():
    run, model = run_of(), build_model("resnet9", 10)
    kept = {name: weight.requires_grad for name, weight in model.named_parameters()}
    run.track(model=model)
    with run.frozen(model) as network:
        leaf = to_float(run.images[:2]).requires_grad_()
        network(leaf).sum().backward()
    assert leaf.grad.abs().sum() > 0
    assert all(weight.grad is None for weight in [*model.parameters(), *network.parameters()])
    assert {n: w.requires_grad for n, w in model.named_parameters()} == kept
    run.close()
