"""Perturbations one after the other, and all kinds by their names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

from ...data.image import Images, Pixels
from .additive import Additive
from .base import Kind, RowRef, Tensors
from .convolution import Convolution
from .pixel import Pixel
from .procedural import Procedural
from .shift import Shift


class Stack(Kind):
    """Perturbations applied in sequence and found by the clean image."""

    name = "stack"

    @classmethod
    def names(cls, config: Mapping[str, Any]) -> set[str]:
        return {
            f"{number}.{name}"
            for number, part in enumerate(config["parts"])
            for name in KINDS[part["kind"]].names(part)
        }

    def _check(self) -> None:
        self.parts: list[Kind] = []
        for number, config in enumerate(self.config["parts"]):
            prefix = f"{number}."
            own = {
                n.removeprefix(prefix): t for n, t in self.tensors.items() if n.startswith(prefix)
            }
            self.parts.append(KINDS[config["kind"]](own, config, f"part {number} of {self.where}"))
        self.keyed = any(part.keyed for part in self.parts)
        self.by_class = any(part.by_class for part in self.parts)
        self.sized = any(part.sized for part in self.parts)

    def __len__(self) -> int:
        return len(next((part for part in self.parts if part.keyed), self.parts[0]))

    def describe(self) -> str:
        return " + ".join(part.name for part in self.parts)

    def example(self, index: int) -> RowRef:
        return tuple(part.example(index % len(part)) for part in self.parts)

    def canvas(self) -> Pixels:
        return self.parts[0].canvas()

    def find(
        self, images: Images, labels: Sequence[int], indices: Sequence[int] | None = None
    ) -> list[RowRef]:
        found: list[list[RowRef]] = []
        for number, part in enumerate(self.parts):
            if not number or not isinstance(part, Additive) or not part.keyed:
                found.append(part.find(images, labels, indices))
                continue
            # Fitted on clean images, or on what the parts below it give.
            rows = part.search(images, labels, indices)
            if missed := [place for place, row in enumerate(rows) if row < 0]:
                seen = self.prepare(images[missed])
                for below, own in zip(self.parts, found, strict=False):
                    seen = below.apply(seen, [own[place] for place in missed])
                at = None if indices is None else [indices[place] for place in missed]
                above = part.search(seen, [labels[place] for place in missed], at)
                for place, row in zip(missed, above, strict=True):
                    rows[place] = row
            found.append(part.known(rows, indices))
        return list(zip(*found, strict=True))

    def change(self, images: Images, rows: Sequence[RowRef]) -> Images:
        for part, own in zip(self.parts, zip(*rows, strict=True), strict=True):
            images = part.apply(images, list(own))
        return images


KINDS: dict[str, type[Kind]] = {
    kind.name: kind for kind in (Additive, Pixel, Convolution, Procedural, Shift, Stack)
}


def parts_of(kind: Kind) -> list[Kind]:
    """The parts of a stack; for any other kind, the kind itself."""
    return kind.parts if isinstance(kind, Stack) else [kind]


def common_classes(configs: Sequence[Mapping[str, Any]]) -> list[str] | None:
    """The class names, which must agree in all configs that have any."""
    known = [config["classes"] for config in configs if config["classes"] is not None]
    for classes in known:
        if classes != known[0]:
            raise ValueError(f"expected the classes {known[0]} everywhere, got {classes}")
    return known[0] if known else None


def stacked(parts: Sequence[Kind]) -> tuple[Tensors, dict[str, Any]]:
    """Tensors and config of a stack, with the dataset and preprocessing of its lowest part.

    Shifts, which have no size, take that of the other parts. Parts that a method learned on top of
    its rows belong to the rows: the method is named once, and a stack of only these keeps its
    parameters.
    """
    configs = _sized(parts)
    for name, config in product(("image_shape", "num_classes"), configs):
        if config[name] != configs[0][name]:
            raise ValueError(
                f"expected {name} {configs[0][name]} as in the lowest part, got {config[name]}"
            )
    sample_wise = "sample-wise" in [config["granularity"] for config in configs]
    origin = {n: {str(config.get(n)) for config in configs} for n in ("device", "precision")}
    config = configs[0] | {n: None for n, found in origin.items() if len(found) > 1}
    for name in ("visibility", "on_top"):
        config.pop(name, None)  # each part keeps its own
    on_top = [bool(config.get("on_top")) for config in configs]
    if not all(on_top[1:]):
        config |= {"parameters": {}, "seed": None, "history": None}
    methods = [own["method"] for own, above in zip(configs, on_top, strict=True) if not above]
    config |= {
        "method": " + ".join(methods or [config["method"]]),
        "kind": Stack.name,
        "settings": {},
        "parts": configs,
        "granularity": "sample-wise" if sample_wise else "class-wise",
        "classes": common_classes(configs),
        "epsilon": None,
        "norm": None,
        "strength": None,
    }
    tensors = {
        f"{number}.{name}": tensor
        for number, part in enumerate(parts)
        for name, tensor in part.tensors.items()
    }
    return tensors, config


def _sized(parts: Sequence[Kind]) -> list[dict[str, Any]]:
    """The parts' configs; those of shifts with the size of the lowest part that has one."""
    lowest = next((part for part in parts if not isinstance(part, Shift)), parts[0])
    size = {name: lowest.config[name] for name in ("image_shape", "preprocessing")}
    return [
        dict(part.config)
        | (size if isinstance(part, Shift) and part.shape[0] == lowest.shape[0] else {})
        for part in parts
    ]
