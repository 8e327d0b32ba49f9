"""Make image datasets unlearnable: methods, artefacts, protected torchvision datasets."""

import sys
from typing import TYPE_CHECKING

from . import methods
from ._version import __version__
from .data import datasets
from .engine import callbacks
from .engine.lazy import attach
from .errors import ArtefactError, HubError, NotFittedError, UnknownImageError

if TYPE_CHECKING:
    from .data.clusters import clusters
    from .data.huggingface import from_hf
    from .data.items import from_items
    from .engine.pretrained import pretrained_network
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
else:
    # Most of it needs torch, which takes seconds to import: so each name waits for its first use.
    __getattr__, __dir__ = attach(
        __name__,
        {
            "AuditReport": "evaluation.report.report",
            "Distortion": "protected.metrics",
            "Evaluation": "evaluation.evaluate",
            "Perturbation": "perturbation.perturbation",
            "ProtectedDataset": "protected.dataset",
            "Verification": "protected.verify",
            "audit": "evaluation.audit.runner",
            "clusters": "data.clusters",
            "evaluate": "evaluation.evaluate",
            "from_hf": "data.huggingface",
            "from_items": "data.items",
            "import_perturbation": "importers.noise_files",
            "list_pretrained": "hub.catalogue",
            "pretrained_network": "engine.pretrained",
            "verify": "protected.verify",
        }
        | dict.fromkeys(methods.__all__, "methods")
        | dict.fromkeys(("evaluation", "hub", "importers", "io", "perturbation", "protected")),
    )

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
    "clusters",
    "datasets",
    "evaluate",
    "from_hf",
    "from_items",
    "import_perturbation",
    "list_pretrained",
    "pretrained_network",
    "verify",
]
__all__ += methods.__all__
