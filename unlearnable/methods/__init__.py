"""Protection methods, one algorithm a file. A new one is imported and named here."""

from __future__ import annotations

from .base import Method
from .em import EM
from .random_noise import RandomNoise
from .rem import REM
from .sem import SEM

__all__ = ["EM", "METHODS", "REM", "SEM", "Method", "RandomNoise"]

METHODS: tuple[type[Method], ...] = (RandomNoise, EM, REM, SEM)
