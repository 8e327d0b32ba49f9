"""Make image datasets unlearnable: methods, artefacts, protected torchvision datasets."""

__version__ = "0.1.0"

from . import datasets
from .errors import ArtefactError, HubError, NotFittedError, UnknownImageError
from .evaluation import Evaluation, evaluate
from .methods import EM, HYPO, METHODS, REM, SEM, SEP, TAP, Method, RandomNoise
from .perturbation import Perturbation
from .protected import ProtectedDataset

__all__ = [
    "EM",
    "HYPO",
    "METHODS",
    "REM",
    "SEM",
    "SEP",
    "TAP",
    "ArtefactError",
    "Evaluation",
    "HubError",
    "Method",
    "NotFittedError",
    "Perturbation",
    "ProtectedDataset",
    "RandomNoise",
    "UnknownImageError",
    "datasets",
    "evaluate",
]
