"""Does the protection hold? Victims, and what they reach on clean test images."""

from .audit.runner import audit
from .countermeasures import COUNTERMEASURES, Countermeasure, countermeasure
from .evaluate import Evaluation, evaluate
from .report.report import AuditReport

__all__ = [
    "COUNTERMEASURES",
    "AuditReport",
    "Countermeasure",
    "Evaluation",
    "audit",
    "countermeasure",
    "evaluate",
]
