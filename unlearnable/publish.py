"""Sending a perturbation to the Hub, with its card."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from . import hub
from .card import write_card
from .config import read_config
from .perturbation import Perturbation


def publish(
    perturbation: Perturbation, repo_id: str, *, license: str | None, **where: Any
) -> hub.Pushed:
    """As :meth:`Perturbation.push_to_hub`; ``where`` as for :func:`hub.upload`."""
    perturbation.verify()
    card = write_card(perturbation, repo_id, license=license)
    with tempfile.TemporaryDirectory() as scratch:
        folder = _unchanged(perturbation) or perturbation.save_pretrained(scratch)
        return hub.upload(folder, repo_id, card, **where)


def _unchanged(perturbation: Perturbation) -> Path | None:
    """The folder it was loaded from, if that still holds the same: it can be very large."""
    folder = perturbation.folder
    if folder is None or not (folder / hub.CONFIG).is_file():
        return None
    same = read_config(folder / hub.CONFIG).get("digest") == perturbation.digest
    return folder if same else None
