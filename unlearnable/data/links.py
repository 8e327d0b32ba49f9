"""Links to folders: those that lead back to where they lie."""

from __future__ import annotations

import os
from pathlib import Path


def check_links(folder: Path) -> None:
    """Refuses links to a folder that contains them."""
    for at, _, _ in os.walk(folder, followlinks=True):
        here = Path(at)
        if here.is_symlink() and _leads_back(here):
            raise ValueError(
                f"expected folders without cycles, got the link {here} to {here.resolve()}, which "
                f"leads back to itself, so its photos would be read again and again; remove it"
            )


def _leads_back(link: Path) -> bool:
    """Whether a link goes to a folder that it lies in, or that was passed on the way to it."""
    found = link.stat()
    passed = (parent.stat() for parent in link.absolute().parents)
    return link.parent.resolve().is_relative_to(link.resolve()) or any(
        (at.st_dev, at.st_ino) == (found.st_dev, found.st_ino) for at in passed
    )
