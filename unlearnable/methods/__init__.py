"""Protection methods, one algorithm a file. A new one is imported and named here."""

from __future__ import annotations

from .ar import AR
from .base import Method
from .class_convolution import ClassConvolution
from .em import EM
from .lsp import LSP
from .ops import OPS
from .random_noise import RandomNoise
from .rem import REM
from .sem import SEM

__all__ = [
    "AR",
    "EM",
    "LSP",
    "METHODS",
    "OPS",
    "REM",
    "SEM",
    "ClassConvolution",
    "Method",
    "RandomNoise",
]

METHODS: tuple[type[Method], ...] = (RandomNoise, EM, REM, SEM, LSP, AR, OPS, ClassConvolution)
