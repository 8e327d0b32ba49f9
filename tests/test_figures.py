"""Figures in the README are those of the committed results."""

import argparse
import importlib
import json
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def test_the_readmes_table_is_made_from_the_committed_result(benchmarks):
    from cifar10 import table

    result = json.loads((ROOT / "benchmarks" / "results" / "cifar10-cpu.json").read_text())
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = table(result).splitlines()
    assert len(rows) > 8
    for row in rows:
        assert row in readme, f"run benchmarks/cifar10.py --table: {row}"


@pytest.mark.parametrize(
    "command", ["fullsize", "photos", "presets", "processes", "recipes", "strength"]
)
def test_tables_of_the_docs_are_made_from_the_committed_results(command, benchmarks):
    from record import RESULTS, filled

    made = importlib.import_module(command)
    result = RESULTS / f"{command}-cpu.json"
    arguments = [json.loads(result.read_text())] if result.exists() else []
    page = filled(made.PAGE, f"{command}.py", made.table(*arguments))
    assert page == made.PAGE.read_text(encoding="utf-8"), f"run benchmarks/{command}.py"


def test_results_continued_elsewhere_say_which_cells_come_from_there(
    benchmarks, tmp_path, monkeypatch
):
    import record

    here = record.machine("cpu")
    there = here | {"device": "GPU", "unlearnable": "0.0.1"}
    path = tmp_path / "result.json"
    record.Record(path, {"epochs": 1}, "cpu").put("EM", {"peak": 0.1})
    assert record.where(json.loads(path.read_text())).startswith(here["device"])
    monkeypatch.setattr(record, "machine", lambda device: there)
    elsewhere = record.Record(path, {"epochs": 1}, "cpu")
    for name in ("SEM", "SEM", "REM"):
        elsewhere.put(name, {"peak": 0.2})
    monkeypatch.setattr(record, "machine", lambda device: here)
    record.Record(path, {"epochs": 1}, "cpu").put("TAP", {"peak": 0.3})
    result = json.loads(path.read_text())
    assert result["machine"] == here and len(result["cells"]) == 4
    assert result["further"] == [{"machine": there, "cells": ["SEM", "REM"]}]
    assert "; some cells: GPU, " in record.where(result)


def test_the_leaderboard_takes_kept_perturbations_of_its_own_settings_alone(
    benchmarks, tmp_path, shapes
):
    from leaderboard import perturbation_of

    def start(name="OPS", **changes):
        args = {
            "work": tmp_path, "out": Path("board.json"), "images": 40, "preset": "demo",
            "surrogate": "tiny", "train_steps": None, "device": "cpu", "compile": False,
            "budget": None, "started": 0.0,
        }  # fmt: skip
        return perturbation_of(name, shapes, argparse.Namespace(**args | changes))

    folder = tmp_path / "board" / "OPS"
    made = start()
    written = (folder / "config.json").stat().st_mtime_ns
    assert start().digest == made.digest
    assert (folder / "config.json").stat().st_mtime_ns == written
    for changes in ({"images": 20}, {"preset": "fast"}):
        with pytest.raises(SystemExit, match=r"OPS .*delete that folder, or choose another --work"):
            start(**changes)
    (note,) = (tmp_path / "board").rglob("note.json")
    note.unlink()
    with pytest.raises(SystemExit, match="unknown settings"):
        start()
    shutil.rmtree(folder)
    assert start().digest == made.digest
    assert json.loads(note.read_text())["method"] == "OPS()"


def test_published_figures_name_their_source(benchmarks):
    from cifar10 import METHODS
    from published import published, published_range

    sources = json.loads((ROOT / "benchmarks" / "published.json").read_text())["sources"]
    assert {figure["source"] for figure in published()} == set(sources)
    assert {figure["method"] for figure in published()} <= set(METHODS)
    assert published_range("EM") == "13.2 to 23.8" and published_range("AUE") == ""


@pytest.mark.parametrize("dataset", ["photos", "cifar10"])
def test_what_a_lower_visibility_costs_is_made_from_the_committed_result(dataset, benchmarks):
    from copies import PAGE, table
    from record import RESULTS, filled

    result = json.loads((RESULTS / f"copies-{dataset}-cpu.json").read_text())
    page = filled(PAGE, f"copies.py {dataset}", table(result))
    assert page == PAGE.read_text(encoding="utf-8"), f"run benchmarks/copies.py {dataset} --table"
