"""What others published, from published.json: accuracies on clean test images, ResNet-18."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PUBLISHED = Path(__file__).parent / "published.json"


def published(dataset: str = "cifar10") -> list[dict[str, Any]]:
    """Every figure: method (a row of cifar10.py), countermeasure, accuracy in percent, source."""
    figures: list[dict[str, Any]] = json.loads(PUBLISHED.read_text(encoding="utf-8"))["figures"]
    return [figure for figure in figures if figure.get("dataset", "cifar10") == dataset]


def published_range(name: str) -> str:
    """Lowest and highest accuracy of a row without countermeasure; empty where there is none."""
    found = [
        figure["accuracy"]
        for figure in published()
        if figure["method"] == name and figure["countermeasure"] == "none"
    ]
    if not found:
        return ""
    low, high = f"{min(found):.1f}", f"{max(found):.1f}"
    return low if low == high else f"{low} to {high}"


def best_countermeasure(names: Sequence[str]) -> str:
    """The countermeasure that gives most accuracy back, over several rows."""
    found = [
        (figure["accuracy"], figure["countermeasure"])
        for figure in published()
        if figure["method"] in names and figure["countermeasure"] != "none"
    ]
    return "{1}: {0:.1f}".format(*max(found)) if found else ""
