"""docs/reference/leaderboard.md and its pictures, from committed results and published figures.

    python benchmarks/leaderboard_page.py

The result of most images comes first: its conclusion, its heat map, and a table for each
countermeasure. The others follow, folded. Small trials have a page of their own beside their
results. Results may be unfinished: what has not been measured yet is left out. If a measured figure
and the published ones are far apart, or a known pattern does not appear, the page says so and gives
the reason from causes.json.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from boards import Board, boards, caption, columns
from leaderboard_chart import chart
from leaderboard_differences import causes, differences_section
from leaderboard_tables import conclusion, counter_sections, fits_table, published_section
from patterns import section as patterns_section
from record import DOCS, RESULTS, unbroken

PAGE = DOCS / "reference" / "leaderboard.md"
TRIALS = RESULTS / "small_trials.md"


def picture(board: Board) -> str | None:
    """A result's heat map as SVG; None before any row can be compared with clean images."""
    peaks = {key: figure.peak for key, figure in board.figures.items()}
    methods, each = {method for method, _ in peaks}, Counter(counter for _, counter in peaks)
    # What few methods were tried with would leave a chart of empty columns; tables have it.
    peaks = {key: peak for key, peak in peaks.items() if 4 * each[key[1]] >= len(methods)}
    if ("clean", "none") not in peaks or all(method == "clean" for method, _ in peaks):
        return None
    text = f"Accuracy on clean test images: {caption(board.result)}"
    return chart(peaks, columns(peaks), text, board.chance)


def picture_lines(board: Board) -> list[str]:
    """Where a page shows the heat map."""
    if picture(board) is None:
        return []
    return [
        f"![Methods against countermeasures as a heat map: {board.title}]({board.name}.svg)",
        "",
        "Accuracy of the best epoch, in percent; countermeasures that few methods were tried with "
        "are only in the tables. The strongest protection, by its worst case "
        "(framed), is on top. Countermeasures that need clean images or know the method come last "
        "and do not count for the worst case. The colour shows which share was recovered, beyond "
        "guessing, of what clean images give without a countermeasure.",
        "",
    ]


def section(board: Board, *, leads: bool) -> list[str]:
    """All about one result; the first one is not folded."""
    measured = f"{caption(board.result)} Measured by {board.source}."
    patterns = []
    if board.dataset == "cifar10":  # of which patterns are known
        figures = {key: figure.last for key, figure in board.figures.items()}
        patterns = patterns_section(figures, causes("patterns", board.settings["images"]))
    return [
        *([] if leads else [f"## {board.heading}", ""]),
        *conclusion(board),
        *picture_lines(board),
        measured,
        "",
        *(["## Countermeasure by countermeasure", ""] if leads else []),
        *([_EXPLAINED, ""] if leads else []),
        *counter_sections(board, folded=not leads),
        *fits_table(board),
        *patterns,
        *differences_section(board.result),
    ]


_EXPLAINED = (
    "Accuracy on clean test images in percent after the {term}`last and the best epoch <last and "
    "peak>`, the strongest protection first. *Given back* is the share, beyond guessing, of what "
    "clean images give with the same countermeasure. Published figures are for a ResNet-18 and the "
    "whole set, and for our radius of adversarial training unless they name theirs; the difference "
    "is how many points our range, from last to peak, lies above (+) or below (-) theirs."
)


def page(found: Sequence[Board]) -> str:
    """The whole text.

    Args:
        found: Results, the one that leads first.
    """
    lines = [
        "# Leaderboard",
        "",
        "What networks reach on clean test images after training on protected images, with "
        "{term}`countermeasures <countermeasure>` and without: on CIFAR-10 unless it says "
        "otherwise. Low figures mean a strong protection.",
        "",
    ]
    for number, board in enumerate(found):
        lines += section(board, leads=number == 0)
    lines += [
        "## Published",
        "",
        *published_section(),
        "",
        "Published and measured figures are not directly comparable: networks, numbers of images, "
        "budgets and schedules differ, and so do the published figures of a single method. "
        "`benchmarks/leaderboard.py` measures the figures, and `benchmarks/leaderboard_page.py` "
        "writes this page. Small trials, some of them with other countermeasures, are in "
        f"`benchmarks/results/{TRIALS.name}`.",
    ]
    return unbroken("\n".join(lines)) + "\n"


def trials_page(found: Sequence[Board]) -> str:
    """Small trials, for readers of the repository."""
    lines = [
        "# Small trials",
        "",
        "Methods against countermeasures on a part of CIFAR-10, with small networks. They show "
        "what undoes what, not how strong a method is on the whole set, which is what the "
        "leaderboard in `docs/` is for. `benchmarks/leaderboard_page.py` writes this page.",
        "",
    ]
    for board in found:
        lines += section(board, leads=False)
    return unbroken(_plain("\n".join(lines))) + "\n"


def _plain(text: str) -> str:
    """Markdown without what only the site can show."""
    text = re.sub(r"\{term\}`([^`<]*?)(?: <[^`]*>)?`", r"\1", text)
    text = re.sub(r":::\{dropdown\} (.*)\n+", _summary, text)
    return re.sub(r"\n+:::(?=\n|$)", r"\n\n</details>", text)


def _summary(line: re.Match[str]) -> str:
    title = re.sub(r"`([^`]*)`", r"<code>\1</code>", line[1])
    return f"<details><summary>{title}</summary>\n\n"


def files(found: Sequence[Board]) -> dict[Path, str]:
    """The pages and their pictures, by path."""
    large, small = ([b for b in found if b.small is kind] for kind in (False, True))
    made = {PAGE: page(large), TRIALS: trials_page(small)}
    for board in found:
        if svg := picture(board):
            made[(TRIALS if board.small else PAGE).with_name(f"{board.name}.svg")] = svg
    return made


def main() -> None:
    for path, text in files(boards()).items():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
