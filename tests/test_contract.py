"""What every method promises. A new one gets all of this by its entry in ``METHODS``."""

import copy
import json
import math
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import unlearnable as ue
from unlearnable.datasets import Shapes
from unlearnable.engine import checkpoint as checkpoint_module
from unlearnable.engine.checkpoint import Checkpoint

HERE = Path(__file__).parent

# What makes a method small enough for a test, by parameter name.
SMALL = {
    "train_steps": 2,
    "final_steps": 1,
    "round_steps": 2,
    "max_rounds": 1,
    "rounds": 3,
    "extend_steps": 1,
    "stop_error": 1.0,
    "train_epochs": 2,
    "checkpoints": 2,
    "restarts": 2,
    "particles": 3,
    "iterations": 2,
    "steps": 1,
    "batch_size": 16,
}

CASES = [
    (method, granularity) for method in ue.METHODS for granularity in ("sample-wise", "class-wise")
]


def make(method, granularity=None, **overrides):
    known = method().get_params()
    small = {name: value for name, value in SMALL.items() if name in known}
    if "surrogate" in known:
        small["surrogate"] = "tiny"
    small["granularity"] = granularity or method.granularities[0]
    return method.preset("demo", **(small | overrides))


def lowest(method):
    """Kind of the perturbation, or of what lies below all else in a stack."""
    return method.below if method.kind == "stack" else method.kind


SUPPORTED = [
    (method, granularity) for method, granularity in CASES if granularity in method.granularities
]
REFUSED = [case for case in CASES if case not in SUPPORTED]
# Rows of these are computed for any image of a known class.
PROCEDURAL = [method for method in ue.METHODS if lowest(method) == "procedural"]
SAMPLE_WISE = [
    method
    for method, granularity in SUPPORTED
    if granularity == "sample-wise" and method not in PROCEDURAL
]
FOR_ANY_IMAGE = [case for case in SUPPORTED if case[1] == "class-wise" or case[0] in PROCEDURAL]


class Grey:
    """One-channel images, wider than high, and two classes."""

    def __init__(self, size=20):
        rng = np.random.default_rng(0)
        self.images = rng.integers(0, 256, (size, 12, 20), dtype=np.uint8)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.images[index], index % 2


@pytest.fixture(scope="module")
def dataset():
    return Shapes(size=40)


@pytest.fixture(scope="module", params=SUPPORTED, ids=lambda case: f"{case[0].__name__}-{case[1]}")
def fitted(request, dataset):
    return make(*request.param).fit(dataset, progress=False)


def tensors_of(method):
    tensors = method.perturbation_.tensors
    return {name: np.asarray(tensor).tobytes() for name, tensor in tensors.items()}


def rows_of(perturbation):
    """Rows, with or without something on top of them."""
    return np.asarray(perturbation.parts[0].tensors["rows"])


def images_of(method, dataset):
    """All protected images: what there is of every kind."""
    return method.protect(dataset).to_tensors()[0].numpy()


def clean_images(dataset):
    return np.stack([np.asarray(image).transpose(2, 0, 1) for image, _ in dataset])


def test_every_kind_is_learned_by_some_method():
    kinds = {"additive", "pixel", "convolution", "procedural", "shift", "stack"}
    assert kinds == {m.kind for m in ue.METHODS}


def test_there_are_methods_to_test():
    assert len(SUPPORTED) >= len(ue.METHODS) and set(SAMPLE_WISE) <= set(ue.METHODS)


@pytest.mark.parametrize(("method", "granularity"), REFUSED)
def test_a_granularity_that_is_not_there_is_refused(method, granularity, dataset):
    with pytest.raises(ValueError, match="granularity"):
        make(method, granularity).fit(dataset, progress=False)


@pytest.mark.parametrize("method", ue.METHODS)
def test_nothing_is_learned_before_fit(method, dataset):
    unfitted = make(method)
    assert [name for name in vars(unfitted) if name.endswith("_")] == []
    for use in (lambda: unfitted.protect(dataset), lambda: unfitted.extend(dataset)):
        with pytest.raises(ue.NotFittedError, match="call fit"):
            use()


