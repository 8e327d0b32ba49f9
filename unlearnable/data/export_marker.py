"""What a folder that was exported says of itself: read here, written by ``protected.export``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

EXPORT_FORMAT = "unlearnable-export"
MARKER = "unlearnable.json"


def export_at(folder: str | Path) -> dict[str, Any] | None:
    """The content of the folder's ``unlearnable.json``; None where that is not an export's own."""
    try:
        content = json.loads((Path(folder) / MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    ours = isinstance(content, dict) and content.get("format") == EXPORT_FORMAT
    return content if ours else None
