"""A dataset without its transforms: found by trying, and checked before it is used."""

from __future__ import annotations

import contextlib
import copy
import random
import types
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import TensorDataset
from torchvision.datasets.folder import DatasetFolder, default_loader
from torchvision.datasets.vision import StandardTransform

from .calls import Call, Calls, Log, Off, Path, StandIn, calls_in, standard_calls
from .class_names import LABEL_NAMES
from .compare import alike, random_state, same, watched_draws
from .copies import copy_of, twice_in
from .following import moved_by_reading
from .huggingface import HuggingFaceImages, HuggingFaceRows
from .image import pixels_of
from .items import ITEM, Layout, field_of, find_layout, is_key, named_field
from .photo import load_photo
from .steady import AGAIN, Refused, check_steady
from .transforms import (
    TRANSFORM_NAMES,
    emptied_caches,
    find_transforms,
    find_unset,
    has_own,
    is_known,
    pair_of,
    photo_loaders,
    rebuilt,
    shallow,
)

_SEEDS = 8  # under which an item is compared whose transforms draw random numbers
_GENERATORS = (np.random.Generator, np.random.RandomState, random.Random, torch.Generator)


class Bare(NamedTuple):
    """A dataset without its transforms."""

    dataset: Any  # a copy that applies none; arrays are shared
    layout: Layout
    # How it calls its transforms, in order, those that are None included; None: as torchvision's.
    calls: tuple[Call, ...] | None = None
    pair: Any = None  # of the dataset's transforms, which decides nothing: of pair_of
    made: Calls | None = None  # those that were made of transforms that are taken off
    expected: Sequence[Path] = ()  # what they are for each item
    draws: bool = False  # whether reading an item changes the random state that transforms get
    moved: frozenset[str] = frozenset()  # attributes that reading items changes

    def check_calls(self, index: int) -> None:
        """Raises ``TypeError`` if the item read last had different transforms."""
        if self.made is not None and self.made.paths != self.expected:
            raise TypeError(_others(type(self.dataset).__name__, index))


def take_off(dataset: Any, layout: Layout | None = None) -> Bare:
    """Returns a dataset without its transforms; the original object is not modified.

    Args:
        dataset: Any map-style dataset except ``Subset`` and ``ConcatDataset``.
        layout: Where image and label are in its items; None to find out.

    Raises:
        TypeError: The transforms cannot be separated, or there is other random augmentation.
    """
    if hasattr(type(dataset), "without_transforms"):
        return Bare(dataset.without_transforms(), layout or Layout())
    if isinstance(dataset, HuggingFaceRows):
        call = Call(("row_transform",), (ITEM,))
        return Bare(dataset.without_transform(), layout or Layout(), (call,))
    if not is_known(getattr(type(dataset), "__getitem__", None)):
        return _Trial(dataset, layout).outcome() if len(dataset) else Bare(dataset, Layout())
    bare = _without_standard(dataset)
    if isinstance(dataset, TensorDataset) and len(dataset.tensors) != 2 and layout is None:
        samples = {index: dataset[index] for index in sorted({0, len(dataset) - 1})}
        layout = find_layout("TensorDataset", samples)
    if isinstance(bare, DatasetFolder) and bare.loader is not load_photo and len(bare):
        with contextlib.suppress(OSError, ValueError):  # said when it is read, with its file
            check_steady(dataset, bare, [0])
    return Bare(bare, layout or Layout(), pair=pair_of(dataset))


def _without_standard(dataset: Any) -> Any:
    bare = shallow(dataset)
    if has_own(dataset, "loader") and dataset.loader is default_loader:
        bare.loader = load_photo
    for name in TRANSFORM_NAMES:
        if has_own(dataset, name) and getattr(dataset, name) is not None:
            setattr(bare, name, None)
    if isinstance(dataset, HuggingFaceImages):
        bare.transforms = None  # and none that is given to the rows' own dataset later
    return bare


