"""What was learned, when what follows the fit fails: kept somewhere, and said where."""

from __future__ import annotations

import argparse
import contextlib
import logging
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ..engine.sizes import readable_size

if TYPE_CHECKING:
    from ..methods.base import Method

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def keeping(
    args: argparse.Namespace, method: Method | None, saved: str | None = None
) -> Iterator[None]:
    """Around what follows a fit: a full disk, Ctrl-C or any error does not lose what was learned.

    It stays in the checkpoint, where there is one, or in the folder where it is ``saved`` already;
    else it is saved in a temporary folder, or beside the working directory.
    """
    try:
        yield
    except BaseException:
        if method is not None:
            logger.warning("%s", _where(args, method, saved))
        raise


def _where(args: argparse.Namespace, method: Method, saved: str | None) -> str:
    if saved is not None:
        return f"what was learned is saved in {saved}: apply it with --perturbation {saved}"
    if args.checkpoint is not None:
        return (
            f"what was learned is kept in the checkpoint {args.checkpoint}: run the same command "
            f"again to use it without learning again"
        )
    for place in (tempfile.gettempdir(), Path.cwd(), Path.home()):
        made = None
        try:
            made = tempfile.mkdtemp(prefix="unlearnable-kept-", dir=place)
            method.save_pretrained(made)
        except OSError:
            if made is not None:
                shutil.rmtree(made, ignore_errors=True)
            continue
        return (
            f"what was learned is kept in {made}: move it where you want it, or apply it with "
            f"--perturbation {made}"
        )
    size = readable_size(method.perturbation_.nbytes)
    return (
        f"what was learned is lost, because no other folder has room for its {size} either; pass "
        f"--checkpoint FOLDER next time to keep it"
    )
