"""What a fit, an evaluation and an audit say of time and memory before their first step."""

import logging
import warnings

import pytest
import torch

import unlearnable as ue
from unlearnable.datasets import Shapes
from unlearnable.engine import estimate as module
from unlearnable.engine import precision
from unlearnable.engine.estimate import Estimate, Work, duration, gigabytes
from unlearnable.engine.precision import Pace, Precision
from unlearnable.methods.fit_session import work_of_fit

OPTIONS = {"device": "cpu", "progress": False}


@pytest.fixture
def paces(monkeypatch):
    """Networks of a known pace; gives what was timed."""
    timed = []

    def measure(network, images, labels, name):
        timed.append(name)
        return Pace(0.2, 0.1)

    monkeypatch.setattr("unlearnable.engine.trial.measure_pace", measure)
    return timed


@pytest.fixture
def nothing_is_tiny(monkeypatch):
    monkeypatch.setattr(Work, "is_tiny", lambda work, values: False)


def sem(**options):
    return ue.SEM.preset("demo", train_steps=2, steps=1, batch_size=8, **options)


def lines(caplog):
    return [r.getMessage() for r in caplog.records if r.name == module.__name__]


def test_it_is_one_line_of_work_time_and_memory():
    found = Estimate("SEM", "1,020,000 image passes of resnet9 in bf16", 700.0, 1.14e9, 2e9)
    assert str(found) == (
        "SEM: 1,020,000 image passes of resnet9 in bf16, about 12 min and 1.1 GB here"
    )
    assert str(found._replace(seconds=None)).endswith("in bf16, about 1.1 GB here")
    assert [duration(s) for s in (3, 600, 9000, 5e5)] == ["3 s", "10 min", "2.5 h", "5.8 days"]
    assert [gigabytes(size) for size in (1, 2.34e9, 2.34e10)] == ["0.1 GB", "2.3 GB", "23 GB"]


def test_what_is_long_or_too_large_is_a_warning_that_says_what_helps():
    fine = Estimate("SEM", "passes", 60.0, 1e9, 2e9, ['The preset "fast" needs less.'])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fine.say()
    with pytest.warns(UserWarning, match='4.0 h and 1.0 GB here. The preset "fast"') as caught:
        fine._replace(seconds=4 * 3600).say()
    assert "GPU" in str(caught[0].message) and "batch_size" not in str(caught[0].message)
    with pytest.warns(UserWarning, match="only 2.0 GB of memory .*smaller batch_size"):
        fine._replace(memory=3e9).say()


def test_cheaper_presets_are_part_of_the_advice():
    found = " ".join(work_of_fit(ue.TAP(), 0, 50_000).advice(1 / 40))
    assert 'preset "fast"' in found and "'tiny'" in found and "h." in found
    assert work_of_fit(ue.SEM.preset("demo"), 0, 50_000).advice(1 / 40) == []
    network = torch.nn.Flatten()
    for larger in (ue.EM("resnet9", steps=100), ue.EM(network, steps=100)):
        assert not any("resnet18" in text for text in work_of_fit(larger, 0, 50_000).advice(1))
    assert work_of_fit(ue.LSP(), 0, 50_000) is None  # trains nothing


def test_a_fit_says_it_once_and_learns_the_same(paces, nothing_is_tiny, caplog, monkeypatch):
    caplog.set_level(logging.INFO)
    method, state = sem(), torch.get_rng_state()
    method.fit(Shapes(size=16), **OPTIONS)
    assert torch.equal(torch.get_rng_state(), state)
    (line,) = lines(caplog)
    seconds = duration(0.15 * method.passes(16))  # half of them are taken for those of a search
    assert f"SEM: {method.passes(16):,} image passes of tiny in float32, about {seconds}" in line
    assert paces == ["float32"]
    monkeypatch.setattr(Work, "is_tiny", lambda work, values: True)
    silent = sem().fit(Shapes(size=16), **OPTIONS)
    assert silent.perturbation_.digest == method.perturbation_.digest
    assert len(lines(caplog)) == len(paces) == 1  # of little work, nothing is said or measured


def test_a_fit_that_takes_more_than_there_is_warns_before_its_first_step(
    paces, nothing_is_tiny, monkeypatch
):
    monkeypatch.setattr(module, "free_memory", lambda device, processes: 1000)
    monkeypatch.setattr(ue.SEM, "_search", None)  # it does not get so far
    with (
        pytest.warns(UserWarning, match="of memory are available. To save memory"),
        pytest.raises(TypeError),
    ):
        sem().fit(Shapes(size=16), **OPTIONS)


def test_what_the_trial_of_precisions_timed_is_not_timed_again(
    paces, nothing_is_tiny, caplog, monkeypatch
):
    caplog.set_level(logging.INFO)
    chosen = Precision("float32", "so the test says", pace=Pace(3.0, 1.0))
    monkeypatch.setattr("unlearnable.engine.trial.choose_precision", lambda *args: chosen)
    sem().fit(Shapes(size=16), **OPTIONS)
    assert not paces and f"about {duration(2 * sem().passes(16))}" in lines(caplog)[0]


def test_a_network_is_timed_once_in_a_process(monkeypatch):
    monkeypatch.setattr(precision, "_PACES", {})
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 2))
    images, labels = torch.rand(8, 3, 2, 2), torch.arange(8) % 2
    found = precision.measure_pace(network, images, labels, "float32")
    assert 0 < found.training < 1 and 0 < found.search < 1
    monkeypatch.setattr(precision, "_timed", None)
    assert precision.measure_pace(network, images, labels, "float32") is found
    assert precision.measure_pace(torch.nn.Identity(), images, labels, "float32") is None


def test_an_evaluation_says_it_once_for_all_victims(paces, nothing_is_tiny, caplog):
    caplog.set_level(logging.INFO)
    train, test = Shapes(size=32), Shapes(False, size=30)
    ue.evaluate(
        train, test, "tiny", epochs=2, seeds=2, batch_size=16,
        countermeasure="adversarial-training-4-steps-3", **OPTIONS,
    )  # fmt: skip
    (line,) = lines(caplog)
    passes = 2 * 2 * (32 * 4 + 10)
    assert f"{passes} image passes of tiny in float32, about {duration(0.2 * passes)}" in line
    assert len(paces) == 1
