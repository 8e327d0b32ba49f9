"""The card of protected images: the ``README.md`` of a Parquet export and of its repository.

It says nothing of the dataset that the images are from, and nothing that helps to compute the
perturbation again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...data.class_matching import distinct
from ...perturbation.card import KNOWN_LIMITS, citation, escaped, fact_table, measured
from ...perturbation.front_matter import metadata, viewed, with_front_matter

FOLDER = "path/to/this/folder"  # what a card calls an export that has no repository
_DATA = "data/train-*.parquet"
_ABOUT = (
    "Images that each carry a perturbation, meant to keep networks trained on them from doing "
    "well on clean images. Networks trained on this dataset are expected to perform poorly: that "
    "is its purpose. Made with the Python package `unlearnable`."
)
_OWN_LIMIT = """\
This repository contains neither the perturbation nor the clean version of any protected image.
Publish neither of them: from pairs of clean and protected images, others can learn to remove it."""


def write_images_card(
    described: Mapping[str, Any],
    config: Mapping[str, Any],
    folder: Path,
    *,
    repo_id: str = FOLDER,
    license: str | None = None,
) -> str:
    """Markdown with YAML front matter.

    Args:
        described: The export's ``unlearnable.json``.
        config: The perturbation's config.
        folder: Folder of the export.
        repo_id: Repository that it can be loaded from.
        license: As in :meth:`ProtectedDataset.push_to_hub
            <unlearnable.ProtectedDataset.push_to_hub>`.
    """
    parts = config.get("parts") or [config]
    methods = [part["method"] for part in parts if not part.get("on_top")]
    title = f"Images protected by {described['perturbation']}"
    images, classes = described["images"], described["classes"]
    front = metadata(title, methods, images, license=license)
    front |= viewed("train", _DATA, _features(classes), images, **_sizes(folder))
    budget = None if described["epsilon"] is None else f"{described['norm']} {described['epsilon']}"
    _, height, width = config["image_shape"]
    what = {
        "method": described["perturbation"],
        "budget": budget,
        "images": f"{images:,}",
        "share protected": f"{100 * described['fraction']:.4g}%",
        "image size": "the originals' own sizes" if described["full_size"] else f"{width}x{height}",
        "class names": classes,
    }
    sections = [
        f"# {escaped(title)}",
        _ABOUT,
        fact_table(what),
        "## Measured strength",
        "For the perturbation, on the dataset that it was made for, with all images protected:",
        measured(config.get("strength")),
        "## Known limits",
        KNOWN_LIMITS,
        _OWN_LIMIT,
        "## How to load it",
        "```python\nfrom datasets import load_dataset\n\n"
        f'trainset = load_dataset({json.dumps(repo_id)}, split="train")\n```',
        "Each row has an `image`, encoded as lossless PNG, and a `label`. Keep the images "
        "lossless: JPEG removes most of the perturbation.",
        *citation(methods),
    ]
    return with_front_matter(front, sections)


def _features(classes: list[str] | None) -> list[dict[str, Any]]:
    """The columns as the package ``datasets`` writes them to a card."""
    label: Any = "int64"
    if classes is not None:
        names = {str(index): name for index, name in enumerate(distinct(classes))}
        label = {"class_label": {"names": names}}
    return [{"name": "image", "dtype": "image"}, {"name": "label", "dtype": label}]


def _sizes(folder: Path) -> dict[str, int]:
    from pyarrow.parquet import read_metadata

    num_bytes = download_size = 0
    for path in folder.glob(_DATA):
        with path.open("rb") as file:  # pyarrow takes no names that are not Unicode
            found = read_metadata(file)
        num_bytes += sum(found.row_group(i).total_byte_size for i in range(found.num_row_groups))
        download_size += path.stat().st_size
    return {"num_bytes": num_bytes, "download_size": download_size}
