"""Networks, parameters and functions of the caller's own: refused early, or left as they are."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

import unlearnable as ue
from unlearnable.datasets import Shapes
from unlearnable.engine.models import build_model
from unlearnable.methods.parameters import Untrained

SHAPES = Shapes(size=16, side=16)
FEW = {"train_epochs": 1, "steps": 1, "batch_size": 16, "step_size": 4 / 255}
QUICK = {"device": "cpu", "progress": False}


class Net(nn.Module):
    def __init__(self, classes=10):
        super().__init__()
        self.features = nn.Conv2d(3, 4, 3, stride=4)
        self.logits = nn.Linear(4, classes)

    def forward(self, images):
        return self.logits(self.features(images).relu().mean((2, 3)))


class InPlace(Net):
    def forward(self, images):
        images -= 0.5
        return super().forward(images)


class OnlyInTraining(Net):
    def forward(self, images):
        with torch.set_grad_enabled(self.training):
            return super().forward(images)


class Lazy(nn.Module):
    def __init__(self):
        super().__init__()
        self.features, self.logits = nn.Conv2d(3, 4, 3, stride=4), nn.LazyLinear(10)

    def forward(self, images):
        return self.logits(self.features(images).flatten(1))


class Described(Net):
    def get_extra_state(self):
        return {"made": "today"}

    def set_extra_state(self, state):
        pass


class Scaled(nn.Linear):
    def __init__(self):
        super().__init__(4, 10)
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, features):
        return super().forward(features) * self.scale


class Broken(Net):
    def forward(self, images):
        return super().forward(images) * float("nan")


def with_part(name, part):
    network = Net()
    setattr(network, name, part(getattr(network, name)))
    return network


WRONG = {
    "in place": (InPlace, "changes them in place in evaluation mode"),
    "no gradient": (OnlyInTraining, "back to the images in evaluation mode"),
    "lazy": (Lazy, "a lazy one with logits"),
    "state": (Described, "whose state is only tensors"),
    "weight norm": (
        lambda: with_part("features", nn.utils.weight_norm),
        "that can be copied.*parametrizations",
    ),
    "half reset": (
        lambda: with_part("logits", lambda _: Scaled()),
        r"logits \(Scaled\) leaves scale",
    ),
    "no weights": (nn.Flatten, "with weights to train, got a Flatten"),
    "broken": (Broken, "the surrogate diverged; lower its learning rate"),
}


@pytest.mark.parametrize("case", WRONG)
@pytest.mark.parametrize("checkpoint", [False, True])
@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
def test_networks_that_no_fit_can_use_are_refused_in_words(case, checkpoint, tmp_path):
    make, message = WRONG[case]
    options = {"checkpoint": tmp_path / "c"} if checkpoint else {}
    with pytest.raises(ValueError, match=message):
        ue.TAP(make(), **FEW).fit(SHAPES, **QUICK, **options)


@pytest.mark.parametrize(
    "method",
    [
        lambda net: ue.REM(
            net, train_steps=2, steps=1, robust_steps=1, eot_samples=1, batch_size=16
        ),
        lambda net: ue.SEM.preset("demo", surrogate=net, train_steps=2, batch_size=16),
        lambda net: ue.EM(net, max_rounds=1, round_steps=1, batch_size=16, stop_error=1.0),
        lambda net: ue.SEP(net, checkpoints=1, **FEW),
    ],
)
def test_a_network_that_diverged_makes_no_rows(method):
    with pytest.raises(ValueError, match="the surrogate diverged"):
        method(Broken()).fit(SHAPES, **QUICK)


def test_a_refused_fit_leaves_its_checkpoint_folder_to_the_right_one(tmp_path):
    whole = ue.TAP(Net(), **FEW).fit(SHAPES, **QUICK).perturbation_
    with pytest.raises(ValueError, match=r"got \(2, 11\)"):
        ue.TAP(Net(11), **FEW).fit(SHAPES, **QUICK, checkpoint=tmp_path / "c")
    found = ue.TAP(Net(), **FEW).fit(SHAPES, **QUICK, checkpoint=tmp_path / "c").perturbation_
    assert found.digest == whole.digest


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_modes_of_the_caller_decide_nothing(mode):
    usual = ue.TAP("tiny", **FEW).fit(SHAPES, **QUICK)
    with mode():
        found = ue.TAP("tiny", **FEW).fit(SHAPES, **QUICK)
        assert not torch.is_grad_enabled()
        result = ue.evaluate(
            SHAPES, Shapes(train=False, size=10, side=16), "tiny", epochs=1, seeds=1, **QUICK
        )
    assert found.perturbation_.digest == usual.perturbation_.digest and len(result.last) == 1
    assert torch.is_grad_enabled()


def test_another_default_dtype_decides_nothing():
    usual = ue.TAP("tiny", **FEW).fit(SHAPES, **QUICK).perturbation_
    try:
        torch.set_default_dtype(torch.float64)
        found = ue.TAP("tiny", **FEW).fit(SHAPES, **QUICK).perturbation_
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    assert found.digest == usual.digest


def test_another_default_device_decides_nothing():
    new, tests = Shapes(size=8, side=16, seed=3), Shapes(train=False, size=10, side=16)
    usual = ue.TAP("tiny", **FEW).fit(SHAPES, **QUICK)
    rows, smooth = usual.extend(new, progress=False), ue.SmoothFields().fit(SHAPES, **QUICK)
    network = build_model("tiny", 10)
    groups = ue.clusters(SHAPES, 2, network=network, **QUICK).targets
    try:
        torch.set_default_device("meta")
        found = ue.TAP("tiny", **FEW).fit(SHAPES, **QUICK)
        assert found.extend(new, progress=False).digest == rows.digest
        assert ue.SmoothFields().fit(SHAPES, **QUICK).perturbation_.digest == (
            smooth.perturbation_.digest
        )
        clustered = ue.clusters(SHAPES, 2, network=network, **QUICK)
        assert clustered.targets == groups and len(clustered.assign(new)) == 8
        assert len(ue.evaluate(SHAPES, tests, "tiny", epochs=1, seeds=1, **QUICK).last) == 1
        assert torch.get_default_device().type == "meta"
    finally:
        torch.set_default_device(None)
    assert found.perturbation_.digest == usual.perturbation_.digest


def test_a_callback_changes_nothing(tmp_path):
    usual = ue.TAP("tiny", **FEW).fit(SHAPES, **QUICK)
    told = []

    def callback(record):
        told.append(dict(record))
        record["when"] = object()

    method = ue.TAP("tiny", **FEW)
    method.fit(SHAPES, **QUICK, callback=callback, checkpoint=tmp_path / "c")
    assert method.history_ == usual.history_ == told
    assert method.perturbation_.digest == usual.perturbation_.digest


@pytest.mark.parametrize(
    "wrong", [{"callback": "x"}, {"callback": [print]}, {"progress": "no"}, {"checkpoint": True}]
)
def test_functions_and_folders_of_other_types_are_refused_before_the_work(wrong):
    with pytest.raises(TypeError, match="expected"):
        ue.TAP("tiny", **FEW).fit(SHAPES, **({"device": "cpu"} | wrong))


def test_a_finished_checkpoint_that_is_used_again_adds_no_records(tmp_path):
    options = QUICK | {"checkpoint": tmp_path / "c", "keep_checkpoint": True}
    first = ue.AR().fit(SHAPES, **options)
    for _ in range(2):
        again = ue.AR().fit(SHAPES, **options)
        assert again.history_ == first.history_ and len(first.history_) == 1
        assert again.perturbation_.digest == first.perturbation_.digest


def test_a_fit_leaves_parameters_as_they_were_given():
    options = {"max_rounds": 1, "round_steps": 1, "batch_size": 16, "stop_error": 1.0}
    method = ue.EM("tiny", augment={"crop-flip": 0.0}, **options).fit(SHAPES, **QUICK)
    assert method.get_params()["augment"] == {"crop-flip": 0.0}
    usual = ue.EM("tiny", **options).fit(SHAPES, **QUICK)
    assert method.perturbation_.digest == usual.perturbation_.digest


@dataclass(kw_only=True, repr=False, eq=False)
class Own(Untrained, ue.Method):
    granularities = ("class-wise",)
    lambda_: float = 1.0
    epsilon: float = 8 / 255
    norm: str = "Linf"
    granularity: str = "class-wise"
    seed: int = 0

    def _learn(self, run):
        shape = (run.num_classes, *run.images.shape[1:])
        run.result("class-wise", rows=torch.full(shape, self.lambda_ * self.epsilon))


def test_a_parameter_may_end_with_an_underscore():
    for _ in range(2):
        method = Own(lambda_=0.5).fit(SHAPES, **QUICK)
        assert method.lambda_ == method.perturbation_.config["parameters"]["lambda_"] == 0.5
        assert np.asarray(method.perturbation_.rows).max() == 4


@pytest.mark.parametrize(
    ("parts", "got"),
    [
        ({"rows": torch.zeros(3, 3, 16, 16)}, r"rows=a float32 tensor of shape \(3, 3, 16, 16\)"),
        ({"rows": torch.zeros(10, 3, 16, 16).int()}, "rows=a int32 tensor"),
        ({"rows": np.zeros((10, 3, 16, 16))}, "rows=a ndarray"),
        ({"row": torch.zeros(10, 3, 16, 16)}, "row=a float32"),
        ({}, "nothing"),
    ],
)
def test_rows_of_classes_of_another_form_are_refused(parts, got, monkeypatch):
    monkeypatch.setattr(Own, "_learn", lambda _, run: run.result("class-wise", **parts))
    with pytest.raises(RuntimeError, match=f"Own._learn to pass rows, .* got {got}"):
        Own().fit(SHAPES, **QUICK)
