"""Images as a Hugging Face dataset, in memory or as Parquet. Needs the extra ``hf``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ...data.class_matching import distinct
from ...data.export_marker import copy_name
from ...data.raw import RawDataset
from ..manifest import Exported
from .image_files import png_bytes

PIECE_BYTES = 256 << 20  # of encoded images in one table, which is one Parquet file
_ROW_GROUP = 1000  # images that are read at once


def import_datasets() -> Any:
    """Imports the package ``datasets``, or raises an error that says how to install it."""
    try:
        import datasets
    except ImportError as error:
        raise ImportError(
            "expected the package datasets to be installed; install it with: pip install "
            "'unlearnable[hf]'"
        ) from error
    return datasets


def _pieces(raw: RawDataset, images: Iterable[Exported]) -> Iterator[Any]:
    datasets = import_datasets()
    names = None if raw.classes is None else distinct(raw.classes)
    label = datasets.Value("int64") if names is None else datasets.ClassLabel(names=names)
    features = datasets.Features({"image": datasets.Image(), "label": label})
    encoded: list[dict[str, Any]] = []
    start = size = 0
    for image in images:
        name = copy_name(image.index) if image.among_protected else None
        encoded.append({"bytes": png_bytes(image.pixels), "path": name})
        size += len(encoded[-1]["bytes"])
        end = image.index + 1
        if size >= PIECE_BYTES or end == len(raw):
            columns = {"image": encoded, "label": raw.labels[start:end].tolist()}
            yield datasets.Dataset.from_dict(columns, features=features)
            encoded, start, size = [], end, 0


def to_hf_dataset(raw: RawDataset, images: Iterable[Exported]) -> Any:
    """A ``datasets.Dataset`` of PNG images and labels; see ``ProtectedDataset.to_hf_dataset``."""
    return import_datasets().concatenate_datasets(list(_pieces(raw, images)))


def write_parquet(raw: RawDataset, images: Iterable[Exported], folder: Path) -> dict[str, Any]:
    """Writes ``data/train-00000-of-00001.parquet``, … for ``load_dataset(folder)``."""
    import_datasets()
    from pyarrow.parquet import write_table  # a dependency of datasets

    (folder / "data").mkdir()
    paths: list[Path] = []
    for piece in _pieces(raw, images):
        paths.append(folder / "data" / f"{len(paths):05d}")
        with paths[-1].open("wb") as file:  # opened here: its name need not be Unicode
            write_table(piece.data.table, file, row_group_size=_ROW_GROUP)
    for number, path in enumerate(paths):
        path.rename(path.with_name(f"train-{number:05d}-of-{len(paths):05d}.parquet"))
    return {"column_names": ["image", "label"]}
