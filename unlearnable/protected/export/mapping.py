"""Which original file became which exported one: a private list, which is kept apart."""

from __future__ import annotations

import csv
import io
import itertools
import os
from collections.abc import Iterable
from pathlib import Path

from ...io.files import make_folder, write_bytes
from ...perturbation.replacing import EXPORTS
from .folder_names import LONGEST, shortened

_COLUMNS = ["original", "folder", "file"]
_ENCODING = {"encoding": "utf-8", "errors": "surrogateescape"}  # names need not be Unicode


def mapping_beside(perturbation: str | Path, folder: str | Path) -> Path:
    """Where a perturbation's folder stores the mapping of an export: ``exports/<name>.csv``.

    Exports to other folders of the same name are numbered.
    """
    name = shortened(Path(folder).resolve().name, LONGEST - 16)
    for number in itertools.count(1):
        numbered = name if number == 1 else f"{name} ({number})"
        path = Path(perturbation) / EXPORTS / f"{numbered}.csv"
        if not os.path.lexists(path) or _mapped(path) in (str(Path(folder).absolute()), ""):
            return path
    raise AssertionError


def check_mapping(path: str | Path, folder: Path) -> None:
    """Refuses a path where a mapping cannot be written or would be published."""
    path = Path(path).absolute()
    if path.resolve().is_relative_to(folder.resolve()):
        raise ValueError(
            f"expected a mapping outside the published folder {folder}, got {path}; choose "
            f"another place, because the mapping reveals where the originals are"
        )
    if os.path.lexists(path) and _mapped(path) is None:
        raise FileExistsError(
            f"expected no file or an earlier mapping, got {path}; other files are never "
            f"overwritten, so choose another name"
        )


def write_mapping(
    path: Path, folder: Path, originals: Iterable[Path | None], files: Iterable[str]
) -> None:
    """Writes a CSV file: each image's original path, the export's folder and the file there.

    Originals are absolute paths, or empty if an image is not a file.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for original, file in zip(originals, files, strict=True):
        place = "" if original is None else original.absolute()
        writer.writerow([place, folder.absolute(), file])
    make_folder(path.parent)
    write_bytes(path, text.getvalue().encode(**_ENCODING))


def _mapped(path: Path) -> str | None:
    """The folder of an earlier mapping's export, empty where it lists none; None of other files."""
    try:
        with path.open(newline="", **_ENCODING) as file:  # type: ignore[call-overload]
            rows = csv.reader(file)
            return next(rows, ["", "", ""])[1] if next(rows, None) == _COLUMNS else None
    except (OSError, ValueError, csv.Error, IndexError):
        return None
