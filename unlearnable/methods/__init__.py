"""Protection methods, one algorithm a file. A new one is imported and named twice here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..engine.lazy import attach

# Class -> its module, which is imported when the class is first used.
MODULES = {
    "RandomNoise": "methods.random_noise",
    "EM": "methods.em",
    "REM": "methods.rem",
    "SEM": "methods.sem",
    "TAP": "methods.tap",
    "SEP": "methods.sep",
    "HYPO": "methods.hypo",
    "AUE": "methods.aue",
    "AAP": "methods.aap",
    "MIUE": "methods.miue",
    "PILNoise": "methods.pil_noise",
    "LSP": "methods.lsp",
    "AR": "methods.ar",
    "OPS": "methods.ops",
    "ClassConvolution": "methods.class_convolution",
    "Gratings": "methods.gratings",
    "SmoothFields": "methods.smooth_fields",
    "ColourShift": "methods.colour_shift",
    "DUNE": "methods.dune",
    "Lasting": "methods.lasting",
    "BAIT": "methods.bait",
}

if TYPE_CHECKING:
    from .aap import AAP
    from .ar import AR
    from .aue import AUE
    from .bait import BAIT
    from .base import Method
    from .class_convolution import ClassConvolution
    from .colour_shift import ColourShift
    from .dune import DUNE
    from .em import EM
    from .gratings import Gratings
    from .hypo import HYPO
    from .lasting import Lasting
    from .lsp import LSP
    from .miue import MIUE
    from .ops import OPS
    from .pil_noise import PILNoise
    from .random_noise import RandomNoise
    from .rem import REM
    from .sem import SEM
    from .sep import SEP
    from .smooth_fields import SmoothFields
    from .tap import TAP

    METHODS: tuple[type[Method], ...]
else:
    _find, __dir__ = attach(__name__, {**MODULES, "Method": "methods.base", "METHODS": None})

    def __getattr__(name: str) -> Any:
        return tuple(map(_find, MODULES)) if name == "METHODS" else _find(name)


__all__ = [
    "AAP", "AR", "AUE", "BAIT", "DUNE", "EM", "HYPO", "LSP", "METHODS", "MIUE", "OPS", "REM", "SEM",
    "SEP", "TAP", "ClassConvolution", "ColourShift", "Gratings", "Lasting", "Method", "PILNoise",
    "RandomNoise", "SmoothFields",
]  # fmt: skip
