"""Sending a perturbation to the Hub, with its card."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from . import hub
from .artefact import described, files_of
from .card import write_card
from .output import json_bytes
from .perturbation import Perturbation
from .strict_json import as_json


def publish(
    perturbation: Perturbation, repo_id: str, *, license: str | None, **where: Any
) -> hub.Pushed:
    """As :meth:`Perturbation.push_to_hub`; ``where`` as for :func:`hub.upload`."""
    perturbation.verify()
    card = write_card(perturbation, repo_id, license=license)
    config = described(perturbation.tensors, as_json(perturbation.config))
    with tempfile.TemporaryDirectory() as scratch:
        # Tensors can be very large: those of a loaded one are sent from where they are.
        folder = perturbation.folder or perturbation.save_pretrained(scratch)
        files: dict[str, Path | bytes] = {name: folder / name for name in files_of(folder)}
        files |= {hub.CONFIG: json_bytes(config), hub.CARD: card.encode()}
        return hub.upload(files, repo_id, **where)
