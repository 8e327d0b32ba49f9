"""A perturbation in words and in a picture."""

from __future__ import annotations

import html
from typing import Any

import numpy as np
from PIL import Image

from ..data.image import to_pil
from ..io.png import html_image
from .kinds.base import Kind
from .kinds.stack import parts_of

_SHOWN = 1 << 20  # pixels of an image above which none are shown


def format_epsilon(epsilon: float, norm: str = "Linf") -> str:
    """Formats a budget: ``8/255``, ``0.5/255`` below one level, ``1`` for L2."""
    return f"{round(epsilon * 255, 4):g}/255" if norm == "Linf" else f"{epsilon:.4g}"


def info(kind: Kind, digest: str) -> dict[str, Any]:
    """See :meth:`Perturbation.info`; from the kind and its digest."""
    config = kind.config
    source, epsilon, norm = (config[n] for n in ("source", "epsilon", "norm"))
    additive = kind.name == "additive"
    summary = {
        "method": config["method"],
        **({} if additive else {"kind": kind.name}),
        "granularity": config["granularity"],
        "epsilon": None if epsilon is None else format_epsilon(epsilon, norm),
        "norm": norm,
        **({} if kind.mask is None else {"visibility": str(kind.mask)}),
        **({"rows": len(kind)} if additive else {}),
        "image_shape": config["image_shape"],
        "classes": config["num_classes"],
        "dataset": f"{source['name']} ({source['images']:,} images)",
        "bytes": kind.nbytes,
        "digest": digest,
        "strength": config.get("strength") or "not measured",
    }
    if kind.name == "stack":
        summary["parts"] = [_extent(part) for part in parts_of(kind)]
    elif not additive:
        summary["extent"] = kind.describe()
    return summary


def line(kind: Kind) -> str:
    """The ``repr`` of a perturbation."""
    shape = "x".join(map(str, kind.shape))
    unit = "images" if kind.keyed else "classes"
    return f"Perturbation({_extent(kind)}, {len(kind):,} {unit} of {shape})"


def page(kind: Kind, digest: str) -> str:
    """HTML for notebooks: a picture of the change and a table."""
    table = "".join(
        f"<tr><th>{html.escape(name)}</th><td>{html.escape(str(value))}</td></tr>"
        for name, value in info(kind, digest).items()
    )
    picture = ""
    if np.prod(kind.shape[1:]) <= _SHOWN:
        picture = html_image(_picture(kind), "the change, amplified 8 times")
    return f"{picture}<table>{table}</table>"


def _picture(kind: Kind) -> Image.Image:
    canvas = kind.canvas()
    examples = [kind.example(index) for index in range(min(8, len(kind)))]
    shown = kind.apply(np.stack([canvas] * len(examples)), examples).astype(np.int16)
    strip = np.clip(128 + 8 * (shown - canvas), 0, 255).astype(np.uint8)
    scale = max(1, 64 // strip.shape[2])
    return to_pil(np.concatenate(list(strip), axis=2).repeat(scale, 1).repeat(scale, 2))


def _extent(kind: Kind) -> str:
    """Method, granularity and budget; without a budget, the kind's extent."""
    config = kind.config
    extent = kind.describe()
    if config["epsilon"] is not None:
        extent = f"{config['norm']} {format_epsilon(config['epsilon'], config['norm'])}"
    if kind.mask is not None:
        extent += f", visibility {kind.mask.level}"
    return f"{config['method']}, {config['granularity']}, {extent}"
