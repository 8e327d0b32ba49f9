"""Perturbations one after the other, and all kinds by their names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .data import Pixels
from .errors import UnknownImageError
from .kinds import Additive, Convolution, Kind, Pixel, Procedural, Row, Tensors


class Stack(Kind):
    """Perturbations applied one after the other, found by the clean image."""

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

    def __len__(self) -> int:
        return len(next((part for part in self.parts if part.keyed), self.parts[0]))

    def describe(self) -> str:
        return " + ".join(part.name for part in self.parts)

    def example(self, index: int) -> Row:
        return tuple(part.example(index % len(part)) for part in self.parts)

    def canvas(self) -> Pixels:
        return self.parts[0].canvas()

    def find(self, pixels: Pixels, label: int, index: int | None = None) -> Row:
        rows: list[Row] = []
        for number, part in enumerate(self.parts):
            try:
                rows.append(part.find(pixels, label, index))
            except UnknownImageError:
                if not number or not part.keyed:
                    raise
                # It was fitted on what the parts before it give.
                seen = self.prepare(pixels)
                for earlier, row in zip(self.parts, rows, strict=False):
                    seen = earlier.apply(seen, row)
                rows.append(part.find(seen, label, index))
        return tuple(rows)

    def _change(self, pixels: Pixels, row: Row) -> Pixels:
        for part, own in zip(self.parts, row, strict=True):
            pixels = part.apply(pixels, own)
        return pixels


KINDS: dict[str, type[Kind]] = {
    kind.name: kind for kind in (Additive, Pixel, Convolution, Procedural, Stack)
}


def parts_of(kind: Kind) -> list[Kind]:
    """A stack's parts, or the one that anything else is."""
    return kind.parts if isinstance(kind, Stack) else [kind]


def stacked(parts: Sequence[Kind]) -> tuple[Tensors, dict[str, Any]]:
    """Tensors and config of a stack: the dataset's part of the config is that of the lowest."""
    configs = [dict(part.config) for part in parts]
    sample_wise = any(config["granularity"] == "sample-wise" for config in configs)
    config = configs[0] | {
        "method": " + ".join(config["method"] for config in configs),
        "parameters": {},
        "kind": Stack.name,
        "settings": {},
        "parts": configs,
        "granularity": "sample-wise" if sample_wise else "class-wise",
        "classes": next((c["classes"] for c in configs if c["classes"] is not None), None),
        "epsilon": None,
        "norm": None,
        "seed": None,
        "history": None,
        "strength": None,
    }
    tensors = {
        f"{number}.{name}": tensor
        for number, part in enumerate(parts)
        for name, tensor in part.tensors.items()
    }
    return tensors, config
