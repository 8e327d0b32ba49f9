"""What can be given to ``fit(callback=…)`` beside any function of a record."""

from __future__ import annotations

from pathlib import Path
from typing import Any


class TensorBoard:
    """Writes every record of a fit for TensorBoard. Needs the extra ``tensorboard``.

    Args:
        folder: Folder for the event files.

    Raises:
        ImportError: TensorBoard is not installed.
    """

    def __init__(self, folder: str | Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ImportError(
                "expected TensorBoard to be installed; install it with: pip install "
                "'unlearnable[tensorboard]'"
            ) from error
        self._writer = SummaryWriter(str(folder))
        self._records = 0

    def __call__(self, record: dict[str, Any]) -> None:
        """Writes the record's values at its ``step``, or at its number if it has none."""
        step = int(record.get("step", self._records))
        for name, value in record.items():
            if name != "step":
                self._writer.add_scalar(name, value, step)
        self._writer.flush()
        self._records += 1
