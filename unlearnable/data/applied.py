"""Transforms put back: what is applied to a protected image, and the items that come of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from torchvision.datasets.vision import StandardTransform
from torchvision.transforms import Compose

from .bare import Bare
from .calls import Call, standard_calls
from .items import is_key, with_field
from .transforms import has_own, standard_parts, value_at

Chosen: TypeAlias = Mapping[str, Any]
"""Transforms that replace a dataset's own: ``transforms``, or one or both of the other two."""
Finish: TypeAlias = Callable[[Any, Any, Any], Any]
"""From an image, its label and the bare item, where that is no pair, to the item."""

_IMAGE, _LABEL, _BOTH = (0,), (1,), (0, 1)
_USUAL = standard_calls()


def finisher(bare: Bare, dataset: Any, chosen: Chosen) -> Finish:
    """Returns the function that makes items; looks up the dataset's current transforms."""
    key, steps = bare.layout.image, _steps(bare, dataset, chosen)
    plain = [(call.args, transform) for call, transform in steps]
    pairs = bare.layout.is_pair and all(_is_plain(call) for call, _ in steps)

    def finish(image: Any, label: Any, item: Any) -> Any:
        if item is None and pairs:  # the usual ones, without detours
            for args, transform in plain:
                if args == _IMAGE:
                    image = transform(image)
                elif args == _LABEL:
                    label = transform(label)
                else:
                    image, label = transform(image, label)
            return image, label
        item = (image, label) if item is None else with_field(item, key, image)
        for call, transform in steps:
            item = call.made(transform, item)
        return item

    return finish


def _is_plain(call: Call) -> bool:
    return call.args in (_IMAGE, _LABEL, _BOTH) and not call.names and not call.arrays


def applied(bare: Bare, dataset: Any, chosen: Chosen, name: str) -> Any:
    """The current transform under one of the three names; None if there is none."""
    if bare.calls is None or "transforms" in chosen:
        joint, transform, target_transform = _parts(bare, dataset, chosen)
    else:
        steps = _steps(bare, dataset, chosen)
        transform, target_transform = (
            _together([steps[place][1] for place in _places(steps, bare, which)])
            for which in ("transform", "target_transform")
        )
        joint = next((value for call, value in steps if call.path[-1] == "transforms"), None)
    if name != "transforms":
        return transform if name == "transform" else target_transform
    if joint is not None or (transform is None and target_transform is None):
        return joint
    whole = chosen.get(name, getattr(dataset, name, None) if has_own(dataset, name) else None)
    if isinstance(whole, StandardTransform) and (
        whole.transform is transform and whole.target_transform is target_transform
    ):
        return whole
    return StandardTransform(transform, target_transform)


def _together(transforms: list[Any]) -> Any:
    """One transform that does what several do, one after the other; None for none."""
    if len(transforms) < 2:
        return transforms[0] if transforms else None
    return Compose(transforms)


def _divided(transforms: Any) -> tuple[Any, Any, Any]:
    if isinstance(transforms, StandardTransform):
        return None, transforms.transform, transforms.target_transform
    return transforms, None, None


def _parts(bare: Bare, dataset: Any, chosen: Chosen) -> tuple[Any, Any, Any]:
    if "transforms" in chosen:
        return _divided(chosen["transforms"])
    joint, transform, target_transform = standard_parts(dataset, bare.pair)
    if not chosen:
        return joint, transform, target_transform
    return (
        None,
        chosen.get("transform", transform),
        chosen.get("target_transform", target_transform),
    )


def _steps(bare: Bare, dataset: Any, chosen: Chosen) -> list[tuple[Call, Any]]:
    """The calls to make, in order, and what is called."""
    if bare.calls is None or "transforms" in chosen:
        joint, transform, target_transform = _parts(bare, dataset, chosen)
        usual = _USUAL if bare.calls is None else _usual(bare)
        steps = [
            (usual["transforms"], joint),
            (usual["transform"], transform),
            (usual["target_transform"], target_transform),
        ]
    else:
        steps = [
            step
            for call in bare.calls
            for step in _as_pair(call, value_at(dataset, call.path))
            if step[1] is not None or chosen
        ]
        for name, value in chosen.items():
            steps = [step for step in steps if not _is_joint(step[0])]
            places = _places(steps, bare, name)
            call = steps[places[0]][0] if places else _usual(bare)[name]
            at = places[0] if places else len(steps)
            rest = [(place, step) for place, step in enumerate(steps) if place not in places]
            before = [step for place, step in rest if place < at]
            after = [step for place, step in rest if place > at]
            steps = [*before, (call, value), *after]
    return [(call, value) for call, value in steps if value is not None]


def _usual(bare: Bare) -> dict[str, Call]:
    label = bare.layout.label
    return standard_calls(bare.layout.image, label if is_key(label) else 1)


def _as_pair(call: Call, value: Any) -> list[tuple[Call, Any]]:
    """A pair of transforms that is held as one, as its two calls."""
    if not isinstance(value, StandardTransform) or len(call.args) != 2 or call.names:
        return [(call, value)]
    names = ("transform", "target_transform")
    return [
        (Call((*call.path[:-1], name), (key,)), getattr(value, name))
        for name, key in zip(names, call.args, strict=True)
    ]


def _is_joint(call: Call) -> bool:
    """Whether it is of what the pair replaces: ``transforms``, or a transform of whole rows."""
    return call.path[-1] in ("transforms", "row_transform")


def _places(steps: list[tuple[Call, Any]], bare: Bare, name: str) -> list[int]:
    """Which steps a name stands for: of that name, else of the same field, own before inner."""
    layout = bare.layout
    key = layout.image if name == "transform" else layout.label
    own = [place for place, (call, _) in enumerate(steps) if len(call.path) == 1]
    named = [place for place in own if str(steps[place][0].path[0]).strip("_") == name]
    if named:
        return named
    same_field = [place for place, (call, _) in enumerate(steps) if call.args == (key,)]
    return [place for place in same_field if place in own] or same_field
