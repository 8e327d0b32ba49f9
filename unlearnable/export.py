"""Lossless image folders that ``ImageFolder`` reads back with the same pixels and labels."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from .data import RawDataset, to_pil
from .manifest import MARKER, Manifest
from .output import claim_folder, is_ours, write_json

_OPTIONS: dict[str, dict[str, Any]] = {
    "png": {},
    "webp": {"lossless": True, "exact": True},
}


def class_folders(raw: RawDataset) -> list[str]:
    """A folder name per class whose alphabetical order is the order of class indices.

    The class names themselves where they serve; else with their index before them.
    """
    number = len(raw.classes) if raw.classes is not None else int(raw.labels.max()) + 1
    digits = len(str(number - 1))
    indices = [f"{index:0{digits}d}" for index in range(number)]
    if raw.classes is None:
        return indices
    safe = [re.sub(r"[^\w .()+,-]", "_", name).strip(" .") for name in raw.classes]
    folded = {name.casefold() for name in safe}  # some file systems take a and A for one
    if safe == raw.classes and sorted(set(safe)) == safe and len(folded) == len(safe):
        return safe
    return [f"{index}_{name}" for index, name in zip(indices, safe, strict=True)]


def check_target(
    folder: str | Path,
    format: str,
    *,
    sources: Sequence[str | Path | None] = (),
    force: bool = False,
) -> Path:
    """The folder of an export, made absolute, or the error that the export would end with.

    Raises:
        ValueError: The format loses pixels or is not known; originals would be written over.
        FileExistsError: The folder holds something.
    """
    if format not in _OPTIONS:
        hint = "; JPEG changes pixels and takes most of the perturbation away"
        raise ValueError(
            f"expected a lossless format, one of {sorted(_OPTIONS)}, got {format!r}"
            + (hint if format.lower() in ("jpg", "jpeg") else "")
        )
    folder = Path(folder).absolute()
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


def export_images(
    dataset: Any,
    folder: str | Path,
    format: str,
    *,
    described: Mapping[str, Any],
    manifest: Manifest,
    sources: Sequence[str | Path | None] = (),
    force: bool = False,
    progress: bool = True,
) -> Path:
    """Writes a dataset's raw images; see :meth:`ProtectedDataset.export`.

    Args:
        dataset: As for :class:`RawDataset`.
        folder: Where to.
        format: ``"png"`` or ``"webp"``.
        described: What to say of the images in the folder's ``unlearnable.json``.
        manifest: Notes each file.
        sources: Folders that the images are read from; never written into.
        force: See :meth:`ProtectedDataset.export`.
        progress: Show a bar.
    """
    folder = check_target(folder, format, sources=sources, force=force)
    replace = folder.is_dir() and is_ours(folder, MARKER)
    raw = RawDataset(dataset)
    names = class_folders(raw)
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.partial-", dir=folder.parent))
    try:
        for name in names:
            (partial / name).mkdir()
        digits = len(str(len(raw) - 1))
        bar = tqdm(range(len(raw)), desc="exporting", disable=None if progress else True)
        for index in bar:
            item = raw[index]
            file = f"{names[int(item.label)]}/{index:0{digits}d}.{format}"
            metadata = manifest.add(index, file, item.pixels)
            to_pil(item.pixels).save(partial / file, **_OPTIONS[format], **metadata)
        content = {"format": "unlearnable-export", "format_version": 1, "images": len(raw)}
        classes = {"classes": raw.classes, "folders": names}
        manifest.write(partial)
        write_json(partial / MARKER, content | classes | dict(described) | manifest.described())
        partial.chmod(0o755)
        _move(partial, folder, replace=replace)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def _move(partial: Path, folder: Path, *, replace: bool) -> None:
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
        if target.exists() and not (path.is_dir() and target.is_dir()):
            raise FileExistsError(
                f"expected a folder without {path.relative_to(partial)}, got one in {folder}; "
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
