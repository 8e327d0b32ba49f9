"""Names that are imported when they are first used: a module is there at once. (PEP 562)"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

_PACKAGE = __name__.partition(".")[0]


def attach(
    module: str, names: Mapping[str, str | None]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """A module's ``__getattr__`` and ``__dir__``.

    They are hidden from type checkers, for which every name would be there: those read the same
    names from imports below ``TYPE_CHECKING``.

    Args:
        module: Its ``__name__``.
        names: Each of the names, and the module below this package that defines it; None for a
            module below ``module`` itself.
    """
    own = sys.modules[module]

    def find(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {module!r} has no attribute {name!r}", name=name, obj=own)
        home = names[name]
        if home is None:
            return import_module(f"{module}.{name}")
        value = getattr(import_module(f"{_PACKAGE}.{home}"), name)
        setattr(own, name, value)  # found without this from now on
        return value

    return find, lambda: sorted({*vars(own), *names})


def from_above(home: str, name: str) -> Any:
    """What a module defines that lies above the caller, for a call that is handed up to it."""
    return getattr(import_module(f"{_PACKAGE}.{home}"), name)
