"""Where the perturbation of a name is: in a folder, on the Hub, or among the pre-made ones."""

from __future__ import annotations

import contextlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ..engine.names import suggestion
from ..errors import HubError
from . import CONFIG, REPO

FILE = Path(__file__).with_name("catalogue.json")  # beside the folder of those that are shipped
_VERIFIED = ".unlearnable-verified"  # beside a download, once all of it was checked
_NAME = r"[a-z0-9]+(-[a-z0-9]+)*"


@dataclass(frozen=True)
class Pretrained:
    """A pre-made perturbation as described in ``catalogue.json``.

    Attributes:
        name: The name that :meth:`Perturbation.from_pretrained` takes.
        method: Name of the method that made it.
        dataset: The dataset that it is for, such as ``"CIFAR10"``.
        images: Number of images in the dataset.
        image_shape: (channels, height, width).
        epsilon: Budget, such as ``"8/255"``; None for methods without one.
        norm: Norm of the budget; None without one.
        bytes: Size of its tensors.
        digest: The :attr:`Perturbation.digest`, which is checked on loading.
        repo: Dataset repository on the Hub; None if it is part of the package.
        commit: Full hash of the commit in that repository.
        surrogate: Digest of the network that computes its rows for your images; None if it is
            complete without one.
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
    surrogate: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "image_shape", tuple(self.image_shape))
        if not re.fullmatch(_NAME, self.name):
            raise ValueError(f"expected a name of a-z, 0-9 and hyphens, got {self.name!r}")
        if (self.repo is None) != (self.commit is None):
            raise ValueError(f"expected {self.name} to have both repo and commit, or neither")
        if self.repo is not None and self.surrogate is not None:
            raise ValueError(
                f"expected {self.name} with a surrogate to be in the package, got {self.repo}"
            )
        if self.repo is not None and not re.fullmatch(REPO, self.repo):
            raise ValueError(
                f"expected the repository of {self.name} as owner/name, got {self.repo!r}"
            )
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
        """The folder of one that is part of the package."""
        return FILE.parent / "pretrained" / self.name

    @property
    def strength(self) -> dict[str, Any] | None:
        """What was measured of one that is part of the package, for all images of its dataset."""
        if self.repo is not None:
            return None
        config: dict[str, Any] = json.loads((self.folder / CONFIG).read_text(encoding="utf-8"))
        return config["strength"]


def list_pretrained() -> list[Pretrained]:
    """The pre-made perturbations that can be loaded by name, from the package or the Hub."""
    entries = [Pretrained(**entry) for entry in json.loads(FILE.read_text(encoding="utf-8"))]
    return [e for e in entries if e.repo is not None or (e.folder / CONFIG).is_file()]


def premade(name: str | Path) -> Pretrained | None:
    """The pre-made perturbation with this name, unless a folder has the same name."""
    if isinstance(name, Path) or _is(name, "dir"):
        return None
    return next((entry for entry in list_pretrained() if entry.name == name), None)


def _is(name: str | Path, kind: str) -> bool:
    """Whether a name is that of a file or a folder; not if it is too long for one."""
    try:
        return Path(name).is_dir() if kind == "dir" else Path(name).is_file()
    except (OSError, ValueError):
        return False


def _hides(name: str) -> bool:
    """Whether a folder without any file of a perturbation has the name of a pre-made one."""
    saved = (Path(name) / CONFIG).exists() or any(Path(name).glob("perturbation*"))
    return not saved and any(entry.name == name for entry in list_pretrained())


def computed(name: str | Path) -> Pretrained | None:
    """As :func:`premade`, if its rows are computed for the user's images."""
    entry = premade(name)
    return None if entry is None or entry.surrogate is None else entry


def rows_cache(cache_dir: str | Path | None = None) -> Path:
    """The folder that caches rows computed for the user's images."""
    if cache_dir is not None:
        return Path(cache_dir) / "unlearnable"
    from huggingface_hub import constants

    return Path(constants.HF_HOME) / "unlearnable"


class Source(NamedTuple):
    """A folder with a perturbation, its origin, and the digest it should have."""

    folder: Path
    repo: str | None = None  # on the Hub; None for a local one
    digest: str | None = None  # of a pre-made one

    def is_verified(self, digest: str) -> bool:
        """Whether every byte of the artefact with this digest has been checked before."""
        with contextlib.suppress(OSError):
            return (self.folder / _VERIFIED).read_text(encoding="utf-8") == digest
        return False

    def note_verified(self, digest: str) -> None:
        """Records next to the download that every byte was checked."""
        with contextlib.suppress(OSError):  # a cache that is read-only is checked every time
            (self.folder / _VERIFIED).write_text(digest, encoding="utf-8")


def locate(name: str | Path, *, revision: str | None = None, **options: Any) -> Source:
    """Finds what :meth:`Perturbation.from_pretrained` was asked for, downloading it if necessary.

    ``options`` are passed to :func:`~unlearnable.hub.client.download`.

    Raises:
        FileNotFoundError: Nothing has this name.
        HubError: The Hub could not deliver it.
    """
    if revision is not None and not (isinstance(revision, str) and revision):
        raise ValueError(f"expected a branch, a tag or a commit as revision, got {revision!r}")
    entry = premade(name)
    is_folder = bool(str(name)) and _is(name, "dir")
    if (is_folder or entry is not None) and revision is not None:
        raise ValueError(
            f"expected no revision with {str(name)!r}, got {revision!r}; only a repository "
            f"(owner/name) has revisions, so omit it"
        )
    if is_folder:
        if isinstance(name, str) and _hides(name):
            raise FileNotFoundError(
                f"expected a saved perturbation in the folder {name}, found none; for the pre-made "
                f"one of that name, rename this folder, or work in another (looked in {Path.cwd()})"
            )
        return Source(Path(name).absolute())
    if bool(str(name)) and _is(name, "file"):
        raise FileNotFoundError(
            f"expected a folder with a saved perturbation (a key), got the file {name}; pass the "
            f"folder that it is in"
        )
    if isinstance(name, Path):
        raise FileNotFoundError(
            f"expected a folder with a saved perturbation, got {name}, which has none; check "
            f"the path"
        )
    if entry is not None and entry.surrogate is not None:
        raise ValueError(
            f"expected dataset= with {entry.name}, because its rows are computed for your images, "
            f"got none; pass the images to protect: from_pretrained({entry.name!r}, "
            f"dataset=trainset), or unlearnable pull {entry.name} OUT --dataset …"
        )
    if entry is not None and entry.repo is None:
        return Source(entry.folder, digest=entry.digest)
    repo, commit = (name, revision) if entry is None else (entry.repo, entry.commit)
    if repo is None or not re.fullmatch(REPO, repo):
        names = [e.name for e in list_pretrained()]
        raise FileNotFoundError(
            f"expected a folder with a saved perturbation (a key), owner/name on the Hub, or the "
            f"name of a pre-made one ('unlearnable list' lists them), got {name!r}, which does "
            f"not exist (looked in {Path.cwd()}){suggestion(name, names)}"
        )
    from .client import download

    try:
        folder = download(repo, revision=commit, **options)
    except HubError as error:
        if entry is not None or not Path(repo).parent.is_dir():
            raise
        raise HubError(
            f"expected the folder {name}, which does not exist (looked in {Path.cwd()}), or a "
            f"repository of that name on the Hub: {error}"
        ) from error
    at = repo if commit is None else f"{repo} at {commit}"
    source = Source(folder, at, None if entry is None else entry.digest)
    if options.get("force_download"):
        source.note_verified("")
    return source
