"""Does the protection hold? Victims, and what they reach on clean test images."""

from .audit.runner import audit
from .countermeasures import (
    COUNTERMEASURES,
    STANDARD_SET,
    STRONG_SET,
    Countermeasure,
    countermeasure,
)
from .countermeasures.adaptive import adaptive_countermeasures, who_can_undo
from .evaluate import Evaluation, evaluate
from .report.report import AuditReport

__all__ = [
    "COUNTERMEASURES",
    "STANDARD_SET",
    "STRONG_SET",
    "AuditReport",
    "Countermeasure",
    "Evaluation",
    "adaptive_countermeasures",
    "audit",
    "countermeasure",
    "evaluate",
    "who_can_undo",
]
