"""Tables of the leaderboard's page, each narrow enough for a small screen."""

from __future__ import annotations

import argparse
import json
import re
from typing import Any

from boards import (
    Board,
    Figure,
    columns,
    counts_for_worst,
    known_figures,
    known_shown,
    printed,
    rows,
    span,
)
from cifar10 import DRAWS, METHODS, method_of, title_of
from leaderboard_differences import gap_of
from method_facts import changed, million
from published import PUBLISHED
from record import RESULTS, where

from unlearnable.engine.estimate import duration
from unlearnable.evaluation.countermeasures import countermeasure


def conclusion(board: Board) -> list[str]:
    """What a result says, in sentences."""
    figures = board.figures
    clean = figures.get(("clean", "none"))
    methods = [m for m in rows(figures) if m != "clean"]
    plain = {m: figures[m, "none"] for m in methods if (m, "none") in figures}
    said = []
    if clean and plain:
        best = min(plain, key=lambda m: plain[m].last)
        who = f"**{best}** protects best: victims" if len(plain) > 1 else f"victims of **{best}**"
        said.append(
            f"Without a countermeasure {who} reach {plain[best].last:.1f} % on clean test images "
            f"after the last epoch, and {clean.last:.1f} % after training on clean images."
        )
    worst = worst_cases(board)
    if worst:
        best = min(worst, key=lambda m: worst[m][1])
        counter, share = worst[best]
        who = f"**{best}** has the best {{term}}`worst case` of {len(worst)} methods"
        who = who if len(worst) > 1 else f"This is the {{term}}`worst case` of **{best}**"
        if {c for _, c in figures} <= {"none", counter}:
            who = f"Only one countermeasure was tried against **{best}** here"
        said.append(
            f"{who}: `{counter}` gives back {_percent(share)} of what clean images give beyond "
            f"guessing{_by_the_best_epoch(board, best, counter)}."
        )
    knowing = worst_cases(board, adaptive=True)
    if worst and best in knowing:
        counter, share = knowing[best]
        said.append(
            f"Of the countermeasures that know the method ({{term}}`adaptive`), `{counter}` gives "
            f"back most of what **{best}** protects, {_percent(share)}."
        )
    undone = most_undone(board)
    if undone and len(worst) > 2:
        counter, many, tried = undone
        said.append(
            f"No countermeasure undoes more methods than `{counter}`: it gives back half or more "
            f"for {many} of {tried}."
        )
    return [" ".join(said), ""] if said else []


def _by_the_best_epoch(board: Board, method: str, counter: str) -> str:
    """What gives back most then, where that is another countermeasure or more."""
    other, share = worst_cases(board, which="peak")[method]
    if other != counter:
        return f", and by the best epoch `{other}` {_percent(share)}"
    same = _percent(share) == _percent(board.given_back(method, counter) or 0)
    return "" if same else f", and {_percent(share)} by the best epoch"


def worst_cases(
    board: Board, *, adaptive: bool = False, which: str = "last"
) -> dict[str, tuple[str, float]]:
    """By method that was held against most columns: what gives back most, and how much.

    Of countermeasures that know nothing of the method, or of those that do; by the ``"last"``
    epoch, or the best one (``"peak"``).
    """
    tried: dict[str, dict[str, float]] = {}
    for method, counter in board.figures:
        share = board.given_back(method, counter, which)
        if method == "clean" or counter == "none" or not counts_for_worst(counter):
            continue
        if share and countermeasure(counter).knows_method is adaptive:
            tried.setdefault(method, {})[counter] = share
    most = max(map(len, tried.values()), default=0)
    return {
        method: max(shares.items(), key=lambda pair: pair[1])
        for method, shares in tried.items()
        if 2 * len(shares) > most
    }


def most_undone(board: Board) -> tuple[str, int, int] | None:
    """The countermeasure that gives back half or more for most methods, and of how many."""
    found = []
    for counter in columns(board.figures):
        if counter == "none" or not counts_for_worst(counter):
            continue
        shares = [board.given_back(m, counter) for m in rows(board.figures) if m != "clean"]
        known = [share for share in shares if share is not None]
        found.append((sum(share >= 0.5 for share in known), len(known), counter))
    if not found or not max(found)[0]:
        return None
    many, tried, counter = max(found)
    return counter, many, tried


def _percent(share: float) -> str:
    return f"{round(100 * share)} %"


def counter_table(board: Board, counter: str) -> list[str]:
    """Every method under one countermeasure, the strongest first, published figures beside it."""
    figures = {m: f for (m, c), f in board.figures.items() if c == counter}
    methods = sorted(figures, key=lambda m: (m != "clean", figures[m].last))
    lines = [
        "| trained on | last | peak | given back | published, difference |",
        "|---|---|---|---|---|",
    ]
    for method in methods:
        figure, share = figures[method], board.given_back(method, counter)
        columns_of = (
            title_of(method),
            figure.shown("last"),
            figure.shown("peak"),
            "" if share is None or method == "clean" else _percent(share),
            beside(figure, method, counter, board.dataset),
        )
        lines.append(f"| {' | '.join(columns_of)} |")
    return [*lines, ""]


