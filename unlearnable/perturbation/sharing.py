"""Perturbations found by name, on the Hugging Face Hub or elsewhere, and published there."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ArtefactError, FormatVersionError
from ..hub.catalogue import CONFIG
from ..hub.locate import locate
from ..io.files import json_bytes
from ..io.json import as_json
from .card import write_card
from .kinds.base import Kind
from .serialization import config_file, digest_of, load, save, verify_checksums
from .shards import artefact_files
from .summary import info

if TYPE_CHECKING:
    from ..hub.client import Pushed


def fetch(name: str | Path, **options: Any) -> tuple[Kind, Path]:
    """What :meth:`Perturbation.from_pretrained` is asked for, and the folder that it lies in.

    A digest that the catalogue states is compared, and a download is verified when it is new.
    """
    source = locate(name, **options)
    try:
        kind = load(source.folder)
        digest = digest_of(kind.tensors, kind.config)
        if source.digest not in (None, digest):
            raise ArtefactError(
                f"expected the digest {source.digest} that the catalogue states, got {digest} in "
                f"{source.folder}"
            )
        if source.downloaded and not source.is_verified(digest):
            verify_checksums(kind, source.folder)
            source.note_verified(digest)
    except ArtefactError as error:
        if not source.downloaded or isinstance(error, FormatVersionError):
            raise
        raise ArtefactError(
            f"{error}; downloaded from {source.repo}: get it again with force_download=True "
            f"(--force-download), and if that does not help, tell its owner"
        ) from error
    return kind, source.folder


def publish(
    kind: Kind, folder: Path | None, repo_id: str, *, license: str | None, **options: Any
) -> Pushed:
    """As :meth:`Perturbation.push_to_hub`.

    Args:
        kind: What is published.
        folder: Where it was loaded from, if it was.
        repo_id: ``owner/name``.
        license: For the card.
        options: Of :func:`~unlearnable.hub.client.upload`.
    """
    from ..hub import client

    verify_checksums(kind, folder)
    digest = digest_of(kind.tensors, kind.config)
    card = write_card(info(kind, digest), kind.config, repo_id, license=license)
    config = config_file(kind.tensors, as_json(kind.config))
    with tempfile.TemporaryDirectory() as scratch:
        # Tensors can be very large: those of a loaded one are sent from where they are.
        folder = folder or save(scratch, kind)
        files: dict[str, Path | bytes] = {name: folder / name for name in artefact_files(folder)}
        files |= {CONFIG: json_bytes(config), client.CARD: card.encode()}
        return client.upload(files, repo_id, **options)
