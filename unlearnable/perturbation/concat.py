"""Rows of several perturbations as one, as :meth:`Perturbation.concat`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..data.fingerprint import digest_of_images
from ..io.json import as_json
from ..io.sharded_rows import JoinedRows
from .kinds.additive import Additive
from .kinds.base import Kind, Tensors
from .kinds.stack import Stack, common_classes, parts_of, stacked

_SAME = ("method", "epsilon", "norm", "image_shape", "num_classes", "preprocessing")
_SAME_IF_THERE = ("visibility",)
_KNOWN = (*_SAME, "kind", "granularity", "classes", "source", "parameters")


def concatenated(kinds: Sequence[Kind], digests: Sequence[str]) -> tuple[Tensors, dict[str, Any]]:
    """Tensors and config of the concatenated rows of two or more perturbations.

    Parts for any image on top of the rows must be the same in all of them and are kept.
    """
    if not all(isinstance(kind, Stack) for kind in kinds):
        return _joined(kinds, digests)
    rows, tops = [parts_of(kind)[0] for kind in kinds], [parts_of(kind)[1:] for kind in kinds]
    _check_tops(tops)
    tensors, config = _joined(rows, digests)
    return stacked([Additive(tensors, as_json(config), rows[0].where), *tops[0]])


def _joined(kinds: Sequence[Kind], digests: Sequence[str]) -> tuple[Tensors, dict[str, Any]]:
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
                f"rows per image can be concatenated"
            )
        for name in (*_SAME, *_SAME_IF_THERE):
            if kind.config.get(name) != first.get(name):
                raise ValueError(
                    f"expected {name} {first.get(name)!r}, as in the first perturbation, got "
                    f"{kind.config.get(name)!r} in number {number}"
                )


def _check_tops(tops: Sequence[Sequence[Kind]]) -> None:
    first = tops[0]
    for number, parts in enumerate(tops):
        same = len(parts) == len(first) and all(map(_is_same, parts, first))
        if not same or any(part.keyed for part in parts):
            raise ValueError(
                f"expected the same parts for any image on top of all rows, got "
                f"{_named(parts)} in number {number} and {_named(first)} in the first perturbation"
            )


def _is_same(one: Kind, other: Kind) -> bool:
    """Whether both do the same to any image."""
    described = ("kind", "settings", "image_shape", "num_classes", "epsilon", "visibility")
    tensors = {name: np.asarray(tensor) for name, tensor in one.tensors.items()}
    return (
        all(one.config.get(name) == other.config.get(name) for name in described)
        and tensors.keys() == other.tensors.keys()
        and all(np.array_equal(tensor, other.tensors[name]) for name, tensor in tensors.items())
    )


def _named(parts: Sequence[Kind]) -> str:
    return " + ".join(f"{part.config['method']} ({part.name})" for part in parts) or "none"


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
            f"with rows of the same label in several of them, the first one in numbers {owners}; "
            f"omit one of those"
        )
