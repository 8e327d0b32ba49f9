"""JSON from anywhere, read strictly: bounded, unambiguous, and nothing that JSON does not have."""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ArtefactError

MAX_BYTES = 1 << 24
MAX_LEVELS = 32


def parse_json(data: bytes, where: str | Path) -> Any:
    """Parses UTF-8 JSON, called ``where`` in errors.

    Raises ``ArtefactError`` if it is not JSON, contains duplicate names or non-finite numbers, is
    nested more than 32 levels deep, or is larger than 16 MiB.
    """
    try:
        if len(data) > MAX_BYTES:
            raise ValueError(f"it is larger than {MAX_BYTES:,} bytes")
        value = json.loads(data.decode("utf-8"), object_pairs_hook=_without_repetition)
        _check(value, MAX_LEVELS)
    except (ValueError, RecursionError) as error:
        raise ArtefactError(f"expected valid JSON in {where}: {error}") from error
    return value


def read_json(path: Path) -> Any:
    """Like :func:`parse_json`, for a file; raises ``ArtefactError`` if it does not exist."""
    if not path.is_file():
        raise ArtefactError(f"expected {path.name} in {path.parent}, found none")
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        return parse_json(file.read(min(size, MAX_BYTES + 1)), path)


def as_json(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config in the form in which :func:`parse_json` will return it after writing.

    NumPy's numbers become plain ones. NaN and infinities, which JSON does not have, become the
    strings ``"NaN"``, ``"Infinity"`` and ``"-Infinity"``. Other values raise ``TypeError``; a
    config too large or too deeply nested to be read again raises ``ValueError``.
    """
    text = json.dumps(dict(config), default=_plain, indent=2)  # as it is written
    if len(text) > MAX_BYTES - 1024:  # format and digest are added
        raise ValueError(f"expected a config of moderate size, got {len(text):,} bytes")
    value: dict[str, Any] = json.loads(text, parse_constant=str)
    _check(value, MAX_LEVELS)
    return value


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    (name, times), *_ = Counter(name for name, _ in pairs).most_common(1) or [("", 0)]
    if times > 1:
        raise ValueError(f"{name[:40]!r} occurs twice in one object")
    return dict(pairs)


def _check(value: Any, levels: int) -> None:
    """Raises ``ValueError`` for numbers that are not finite and values nested too deeply."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"it contains {value}, which is not a finite number")
    if isinstance(value, (dict, list)):
        if not levels:
            raise ValueError(f"it is nested more than {MAX_LEVELS} levels deep")
        for item in value.values() if isinstance(value, dict) else value:
            _check(item, levels - 1)


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"expected a config of plain values, got {type(value).__name__} {value!r}")
