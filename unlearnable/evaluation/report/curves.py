"""Test accuracy over epochs as a picture; needs the extra ``plot``."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from ..evaluate import Evaluation

logger = logging.getLogger(__name__)


def plot_curves(evaluations: Mapping[str, Evaluation], path: str | Path) -> bool:
    """Plots clean-test accuracy after each epoch, with one line per seed and one colour per name.

    Returns whether the plot was drawn; without matplotlib it is skipped, with a hint in the log.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        logger.warning(
            "accuracy curves were skipped; to get them, run: pip install 'unlearnable[plot]'"
        )
        return False
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for number, (name, evaluation) in enumerate(evaluations.items()):
        for seed, curve in zip(evaluation.seeds, evaluation.curves, strict=True):
            percent = [100 * accuracy for accuracy in curve]
            label = name if seed == evaluation.seeds[0] else None
            axes.plot(range(1, len(percent) + 1), percent, color=f"C{number}", label=label)
    axes.set_xlabel("epoch")
    axes.set_ylabel("accuracy on clean test images (%)")
    axes.set_ylim(0, 100)
    axes.grid(alpha=0.3)
    axes.legend(title="trained on")
    figure.savefig(path, dpi=120)
    return True
