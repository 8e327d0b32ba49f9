"""Protected images in formats that other programs read, each of them lossless."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from ...data.export_marker import EXPORT_FORMAT, MARKER
from ...data.image import ResizeCrop
from ...data.image_folder import folder_of
from ...data.raw import RawDataset
from ...engine.names import suggestion
from ...io.files import write_json
from ..manifest import EXPORT_FORMAT_VERSION, Exported, Manifest
from .arrays import check_cifar, write_cifar, write_npz
from .card import write_images_card
from .huggingface import import_datasets, write_parquet
from .image_files import write_folders, write_webdataset
from .target import check_folder, is_taken, paths_of, written_apart

# Each writes the images of a dataset into a new folder, and returns what to say of it.
_WRITERS: dict[str, Callable[[RawDataset, Iterable[Exported], Path], dict[str, Any]]] = {
    "cifar": write_cifar,
    "npz": write_npz,
    "parquet": write_parquet,
    "webdataset": write_webdataset,
}
_CARD = "README.md"
_FOLDERS = ("png", "webp")  # a file per image, which may have metadata and is listed
ONE_SIZE = ("cifar", "npz")  # these hold arrays
EXPORT_FORMATS = tuple(sorted([*_WRITERS, *_FOLDERS]))


def check_target(
    folder: str | Path,
    format: str,
    *,
    sources: Sequence[str | Path | None] = (),
    apart: Sequence[str | Path | None] = (),
    force: bool = False,
    dataset: Any = None,
    image_size: int | Sequence[int] | None = None,
    metadata: bool = False,
) -> Path:
    """The folder of an export, made absolute, or the error that the export would end with.

    Folders that the images are read from are ``sources``, those of perturbations are to be
    ``apart``; the ``dataset`` and the ``image_size``
    that it will be resized to are checked where they are known already. The other arguments, and
    errors, are those of :meth:`ProtectedDataset.export`.
    """
    if format not in EXPORT_FORMATS:
        hint = "; JPEG changes pixels and removes most of the perturbation"
        raise ValueError(
            f"expected a lossless format, one of {[*EXPORT_FORMATS]}, got {format!r}"
            + (hint if format.lower() in ("jpg", "jpeg") else suggestion(format, EXPORT_FORMATS))
        )
    if metadata and format not in _FOLDERS:
        raise ValueError(
            f"expected one of the formats {_FOLDERS} to keep metadata in, got {format!r}"
        )
    if format == "parquet":
        import_datasets()
    if format == "cifar" and dataset is not None:
        raw, fit = RawDataset(dataset), ResizeCrop.parse(image_size)
        pixels = raw[0].pixels
        check_cifar(raw.num_classes, (pixels if fit is None else fit(pixels)).shape)
    return check_folder(folder, sources=sources, apart=apart, force=force)


def export_images(
    raw: RawDataset,
    images: Iterable[Exported],
    folder: str | Path,
    format: str,
    *,
    manifest: Manifest,
    described: Mapping[str, Any],
    force: bool = False,
    progress: bool = True,
) -> Path:
    """Writes images; see :meth:`ProtectedDataset.export`.

    Args:
        raw: The clean dataset: its classes, its labels and where it lies.
        images: All of it, in order; walked once.
        folder: Where to.
        format: One of ``EXPORT_FORMATS``.
        manifest: Takes note of each image.
        described: What else to say of the images in the folder's ``unlearnable.json``.
        force: Replace an earlier export.
        progress: Show a bar.
    """
    if not raw.labelled and format not in _FOLDERS:
        raise ValueError(
            f"expected one of the formats {_FOLDERS} for images without labels, got {format!r}"
        )
    # A folder of class folders is never written into; below an archive's root there is room.
    sources = [folder_of(leaf) for leaf in raw.originals]
    folder = check_target(
        folder,
        format,
        sources=sources,
        apart=[manifest.perturbation.folder],
        force=force,
        metadata=manifest.keeps_metadata,
    )
    with written_apart(folder) as partial:
        shown = None if progress else True
        images = manifest.noted(tqdm(images, "exporting", len(raw), disable=shown))
        if format in _FOLDERS:
            about = write_folders(raw, images, partial, format, manifest)
            manifest.write(partial)
        else:
            about = _WRITERS[format](raw, images, partial)
        content = {
            "format": EXPORT_FORMAT,
            "format_version": EXPORT_FORMAT_VERSION,
            "images": len(raw),
            **about,
            "classes": raw.classes,
            **manifest.described(),
            **described,
        }
        if format == "parquet" and not is_taken(folder, _CARD):
            card = write_images_card(content, manifest.perturbation.config, partial)
            (partial / _CARD).write_text(card, encoding="utf-8", newline="\n")
        content["files"] = paths_of(partial)
        write_json(partial / MARKER, content)
    return folder
