"""Names as people type them: the one that was meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def folded(name: str) -> str:
    """A name normalised to ignore case, hyphens, underscores and spaces."""
    return name.casefold().translate(dict.fromkeys(map(ord, "-_ ")))


def meant(name: object, known: Iterable[str]) -> str | None:
    """The known name that is closest to another one, or None if none is close."""
    if not isinstance(name, str):
        return None
    names = {folded(own): own for own in known}
    near = difflib.get_close_matches(folded(name), names, 1)
    return names[near[0]] if near else None


def suggestion(name: object, known: Iterable[str]) -> str:
    """The end of an error that suggests the closest known name; empty if none is close."""
    near = meant(name, known)
    return "" if near is None else f"; did you mean {near!r}?"
