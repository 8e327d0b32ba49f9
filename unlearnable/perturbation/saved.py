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
    """The part of :class:`Perturbation` that writes and reads files."""

    _path: Path | None

    def save_pretrained(
        self,
        folder: str | Path,
        *,
        force: bool = False,
        max_shard_size: int = MAX_SHARD_SIZE,
    ) -> Path:
        """Writes ``config.json`` and ``perturbation.safetensors``, or shards of it and their index.

        Args:
            folder: Made if missing. Files are written beside their places and renamed; shards of
                an earlier save are removed.
            force: Write even into a folder that holds other files, which stay, or a perturbation of
                other images, which is replaced. One of the same images is replaced without it, and
                so is one whose images are all among these.
            max_shard_size: Bytes of rows in a file. The first one holds all other tensors as well.

        Returns:
            The folder.

        Raises:
            FileExistsError: The folder holds files that this package did not write, or a
                perturbation of other images.
            OSError: The disk is full or read-only; what was there before is unharmed.
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
        """Uploads it with a card to a dataset repository on the Hugging Face Hub, as one commit.

        Private by default: a published perturbation lets others remove it from protected images. A
        repository in which such images lie is refused. With the package pyarrow, a small preview
        of what is done to a grey canvas goes along, for the Hub's viewer.

        Args:
            repo_id: ``"owner/name"``; made if there is none.
            private: Make it private, and refuse to push into a repository that is public.
            license: For the card, such as ``"cc-by-4.0"``; None names none.
            branch: Push there instead of ``main``; made if there is none.
            create_pr: Propose it as a pull request.
            token: Of a user with permission to write there; by default the stored login.
            endpoint: URL of another Hub.
            commit_message: Of the commit.

        Returns:
            ``repo_id``, ``commit`` and ``url``; the last commit if nothing has changed.

        Raises:
            ArtefactError: It is damaged.
            HubError: The Hub did not take it; the message says what to do.
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
        """Where it was loaded from, or None."""
        return self._path

    def verify(self) -> None:
        """Reads every row and checks it against its checksum, and all else against the digest.

        Loading checks everything except the rows, each of which is checked whenever it is used.
        This reads the whole artefact, and finds damaged rows before they are used.

        Raises:
            ArtefactError: Something is damaged; the first damaged rows are named.
        """
        serialization.verify_checksums(self._kind, self._path)
