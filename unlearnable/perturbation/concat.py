"""Rows of several perturbations as one, as :meth:`Perturbation.concat`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..data.fingerprint import digest_of_images
from ..io.sharded_rows import JoinedRows
from .kinds.additive import Additive
from .kinds.base import Kind, Tensors
from .kinds.stack import common_classes

_SAME = ("method", "epsilon", "norm", "image_shape", "num_classes", "preprocessing")
_SAME_IF_THERE = ("visibility",)
_KNOWN = (*_SAME, "kind", "granularity", "classes", "source", "parameters")


def concatenated(kinds: Sequence[Kind], digests: Sequence[str]) -> tuple[Tensors, dict[str, Any]]:
    """Tensors and config of the rows of two perturbations or more, one after the other."""
    _check(kinds)
    _check_images(kinds)
    joined = {
        name: np.concatenate([kind.tensors[name] for kind in kinds])
        for name in ("keys", "labels", "thumbnails", "checksums")
    }
    tensors: Tensors = {"rows": JoinedRows([kind.tensors["rows"] for kind in kinds]), **joined}
    configs = [kind.config for kind in kinds]
    first = configs[0]
    sources = [config["source"] for config in configs]
    # What differs between the parts is unknown for all of them together.
    config = {name: _common([c.get(name) for c in configs]) for name in first if name not in _KNOWN}
    parameters = [config.get("parameters") or {} for config in configs]
    config |= {name: first[name] for name in (*_SAME, "kind", "granularity")}
    config |= {
        "parameters": {name: _common([p.get(name) for p in parameters]) for name in parameters[0]},
        "classes": common_classes(configs),
        "source": {
            "name": " + ".join(source["name"] for source in sources),
            "images": sum(source["images"] for source in sources),
            "digest": digest_of_images(joined["keys"], joined["labels"]),
            "parts": [
                {"name": source["name"], "images": source["images"], "perturbation": digest}
                for source, digest in zip(sources, digests, strict=True)
            ],
        },
        "strength": None,  # was measured for the parts only
    }
    return tensors, config


def _common(values: list[Any]) -> Any:
    return values[0] if all(value == values[0] for value in values) else None


def _check(kinds: Sequence[Kind]) -> None:
    first = kinds[0].config
    for number, kind in enumerate(kinds):
        if not isinstance(kind, Additive) or not kind.keyed:
            raise ValueError(
                f'expected sample-wise perturbations of kind "additive", got a '
                f"{kind.config['granularity']} one of kind {kind.name!r} as number {number}; only "
                f"rows of images can be concatenated"
            )
        for name in (*_SAME, *_SAME_IF_THERE):
            if kind.config.get(name) != first.get(name):
                raise ValueError(
                    f"expected {name} {first.get(name)!r} as in the first perturbation, got "
                    f"{kind.config.get(name)!r} in number {number}"
                )


def _check_images(kinds: Sequence[Kind]) -> None:
    """Refuses an image that has rows in two perturbations, of which the second is never found."""
    pairs = [
        np.unique(np.stack([kind.tensors["keys"], kind.tensors["labels"].view(np.uint64)]), axis=1)
        for kind in kinds
    ]
    found, counts = np.unique(np.concatenate(pairs, axis=1), axis=1, return_counts=True)
    if (counts > 1).any():
        key, label = found[:, counts.argmax()]
        owners = [
            number for number, pair in enumerate(pairs)
            if ((pair[0] == key) & (pair[1] == label)).any()
        ]  # fmt: skip
        raise ValueError(
            f"expected perturbations of different images, got {int((counts > 1).sum()):,} images "
            f"that have rows of the same label in several, the first of them in numbers {owners}; "
            f"leave one of them out"
        )
