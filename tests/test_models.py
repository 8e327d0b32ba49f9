"""Every network that has a name."""

from pathlib import Path

import pytest
import torch
from torch import nn

import unlearnable as ue
from unlearnable.engine.models import (
    MODELS,
    Ensemble,
    build_model,
    check_model_name,
    check_network,
    reset_weights,
)

WEIGHTS = {  # for 10 classes of colour images
    "resnet9": 1_972_768,
    "resnet18": 11_173_962,
    "resnet50": 23_520_842,
    "vgg16": 14_728_266,
    "densenet121": 6_956_426,
    "mobilenetv2": 2_236_682,
    "senet18": 11_263_042,
    "wrn28-10": 36_479_194,
    "vit-small": 10_695_562,
    "tiny": 139_810,
    "tiny-resnet": 140_994,
    "efficientnet-lite0": 3_383_818,
}


def test_every_network_is_counted_and_documented():
    assert set(WEIGHTS) == set(MODELS)
    page = (Path(__file__).parents[1] / "docs/explanation/countermeasures.md").read_text("utf-8")
    for name, weights in WEIGHTS.items():
        assert f"| `{name}` | {weights:,} |" in page


FIRST_BLOCK = {
    "resnet9": "whitening",
    "resnet18": "1.layer1",
    "resnet50": "1.layer1",
    "senet18": "1.layer1",
    "densenet121": "1.features.denseblock1",
    "mobilenetv2": "1.features.1",
    "wrn28-10": "2",
}


@pytest.mark.parametrize("name", MODELS)
def test_networks_have_their_size_stem_and_features(name):
    with torch.device("meta"):  # shapes without numbers
        model = build_model(name, 10)
        seen = []
        model.get_submodule(FIRST_BLOCK.get(name, "0")).register_forward_hook(
            lambda layer, inputs, output: seen.append(output.shape[2:])
        )
        ensemble = Ensemble(nn.Identity(), 1)
        ensemble.members[0] = model
        last = ensemble.features_of(torch.rand(4, 3, 32, 32), 0)
    assert sum(weight.numel() for weight in model.parameters()) == WEIGHTS[name]
    # The first filters of the one have 2x2 pixels; the other enlarges what it is given.
    side = {"resnet9": 31, "efficientnet-lite0": 96}.get(name, 32)
    assert seen == [(side, side)]  # no block before it has lowered the resolution
    *_, head = (layer for layer in model.modules() if isinstance(layer, nn.Linear))
    assert last.shape == (4, head.in_features) and head.out_features == 10


@pytest.mark.parametrize(
    "name", ["vgg16", "resnet18", "vit-small", "tiny", "tiny-resnet", "efficientnet-lite0"]
)
def test_networks_take_grey_images_of_other_sizes(name):
    with torch.device("meta"):
        model = build_model(name, 7, 1)
        assert model(torch.rand(2, 1, 28, 28)).shape == (2, 7)
        assert model(torch.rand(2, 1, 48, 40)).shape == (2, 7)


def test_squeeze_and_excitation_weighs_the_channels():
    block = build_model("senet18", 10)[1].layer1[0].eval()
    images = torch.rand(2, 64, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        branch = block.bn2(block.conv2(block.relu(block.bn1(block.conv1(images)))))
        squeezed = block.weighted.fc1(branch.mean((2, 3), keepdim=True)).relu()
        weights = block.weighted.fc2(squeezed).sigmoid()
        assert torch.allclose(block(images), (branch * weights + images).relu(), atol=1e-5)


@pytest.mark.parametrize("name", ["tiny-resnet", "vit-small"])
def test_weights_follow_from_the_seed_and_learn(name):
    state = torch.get_rng_state()
    first, again, other = (build_model(name, 4, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    weights = [list(model.parameters()) for model in (first, again, other)]
    assert all(torch.equal(a, b) for a, b in zip(*weights[:2], strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(weights[0], weights[2], strict=True))
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0)).requires_grad_()
    loss = nn.functional.cross_entropy(first(images), torch.arange(4))
    loss.backward()
    assert images.grad.abs().max() > 0 and weights[0][0].grad.abs().max() > 0


def test_torchvisions_networks_are_as_they_are():
    from torchvision.models import resnet18

    with torch.device("meta"):
        model = build_model("torchvision:resnet18", 5)
        assert model(torch.rand(2, 3, 64, 64)).shape == (2, 5)
        assert build_model("torchvision:resnet18", 5, 1)(torch.rand(2, 1, 64, 64)).shape == (2, 5)
        theirs = resnet18(num_classes=5).state_dict()
    ours = model[1].state_dict()
    assert {name: weight.shape for name, weight in ours.items()} == {
        name: weight.shape for name, weight in theirs.items()
    }


@pytest.mark.parametrize(
    "name", ["resnet19", "torchvision:resnet19", "torchvision:googlenet", "torchvision:", "vision:"]
)
def test_unknown_names_are_refused_with_the_list(name):
    with pytest.raises(ValueError, match="tiny-resnet"):
        check_model_name(name)


def test_names_are_those_of_surrogates_too(shapes):
    method = ue.TAP(surrogate="tiny-resnet", train_epochs=1, steps=1, restarts=1)
    method.fit(shapes, device="cpu", progress=False)
    assert sum(weight.numel() for weight in method.surrogate_.parameters()) == 140_994
    with pytest.raises(ValueError, match="tiny-resnet"):
        ue.TAP(surrogate="tiny-vgg").fit(shapes, progress=False)


# --- networks of callers --------------------------------------------------------------------------


class Returning(nn.Module):
    """A linear network whose logits come as a caller's code may return them."""

    def __init__(self, wrap):
        super().__init__()
        self.linear = nn.Linear(3 * 8 * 8, 5)
        self.wrap = wrap

    def forward(self, images):
        return self.wrap(self.linear(images.flatten(1)), self.training)


def linear(outputs=5):
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, outputs))


