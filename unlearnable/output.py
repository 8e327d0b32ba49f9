"""Writing files so that nothing of anybody's is lost and nothing is left half-written."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def claim_folder(folder: str | Path, marker: str, *, force: bool = False) -> Path:
    """Makes a folder to write into, or takes one that is empty or was written by this package.

    Args:
        folder: Where to write.
        marker: Name of a JSON file that tells a folder of ours by its ``format``.
        force: Take the folder whatever it holds.

    Raises:
        FileExistsError: It holds something else.
        NotADirectoryError: It is a file.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"expected a folder to write into, got the file {folder}")
    folder.mkdir(parents=True, exist_ok=True)
    if not force and any(folder.iterdir()) and not is_ours(folder, marker):
        raise FileExistsError(
            f"expected an empty folder or one that this package wrote, got {folder} with other "
            f"files in it; choose another one, or pass force=True (--force) to write beside them"
        )
    return folder


def is_ours(folder: Path, marker: str) -> bool:
    """Whether this package wrote the folder's marker file."""
    try:
        found = json.loads((folder / marker).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and str(found.get("format", "")).startswith("unlearnable-")


def write_json(path: Path, content: Any) -> None:
    """Writes JSON beside its place and renames it there."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("w", encoding="utf-8") as file:
            json.dump(content, file, indent=2, ensure_ascii=False)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
