"""Where a perturbation is that is asked for by name: a folder, the Hub, or the catalogue."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from .catalogue import REPO, list_pretrained

_VERIFIED = ".unlearnable-verified"  # beside what was downloaded, once all of it was checked


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

    @property
    def downloaded(self) -> bool:
        """Whether it is in the cache of the Hub's client."""
        return self.repo is not None

    def is_verified(self, digest: str) -> bool:
        """Whether every byte of what has this digest was checked before."""
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
    from . import client as hub

    folder = hub.download(
        repo,
        revision=commit,
        token=token,
        cache_dir=cache_dir,
        local_files_only=local_files_only,
        force_download=force_download,
        endpoint=endpoint,
    )
    at = repo if commit is None else f"{repo} at {commit}"
    source = Source(folder, at, None if entry is None else entry.digest)
    if force_download:
        source.note_verified("")
    return source
