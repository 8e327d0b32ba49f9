"""What a photographer reads when the copies are written: how they look, and what comes next."""

from __future__ import annotations

import argparse
import math
import shlex
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..photos.plan import Plan
    from ..protected.dataset import ProtectedDataset

_WEAK = 0.6  # share of the photos whose pattern its own network reads, below which it is weak
_COMPARED = 8


def ending(
    args: argparse.Namespace, plan: Plan, protected: ProtectedDataset, values: dict[str, Any]
) -> str:
    """Where copies and key are, how much is changed, and the next commands."""
    out, key, place = map(shlex.quote, (args.out, values["key"], args.dataset))
    lines = [_written(args, values)]
    lines.append(_changed(protected))
    photo = shlex.quote(str(protected.base.samples[0][0]))
    if args.fraction > 0:
        lines.append(f"  Look at it:  unlearnable preview {photo} --perturbation {key}")
    lines.append(
        f"The key is in {values['key']}. Keep it, and do not publish it: whoever has it can take "
        f"the protection off, and you need it to check the copies."
    )
    if (weak := _weak(plan)) is not None:
        lines.append(weak)
    if args.format in ("png", "webp", "jpeg"):
        lines.append(f"  Check the copies:  unlearnable verify {out} {key}")
    from ..photos.words import measurable

    if measurable(plan) and plan.both is None:
        full = " --full-size" if protected.full_size else ""
        audit = f"unlearnable audit {place} --perturbation {key}{full} --quick"
        lines.append(f"  Measure how well it works (takes long):  {audit}")
    for name in ("left of the change", "files"):
        if name in values:
            lines.append(f"{name.capitalize()}: {values[name]}.")
    return "\n".join(lines)


def _written(args: argparse.Namespace, values: dict[str, Any]) -> str:
    count = values["images"]
    copies = "1 copy is" if count == 1 else f"{count:,} copies are"
    share = "" if args.fraction == 1 else f", of which {args.fraction:.0%} are protected"
    names = ", under their own names" if args.format in ("png", "webp", "jpeg") else ""
    return f"{copies} in {args.out}{names}{share}. The originals are as they were."


def _changed(protected: ProtectedDataset) -> str:
    found = protected.change(_COMPARED)
    if not found.linf:
        return "No value of the pixels is changed."
    return (
        f"Of 255 levels, the values of their pixels are changed by {found.mean:.1f} on average, by "
        f"{found.linf} at most."
    )


def _weak(plan: Plan) -> str | None:
    """A warning where the network that was learned does not even read its own patterns."""
    history = plan.method.history_
    accuracy = history[-1].get("accuracy", math.nan) if history else math.nan
    if not accuracy < _WEAK:
        return None
    return (
        f"Little could be learned from so few photos in this time: only {accuracy:.0%} of the "
        f"patterns are told apart, so the protection may be weak. --set visits=100 takes longer "
        f"and may do better."
    )
