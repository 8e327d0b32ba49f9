"""Several countermeasures at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ...engine.run import Run
from ...engine.train import Batch
from .base import Countermeasure, NoCountermeasure, returned_batch

_HOOKS = (  # in the order in which they are called
    "on_dataset", "on_pairs", "on_images", "build_victim", "on_start", "on_epoch", "on_batch",
    "on_step",
)  # fmt: skip


@dataclass(frozen=True)
class Composition(Countermeasure):
    """Several countermeasures in sequence, each at its own stage.

    They act first on the dataset, then on all images, on the initial network, on batches and on
    steps; at each stage, the parts act in their given order. Test images are processed by those
    parts that also process them on their own. The name consists of the parts' names joined by
    ``+``.

    Args:
        parts: Two or more different countermeasures; nested compositions are flattened.

    Raises:
        ValueError: They cannot be composed; the message says which ones and why.
    """

    parts: tuple[Countermeasure, ...]

    def __post_init__(self) -> None:
        flat: list[Countermeasure] = []
        for part in self.parts:
            if not isinstance(part, Countermeasure):
                raise TypeError(f"expected countermeasures to compose, got {part!r:.60}")
            flat += part.parts if isinstance(part, Composition) else [part]
        object.__setattr__(self, "parts", tuple(flat))
        if len(flat) < 2:
            raise ValueError(f"expected two or more countermeasures to compose, got {self.name!r}")
        for why in (_useless, _two_datasets, _two_rates, _two_adversaries, _several_draws):
            if reason := why(flat):
                raise ValueError(
                    f"expected countermeasures that can be combined, got {self.name!r}: {reason}"
                )

    @property
    def name(self) -> str:
        return "+".join(part.name for part in self.parts)

    @property
    def description(self) -> str:
        acting = sorted(self.parts, key=_stage)
        does = [part.description.removeprefix("a victim that ") for part in acting]
        return f"a victim that first {', then '.join(does)}"

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters of each part, by its name."""
        return {part.name: part.parameters for part in self.parts}

    @property
    def test_images(self) -> bool:  # type: ignore[override]
        return any(part.test_images for part in self.parts)

    @property
    def learning_rate(self) -> float:  # type: ignore[override]
        changed = [p.learning_rate for p in self.parts if _changes_rate(p)]
        return changed[0] if changed else Countermeasure.learning_rate

    @property
    def needs_clean_images(self) -> bool:  # type: ignore[override]
        return any(part.needs_clean_images for part in self.parts)

    @property
    def knows_method(self) -> bool:  # type: ignore[override]
        return any(part.knows_method for part in self.parts)

    @property
    def takes_pairs(self) -> bool:  # type: ignore[override]
        return any(part.takes_pairs for part in self.parts)

    @property
    def several_draws(self) -> bool:  # type: ignore[override]
        return any(part.several_draws for part in self.parts)

    @property
    def needs_one_draw(self) -> bool:  # type: ignore[override]
        return any(part.needs_one_draw for part in self.parts)

    @property
    def trains(self) -> bool:  # type: ignore[override]
        return all(part.trains for part in self.parts)

    @property
    def passes(self) -> float:
        product = 1.0
        for part in self.parts:
            product *= part.passes
        return product

    def check_victim(self, victim: str | nn.Module, shape: Sequence[int] | None = None) -> None:
        for part in self.parts:
            part.check_victim(victim, shape)

    def for_timing(self, few: int, count: int) -> Countermeasure:
        timed = [part.for_timing(few, count) for part in self.parts]
        timed = [part for part in timed if not isinstance(part, NoCountermeasure)]
        if len(timed) < 2:
            return timed[0] if timed else NoCountermeasure()
        return Composition(tuple(timed))

    def on_dataset(self, dataset: Any) -> Any:
        for part in self.parts:
            dataset = part.on_dataset(dataset)
        return dataset

    def on_pairs(
        self, images: Tensor, clean: Tensor, labels: Tensor, device: torch.device
    ) -> Tensor:
        for part in self.parts:
            images = part.on_pairs(images, clean, labels, device)
        return images

    def on_images(self, images: Tensor, labels: Tensor) -> Tensor:
        for part in self.parts:
            images = part.on_images(images, labels)
        return images

    def on_test_images(self, images: Tensor, labels: Tensor) -> Tensor:
        for part in self.parts:
            if part.test_images:
                images = part.on_test_images(images, labels)
        return images

    def build_victim(
        self, victim: str | nn.Module, num_classes: int, channels: int, *, seed: int
    ) -> nn.Module:
        own = [part for part in self.parts if _overrides(part, "build_victim")]
        build = own[0].build_victim if own else super().build_victim
        return build(victim, num_classes, channels, seed=seed)

    def on_start(self, model: nn.Module, victim: str | nn.Module, run: Run) -> None:
        for part in self.parts:
            part.on_start(model, victim, run)

    def on_epoch(self, model: nn.Module, run: Run) -> None:
        for part in self.parts:
            part.on_epoch(model, run)

    def on_batch(self, batch: Batch, run: Run, done: float) -> Batch:
        for part in self.parts:
            batch = returned_batch(part.on_batch(batch, run, done), part)
        return batch

    def on_step(self, batch: Batch, model: nn.Module, run: Run) -> Batch:
        for part in self.parts:
            batch = returned_batch(part.on_step(batch, model, run), part)
        return batch


