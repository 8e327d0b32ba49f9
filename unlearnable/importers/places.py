"""Which rows belong to which images: by the names of files and classes that other programs kept.

Names are only compared with those of the dataset. None is opened.
"""

from __future__ import annotations

import functools
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path, PurePath
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..data.class_names import composed
from ..data.raw import RawDataset
from ..io.markdown import printable

Join: TypeAlias = Callable[[list[NDArray[Any]]], NDArray[Any]]
_ENDING = re.compile(r"(?<=.)\.[A-Za-z][A-Za-z0-9]{0,4}$")
_SEVERAL = -1  # in place of an index
_INTEGERS = (torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64)
_DEEPEST = 64  # folders of a name
_SHOWN = 3  # names that an error lists
_ADVICE = "or save one array of all images, in the dataset's order, with numpy.save"


class Places:
    """What a file of rows must fit: shapes, and the names of a dataset's files and classes.

    Args:
        dataset: The dataset that the rows are for.
        accept: Raises ``ValueError`` for the shape of an array that does not fit.
    """

    def __init__(self, dataset: RawDataset, accept: Callable[[tuple[int, ...]], None]) -> None:
        self._dataset = dataset
        self.accept = accept

    def classes(self, names: Sequence[Any], path: Path) -> list[int] | None:
        """The place among ``names`` of each class, or None if they are not names of classes.

        Raises ``ValueError`` if a class is missing.
        """
        if not all(isinstance(name, str) for name in names):
            return None
        classes = list(map(composed, self._dataset.classes or []))
        names = list(map(composed, names))
        if not set(names) <= set(classes) or any(len(set(n)) < len(n) for n in (names, classes)):
            return None
        if missing := [name for name in classes if name not in names]:
            raise ValueError(
                f"expected an array for each class in {path}, got none for {_some(missing)}"
            )
        return [names.index(name) for name in classes]

    def files(self, names: Sequence[Any], path: Path) -> list[int] | None:
        """The place among ``names`` of each image's file, or None if none of them is such a file.

        A name is that of a file if one is the end of the other, from the dataset's folder on, with
        or without their endings: ``train/cat/1.png`` and ``1`` are ``cat/1.jpg``.

        Raises:
            ValueError: Some of the names are not those of exactly one file, or a file has not
                exactly one.
        """
        if not all(isinstance(name, str) for name in names):
            return None
        files = [self._file(name) for name in names]
        if all(file is None for file in files):
            return None
        place_of: dict[int, int] = {}
        for place, (name, file) in enumerate(zip(names, files, strict=True)):
            if file == _SEVERAL:
                raise ValueError(
                    f"expected names of one file each in {path}, got {name!r:.160}, which several "
                    f"files of the dataset have; add their folders to the names, {_ADVICE}"
                )
            if file is not None and file in place_of:
                first = names[place_of[file]]
                raise ValueError(
                    f"expected one array for each file in {path}, got {first!r:.160} and "
                    f"{name!r:.160} for {self._names[file]}"
                )
            if file is not None:
                place_of[file] = place
        self._check_all(names, files, place_of, path)
        return [place_of[index] for index in range(len(self._dataset))]

    def check_indices(self, names: Sequence[Any], path: Path) -> None:
        """Raises ``ValueError`` if indices are names of the dataset's files too, in another order.

        ``names`` are in the order of the indices.
        """
        try:
            order = self.files(names, path)
        except ValueError:  # only some happen to be called as files are
            return
        if order not in (None, list(range(len(names)))):
            raise ValueError(
                f"expected in {path} either indices or names of files, got {names[0]!r} and others "
                f"that are both, in different orders; {_ADVICE[3:]}"
            )

    def may_be_labels(self, shape: tuple[int, ...]) -> bool:
        """Whether integers of this shape may be the labels of all images."""
        return shape == (len(self._dataset),)

    def check_labels(self, values: Iterable[Any], path: Path) -> None:
        """Warns if one of the values beside an array is labels in another order."""
        ours = self._dataset.labels
        for value in values:
            if isinstance(value, (list, tuple)) and all(type(n) is int for n in value):
                labels = np.array(value)
            elif isinstance(value, Tensor) and value.dtype in _INTEGERS:
                plain = value.layout == torch.strided and value.device.type == "cpu"
                labels = value.numpy() if plain else np.empty(0)
            elif isinstance(value, np.ndarray) and value.dtype.kind in "iu":
                labels = value
            else:
                continue
            if not self.may_be_labels(labels.shape):
                continue
            different = int((labels != ours).sum())
            if different and set(labels.tolist()) == set(ours.tolist()):
                warnings.warn(
                    f"labels in {path} differ from the dataset's in {different:,} of "
                    f"{len(ours):,} places: if they are those of its images, its rows are in "
                    f"another order, and do not protect",
                    stacklevel=2,
                )

    def _check_all(
        self, names: Sequence[str], files: list[int | None], place_of: dict[int, int], path: Path
    ) -> None:
        other = [name for name, file in zip(names, files, strict=True) if file is None]
        without = [name for n, name in enumerate(self._names) if n not in place_of]
        if other or without:
            found = [f"none for {_some(without)}"] * bool(without)
            found += [f"arrays of other names: {_some(other)}"] * bool(other)
            raise ValueError(
                f"expected one array for each file of the dataset in {path}, got "
                f"{' and '.join(found)}; pass the dataset of exactly these files, {_ADVICE}"
            )

    def unknown(self, names: Sequence[Any], path: Path) -> ValueError:
        """Says what names are needed, since none of these is known."""
        files = " or the names of all its files (it lists none)"
        if self._names:
            files = f" or the names of all its files, such as {self._names[0]}"
        return ValueError(
            f"expected arrays in {path} by the dataset's indices from 0, the names of all its "
            f"classes{files}, got {_some([str(name) for name in names])}; pass the dataset that "
            f"they are of, {_ADVICE}"
        )

    def concatenation(self, by: str, lengths: Sequence[int], path: Path) -> Join:
        """What joins parts of these lengths, which are in the order of indices, files or classes.

        Raises ``ValueError`` if it is unclear which image a row is for.
        """
        single = set(lengths) == {1}
        if by == "file" and not single:
            raise ValueError(f"expected one row for each file in {path}, got several for some")
        if by == "class" and not single:
            return self._from_classes(lengths, path)
        if by == "index" and not single and self.may_be_classes(lengths):
            raise ValueError(
                f"expected parts that follow one another in the dataset's order in {path}, got "
                f"{len(lengths)} with as many rows as the classes have images, which may be those "
                f"of each class; pass a dict of them by the names of classes, {_ADVICE}"
            )
        return np.concatenate

    def may_be_classes(self, lengths: Sequence[int]) -> bool:
        """Whether parts may be of the images of one class each, where this is another order."""
        return list(lengths) == self._counts and bool((np.diff(self._dataset.labels) < 0).any())

    def named_by_class(self, names: Sequence[str]) -> bool:
        """Whether the names of files say that each is of one class."""
        classes = self._dataset.classes or []
        said = all(re.search("class|cls|label|categor", name, re.IGNORECASE) for name in names)
        return said or {c for c in classes for name in names if c in name} == set(classes) != set()

    def _from_classes(self, lengths: Sequence[int], path: Path) -> Join:
        names = self._dataset.classes or ()
        for name, length, count in zip(names, lengths, self._counts, strict=True):
            if length != count:
                raise ValueError(
                    f"expected a row for each of the {count:,} images of {name} in {path}, got "
                    f"{length:,}"
                )
        order = np.argsort(np.argsort(self._dataset.labels, kind="stable"))
        return lambda parts: np.concatenate(parts)[order]

    @property
    def _counts(self) -> list[int]:
        counts = np.bincount(self._dataset.labels, minlength=self._dataset.num_classes)
        return [int(count) for count in counts]

    def _file(self, name: str) -> int | None:
        """The image whose file has a name; ``_SEVERAL`` if not one alone."""
        parts = [part for part in _spelling(name).split("/") if part not in ("", ".")]
        if not parts or len(parts) > _DEEPEST:
            return None
        without = [*parts[:-1], _ENDING.sub("", parts[-1])]
        for known, spelling in ((0, parts), (1, parts), (1, without)):
            whole, ends = self._tables[known]
            tails = ["/".join(spelling[n:]) for n in range(len(spelling))]
            found = [ends.get(tails[0]), *map(whole.get, tails[1:])]
            if any(index is not None for index in found):
                return next(index for index in found if index is not None)
        return None

    @functools.cached_property
    def _names(self) -> list[str]:
        """Every image's file, from the dataset's folder on; empty if not all are files."""
        names = []
        for index in range(len(self._dataset)):
            path, root = self._dataset.path(index), self._dataset.folder(index)
            if path is None:
                return []
            inside = root is not None and path.is_relative_to(root)
            names.append((path.relative_to(root) if root and inside else path).as_posix())
        return names

    @functools.cached_property
    def _tables(self) -> list[tuple[dict[str, int], dict[str, int]]]:
        """Images by their names and by the ends of these, with endings and without."""
        made = []
        spelled = list(map(_spelling, self._names))
        for names in (spelled, [_ENDING.sub("", name) for name in spelled]):
            whole: dict[str, int] = {}
            ends: dict[str, int] = {}
            for index, name in enumerate(names):
                whole[name] = _SEVERAL if name in whole else index
                for end in _ends(name):
                    ends[end] = _SEVERAL if end in ends else index
            made.append((whole, ends))
        return made


def _spelling(name: str) -> str:
    """A name as it is on any system; Windows has backslashes."""
    return composed(name).replace("\\", "/")


def _ends(name: str) -> Iterator[str]:
    parts = PurePath(name).parts
    return ("/".join(parts[n:]) for n in range(len(parts)))


def _some(names: Sequence[str]) -> str:
    more = f", … ({len(names):,} in all)" if len(names) > _SHOWN else ""
    return ", ".join(printable(name[:80]) for name in names[:_SHOWN]) + more
