"""What an artefact's config says, checked before anything is done with it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..errors import ArtefactError, FormatVersionError
from ..io.json import read_json
from . import GRANULARITIES
from .kinds.shift import Shift
from .kinds.stack import KINDS

FORMAT = "unlearnable-perturbation"
FORMAT_VERSION = 1
MASKED_VERSION = 2  # of what is masked, which readers of version 1 would apply without its mask
SHIFT_VERSION = 3  # of the kind "shift", which readers of version 2 do not know
LAST_READERS: dict[int, str] = {}  # older format versions, and the last release that reads each
OF_THE_FILE = ("format", "format_version", "digest")  # beside the config in config.json
_SIDE = 1 << 14  # pixels
_OPTIONAL: dict[str, Any] = {"settings": {}, "parameters": None, "parts": None}
# What is sound under each name, given the value and the whole config.
_SOUND: dict[str, Callable[[Any, Mapping[str, Any]], bool]] = {
    "kind": lambda kind, _: isinstance(kind, str) and kind in KINDS,
    "granularity": lambda granularity, _: granularity in GRANULARITIES,
    "image_shape": lambda shape, _: _is_shape(shape),
    "num_classes": lambda number, _: _is_count(number, 1 << 31),
    "classes": lambda names, config: names is None or (
        isinstance(names, list) and all(isinstance(name, str) for name in names)
        and len(names) == config["num_classes"]
    ),
    "source": lambda source, _: (
        isinstance(source, dict) and isinstance(source.get("name"), str)
        and _is_count(source.get("images"), 1 << 62)
    ),
    "method": lambda method, _: isinstance(method, str),
    "norm": lambda norm, _: norm in (None, "Linf", "L2"),
    "preprocessing": lambda steps, config: steps is None or (
        isinstance(steps, dict) and isinstance(fit := steps.get("fit"), list)
        and all(type(side) is int for side in fit)
        and _is_shape(config["image_shape"]) and fit == config["image_shape"][1:]
    ),
    "epsilon": lambda epsilon, _: epsilon is None or (
        type(epsilon) in (int, float) and 0 <= epsilon <= 1e6
    ),
    "settings": lambda settings, _: isinstance(settings, dict),
    "parameters": lambda parameters, _: parameters is None or isinstance(parameters, dict),
    "parts": lambda parts, config: parts is None if config["kind"] != "stack" else (
        isinstance(parts, list) and len(parts) >= 2
    ),
}  # fmt: skip


class MissingError(ValueError):
    """Something that every perturbation of this kind has is missing."""


def _is_count(value: Any, most: int) -> bool:
    return type(value) is int and 1 <= value <= most


def _is_shape(value: Any) -> bool:
    sides = isinstance(value, list) and len(value) == 3 and all(_is_count(s, _SIDE) for s in value)
    return sides and value[0] in (1, 3) and math.prod(value) <= 1 << 28


def check_config(config: Mapping[str, Any], *, part: bool = False) -> None:
    """Raises ``ValueError`` unless a config has valid values for everything that all kinds need."""
    given = _OPTIONAL | dict(config)
    absent = _SOUND.keys() - given.keys()
    if absent:
        raise MissingError(f"expected a config with {sorted(absent)}, found none")
    wrong = [f"{n}={given[n]!r:.80}" for n, sound in _SOUND.items() if not sound(given[n], given)]
    if wrong or (part and given["kind"] == "stack"):
        raise ValueError(f"expected a valid config, got {', '.join(wrong) or 'a stack in a stack'}")
    for own in given["parts"] if given["kind"] == "stack" else ():
        if not isinstance(own, dict) or own.get("image_shape") != given["image_shape"]:
            raise ValueError("expected parts with the stack's image shape")
        check_config(own, part=True)
        if own["num_classes"] != given["num_classes"]:
            raise ValueError("expected parts with the stack's number of classes")


def version_of(config: Mapping[str, Any]) -> int:
    """The format version of a config; masks and shifts need later versions."""
    parts = config.get("parts")
    parts = parts if isinstance(parts, list) else []
    configs = [config, *(part for part in parts if isinstance(part, dict))]
    if any(own.get("kind") == Shift.name for own in configs):
        return SHIFT_VERSION
    masked = any(own.get("visibility") is not None for own in configs)
    return MASKED_VERSION if masked else FORMAT_VERSION


def read_config(path: Path) -> dict[str, Any]:
    """Reads a config file, without its format fields; raises ``ArtefactError`` if it is not one."""
    if not path.is_file():
        raise ArtefactError(
            f"expected {path.name} in {path.parent}, found none; pass the folder of a saved "
            f"perturbation (a key), such as out-key, which protect writes next to the copies in out"
        )
    return parse_config(read_json(path), path)


def parse_config(config: Any, path: Path) -> dict[str, Any]:
    """Converts the config from a file of any format version to the current version.

    Each config has the lowest version that can express it; see :func:`version_of`. When a release
    changes the format, the conversion from the previous version belongs here, before the checks; or
    that version is added to ``LAST_READERS``.
    """
    if not isinstance(config, dict) or config.pop("format", None) != FORMAT:
        raise ArtefactError(
            f'expected "format": "{FORMAT}" in {path}, found a different kind of file'
        )
    version = config.pop("format_version", None)
    wanted = version_of(config)
    expected = f"expected format version {wanted} in {path}, got {str(version)[:40]}"
    if type(version) is not int or not (version >= wanted or version in LAST_READERS):
        raise ArtefactError(f"{expected}, which no release writes; the file was edited")
    if version > wanted:
        raise FormatVersionError(
            f"{expected}; a newer release of unlearnable may read it: pip install -U unlearnable"
        )
    if version < wanted:
        release = LAST_READERS[version]
        raise FormatVersionError(
            f"{expected}; release {release} of unlearnable reads it: "
            f"pip install unlearnable=={release}"
        )
    return config
