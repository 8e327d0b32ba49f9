"""Protected images in formats that other programs read: losslessly, unless the user asks."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from numpy.typing import NDArray
from tqdm.auto import tqdm

from ..._version import __version__
from ...data.export_marker import EXPORT_FORMAT, MARKER
from ...data.image import ResizeCrop
from ...data.image_folder import folder_of
from ...data.raw import RawDataset
from ...engine.names import suggestion
from ...io.files import write_json
from ..manifest import EXPORT_FORMAT_VERSION, Exported, Manifest
from .arrays import check_cifar, write_cifar, write_npz
from .card import write_images_card
from .encoding import Encoding
from .huggingface import import_datasets, write_parquet
from .image_files import write_folders, write_webdataset
from .journal import Journal, Resumed
from .mapping import check_mapping, write_mapping
from .staging import JOURNAL
from .target import check_folder, is_taken, paths_of, written_apart

# Each writes the images of a dataset into a new folder, and returns what to say of it.
_WRITERS: dict[str, Callable[[RawDataset, Iterable[Exported], Path], dict[str, Any]]] = {
    "cifar": write_cifar,
    "npz": write_npz,
    "parquet": write_parquet,
    "webdataset": write_webdataset,
}
_CARD = "README.md"
_SHOWN = 5  # files that a warning names
_FOLDERS = ("png", "webp")  # a file per image, which may have metadata and is listed
ONE_SIZE = ("cifar", "npz")  # these hold arrays
EXPORT_FORMATS = tuple(sorted([*_WRITERS, *_FOLDERS]))  # lossless ones
IMAGE_FILES = (*_FOLDERS, "jpeg")


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
    quality: int | str | None = None,
    mapping: str | Path | None = None,
) -> Path:
    """The absolute folder of an export; raises early the errors that the export would raise.

    Folders that the images are read from are ``sources``; those of perturbations must be kept
    ``apart``. The ``dataset`` and the ``image_size`` that it will be resized to are checked if they
    are already known. The other arguments and the errors are those of
    :meth:`ProtectedDataset.export`.
    """
    if format not in EXPORT_FORMATS and (format not in IMAGE_FILES or quality is None):
        name = str(format)
        hint = suggestion(name, EXPORT_FORMATS)
        if name.lower() in ("jpg", "jpeg"):
            hint = '; JPEG also changes what was added, so "jpeg" needs a quality (--quality 95)'
            hint = hint if quality is None else f'; did you mean "jpeg"{hint.replace(";", "?")}'
        raise ValueError(
            f"expected a lossless format, one of {', '.join(EXPORT_FORMATS)}, or jpeg with a "
            f"quality, got {format!r}{hint}"
        )
    encoding = Encoding.of(format, quality)
    if metadata and format not in IMAGE_FILES:
        raise ValueError(
            f"expected one of the formats {', '.join(IMAGE_FILES)} with metadata=True "
            f"(--keep-metadata), got {format!r}"
        )
    if mapping is not None and format not in IMAGE_FILES:
        raise ValueError(
            f"expected one of the formats {IMAGE_FILES} with a mapping, got {format!r}"
        )
    if format == "parquet":
        import_datasets()
    if dataset is not None and quality is not None:
        encoding.check(RawDataset(dataset))
    if format == "cifar" and dataset is not None:
        raw, fit = RawDataset(dataset), ResizeCrop.parse(image_size)
        pixels = raw[0].pixels
        check_cifar(raw.num_classes, (pixels if fit is None else fit(pixels)).shape)
    folder = check_folder(folder, sources=sources, apart=apart, force=force)
    if mapping is not None:
        check_mapping(mapping, folder)
    return folder


def export_images(
    raw: RawDataset,
    read: Callable[[Sequence[int]], Iterator[Exported]],
    folder: str | Path,
    format: str,
    *,
    manifest: Manifest,
    described: Mapping[str, Any],
    chosen: NDArray[np.bool_],
    quality: int | str | None = None,
    mapping: str | Path | None = None,
    resume: Resumed | None = None,
    force: bool = False,
    progress: bool | Callable[[float], None] = True,
) -> Path:
    """Writes images; see :meth:`ProtectedDataset.export`.

    Args:
        raw: The clean dataset: its classes, labels and location.
        read: Function from indices, in order, to images; each is read once.
        folder: Destination.
        format: One of ``EXPORT_FORMATS`` or, with a ``quality``, a lossy one.
        manifest: Records each image.
        described: Further information for the folder's ``unlearnable.json``.
        chosen: Which images are to be protected, bool (N,).
        quality: Quality of lossy files.
        mapping: File that records which original became which copy.
        resume: Reuse files of an unfinished export, and keep them if this one does not finish.
        force: Replace an earlier export.
        progress: Show a progress bar, or a function to call with the share of images written.
    """
    if not raw.labelled and format not in IMAGE_FILES:
        raise ValueError(
            f"expected one of the formats {IMAGE_FILES} for images without labels, got {format!r}"
        )
    # A folder of class folders is never written into; below an archive's root there is room.
    sources = [folder_of(leaf) for leaf in raw.originals]
    options: dict[str, Any] = {"force": force, "metadata": manifest.keeps_metadata}
    options |= {"quality": quality, "mapping": mapping, "apart": [manifest.perturbation.folder]}
    folder = check_target(folder, format, sources=sources, **options)
    encoding = Encoding.of(format, quality)
    encoding.check(raw)
    settings = None
    # What a reader of another's own makes of a file may differ from start to start.
    if resume is not None and format in IMAGE_FILES and raw.reads_photos:
        settings = _settings(manifest, encoding, resume, described)
    with written_apart(folder, settings) as partial:
        bar = _bar(len(raw), progress)
        if format in IMAGE_FILES:
            journal = None
            if resume is not None and settings is not None:
                journal = Journal(partial.parent / JOURNAL, raw, manifest, resume)
            with bar:
                about = write_folders(raw, read, partial, encoding, manifest, bar, journal)
            manifest.write(partial)
        else:
            with bar:
                images = manifest.noted(read(range(len(raw))))
                about = _WRITERS[format](raw, _counted(images, bar, manifest), partial)
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
    _warn_of_bare(manifest, chosen)
    if mapping is not None:
        write_mapping(Path(mapping), folder, map(raw.path, range(len(raw))), manifest.files)
    return folder


class _Told(tqdm):
    """A bar that is not shown, but tells a function the share of images that are written."""

    def __init__(self, count: int, listener: Callable[[float], None]) -> None:
        super().__init__(total=count, disable=True)
        self._count, self._listener = count, listener

    def update(self, n: float | None = 1) -> None:
        self.n += n or 0
        self._listener(self.n / self._count)


def _bar(count: int, progress: bool | Callable[[float], None]) -> tqdm[Any]:
    if callable(progress):
        return _Told(count, progress)
    return tqdm(total=count, desc="writing copies", disable=None if progress else True)


def _warn_of_bare(manifest: Manifest, chosen: NDArray[np.bool_]) -> None:
    """Warns where images that were to be protected are written as they were."""
    bare = [index for index in manifest.bare if chosen[index]]
    if not bare:
        return
    files = manifest.files or [f"image {index}" for index in range(len(chosen))]
    some = ", ".join(files[index] for index in bare[:_SHOWN]) + ", …" * (len(bare) > _SHOWN)
    are, their, them = ("is", "its", "it") if len(bare) == 1 else ("are", "their", "them")
    warnings.warn(
        f"{len(bare):,} of {len(chosen):,} copies {are} not protected, because the perturbation "
        f"changes none of {their} pixels: {some}; leave {them} out of what you publish, or choose "
        f"a higher visibility or a larger epsilon",
        stacklevel=3,
    )


def _counted(images: Iterable[Exported], bar: tqdm[Any], manifest: Manifest) -> Iterator[Exported]:
    for image in images:
        if not image.protected:
            manifest.bare.append(image.index)
        yield image
        bar.update()


def _settings(
    manifest: Manifest, encoding: Encoding, resume: Resumed, described: Mapping[str, Any]
) -> str:
    """What the copies of an export follow from beside their originals, as a word."""
    known = {
        **manifest.described(),
        **described,
        "encoding": encoding,
        "align": resume.align,
        "versions": [__version__, PIL.__version__],
    }
    return manifest.seal_of(json.dumps(known).encode())[:16]
