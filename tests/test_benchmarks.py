"""Commands of benchmarks/ continue the committed results, and refuse what would spoil them."""

import argparse
import ast
import json
import re
import runpy
import shlex
import shutil
import sys
from pathlib import Path

import pytest

import unlearnable as ue

FOLDER = Path(__file__).parent.parent / "benchmarks"
COMMAND = re.compile(r"^ *python (benchmarks/(\w+)\.py.*)$", re.MULTILINE)


class Started(Exception):
    """A command got as far as its record."""


def documented():
    """Commands that docstrings name and that write a result, as lists of words."""
    for path in sorted(FOLDER.glob("*.py")):
        text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        for command, name in COMMAND.findall(text.replace("\\\n", " ")):
            writes = re.search(r"\bRecord\(", (FOLDER / f"{name}.py").read_text(encoding="utf-8"))
            if writes and not re.search("--table|--pushed|--device cuda", command):
                yield shlex.split(command)


@pytest.mark.parametrize("words", list(documented()), ids=" ".join)
def test_a_documented_command_continues_the_committed_result(
    words, benchmarks, monkeypatch, varying_folder
):
    import record

    def refuse_others(self, path, settings, device="auto"):
        if Path(path).exists():
            committed = json.loads(Path(path).read_text(encoding="utf-8"))["settings"]
            assert json.loads(json.dumps(settings)) == committed
        raise Started

    monkeypatch.setattr(record.Record, "__init__", refuse_others)
    monkeypatch.chdir(FOLDER.parent)
    words = [str(varying_folder.root) if word == "PHOTOS" else word for word in words]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(Started):
        runpy.run_path(words[0], run_name="__main__")


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_a_root_without_images_is_refused(name, benchmarks, tmp_path):
    from cifar import opened

    with pytest.raises(SystemExit, match=r"expected ROOT, a folder with cifar-10.*, before"):
        opened(name, None)
    with pytest.raises(SystemExit, match=r"expected cifar-10.* in ROOT, got .*"):
        opened(name, str(tmp_path))


def started(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", [str(word) for word in words])
    runpy.run_path(str(FOLDER / words[0]), run_name="__main__")


@pytest.mark.parametrize("command", ["leaderboard.py", "cifar10.py", "presets.py"])
def test_a_result_never_says_more_images_than_there_were(
    command, benchmarks, cifar10, tmp_path, monkeypatch
):
    out = tmp_path / "result.json"
    with pytest.raises(SystemExit, match="expected at most the 40 images that ROOT has, got 50"):
        started(monkeypatch, command, cifar10.root, "--images", 50, "--out", out)
    assert not out.exists()


def test_rows_that_are_done_need_no_fit_to_continue(benchmarks, cifar10, tmp_path, monkeypatch):
    folder = Path(cifar10.root) / cifar10.base_folder
    shutil.copy(folder / "data_batch_1", folder / "test_batch")
    out, work = tmp_path / "result.json", tmp_path / "work"
    words = ["presets.py", cifar10.root, "--method", "AUE", "--images", 20, "--epochs", 1]
    words += ["--seeds", 1, "--device", "cpu", "--out", out]
    started(monkeypatch, *words, "--work", work, "--only", "clean", "fast")
    written = out.read_bytes()
    started(monkeypatch, *words, "--work", tmp_path / "elsewhere", "--only", "clean", "fast")
    assert out.read_bytes() == written and not (tmp_path / "elsewhere").exists()
    result = json.loads(written)
    first = result["cells"]["fast"].pop("victims")
    out.write_text(json.dumps(result))  # stopped between the fit and its victims
    started(monkeypatch, *words, "--work", tmp_path / "elsewhere", "--only", "fast")
    assert json.loads(out.read_text())["cells"]["fast"]["victims"]["last"] == first["last"]
    with pytest.raises(SystemExit):
        started(monkeypatch, *words, "--only", "fsat")


def test_what_was_fitted_with_anything_else_is_not_released(benchmarks, shapes, tmp_path):
    from release import check_same

    found = ue.LSP(cell=4).fit(shapes, device="cpu", progress=False).perturbation_
    check_same(found, ue.LSP(cell=4), tmp_path)
    for other in (ue.LSP(cell=8), ue.RandomNoise()):
        with pytest.raises(SystemExit, match=r"what .* gives, found what is of LSP.*delete that"):
            check_same(found, other, tmp_path)


def test_copies_are_not_made_with_an_earlier_fit_of_other_steps(
    benchmarks, shapes, tmp_path, monkeypatch
):
    import copies

    args = argparse.Namespace(dataset="cifar10", work=tmp_path)
    monkeypatch.setattr(copies, "STEPS", {"cifar10": 2})
    made = copies.perturbation_of("low", shapes, args)
    assert copies.perturbation_of("low", shapes, args).digest == made.digest
    monkeypatch.setattr(copies, "STEPS", {"cifar10": 3})
    with pytest.raises(SystemExit, match="choose another --work"):
        copies.perturbation_of("low", shapes, args)
