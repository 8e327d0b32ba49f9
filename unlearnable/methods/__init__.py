"""Protection methods, one algorithm a file. A new one is imported and named here."""

from __future__ import annotations

from .aap import AAP as AAP
from .ar import AR as AR
from .aue import AUE as AUE
from .base import Method as Method
from .class_convolution import ClassConvolution as ClassConvolution
from .em import EM as EM
from .hypo import HYPO as HYPO
from .lsp import LSP as LSP
from .ops import OPS as OPS
from .pil_noise import PILNoise as PILNoise
from .random_noise import RandomNoise as RandomNoise
from .rem import REM as REM
from .sem import SEM as SEM
from .sep import SEP as SEP
from .tap import TAP as TAP

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
__all__ = ["METHODS", "Method", *(method.__name__ for method in METHODS)]
