"""The words of a report, the same on the page and in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ...engine.estimate import duration
from .figures import Reached, Row, percent, whole_percent
from .model import BREAKS, HOLDS, Findings

COLUMNS = ("protected, peak", "protected, last", "clean, peak", "recovered")
LIMITS = (
    "Protection is empirical. Another countermeasure, network or training schedule may recover "
    "more than those tried here, and these results set no limit for countermeasures yet to be "
    "invented.",
    "The peak is the best epoch as judged on the test images, which favours the trainer. The "
    "figures apply to this dataset, image size, these networks and this number of epochs.",
    "Keep the clean originals and the perturbation private: pairs of clean and protected images "
    "are enough to learn how to undo the protection.",
)
# What holds against those who do not know the method, and against everybody -> the headline.
_APART = {
    ("holds", "weakened"): (
        "The protection held against trainers who do not know the method, but only in part "
        "against those who do"
    ),
    ("holds", "broken"): (
        "The protection held against trainers who do not know the method, but not against those "
        "who do"
    ),
    ("weakened", "broken"): (
        "The protection held in part, but not at all against trainers who know the method"
    ),
}
_VERSIONS = ("unlearnable", "torch", "torchvision", "python")


def dataset_name(report: Findings) -> str:
    """Name and size of the training images."""
    return f"{report.dataset['name']} ({report.dataset['images']:,} images)"


def headline(findings: Findings) -> str:
    """The outcome in a few words."""
    apart = _APART.get((findings.outcome("standard"), findings.outcome()))
    if apart is not None and findings.worst_adaptive is not None:
        return apart
    tried = any(row.countermeasure != "none" for row in findings.counted())
    if not tried and findings.outcome() == "holds":
        return "No countermeasure was tried"
    return {
        "broken": "The protection did not hold",
        "weakened": "The protection held in part",
        "holds": "The protection held against everything that was tried",
        "unknown": "Nothing can be said about the protection yet",
    }[findings.outcome()] + (
        ", but some tests are inconclusive" if findings.held_by_default() else ""
    )


def verdict(report: Findings) -> str:
    """The findings, worst case first."""
    worst, without = report.worst(), report.without()
    left_out = (
        [f"Left out, because the training diverged: {'; '.join(report.diverged)}"]
        if report.diverged
        else []
    )
    if worst is None:
        return ". ".join(["Nothing has been measured yet", *left_out]) + "."
    who = report.describe(worst.countermeasure)
    network = f" ({worst.victim})" if len(report.victims) > 1 else ""
    first = f"{who[0].upper()}{who[1:]}{network} reaches {percent(worst.peak)} accuracy at best"
    if worst.clean is not None:
        first += f"; on clean images the same victim reaches {percent(worst.clean.peak)}"
    said = [first]
    share = report.recovered(worst)
    if report.clean is not None and not report.learnt:
        said.append("Victims learn too little from clean images for a comparison")
    elif share is not None:
        said.append(
            f"Above chance, that is {whole_percent(share)} of what clean images give without a "
            f"countermeasure"
        )
    if said_apart := _apart(report, worst):
        said.append(said_apart)
    if without is not None and worst.countermeasure != "none":
        said.append(f"Without a countermeasure, protected images give {percent(without.peak)}")
    said += [
        f"With {_name(report, row)}, protected images give {percent(row.peak)}; the clean baseline "
        f"has not been measured yet"
        for row in report.waiting()
    ]
    little = [_name(report, row) for row in report.rows() if report.says_little(row)]
    if little and report.held_by_default():
        said.append(
            f"With {_listed(little)}, victims learn next to nothing from clean images either"
        )
    said += left_out
    if len(report.cells) + len(report.diverged) != report.planned:
        said.append(f"Only {len(report.cells)} of {report.planned} cells have been measured so far")
    return ". ".join(said) + "."


def _apart(report: Findings, worst: Row) -> str:
    """The other worst case, where there is one with and one without knowing the method."""
    standard, adaptive = report.worst_standard, report.worst_adaptive
    if standard is None or adaptive is None or not report.learnt:
        return ""
    knows = worst == adaptive
    other = standard if knows else adaptive
    does = report.describe(other.countermeasure).removeprefix("a victim that ")
    share = report.recovered(other)
    figures = percent(other.peak)
    if share is not None:
        figures += f", which is {whole_percent(share)} of what clean images give"
    if knows:
        return (
            f"This requires knowing the method; of the victims that do not know it, the one that "
            f"{does} gets furthest and reaches {figures}"
        )
    return (
        f"Knowing the method does not help more: of the victims that know it, the one that {does} "
        f"gets furthest and reaches {figures}"
    )


def worst_cases(report: Findings) -> list[tuple[str, Row]]:
    """The worst case, or both if there is one without and one with knowledge of the method."""
    standard, adaptive = report.worst_standard, report.worst_adaptive
    if standard is None or adaptive is None:
        worst = report.worst()
        return [] if worst is None else [("Worst case", worst)]
    return [("Worst case", standard), ("Worst case, method known", adaptive)]


def plain_table(report: Findings) -> str:
    """Accuracies in aligned columns, for a terminal."""
    table: list[tuple[str, ...]] = [
        ("countermeasure", "victim", "protected, peak", "last", "clean, peak")
    ]
    for row in report.rows():
        p, c = row.protected, row.clean
        figures = (p and p.peak, p and p.last, c and c.peak)
        shown = ("-" if value is None else percent(value) for value in figures)
        name = row.countermeasure + (" (knows the method)" if report.adaptive(row) else "")
        table.append((name, row.victim, *shown))
    columns = []
    for number, column in enumerate(zip(*table, strict=True)):
        width = max(map(len, column))
        columns.append([text.ljust(width) if number < 2 else text.rjust(width) for text in column])
    return "\n".join(map("  ".join, zip(*columns, strict=True)))


def how_to_read(report: Findings) -> str:
    """Explains the columns of the table."""
    return (
        "High figures mean weak protection. Peak is the best epoch, last is the end of training; "
        "the clean column shows the same victim and countermeasure on clean images. Recovered is "
        "the peak on protected images as a share of what clean images give without a "
        f"countermeasure, both counted above chance ({100 * report.chance:.1f} %, the share of "
        f"the most frequent class in the test images). Up to {100 * HOLDS:.0f} %, the protection "
        f"held; from {100 * BREAKS:.0f} %, it did not. A countermeasure is inconclusive if "
        f"victims that use it recover no more than {100 * HOLDS:.0f} % even from clean images."
    )


def marks(report: Findings, row: Row) -> list[str]:
    """The remarks next to the name of a countermeasure in the table."""
    found = {
        "knows the method": report.adaptive(row),
        "worst case": row in [worst for _, worst in worst_cases(report)],
        "inconclusive": report.says_little(row),
    }
    return [mark for mark, holds in found.items() if holds]


def undoing(report: Findings) -> list[str]:
    """Who can undo this kind of perturbation, and with what knowledge; empty in old reports."""
    return [str(sentence) for sentence in report.perturbation.get("who_can_undo", [])]


def change_cells(change: Mapping[str, Any]) -> dict[str, str]:
    """Imperceptibility by column."""
    psnr = change["psnr"]
    return {
        "PSNR": "∞ dB" if psnr is None else f"{psnr:.1f} dB",
        "SSIM": f"{change['ssim']:.3f}",
        "largest change": f"{change['linf']}",
        "mean change": f"{change['mean']:.2f}",
        "changed pixels": f"{100 * change['share']:.1f} %",
        "images": f"{change['images']}",
    }


def change_rows(report: Findings) -> list[tuple[str, dict[str, str]]]:
    """Imperceptibility over all classes, and for each class that was measured."""
    rows = [("all classes", report.change), *report.change_by_class.items()]
    return [(name, change_cells(change)) for name, change in rows if change]


def figure(reached: Reached | None, which: str = "peak") -> str:
    """Mean and spread of the peak or the last accuracy, in percent."""
    if reached is None:
        return "–"
    spread = f" ± {100 * getattr(reached, which + '_std'):.1f}" if reached.seeds > 1 else ""
    return f"{100 * getattr(reached, which):.1f}{spread} %"


def facts(report: Findings) -> dict[str, str]:
    """All settings that the figures depend on, by name."""
    own, data, test, used = report.perturbation, report.dataset, report.test, report.settings
    parameters = ", ".join(f"{name}={value}" for name, value in own["parameters"].items())
    held = test["held_out"]
    from_where = test["name"] if held is None else f"{100 * held:.0f} % of the images, held out"
    budget = "none" if own["epsilon"] is None else f"{own['epsilon']} ({own['norm']})"
    peak = used["peak_images"]
    found = {
        "Method": f"{own['method']}, {own['granularity']}",
        "Budget": budget,
        "Parameters": parameters or "none",
        "Perturbation": f"digest {own['digest']}",
        "Training images": (
            f"{data['name']}, {data['images']:,} images of {data['num_classes']} classes, "
            f"{100 * data['fraction']:.0f} % of them protected; digest {data['digest']}"
        ),
        "Test images": f"{from_where}, {test['images']:,} clean images; digest {test['digest']}",
        "Victims": ", ".join(report.victims),
        "Training": (
            f"{used['epochs']} epochs, batches of {used['batch_size']}, SGD with momentum 0.9, "
            f"weight decay 5e-4, cosine schedule, random crops and flips; {used['precision']}"
        ),
        "Peak": "on all test images" if peak is None else f"on {peak:,} of the test images",
        "Seeds" if len(report.seeds) > 1 else "Seed": ", ".join(map(str, report.seeds)),
        "Cells": f"{len(report.cells)} of {report.planned}"
        + (f", {len(report.diverged)} diverged" if report.diverged else ""),
        "Time taken": duration(report.seconds),
        "Date": report.date,
        "Machine": _all(
            ", ".join([m["device"], f"{m['threads']} threads", *filter(None, [m.get("precision")])])
            for m in report.machines
        ),
        "Versions": _all(
            ", ".join(f"{name} {machine[name]}" for name in _VERSIONS)
            for machine in report.machines
        ),
    }
    if used["image_size"] is not None:
        found["Image size"] = "x".join(map(str, used["image_size"]))
    if test["overlap"]:
        found["Warning"] = f"{test['overlap']} test images are also training images"
    return found


def _name(report: Findings, row: Row) -> str:
    return row.countermeasure + (f" ({row.victim})" if len(report.victims) > 1 else "")


def _all(entries: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(entries))


def _listed(names: Iterable[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last
