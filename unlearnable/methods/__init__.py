"""Protection methods, one algorithm a file. A new one is imported and named here."""

from __future__ import annotations

from .base import Method
from .em import EM
from .hypo import HYPO
from .random_noise import RandomNoise
from .rem import REM
from .sem import SEM
from .sep import SEP
from .tap import TAP

__all__ = ["EM", "HYPO", "METHODS", "REM", "SEM", "SEP", "TAP", "Method", "RandomNoise"]

METHODS: tuple[type[Method], ...] = (RandomNoise, EM, REM, SEM, TAP, SEP, HYPO)
