"""Protected images in other people's formats, each of them without loss."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from ..data import Fit, RawDataset
from ..output import is_ours, write_json
from .arrays import check_cifar, write_cifar, write_npz
from .folders import write_folders
from .huggingface import import_datasets, to_hf_dataset, write_parquet
from .target import MARKER, check_folder, move
from .webdataset import write_webdataset

__all__ = ["FORMATS", "check_target", "export_images", "to_hf_dataset"]

# Each writes the images of these indices into a new folder, and returns what to say of it.
FORMATS: dict[str, Callable[[RawDataset, Iterable[int], Path], dict[str, Any]]] = {
    "cifar": write_cifar,
    "npz": write_npz,
    "parquet": write_parquet,
    "png": lambda raw, indices, folder: write_folders(raw, indices, folder, "png"),
    "webdataset": write_webdataset,
    "webp": lambda raw, indices, folder: write_folders(raw, indices, folder, "webp"),
}


def check_target(
    folder: str | Path,
    format: str,
    *,
    sources: Sequence[str | Path | None] = (),
    force: bool = False,
    dataset: Any = None,
    image_size: int | Sequence[int] | None = None,
) -> Path:
    """The folder of an export, made absolute, or the error that the export would end with.

    Args:
        folder: Where to.
        format: One of ``FORMATS``.
        sources: Folders that the images are read from.
        force: See :meth:`ProtectedDataset.export`.
        dataset: What is to be written, where that is known already.
        image_size: What its images will be resized and cropped to.

    Raises:
        ValueError: The format loses pixels, is not known or cannot hold the dataset; originals
            would be written over.
        FileExistsError: The folder holds something, or is a symbolic link.
        ImportError: The format needs a package that is not installed.
    """
    if format not in FORMATS:
        hint = "; JPEG changes pixels and takes most of the perturbation away"
        raise ValueError(
            f"expected a lossless format, one of {sorted(FORMATS)}, got {format!r}"
            + (hint if format.lower() in ("jpg", "jpeg") else "")
        )
    if format == "parquet":
        import_datasets()
    if format == "cifar" and dataset is not None:
        check_cifar(RawDataset(dataset), Fit.parse(image_size))
    return check_folder(folder, sources=sources, force=force)


def export_images(
    dataset: Any,
    folder: str | Path,
    format: str,
    *,
    described: Mapping[str, Any],
    sources: Sequence[str | Path | None] = (),
    force: bool = False,
    progress: bool = True,
) -> Path:
    """Writes a dataset's raw images; see :meth:`ProtectedDataset.export`.

    Args:
        dataset: As for :class:`RawDataset`.
        folder: Where to.
        format: One of ``FORMATS``.
        described: What to say of the images in the folder's ``unlearnable.json``.
        sources: Folders that the images are read from; never written into.
        force: See :meth:`ProtectedDataset.export`.
        progress: Show a bar.
    """
    folder = check_target(folder, format, sources=sources, force=force)
    replace = is_ours(folder, MARKER) and not (folder / MARKER).is_symlink()
    raw = RawDataset(dataset)
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.partial-", dir=folder.parent))
    try:
        indices = tqdm(range(len(raw)), desc="exporting", disable=None if progress else True)
        about = FORMATS[format](raw, indices, partial)
        content = {"format": "unlearnable-export", "format_version": 1, "images": len(raw)}
        write_json(partial / MARKER, content | {"classes": raw.classes} | about | dict(described))
        partial.chmod(0o755)
        move(partial, folder, replace=replace)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder
