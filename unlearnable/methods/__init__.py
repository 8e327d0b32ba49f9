"""Protection methods, one algorithm a file. A new one is imported and named here."""

from __future__ import annotations

from .aap import AAP
from .aue import AUE
from .base import Method
from .em import EM
from .pil_noise import PILNoise
from .random_noise import RandomNoise
from .rem import REM
from .sem import SEM

__all__ = ["AAP", "AUE", "EM", "METHODS", "REM", "SEM", "Method", "PILNoise", "RandomNoise"]

METHODS: tuple[type[Method], ...] = (RandomNoise, EM, REM, SEM, PILNoise, AUE, AAP)
