"""The tutorials run as plain scripts, and what their prose says of the figures is so."""

import runpy
import tempfile
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).parent.parent / "examples" / "tutorials"
SCRIPTS = sorted(FOLDER.glob("plot_*.py"))

plt = pytest.importorskip("matplotlib.pyplot")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:FigureCanvasAgg is non-interactive:UserWarning"),
]


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs a tutorial and gives its variables."""

    def run(name):
        values = runpy.run_path(str(FOLDER / f"{name}.py"))
        assert plt.get_fignums(), "expected at least one picture"
        return values

    plt.switch_backend("Agg")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    yield run
    plt.close("all")


def gap(results, name, clean):
    """How far below clean images a victim stays on clean test images."""
    return results[clean].mean("last") - results[name].mean("last")


def test_every_tutorial_has_a_test():
    tested = {name.removeprefix("test_") for name in globals() if name.startswith("test_plot_")}
    assert {path.stem for path in SCRIPTS} == tested


def test_plot_1_protect_folder(run, capsys):
    pytest.importorskip("skimage")
    values = run("plot_1_protect_folder")
    assert values["copies"].change().linf <= 8 and values["copies"].change().ssim > 0.95
    before, after = capsys.readouterr().out.split("All 5 pictures are protected.")
    assert "exit status" not in before and "exit status: 1" in after
    assert "things/rocket.png" in after


def test_plot_2_train_protected(run):
    values = run("plot_2_train_protected")
    clean, protected = values["clean"], values["protected"]
    tests, training = "clean test images", "training images"
    assert clean[tests][-1] - protected[tests][-1] > 0.3
    assert protected[training][-1] > clean[training][-1] - 0.05
    assert protected[training][-1] - protected[tests][-1] > 0.4


def test_plot_3_audit(run):
    report = run("plot_3_audit")["report"]
    assert report.complete and report.clean > 0.37
    assert report.worst_adaptive.countermeasure == "class-mean-subtraction"
    assert report.recovered(report.worst_adaptive) > report.recovered(report.worst_standard)


def test_plot_4_compare_methods(run):
    results = run("plot_4_compare_methods")["results"]
    for name in ("OPS", "SEM"):
        assert gap(results, name, "clean images") > 0.15
        assert gap(results, name, "RandomNoise") > 0.05


def test_plot_5_new_method(run):
    results = run("plot_5_new_method")["results"]
    for name in ("Stripes", "OneStep"):  # victims learn less in float32 than on the page
        assert gap(results, name, "clean images") > 0.08


def test_plot_6_premade(run):
    results = run("plot_6_premade")["results"]
    for name in ("cifar10-ops", "cifar10-em-class-wise"):
        assert gap(results, name, "unprotected") > 0.05


def test_plot_7_resume(run):
    values = run("plot_7_resume")
    assert values["same"] and values["second"][0] > 0.4
    assert len(values["second"]) < len(values["undisturbed"])


def test_plot_8_processes(run, capsys):
    rows = run("plot_8_processes")["rows"]
    said = capsys.readouterr().out
    digests = dict(line.split(": ") for line in said.splitlines() if line.startswith("process"))
    assert digests["process 0 of 2"] == digests["process 1 of 2"]
    assert 0 < (rows[0] == rows[1]).mean() < 1
    assert all(np.abs(row).max() <= 8 for row in rows)
