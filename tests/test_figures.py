"""Figures in the README are those of the committed results."""

import importlib
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture
def benchmarks(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    yield
    for path in (ROOT / "benchmarks").glob("*.py"):
        sys.modules.pop(path.stem, None)


def test_the_readmes_table_is_made_from_the_committed_result(benchmarks):
    from cifar10 import table

    result = json.loads((ROOT / "benchmarks" / "results" / "cifar10-cpu.json").read_text())
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = table(result).splitlines()
    assert len(rows) > 8
    for row in rows:
        assert row in readme, f"run benchmarks/cifar10.py --table: {row}"


@pytest.mark.parametrize("command", ["methods_page", "presets"])
def test_tables_of_the_docs_are_made_from_the_committed_results(command, benchmarks):
    from record import RESULTS, filled

    made = importlib.import_module(command)
    result = RESULTS / "presets-cpu.json"
    arguments = [json.loads(result.read_text())] if command == "presets" else []
    page = filled(made.PAGE, f"{command}.py", made.table(*arguments))
    assert page == made.PAGE.read_text(encoding="utf-8"), f"run benchmarks/{command}.py"


def test_published_figures_name_their_source(benchmarks):
    from cifar10 import METHODS
    from published import published, published_range

    sources = json.loads((ROOT / "benchmarks" / "published.json").read_text())["sources"]
    assert {figure["source"] for figure in published()} == set(sources)
    assert {figure["method"] for figure in published()} <= set(METHODS)
    assert published_range("EM") == "13.2 to 23.8" and published_range("AUE") == ""


def test_the_leaderboard_is_written_from_committed_files(benchmarks):
    import leaderboard

    results = sorted((ROOT / "benchmarks" / "results").glob("leaderboard-*.json"))
    found = [json.loads(path.read_text()) for path in results]
    written = (ROOT / "docs" / "leaderboard.md").read_text(encoding="utf-8")
    assert leaderboard.page(found) == written, "run benchmarks/leaderboard.py --page"


def test_the_leaderboard_marks_the_worst_case_of_what_a_trainer_may_choose(benchmarks):
    import leaderboard

    figures = {
        "clean, none, seed 0": 0.9, "SEM, none, seed 0": 0.1, "SEM, none, seed 1": 0.3,
        "SEM, jpeg-10, seed 0": 0.6, "SEM, unprotected-20, seed 0": 0.8,
    }  # fmt: skip
    result = {"cells": {name: {"peak": peak} for name, peak in figures.items()}}
    assert leaderboard.table(result, "peak") == [
        "| trained on | none | jpeg-10 | unprotected-20 |",
        "|---|---|---|---|",
        "| clean | 90.0 |  |  |",
        "| SEM | 20.0 | **60.0** | 80.0 |",
    ]
