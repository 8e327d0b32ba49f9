"""What a victim may do to learn from protected images all the same."""

from .base import Countermeasure
from .names import NAMES, countermeasure
from .sets import COUNTERMEASURES, SETS, STANDARD_SET, STRONG_SET

__all__ = [
    "COUNTERMEASURES",
    "NAMES",
    "SETS",
    "STANDARD_SET",
    "STRONG_SET",
    "Countermeasure",
    "countermeasure",
]
