"""The pages about methods, made from the methods' classes and from committed results.

    python benchmarks/methods_page.py

It fills the places that comments mark for it: in docs/reference/methods/NAME.md, whose other parts
are written by hand, in the list docs/reference/methods/index.md, and in
docs/explanation/methods.md, where each method has a picture. The figures come from results/*.json
and published.json; methods_pictures.py makes the pictures.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

from cifar10 import table as trial_table
from method_facts import (
    IMAGES,
    budget,
    facts,
    idea,
    million,
    paper,
    signature,
    summary,
    surrogate,
    undone_by,
)
from method_figures import (
    OURS,
    best_published,
    broken_section,
    cost_section,
    hours,
    published_plain,
    reached,
    reached_section,
)
from methods_pictures import NOTES, SIZE
from record import DOCS, filled, unbroken

import unlearnable as ue

OVERVIEW = DOCS / "explanation" / "methods.md"
FOLDER = DOCS / "reference" / "methods"
INDEX = FOLDER / "index.md"
TRIAL = Path(__file__).parent / "README.md"


def listed() -> list[type[ue.Method]]:
    """All methods in the order in which the index lists their pages."""
    names = INDEX.read_text(encoding="utf-8").rpartition("```{toctree}")[2].split()
    return sorted(ue.METHODS, key=lambda cls: names.index(cls.__name__))


def page_of(cls: type[ue.Method]) -> Path:
    """Where a method is described."""
    return FOLDER / f"{cls.__name__}.md"


def head(cls: type[ue.Method]) -> str:
    """What stands on top of a method's page."""
    name = cls.__name__
    made = json.loads(NOTES.read_text(encoding="utf-8"))["cells"][name]
    times = "not amplified" if made["gain"] == 1 else f"amplified {made['gain']} times"
    alt = f"What {name} does to three generated images: clean, the change, protected"
    lines = [
        f"*{summary(cls)}.* {idea(cls)}",
        "",
        f"![{alt}](images/{name}.webp)",
        "",
        f"From top to bottom: clean images, two of one class and one of another; the change, "
        f"{times}; protected images. Preset `demo` on {SIZE} generated images, by "
        f"`benchmarks/methods_pictures.py`.",
        "",
        "| | |",
        "|---|---|",
        *(f"| {what} | {text} |" for what, text in facts(cls)),
    ]
    return "\n".join(lines)


def figures(cls: type[ue.Method]) -> str:
    """What is measured of it, what breaks it, and what it costs."""
    who, names = undone_by(cls)
    published = best_published(cls)
    lines = [
        "## How strong it is",
        "",
        *reached_section(cls),
        "## What breaks it",
        "",
        " ".join(who),
        "",
        *broken_section(cls),
        *([published, ""] if published else []),
        f"Besides the countermeasures that an audit tries on every method, it tries these "
        f"{{term}}`adaptive` ones: {', '.join(f'`{name}`' for name in names)}. "
        f"[Countermeasures](../../explanation/countermeasures.md) explains them.",
        "",
        "## What it costs",
        "",
        *cost_section(cls),
    ]
    return "\n".join(lines).rstrip()


def parameters(cls: type[ue.Method]) -> str:
    """All parameters, and where they are explained."""
    lines = [
        "## Parameters",
        "",
        f"With their defaults; {{py:class}}`unlearnable.{cls.__name__}` explains each.",
        "",
        "```python",
        signature(cls),
        "```",
    ]
    return "\n".join(lines)


def grid() -> str:
    """A picture for each method."""
    lines = ["::::{grid} 2 3 3 4", ":gutter: 2", ""]
    for cls in listed():
        name = cls.__name__
        lines += [
            f":::{{grid-item-card}} {name}",
            ":class-body: sd-p-2",
            ":class-title: sd-fs-6",
            f":img-top: ../reference/methods/images/{name}-small.webp",
            f":img-alt: The change by {name}, amplified, and a protected image",
            f":link: ../reference/methods/{name}",
            ":link-type: doc",
            f"{summary(cls)}",
            ":::",
            "",
        ]
    return "\n".join([*lines, "::::"])


def kinds_table() -> str:
    """What methods are and what a fit takes."""
    lines = [
        "| method | budget | network and passes, `paper` | `fast` takes about |",
        "|---|---|---|---|",
    ]
    for cls in listed():
        method, fast = cls(), cls.preset("fast")
        passes = method.passes(IMAGES)
        takes = hours(fast) if fast.passes(IMAGES) else "seconds"
        columns = (
            f"[{cls.__name__}]({cls.__name__}.md): {paper(cls)}",
            budget(method),
            f"{surrogate(method)}, {million(passes)}" if passes else "none",
            takes,
        )
        lines.append(f"| {' | '.join(columns)} |")
    note = (
        f"Passes are for {IMAGES:,} images. Times are for the preset `fast` on two CPU cores in "
        f"bf16; there is none where the speed of its network was not measured. Each page has the "
        f"details."
    )
    return "\n".join([*lines, "", note])


def strength_table() -> str:
    """The largest result of each method, beside what others published."""
    lines = [
        "| method, victims | clean images | protected, last | published |",
        "|---|---|---|---|",
    ]
    for cls in listed():
        name = cls.__name__
        known = published_plain(name)
        found = reached(cls)  # best with the defaults
        best = next((entry for entry in found if entry.row == name), found[0] if found else None)
        victims, clean, last = "", "", "not measured yet"
        if best is not None:
            other = f"{best.row.removeprefix(name).strip()}, " if best.row != name else ""
            victims, clean = f": {other}{best.title}", best.clean_shown
            last = best.figure.shown("last")
        lines.append(f"| [{name}]({name}.md){victims} | {clean} | {last} | {known} |")
    note = (
        "Accuracy on clean CIFAR-10 test images, in percent; the lower, the stronger the "
        "protection. Each row shows the largest result there is; one without a spread is of one "
        "seed. "
        "Published figures are for a ResNet-18 and the whole set."
    )
    return "\n".join([*lines, "", note])


def places() -> Iterator[tuple[Path, str, Callable[[], str]]]:
    """Every place to fill: page, what its comment names, and what goes there."""
    for cls in ue.METHODS:
        page = page_of(cls)
        yield page, "methods_page.py head", lambda cls=cls: head(cls)
        yield page, "methods_page.py figures", lambda cls=cls: figures(cls)
        yield page, "methods_page.py parameters", lambda cls=cls: parameters(cls)
    yield OVERVIEW, "methods_page.py pictures", grid
    yield INDEX, "methods_page.py kinds", kinds_table
    yield INDEX, "methods_page.py strength", strength_table
    yield TRIAL, "cifar10.py", lambda: trial_table(json.loads(OURS.read_text(encoding="utf-8")))


def pages() -> dict[Path, str]:
    """All pages as they are to be."""
    found: dict[Path, str] = {}
    for page, place, make in places():
        found[page] = filled(page, place, unbroken(make()), found.get(page))
    return found


def main() -> None:
    for page, text in pages().items():
        page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
