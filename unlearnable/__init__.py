"""Make image datasets unlearnable: methods, artefacts, protected torchvision datasets."""

__version__ = "0.1.0"

from . import datasets
from .errors import ArtefactError, HubError, NotFittedError, UnknownImageError
from .evaluation import Evaluation, evaluate
from .methods import AAP, AUE, EM, METHODS, REM, SEM, Method, PILNoise, RandomNoise
from .perturbation import Perturbation
from .protected import ProtectedDataset

__all__ = [
    "AAP",
    "AUE",
    "EM",
    "METHODS",
    "REM",
    "SEM",
    "ArtefactError",
    "Evaluation",
    "HubError",
    "Method",
    "NotFittedError",
    "PILNoise",
    "Perturbation",
    "ProtectedDataset",
    "RandomNoise",
    "UnknownImageError",
    "datasets",
    "evaluate",
]
