"""Protected images in other people's formats, each of them without loss."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from ...data.image import ResizeCrop
from ...data.raw import RawDataset
from ...io.files import write_json
from ..manifest import EXPORT_FORMAT, EXPORT_FORMAT_VERSION, MARKER, Manifest
from .arrays import check_cifar, write_cifar, write_npz
from .folders import write_folders
from .huggingface import import_datasets, to_hf_dataset, write_parquet
from .target import check_folder, paths_of, written_apart
from .webdataset import write_webdataset

__all__ = ["EXPORT_FORMATS", "ONE_SIZE", "check_target", "export_images", "to_hf_dataset"]

# Each writes the images of these indices into a new folder, and returns what to say of it.
_WRITERS: dict[str, Callable[[RawDataset, Iterable[int], Path], dict[str, Any]]] = {
    "cifar": write_cifar,
    "npz": write_npz,
    "parquet": write_parquet,
    "webdataset": write_webdataset,
}
_FOLDERS = ("png", "webp")  # a file per image, which may have metadata and is listed
ONE_SIZE = ("cifar", "npz")  # these hold arrays
EXPORT_FORMATS = tuple(sorted([*_WRITERS, *_FOLDERS]))


def check_target(
    folder: str | Path,
    format: str,
    *,
    sources: Sequence[str | Path | None] = (),
    force: bool = False,
    dataset: Any = None,
    image_size: int | Sequence[int] | None = None,
    metadata: bool = False,
) -> Path:
    """The folder of an export, made absolute, or the error that the export would end with.

    Args:
        folder: Where to.
        format: One of ``EXPORT_FORMATS``.
        sources: Folders that the images are read from.
        force: See :meth:`ProtectedDataset.export`.
        dataset: What is to be written, where that is known already.
        image_size: What its images will be resized and cropped to.
        metadata: Whether files are to keep theirs.

    Raises:
        ValueError: The format loses pixels, is not known or cannot hold the dataset or metadata;
            originals would be written over.
        FileExistsError: The folder holds something, is a symbolic link, or an earlier export that
            does not list its files.
        ImportError: The format needs a package that is not installed.
    """
    if format not in EXPORT_FORMATS:
        hint = "; JPEG changes pixels and takes most of the perturbation away"
        raise ValueError(
            f"expected a lossless format, one of {[*EXPORT_FORMATS]}, got {format!r}"
            + (hint if format.lower() in ("jpg", "jpeg") else "")
        )
    if metadata and format not in _FOLDERS:
        raise ValueError(
            f"expected one of the formats {_FOLDERS} to keep metadata in, got {format!r}"
        )
    if format == "parquet":
        import_datasets()
    if format == "cifar" and dataset is not None:
        check_cifar(RawDataset(dataset), ResizeCrop.parse(image_size))
    return check_folder(folder, sources=sources, force=force)


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
        format: One of ``EXPORT_FORMATS``.
        described: What to say of the images in the folder's ``unlearnable.json``.
        manifest: Takes note of each file.
        sources: Folders that the images are read from; never written into.
        force: See :meth:`ProtectedDataset.export`.
        progress: Show a bar.
    """
    folder = check_target(
        folder, format, sources=sources, force=force, metadata=manifest.keeps_metadata
    )
    raw = RawDataset(dataset)
    with written_apart(folder) as partial:
        indices = tqdm(range(len(raw)), desc="exporting", disable=None if progress else True)
        if format in _FOLDERS:
            about = write_folders(raw, indices, partial, format, manifest)
            manifest.write(partial)
        else:
            about = _WRITERS[format](raw, indices, partial)
        about |= {"classes": raw.classes} | manifest.described()
        content = {
            "format": EXPORT_FORMAT,
            "format_version": EXPORT_FORMAT_VERSION,
            "images": len(raw),
        }
        about |= dict(described) | {"files": paths_of(partial)}
        write_json(partial / MARKER, content | about)
    return folder
