"""Make image datasets unlearnable: methods, artefacts, protected torchvision datasets."""

__version__ = "0.1.0"

from . import datasets
from .change import Change
from .errors import ArtefactError, HubError, NotFittedError, UnknownImageError
from .evaluation import Evaluation, evaluate
from .methods import AR, EM, LSP, METHODS, OPS, REM, SEM, ClassConvolution, Method, RandomNoise
from .perturbation import Perturbation
from .protected import ProtectedDataset

__all__ = [
    "AR",
    "EM",
    "LSP",
    "METHODS",
    "OPS",
    "REM",
    "SEM",
    "ArtefactError",
    "Change",
    "ClassConvolution",
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
