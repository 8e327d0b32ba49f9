"""What a method has learned as tensors and config of a perturbation."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..data.image import Pixels
from ..io.json import as_json
from .kinds.base import Tensors
from .kinds.procedural import Procedural
from .kinds.stack import KINDS, stacked
from .quantize import Levels, Result
from .serialization import build
from .visibility import with_mask

if TYPE_CHECKING:
    from ..data.cache import ImageStore


def fitted(
    result: Result, images: ImageStore, config: Mapping[str, Any], on_top: Sequence[Result]
) -> tuple[Tensors, dict[str, Any]]:
    """See :meth:`Perturbation.from_fit`."""
    found = _of_result(result, images, config)
    if not on_top:
        return found
    parts = [found]
    for part in on_top:
        epsilon, norm = part.budget
        own = dict(config) if KINDS[part.kind].has_rows else with_mask(config, None)
        by_image = part.kind == Procedural.name
        own = own | {"granularity": "sample-wise" if by_image else "class-wise", "on_top": True}
        parts.append(_of_result(part, images, own | {"epsilon": epsilon, "norm": norm}))
    return stacked([build(tensors, as_json(config)) for tensors, config in parts])


def of_rows(
    rows: Levels,
    config: Mapping[str, Any],
    keys: NDArray[np.uint64] | None,
    labels: NDArray[np.int64] | None,
    thumbnails: Pixels | None,
) -> Tensors:
    """Tensors of rows, as in :class:`Perturbation`."""
    tensors: Tensors = {"rows": rows}
    if config["granularity"] == "sample-wise":
        if keys is None or labels is None or thumbnails is None:
            raise ValueError("expected keys, labels and thumbnails with sample-wise rows")
        tensors |= {"keys": keys, "labels": labels, "thumbnails": thumbnails}
    tensors["checksums"] = np.array([zlib.crc32(row.tobytes()) for row in rows], np.uint32)
    return tensors


def _of_result(
    result: Result, images: ImageStore, config: Mapping[str, Any]
) -> tuple[Tensors, dict[str, Any]]:
    config = dict(config) | {
        "kind": result.kind,
        "image_shape": list(images.images.shape[1:]),
        "classes": images.classes,
        "num_classes": images.num_classes,
        "source": {"name": images.name, "images": len(images.images), "digest": images.digest},
        "preprocessing": None if images.fit is None else {"fit": list(images.fit)},
        "strength": None,
    }
    if result.settings:
        config["settings"] = result.settings
    if result.kind != "additive":
        return result.tensors, config
    labels, rows = images.labels.cpu().numpy(), result.tensors["rows"]
    return of_rows(rows, config, images.keys, labels, images.thumbnails), config
