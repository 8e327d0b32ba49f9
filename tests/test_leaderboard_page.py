"""The page and the heat map of a leaderboard result, finished or not."""

import json

import pytest


def test_the_leaderboard_is_written_from_committed_files(benchmarks):
    import leaderboard_page

    for path, text in leaderboard_page.files(leaderboard_page.boards()).items():
        assert text == path.read_text(encoding="utf-8"), "run benchmarks/leaderboard_page.py"


def board_of(figures, name="leaderboard-x", **settings):
    from boards import Board

    usual = {"images": 5, "victim": "tiny", "epochs": 1, "peak_images": None, "preset": "demo"}
    result = {
        "settings": usual | {"surrogate": "tiny", "train_steps": None} | settings,
        "date": "today",
        "machine": {"device": "x", "threads": 1, "torch": ""},
        "cells": {
            cell: {"peak": peak, "last": last, "cpu_seconds": 60}
            for cell, (peak, last) in figures.items()
        },
    }
    return Board(name, result)


def test_figures_far_from_the_published_ones_are_explained(benchmarks):
    from boards import boards
    from leaderboard_differences import OPEN, cause_of, differences, differences_section

    # Published for TAP: 6.3 to 22.5; AR under JPEG 10: 84.8 to 85.2.
    figures = {
        "TAP, none, seed 0": (0.35, 0.34), "TAP, none, seed 1": (0.35, 0.34),
        "AR, jpeg-10, seed 0": (0.6, 0.5), "AR, none, seed 0": (0.25, 0.20),
    }  # fmt: skip
    small = board_of(figures)
    far = differences(small.result)
    assert [(d.method, d.countermeasure) for d in far] == [("TAP", "none"), ("AR", "jpeg-10")]
    assert far[0].gap == pytest.approx(34 - 22.51) and far[1].gap == pytest.approx(60 - 84.75)
    assert [cause_of(d, 5) for d in far] == ["short training", "small set"]
    # On the whole set five points are far, and what is said of small trials explains nothing.
    large = board_of(figures, images=50_000)
    assert [d.method for d in differences(large.result)] == ["TAP", "AR", "AR"]
    assert {cause_of(d, 50_000) for d in differences(large.result)} == {OPEN}
    assert "the cause was not tested yet" in "\n".join(differences_section(large.result))
    for board in boards():
        images = board.settings["images"]
        explained = [cause_of(d, images) for d in differences(board.result)]
        assert not board.small or OPEN not in explained, "write the cause in causes.json"


def test_a_table_has_published_figures_and_the_difference_beside_ours(benchmarks):
    from leaderboard_tables import counter_table, effort

    # Published for SEM: 14.8 to 15.9; SEM under JPEG 10: 81.6; OPS under JPEG 10: 78.5 to 82.5.
    figures = {
        "clean, none, seed 0": (0.9, 0.9), "SEM, none, seed 0": (0.1, 0.1),
        "SEM, none, seed 1": (0.3, 0.3), "clean, jpeg-10, seed 0": (0.85, 0.85),
        "SEM, jpeg-10, seed 0": (0.6, 0.5), "OPS, jpeg-10, seed 0": (0.85, 0.8),
    }  # fmt: skip
    board = board_of(figures)
    assert counter_table(board, "none")[2:-1] == [
        "| clean | 90.0 | 90.0 |  | 92.1 to 94.7, -2.1 |",
        "| SEM | 20.0 ± 14.1 | 20.0 ± 14.1 | 12 % | 14.8 to 15.9, +4.1 |",
    ]
    assert effort(board, "none") == "1 to 2 seeds, 60 s of processor time each"
    board.result["cells"]["SEM, none, seed 1"]["cpu_seconds"] = 7000  # on a slower machine
    again = board_of(figures)
    again.result["cells"] = board.result["cells"]
    assert effort(again, "none") == "1 to 2 seeds, 60 s to 1.9 h of processor time each"
    assert counter_table(board, "jpeg-10")[3:-1] == [
        "| SEM | 50.0 | 60.0 | 53 % | 81.6, -21.6 |",
        "| OPS | 80.0 | 85.0 | 93 % | 78.5 to 82.5, within |",
    ]