@pytest.mark.parametrize("method", ue.METHODS)
def test_presets_and_parameters_round_trip(method):
    assert {"paper", "fast", "demo"} <= set(method.presets)
    assert method.preset("paper").get_params() == method().get_params()
    with pytest.raises(ValueError, match="preset"):
        method.preset("papre")
    for name in method.presets:
        known = method().get_params()
        made = method.preset(name, **({"epsilon": 5 / 255} if "epsilon" in known else {"seed": 5}))
        made._validate()
        names = {cls.__name__: cls for cls in ue.METHODS}
        assert eval(repr(made), names).get_params() == made.get_params()
        assert method(**json.loads(json.dumps(made.get_params()))).get_params() == made.get_params()


def test_fit_returns_self_and_gives_rows_within_the_budget(fitted):
    few = Shapes(size=24)
    assert fitted.fit(few, progress=False) is fitted
    assert fitted.perturbation_.kind == fitted.kind
    change = images_of(fitted, few).astype(int) - clean_images(few)
    assert change.any(axis=(1, 2, 3)).mean() > 0.5
    if lowest(fitted) != "additive":
        if lowest(fitted) == "procedural":
            p = fitted.perturbation_
            bound = 255 * p.parts[0].config["epsilon"] + 0.5 * np.sqrt(3 * 32 * 32)
            bound += sum(
                255 * part.config["epsilon"] * np.sqrt(3 * 32 * 32) for part in p.parts[1:]
            )
            assert np.linalg.norm(change.reshape(24, -1), axis=1).max() <= bound
        return
    rows = rows_of(fitted.perturbation_)
    number = 24 if fitted.granularity == "sample-wise" else 10
    assert rows.dtype == np.int8 and rows.shape == (number, 3, 32, 32)
    assert np.abs(rows.astype(int)).max() <= round(255 * fitted.epsilon)
    assert rows.any(axis=(1, 2, 3)).mean() > 0.5


def test_same_seed_same_bytes_and_a_second_fit_forgets_the_first(fitted, dataset):
    params = fitted.get_params()
    fresh = type(fitted)(**params).fit(dataset, progress=False)
    fitted.fit(Shapes(size=24, seed=5), progress=False)
    assert fitted.perturbation_.digest != fresh.perturbation_.digest
    fitted.fit(dataset, progress=False)
    assert tensors_of(fitted) == tensors_of(fresh)
    assert fitted.perturbation_.digest == fresh.perturbation_.digest
    assert np.array_equal(images_of(fitted, dataset), images_of(fresh, dataset))
    other = type(fitted)(**(params | {"seed": 1})).fit(dataset, progress=False)
    same = np.array_equal(images_of(other, dataset), images_of(fresh, dataset))
    assert same is not type(fitted).seeded
    if fitted.kind == "additive":
        assert other.perturbation_.rows.tobytes() != fresh.perturbation_.rows.tobytes()


def test_what_the_caller_owns_is_untouched(fitted, dataset):
    torch.manual_seed(3)
    np.random.seed(3)  # noqa: NPY002
    state = torch.get_rng_state(), np.random.get_state()[1].tobytes()  # noqa: NPY002
    pixels, attributes = dataset.data.copy(), dict(vars(dataset))
    params = dict(fitted.get_params())
    if "surrogate" in params:
        module = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10))
        module[1].weight.requires_grad_(False)
        weights = {name: value.clone() for name, value in module.state_dict().items()}
        torch.set_rng_state(state[0])
        type(fitted)(**(params | {"surrogate": module})).fit(dataset, progress=False)
        assert all(torch.equal(module.state_dict()[name], weights[name]) for name in weights)
        assert module.training and not module[1].weight.requires_grad and not module._forward_hooks
        assert not module._forward_pre_hooks
    else:
        type(fitted)(**params).fit(dataset, progress=False)
    assert torch.equal(torch.get_rng_state(), state[0])
    assert np.random.get_state()[1].tobytes() == state[1]  # noqa: NPY002
    assert np.array_equal(dataset.data, pixels) and vars(dataset) == attributes


@pytest.mark.parametrize(("method", "granularity"), SUPPORTED)
def test_grey_and_oblong_images(method, granularity):
    grey = Grey()
    surrogate = nn.Sequential(nn.Flatten(), nn.Linear(12 * 20, 2))
    overrides = {"surrogate": surrogate} if "surrogate" in method().get_params() else {}
    protected = make(method, granularity, **overrides).fit(grey, progress=False).protect(grey)
    images, labels = protected.to_tensors()
    assert images.shape == (20, 1, 12, 20) and labels.tolist() == [0, 1] * 10
    change = images[:, 0].int() - torch.from_numpy(grey.images).int()
    most = round(255 * method().epsilon) if method.kind == "additive" else 255
    assert 0 < change.abs().max() <= most


