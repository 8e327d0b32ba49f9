"""What an artefact's config says, checked before anything is done with it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import ArtefactError, FormatVersionError
from ..io.json import read_json
from .kinds.stack import KINDS

FORMAT = "unlearnable-perturbation"
FORMAT_VERSION = 1
LAST_READERS: dict[int, str] = {}  # older format versions, and the last release that reads each
OF_THE_FILE = ("format", "format_version", "digest")  # beside the config in config.json
GRANULARITIES = ("sample-wise", "class-wise")
_NEEDED = {
    "kind", "method", "granularity", "epsilon", "norm", "image_shape", "classes", "num_classes",
    "source", "preprocessing",
}  # fmt: skip


def check_config(config: Mapping[str, Any], *, part: bool = False) -> None:
    """Raises ``ValueError`` unless a config says what every kind needs to know, soundly."""
    wrong: list[str] = []

    def expect(name: str, sound: bool) -> None:
        if not sound:
            wrong.append(f"{name}={config.get(name)!r:.80}")

    def whole(value: Any, most: int) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= most

    absent = _NEEDED - config.keys()
    if absent:
        raise ValueError(f"expected a config with {sorted(absent)}, found none")
    kind: Any = config.get("kind")
    parts: Any = config.get("parts")
    shape: Any = config.get("image_shape")
    classes: Any = config.get("classes")
    fit: Any = config.get("preprocessing")
    expect("kind", isinstance(kind, str) and kind in KINDS)
    expect("granularity", config.get("granularity") in GRANULARITIES)
    sides = isinstance(shape, list) and len(shape) == 3 and all(whole(s, 1 << 14) for s in shape)
    expect("image_shape", sides and shape[0] in (1, 3) and math.prod(shape) <= 1 << 28)
    number = config.get("num_classes")
    expect("num_classes", whole(number, 1 << 31))
    names = isinstance(classes, list) and all(isinstance(name, str) for name in classes)
    expect("classes", classes is None or (names and len(classes) == number))
    source = config.get("source")
    named = isinstance(source, dict) and isinstance(source.get("name"), str)
    expect("source", named and whole(source.get("images"), 1 << 62))  # type: ignore[union-attr]
    expect("method", isinstance(config.get("method"), str))
    expect("norm", config.get("norm") in (None, "Linf", "L2"))
    sizes: Any = fit.get("fit") if isinstance(fit, dict) else None
    cropped = isinstance(sizes, list) and sides and sizes == shape[1:]
    expect("preprocessing", fit is None or (cropped and all(whole(s, 1 << 14) for s in sizes)))
    epsilon = config.get("epsilon")
    number_or_none = epsilon is None or isinstance(epsilon, (int, float))
    expect("epsilon", number_or_none and (epsilon is None or 0 <= epsilon <= 1e6))
    expect("settings", isinstance(config.get("settings", {}), dict))
    if kind == "stack" and not part:
        expect("parts", isinstance(parts, list) and len(parts) >= 2)
    if wrong or (part and kind == "stack"):
        raise ValueError(f"expected a sound config, got {', '.join(wrong) or 'a stack in a stack'}")
    if kind == "stack":
        for own in parts:
            if not isinstance(own, dict) or own.get("image_shape") != shape:
                raise ValueError("expected parts of the stack's own image shape")
            check_config(own, part=True)
            if own["num_classes"] != number:
                raise ValueError("expected parts of the stack's own number of classes")


def read_config(path: Path) -> dict[str, Any]:
    """What a config file holds, without its format; ``ArtefactError`` where it is no such file."""
    return parse_config(read_json(path), path)


def parse_config(config: Any, path: Path) -> dict[str, Any]:
    """A config as this release writes it, of the JSON of a file; raises as :func:`read_config`."""
    if not isinstance(config, dict) or config.pop("format", None) != FORMAT:
        raise ArtefactError(f'expected "format": "{FORMAT}" in {path}, found another kind of file')
    return migrate(config, config.pop("format_version", None), path)


def migrate(config: dict[str, Any], version: Any, path: Path) -> dict[str, Any]:
    """A config of any format version as one of this version.

    There is one version so far. When a release changes the format, the step from the version
    before belongs here, ahead of the refusals; or that version goes into ``LAST_READERS``.
    """
    if type(version) is int and version == FORMAT_VERSION:
        return config
    expected = f"expected format version {FORMAT_VERSION} in {path}, got {str(version)[:40]}"
    if type(version) is int and version > FORMAT_VERSION:
        raise FormatVersionError(
            f"{expected}; a newer release of unlearnable may read it: pip install -U unlearnable"
        )
    if type(version) is int and version in LAST_READERS:
        release = LAST_READERS[version]
        raise FormatVersionError(
            f"{expected}; release {release} of unlearnable reads it: "
            f"pip install unlearnable=={release}"
        )
    raise ArtefactError(f"{expected}, which no release has written; the file was edited")
