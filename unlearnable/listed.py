"""The files that a dataset lists as ``ImageFolder`` does: in ``samples``, pairs (path, label).

Other datasets have a ``samples`` of their own, of whatever they like: that is not taken for files.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any


def file_of(dataset: Any, index: int) -> Path | None:
    """The file of an item, or None where the dataset lists none, or one that is not there."""
    samples = getattr(dataset, "samples", None)
    if not isinstance(samples, list) or len(samples) != len(dataset):
        return None
    entry = samples[index]
    if not isinstance(entry, (tuple, list)) or len(entry) != 2:
        return None
    path = entry[0]
    if not isinstance(path, (str, os.PathLike)) or not os.path.lexists(path):
        return None
    return Path(os.fsdecode(path))


def folder_of(dataset: Any) -> Path | None:
    """The folder that a dataset lists files of, or None."""
    root = getattr(dataset, "root", None)
    if not isinstance(root, (str, os.PathLike)) or file_of(dataset, 0) is None:
        return None
    return Path(os.fsdecode(root))
