"""Accuracy over epochs as inline SVG, drawn by CSS classes of the page around it."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

_WIDTH, _HEIGHT = 320, 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 40, 10, 10, 28


class Line(NamedTuple):
    """Accuracies after each epoch.

    Attributes:
        curve: Shares from 0 to 1.
        style: CSS class, ``"protected"`` or ``"clean"``.
    """

    curve: Sequence[float]
    style: str


def accuracy_chart(lines: Sequence[Line], chance: float, text: str) -> str:
    """A chart of accuracies from 0 to 100 %.

    Args:
        lines: Drawn over one another, the last on top.
        chance: Accuracy of guessing; a dotted line.
        text: What it shows, for those who cannot see it.
    """
    epochs = max(len(line.curve) for line in lines)
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM

    def x(epoch: int) -> float:
        return _LEFT + (right - _LEFT) * (epoch - 1) / max(1, epochs - 1)

    def y(share: float) -> float:
        return bottom - (bottom - _TOP) * share

    parts = []
    for tick in (0, 25, 50, 75, 100):
        height = y(tick / 100)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{height:g}" y2="{height:g}"/>')
        parts.append(f'<text class="tick" x="{_LEFT - 6}" y="{height + 4:g}" text-anchor="end">{tick} %</text>')
    parts.append(
        f'<line class="chance" x1="{_LEFT}" x2="{right}" y1="{y(chance):.1f}" y2="{y(chance):.1f}"/>'
    )
    parts += [
        f'<text class="tick" x="{x(epoch):.1f}" y="{_HEIGHT - 9}" text-anchor="{anchor}">{label}</text>'
        for epoch, anchor, label in _epochs(epochs)
    ]
    for line in lines:
        points = " ".join(f"{x(n):.1f},{y(share):.1f}" for n, share in enumerate(line.curve, 1))
        if len(line.curve) == 1:
            cx, cy = points.split(",")
            parts.append(f'<circle class="dot {escape(line.style)}" cx="{cx}" cy="{cy}" r="4"/>')
        else:
            parts.append(f'<polyline class="curve {escape(line.style)}" points="{points}"/>')
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(text)}">'
        f"{''.join(parts)}</svg>"
    )


def _epochs(epochs: int) -> list[tuple[int, str, str]]:
    """Which are named on the axis, at which side of their place."""
    if epochs == 1:
        return [(1, "start", "epoch 1")]
    return [(1, "start", "epoch 1"), (epochs, "end", str(epochs))]
