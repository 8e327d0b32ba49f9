"""Markdown of text that may hold anything: tables, and text that no reader takes for markup."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

_MARKUP = set("\\`*_{}[]<>#!|~&:@$^")  # what has a meaning inside a line, links among it

_LONGEST = 200  # characters of a name or value


def printable(text: str) -> str:
    """Text on one line, without unprintable characters, and shortened if too long."""
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def escape(text: str) -> str:
    """Escapes text so that Markdown and HTML show it literally, on one line."""
    return "".join(f"\\{c}" if c in _MARKUP else c for c in " ".join(text.split()))


def table(head: Sequence[str], rows: Iterable[Iterable[str]]) -> str:
    """A table of cells that are already Markdown; see :func:`escape`."""
    lines = ["".join(f" {cell} |" if cell else " |" for cell in line) for line in (head, *rows)]
    lines.insert(1, "---|" * len(head))
    return "\n".join(f"|{line}" for line in lines)
