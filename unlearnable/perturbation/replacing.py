"""Which saved perturbation another one may replace: not the only one that somebody needs."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ArtefactError
from ..hub import CONFIG
from .config import read_config
from .shards import read_tensors

EXPORTS = "exports"  # subfolder with a list for each export of copies that it protects


def keys_of(tensors: Mapping[str, Any]) -> Any:
    """Keys of the clean images, or None; in a stack, its first part has them."""
    return tensors.get("keys", tensors.get("0.keys"))


def check_same_images(folder: Path, source: Mapping[str, Any], keys: Any) -> None:
    """Refuses a folder with a perturbation of images other than those of a source or its keys.

    A perturbation of the same images, or of a subset of them, may be replaced.
    """
    if not (folder / CONFIG).is_file():
        return
    try:
        earlier = read_config(folder / CONFIG)
    except ArtefactError as error:
        raise FileExistsError(_occupied(folder, f"one that cannot be read ({error})")) from error
    there = earlier.get("source")
    there = there if isinstance(there, dict) else {}
    digest = there.get("digest")
    if there == source or (digest is not None and digest == source.get("digest")):
        return
    with suppress(ArtefactError):  # of a save that was killed
        held = keys_of(read_tensors(folder))
        subset = held is not None and keys is not None and np.isin(held, keys).all()
        if subset and not any((folder / EXPORTS).glob("*.csv")):  # copies that need it
            return
    count = there.get("images")
    images = f"{count:,} other images" if type(count) is int else "other images"
    raise FileExistsError(_occupied(folder, f"{earlier.get('method')} of {images}"))


def check_copies(folder: Path, stated: Mapping[str, Any]) -> None:
    """Refuses a folder whose perturbation protected copies were written with.

    Only with it can they be checked. One with a config as ``stated`` is taken for the same.
    """
    copies = sorted((folder / EXPORTS).glob("*.csv"))
    if not copies or not (folder / CONFIG).is_file():
        return
    earlier = read_config(folder / CONFIG)
    if any(earlier.get(name) != value for name, value in stated.items()):
        raise FileExistsError(
            f"expected a folder without the perturbation (the key) of protected copies, got "
            f"{folder} with that of the copies listed in {copies[0]}; choose another folder, or "
            f"pass force=True (--force) to replace it, after which these copies can no longer be "
            f"checked"
        )


def _occupied(folder: Path, found: str) -> str:
    return (
        f"expected a folder without a perturbation of other images, got {folder} with {found}; "
        f"choose another folder, or pass force=True (--force) to replace it"
    )
