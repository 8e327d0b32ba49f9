"""The worst case of each protection: how much a trainer recovers of what clean images give.

    python benchmarks/worst_case.py benchmarks/results/leaderboard-cpu.json

Reads a result of leaderboard.py. For each countermeasure of the standard set, the accuracy that
victims reach on protected images is divided by what they reach with the same countermeasure on
clean ones; the largest share is the protection's worst case. Adaptive countermeasures, which know
the method, are listed beside it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from boards import caption, figures_of

from unlearnable.evaluation.countermeasures import countermeasure
from unlearnable.evaluation.countermeasures.sets import STANDARD_SET


class Share(NamedTuple):
    """What a countermeasure gives back.

    Attributes:
        countermeasure: Its name.
        protected: Accuracy of victims of protected images, in percent.
        clean: Of clean images, with the same countermeasure.
    """

    countermeasure: str
    protected: float
    clean: float

    @property
    def of_clean(self) -> float:
        """1 where the protection does nothing."""
        return self.protected / self.clean

    def __str__(self) -> str:
        return (
            f"{self.of_clean:.2f}: {self.countermeasure} ({self.protected:.1f} of {self.clean:.1f})"
        )


def shares(last: Mapping[tuple[str, str], float], method: str, *, standard: bool) -> list[Share]:
    """Of one method, those of the standard set or those that know it, the largest first."""
    found = [
        Share(counter, accuracy, last["clean", counter])
        for (trained_on, counter), accuracy in last.items()
        if trained_on == method
        and ("clean", counter) in last
        and (counter in STANDARD_SET if standard else countermeasure(counter).knows_method)
        and not countermeasure(counter).needs_clean_images
    ]
    return sorted(found, key=lambda share: -share.of_clean)


def table(result: dict[str, Any]) -> str:
    """A row for each protection, the one with the best worst case on top."""
    figures = figures_of(result)
    last = {key: figure.last for key, figure in figures.items()}
    methods = dict.fromkeys(method for method, _ in last if method != "clean")
    rows = []
    for method in methods:
        usual, adaptive = (shares(last, method, standard=known) for known in (True, False))
        if not usual:
            continue
        plain = figures.get((method, "none"))
        second = str(usual[1]) if len(usual) > 1 else ""
        columns = [
            method,
            "" if plain is None else plain.shown("last"),
            f"**{usual[0]}**",
            second,
            str(adaptive[0]) if adaptive else "",
            str(len(usual)),
        ]
        rows.append((usual[0].of_clean, f"| {' | '.join(columns)} |"))
    head = "| trained on | none | worst | second | worst of those that know it | tried |"
    ordered = [line for _, line in sorted(rows)]
    clean = figures.get(("clean", "none"))
    note = "Last epoch; share of clean (accuracy in percent, of that on clean images). " + (
        f"Clean images without a countermeasure: {clean.shown('last')}. " if clean else ""
    )
    return "\n".join([head, "|---" * 6 + "|", *ordered, "", note + caption(result)])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("result", type=Path)
    print(table(json.loads(parser.parse_args().result.read_text())))


if __name__ == "__main__":
    main()
