"""What is known about methods against countermeasures, compared with a leaderboard result."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from unlearnable.evaluation.report.figures import whole_percent

# Noise that is added to the pixels and bounded in L-infinity or L2, with nothing on top.
ADDITIVE = (
    "SEM", "EM", "TAP", "SEP 8/255", "LSP", "PILNoise", "AR", "REM", "MIUE", "SEP", "AUE", "AAP",
    "HYPO", "BAIT",
)  # fmt: skip
_FEWEST = 4  # of these, from which on something is said about them
ADVERSARIAL = "adversarial-training-4-steps-3"
CHANCE = 10.0  # percent, of ten classes
MOST = 0.5  # from this share of what clean images give on, a countermeasure undoes most

Figures = Mapping[tuple[str, str], float]


class Finding(NamedTuple):
    """A known pattern and what was measured of it.

    Attributes:
        pattern: What is known.
        measured: What the figures say of it.
        appears: Whether they agree.
    """

    pattern: str
    measured: str
    appears: bool


def recovered(figures: Figures, method: str, counter: str) -> float:
    """Share, beyond guessing, of what clean images give under the same countermeasure."""
    return (figures[method, counter] - CHANCE) / (figures["clean", counter] - CHANCE)


def _undoes(counter: str, figures: Figures) -> Finding:
    shares = {m: recovered(figures, m, counter) for m in ADDITIVE if (m, counter) in figures}
    if len(shares) < _FEWEST:
        raise KeyError("too few are measured yet")
    return _most(f"{counter} undoes most additive noise", "additive methods", shares)


def _most(pattern: str, what: str, shares: Mapping[str, float]) -> Finding:
    if not shares:
        raise KeyError(what)
    undone = [method for method, share in shares.items() if share >= MOST]
    low = [f"{method} {whole_percent(share)}" for method, share in shares.items() if share < MOST]
    measured = f"{len(undone)} of {len(shares)} {what}" + (f"; not {', '.join(low)}" if low else "")
    return Finding(pattern, measured, len(undone) > len(shares) / 2)


def _order(figures: Figures) -> Finding:
    shares = {method: recovered(figures, method, ADVERSARIAL) for method in ("EM", "REM", "SEM")}
    return Finding(
        "adversarial training undoes EM more than REM and SEM",
        ", ".join(f"{method} {whole_percent(share)}" for method, share in shares.items()),
        shares["EM"] > max(shares["REM"], shares["SEM"]),
    )


def _ops_survives(figures: Figures) -> Finding:
    share = recovered(figures, "OPS", ADVERSARIAL)
    return Finding("OPS survives adversarial training", f"OPS {whole_percent(share)}", share < MOST)


def _ops_falls(counter: str, figures: Figures) -> Finding:
    plain, share = recovered(figures, "OPS", "none"), recovered(figures, "OPS", counter)
    return Finding(
        f"OPS falls to {counter}",
        f"OPS {whole_percent(share)}, {whole_percent(plain)} without it",
        share >= MOST,
    )


def _unprotected(figures: Figures) -> Finding:
    # As a share of what wholly clean images give, since no fifth of them is left unprotected.
    accuracies = {m: f for (m, c), f in figures.items() if c == "unprotected-20" and m != "clean"}
    clean = figures["clean", "none"] - CHANCE
    shares = {method: (accuracy - CHANCE) / clean for method, accuracy in accuracies.items()}
    pattern = "a share of 20 % unprotected images removes most of the effect"
    return _most(pattern, "methods", shares)


_PATTERNS: Sequence[Callable[[Figures], Finding]] = (
    lambda figures: _undoes("jpeg-10", figures),
    lambda figures: _undoes("grayscale", figures),
    _order,
    _ops_survives,
    lambda figures: _ops_falls("cutout", figures),
    lambda figures: _ops_falls("median-filter", figures),
    _unprotected,
)


def findings(figures: Figures) -> list[Finding]:
    """What can be said of each pattern; those whose cells are not measured yet are left out.

    Args:
        figures: Clean-test accuracy in percent by method and countermeasure.
    """
    found = []
    for pattern in _PATTERNS:
        try:
            found.append(pattern(figures))
        except KeyError:
            continue
    return found


def section(figures: Figures, causes: Mapping[str, Any]) -> list[str]:
    """A Markdown table of the patterns; those that do not appear with their cause.

    Args:
        figures: As for :func:`findings`.
        causes: By pattern, a dict whose ``"text"`` says why it does not appear.
    """
    found = findings(figures)
    if not found:
        return []
    lines = [
        f"Patterns known from publications, here by the last epoch (percentages are shares of what "
        f"clean images give beyond guessing; “most” means {whole_percent(MOST)} or more):",
        "",
        "| known | measured | appears here |",
        "|---|---|---|",
    ]
    for finding in found:
        lines.append(
            f"| {finding.pattern} | {finding.measured} | {'yes' if finding.appears else 'no'} |"
        )
    lines.append("")
    for finding in found:
        if not finding.appears:
            cause = causes.get(finding.pattern, {"text": "The cause was not tested yet."})
            lines += [f"Why does “{finding.pattern}” not appear? {cause['text']}", ""]
    return lines