def test_protected_images_keep_the_budget_and_other_data_is_refused(fitted, dataset):
    fitted.fit(dataset, progress=False)
    protected = fitted.protect(dataset)
    changes = [
        np.abs(np.asarray(protected[i][0]).astype(int) - np.asarray(dataset[i][0])).max()
        for i in range(len(dataset))
    ]
    most = round(255 * fitted.epsilon) if fitted.kind == "additive" else 255
    assert 0 < max(changes) <= most
    assert [label for _, label in protected] == dataset.targets
    for_any_image = (type(fitted), fitted.granularity) in FOR_ANY_IMAGE
    assert fitted.perturbation_.by_class is (for_any_image or fitted.kind == "stack")
    rows = fitted.perturbation_.parts[0]
    assert rows.keyed is not rows.by_class and rows.keyed is fitted.perturbation_.keyed
    if rows.keyed:
        with pytest.raises(ue.UnknownImageError, match="fitted on"):
            fitted.protect(Shapes(size=40, seed=9))


def test_a_saved_method_comes_back_whole(fitted, dataset, tmp_path):
    fitted.fit(dataset, progress=False)
    folder = fitted.save_pretrained(tmp_path / "saved")
    loaded = type(fitted).from_pretrained(folder)
    assert loaded.get_params() == fitted.get_params()
    assert tensors_of(loaded) == tensors_of(fitted)
    assert loaded.history_ == fitted.history_
    assert ue.Perturbation.from_pretrained(folder).digest == fitted.perturbation_.digest
    other = next(method for method in ue.METHODS if method is not type(fitted))
    with pytest.raises(ue.ArtefactError, match=type(fitted).__name__):
        other.from_pretrained(folder)
    # Another one in the same folder leaves nothing of this one.
    ue.RandomNoise(seed=1).fit(dataset, progress=False).save_pretrained(folder)
    assert ue.RandomNoise.from_pretrained(folder).surrogate_ is None
    fitted.save_pretrained(folder)
    ue.RandomNoise(seed=2).fit(dataset, progress=False).perturbation_.save_pretrained(folder)
    with pytest.raises(ue.ArtefactError, match="another perturbation"):
        type(fitted).from_pretrained(folder)


@pytest.mark.parametrize("method", SAMPLE_WISE)
def test_extend_gives_rows_for_new_images_without_a_refit(method, dataset, tmp_path):
    fitted = make(method).fit(dataset, progress=False)
    before = tensors_of(fitted)
    new = Shapes(size=12, seed=7)
    rows = fitted.extend(new, progress=False)
    assert len(rows) == 12 and 0 < np.abs(rows_of(rows).astype(int)).max() <= 8
    assert rows.kind == fitted.kind
    assert ue.ProtectedDataset(new, rows)[3][1] == new[3][1]
    assert tensors_of(fitted) == before
    loaded = method.from_pretrained(fitted.save_pretrained(tmp_path / "m"))
    assert loaded.extend(new, progress=False).digest == rows.digest
    with pytest.raises(ValueError, match="shape"):
        fitted.extend(Grey(), progress=False)


@pytest.mark.parametrize(("method", "granularity"), FOR_ANY_IMAGE)
def test_what_is_there_for_any_image_needs_no_extension(method, granularity, dataset):
    fitted = make(method, granularity).fit(dataset, progress=False)
    with pytest.raises(ValueError, match="covers new images"):
        fitted.extend(dataset, progress=False)
    new = Shapes(size=12, seed=7)
    assert fitted.protect(new)[0][1] == new[0][1]


