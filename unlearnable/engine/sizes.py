"""Sizes of files as they are said to people."""

from __future__ import annotations


def readable_size(count: float) -> str:
    """Formats bytes: 820 bytes, 82 kB, 1.4 MB, 230 MB, 12 GB."""
    if count < 1000:
        return f"{count:.0f} bytes"
    for unit in ("kB", "MB", "GB", "TB"):
        count /= 1000
        if count < 999.5 or unit == "TB":
            break
    return f"{count:.1f} {unit}" if count < 9.95 and unit != "kB" else f"{count:,.0f} {unit}"
