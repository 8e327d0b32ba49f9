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

    They are hidden from type checkers, which would otherwise accept any name and instead read the
    names from imports below ``TYPE_CHECKING``.

    Args:
        module: The module's ``__name__``.
        names: Each name with the module in this package that defines it; None for a submodule of
            ``module`` itself.
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
    """A name defined in a module above the caller, for calls that are passed up to it."""
    return getattr(import_module(f"{_PACKAGE}.{home}"), name)
