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