def _overrides(part: Countermeasure, hook: str) -> bool:
    return getattr(type(part), hook) is not getattr(Countermeasure, hook)


def _stage(part: Countermeasure) -> int:
    """The first stage at which a part acts, as a number."""
    return next((place for place, hook in enumerate(_HOOKS) if _overrides(part, hook)), 0)


def _changes_rate(part: Countermeasure) -> bool:
    return part.learning_rate != Countermeasure.learning_rate


def _useless(parts: Sequence[Countermeasure]) -> str:
    names = [part.name for part in parts]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        return f"{twice[0]} appears twice; name it once"
    for part in parts:
        if any(not other.trains for other in parts if other is not part) and (
            _overrides(part, "on_batch") or _overrides(part, "on_step")
        ):
            return f"{part.name} changes batches, and nothing is trained by batches here"
    if any(isinstance(part, NoCountermeasure) for part in parts):
        return "none means training without a countermeasure; omit it"
    return ""


def _two_datasets(parts: Sequence[Countermeasure]) -> str:
    found = [p.name for p in parts if _overrides(p, "on_dataset") or p.takes_pairs]
    if len(found) < 2:
        return ""
    return (
        f"{found[0]} and {found[1]} each decide which clean images there are; use only one of them"
    )


def _two_rates(parts: Sequence[Countermeasure]) -> str:
    starts = ("on_start", "build_victim")
    found = [p.name for p in parts if any(_overrides(p, s) for s in starts) or _changes_rate(p)]
    if len(found) < 2:
        return ""
    return f"{found[0]} and {found[1]} each decide how training starts; use only one of them"


def _two_adversaries(parts: Sequence[Countermeasure]) -> str:
    found = [part.name for part in parts if _overrides(part, "on_step")]
    if len(found) < 2:
        return ""
    return f"{found[0]} and {found[1]} each choose the images of a step; use only one of them"


def _several_draws(parts: Sequence[Countermeasure]) -> str:
    for place, part in enumerate(parts):
        if not part.several_draws:
            continue
        for other in parts:
            later = other in parts[place + 1 :] or _overrides(other, "on_step")
            if other.needs_one_draw and later:
                first = "" if _overrides(other, "on_step") else f"; name {other.name} first"
                return (
                    f"{part.name} makes several draws of an image, and {other.name} accepts only "
                    f"one{first}"
                )
    return ""
