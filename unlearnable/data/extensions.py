"""What files are by the endings of their names: photos, other pictures, raw files, videos."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from PIL import Image
from torchvision.datasets.folder import IMG_EXTENSIONS

from .photo import HEIC_EXTENSIONS

# Endings of pictures that Pillow may not read.
RAW = (
    ".dng", ".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw", ".srf", ".sr2", ".raf", ".orf", ".rw2",
    ".rwl", ".pef", ".srw", ".x3f", ".3fr", ".fff", ".iiq", ".gpr", ".dcr", ".kdc", ".mrw", ".erf",
)  # fmt: skip
_PICTURES = (*HEIC_EXTENSIONS, ".avif", ".jxl", ".jfif", ".svg", *RAW)
VIDEOS = (
    ".mp4", ".mov", ".m4v", ".avi", ".mts", ".m2ts", ".mkv", ".3gp", ".mpg", ".mpeg", ".webm",
    ".wmv",
)  # fmt: skip
_NO_PICTURES = ("PDF", "MPEG", "HDF5", "GRIB", "BUFR")  # of the formats that Pillow knows by name


def is_picture(path: Path) -> bool:
    """Whether a file has the extension of a picture, even one that cannot be read."""
    ending, known = path.suffix.lower(), Image.registered_extensions()
    return ending in _PICTURES or known.get(ending, _NO_PICTURES[0]) not in _NO_PICTURES


def photo_extensions() -> tuple[str, ...]:
    """Extensions of the files that are read as photos, in lower case.

    Torchvision's extensions; AVIF if Pillow reads it (from 11.3), HEIC if pillow-heif is installed.
    """
    avif = (".avif",) if ".avif" in Image.registered_extensions() else ()
    heic = HEIC_EXTENSIONS if importlib.util.find_spec("pillow_heif") else ()
    return (*IMG_EXTENSIONS, *avif, *heic)
