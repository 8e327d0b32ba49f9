"""Does the protection hold? Victims, and what they reach on clean test images."""

from .victim import Evaluation, evaluate

__all__ = ["Evaluation", "evaluate"]
