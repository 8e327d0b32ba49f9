"""Parameters of a method: stored as given, shown, checked, and named sets of them."""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from typing import Any, ClassVar, TypeVar

from torch import nn

from ..engine.models import check_model_name
from ..engine.pgd import NORMS
from ..perturbation.config import GRANULARITIES
from ..perturbation.summary import format_epsilon

Self = TypeVar("Self", bound="Parameters")
_COUNTS = ("steps", "epochs", "samples", "rounds", "restarts", "checkpoints", "batch_size")


class Parameters:
    """What the arguments of ``__init__`` are, for a subclass that only stores them.

    Attributes:
        presets: Parameters by preset name; ``"paper"`` is the defaults.
        granularities: Those that the method is defined for.
    """

    presets: ClassVar[dict[str, dict[str, Any]]] = {"paper": {}}
    granularities: ClassVar[tuple[str, ...]] = GRANULARITIES

    epsilon: float  # not in methods without a budget, nor norm
    norm: str
    granularity: str
    seed: int

    @classmethod
    def preset(cls: type[Self], name: str, **overrides: Any) -> Self:
        """A method with a named set of parameters, some of them replaced.

        Raises:
            ValueError: There is no such preset.
        """
        if name not in cls.presets:
            raise ValueError(
                f"expected a preset of {cls.__name__}, one of {sorted(cls.presets)}, got {name!r}"
            )
        return cls(**(cls.presets[name] | overrides))

    def get_params(self) -> dict[str, Any]:
        """Parameters by name, as they were given."""
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}

    def _json_params(self) -> dict[str, Any]:
        params = self.get_params()
        surrogate = params.get("surrogate")
        if isinstance(surrogate, nn.Module):
            params["surrogate"] = type(surrogate).__qualname__
        return params

    def __repr__(self) -> str:
        parameters = inspect.signature(type(self)).parameters
        changed = [
            f"{name}={_readable(name, value)}"
            for name, value in self.get_params().items()
            if value is not parameters[name].default and value != parameters[name].default
        ]
        return f"{type(self).__name__}({', '.join(changed)})"

    def _validate(self) -> None:
        """Raises ``ValueError`` for parameters out of range; subclasses add their own checks."""
        norm = getattr(self, "norm", NORMS[0])
        if norm not in NORMS:
            raise ValueError(f"expected norm to be one of {list(NORMS)}, got {norm!r}")
        if self.granularity not in GRANULARITIES:
            raise ValueError(
                f"expected granularity to be one of {list(GRANULARITIES)}, got {self.granularity!r}"
            )
        if self.granularity not in self.granularities:
            raise ValueError(
                f'expected granularity "{self.granularities[0]}", the only one that '
                f"{type(self).__name__} is defined for, got {self.granularity!r}"
            )
        defaults = inspect.signature(type(self)).parameters
        for name, value in self.get_params().items():
            if value is None and defaults[name].default is None:
                continue
            if name.endswith("epsilon"):
                check_epsilon(name, value, norm, zero=name != "epsilon")
            elif name.endswith("step_size"):
                if value <= 0:
                    raise ValueError(f"expected {name} > 0, got {value}")
                if norm == "Linf":
                    check_epsilon(name, value, norm, zero=False)
            elif name.endswith(_COUNTS):
                check_whole(name, value, 0 if name.endswith("steps") else 1)
            elif name == "shift" and value is not None:
                check_whole(name, value)
        surrogate = getattr(self, "surrogate", None)
        if surrogate is not None and not isinstance(surrogate, nn.Module):
            check_model_name(surrogate)

    @property
    def _visit(self) -> tuple[int, float] | None:
        """Steps of a visit that goes on from an image's stored row, and their length.

        None where no visit does.
        """
        return None

    def _check_moves(self, shape: Sequence[int] | None = None) -> None:
        """Raises ``ValueError`` where rounding would undo each visit.

        Args:
            shape: Of an image, (C, H, W), which matters to the norm L2; None while it is unknown.
        """
        if self._visit is None:
            return
        spread_over = 1 if shape is None or self.norm == "Linf" else math.prod(shape)
        check_moves(*self._visit, spread_over)


def check_whole(name: str, value: Any, least: int | None = None) -> None:
    """Raises ``ValueError`` unless a parameter is a whole number, and not below ``least``."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not whole or (least is not None and value < least):
        raise ValueError(
            f"expected {name} to be a whole number"
            + ("" if least is None else f" >= {least}")
            + f", got {value}"
        )


def check_moves(steps: int, step_size: float, spread_over: int = 1) -> None:
    """Raises ``ValueError`` for visits that do not reach the next pixel level.

    What is stored between visits is rounded to whole levels, so that a visit which moves it by half
    a level or less moves it never.

    Args:
        steps: Of a visit.
        step_size: Length of each, in [0, 1] units.
        spread_over: Number of values that share an L2 length, each with the root of it; else 1.
    """
    if steps * step_size * 255 > 0.5 * math.sqrt(spread_over) + 1e-6:
        return
    needed, hint = "0.5 / 255", ""
    if spread_over > 1:
        needed = f"for the norm L2 and {spread_over:,} values {0.5 / 255 * spread_over**0.5:.3g}"
        hint = "; pass a longer step_size="
    raise ValueError(
        f"expected steps * step_size above half a pixel level, {needed}, got {steps} * "
        f"{step_size * 255:g} / 255: rows are rounded after each visit and would stay zero{hint}"
    )


def check_epsilon(name: str, value: float, norm: str, *, zero: bool) -> None:
    """Raises ``ValueError`` for a budget out of range.

    That is a negative one, one in levels instead of [0, 1], or less than one level for ``epsilon``,
    which is kept in whole levels.
    """
    if value < 0 or (value == 0 and not zero):
        raise ValueError(f"expected {name} > 0, got {value}")
    if norm == "Linf" and value > 127 / 255:
        hint = f"; in [0, 1] units, did you mean {value:g} / 255?" if value >= 1 else ""
        raise ValueError(f"expected {name} up to 127 / 255, got {value:g}{hint}")
    if norm == "Linf" and name == "epsilon" and math.floor(value * 255 + 1e-6) < 1:
        raise ValueError(
            f"expected {name} of at least 1 / 255, got {value * 255:g} / 255, which 8-bit pixels "
            f"round to nothing"
        )


def check_spread(epsilon: float, usual: float, shape: Sequence[int]) -> None:
    """Raises ``ValueError`` for an L2 budget that spreads to less than half a pixel level.

    Args:
        epsilon: L2 norm of a row in [0, 1] units.
        usual: What the paper has for images of this shape.
        shape: Of an image, (C, H, W).
    """
    least = 0.5 / 255 * math.sqrt(math.prod(shape))
    if epsilon < least:
        raise ValueError(
            f"expected epsilon of at least {least:.3g} for images of "
            f"{'x'.join(map(str, shape))}: it is the L2 norm of all values together, {usual:.3g} "
            f"in the paper, and {epsilon:.3g} would leave most pixels as they are"
        )


def _readable(name: str, value: Any) -> str:
    if isinstance(value, float) and ("epsilon" in name or "step_size" in name):
        levels = format_epsilon(value)
        return levels if float(levels.removesuffix("/255")) / 255 == value else repr(value)
    if isinstance(value, nn.Module):
        return f"<{type(value).__name__}>"
    return repr(value)
