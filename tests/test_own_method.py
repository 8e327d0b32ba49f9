"""Methods that users write: as a dataclass or with an ``__init__``, right and wrong."""

from dataclasses import dataclass
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

import unlearnable as ue
from unlearnable.datasets import Shapes
from unlearnable.engine.run import Run
from unlearnable.methods.parameters import count


class Plain(ue.Method):
    """Stores its arguments and declares nothing."""

    granularities = ("class-wise",)

    def __init__(self, *, epsilon=8 / 255, norm="Linf", level=3, granularity="class-wise", seed=0):
        self.epsilon = epsilon
        self.norm = norm
        self.level = level
        self.granularity = granularity
        self.seed = seed

    def _learn(self, run):
        rows = torch.zeros((run.num_classes, *run.images.shape[1:]), device=run.device)
        colours = run.global_rng("colours").integers((run.num_classes, 3, 1, 1), 0, 2)
        run.result("class-wise", rows=rows + (2 * colours - 1) * self.level / 255)


@dataclass(kw_only=True, repr=False, eq=False)
class Declared(Plain):
    """The same with a declared level."""

    epsilon: float = 8 / 255
    norm: str = "Linf"
    level: int = count(3)
    granularity: str = "class-wise"
    seed: int = 0


@pytest.mark.parametrize("cls", [Plain, Declared])
def test_a_method_of_ones_own_is_like_any_other(cls, tmp_path):
    dataset = Shapes(size=20)
    method = cls(level=np.int64(2)).fit(dataset, progress=False)
    assert repr(method) == f"{cls.__name__}(level=2)" and type(method.level) is int
    assert set(np.unique(method.perturbation_.rows)) == {-2, 2}
    assert method.perturbation_.config["parameters"] == method.get_params()
    loaded = cls.from_pretrained(method.save_pretrained(tmp_path / "m"))
    assert loaded.get_params() == method.get_params()
    other = cls().set_params(**method.get_params()).fit(dataset, progress=False)
    assert other.perturbation_.digest == method.perturbation_.digest
    for wrong, message in [
        ({"epsilon": 8}, "8 / 255"),
        ({"seed": 1.5}, "seed to be an integer"),
        ({"norm": "linf"}, "norm to be one of"),
        ({"granularity": "sample-wise"}, "class-wise"),
    ]:
        with pytest.raises(ValueError, match=message):
            cls(**wrong).fit(dataset, progress=False)


class Bare(ue.Method):
    """Without parameters."""

    def _learn(self, run):
        return None


@dataclass(kw_only=True)
class WithoutSeed(Bare):
    granularity: str = "sample-wise"


@dataclass(kw_only=True)
class WithoutBudget(WithoutSeed):
    seed: int = 0


class Keyed(Bare):
    """Takes any keyword and stores a few."""

    def __init__(self, **options):
        self.epsilon, self.granularity, self.seed = 8 / 255, "sample-wise", options.get("seed", 0)

    def _learn(self, run):
        for index in run.sweep(8):
            run.rows[index] = torch.full(run.images[index].shape, self.seed / 255)


@pytest.mark.parametrize(
    ("cls", "message"),
    [
        (Bare, "declare granularity='sample-wise' and seed=0"),
        (WithoutSeed, "declare seed=0"),
        (WithoutBudget, "WithoutBudget to have the parameter epsilon"),
    ],
)
def test_what_every_method_needs_is_asked_for(cls, message):
    assert repr(cls()).startswith(cls.__name__)
    with pytest.raises(TypeError, match=message):
        cls().fit(Shapes(size=20), progress=False)


def test_keywords_of_any_name_are_no_parameters():
    method = Keyed(seed=3, anything=1).fit(Shapes(size=20), progress=False)
    assert method.get_params() == {} and set(np.unique(method.perturbation_.rows)) == {3}


def test_parameters_of_no_dataclass_are_refused():
    class Steps(ue.SEM):
        steps: int = 3

    @dataclass(kw_only=True, repr=False, eq=False)
    class Below(Steps):
        seed: int = 1

    for cls in (Steps, Below):
        with pytest.raises(TypeError, match=r"@dataclass\(kw_only=True\) above class Steps, "):
            cls()


def test_what_is_declared_is_checked():
    with pytest.raises(ValueError, match="expected level to be an integer >= 1, got 0"):
        Declared(level=0).fit(Shapes(size=20), progress=False)