def test_figures_of_another_dataset_have_its_own_guessing_and_publications(benchmarks):
    from leaderboard_differences import differences
    from leaderboard_tables import counter_table

    # Published for EM on CIFAR-100: 1.6 to 6.7; clean: 72.7 to 76.3.
    figures = {"clean, none, seed 0": (0.71, 0.71), "EM, none, seed 0": (0.15, 0.15)}
    board = board_of(figures, images=50_000, dataset="cifar100")
    assert board.title == "50,000 images of CIFAR-100, tiny, 1 epochs"
    assert counter_table(board, "none")[2:-1] == [
        "| clean | 71.0 | 71.0 |  | 72.7 to 76.3, -1.7 |",
        "| EM | 15.0 | 15.0 | 20 % | 1.6 to 6.7, +8.3 |",
    ]
    assert [d.method for d in differences(board.result)] == ["EM"]
    assert board_of(figures, images=50_000).given_back("EM", "none") == pytest.approx(5 / 61)


def test_figures_of_the_same_radius_are_compared_where_there_are_any(benchmarks):
    from leaderboard_tables import counter_table

    # Published for REM at radius 4: 39.5 and 48.2, at 8: 77.5 to 86.0; for OPS only at radius 8.
    counter = "adversarial-training-4-steps-3"
    figures = {f"{m}, {counter}, seed 0": (0.8, 0.8) for m in ("clean", "REM", "OPS")}
    figures["clean, none, seed 0"] = (0.9, 0.9)
    assert counter_table(board_of(figures), counter)[3:-1] == [
        "| REM | 80.0 | 80.0 | 100 % | 39.5 to 48.2, +31.8 |",
        "| OPS | 80.0 | 80.0 | 100 % | 9.6 to 14.9 at 8/255, +65.0 |",
    ]


def test_the_largest_result_leads_and_small_trials_are_beside_their_results(benchmarks, tmp_path):
    from boards import boards
    from leaderboard_page import PAGE, TRIALS, files

    cells = {
        "clean, none, seed 0": (0.93, 0.93), "SEM, none, seed 0": (0.2, 0.13),
        "clean, grayscale, seed 0": (0.9, 0.9), "SEM, grayscale, seed 0": (0.5, 0.5),
        "EM, none, seed 0": (0.2, 0.2), "EM, grayscale, seed 0": (0.9, 0.89),
        "EM, jpeg-10, seed 0": (0.8, 0.8),
    }  # fmt: skip
    more = cells | {"clean, jpeg-10, seed 0": (0.8, 0.8)}
    large = {"images": 50_000, "victim": "resnet9", "preset": "fast"}
    found = {
        "full-cifar100": board_of(more, **large, dataset="cifar100"),
        "full-cpu": board_of(cells, **large),
        "leaderboard-resnet9-cpu": board_of(more, images=10_000, victim="resnet9"),
        "leaderboard-cpu": board_of(cells, images=5_000),
        "lasting-cpu": board_of({}, images=5_000),
    }
    for name, board in found.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(board.result))
    (tmp_path / "engine-cpu.json").write_text("{}")
    read = boards(tmp_path)
    names = ["full-cpu", "full-cifar100", "leaderboard-resnet9-cpu", "leaderboard-cpu"]
    assert [b.name for b in read] == names
    made = files(read)
    pictures = {path.parent for path in made if path.name == "leaderboard-cpu.svg"}
    assert pictures == {TRIALS.parent} and PAGE.with_name("full-cpu.svg") in made
    text, trials = made[PAGE], made[TRIALS]
    first, second, third, last = text.split("\n## ")[1:]
    assert "\n### `grayscale`" in first and ":::{dropdown} `grayscale`" in second
    of = ("EM, SEM: ", "SEM, EM: ")
    assert second.startswith(tuple(f"{m}50,000 images of CIFAR-100" for m in of))
    assert third.startswith(tuple(f"{m}10,000 images" for m in of)) and last.startswith("Published")
    head = text.partition("\n## ")[0]
    assert head.index("**SEM** protects best") < head.index("(full-cpu.svg)")
    assert "`grayscale` gives back 50\N{NO-BREAK SPACE}% of what clean images give" in head
    assert "5,000 images" not in text and "50,000" not in trials
    # Small trials are read in the repository, which knows nothing of the site's directives.
    assert trials.split("\n## ")[1].startswith(tuple(f"{m}5,000 images" for m in of))
    assert "<details><summary><code>grayscale</code></summary>\n\n" in trials
    assert trials.count("<details>") == trials.count("</details>") > 2
    assert ":::" not in trials and "{term}" not in trials and "best worst case of" in trials