@pytest.mark.parametrize("method", ue.METHODS)
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"epsilon": 8}, "8 / 255"),
        ({"epsilon": -0.1}, "epsilon > 0"),
        ({"epsilon": 0.9 / 255}, r"at least 1 / 255, got 0\.9 / 255"),
        ({"norm": "linf"}, "Linf"),
        ({"granularity": "samplewise"}, "sample-wise"),
        ({"batch_size": 0}, "batch_size"),
        ({"steps": -1}, "steps"),
        ({"step_size": 2}, "2 / 255"),
        ({"train_steps": 1.5}, "train_steps"),
        ({"surrogate": "resnet19"}, "resnet18"),
    ],
)
def test_bad_parameters_are_explained(method, wrong, message, dataset):
    if not wrong.keys() <= method().get_params().keys():
        with pytest.raises(TypeError):
            make(method, **wrong)
        return
    if wrong.get("epsilon", 0) > 0 and method().norm == "L2":  # no slip there
        make(method, **wrong)._validate()
        return
    with pytest.raises(ValueError, match=message):
        make(method, **wrong).fit(dataset, progress=False)


class Crash(Exception):
    pass


def fit_and_count(method, granularity, dataset, folder):
    """A method after a fit that is not stopped, and how many steps it took."""
    calls, wanted = [], Checkpoint.wanted
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checkpoint, "wanted", lambda self: calls.append(None) or wanted(self))
        fitted = make(method, granularity).fit(dataset, checkpoint=folder, progress=False)
    return fitted, len(calls)


@pytest.mark.parametrize("moment", ["after a checkpoint", "between two", "while one is written"])
@pytest.mark.parametrize(("method", "granularity"), SUPPORTED)
@pytest.mark.slow
def test_a_fit_stopped_anywhere_goes_on_to_the_same_bytes(
    method, granularity, moment, dataset, tmp_path, monkeypatch
):
    expected, steps = fit_and_count(method, granularity, dataset, tmp_path / "whole")
    wanted, save, commit = Checkpoint.wanted, Checkpoint.save, checkpoint_module.save_tree

    def crash_at(number):
        calls = []

        def come():
            calls.append(None)
            if len(calls) == number:
                raise Crash

        def crash_after(self, state):
            save(self, state)
            come()

        def crash_between(self):
            come()
            return wanted(self)

        def crash_in_writing(path, tree):
            if path.name == "state.safetensors":
                come()
            commit(path, tree)

        return {
            "after a checkpoint": (Checkpoint, "save", crash_after),
            "between two": (Checkpoint, "wanted", crash_between),
            "while one is written": (checkpoint_module, "save_tree", crash_in_writing),
        }[moment]

    crashes = 0
    while True:
        # Rows in memory and rows on disk are both brought back to the checkpoint.
        options = {"checkpoint": tmp_path / str(crashes), "checkpoint_every": 0}
        options |= {"progress": False, "resident": crashes % 2 == 0}
        with monkeypatch.context() as patch:
            patch.setattr(*crash_at(crashes + 1))
            try:
                make(method, granularity).fit(dataset, **options)
                break
            except Crash:
                crashes += 1
        resumed = make(method, granularity).fit(dataset, **options)
        assert tensors_of(resumed) == tensors_of(expected)
        assert resumed.history_ == expected.history_
    assert crashes == steps


def run_script(*command):
    path = os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-4000:]


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("killed")
    run_script(sys.executable, str(HERE / "fit_everything.py"), "kill", str(folder))
    return folder


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shared")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    script = [str(HERE / "fit_everything.py"), "join", str(folder)]
    run_script(*torchrun, "--nproc-per-node", "2", *script)
    return folder


@pytest.fixture(scope="module")
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.slow
@pytest.mark.parametrize(("method", "granularity"), SUPPORTED)
def test_a_killed_process_is_gone_on_from_to_the_same_bytes(
    method, granularity, killed, one_thread, tmp_path
):
    name = f"{method.__name__}-{granularity}"
    dataset = Shapes(size=33)
    expected, steps = fit_and_count(method, granularity, dataset, tmp_path / "whole")
    found = np.load(killed / f"{name}.npz")
    assert {n: found[n].tobytes() for n in found if n != "images"} == tensors_of(expected)
    assert np.array_equal(found["images"], images_of(expected, dataset))
    assert (killed / f"{name}.attempt").read_text() == ("1" if steps > 1 else "0")


