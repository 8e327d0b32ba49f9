"""Protection methods, one algorithm a file. A new one is imported and named twice here."""

from __future__ import annotations

from .aap import AAP
from .ar import AR
from .aue import AUE
from .base import Method
from .class_convolution import ClassConvolution
from .em import EM
from .hypo import HYPO
from .lsp import LSP
from .ops import OPS
from .pil_noise import PILNoise
from .random_noise import RandomNoise
from .rem import REM
from .sem import SEM
from .sep import SEP
from .tap import TAP

METHODS: tuple[type[Method], ...] = (
    RandomNoise,
    EM,
    REM,
    SEM,
    TAP,
    SEP,
    HYPO,
    AUE,
    AAP,
    PILNoise,
    LSP,
    AR,
    OPS,
    ClassConvolution,
)
__all__ = [
    "AAP", "AR", "AUE", "EM", "HYPO", "LSP", "METHODS", "OPS", "REM", "SEM", "SEP", "TAP",
    "ClassConvolution", "Method", "PILNoise", "RandomNoise",
]  # fmt: skip
