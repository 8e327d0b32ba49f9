"""Figures in the README are those of the committed results."""

import argparse
import importlib
import json
import shutil
from pathlib import Path

import pytest

import unlearnable as ue

ROOT = Path(__file__).parent.parent


def test_the_table_of_the_tiny_network_is_made_from_the_committed_result(benchmarks):
    from cifar10 import table

    result = json.loads((ROOT / "benchmarks" / "results" / "cifar10-cpu.json").read_text())
    page = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    rows = table(result).splitlines()
    assert len(rows) > 8
    for row in rows:
        assert row in page, f"run benchmarks/cifar10.py --table: {row}"


@pytest.mark.parametrize(
    "command", ["fullsize", "photos", "processes", "projection", "recipes", "strength"]
)
def test_tables_of_the_docs_are_made_from_the_committed_results(command, benchmarks):
    from record import RESULTS, filled

    made = importlib.import_module(command)
    result = RESULTS / f"{command}-cpu.json"
    arguments = [json.loads(result.read_text())] if result.exists() else []
    page = filled(made.PAGE, f"{command}.py", made.table(*arguments))
    assert page == made.PAGE.read_text(encoding="utf-8"), f"run benchmarks/{command}.py"


@pytest.mark.parametrize("method", ["SEM", "AUE", "MIUE", "REM"])
def test_tables_of_presets_are_made_from_the_committed_results(method, benchmarks):
    from presets import PAGES, result_of, table
    from record import RESULTS, filled

    result = json.loads((RESULTS / result_of(method)).read_text())
    page = filled(PAGES[method], "presets.py", table(result))
    assert page == PAGES[method].read_text(encoding="utf-8"), f"run presets.py --method {method}"


@pytest.mark.parametrize(
    ("command", "result"),
    [
        ("architectures", "architectures-gpu"),
        ("convolutions", "convolutions-gpu"),
    ],
)
def test_tables_of_a_gpu_are_made_from_the_committed_results(command, result, benchmarks):
    from record import RESULTS, filled

    made = importlib.import_module(command)
    table = made.table(json.loads((RESULTS / f"{result}.json").read_text()))
    page = filled(made.PAGE, f"{command}.py", table)
    assert page == made.PAGE.read_text(encoding="utf-8"), f"run benchmarks/{command}.py"


@pytest.mark.parametrize("command", ["bait", "full_table"])
def test_several_tables_of_a_page_are_made_from_the_committed_results(command, benchmarks):
    from record import RESULTS, filled

    made = importlib.import_module(command)
    page = made.PAGE.read_text(encoding="utf-8")
    for place, name in made.TABLES.items():
        table = made.table(json.loads((RESULTS / name).read_text()))
        assert filled(made.PAGE, place, table) == page, f"run benchmarks/{command}.py"


def test_what_holds_against_all_countermeasures_is_said_as_measured(benchmarks):
    from boards import boards, counts_for_worst

    from unlearnable.evaluation.countermeasures import countermeasure

    board = next(board for board in boards() if board.name == "full-resnet9")
    figures = board.figures
    tried = {c: f for (m, c), f in figures.items() if m == "Lasting" and c != "none"}
    assert len(tried) == 7 and all(map(counts_for_worst, tried))
    worst = max(tried, key=lambda c: board.given_back("Lasting", c))
    assert worst == "channel-normalization+jpeg-10"
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    clean = figures["clean", worst].last
    early = max(tried, key=lambda c: board.given_back("Lasting", c, "peak"))
    assert early == "adversarial-training-4-steps-3" == max(tried, key=lambda c: tried[c].peak)
    for said in (
        "Under the worst of seven countermeasures",
        f"victims of `Lasting` reach {tried[worst].last:.1f} %, and victims of clean images "
        f"{clean:.1f} %; whoever stops at the best epoch gets most by adversarial training, "
        f"{tried[early].peak:.1f} % and {figures['clean', early].peak:.1f} %.",
    ):
        assert said in readme
    assert not any(countermeasure(counter).knows_method for counter in tried)
    smaller = next(board for board in boards() if board.name == "leaderboard-resnet9").figures
    knows = "class-mean-subtraction+spectrum-matching"
    assert countermeasure(knows).knows_method
    assert (
        f"gave victims of `Lasting` {smaller['Lasting', knows].last:.1f} %, and those of clean "
        f"images {smaller['clean', knows].last:.1f} %, on 10,000 images" in readme
    )
    within = {
        m: f.last
        for (m, c), f in figures.items()
        if c == "adversarial-training-4-steps-3" and m not in ("clean", "Lasting")
    }
    assert min(within, key=within.__getitem__) == "SEM" and {"REM", "EM"} <= set(within)
    assert within["SEM"] < within["REM"] < within["EM"]
    assert figures["SEM", "none"].last < figures["REM", "none"].last
    passes = [
        method.preset("fast", surrogate="resnet9").passes(50_000) / 1e6
        for method in (ue.SEM, ue.REM)
    ]
    assert "takes {:.1f} million image passes in place of {:.1f} million".format(*passes) in readme
    jpeg = [m for m, c in figures if c == "jpeg-10" and m != "clean"]
    undone = [m for m in jpeg if board.given_back(m, "jpeg-10") > 0.9]
    assert set(jpeg) - set(undone) == {"Lasting"} and len(undone) > 5