@pytest.mark.slow
@pytest.mark.parametrize(("method", "granularity"), SUPPORTED)
def test_two_processes_share_the_work(method, granularity, shared, one_thread):
    name = f"{method.__name__}-{granularity}"
    one, other = (dict(np.load(shared / f"{name}-{rank}.npz")) for rank in range(2))
    assert one.keys() == other.keys() and all(np.array_equal(one[n], other[n]) for n in one)
    dataset = Shapes(size=33)
    fitted = make(method, granularity).fit(dataset, progress=False)
    alone = fitted.perturbation_
    assert one.keys() == {*alone.tensors, "images"}
    assert all(one[n].shape == tensor.shape for n, tensor in alone.tensors.items())
    if alone.kind == "additive":
        assert np.array_equal(one["rows"].any(axis=(1, 2, 3)), alone.rows.any(axis=(1, 2, 3)))
    passes = {int((shared / f"{name}-{rank}.passes").read_text()) for rank in range(2)}
    assert passes == {alone.config["history"]["passes"]}
    if not any(passes):  # without a network nothing depends on how the work is shared
        assert all(np.array_equal(one[n], tensor) for n, tensor in alone.tensors.items())
        assert np.array_equal(one["images"], images_of(fitted, dataset))
    assert list(shared.glob("checkpoint-*")) == []


@pytest.mark.slow
def test_a_process_that_dies_ends_the_run_clearly_and_it_can_go_on(shared, tmp_path):
    run_script(sys.executable, str(HERE / "fit_everything.py"), "lose", str(tmp_path))
    message = (tmp_path / "message-0").read_text()
    assert "expected 2 processes to continue together" in message and "checkpoint" in message
    whole, found = (
        np.load(shared / "SEM-sample-wise-0.npz"),
        np.load(tmp_path / "SEM-sample-wise.npz"),
    )
    assert set(whole) == set(found) >= {"rows", "images"}
    assert all(np.array_equal(found[name], whole[name]) for name in whole)


# --- numbers of other libraries ------------------------------------------------------------------
def numbers_of(method):
    """The parameters that are numbers, by name."""
    params = make(method).get_params().items()
    return {n: v for n, v in params if isinstance(v, (int, float)) and not isinstance(v, bool)}


