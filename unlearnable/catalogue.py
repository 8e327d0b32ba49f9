"""Where a perturbation is that is asked for by name: a folder, the Hub, or the pre-made ones."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import ArtefactError, FormatVersionError

if TYPE_CHECKING:
    from .perturbation import Perturbation

FILE = Path(__file__).with_name("catalogue.json")  # beside it, the folder of those that are shipped
_SHIPPED = "pretrained"
_CONFIG = "config.json"
_VERIFIED = ".unlearnable-verified"  # beside what was downloaded, once all of it was checked
_NAME = r"[a-z0-9]+(-[a-z0-9]+)*"
REPO = r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*"


@dataclass(frozen=True)
class Pretrained:
    """A pre-made perturbation, as ``catalogue.json`` describes it.

    Attributes:
        name: What :meth:`Perturbation.from_pretrained` takes.
        method: Name of the method that made it.
        dataset: What it is for, such as ``"CIFAR10"``.
        images: Number of images of that dataset.
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
    return [e for e in entries if e.repo is not None or (e.folder / _CONFIG).is_file()]


@dataclass(frozen=True)
class Source:
    """A folder that holds a perturbation.

    Attributes:
        folder: The folder.
        repo: What it was downloaded from; None for one that was here.
        digest: What the catalogue says that it is, if it is from there.
    """

    folder: Path
    repo: str | None = None
    digest: str | None = None

    def open(self, load: Callable[[Path], Perturbation]) -> Perturbation:
        """Loads it; what was downloaded is checked wholly before it is used for the first time.

        Raises:
            ArtefactError: It is damaged, or not what the catalogue says.
        """
        try:
            perturbation = load(self.folder)
            if self.digest not in (None, perturbation.digest):
                raise ArtefactError(
                    f"expected the digest {self.digest} that the catalogue states, got "
                    f"{perturbation.digest} in {self.folder}"
                )
            if self.repo is not None and _read(self.folder / _VERIFIED) != perturbation.digest:
                perturbation.verify()
                _note(self.folder / _VERIFIED, perturbation.digest)
        except ArtefactError as error:
            if self.repo is None or isinstance(error, FormatVersionError):
                raise
            raise ArtefactError(
                f"{error}; downloaded from {self.repo}: get it again with force_download=True "
                f"(--force-download), and if that does not help, tell its owner"
            ) from error
        return perturbation


def locate(
    name: str | Path,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    force_download: bool = False,
    endpoint: str | None = None,
) -> Source:
    """Finds what :meth:`Perturbation.from_pretrained` is asked for, and downloads it if need be.

    Raises:
        FileNotFoundError: Nothing has that name.
        HubError: The Hub did not give it.
    """
    entry = next((entry for entry in list_pretrained() if entry.name == str(name)), None)
    is_folder = bool(str(name)) and Path(name).is_dir()
    if (is_folder or entry is not None) and revision is not None:
        raise ValueError(
            f"expected no revision with {str(name)!r}, got {revision!r}; only a repository, "
            f"owner/name, has revisions"
        )
    if is_folder:
        return Source(Path(name).absolute())
    if isinstance(name, Path):
        raise FileNotFoundError(f"expected a folder with a saved perturbation, got {name}")
    if entry is not None and entry.repo is None:
        return Source(entry.folder, digest=entry.digest)
    repo, commit = (name, revision) if entry is None else (entry.repo, entry.commit)
    if repo is None or not re.fullmatch(REPO, repo):
        known = ", ".join(e.name for e in list_pretrained()) or "none in this release"
        raise FileNotFoundError(
            f"expected a folder with a saved perturbation, owner/name on the Hub, or the name of a "
            f"pre-made one ({known}), got {name!r}"
        )
    from . import hub

    folder = hub.download(
        repo,
        revision=commit,
        token=token,
        cache_dir=cache_dir,
        local_files_only=local_files_only,
        force_download=force_download,
        endpoint=endpoint,
    )
    if force_download:
        _note(folder / _VERIFIED, "")
    at = repo if commit is None else f"{repo} at {commit}"
    return Source(folder, at, None if entry is None else entry.digest)


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return None


def _note(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError:
        return  # a cache that cannot be written to is checked every time


def describe(perturbation: Perturbation) -> dict[str, Any]:
    """What the catalogue says of a perturbation, without a name and a place."""
    info, source = perturbation.info(), perturbation.config["source"]
    told = {name: info[name] for name in ("method", "image_shape", "epsilon", "norm", "bytes")}
    return told | {
        "dataset": source["name"],
        "images": source["images"],
        "digest": perturbation.digest,
    }
