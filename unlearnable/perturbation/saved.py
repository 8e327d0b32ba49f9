"""What a perturbation does with its files: saving, checking and sharing them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from . import serialization
from .applied import AppliedKind
from .shards import MAX_SHARD_SIZE

if TYPE_CHECKING:
    from ..hub.client import Pushed


class SavedKind(AppliedKind):
    """The part of :class:`Perturbation` that reads and writes files."""

    _path: Path | None

    def save_pretrained(
        self,
        folder: str | Path,
        *,
        force: bool = False,
        max_shard_size: int = MAX_SHARD_SIZE,
    ) -> Path:
        """Writes ``config.json`` and ``perturbation.safetensors``, or shards and their index.

        Args:
            folder: Created if missing. Files are written atomically; shards of an earlier save are
                removed.
            force: Write even into a folder with other files, which are kept, or with a perturbation
                of other images or of protected copies that were written with it, which is
                replaced. A perturbation of the same images, or of a subset of them, that no copies
                were written with is replaced even without it.
            max_shard_size: Largest number of bytes of rows per file. The first file also holds all
                other tensors.

        Returns:
            The folder.

        Raises:
            FileExistsError: The folder contains files that this package did not write, or a
                perturbation of other images or of copies.
            OSError: The disk is full or read-only; existing files are left intact.
        """
        return serialization.save(folder, self._kind, force=force, max_shard_size=max_shard_size)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool = True,
        license: str | None = None,
        branch: str | None = None,
        create_pr: bool = False,
        token: str | bool | None = None,
        endpoint: str | None = None,
        commit_message: str | None = None,
    ) -> Pushed:
        """Uploads it with a card to a dataset repository on the Hugging Face Hub, in one commit.

        Private by default, because a published perturbation lets others remove it from protected
        images. A repository that contains such images is refused. If the package pyarrow is
        installed, a small preview of the effect on a grey canvas is added for the Hub's viewer.

        Args:
            repo_id: ``"owner/name"``; created if it does not exist.
            private: Make the repository private, and refuse to push to a public one. An existing
                private one stays so.
            license: Licence named in the card, such as ``"cc-by-4.0"``, or None.
            branch: Branch to push to instead of ``main``; created if it does not exist.
            create_pr: Open a pull request instead of pushing.
            token: Token with write permission; by default the stored login.
            endpoint: URL of another Hub.
            commit_message: Message of the commit.

        Returns:
            ``repo_id``, ``commit`` and ``url``; the last commit if nothing changed.

        Raises:
            ArtefactError: The perturbation is damaged.
            HubError: The Hub did not accept it; the message says what to do.
        """
        return serialization.publish(
            self._kind,
            self._path,
            repo_id,
            license=license,
            private=private,
            branch=branch,
            create_pr=create_pr,
            token=token,
            endpoint=endpoint,
            commit_message=commit_message,
        )

    @property
    def folder(self) -> Path | None:
        """The folder that it was loaded from, or None."""
        return self._path

    def verify(self) -> None:
        """Checks every row against its checksum, and everything else against the digest.

        Loading checks everything except the rows, which are checked whenever they are used. This
        method reads the whole artefact and finds damaged rows in advance.

        Raises:
            ArtefactError: Something is damaged; the first damaged rows are named.
        """
        serialization.verify_checksums(self._kind, self._path)
