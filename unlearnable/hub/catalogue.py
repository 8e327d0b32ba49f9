"""The pre-made perturbations: those that the package holds, and those pinned on the Hub."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

FILE = Path(__file__).with_name("catalogue.json")  # beside the folder of those that are shipped
_SHIPPED = "pretrained"
CONFIG = "config.json"
_NAME = r"[a-z0-9]+(-[a-z0-9]+)*"
REPO = r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*"


@dataclass(frozen=True)
class Pretrained:
    """A pre-made perturbation, as ``catalogue.json`` describes it.

    Attributes:
        name: What :meth:`Perturbation.from_pretrained` takes.
        method: Name of the method that made it.
        dataset: What it is for, such as ``"CIFAR10"``.
        images: Number of its images.
        image_shape: (channels, height, width).
        epsilon: Budget, as ``"8/255"``; None for methods without one.
        norm: Of the budget; None without one.
        bytes: Size of its tensors.
        digest: As :attr:`Perturbation.digest`; it is compared on loading.
        repo: Dataset repository on the Hub; None for one that is part of the package.
        commit: Full hash of the commit in that repository.
    """

    name: str
    method: str
    dataset: str
    images: int
    image_shape: tuple[int, int, int]
    epsilon: str | None
    norm: str | None
    bytes: int
    digest: str
    repo: str | None = None
    commit: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "image_shape", tuple(self.image_shape))
        if not re.fullmatch(_NAME, self.name):
            raise ValueError(f"expected a name of a-z, 0-9 and hyphens, got {self.name!r}")
        if (self.repo is None) != (self.commit is None):
            raise ValueError(f"expected {self.name} to have both repo and commit, or neither")
        if self.repo is not None and not re.fullmatch(REPO, self.repo):
            raise ValueError(f"expected {self.name} to be at owner/name, got {self.repo!r}")
        if self.commit is not None and not re.fullmatch("[0-9a-f]{40}", self.commit):
            raise ValueError(
                f"expected {self.name} to be pinned by 40 hexadecimal digits, got {self.commit!r}"
            )

    @property
    def where(self) -> str:
        """``"package"``, or repository and commit on the Hub."""
        return "package" if self.repo is None else f"{self.repo}@{self.commit}"

    @property
    def folder(self) -> Path:
        """Of one that is part of the package."""
        return FILE.parent / _SHIPPED / self.name


def list_pretrained() -> list[Pretrained]:
    """The pre-made perturbations that can be loaded by name, from the package or the Hub."""
    entries = [Pretrained(**entry) for entry in json.loads(FILE.read_text(encoding="utf-8"))]
    return [e for e in entries if e.repo is not None or (e.folder / CONFIG).is_file()]
