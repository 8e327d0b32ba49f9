"""Which precision a run has: by the hardware, a trial, or as it was asked for."""

import contextlib

import pytest
import torch
from torch import nn

import unlearnable as ue
from unlearnable.datasets import Shapes
from unlearnable.engine import precision as module
from unlearnable.engine.models import build_model
from unlearnable.engine.precision import Precision, bf16_in_hardware, choose_precision

CPU = torch.device("cpu")


@pytest.fixture
def hardware(monkeypatch):
    """bf16 in hardware, or not, and nothing remembered of other networks."""
    monkeypatch.setattr(module, "_CHOSEN", {})

    def has(it):
        monkeypatch.setattr(module, "bf16_in_hardware", lambda device: it)

    return has


def trial(network, size=8):
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(size, 3, 32, 32, generator=generator)
    return choose_precision(network, images, torch.arange(size) % 10)


def test_a_gpu_has_bf16_only_where_it_is_not_emulated(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device", contextlib.nullcontext)
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation
    )
    assert not bf16_in_hardware(torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)
    assert bf16_in_hardware(torch.device("cuda"))


@pytest.mark.parametrize(
    ("features", "has"),
    [({"amx_bf16"}, True), ({"avx512_bf16"}, True), ({"avx512_f", "avx2"}, False), (set(), False)],
)
def test_a_cpu_has_bf16_with_the_instructions_for_it(features, has, monkeypatch):
    monkeypatch.setattr(module, "_cpu_features", lambda: features)
    assert bf16_in_hardware(CPU) == has


def test_without_hardware_nothing_is_tried(hardware, monkeypatch):
    hardware(False)
    monkeypatch.setattr(module, "_tried", None)
    found = trial(build_model("tiny", 10))
    assert found.name == "float32" and "no bfloat16 in hardware" in found.reason


@pytest.mark.parametrize(("speed", "name"), [(1.1, "float32"), (3.0, "bf16")])
def test_bf16_is_chosen_where_it_is_faster(speed, name, hardware, monkeypatch):
    hardware(True)
    real = module._timed

    def timed(call, device):
        half = torch.is_autocast_enabled(device.type)
        return (1 / speed if half else 1.0), real(call, device)[1]

    monkeypatch.setattr(module, "_timed", timed)
    found = trial(build_model("tiny", 10))
    assert found.name == name and f"{speed:.1f} times as fast" in found.figures
    assert "faster" in found.reason


class Wrong(nn.Module):
    """Gives other logits in low precision, as a wrong kernel would."""

    def __init__(self):
        super().__init__()
        self.model = build_model("tiny", 10)

    def forward(self, images):
        if torch.is_autocast_enabled("cpu"):
            images = images.flip(3) + torch.linspace(0, 3, 32)
        return self.model(images)


def test_bf16_is_not_chosen_where_it_gives_other_gradients(hardware, monkeypatch):
    hardware(True)
    real = module._timed
    monkeypatch.setattr(
        module,
        "_timed",
        lambda call, device: (
            0.1 if torch.is_autocast_enabled("cpu") else 1.0,
            real(call, device)[1],
        ),
    )
    assert trial(Wrong()).name == "float32"
    assert trial(build_model("tiny", 10)).name == "bf16"


def test_a_trial_leaves_network_and_random_state_alone_and_is_remembered(hardware, monkeypatch):
    hardware(True)
    network, state = build_model("tiny", 10), torch.get_rng_state()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    first = trial(network)
    assert torch.equal(torch.get_rng_state(), state) and network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    monkeypatch.setattr(module, "_tried", None)
    assert trial(build_model("tiny", 10, seed=1)) is first


def sem(**options):
    return ue.SEM.preset("demo", train_steps=2, batch_size=8, **options)


@pytest.mark.parametrize("name", ["float32", "bf16"])
def test_a_fit_keeps_what_was_chosen(name, hardware, monkeypatch, tmp_path):
    hardware(True)
    monkeypatch.setattr(module, "_tried", lambda *args: Precision(name, "so the test says"))
    fitted = sem().fit(Shapes(size=16), device="cpu", progress=False)
    config = fitted.perturbation_.config
    assert (config["precision"], config["precision_reason"]) == (name, "so the test says")
    asked = sem().fit(Shapes(size=16), device="cpu", precision=name, progress=False)
    assert torch.equal(*(torch.tensor(m.perturbation_.rows[:]) for m in (asked, fitted)))
    assert asked.perturbation_.config["precision_reason"] == "asked for"
    monkeypatch.setattr(module, "_tried", None)  # an extension is as precise as its fit
    monkeypatch.setattr(module, "_CHOSEN", {})
    more = fitted.extend(Shapes(size=8, seed=3), device="cpu", progress=False)
    assert more.config["precision"] == name
    assert more.config["precision_reason"] != "asked for"


def test_a_resumed_fit_keeps_the_precision_of_its_checkpoint(hardware, monkeypatch, tmp_path):
    hardware(True)
    monkeypatch.setattr(module, "_tried", lambda *args: Precision("bf16", "so the test says"))
    options = {"device": "cpu", "progress": False, "checkpoint": tmp_path / "c"}
    expected = sem().fit(Shapes(size=16), device="cpu", progress=False)
    done = []

    def stop(record):
        done.append(record)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sem().fit(Shapes(size=16), checkpoint_every=0, callback=stop, **options)
    monkeypatch.setattr(module, "_CHOSEN", {})
    monkeypatch.setattr(module, "_tried", lambda *args: Precision("float32", "another machine"))
    found = sem().fit(Shapes(size=16), **options)
    assert found.perturbation_.config["precision"] == "bf16"
    assert found.perturbation_.digest == expected.perturbation_.digest


def test_methods_without_a_network_are_float32(hardware):
    hardware(True)
    fitted = ue.RandomNoise().fit(Shapes(size=8), device="cpu", progress=False)
    assert fitted.perturbation_.config["precision"] == "float32"


def test_victims_say_what_they_ran_in(hardware, monkeypatch):
    hardware(True)
    monkeypatch.setattr(module, "_tried", lambda *args: Precision("bf16", "so the test says"))
    data = Shapes(size=32)
    found = ue.evaluate(data, data, "tiny", epochs=1, seeds=1, device="cpu", progress=False)
    assert found.precisions == ["bf16"]


def test_the_trial_takes_one_thread_and_gives_the_others_back(hardware, monkeypatch):
    hardware(True)
    real, threads = module._timed, []

    def timed(call, device):
        threads.append(torch.get_num_threads())
        return real(call, device)

    monkeypatch.setattr(module, "_timed", timed)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        trial(build_model("tiny", 10))
        assert set(threads) == {1} and torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
