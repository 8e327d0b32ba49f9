"""Make image datasets unlearnable: methods, artefacts, protected torchvision datasets."""

__version__ = "0.1.0"

from . import datasets
from .catalogue import list_pretrained
from .change import Change
from .errors import ArtefactError, HubError, NotFittedError, UnknownImageError
from .evaluation import AuditReport, Evaluation, audit, evaluate
from .hf import from_hf
from .importers import import_perturbation
from .methods import (
    AAP,
    AR,
    AUE,
    EM,
    HYPO,
    LSP,
    METHODS,
    OPS,
    REM,
    SEM,
    SEP,
    TAP,
    ClassConvolution,
    Method,
    PILNoise,
    RandomNoise,
)
from .perturbation import Perturbation
from .protected import ProtectedDataset
from .verify import Verification, verify

__all__ = [
    "AAP",
    "AR",
    "AUE",
    "EM",
    "HYPO",
    "LSP",
    "METHODS",
    "OPS",
    "REM",
    "SEM",
    "SEP",
    "TAP",
    "ArtefactError",
    "AuditReport",
    "Change",
    "ClassConvolution",
    "Evaluation",
    "HubError",
    "Method",
    "NotFittedError",
    "PILNoise",
    "Perturbation",
    "ProtectedDataset",
    "RandomNoise",
    "UnknownImageError",
    "Verification",
    "audit",
    "datasets",
    "evaluate",
    "from_hf",
    "import_perturbation",
    "list_pretrained",
    "verify",
]
