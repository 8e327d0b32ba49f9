"""Names of exported image files: those of the originals, but for their endings."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence

from ...data.raw import RawDataset
from .folder_names import LONGEST, comparable, shortened, spelling

_ENDING = re.compile(r"(?<=.)\.[A-Za-z][A-Za-z0-9]{0,4}$")
_SIGN = "_"  # in place of what file systems do not take


def file_names(raw: RawDataset, folders: Sequence[str], ending: str) -> list[str]:
    """A path for each image below its class folder, with forward slashes.

    If the dataset lists files, this is the file's path inside the class folder with a new
    extension; characters that some systems do not allow are replaced, as in names of class folders.
    Of files whose paths would be the same, or count as the same on some systems, one keeps its
    name, preferably one that already has this extension; the others get a number: ``a (2).png``.
    All other names are kept, so the result does not depend on the order of images. Images that are
    not files are named by their index.

    Args:
        raw: The dataset.
        folders: Class folders by index; empty if files are not in folders.
        ending: Extension without the dot.
    """
    digits = len(str(len(raw) - 1))
    stems: list[str] = []  # paths without endings
    order: list[tuple[bool, str, int]] = []
    kept: set[str] = set()  # what stays free: folders, and what images are called at first
    for index, (label, parts) in enumerate(zip(raw.labels.tolist(), _paths(raw), strict=True)):
        *between, name = parts or (f"{index:0{digits}d}",)
        stem = _ENDING.sub("", name) if parts else name
        stem = shortened(stem, LONGEST - len(ending) - 1)
        stem = spelling(f"{stem}.{ending}", _SIGN).removesuffix(f".{ending}")
        way = folders[label]
        for part in between:
            way = f"{way}/{spelling(part, _SIGN)}".lstrip("/")
            kept.add(comparable(way))
        stems.append(f"{way}/{stem}".lstrip("/"))
        order.append((name != f"{stem}.{ending}", str(raw.path(index)), index))
    later = []
    for _, _, index in sorted(order):
        name = comparable(f"{stems[index]}.{ending}")
        if name in kept:
            later.append(index)
        kept.add(name)
    numbers: dict[str, int] = defaultdict(lambda: 1)
    files = [f"{stem}.{ending}" for stem in stems]
    for index in later:
        way, slash, stem = stems[index].rpartition("/")
        base = comparable(stems[index])
        while comparable(files[index]) in kept:
            numbers[base] += 1
            last = f" ({numbers[base]}).{ending}"
            files[index] = f"{way}{slash}{shortened(stem, LONGEST - len(last))}{last}"
        kept.add(comparable(files[index]))
    return files


def _paths(raw: RawDataset) -> list[tuple[str, ...] | None]:
    """Of each image, the parts of its file's path inside of the class folder; None without one."""
    labels = raw.labels.tolist()
    below: list[tuple[str, ...] | None] = []
    labels_in: dict[str, set[int]] = defaultdict(set)  # of a folder right below the dataset's
    folders_of: dict[int, set[str]] = defaultdict(set)  # such folders, of a label
    for index, label in enumerate(labels):
        path, root = raw.path(index), raw.folder(index)
        if path is None:
            below.append(None)
            continue
        inside = root is not None and path.is_relative_to(root)
        parts = path.relative_to(root).parts if root is not None and inside else (path.name,)
        below.append(parts)
        if len(parts) > 1:
            labels_in[parts[0]].add(label)
        folders_of[label].add(parts[0] if len(parts) > 1 else "")
    return [
        None if parts is None else _inside(parts, label, raw.classes, labels_in, folders_of)
        for label, parts in zip(labels, below, strict=True)
    ]


def _inside(
    parts: tuple[str, ...],
    label: int,
    classes: Sequence[str] | None,
    labels_in: dict[str, set[int]],
    folders_of: dict[int, set[str]],
) -> tuple[str, ...]:
    """The path without the class folder: one of the class's name, or one that holds all of it
    and nothing else.
    """
    if classes is not None and classes[label] in parts[:-1]:
        return parts[parts.index(classes[label]) + 1 :]
    alone = len(parts) > 1 and labels_in[parts[0]] == {label} and len(folders_of[label]) == 1
    return parts[1:] if alone else parts
