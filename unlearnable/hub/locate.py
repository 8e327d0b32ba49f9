"""Where the perturbation of a name is: in a folder, on the Hub, or in the catalogue."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .catalogue import REPO, list_pretrained

_VERIFIED = ".unlearnable-verified"  # beside a download, once all of it was checked


@dataclass(frozen=True)
class Source:
    """A folder that holds a perturbation.

    Attributes:
        folder: The folder.
        repo: Where it was downloaded from; None for a local one.
        digest: What the catalogue states, for a pre-made one.
    """

    folder: Path
    repo: str | None = None
    digest: str | None = None

    @property
    def downloaded(self) -> bool:
        """Whether it came from the Hub."""
        return self.repo is not None

    def is_verified(self, digest: str) -> bool:
        """Whether every byte of the artefact of this digest was checked before."""
        try:
            return (self.folder / _VERIFIED).read_text(encoding="utf-8") == digest
        except OSError:
            return False

    def note_verified(self, digest: str) -> None:
        """Notes beside the download that every byte was checked."""
        try:
            (self.folder / _VERIFIED).write_text(digest, encoding="utf-8")
        except OSError:
            return  # a cache that cannot be written to is checked every time


def locate(name: str | Path, *, revision: str | None = None, **options: Any) -> Source:
    """Finds what :meth:`Perturbation.from_pretrained` is asked for, and downloads it if need be.

    Args:
        name: A folder, ``owner/name``, or the name of a pre-made one.
        revision: Of a repository.
        options: Others of :func:`~unlearnable.hub.client.download`.

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
    from .client import download

    folder = download(repo, revision=commit, **options)
    at = repo if commit is None else f"{repo} at {commit}"
    source = Source(folder, at, None if entry is None else entry.digest)
    if options.get("force_download"):
        source.note_verified("")
    return source
