"""Figures in the README are those of the committed results."""

import argparse
import importlib
import json
import shutil
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


@pytest.mark.parametrize(
    "command", ["fullsize", "methods_page", "photos", "presets", "processes", "recipes", "strength"]
)
def test_tables_of_the_docs_are_made_from_the_committed_results(command, benchmarks):
    from record import RESULTS, filled

    made = importlib.import_module(command)
    result = RESULTS / f"{command}-cpu.json"
    arguments = [json.loads(result.read_text())] if result.exists() else []
    page = filled(made.PAGE, f"{command}.py", made.table(*arguments))
    assert page == made.PAGE.read_text(encoding="utf-8"), f"run benchmarks/{command}.py"


def test_the_table_of_all_methods_is_made_from_the_committed_result(benchmarks):
    from cifar10 import table
    from methods_page import OURS, PAGE
    from record import filled

    page = filled(PAGE, "cifar10.py", table(json.loads(OURS.read_text(encoding="utf-8"))))
    assert page == PAGE.read_text(encoding="utf-8"), "run benchmarks/methods_page.py"


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


def test_the_leaderboard_is_written_from_committed_files(benchmarks):
    import leaderboard_page

    results = leaderboard_page.results()
    made = {"leaderboard.md": leaderboard_page.page(results)}
    made |= {f"{name}.svg": leaderboard_page.picture(result) for name, result in results.items()}
    for name, text in made.items():
        place = leaderboard_page.PAGE.parent / name
        written = place.read_text(encoding="utf-8") if text else None
        assert text == written, "run benchmarks/leaderboard_page.py"


def test_figures_far_from_the_published_ones_are_explained(benchmarks):
    from leaderboard_page import cause_of, differences

    # Published for TAP: 6.3 to 22.5; AR under JPEG 10: 84.8 to 85.2.
    figures = {
        "TAP, none, seed 0": (0.35, 0.34), "TAP, none, seed 1": (0.35, 0.34),
        "AR, jpeg-10, seed 0": (0.6, 0.5), "AR, none, seed 0": (0.25, 0.20),
    }  # fmt: skip
    cells = {name: {"peak": peak, "last": last} for name, (peak, last) in figures.items()}
    far = differences({"cells": cells})
    assert [(d.method, d.countermeasure) for d in far] == [("TAP", "none"), ("AR", "jpeg-10")]
    assert far[0].gap == pytest.approx(34 - 22.51) and far[1].gap == pytest.approx(60 - 84.75)
    assert all(map(cause_of, far))


def test_the_leaderboard_marks_the_worst_case_of_what_a_trainer_may_choose(benchmarks):
    from leaderboard_page import table

    figures = {
        "clean, none, seed 0": 0.9, "SEM, none, seed 0": 0.1, "SEM, none, seed 1": 0.3,
        "SEM, jpeg-10, seed 0": 0.6, "SEM, unprotected-20, seed 0": 0.8,
    }  # fmt: skip
    result = {"cells": {name: {"peak": peak, "last": 0} for name, peak in figures.items()}}
    assert table(result, "peak") == [
        "| trained on | none | jpeg-10 | unprotected-20 |",
        "|---|---|---|---|",
        "| clean | 90.0 (92 to 95) |  |  |",
        "| SEM | 20.0 ± 14.1 (16) | **60.0** (82) | 80.0 |",
    ]


def test_the_heat_map_has_the_strongest_protection_on_top(benchmarks):
    from xml.etree import ElementTree

    from leaderboard_page import picture

    figures = {
        "clean, none, seed 0": 0.9, "OPS, none, seed 0": 0.1, "OPS, jpeg-10, seed 0": 0.8,
        "SEM, none, seed 0": 0.2, "SEM, jpeg-10, seed 0": 0.62, "SEM, unprotected-20, seed 0": 0.85,
    }  # fmt: skip
    settings = {"images": 5, "victim": "tiny", "epochs": 1, "peak_images": None, "preset": "demo"}
    settings |= {"surrogate": "tiny", "train_steps": None}
    result = {
        "settings": settings, "date": "today",
        "machine": {"device": "x", "threads": 1, "torch": ""},
        "cells": {name: {"peak": peak, "last": peak} for name, peak in figures.items()},
    }  # fmt: skip
    drawn = ElementTree.fromstring(picture(result))
    texts = [e.text for e in drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert texts == [
        "none", "jpeg-10", "unprotected-20",
        "SEM", "20", "62", "85", "OPS", "10", "80", "clean", "90",
    ]  # fmt: skip
    rectangles = list(drawn.iter("{http://www.w3.org/2000/svg}rect"))
    framed = [r.get("x") for r in rectangles if r.get("class") == "worst"]
    jpeg = next(e for e in rectangles[2:] if e.get("class") == "heat")
    assert framed == [jpeg.get("x")] * 2  # an unprotected part is not the trainer's to choose
    strength = [float(e.get("fill-opacity")) for e in rectangles if e.get("class") == "heat"]
    assert sorted(strength, reverse=True)[:2] == [strength[-1], strength[2]]
    del result["cells"]["clean, none, seed 0"]
    assert picture(result) is None


def test_known_patterns_are_held_against_a_leaderboard(benchmarks):
    from patterns import ADVERSARIAL, findings, section

    figures = {("clean", "jpeg-10"): 60.0, ("EM", "jpeg-10"): 55.0, ("AR", "jpeg-10"): 50.0}
    figures[("SEM", "jpeg-10")] = 20.0
    assert findings(figures) == []  # of too few methods to say so
    figures[("TAP", "jpeg-10")] = 55.0
    (jpeg,) = findings(figures)
    assert jpeg.appears and jpeg.measured == "3 of 4 additive methods; not SEM 20 %"
    figures |= {("clean", ADVERSARIAL): 50.0, ("EM", ADVERSARIAL): 30.0}
    figures |= {("REM", ADVERSARIAL): 32.0, ("SEM", ADVERSARIAL): 20.0}
    _, order = findings(figures)
    assert not order.appears and order.measured == "EM 50 %, REM 55 %, SEM 25 %"
    with pytest.raises(LookupError, match="adversarial training undoes EM"):
        section(figures, {})
    assert f"Why not: {order.pattern}? few steps" in section(figures, {order.pattern: "few steps"})


@pytest.mark.parametrize("dataset", ["photos", "cifar10"])
def test_what_a_lower_visibility_costs_is_made_from_the_committed_result(dataset, benchmarks):
    from copies import PAGE, table
    from record import RESULTS, filled

    result = json.loads((RESULTS / f"copies-{dataset}-cpu.json").read_text())
    page = filled(PAGE, f"copies.py {dataset}", table(result))
    assert page == PAGE.read_text(encoding="utf-8"), f"run benchmarks/copies.py {dataset} --table"
