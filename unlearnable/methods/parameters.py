"""Parameters of a method: declared with their checks, shown, copied, and named sets of them."""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar, TypeVar

import numpy as np
from torch import Tensor, nn

from ..engine import NORMS
from ..engine.models import LITE0, torchvision_name
from ..engine.names import suggestion
from ..engine.numbers import integer
from ..perturbation import GRANULARITIES
from ..perturbation.summary import format_epsilon
from .keywords import Keywords, near_parameter
from .parameter_checks import (
    check_choice,
    check_epsilon,
    check_flag,
    check_range,
    check_surrogate,
    check_unit,
)

Self = TypeVar("Self", bound="Parameters")
Check = Callable[[str, Any, str], Any]
"""Takes name, value and the method's norm; returns the value as a plain Python one or raises."""


def checked(default: Any, check: Check, *, optional: bool = False) -> Any:
    """A parameter with a check; None is accepted if it is the default, or with ``optional``."""
    metadata = {"check": check, "optional": optional}
    if isinstance(default, dict):  # each method has its own
        return dataclasses.field(default_factory=lambda: dict(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def budget(default: float) -> Any:
    """A radius in [0, 1] units, which may be 0."""
    return checked(default, partial(check_epsilon, zero=True))


def length(default: float | None) -> Any:
    """The length of a step in [0, 1] units, above 0."""
    return checked(
        default, lambda name, value, norm: check_unit(name, check_range(name, value), norm)
    )


def count(default: int | None, *, least: int = 1) -> Any:
    """An integer of at least ``least``."""
    return checked(default, lambda name, value, norm: integer(name, value, least=least))


def any_integer(default: int | None, *, optional: bool = False) -> Any:
    """Any integer, also negative."""
    return checked(default, lambda name, value, norm: integer(name, value), optional=optional)


def proportion(default: float) -> Any:
    """A number from 0 to 1."""
    return checked(default, lambda name, value, norm: check_range(name, value, 0, 1))


def positive(default: float, *, most: float = math.inf) -> Any:
    """A number above 0 and up to ``most``."""
    return checked(default, lambda name, value, norm: check_range(name, value, most=most))


def zero_or_more(default: float) -> Any:
    """A number of at least 0."""
    return checked(default, lambda name, value, norm: check_range(name, value, 0))


def choice(default: str, choices: Sequence[str]) -> Any:
    """One of several words."""
    return checked(default, lambda name, value, norm: check_choice(name, value, choices))


def flag(default: bool) -> Any:
    """True or False."""
    return checked(default, check_flag)


class Parameters(Keywords):
    """A method's parameters: the fields of a keyword-only dataclass.

    A field's default defines how it is checked: ``steps: int = count(10)``. The parameters that
    this class itself reads (``surrogate``, ``epsilon``, ``norm``, ``granularity``,
    ``pretrained_surrogate``, ``batch_size`` and ``seed``) have the same meaning in every method and
    are always checked. A class with its own ``__init__`` that only stores its arguments works, too.

    Attributes:
        presets: Parameters by preset name; ``"paper"`` stands for the defaults.
        granularities: The granularities that the method supports.
        masked: Whether rows can be learned under a visibility mask, or do not depend on images.
        later: Parameters that are not recorded at their defaults, so that what was fitted before
            there were any keeps its bytes and digest.
    """

    presets: ClassVar[dict[str, dict[str, Any]]] = {"paper": {}}
    granularities: ClassVar[tuple[str, ...]] = GRANULARITIES
    kind: ClassVar[str] = "additive"
    below: ClassVar[str] = "additive"
    seeded: ClassVar[bool] = True
    least_classes: ClassVar[int] = 2  # that images have to be of
    masked: ClassVar[bool] = False
    later: ClassVar[tuple[str, ...]] = ()

    surrogate: str | nn.Module  # not in methods without one
    epsilon: float | None  # not in methods without a budget, nor norm
    norm: str
    granularity: str
    batch_size: int
    seed: int

    def __post_init__(self) -> None:
        for name, value in self.get_params().items():
            setattr(self, name, value)

    @classmethod
    def preset(cls: type[Self], name: str, **overrides: Any) -> Self:
        """Creates a method with a named set of parameters, some of which may be overridden.

        Raises:
            ValueError: The preset does not exist.
        """
        if name not in cls.presets:
            raise ValueError(
                f"expected a preset of {cls.__name__}, one of {sorted(cls.presets)}, got {name!r}"
                f"{suggestion(name, cls.presets)}"
            )
        return cls(**(cls.presets[name] | overrides))

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Parameters by name; NumPy and torch numbers become Python numbers.

        Args:
            deep: Has no effect, because no parameter has parameters itself.
        """
        return {name: _plain(getattr(self, name)) for name in self._defaults()}

    def set_params(self: Self, **params: Any) -> Self:
        """Replaces parameters by name; fitted results are kept until the next fit.

        Raises:
            ValueError: The parameter does not exist.
        """
        known = list(self.get_params())
        for name in params:
            if name not in known:
                raise ValueError(
                    f"expected parameters of {type(self).__name__}, {', '.join(known)}, got "
                    f"{name!r}{near_parameter(name, known)}"
                )
        for name, value in params.items():
            setattr(self, name, _plain(value))
        return self

    def passes(self, num_images: int) -> int | None:
        """Image passes (through the surrogate, forward and backward) of a fit; None if unknown."""
        return None

    @property
    def _identity(self) -> dict[str, Any]:
        """Name and parameters as they are written to JSON, a module by its class."""
        params = self.get_params()
        if isinstance(surrogate := params.get("surrogate"), nn.Module):
            params["surrogate"] = type(surrogate).__qualname__
        defaults = self._defaults()
        for name in self.later:
            if not params[name] or params[name] == defaults[name]:
                del params[name]
        return {"method": type(self).__name__, "parameters": params}

    @property
    def _has_rows(self) -> bool:
        """Whether it writes ``run.rows``: a row for each image."""
        return self._lowest == "additive" and self.granularity == "sample-wise"

    @property
    def _lowest(self) -> str:
        """Kind of what lies below everything that ``_learn`` passes to ``run.on_top``."""
        return self.below if self.kind == "stack" else self.kind

    def __repr__(self) -> str:
        defaults = self._defaults()
        changed = [
            f"{name}={_readable(name, value)}"
            for name, value in self.get_params().items()
            if value is not defaults[name] and value != defaults[name]
        ]
        return f"{type(self).__name__}({', '.join(changed)})"

    @classmethod
    def _defaults(cls) -> dict[str, Any]:
        declared: dict[str, Any] = getattr(cls, "__dataclass_fields__", {})
        made = {
            name: field.default_factory()
            for name, field in declared.items()
            if field.default_factory is not dataclasses.MISSING
        }
        return {
            name: made.get(name, parameter.default)
            for name, parameter in inspect.signature(cls).parameters.items()
            if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        }

    def _validate(self) -> None:
        """Makes every number a Python one; raises ``ValueError`` for parameters out of range.

        Subclasses add checks of several parameters together after ``super()._validate()``.
        """
        needed = {"granularity": self.granularities[0], "seed": 0}
        if missing := [f"{name}={needed[name]!r}" for name in needed if not hasattr(self, name)]:
            raise TypeError(
                f"expected {type(self).__name__} to have the parameters {' and '.join(needed)}, as "
                f"every method does; declare {' and '.join(missing)}"
            )
        norm = check_choice("norm", getattr(self, "norm", NORMS[0]), NORMS)
        declared: dict[str, Any] = getattr(self, "__dataclass_fields__", {})
        parameters = inspect.signature(type(self)).parameters
        for name, value in self.get_params().items():
            metadata = declared[name].metadata if name in declared else {}
            check: Check | None = metadata.get("check", _SHARED.get(name))
            optional = parameters[name].default is None or metadata.get("optional")
            if check is not None and not (value is None and optional):
                value = check(name, value, norm)
            setattr(self, name, value)
        if self.granularity not in self.granularities:
            raise ValueError(
                f'expected granularity "{self.granularities[0]}", the only one that '
                f"{type(self).__name__} is defined for, got {self.granularity!r}"
            )
        surrogate = getattr(self, "surrogate", None)
        keep = isinstance(surrogate, str) and getattr(self, "pretrained_surrogate", False)
        if keep and surrogate != LITE0 and torchvision_name(surrogate) is None:
            raise ValueError(
                f"expected a module as the surrogate with pretrained_surrogate=True, or a network "
                f"with pretrained weights ({LITE0}, or one of torchvision's), got {surrogate!r}, "
                f"which has none"
            )

    @property
    def _visit(self) -> tuple[int, float] | None:
        """Steps of a visit that continues from an image's stored row, and their length.

        None where no visit does.
        """
        return None

    _visit_step: ClassVar[str] = "step_size"  # name of the parameter with their length

    def _budget(self, shape: Sequence[int]) -> tuple[float | None, str | None]:
        """Epsilon and norm that the result keeps, refused where images (C, H, W) undo them."""
        epsilon = getattr(self, "epsilon", None)
        if epsilon is None and self._has_rows:
            raise TypeError(
                f"expected {type(self).__name__} to have the parameter epsilon, within which rows "
                f"of images are kept; declare it with a default, such as epsilon=8 / 255"
            )
        return epsilon, getattr(self, "norm", None if epsilon is None else NORMS[0])

    def _check_moves(self, shape: Sequence[int] | None = None) -> None:
        """Raises ``ValueError`` for visits that do not reach the next pixel level.

        What is stored between visits is rounded to integer levels, so that a visit which moves it
        by half a level or less never moves it. The values of an image of ``shape`` (C, H, W), where
        it is known, share the length of an L2 step.
        """
        if self._visit is None:
            return
        steps, step_size = self._visit
        values = 1 if shape is None or self.norm == "Linf" else math.prod(shape)
        if steps * step_size * 255 > 0.5 * math.sqrt(values) + 1e-6:
            return
        needed, hint = "0.5 / 255", ""
        if values > 1:
            needed = f"{0.5 / 255 * math.sqrt(values):.3g} for the norm L2 and {values:,} values"
            hint = f"; pass a larger {self._visit_step}="
        raise ValueError(
            f"expected steps * step_size above half a pixel level, {needed}, got {steps} * "
            f"{step_size * 255:g} / 255: rows are rounded after each visit and would stay "
            f"zero{hint}"
        )


class Untrained:
    """A base class, before ``Method``, for methods that train nothing; their presets are equal."""

    presets: ClassVar[dict[str, dict[str, Any]]] = {"paper": {}, "fast": {}, "demo": {}}
    least_classes: ClassVar[int] = 1

    def passes(self, num_images: int) -> int:
        """See :meth:`Parameters.passes`."""
        return 0


_SHARED: dict[str, Check] = {
    "surrogate": check_surrogate,
    "epsilon": partial(check_epsilon, zero=False),
    "granularity": lambda name, value, norm: check_choice(name, value, GRANULARITIES),
    "pretrained_surrogate": check_flag,
    "batch_size": lambda name, value, norm: integer(name, value, least=1),
    "seed": lambda name, value, norm: integer(name, value),
}


def _plain(value: Any) -> Any:
    """A number of numpy or torch as a Python one; anything else as it is."""
    scalar = isinstance(value, (np.generic, np.ndarray, Tensor)) and value.ndim == 0
    return value.item() if scalar else value


def _readable(name: str, value: Any) -> str:
    if isinstance(value, float) and ("epsilon" in name or "step_size" in name):
        levels = format_epsilon(value)
        return levels if float(levels.removesuffix("/255")) / 255 == value else repr(value)
    if isinstance(value, nn.Module):
        return f"<{type(value).__name__}>"
    return repr(value)