@pytest.mark.parametrize(
    ("jpeg", "cutout", "said"),
    [
        (0.3, 0.1, "gives back 25 % of what clean images give beyond guessing."),
        (0.5, 0.1, "beyond guessing, and 50 % by the best epoch."),
        (0.3, 0.4, "beyond guessing, and by the best epoch `cutout` 38 %."),
    ],
)
def test_a_worst_case_is_that_of_the_last_epoch_and_of_the_best(benchmarks, jpeg, cutout, said):
    from leaderboard_tables import conclusion

    figures = {f"clean, {counter}, seed 0": (0.9, 0.9) for counter in ("none", "jpeg-10", "cutout")}
    figures |= {"SEM, none, seed 0": (0.1, 0.1), "SEM, jpeg-10, seed 0": (jpeg, 0.3)}
    figures["SEM, cutout, seed 0"] = (cutout, 0.1)
    text = "\n".join(conclusion(board_of(figures)))
    assert "after the last epoch, and 90.0 % after training on clean images" in text
    assert "`jpeg-10` gives back 25 %" in text and said in text


def test_a_conclusion_names_what_knows_the_strongest_method(benchmarks):
    from leaderboard_tables import conclusion

    counters = ("none", "jpeg-10", "class-mean-subtraction")
    figures = {f"clean, {counter}, seed 0": (0.9, 0.9) for counter in counters}
    for method, reached in (("SEM", (0.1, 0.3, 0.5)), ("EM", (0.1, 0.8, 0.1))):
        for counter, accuracy in zip(counters, reached, strict=True):
            figures[f"{method}, {counter}, seed 0"] = (accuracy, accuracy)
    text = "\n".join(conclusion(board_of(figures)))
    assert "**SEM** has the best {term}`worst case` of 2 methods: `jpeg-10` gives back 25 %" in text
    assert "`class-mean-subtraction` gives back most of what **SEM** protects, 50 %." in text


def test_an_unfinished_result_makes_a_page(benchmarks):
    from leaderboard_page import page, picture

    for cells in (
        {"clean, none, seed 0": (0.9, 0.9)},
        {"SEM, none, seed 0": (0.2, 0.1)},
        {"clean, none, seed 0": (0.9, 0.9), "Something new, ueraser-max, seed 0": (0.2, 0.1)},
    ):
        board = board_of(cells, images=50_000)
        assert "## Published" in page([board])
    assert picture(board) is not None and "Something new" in page([board])


def test_the_heat_map_has_the_strongest_protection_on_top(benchmarks):
    from xml.etree import ElementTree

    from leaderboard_page import picture

    figures = {
        "clean, none, seed 0": 0.9, "OPS, none, seed 0": 0.1, "OPS, jpeg-10, seed 0": 0.8,
        "SEM, none, seed 0": 0.2, "SEM, jpeg-10, seed 0": 0.62, "SEM, unprotected-20, seed 0": 0.85,
    }  # fmt: skip
    board = board_of({name: (peak, peak) for name, peak in figures.items()})
    drawn = ElementTree.fromstring(picture(board))
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
    del board.figures["clean", "none"]
    assert picture(board) is None


