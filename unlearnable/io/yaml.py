"""YAML of mappings, lists and plain values, which may hold any text."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

_WORDS = ("null", "true", "false", "yes", "no", "on", "off", "y", "n")  # not text unless quoted


def yaml_block(values: Mapping[str, Any]) -> str:
    """The values in YAML block style, one per line, in their given order."""
    return "".join(f"{line}\n" for line in _lines(values))


def _lines(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping) and value:
        for name, own in value.items():
            plain = re.fullmatch(r"[a-z_]+", name) and name not in _WORDS
            head = name if plain else _scalar(name)
            if isinstance(own, Mapping | list) and own:
                yield f"{head}:"
                yield from (f"  {line}" for line in _lines(own))
            else:
                yield f"{head}: {_scalar(own)}"
    elif isinstance(value, list) and value:
        for own in value:
            first, *others = _lines(own)
            yield f"- {first}"
            yield from (f"  {line}" for line in others)
    else:
        yield _scalar(value)


def _scalar(value: Any) -> str:
    """As JSON, except for the escapes of what cannot be printed: JSON's do not reach far enough."""
    if not isinstance(value, str):
        return json.dumps(value)
    return f'"{"".join(map(_character, value))}"'


def _character(c: str) -> str:
    if c in '"\\':
        return f"\\{c}"
    if c.isprintable():
        return c
    return f"\\u{ord(c):04x}" if ord(c) < 1 << 16 else f"\\U{ord(c):08x}"
