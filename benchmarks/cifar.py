"""CIFAR-10 and CIFAR-100 as benchmarks read them, from pickles or from Parquet files."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from PIL import Image
from torch.utils.data import Dataset, Subset
from torchvision.datasets import CIFAR10, CIFAR100


class AnyCIFAR10(CIFAR10):
    """CIFAR-10 from any copy of its files, whatever their checksums."""

    meta = {**CIFAR10.meta, "md5": None}  # noqa: RUF012

    def __init__(self, root: str | None, **kwargs: Any) -> None:
        super().__init__(_with_files(root, self.base_folder), **kwargs)

    def _check_integrity(self) -> bool:
        return True


class AnyCIFAR100(CIFAR100):
    """CIFAR-100 from any copy of its files, whatever their checksums."""

    meta = {**CIFAR100.meta, "md5": None}  # noqa: RUF012

    def __init__(self, root: str | None, **kwargs: Any) -> None:
        super().__init__(_with_files(root, self.base_folder), **kwargs)

    def _check_integrity(self) -> bool:
        return True


class ParquetCIFAR100(Dataset[Any]):
    """CIFAR-100 from the Parquet files of a folder."""

    def __init__(self, root: str, *, train: bool = True) -> None:
        from pyarrow import parquet

        name = "train" if train else "test"
        tables = [parquet.read_table(path) for path in sorted(Path(root).glob(f"{name}-*.parquet"))]
        columns = tables[0].column_names
        image = "image" if "image" in columns else "img"
        label = "label" if "label" in columns else "fine_label"
        self.files = [cell["bytes"] for table in tables for cell in table[image].to_pylist()]
        self.targets = [number for table in tables for number in table[label].to_pylist()]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return Image.open(io.BytesIO(self.files[index])).convert("RGB"), self.targets[index]


def opened(name: str, root: str | None, *, train: bool = True) -> Any:
    """``"cifar10"`` or ``"cifar100"`` from a folder."""
    if name == "cifar10":
        return AnyCIFAR10(root, train=train)
    if root is not None and any(Path(root).glob("*.parquet")):
        return ParquetCIFAR100(root, train=train)
    return AnyCIFAR100(root, train=train)


def first(dataset: Any, images: int) -> Any:
    """The first images of a dataset, which has to have that many: results say how many it was."""
    if images > len(dataset):
        raise SystemExit(
            f"expected at most the {len(dataset):,} images that ROOT has, got {images:,}"
        )
    return Subset(dataset, range(images))


def _with_files(root: str | None, folder: str) -> str:
    if root is None:
        raise SystemExit(f"expected ROOT, a folder with {folder}, before the options")
    if not (Path(root) / folder).is_dir():
        raise SystemExit(f"expected {folder} in ROOT, got {root}")
    return root