def tied():
    """Two layers that share one parameter."""
    first, second = nn.Linear(4, 4), nn.Linear(4, 4)
    second.weight = first.weight
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 4), first, nn.ReLU(), second, nn.Linear(4, 5))


def in_the_same_memory():
    model = tied()
    model[4].weight = nn.Parameter(model[2].weight.data)
    return model


def deep():
    return nn.Sequential(*(nn.MaxPool2d(2) for _ in range(4)), nn.Flatten(), nn.Linear(3, 5))


REFUSED = {
    "too few outputs": (lambda: linear(4), r"each of the 5 classes, \(2, 5\) .* got \(2, 4\)"),
    "outputs per pixel": (lambda: nn.Conv2d(3, 5, 1), r"got \(2, 5, 8, 8\) in evaluation mode"),
    "a tuple": (lambda: Returning(lambda x, training: (x, x)), "got a tuple .* wrap it"),
    "a dict": (lambda: Returning(lambda x, training: {"logits": x}), "got a dict .* wrap it"),
    "auxiliary outputs": (
        lambda: Returning(lambda x, training: (x, x) if training else x),
        "got a tuple in training mode",
    ),
    "classes": (lambda: Returning(lambda x, training: x.argmax(1)), "got torch.int64"),
    "bf16": (lambda: linear().bfloat16(), r"float32 weights, got torch.bfloat16 in 1.weight"),
    "half": (lambda: linear().half(), r"float32 weights, got torch.float16 in 1.weight"),
    "meta": (
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(3072, 5, device="meta")),
        "lazy one with 1.weight",
    ),
    "lazy layers": (
        lambda: nn.Sequential(nn.Flatten(), nn.LazyLinear(5)),
        "lazy one with 1.weight",
    ),
    "two parameters in one memory": (in_the_same_memory, "the same memory, 2.weight and 4.weight"),
    "too deep": (deep, r"evaluation mode \(RuntimeError: .* pass image_size="),
    "another number of channels": (
        lambda: nn.Sequential(nn.Conv2d(1, 5, 8), nn.Flatten()),
        r"shape \(2, 3, 8, 8\), but it fails .* another number of channels",
    ),
    "other arguments": (lambda: nn.Bilinear(8, 8, 5), "fails in evaluation mode .TypeError"),
    "detached logits": (
        lambda: Returning(lambda x, training: x.detach()),
        "with a gradient from its logits back to its weights, got none",
    ),
    "changed in place": (
        lambda: Returning(lambda x, training: x.exp().add_(1).log().exp_().mul_(2)),
        "in-place operations",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_networks_that_would_fail_in_the_work_are_refused_in_one_sentence(case):
    make, message = REFUSED[case]
    with pytest.raises(ValueError, match=f"expected a victim .*{message}") as caught:
        check_network(make(), (3, 8, 8), 5, role="victim")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "make",
    [linear, tied, lambda: linear().requires_grad_(False), lambda: build_model("tiny", 5)],
    ids=["linear", "tied", "frozen", "with batch normalisation"],
)
def test_networks_that_work_are_left_as_they_were(make):
    model = make()
    model.append(nn.Dropout(0.5))
    model[-1].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    assert check_network(model, (3, 8, 8), 5) is None
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(weight.grad is None for weight in model.parameters())
    assert model[0].training and not model[-1].training


def test_layers_are_reset_on_the_cpu_wherever_they_are():
    class Elsewhere(nn.Linear):
        """A layer of another device; it notes where it goes."""

        def __init__(self):
            super().__init__(2, 2, device="meta")
            self.happened = []

        def to(self, device):
            self.happened.append(str(device))
            return self

        def reset_parameters(self):
            if hasattr(self, "happened"):
                self.happened.append("reset")

    layer = Elsewhere()
    reset_weights(nn.Sequential(nn.Linear(2, 2), layer))
    assert layer.happened == ["cpu", "reset", "meta"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_weights_are_the_same_on_a_gpu():
    states = []
    for device in ("cpu", "cuda"):
        model = build_model("tiny", 5).to(device)
        reset_weights(model, seed=3)
        assert {weight.device.type for weight in model.parameters()} == {device}
        states.append(model.state_dict())
    assert all(torch.equal(value, states[1][name].cpu()) for name, value in states[0].items())


def test_no_channel_of_resnet9_starts_empty_on_grey_images():
    """BatchNorm would blow it up at the first steps, and at the first image in colour."""
    grey = torch.rand(64, 1, 32, 32, generator=torch.Generator().manual_seed(0)).expand(
        -1, 3, 32, 32
    )
    model = build_model("resnet9", 10)
    x = torch.nn.functional.gelu(model.whitening(grey))
    assert (x.var((0, 2, 3)) < 1e-10).sum() == 16, "of the axes of colour"
    for convolution in (model.groups[0].conv1, model.groups[0].conv2):
        x = convolution(x)
        assert x.var((0, 2, 3)).min() > 1e-3


def test_convolutions_of_resnet9_start_close_to_the_identity():
    model = build_model("resnet9", 10)
    for group in model.groups:
        for convolution in (group.conv1, group.conv2):
            copies = convolution.weight[: convolution.in_channels].detach()
            others = copies - torch.nn.init.dirac_(torch.empty_like(copies))
            bound = 1 / (9 * convolution.in_channels) ** 0.5
            assert 0.05 * bound < others.abs().max() <= 0.1 * bound