@pytest.mark.parametrize(
    ("cls", "results", "message"),
    [
        (Declared, [], r"through run\.result\('class-wise', \.\.\.\), got none"),
        (Declared, ["pixel"], r"'class-wise', \.\.\.\), got run\.result\('pixel', "),
        (Declared, ["class-wise", "pixel"], r"got run\.result\('class-wise', .* and run\.result"),
        (ue.OPS, [], r"OPS\._learn .* run\.result\('pixel', \.\.\.\), got none"),
        (ue.ClassConvolution, ["pixel"], r"run\.result\('convolution', \.\.\.\), got"),
        (ue.ColourShift, ["pixel"], r"run\.result\('shift', \.\.\.\), got run\.result\('pixel'"),
        (ue.DUNE, ["shift"], r"through run\.rows\[index\] only, got run\.result\('shift'"),
        (ue.Lasting, ["shift"], r"run\.result\('procedural', \.\.\.\), got run\.result\('shift'"),
        (ue.LSP, [], r"run\.result\('procedural', \.\.\.\), got none"),
        (ue.RandomNoise, ["class-wise"], r"through run\.rows\[index\] only, got run\.result"),
    ],
)
def test_results_of_another_kind_are_refused(cls, results, message, monkeypatch):
    def learn(self, run):
        for kind in results:
            run.result(kind, rows=torch.zeros(10, 3, 32, 32))

    monkeypatch.setattr(cls, "_learn", learn)
    with pytest.raises(RuntimeError, match=message):
        cls().fit(Shapes(size=20), progress=False)


def test_a_method_without_rows_for_new_images_says_so(monkeypatch):
    method = ue.RandomNoise().fit(Shapes(size=20), progress=False)
    monkeypatch.delattr(ue.RandomNoise, "_perturb")
    with pytest.raises(ValueError, match="RandomNoise, which does not define _perturb"):
        method.extend(Shapes(size=8), progress=False)


# --- surrogates ----------------------------------------------------------------------------------
WITH_SURROGATE = [
    partial(method, search="swarm") if method is ue.ColourShift else method
    for method in ue.METHODS
    if "surrogate" in method().get_params()
]


@pytest.mark.parametrize("method", WITH_SURROGATE)
def test_only_a_module_has_weights_to_keep(method):
    with pytest.raises(ValueError, match=r"expected a module as the surrogate .* got 'tiny'"):
        method("tiny", pretrained_surrogate=True).fit(Shapes(size=16), progress=False)


@pytest.mark.parametrize("method", WITH_SURROGATE)
def test_a_surrogate_of_another_width_is_refused_before_it_is_trained(method, monkeypatch):
    def refuse(*args, **options):
        raise AssertionError("a step was taken")

    monkeypatch.setattr(Run, "train_step", refuse)
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 7))
    with pytest.raises(ValueError, match=r"expected .*10"):
        method(network).fit(Shapes(size=16), progress=False)


def test_where_it_was_learned_is_recorded():
    config = (
        ue.RandomNoise().fit(Shapes(size=16), device="cpu", progress=False).perturbation_.config
    )
    assert config["device"] == "cpu" and config["precision"] == "float32"
    method = ue.SEM.preset("demo", train_steps=1).fit(
        Shapes(size=16), device="cpu", precision="bf16", progress=False
    )
    assert method.perturbation_.config["precision"] == "bf16"
    more = method.extend(Shapes(size=8), device="cpu", precision="float32", progress=False)
    assert more.config["precision"] == "float32"


@pytest.mark.parametrize("granularity", ["sample-wise", "class-wise"])
def test_random_noise_is_drawn_on_the_cpu_whatever_the_device(granularity, monkeypatch):
    devices, rng = [], Run.rng

    def spy(self, purpose, device=None):
        devices.append((purpose, device))
        return rng(self, purpose, device)

    monkeypatch.setattr(Run, "rng", spy)
    ue.RandomNoise(granularity=granularity).fit(Shapes(size=16), progress=False)
    assert devices == ([("noise", torch.device("cpu"))] if granularity == "sample-wise" else [])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(
    "method",
    [
        ue.RandomNoise(),
        ue.RandomNoise(granularity="class-wise"),
        ue.LSP(),
        ue.AR(),
        ue.ClassConvolution(),
        ue.Gratings(),
        ue.ColourShift(),
        ue.SmoothFields(),
    ],
    ids=repr,
)
def test_what_is_only_drawn_is_the_same_on_every_device(method):
    found = [
        method.fit(Shapes(size=40), device=device, progress=False).perturbation_.tensors
        for device in ("cpu", "cuda")
    ]
    assert all(np.array_equal(found[0][name], found[1][name]) for name in found[0])


class Broken(Plain):
    @property
    def strength(self):
        return self.levle


def test_an_error_inside_a_property_is_shown_as_it_is():
    with pytest.raises(AttributeError, match="'Broken' object has no attribute 'levle'"):
        Broken().strength  # noqa: B018
    with pytest.raises(AttributeError, match="'Plain' object has no attribute 'levle'"):
        Plain().levle  # noqa: B018


@dataclass(kw_only=True, repr=False, eq=False)
class Trained(Plain):
    """Has a network under a name of its own, and says nothing of presets."""

    network: str = "tiny"
    granularity: str = "class-wise"
    seed: int = 0


def test_what_is_not_said_of_a_method_is_not_made_up():
    assert Trained().passes(100) is None and ue.LSP().passes(100) == 0
    assert Trained.preset("paper").get_params() == Trained().get_params()
    with pytest.raises(ValueError, match=r"expected a preset of Trained, one of \['paper'\]"):
        Trained.preset("fast")