NUMBERS = [(method, name) for method in ue.METHODS for name in numbers_of(method)]
FORMS = {
    "numpy": lambda v: np.int64(v) if isinstance(v, int) else np.float64(v),
    "short": lambda v: np.int16(v) if isinstance(v, int) else np.array(v),
    "torch": lambda v: torch.tensor(v, dtype=torch.float64 if isinstance(v, float) else None),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("method", ue.METHODS)
@pytest.mark.slow
def test_numbers_of_numpy_and_torch_are_python_numbers(method, form, dataset, tmp_path):
    numbers = numbers_of(method)
    expected, found = make(method), make(method, **{n: FORMS[form](numbers[n]) for n in numbers})
    assert repr(found) == repr(expected) and found.passes(40) == expected.passes(40)
    options = {"checkpoint": tmp_path / "c", "keep_checkpoint": True, "progress": False}
    found.fit(dataset, checkpoint_every=np.float32(0), **options)
    assert all(type(getattr(found, name)) is type(value) for name, value in numbers.items())
    expected.fit(dataset, progress=False)
    assert found.perturbation_.digest == expected.perturbation_.digest
    assert json.dumps(found.perturbation_.config) == json.dumps(expected.perturbation_.config)
    make(method).fit(dataset, **options)  # the checkpoint is that of this very fit


@pytest.mark.parametrize(("method", "name"), NUMBERS)
@pytest.mark.parametrize("wrong", [True, "1", [1]])
def test_what_is_no_number_is_refused(method, name, wrong):
    with pytest.raises(ValueError, match=f"expected {name} "):
        make(method, **{name: wrong})._validate()


@pytest.mark.parametrize("method", ue.METHODS)
@pytest.mark.parametrize("seed", [True, 1.5, None, np.float64(1), "0"])
def test_a_seed_is_an_integer(method, seed):
    with pytest.raises(ValueError, match="expected seed to be an integer, got"):
        make(method, seed=seed)._validate()


@pytest.mark.parametrize(
    ("options", "same"),
    [
        ({"image_size": np.int64(8)}, {"image_size": 8}),
        ({"image_size": (np.int32(8), torch.tensor(12))}, {"image_size": (8, 12)}),
    ],
)
def test_numbers_of_fit_are_python_numbers(options, same, dataset, tmp_path):
    found, expected = (
        ue.RandomNoise().fit(dataset, progress=False, **chosen).perturbation_
        for chosen in (options, same)
    )
    assert found.digest == expected.digest
    found.save_pretrained(tmp_path / "saved")


@pytest.mark.parametrize("wrong", [-1, True, "often", None, float("nan"), -math.inf])
def test_seconds_between_checkpoints_are_a_number(wrong, dataset):
    with pytest.raises(ValueError, match="expected checkpoint_every"):
        ue.RandomNoise().fit(dataset, checkpoint_every=wrong, progress=False)


def test_checkpoints_may_be_left_to_ctrl_c(dataset, tmp_path):
    folder = tmp_path / "c"
    ue.RandomNoise().fit(dataset, checkpoint=folder, checkpoint_every=math.inf, progress=False)


@pytest.mark.parametrize("wrong", [np.ones(2), np.array(["Linf", "L2"]), [1], torch.ones(2)])
def test_arrays_are_no_flags_and_no_words(wrong):
    with pytest.raises(ValueError, match="expected warm_start to be True or False, got"):
        ue.SEM(warm_start=wrong)._validate()
    with pytest.raises(ValueError, match="expected norm to be one of"):
        ue.SEM(norm=wrong)._validate()


@pytest.mark.parametrize("method", ue.METHODS)
def test_a_flag_is_true_or_false(method):
    for name, value in method().get_params().items():
        if isinstance(value, bool):
            made = method(**{name: np.bool_(value)})
            made._validate()
            assert getattr(made, name) is value
            with pytest.raises(ValueError, match=f"expected {name} to be True or False"):
                method(**{name: "false"})._validate()


# --- as scikit-learn has it ----------------------------------------------------------------------
def clone(method):
    """As ``sklearn.base.clone`` copies an estimator, with its check of what it made."""
    params = {n: copy.deepcopy(value) for n, value in method.get_params(deep=False).items()}
    made = type(method)(**params)
    assert all(made.get_params(deep=False)[name] is value for name, value in params.items())
    return made


def test_a_clone_is_unfitted_and_equal(fitted):
    copied = clone(fitted)
    assert copied.get_params() == fitted.get_params(deep=True) and repr(copied) == repr(fitted)
    assert not hasattr(copied, "perturbation_")
    assert clone(type(fitted)(seed=np.int64(3))).seed == 3


def test_set_params_replaces_some_and_knows_all(fitted):
    method = clone(fitted)
    assert method.set_params(seed=np.int64(5), granularity=method.granularity) is method
    assert type(method.seed) is int and method.seed == 5
    assert method.get_params() == fitted.get_params() | {"seed": 5}
    with pytest.raises(ValueError, match=r"got 'sede'; did you mean 'seed'\?"):
        method.set_params(seed=6, sede=1)
    assert method.seed == 5


@pytest.mark.parametrize("method", ue.METHODS)
@pytest.mark.parametrize("name", ["perturbation_", "surrogate_", "history_"])
def test_what_fit_gives_is_not_there_before(method, name):
    with pytest.raises(ue.NotFittedError, match=f"this {method.__name__} is not fitted"):
        getattr(method(), name)
    assert not hasattr(method(), name)
    with pytest.raises(AttributeError, match="no attribute 'perturbation'") as caught:
        method().perturbation  # noqa: B018
    assert not isinstance(caught.value, ue.NotFittedError)


def test_copies_and_pickles_are_as_fitted_as_their_origin(fitted, dataset):
    for method in (fitted.fit(dataset, progress=False), clone(fitted)):
        for copied in (
            copy.copy(method),
            copy.deepcopy(method),
            pickle.loads(pickle.dumps(method)),
        ):
            assert copied.get_params() == method.get_params()
            assert hasattr(copied, "perturbation_") is (method is fitted)
            if method is fitted:
                assert tensors_of(copied) == tensors_of(fitted)
                assert copied.history_ == fitted.history_


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(("method", "granularity"), SUPPORTED)
def test_fits_on_a_gpu(method, granularity, dataset):
    fitted = make(method, granularity).fit(dataset, device="cuda", progress=False)
    change = np.abs(images_of(fitted, dataset).astype(int) - clean_images(dataset)).max()
    assert 0 < change <= (8 if method.kind == "additive" else 255)
    if method.kind == "additive":
        assert 0 < np.abs(fitted.perturbation_.rows.astype(int)).max() <= 8
