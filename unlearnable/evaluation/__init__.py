"""Does the protection hold? Victims, and what they reach on clean test images."""

from .audit import audit
from .countermeasures import COUNTERMEASURES, Countermeasure, countermeasure
from .report import AuditReport
from .victim import Evaluation, evaluate

__all__ = [
    "COUNTERMEASURES",
    "AuditReport",
    "Countermeasure",
    "Evaluation",
    "audit",
    "countermeasure",
    "evaluate",
]
