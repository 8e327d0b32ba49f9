"""What can be read as a dataset at all: whatever has a length and items by index."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader, IterableDataset

from .huggingface import refuse_collections


def refuse_unreadable(dataset: Any) -> None:
    """Raises ``TypeError`` unless it is a map-style dataset, and ``ValueError`` if it is empty."""
    refuse_collections(dataset)
    if isinstance(dataset, IterableDataset):
        raise TypeError(
            f"expected a map-style dataset with __getitem__ and __len__, got the "
            f"IterableDataset {type(dataset).__name__}; list its items first: list(dataset)"
        )
    readable = hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")
    others = isinstance(dataset, (str, bytes, type))
    if not readable or others or (isinstance(dataset, Mapping) and 0 not in dataset):
        hint = "; pass its .dataset" if isinstance(dataset, DataLoader) else ""
        if isinstance(dataset, (str, Path)):
            hint = "; open a folder of photos with torchvision.datasets.ImageFolder"
        raise TypeError(
            f"expected a map-style dataset with __getitem__ and __len__, got "
            f"{type(dataset).__name__}{hint}"
        )
    if len(dataset) == 0:
        raise ValueError(f"expected a dataset with images, got an empty {type(dataset).__name__}")
