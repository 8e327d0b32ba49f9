"""The YAML at the top of a card, by which the Hub lists, filters and shows a dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..io.markdown import printable
from ..io.yaml import yaml_block
from .papers import papers_of

_BOUNDS = [f"{number}{unit}" for unit in "KMBT" for number in (1, 10, 100)][:10]


def metadata(
    title: str, methods: Sequence[str], rows: int, *, license: str | None = None
) -> dict[str, Any]:
    """The front matter common to all cards; ``rows`` is the number of images or classes."""
    front: dict[str, Any] = {"pretty_name": printable(title)}
    if license is not None:
        front["license"] = printable(license)
    tags = ["unlearnable", "unlearnable-examples", *map(printable, methods)]
    tags += [f"arxiv:{paper.arxiv}" for paper in papers_of(methods)]
    return front | {
        "library_name": "unlearnable",
        "tags": list(dict.fromkeys(filter(None, tags))),
        "task_categories": ["image-classification"],
        "size_categories": [size_category(rows)],
    }


def size_category(rows: int) -> str:
    """The Hub's name for a number of rows: ``n<1K``, ``1K<n<10K``, …, ``n>1T``.

    A bound belongs to the range that begins with it.
    """
    place = max(0, len(str(rows)) - 3)
    if place == 0:
        return f"n<{_BOUNDS[0]}"
    if place >= len(_BOUNDS):
        return f"n>{_BOUNDS[-1]}"
    return f"{_BOUNDS[place - 1]}<n<{_BOUNDS[place]}"


def viewed(
    split: str,
    path: str,
    features: list[dict[str, Any]],
    rows: int,
    *,
    num_bytes: int,
    download_size: int,
) -> dict[str, Any]:
    """What the Hub's viewer and ``load_dataset`` need to know about a split in Parquet files.

    Args:
        split: Name of the split.
        path: Pattern of its files in the repository, with ``*``.
        features: The columns in order, in the form that the package ``datasets`` writes to a card.
        rows: Number of rows.
        num_bytes: Size in memory.
        download_size: Size of the files.
    """
    counted = {"name": split, "num_bytes": num_bytes, "num_examples": rows}
    data_files = [{"split": split, "path": path}]
    return {
        "configs": [{"config_name": "default", "data_files": data_files}],
        "dataset_info": {
            "features": features,
            "splits": [counted],
            "download_size": download_size,
            "dataset_size": num_bytes,
        },
    }


def with_front_matter(front: Mapping[str, Any], sections: Sequence[str]) -> str:
    """The text of a ``README.md``."""
    return f"---\n{yaml_block(front)}---\n\n" + "\n\n".join(sections) + "\n"
