"""What was measured about one method: how strong it is, what undoes it, what a fit takes."""

from __future__ import annotations

import json
import statistics
from typing import Any, NamedTuple

from boards import Board, Figure, boards, columns, counts_for_worst, figure_of, known_shown
from method_facts import IMAGES, PRESETS, changed, million, presets, surrogate
from published import PUBLISHED, published
from record import RESULTS, where
from release import SAMPLE_WISE, SHIPPED

import unlearnable as ue
from unlearnable.engine.estimate import duration

OURS, STRENGTH, PACE = (RESULTS / f"{name}-cpu.json" for name in ("methods", "strength", "engine"))
RELEASES = [
    RESULTS / f"{name}.json"
    for name in (
        "release-cpu",
        "release-surrogates-cpu",
        "release-miue-cpu",
        "release-sep-cpu",
        "release-surrogates-gpu",
        "release-cifar100-em-gpu",
        "release-cifar100-lasting-gpu",
        "release-cifar100-cpu",
    )
]


class Reached(NamedTuple):
    """What victims of a method reach in one result.

    Attributes:
        row: The method as the result names it.
        title: Images, victim and epochs.
        clean: What victims of clean images reach, None where that is not measured.
        figure: What victims of protected ones reach.
        source: The command, and where and when it ran.
    """

    row: str
    title: str
    clean: Figure | None
    figure: Figure
    source: str

    @property
    def clean_shown(self) -> str:
        """For tables; empty where it is not measured."""
        return self.clean.shown("last") if self.clean else ""


def of_class(row: str, cls: type[ue.Method]) -> bool:
    """Whether a row of a result is about a class, alone or with other settings."""
    name = cls.__name__
    return (row == name or row.startswith((f"{name} ", f"{name}-"))) and " then " not in row


