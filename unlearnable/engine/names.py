"""Names as people type them: the one that was meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def folded(name: str) -> str:
    """A name without regard to case, hyphens, underscores and spaces."""
    return name.casefold().translate(dict.fromkeys(map(ord, "-_ ")))


def meant(name: object, known: Iterable[str]) -> str | None:
    """The known name that is nearest to another one, or None where none is near."""
    if not isinstance(name, str):
        return None
    names = {folded(own): own for own in known}
    near = difflib.get_close_matches(folded(name), names, 1)
    return names[near[0]] if near else None


def suggestion(name: object, known: Iterable[str]) -> str:
    """The end of an error: whether the nearest known name was meant; empty where none is near."""
    near = meant(name, known)
    return "" if near is None else f"; did you mean {near!r}?"
