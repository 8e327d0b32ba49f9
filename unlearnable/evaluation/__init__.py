"""Does the protection hold? Victims, and what they reach on clean test images."""

from .countermeasures import COUNTERMEASURES, Countermeasure, countermeasure
from .victim import Evaluation, evaluate

__all__ = ["COUNTERMEASURES", "Countermeasure", "Evaluation", "countermeasure", "evaluate"]
