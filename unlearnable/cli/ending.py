"""What a photographer reads when the copies are written: how they look, and what comes next."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..data.export_marker import export_at
from ..hub.catalogue import computed
from .terminal import quoted

if TYPE_CHECKING:
    from ..photos.plan import Plan
    from ..protected.dataset import ProtectedDataset


def ending(
    args: argparse.Namespace,
    protected: ProtectedDataset,
    values: dict[str, Any],
    compared: int,
    plan: Plan | None = None,
) -> str:
    """Says where the copies and the key are, how much changed, and which commands to run next.

    Args:
        args: The command's arguments.
        protected: The exported dataset.
        values: Facts about the export; ``key`` is the folder of the key.
        compared: Number of photos whose change the export measured, so that none is read again.
        plan: The plan, if the perturbation was learned by this command.
    """
    from ..photos.words import measurable, weak

    out, key, place = map(quoted, (args.out, values["key"], args.dataset))
    lines = [_written(args, out, values["images"]), _changed(protected, compared)]
    if (kept := _kept(Path(args.out))) is not None:
        lines.append(kept)
    photo = quoted(str(protected.base.samples[0][0]))
    if args.fraction > 0:
        lines.append(f"  See the change:  unlearnable preview {photo} --perturbation {key}")
    if plan is not None:
        lines.append(
            f"The key is in {key}. Keep it, and do not publish it: anyone who has it can remove "
            f"the protection, and you need it to check the copies."
        )
    if plan is not None and (warning := weak(plan)) is not None:
        lines.append(f"{warning}; --set visits=100 takes longer and may also help.")
    if args.format in ("png", "webp", "jpeg"):
        uncached = computed(values["key"]) is not None
        originals = f" --originals {place}" if uncached else ""
        lines.append(f"  Check the copies:  unlearnable verify {out} {key}{originals}")
    if plan is not None and measurable(plan) and plan.both is None:
        full = " --full-size" if protected.full_size else ""
        audit = f"unlearnable audit {place} --perturbation {key}{full} --quick"
        lines.append(f"  Measure how well it works (takes long):  {audit}")
    return "\n".join(lines)


def _written(args: argparse.Namespace, out: str, count: int) -> str:
    copies = "1 copy is" if count == 1 else f"{count:,} copies are"
    share = "" if args.fraction == 1 else f", {args.fraction:.0%} of them protected"
    whose = "the photo's own name" if count == 1 else "the photos' own names"
    names = f", under {whose}" if args.format in ("png", "webp", "jpeg") else ""
    return f"{copies} in {out}{names}{share}. The originals are unchanged."


def _changed(protected: ProtectedDataset, compared: int) -> str:
    found = protected.change(compared)
    few = len(protected) > compared
    where = f"In the {compared} photos compared, " if few else ""
    if not found.linf:
        return f"{where}{'no' if few else 'No'} pixel changed."
    return (
        f"{where}{'pixels' if few else 'Pixels'} changed by {found.mean:.1f} of 255 brightness "
        f"levels on average, and by {found.linf} at most."
    )


def _kept(folder: Path) -> str | None:
    """What a lossy format has left of the change, and how large it is."""
    found = (export_at(folder) or {}).get("lossy")
    if found is None or found["share_left"] is None:
        return None
    quality = found["quality"]
    which = "the photos' own quality" if quality == "original" else f"quality {quality}"
    text = f"{found['format'].upper()} at {which} keeps {found['share_left']:.0%} of the change"
    if found["size"] is not None:
        text += f"; the files are {found['size']:.2f} times as large as the photos"
    return f"{text}."
