"""Accuracy over epochs as inline SVG, drawn by CSS classes of the page around it."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

_WIDTH, _HEIGHT = 320, 190
_TICKS = (0, 25, 50, 75, 100)  # percent
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

    def level(share: float, style: str) -> str:
        height = f"{y(share):.1f}"
        return f'<line class="{style}" x1="{_LEFT}" x2="{right}" y1="{height}" y2="{height}"/>'

    def label(across: float, down: float, anchor: str, words: str) -> str:
        place = f'x="{across:.1f}" y="{down:.1f}" text-anchor="{anchor}"'
        return f'<text class="tick" {place}>{words}</text>'

    parts = [level(tick / 100, "grid") for tick in _TICKS]
    parts += [label(_LEFT - 6, y(tick / 100) + 4, "end", f"{tick} %") for tick in _TICKS]
    parts += [level(chance, "chance"), label(_LEFT, _HEIGHT - 9, "start", "epoch 1")]
    if epochs > 1:
        parts.append(label(right, _HEIGHT - 9, "end", str(epochs)))
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
