"""Keyword arguments that a class does not have, answered in the name of the user's own class."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterable
from typing import Any, TypeVar

from ..engine.names import meant

Self = TypeVar("Self", bound="Keywords")
# What other programs call a parameter. Letters alone would mislead: "steps" holds "eps".
_ELSEWHERE = {
    "eps": "epsilon", "radius": "epsilon", "budget": "epsilon", "eps_step": "step_size",
    "alpha": "step_size", "lr": "step_size", "num_steps": "steps", "n_steps": "steps",
    "iters": "steps", "num_iter": "steps", "max_iter": "steps", "p": "norm",
    "random_state": "seed", "bs": "batch_size", "model": "surrogate", "source": "surrogate",
    "net": "surrogate", "perturb_type": "granularity", "type": "granularity",
    "atk_radius": "robust_epsilon", "atk_steps": "robust_steps", "samp_num": "eot_samples",
    "epochs": "train_epochs", "eot": "augment", "transforms": "augment",
}  # fmt: skip
_OF_FIT = ("device", "precision", "image_size", "checkpoint", "store", "progress", "callback")


class _Signature:
    """``inspect.signature`` of a class is that of its ``__init__``, not of ``Keywords.__new__``."""

    def __get__(self, instance: object, owner: type) -> inspect.Signature:
        whole = inspect.signature(owner.__init__)  # type: ignore[misc]
        _, *parameters = whole.parameters.values()
        return whole.replace(parameters=parameters, return_annotation=inspect.Signature.empty)


class Keywords:
    """A base class that refuses unknown keyword arguments and suggests the nearest known one."""

    __signature__ = _Signature()

    def __new__(cls: type[Self], *args: Any, **params: Any) -> Self:
        """Checks the names of keyword arguments before ``__init__``."""
        _refuse_undeclared(cls)
        known = inspect.signature(cls).parameters
        if any(p.kind is p.VAR_KEYWORD for p in known.values()):
            return super().__new__(cls)
        for name in params:
            if name not in known:
                raise TypeError(unknown_parameter(cls.__name__, name, known))
        return super().__new__(cls)


def _refuse_undeclared(cls: type) -> None:
    """Refuses attributes that would be parameters if their class were a dataclass."""
    for owner in cls.__mro__:
        if {"__dataclass_fields__", "__init__"} & set(vars(owner)):
            continue
        with contextlib.suppress(NameError):  # of a type that only type checkers import
            for name, kind in inspect.get_annotations(owner).items():
                if name in vars(owner) and "ClassVar" not in str(kind):
                    raise TypeError(
                        f"expected @dataclass(kw_only=True) above class {owner.__name__}, without "
                        f"which {name} is not one of its parameters; or give the class an __init__ "
                        f"that stores them, or annotate {name} as ClassVar"
                    )


def unknown_parameter(owner: str, name: str, known: Iterable[str]) -> str:
    """The error message for an unknown parameter, with the nearest known one."""
    known = list(known)
    if name in _OF_FIT:
        return f"{owner} has no parameter {name!r}; pass it to fit: fit(…, {name}=…)"
    near = near_parameter(name, known)
    return f"{owner} has no parameter {name!r}{near} (it has {', '.join(known)})"


def near_parameter(name: str, known: Iterable[str]) -> str:
    """The end of an error message that suggests the nearest known parameter."""
    known = list(known)
    elsewhere = _ELSEWHERE.get(name.lower())
    near = elsewhere if elsewhere in known else meant(name, known)
    return "" if near is None else f"; did you mean {near!r}?"
