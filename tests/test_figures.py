"""Figures in the README are those of the committed results."""

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


def test_the_methods_table_is_made_from_the_committed_result(benchmarks):
    from methods_page import PAGE, page

    assert page() == PAGE.read_text(encoding="utf-8"), "run benchmarks/methods_page.py"


def test_published_figures_name_their_source(benchmarks):
    from cifar10 import METHODS
    from published import published, published_range

    sources = json.loads((ROOT / "benchmarks" / "published.json").read_text())["sources"]
    assert {figure["source"] for figure in published()} == set(sources)
    assert {figure["method"] for figure in published()} <= set(METHODS)
    assert published_range("EM") == "13.2 to 23.8" and published_range("AUE") == ""


def test_the_leaderboard_is_written_from_committed_files(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import leaderboard

    results = sorted((ROOT / "benchmarks" / "results").glob("leaderboard-*.json"))
    found = [json.loads(path.read_text()) for path in results]
    written = (ROOT / "docs" / "leaderboard.md").read_text(encoding="utf-8")
    assert leaderboard.page(found) == written, "run benchmarks/leaderboard.py --page"
    for name in ("leaderboard", "cifar10", "record"):
        sys.modules.pop(name, None)


def test_the_leaderboard_marks_the_worst_case_of_what_a_trainer_may_choose(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
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
    for name in ("leaderboard", "cifar10", "record"):
        sys.modules.pop(name, None)
