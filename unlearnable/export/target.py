"""The folder that an export goes to: checked first, filled in one move, nothing written over."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from ..manifest import MARKER
from ..output import claim_folder


def check_folder(
    folder: str | Path, *, sources: Sequence[str | Path | None] = (), force: bool = False
) -> Path:
    """The folder made absolute, or the error of writing there; as ``check_target``."""
    folder = Path(folder).absolute()
    if folder.is_symlink():
        raise FileExistsError(
            f"expected a folder, got the symbolic link {folder}; name the folder it stands for"
        )
    for source in sources:
        if source and _overlap(Path(source), folder):
            raise ValueError(
                f"expected a folder apart from the images' own, {source}, got {folder}: originals "
                f"are never written over"
            )
    if folder.exists() and not force and not (folder.is_dir() and not any(folder.iterdir())):
        raise FileExistsError(
            f"expected a new or empty folder, got {folder}; choose another one, or pass force=True "
            f"(--force)"
        )
    return folder


def move(partial: Path, folder: Path, *, replace: bool) -> None:
    """Renames a finished folder to its place.

    Args:
        partial: The finished folder, beside its place.
        folder: Its place: nothing, an earlier export, or a folder of others that it is added to.
        replace: An earlier export is there.

    Raises:
        FileExistsError: A file of others, or a symbolic link, is in the way; nothing was moved.
    """
    if not folder.exists():
        partial.rename(folder)
        return
    if replace:
        old = partial.with_name(partial.name + "-old")
        folder.rename(old)
        try:
            partial.rename(folder)
        except BaseException:
            old.rename(folder)
            raise
        shutil.rmtree(old)
        return
    claim_folder(folder, MARKER, force=True)
    paths = sorted(partial.rglob("*"))
    for path in paths:
        target = folder / path.relative_to(partial)
        merges = path.is_dir() and target.is_dir() and not target.is_symlink()
        if (target.exists() or target.is_symlink()) and not merges:
            kind = "a symbolic link" if target.is_symlink() else "one"
            raise FileExistsError(
                f"expected a folder without {path.relative_to(partial)}, got {kind} in {folder}; "
                f"files of others are never written over"
            )
    for path in paths:
        target = folder / path.relative_to(partial)
        if path.is_dir():
            target.mkdir(exist_ok=True)
        else:
            path.replace(target)


def _overlap(source: Path, target: Path) -> bool:
    source, target = source.resolve(), target.resolve()
    return source.is_dir() and (
        source == target or source in target.parents or target in source.parents
    )