def beside(figure: Figure, method: str, counter: str, dataset: str) -> str:
    """Published figures and by how many points ours are above or below them."""
    known = known_figures(method, counter, dataset)
    if not known:
        return ""
    gap = gap_of((figure.last, figure.peak), known)
    shown = known_shown(method, counter, dataset)
    return f"{shown}, {f'{gap:+.1f}' if gap else 'within'}"


def counter_sections(board: Board, *, folded: bool) -> list[str]:
    """A table for each countermeasure; folded, they are lines to click on."""
    lines = []
    for counter in columns(board.figures):
        does = countermeasure(counter).description
        title = "Without a countermeasure" if counter == "none" else f"`{counter}`"
        if folded:
            lines += [f":::{{dropdown}} {title}"]
        else:
            lines += [f"### {title}", ""]
        lines += [f"With {does}; {effort(board, counter)}:", "", *counter_table(board, counter)]
        lines += [":::", ""] if folded else []
    return lines


def effort(board: Board, counter: str) -> str:
    """Seeds, and what a victim took."""
    found = [figure for (_, c), figure in board.figures.items() if c == counter]
    seeds = span(min(f.seeds for f in found), max(f.seeds for f in found), 0)
    least = duration(min(f.seconds[0] for f in found))
    most = duration(max(f.seconds[1] for f in found))
    times = least if least == most else f"{least} to {most}"
    return f"{seeds} seed{'s' * (seeds != '1')}, {times} of processor time each"


def fits_table(board: Board) -> list[str]:
    """What was fitted, in how many passes, and how long it took where that is recorded."""
    settings = board.settings
    given = {"train_steps": None} | settings
    found, sources = [], []
    for name in rows(board.figures):
        if not (METHODS | DRAWS).get(name):
            continue
        method = method_of(name, argparse.Namespace(**given))
        source, taken = recorded(repr(method), settings["images"], board.dataset)
        passes = taken["passes"] if taken else method.passes(settings["images"])
        seconds = duration(taken["cpu_seconds"]) if taken else ""
        found.append(f"| {title_of(name)} | {million(passes)} | {seconds} | {changed(method)} |")
        sources += [source] if taken else []
    if not found:
        return []
    elsewhere = (
        [
            f"Processor times, and the passes beside them, are of other fits with these parameters "
            f"on as many images: {'; '.join(dict.fromkeys(sources))}.",
            "",
        ]
        if sources
        else []
    )
    return [
        ":::{dropdown} What was fitted, in how many image passes",
        "",
        "| trained on | image passes | processor time | parameters |",
        "|---|---|---|---|",
        *found,
        "",
        *elsewhere,
        ":::",
        "",
    ]


def recorded(method: str, images: int, dataset: str) -> tuple[str, dict[str, Any]]:
    """A fit of so many images with the same parameters, from cifar10.py or strength.py.

    With where and when it ran; empty where there is none.
    """
    paths = (RESULTS / "strength-cpu.json", RESULTS / "methods-cpu.json")
    for path in paths if dataset == "cifar10" else ():
        result = json.loads(path.read_text(encoding="utf-8"))
        for name, cell in result["cells"].items():
            _, size, *_ = (*name.split(", "), str(result["settings"].get("images")))
            fit = cell.get("fit", {})
            usual = fit.get("precision") != "float32" or "auto" not in name
            if fit.get("method") == method and size == str(images) and usual:
                return f"`results/{path.name}`, {result['date']}, {where(result)}", dict(fit)
    return "", {}


def _linked(where: str) -> str:
    """An address or a number of arXiv as a link."""
    if where.startswith("https:"):
        return f"<{where}>"
    return re.sub(r"arXiv:([\d.]+)", r"[\g<0>](https://arxiv.org/abs/\1)", where)


def published_section() -> list[str]:
    """Every published figure, with its source."""
    content = json.loads(PUBLISHED.read_text(encoding="utf-8"))
    marks = {source: number for number, source in enumerate(content["sources"], 1)}
    figures: dict[tuple[str, str], list[str]] = {}
    for entry in content["figures"]:
        of = f" on {printed(entry['dataset'])}" if "dataset" in entry else ""
        shown = f"{entry['accuracy']:.1f}{of} [{marks[entry['source']]}]"
        figures.setdefault((entry["method"], entry["countermeasure"]), []).append(shown)
    lines = []
    for method in rows(figures):
        of_it = {c: shown for (m, c), shown in figures.items() if m == method}
        lines += [
            f":::{{dropdown}} {method}",
            "",
            "| countermeasure | accuracy |",
            "|---|---|",
            *(f"| {c} | {'; '.join(of_it[c])} |" for c in columns((method, c) for c in of_it)),
            ":::",
            "",
        ]
    sources = [
        f"{marks[source]}. {entry['title']}, {_linked(entry['where'])}"
        for source, entry in content["sources"].items()
    ]
    return [content["about"], "", *lines, "Sources:", "", *sources]