class _Trial:
    """Ways to take transforms off a dataset of the caller's own class."""

    def __init__(self, dataset: Any, layout: Layout | None) -> None:
        self._dataset, self._given = dataset, layout
        self._name = type(dataset).__name__
        self._held = find_transforms(dataset)
        own: dict[str, Any] = getattr(dataset, "__dict__", {})
        generators: dict[Path, Any] = {
            (name,): copy.deepcopy(v) for name, v in own.items() if isinstance(v, _GENERATORS)
        }
        self._draws = bool(generators)
        self._random = False  # whether its transforms draw random numbers
        self._start = {**photo_loaders(dataset), **generators}
        self._samples = sorted({0, len(dataset) // 2, len(dataset) - 1})

    def outcome(self) -> Bare:
        every = list(self._held)
        own: list[Path] = [path for path in every if len(path) == 1]
        inner: list[Path] = [path for path in every if len(path) > 1]
        named = [path for path in every if str(path[-1]).strip("_") in TRANSFORM_NAMES]
        problems: list[Refused] = []
        ways: list[tuple[list[Path], list[Path]]] = [
            (every, []),
            (named, []),  # the others may be of another kind, such as what reads a file
            (inner, own),
            (own, []),
            ([], own),
        ]
        for number, (off, none) in enumerate(ways):
            if (off, none) in ways[:number]:
                continue
            try:
                return self._tried(off, none)
            except TypeError as error:
                refused = error if isinstance(error, Refused) else Refused(str(error), 1)
                problems.append(refused)
        try:
            with random_state(1):
                rebuilt(self._dataset, self._start)[self._samples[0]]
        except Exception:  # it cannot be read at all: said when it is, with its file
            return Bare(_without_standard(self._dataset), self._given or Layout())
        raise TypeError(*max(problems, key=lambda problem: problem.weight).args)

    def _tried(self, off: Sequence[Path], none: Sequence[Path]) -> Bare:
        log: Log = []
        stubs = {path: Off(path, log) for path in off} | dict.fromkeys(none)
        try:
            probe = rebuilt(self._dataset, {**self._start, **stubs})
        except AttributeError as error:
            raise Refused(
                f"expected a transform of {self._name} that can be replaced, got one that cannot "
                f"be set ({error}); store it in a plain attribute: self.transform = transform",
                3,
            ) from error
        items, logs = self._read(probe, log)
        layout = self._layout(items)
        if stubs:
            calls = [calls_in(logs[index], items[index], layout) for index in items]
        else:
            calls = [[] for _ in items]
        if any(found != calls[0] for found in calls):
            raise Refused(_others(self._name, self._samples[-1]), 2)
        expected = [call.path for call in calls[0]]
        made = calls[0] + self._standard(none, layout)
        if stubs:
            self._check_whole(probe, made, layout)
        made = self._with_unset(made, off, layout)
        values = {**dict.fromkeys(find_unset(self._dataset)), **dict.fromkeys(none)}
        noted = Calls()
        values |= photo_loaders(self._dataset) | {path: StandIn(path, noted) for path in off}
        bare = rebuilt(self._dataset, {**emptied_caches(self._dataset, probe), **values})
        watched = noted if off else None
        moved = moved_by_reading(self._dataset, probe, off)
        return Bare(bare, layout, tuple(made), None, watched, expected, self._draws, moved)

    def _read(self, probe: Any, log: Log) -> tuple[dict[int, Any], dict[int, Log]]:
        """Some items, which stay the same when they are read again, and what was called."""
        items, logs = {}, {}
        for index in self._samples:
            log.clear()
            try:
                with random_state(1), watched_draws() as drawn:
                    items[index] = probe[index]
            except Exception as error:
                raise Refused(
                    f"expected {self._name} to be readable without its transforms, got "
                    f"{type(error).__name__}: {error}; make its __getitem__ skip a transform that "
                    f"is None",
                    0,
                ) from error
            logs[index] = list(log)
            self._draws = self._draws or drawn[0]
        check_steady(self._dataset, probe, self._samples, items, (log, logs), draws=self._draws)
        return items, logs

    def _layout(self, items: Mapping[int, Any]) -> Layout:
        """Where image and label are, after a look at the images there."""
        first = items[self._samples[0]]
        try:
            layout = self._given or find_layout(self._name, items, _listed(self._dataset))
            layout = layout.counted(first)
            self._check_images(items, layout)
        except TypeError as error:
            found = twice_in(first) if self._held else None
            if found is None or getattr(error, "weight", 1) > 1:
                raise
            raise self._twice(*found) from error
        return layout

    def _check_images(self, items: Mapping[int, Any], layout: Layout) -> None:
        for index, item in items.items():
            image = named_field(self._name, item, layout.image, "an image", index)
            if is_key(layout.label):
                named_field(self._name, item, layout.label, "a label", index)
            again = None
            try:
                pixels_of(image)
                # Where nothing is applied, what else is in an item is the owner's choice.
                again = copy_of(image, item, layout.image) if self._held else None
            except TypeError as error:
                raise Refused(f"{self._name}: {error}", 1) from error
            except ValueError:
                pass  # said when it is read, with its file
            if again is not None:
                raise self._twice(layout.image, again)

    def _twice(self, key: Any, again: Any) -> Refused:
        return Refused(
            f"expected {self._name} to have each image only once in an item, got it at {key!r} and "
            f"again at {again!r}, where it would stay clean; leave it out, or make both views in "
            f"one transform that returns a list of them",
            4,
        )

    def _standard(self, none: Sequence[Path], layout: Layout) -> list[Call]:
        """The calls of transforms that were not seen, since they are None."""
        usual = standard_calls(layout.image, _label_key(layout))
        held = {path[0]: self._held[path] for path in none}
        joint = held.pop("transforms", None)
        if joint is not None and not isinstance(joint, StandardTransform):
            return [usual["transforms"]]
        return [usual[name] for name in TRANSFORM_NAMES if name in held]

    def _check_whole(self, probe: Any, calls: Sequence[Call], layout: Layout) -> None:
        """Whether our transforms of bare items give what the dataset itself gives."""
        cases = [(index, 1) for index in self._samples]
        # Chance may leave out what is rarely done: one item is compared under several seeds.
        for index, seed in [*cases, *((self._samples[0], again + 2) for again in range(_SEEDS))]:
            if seed > 1 and not self._random:
                return
            try:
                expected = self._whole(index, seed)
            except Exception:
                return  # not ours to raise
            try:
                held = self._copies()
                with random_state(seed):
                    item = probe[index]
                    for call in calls:
                        item = call.made(held[call.path], item)
            except Exception as error:
                found: Any = f"{type(error).__name__}: {error}"
            else:
                if same(item, expected):
                    continue
                varies = any(not same(expected, self._whole(index, seed)) for _ in range(AGAIN))
                if varies and alike(item, expected):
                    continue  # a random state of its own, which cannot be fixed
                found = "a different item"
            raise Refused(
                f"expected {self._name} to return what its transform returns, got {found} when "
                f"the transform was removed and applied afterwards; its __getitem__ changes items "
                f"after the transform, applies it twice, or does something else if it is None, so "
                f"move all of that into the transform",
                2,
            )

    def _whole(self, index: int, seed: int) -> Any:
        """The dataset's own item, from copies of its transforms, under a known random state."""
        held = {path: v for path, v in self._copies().items() if not _is_method(v)}
        with random_state(seed), watched_draws() as drawn:
            item = rebuilt(self._dataset, {**self._start, **held})[index]
        self._random = self._random or drawn[0]
        return item

    def _copies(self) -> dict[Path, Any]:
        methods = {path: value for path, value in self._held.items() if _is_method(value)}
        others = {path: value for path, value in self._held.items() if path not in methods}
        try:
            return methods | copy.deepcopy(others)
        except Exception:
            return methods | others

    def _with_unset(self, calls: list[Call], off: Sequence[Path], layout: Layout) -> list[Call]:
        """The calls, and among them those that there would be if a transform were set later."""
        unset = find_unset(self._dataset)
        pairs = [path for path in unset if path[-1] != "transforms"]
        for chosen in (pairs, unset):
            log: Log = []
            stubs = {path: Off(path, log) for path in [*off, *chosen]}
            try:
                with random_state(1):
                    item = rebuilt(self._dataset, {**self._start, **stubs})[self._samples[0]]
                found = calls_in(log, item, layout)
                pixels_of(field_of(item, layout.image))
            except Exception:
                continue
            if len(found) > len(calls) and [call for call in found if call.path in off] == calls:
                return found
        return calls


def _others(name: str, index: int) -> str:
    return (
        f"expected {name} to apply the same transforms to all items, got different ones for items "
        f"{index} and 0; it chooses them by item, or caches transformed items. If it caches, wrap "
        f"it before any item is read. Otherwise let a single transform choose, or protect the "
        f"parts with one transform each separately and concatenate them"
    )


def _is_method(value: Any) -> bool:
    return isinstance(value, types.MethodType)


def _label_key(layout: Layout) -> Any:
    return layout.label if is_key(layout.label) else 1


def _listed(dataset: Any) -> Sequence[Any] | None:
    for name in LABEL_NAMES:
        values = getattr(dataset, name, None) if has_own(dataset, name) else None
        if isinstance(values, (list, tuple, np.ndarray, torch.Tensor)):
            return values.tolist() if hasattr(values, "tolist") else list(values)
    return None
