"""How commands print what they found."""

from __future__ import annotations

import argparse
import json
from typing import Any

from ..perturbation.card import words


def show(args: argparse.Namespace, values: Any, text: str | None = None) -> None:
    """Prints values as JSON if that is asked for, else a text, or a line for each value."""
    if args.json:
        print(json.dumps(values, indent=2))
    elif text is not None:
        print(text)
    else:
        known = [[name, words(value)] for name, value in values.items() if value is not None]
        print(aligned(known))


def aligned(lines: list[list[str]]) -> str:
    """Lines of words, one column below the other."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)
