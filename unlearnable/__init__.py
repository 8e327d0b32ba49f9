"""Make image datasets unlearnable: methods, artefacts, protected torchvision datasets."""

import sys

from . import methods
from ._version import __version__
from .data import shapes as datasets
from .data.huggingface import from_hf
from .engine import callbacks
from .errors import ArtefactError, HubError, NotFittedError, UnknownImageError
from .evaluation.audit.runner import audit
from .evaluation.evaluate import Evaluation, evaluate
from .evaluation.report.report import AuditReport
from .hub.catalogue import list_pretrained
from .importers.noise_files import import_perturbation
from .methods import *
from .perturbation.perturbation import Perturbation
from .protected.dataset import ProtectedDataset
from .protected.metrics import Distortion
from .protected.verify import Verification, verify

# What users import from: ``from unlearnable.datasets import Shapes``.
sys.modules[f"{__name__}.datasets"] = datasets
sys.modules[f"{__name__}.callbacks"] = callbacks

__all__ = [
    "ArtefactError",
    "AuditReport",
    "Distortion",
    "Evaluation",
    "HubError",
    "NotFittedError",
    "Perturbation",
    "ProtectedDataset",
    "UnknownImageError",
    "Verification",
    "__version__",
    "audit",
    "callbacks",
    "datasets",
    "evaluate",
    "from_hf",
    "import_perturbation",
    "list_pretrained",
    "verify",
]
__all__ += methods.__all__
