"""What exports say of themselves: read here, written by ``protected.export``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

EXPORT_FORMAT = "unlearnable-export"
MARKER = "unlearnable.json"
_COPY = "unlearnable-protected-"


def copy_name(index: int) -> str:
    """The name of an image in a table, where nothing else shows that it may be protected.

    Tables are copied without their folder, to the Hub or to a cache.
    """
    return f"{_COPY}{index:06d}.png"


def is_copy(name: str | Path) -> bool:
    """Whether a file name comes from :func:`copy_name`."""
    return Path(name).name.startswith(_COPY)


def export_at(folder: str | Path) -> dict[str, Any] | None:
    """The content of the folder's ``unlearnable.json``; None if it was not written by an export."""
    try:
        content = json.loads((Path(folder) / MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    ours = isinstance(content, dict) and content.get("format") == EXPORT_FORMAT
    return content if ours else None
