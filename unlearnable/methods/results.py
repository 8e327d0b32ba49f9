"""What a fit's algorithm handed over, in integers; refused unless it is what was promised."""

from __future__ import annotations

from torch import Tensor

from ..perturbation.quantize import Result, encode
from .fit_session import FitSession
from .parameters import Parameters


def result_of(method: Parameters, session: FitSession) -> Result:
    """What ``_learn`` wrote to ``run.rows`` or passed to ``run.result``.

    Raises:
        RuntimeError: It does not match the method's kind.
    """
    results = session.run.results
    kind = "class-wise" if method._lowest == "additive" else method._lowest
    if list(results) != ([] if method._has_rows else [kind]):
        expected = "run.rows[index] only" if method._has_rows else f"run.result({kind!r}, ...)"
        raise RuntimeError(
            f"expected {type(method).__name__}._learn to return its result through {expected}, "
            f"got {' and '.join(f'run.result({name!r}, ...)' for name in results) or 'none'}"
        )
    if method._has_rows:
        return Result("additive", {"rows": session.levels()}, {})
    if kind == "class-wise":
        _check_rows_of_classes(method, session)
    return encode(kind, results[kind], *session.budget)


def _check_rows_of_classes(method: Parameters, session: FitSession) -> None:
    images = session.images
    expected = (images.num_classes, *images.images.shape[1:])
    parts = session.run.results["class-wise"]
    rows = parts.get("rows")
    sound = isinstance(rows, Tensor) and rows.is_floating_point() and tuple(rows.shape) == expected
    if not sound or len(parts) > 1:
        got = ", ".join(f"{n}={_described(value)}" for n, value in parts.items()) or "nothing"
        raise RuntimeError(
            f"expected {type(method).__name__}._learn to pass rows, a float tensor of shape "
            f"{expected} in [0, 1] units, to run.result('class-wise', …), got {got}"
        )


def _described(value: object) -> str:
    if isinstance(value, Tensor):
        return f"a {str(value.dtype).removeprefix('torch.')} tensor of shape {tuple(value.shape)}"
    return f"a {type(value).__name__}"


def on_top_of(method: Parameters, session: FitSession) -> list[Result]:
    """What ``_learn`` passed to ``run.on_top``, each with its own budget.

    Raises:
        RuntimeError: There is none although the method's kind is ``"stack"``, or there is one
            although it is not.
    """
    tops = session.run.tops
    if bool(tops) != (method.kind == "stack"):
        expected = "run.on_top(...) as well" if method.kind == "stack" else "no run.on_top(...)"
        raise RuntimeError(
            f"expected {expected} in {type(method).__name__}._learn, because its kind is "
            f"{method.kind!r}, got {' and '.join(top.kind for top in tops) or 'none'}"
        )
    found = []
    for kind, parts, epsilon, own in tops:
        norm = None if epsilon is None else own
        found.append(encode(kind, parts, epsilon, norm)._replace(budget=(epsilon, norm)))
    return found