def test_a_heat_map_ranks_no_method_that_was_tried_on_little(benchmarks):
    from xml.etree import ElementTree

    from leaderboard_page import picture

    figures = {
        "clean, none, seed 0": (0.9, 0.9), "SEM, none, seed 0": (0.1, 0.1),
        "EM, none, seed 0": (0.2, 0.2), "EM, jpeg-10, seed 0": (0.8, 0.8),
        "EM, grayscale, seed 0": (0.7, 0.7),
    }  # fmt: skip
    drawn = ElementTree.fromstring(picture(board_of(figures)))
    texts = [e.text for e in drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert texts.index("EM") < texts.index("SEM")
    rectangles = list(drawn.iter("{http://www.w3.org/2000/svg}rect"))
    assert sum(r.get("class") == "worst" for r in rectangles) == 1


def test_a_heat_map_of_many_columns_is_narrow(benchmarks):
    from xml.etree import ElementTree

    from leaderboard import COUNTERMEASURES
    from leaderboard_page import picture

    counters = [c for c in COUNTERMEASURES if "clean-part" not in c]
    figures = {f"{m}, {c}, seed 0": (0.5, 0.5) for m in ("clean", "SEM") for c in counters}
    drawn = ElementTree.fromstring(picture(board_of(figures)))
    assert int(drawn.get("width")) < 640
    texts = [e.text for e in drawn.iter("{http://www.w3.org/2000/svg}text")]
    panels = -(-len(counters) // 7)
    assert set(counters) <= set(texts) and texts.count("SEM") == panels > 1
    # A method that was tried on few columns stands only where these are.
    figures["EM, none, seed 0"] = figures["AR, unprotected-20, seed 0"] = (0.5, 0.5)
    drawn = ElementTree.fromstring(picture(board_of(figures)))
    texts = [e.text for e in drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert texts.count("EM") == texts.count("AR") == 1
    assert texts.count("clean") == texts.count("SEM") == panels


@pytest.mark.parametrize("number", range(1, 14))
def test_panels_of_a_heat_map_are_about_as_wide(benchmarks, number):
    from xml.etree import ElementTree

    from leaderboard import COUNTERMEASURES
    from leaderboard_page import picture

    counters = COUNTERMEASURES[:number]
    figures = {f"{m}, {c}, seed 0": (0.5, 0.5) for m in ("clean", "SEM") for c in counters}
    drawn = ElementTree.fromstring(picture(board_of(figures)))
    tops = [e.get("y") for e in drawn.iter("{http://www.w3.org/2000/svg}text") if e.text == "50"]
    wide = [tops.count(top) for top in dict.fromkeys(tops)]
    assert max(wide) <= 7 and max(wide) - min(wide) <= 2 and len(wide) == 2 * -(-number // 7)


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
    why = f"Why does “{order.pattern}” not appear?"
    assert f"{why} The cause was not tested yet." in section(figures, {})
    causes = {order.pattern: {"text": "few steps"}}
    assert f"{why} few steps" in section(figures, causes)


def test_no_additive_noise_is_left_out_of_the_count(benchmarks):
    from boards import boards, rows
    from cifar10 import METHODS
    from patterns import ADDITIVE

    others = {"SmoothFields", "RandomNoise"}  # fields, and the control
    for board in boards():
        for name in rows(board.figures):
            row = METHODS.get(name)
            if row and row.method().kind == "additive" and row.method.__name__ not in others:
                assert name in ADDITIVE


def test_times_of_fits_are_of_the_same_dataset_and_say_whose_they_are(benchmarks):
    from leaderboard_tables import fits_table

    settings = {"images": 50_000, "preset": "fast", "surrogate": "resnet9"}
    figures = {"SEM, none, seed 0": (0.2, 0.2), "MIUE, none, seed 0": (0.2, 0.2)}
    ours = "\n".join(fits_table(board_of(figures, **settings)))
    assert "| SEM | 1.0 million | 26 min |" in ours and "| MIUE | 4.0 million |  |" in ours
    assert "are of other fits" in ours and "`results/strength-cpu.json`, 2026-" in ours
    other = "\n".join(fits_table(board_of(figures, **settings, dataset="cifar100")))
    assert "| SEM | 1.0 million |  |" in other and "are of other fits" not in other


def test_a_start_says_how_long_the_rest_takes(benchmarks, monkeypatch, tmp_path, capsys):
    import argparse

    import leaderboard
    from record import Record

    from unlearnable.datasets import Shapes

    args = argparse.Namespace(
        only=["clean", "OPS", "SEM"], countermeasures=["none", "unprotected-20", "jpeg-10"], seed=0,
        epochs=2, work=tmp_path, out=tmp_path / "x.json", preset="demo", surrogate="tiny",
        train_steps=2, images=20, budget=None,
    )  # fmt: skip
    train, todo = Shapes(size=20), [("none", "clean"), ("none", "OPS"), ("none", "SEM")]
    record = Record(args.out, {}, "cpu")
    found = leaderboard.missing(record, args)
    assert found[:3] == todo and ("unprotected-20", "clean") not in found and len(found) == 8
    # A victim has an epoch's images twice, a fit comes once for all columns.
    assert leaderboard.passes_of(todo[:2], train, args) == 2 * 20 * 2
    fit = leaderboard.method_of("SEM", args).passes(20)
    assert leaderboard.passes_of([*todo, ("jpeg-10", "SEM")], train, args) == 4 * 20 * 2 + fit

    class Fitted:
        digest = "0" * 32

    clock = iter(range(0, 10**6, 60))
    monkeypatch.setattr(leaderboard.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(leaderboard, "perturbation_of", lambda *_: Fitted())
    monkeypatch.setattr(leaderboard.ue, "ProtectedDataset", lambda train, _: train)
    cell = {"peak": 0.5, "last": 0.5, "seconds": 60}
    monkeypatch.setattr(leaderboard, "measure", lambda *_: cell)
    args.only, args.countermeasures = ["clean", "OPS"], ["none", "jpeg-10"]
    leaderboard.fill(record, train, None, args)
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  ")]
    assert said == [
        f"  {n} more, about {t} for this start alone"
        for n, t in ((3, "3 min"), (2, "2 min"), (1, "60 s"))
    ]
    leaderboard.fill(record, train, None, args)
    assert capsys.readouterr().out == ""