def test_what_holds_on_cifar_100_is_said_as_measured(benchmarks):
    from boards import boards

    board = next(board for board in boards() if board.name == "full-cifar100-resnet9")
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    jpeg, adversarial = "jpeg-10", "adversarial-training-4-steps-3"
    for counter in (jpeg, adversarial):
        held = [m for m, c in board.figures if c == counter and board.given_back(m, c) < 0.5]
        assert [m for m in held if m != "clean"] == ["Lasting"]
    assert board.given_back("SEM", adversarial) > 0.9
    ours, clean = (
        board.figures[m, "channel-normalization+jpeg-10"].last for m in ("Lasting", "clean")
    )
    assert f"victims of `Lasting` reach {ours:.1f} %, and those of clean images {clean:.1f} %" in (
        readme
    )


def test_how_far_lasting_changes_values_is_said_as_it_is(shapes):
    change = ue.Lasting().fit(shapes, device="cpu", progress=False).protect(shapes).change(20)
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert f"`Lasting`, whose change is larger (up to {change.linf}/255)" in readme


def test_the_memory_of_workers_is_said_as_measured():
    path = ROOT / "benchmarks" / "results" / "loading-cpu.json"
    measured = json.loads(path.read_text())["cells"]["memory"]["megabytes"]
    plain = measured.pop("plain")

    def more(name):
        found = sorted(memory[name] - plain[name] for memory in measured.values())
        return found[0], found[-1]

    page = " ".join((ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8").split())
    for name, said in (
        ("own, at first", "starts with {1:.1f} MB more memory of its own"),
        ("resident, at first", "and {0:.0f} to {1:.0f} MB more resident."),
        ("own", "it has {1:.1f} MB more of its own"),
        ("resident", "and {0:.0f} to {1:.0f} MB more resident, from rows"),
    ):
        assert said.format(*more(name)) in page


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
    assert published_range("EM") == "13.2 to 24.2" and published_range("AUE") == ""
    assert {figure["method"] for figure in published("cifar100")} <= set(METHODS)
    assert not any(figure in published() for figure in published("cifar100"))


def test_the_largest_published_figure_is_of_any_radius(benchmarks):
    from method_figures import best_published

    assert "70.6 % after adversarial-training-8 (MIUE;" in best_published(ue.MIUE)
    assert "57.5 % after ECLIPSE (DUNE;" in best_published(ue.DUNE)


def _percent(share):
    return f"{100 * share:.1f} %"


def _of_sem(results):
    made = results("release-surrogates")
    (last,), (peak,), (clean,) = (
        made["cells"]["cifar10-sem"]["last"],
        made["cells"]["cifar10-sem"]["peak"],
        made["cells"]["clean"]["last"],
    )
    rows = made["cells"]["cifar10-sem, rows"]
    assert made["settings"]["victim"] == "resnet9" and made["settings"]["seeds"] == 1
    yield f"all {rows['images']:,} took {rows['cpu_seconds'] / 60:.1f} minutes of one CPU core"
    yield f"{_percent(last)} of the clean test images correctly, {_percent(peak)} at its best epoch"
    yield f"trained on clean images, it reached {_percent(clean)} (one seed, "
    yield f'{made["settings"]["epochs"]} epochs of `recipe="fast"`, {made["date"]}, '


def _of_a_fit(results):
    cell = results("strength")["cells"]["SEM, 50000, auto"]
    clean = [cell["last"] for cell in results("recipes")["cells"].values()]
    (last,) = cell["victims"]["last"]
    yield f"that fit took {cell['fit']['seconds'] / 60:.0f} minutes on two CPU cores"
    yield f"protected copy classified {_percent(last)} of the clean test images correctly"
    yield f"three trained on clean images reached {_percent(sum(clean) / 3)}"


def _of_the_demo(results):
    made = results("demo")
    seeds = [cell["victims"] for cell in made["cells"].values()]
    for shown, name in (("clean", "clean"), ("SEM", "SEM"), ("random noise", "random noise")):
        first = seeds[0][name]
        yield f"| {shown} images | {_percent(first['last'])} | {_percent(first['peak'])} | "
    clean, sem = (sum(seed[name]["last"] for seed in seeds) / 3 for name in ("clean", "SEM"))
    yield f"the mean is {_percent(clean)} for clean images and {_percent(sem)} for SEM"


def _of_loading(results):
    cells = results("loading")["cells"]
    assert cells["RandomNoise"]["ratio"] <= 1
    yield "an epoch over images with a row each took no longer than one over the plain dataset"
    own = cells["RandomNoise, a dataset's own items"]["ratio"]
    yield f"({own:.2f} times as long in a custom dataset"
    yield f"Over `LSP` it took {cells['LSP']['ratio']:.2f} times as long, and over `AR` "
    yield f"over `AR` {cells['AR']['ratio']:.2f} times"


def _of_photos(results):
    low, clean = (
        results("copies-photos")["cells"][f"{name}, PNG"]["victims"]["last"]
        for name in ("low", "clean")
    )
    yield f"reached {_percent(sum(low) / 3)}, and {_percent(sum(clean) / 3)} without protection"
    seconds = results("photos")["cells"]["1000 photos, png"]["stages"]["all"]["seconds"]
    yield f"1,000 photos of 12 megapixels took {seconds / 60:.0f} minutes"


@pytest.mark.parametrize("figures", [_of_sem, _of_a_fit, _of_the_demo, _of_loading, _of_photos])
def test_figures_in_the_readmes_sentences_are_those_of_the_committed_results(figures):
    def results(name):
        return json.loads((ROOT / "benchmarks" / "results" / f"{name}-cpu.json").read_text())

    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    for sentence in figures(results):
        assert sentence in readme


@pytest.mark.parametrize("dataset", ["photos", "cifar10"])
def test_what_a_lower_visibility_costs_is_made_from_the_committed_result(dataset, benchmarks):
    from copies import PAGE, table
    from record import RESULTS, filled

    result = json.loads((RESULTS / f"copies-{dataset}-cpu.json").read_text())
    page = filled(PAGE, f"copies.py {dataset}", table(result))
    assert page == PAGE.read_text(encoding="utf-8"), f"run benchmarks/copies.py {dataset} --table"


@pytest.mark.parametrize(
    ("dataset", "pages"),
    [
        ("cifar10", ("how-to/photos.md", "explanation/pretrained.md")),
        ("cifar100", ("explanation/pretrained.md",)),
    ],
)
def test_what_clusters_leave_is_said_as_measured(dataset, pages):
    path = ROOT / "benchmarks" / "results" / f"clusters-{dataset}-cpu.json"
    cells = json.loads(path.read_text())["cells"]
    mean = {name: 100 * sum(cell["victims"]["last"]) / 3 for name, cell in cells.items()}
    lost = {name: round(mean["clean"] - value) for name, value in mean.items()}
    least, most = sorted((lost["100 clusters"], lost["10 clusters"]))
    for page in pages:
        text = " ".join((ROOT / "docs" / page).read_text(encoding="utf-8").split())
        assert f"{least} to {most}" in text and f"{lost['classes']} " in text
    if dataset == "cifar10":
        assert min(cells[f"{n} clusters"]["purity"] for n in (10, 100)) > 0.55
