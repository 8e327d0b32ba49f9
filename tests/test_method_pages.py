"""Pages about methods say what the classes and the committed results say."""

import json

import unlearnable as ue


def test_pages_about_methods_are_made_from_docstrings_and_committed_results(benchmarks):
    import methods_page

    for page, text in methods_page.pages().items():
        written = page.read_text(encoding="utf-8")
        assert text == written, f"run benchmarks/methods_page.py: {page}"


def test_every_method_has_a_page_and_a_picture_of_what_it_does_now(benchmarks):
    import methods_pictures
    from methods_page import INDEX, page_of

    cells = json.loads(methods_pictures.NOTES.read_text())["cells"]
    listed = INDEX.read_text(encoding="utf-8").rpartition("```{toctree}")[2].split()
    size = 0
    for cls in ue.METHODS:
        name = cls.__name__
        assert name in listed and "## When to take it" in page_of(cls).read_text(encoding="utf-8")
        made = repr(methods_pictures.method_of(cls))
        assert cells[name]["method"] == made, "run benchmarks/methods_pictures.py"
        for end in (".webp", "-small.webp"):
            size += (methods_pictures.FOLDER / f"{name}{end}").stat().st_size
    assert size < 900_000


def test_a_change_of_a_docstring_makes_its_page_stale(benchmarks, monkeypatch):
    from methods_page import head

    before = head(ue.OPS)
    summary, _, rest = ue.OPS.__doc__.partition("\n\n")
    text = f"{summary}\n\n    Another idea. In ``two`` sentences. And a third.\n\n{rest}"
    monkeypatch.setattr(ue.OPS, "__doc__", text)
    after = head(ue.OPS)
    assert after != before and "*One-pixel shortcut.* Another idea. In `two` sentences.\n" in after


def test_a_page_shows_a_call_that_gives_the_defaults(benchmarks):
    from method_facts import signature

    for cls in ue.METHODS:
        method = eval(signature(cls), {"ue": ue})
        assert method.get_params() == cls().get_params()


def test_what_breaks_a_method_is_of_the_largest_result_that_has_it(benchmarks, monkeypatch):
    import method_figures
    from boards import Board

    def board(images, **cells):
        figures = {name.replace("_", ", "): {"last": x, "peak": x} for name, x in cells.items()}
        settings = {"images": images, "victim": "resnet9", "epochs": 12, "preset": "fast"}
        machine = {"device": "x", "threads": 1, "torch": "2"}
        cells = {f"{name}, seed 0": cell for name, cell in figures.items()}
        result = {"settings": settings | {"surrogate": "resnet9"}, "date": "today"}
        result |= {"machine": machine, "cells": cells}
        return Board(f"full-{images}", result)

    small = {"clean_none": 0.6, "clean_grayscale": 0.5, "clean_cutout": 0.6, "SEM_none": 0.2}
    small |= {"SEM_grayscale": 0.4, "SEM_cutout": 0.2}
    large = board(50_000, clean_none=0.93, clean_grayscale=0.9, SEM_none=0.13, SEM_grayscale=0.5)
    monkeypatch.setattr(method_figures, "boards", lambda: [large, board(10_000, **small)])
    ((found, row),) = method_figures.broken_by(ue.SEM)
    assert (found.settings["images"], row) == (10_000, "SEM")  # one countermeasure is too few
    lines = method_figures.broken_section(ue.SEM)
    assert [line.split(" |")[0] for line in lines if line.startswith("| ")] == [
        "| countermeasure", "| `none`", "| `grayscale`", "| `cutout`",
    ]  # fmt: skip
    assert any("| 50.0 | 40.0 | 75 % | 31.9 |" in line for line in lines)
    assert method_figures.broken_by(ue.MIUE) == []
    whole = {"clean_none": 0.93, "clean_grayscale": 0.9, "clean_jpeg-10": 0.8, "SEM_none": 0.13}
    whole |= {"SEM_grayscale": 0.5, "SEM_jpeg-10": 0.7}
    more = {"clean_mixup": 0.5, "SEM_mixup": 0.2}
    both = [board(10_000, **small, **more), board(50_000, **whole)]
    monkeypatch.setattr(method_figures, "boards", lambda: both)
    assert [found for found, _ in method_figures.broken_by(ue.SEM)] == both[::-1]
    page = "\n".join(method_figures.broken_section(ue.SEM))
    assert (
        page.index("SEM, 50,000 images") < page.index(":::{dropdown} More") < page.index("cutout")
    )
    (first, *_) = method_figures.reached(ue.SEM)
    assert first.title == "50,000 images, resnet9, 12 epochs" and first.figure.last == 13


def test_a_page_says_what_undoes_its_own_method_within_its_own_budget(benchmarks):
    from method_facts import undone_by

    for cls in ue.METHODS:
        (who, names), method = undone_by(cls), cls()
        is_noise = any("nothing to undo" in said for said in who)
        assert is_noise == (cls is ue.RandomNoise), cls
        levels = round(255 * (getattr(method, "epsilon", None) or 0))
        within = {name for name in names if "-within-" in name}
        assert within <= {f"jpeg-10-within-{levels}"}, cls
    assert "adversarial-training-2-steps-3" in undone_by(ue.SEP)[1]


def test_what_undoes_a_method_is_said_as_measured(benchmarks):
    from boards import boards
    from method_facts import undone_by
    from methods_page import page_of
    from record import DOCS

    board = next(found for found in boards() if found.name == "leaderboard-resnet9")
    undone = {
        (method, counter): board.given_back(method, counter)
        for method, counter in board.figures
        if method in ("AR", "TAP", "REM", "SEM")
    }
    who = " ".join(undone_by(ue.AR)[0])
    for said, counter in (
        ("low-quality JPEGs", "jpeg-10"),
        ("trains adversarially", "adversarial-training-4-steps-3"),
    ):
        assert said in who and undone["AR", counter] > 0.9
    assert "medians of neighbouring pixels without fine detail do so in part" in who
    assert undone["AR", "median-filter"] < 0.1 < 0.3 < undone["AR", "median-filter+low-pass"] < 0.7
    assert "less than half of it" in page_of(ue.TAP).read_text(encoding="utf-8")
    assert undone["TAP", "grayscale-everywhere"] < 0.5
    # What a page recommends against adversarial training, by all results of the preset fast.
    adversarial = "adversarial-training-4-steps-3"
    shares = [
        {method: found.given_back(method, adversarial) for method in ("REM", "SEM")}
        for found in boards()
        if found.name in ("leaderboard-resnet9", "full-resnet9", "full-cifar100-resnet9")
    ]
    assert "did not withstand adversarial training" in page_of(ue.REM).read_text(encoding="utf-8")
    assert all(share["REM"] > 0.8 for share in shares if share["REM"] is not None)
    whole, hundred, ten = (share["SEM"] for share in shares)
    assert whole < ten < 0.7 and hundred > 0.9  # in part on CIFAR-10, not on CIFAR-100
    photos = (DOCS / "how-to" / "photos.md").read_text(encoding="utf-8")
    assert "for a small network and a quarter for a larger one" in photos
    small = next(found for found in boards() if found.name == "leaderboard-cpu")
    assert small.given_back("SEM", "grayscale") > 0.7
    assert 0.2 < undone["SEM", "grayscale-everywhere"] < 0.3 and undone["SEM", "jpeg-10"] > 0.95
