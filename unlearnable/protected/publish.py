"""Protected images as a dataset on the Hugging Face Hub."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..data.export_marker import MARKER
from ..io.files import json_bytes
from ..perturbation.perturbation import Perturbation
from .export.card import write_images_card
from .export.huggingface import import_datasets

if TYPE_CHECKING:
    from ..hub.client import Pushed


class Exporting(Protocol):
    """The interface that a protected dataset must have."""

    perturbation: Perturbation

    @property
    def chosen(self) -> NDArray[np.bool_]: ...

    def export(self, folder: str | Path, format: str, *, progress: bool) -> Path: ...


def push_to_hub(  # noqa: D417  # the method of ProtectedDataset
    self: Exporting,
    repo_id: str,
    *,
    private: bool = True,
    license: str | None = None,
    branch: str | None = None,
    create_pr: bool = False,
    token: str | bool | None = None,
    endpoint: str | None = None,
    commit_message: str | None = None,
    progress: bool = True,
) -> Pushed:
    """Uploads the protected images to a dataset repository on the Hugging Face Hub, in one commit.

    The upload is the export ``"parquet"`` with a card, readable by
    ``datasets.load_dataset(repo_id)``; it is written to a temporary folder first. The perturbation
    is never uploaded with it, and a repository that contains one, or other images that may be the
    clean ones, is refused. Private by default.

    Args:
        repo_id: ``"owner/name"``; created if it does not exist.
        private: Make the repository private, and refuse to push to a public one.
        license: Licence named in the card, such as ``"cc-by-4.0"``, or None.
        branch: Branch to push to instead of ``main``; created if it does not exist.
        create_pr: Open a pull request instead of pushing.
        token: Token with write permission; by default the stored login.
        endpoint: URL of another Hub.
        commit_message: Message of the commit.
        progress: Show a progress bar while the images are written.

    Returns:
        ``repo_id``, ``commit`` and ``url``; the last commit if nothing changed.

    Raises:
        HubError: The Hub did not accept it; the message says what to do.
        ImportError: The extra ``hf`` is not installed.
        ValueError: None of the images is protected.
    """
    from ..hub import client

    import_datasets()
    if not self.chosen.any():
        raise ValueError(
            "expected protected images, got only clean ones (fraction=0); do not upload them, "
            "because the repository's history would keep them next to protected ones pushed later"
        )
    with tempfile.TemporaryDirectory() as scratch:

        def files() -> dict[str, Path | bytes]:
            folder = self.export(Path(scratch) / "images", "parquet", progress=progress)
            described: dict[str, Any] = json.loads((folder / MARKER).read_text(encoding="utf-8"))
            config = self.perturbation.config
            card = write_images_card(described, config, folder, repo_id=repo_id, license=license)
            # By it an owner of all originals could check guesses of the seed.
            del described["perturbation_id"]
            data = sorted((folder / "data").iterdir())
            return {
                client.CARD: card.encode(),
                MARKER: json_bytes(described),
                **{f"data/{path.name}": path for path in data},
            }

        return client.upload(
            files,
            client.IMAGES,
            repo_id,
            private=private,
            branch=branch,
            create_pr=create_pr,
            token=token,
            endpoint=endpoint,
            commit_message=commit_message,
        )
