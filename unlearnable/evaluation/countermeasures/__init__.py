"""What a victim may do to learn from protected images all the same."""

from .base import Countermeasure
from .names import COUNTERMEASURES, NAMES, countermeasure

__all__ = ["COUNTERMEASURES", "NAMES", "Countermeasure", "countermeasure"]
