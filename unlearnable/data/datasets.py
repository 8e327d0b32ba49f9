"""Generated datasets: real training behaviour without a download."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..engine.lazy import attach

if TYPE_CHECKING:
    from .shapes import Shapes
else:
    __getattr__, __dir__ = attach(__name__, {"Shapes": "data.shapes"})

__all__ = ["Shapes"]