def _read(path: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def reached(cls: type[ue.Method]) -> list[Reached]:
    """Every result without countermeasure, that of most images first."""
    found: list[tuple[int, Reached]] = []
    on_boards = set()
    named = {row for row in _read(OURS)["cells"] if of_class(row, cls)}
    for board in boards():
        if ("clean", "none") not in board.figures:
            continue
        for (row, counter), figure in board.figures.items():
            if counter == "none" and of_class(row, cls) and not (board.small and row in named):
                clean, made = board.figures["clean", "none"], _made(board.result)
                on_boards.add(
                    (row, board.dataset, board.settings["images"], board.settings["victim"])
                )
                found.append((board.settings["images"], Reached(
                    row, board.title, clean, figure, f"{board.source}, {made}"
                )))  # fmt: skip
    found += [
        (images, entry)
        for images, victim, entry in _of_strength(cls)
        if (entry.row, "cifar10", images, victim) not in on_boards
    ]
    found += _of_release(cls)
    found += [(_read(OURS)["settings"]["images"], entry) for entry in _of_trial(cls)]
    return [entry for _, entry in sorted(found, key=lambda pair: -pair[0])]


def _made(result: dict[str, Any]) -> str:
    return f"{result['date']}, {where(result)}"


def _of_strength(cls: type[ue.Method]) -> list[tuple[int, str, Reached]]:
    """From strength.py, in the precision that fits choose themselves."""
    result = _read(STRENGTH)
    found = []
    for name, cell in result["cells"].items():
        row, images, *precision = name.split(", ")
        if row != cls.__name__ or precision != ["auto"]:
            continue
        victims = cell["victims"]
        clean = result["cells"].get(f"clean, {images}", {}).get("victims")
        if clean is None and int(images) == IMAGES:
            clean = _clean_of_recipes(victims)
        title = f"{int(images):,} images, {victims['victim']}, {victims['epochs']} epochs"
        source = f"`strength.py`, `results/strength-cpu.json`, {_made(result)}"
        found.append((int(images), victims["victim"], Reached(
            row, title, _seeds(clean) if clean else None, _seeds(victims), source
        )))  # fmt: skip
    return found


def _clean_of_recipes(victims: dict[str, Any]) -> dict[str, Any] | None:
    """Victims of the whole set, clean, by the same recipe, which recipes.py measures."""
    result = _read(RESULTS / "recipes-cpu.json")
    same = (victims["recipe"], victims["epochs"], victims["victim"]) == tuple(
        result["settings"][name] for name in ("recipe", "epochs", "network")
    )
    cells = result["cells"].values()
    return {w: [c[w] for c in cells] for w in ("last", "peak")} if same else None


def _seeds(victims: dict[str, Any]) -> Figure:
    pairs = zip(victims["last"], victims["peak"], strict=True)
    return figure_of([{"last": last, "peak": peak} for last, peak in pairs])


def _of_trial(cls: type[ue.Method]) -> list[Reached]:
    """From the small trial of all methods."""
    result = _read(OURS)
    settings, cells = result["settings"], result["cells"]

    def tiny(cell: dict[str, Any]) -> Figure:
        return figure_of([v for name, v in cell["victims"].items() if name.startswith("tiny, ")])

    title = f"{settings['images']:,} images, tiny, {settings['epochs']} epochs"
    source = f"`cifar10.py`, `results/methods-cpu.json`, {_made(result)}"
    return [
        Reached(row, title, tiny(cells["clean"]), tiny(cell), source)
        for row, cell in cells.items()
        if of_class(row, cls) and cell["victims"]
    ]


def _of_release(cls: type[ue.Method]) -> list[tuple[int, Reached]]:
    """From release.py, of the pre-made perturbations."""
    found = []
    for path in RELEASES:
        result = _read(path)
        settings, cells = result["settings"], result["cells"]
        title = Board(path.stem, result).title
        source = f"`release.py`, `results/{path.name}`, {_made(result)}"
        for name, (made, overrides) in (SHIPPED | SAMPLE_WISE).items():
            if made is cls and name in cells:
                row = f"{cls.__name__} {changed(cls(**overrides))}".rstrip()
                figures = _seeds(cells["clean"]), _seeds(cells[name])
                entry = Reached(row, f"{title}, `{name}`", *figures, source)
                found.append((settings["images"], entry))
    return found


def published_plain(row: str) -> str:
    """What others published for a row without countermeasure."""
    return known_shown(row, "none")


def reached_section(cls: type[ue.Method]) -> list[str]:
    """How strong it is, as Markdown."""
    found = reached(cls)
    rows = dict.fromkeys(entry.row for entry in found) or {cls.__name__: None}
    known = {row: text for row in rows if (text := published_plain(row))}
    lines = []
    if found:
        lines += [
            "Accuracy on clean test images in percent, of CIFAR-10 unless it says otherwise; the "
            "lower, the stronger the protection. The {term}`peak <last and peak>` is the best "
            "epoch.",
            "",
            "| victims | clean images | protected, last | peak |",
            "|---|---|---|---|",
        ]
        for entry in found:
            figure = entry.figure
            which = "" if entry.row == cls.__name__ else f"{entry.row}: "
            seeds = f"{figure.seeds} seed{'s' * (figure.seeds > 1)}"
            lines.append(
                f"| {which}{entry.title}, {seeds} | {entry.clean_shown} | "
                f"{figure.shown('last')} | {figure.shown('peak')} |"
            )
        lines += ["", *_sources(entry.source for entry in found)]
    else:
        lines += ["No result with this method is committed yet: measure it with `evaluate`.", ""]
    if known:
        texts = [f"{row} {text}" if row != cls.__name__ else text for row, text in known.items()]
        lines += [
            f"Published for a ResNet-18 and the whole set: {'; '.join(texts)} %. Sources are on "
            f"[the leaderboard](../leaderboard.md#published).",
            "",
        ]
    return lines


def _sources(sources: Any) -> list[str]:
    shown = list(dict.fromkeys(sources))
    return [f"From {'; '.join(shown)}.", ""]


def broken_by(cls: type[ue.Method]) -> list[tuple[Board, str]]:
    """Results with two countermeasures against it or more, and its row: most images, most cells."""
    found = []
    for board in sorted(boards(), key=lambda board: -board.settings["images"]):
        rows = dict.fromkeys(row for row, _ in board.figures if of_class(row, cls))
        for row in rows:
            tried = [c for r, c in board.figures if r == row and c != "none"]
            if sum(board.given_back(row, c) is not None for c in tried) >= 2:
                found.append((board, row))
                break
    most = max(found, key=lambda pair: len(pair[0].figures), default=None)
    return found[:1] if most is None or most is found[0] else [found[0], most]


def broken_section(cls: type[ue.Method]) -> list[str]:
    """What undoes it, the worst first, as Markdown; empty where nothing was measured."""
    found = broken_by(cls)
    if not found:
        return []
    (board, row), *more = found
    lines = [
        f"{row}, {board.title}; last epoch. *Given back* is the share, beyond guessing, of what "
        f"clean images give with the same {{term}}`countermeasure`; published figures are for a "
        f"ResNet-18 and the whole set, and for our radius of adversarial training unless they name "
        f"theirs.",
        "",
        *_broken_table(board, row),
    ]
    for board, row in more:
        lines += [f":::{{dropdown}} More countermeasures: {row}, {board.title}", ""]
        lines += [*_broken_table(board, row), ":::", ""]
    return lines


def _broken_table(board: Board, row: str) -> list[str]:
    figures = board.figures
    shares = {
        counter: share
        for counter in columns(figures)
        if (share := board.given_back(row, counter)) is not None and counts_for_worst(counter)
    }
    lines = [
        "| countermeasure | clean images | protected | given back | published |",
        "|---|---|---|---|---|",
    ]
    for counter, share in sorted(shares.items(), key=lambda pair: (pair[0] != "none", -pair[1])):
        lines.append(
            f"| `{counter}` | {figures['clean', counter].shown('last')} | "
            f"{figures[row, counter].shown('last')} | {share:.0%} | "
            f"{known_shown(row, counter, board.dataset)} |".replace("%", " %")
        )
    return [*lines, "", *_sources([f"{board.source}, {_made(board.result)}"])]


def best_published(cls: type[ue.Method]) -> str:
    """The countermeasure that gives most accuracy back by a publication, as a sentence."""
    sources = _read(PUBLISHED)["sources"]
    found = [f for f in published() if of_class(f["method"], cls) and f["countermeasure"] != "none"]
    if not found:
        return ""
    best = max(found, key=lambda figure: figure["accuracy"])
    return (
        f"The largest published figure is {best['accuracy']:.1f} % after {best['countermeasure']} "
        f"({best['method']}; {sources[best['source']]['title']})."
    )


def paces() -> dict[tuple[str, str], float]:
    """Image passes a second inside a fit, by method and network, from engine.py."""
    found = {}
    for name, cell in _read(PACE)["cells"].items():
        method, network = name.split(", ")
        found[method, network] = float(cell["fit_passes_per_second"])
    return found


def hours(method: ue.Method) -> str:
    """What the passes of a fit take at the pace of its network, or empty where it is unknown."""
    network, known = surrogate(method), paces()
    own = known.get((type(method).__name__, network))
    others = [pace for (_, of), pace in known.items() if of == network]
    if not method.passes(IMAGES) or not others:
        return ""
    return duration(method.passes(IMAGES) / (own or statistics.median(others)))


def cost_section(cls: type[ue.Method]) -> list[str]:
    """Passes of each preset and fits that were measured, as Markdown."""
    lines = []
    if not any(cls.preset(name).passes(IMAGES) for name in PRESETS):
        lines += ["Nothing is trained: a fit takes seconds, even on a CPU.", ""]
    else:
        lines += [
            "| {term}`preset` | in place of the defaults | {term}`image passes <image pass>` | "
            "about |",
            "|---|---|---|---|",
        ]
        for name, text in presets(cls).items():
            method = cls.preset(name)
            lines.append(
                f"| `{name}` | {text} | {million(method.passes(IMAGES))} | {hours(method)} |"
            )
        result = _read(PACE)
        lines += [
            "",
            f"Passes are for {IMAGES:,} images. Times follow from the speed of the network on two "
            f"CPU cores in bf16 (`engine.py`, {_made(result)}); there is none where that was not "
            f"measured. `passes(num_images)` counts the passes for your own settings.",
            "",
        ]
    return lines + _fits(cls)


def _fits(cls: type[ue.Method]) -> list[str]:
    """Fits that were measured, those of most images first."""
    ours, strength = _read(OURS), _read(STRENGTH)
    found = [
        (ours["settings"]["images"], row, "methods", cell["fit"])
        for row, cell in ours["cells"].items()
        if of_class(row, cls) and "fit" in cell
    ]
    for name, cell in strength["cells"].items():
        row, images, *precision = name.split(", ")
        if row == cls.__name__ and precision == ["auto"]:
            found.append((int(images), row, "strength", cell["fit"]))
    found = [entry for entry in found if entry[3]["passes"]]
    if not found:
        return []
    lines = ["| fit | images | image passes | processor time |", "|---|---|---|---|"]
    for images, row, source, fit in sorted(found, key=lambda entry: -entry[0]):
        lines.append(
            f"| {row} (`{source}-cpu.json`) | {images:,} | {fit['passes']:,} | "
            f"{duration(fit['cpu_seconds'])} |"
        )
    made = [f"`{path.name}`: {_made(_read(path))}" for path in (STRENGTH, OURS)]
    used = [text for text in made if any(f"`{entry[2]}-" in text for entry in found)]
    return ["Measured:", "", *lines, "", f"{'; '.join(used)}.", ""]
