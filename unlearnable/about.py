"""What a perturbation tells about itself, in words and in a picture."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from .batches import to_pil
from .kinds import Kind
from .pictures import html_image

if TYPE_CHECKING:
    from .perturbation import Perturbation

_SHOWN = 1 << 20  # pixels of an image above which none are shown


def format_epsilon(epsilon: float, norm: str = "Linf") -> str:
    """As the literature writes budgets: ``8/255``, ``0.5/255`` for broken levels, ``1`` for L2."""
    return f"{round(epsilon * 255, 4):g}/255" if norm == "Linf" else f"{epsilon:.4g}"


def info(perturbation: Perturbation) -> dict[str, Any]:
    """As :meth:`Perturbation.info`."""
    config, parts = perturbation.config, perturbation.parts
    source, epsilon, norm = (config[n] for n in ("source", "epsilon", "norm"))
    told = {
        "method": config["method"],
        "granularity": perturbation.granularity,
        "epsilon": None if epsilon is None else format_epsilon(epsilon, norm),
        "norm": norm,
        "rows": len(perturbation),
        "image_shape": config["image_shape"],
        "classes": config["num_classes"],
        "dataset": f"{source['name']} ({source['images']:,} images)",
        "bytes": perturbation.nbytes,
        "digest": perturbation.digest,
        "strength": config.get("strength") or "not measured",
    }
    if perturbation.kind == "additive":
        return told
    del told["rows"]
    told = {"method": told.pop("method"), "kind": perturbation.kind} | told
    if perturbation.kind == "stack":
        told["parts"] = [_extent(part) for part in parts]
    else:
        told["extent"] = parts[0].describe()
    return told


def line(perturbation: Perturbation) -> str:
    """Its ``repr``."""
    shape = "x".join(map(str, perturbation.config["image_shape"]))
    unit = "images" if perturbation.keyed else "classes"
    extent = _extent(perturbation._kind)
    return f"Perturbation({extent}, {len(perturbation):,} {unit} of {shape})"


def page(perturbation: Perturbation) -> str:
    """Its picture and a table, for notebooks."""
    table = "".join(
        f"<tr><th>{html.escape(name)}</th><td>{html.escape(str(value))}</td></tr>"
        for name, value in info(perturbation).items()
    )
    picture = ""
    if np.prod(perturbation.config["image_shape"][1:]) <= _SHOWN:
        picture = html_image(_picture(perturbation._kind), "what it changes, amplified 8 times")
    return f"{picture}<table>{table}</table>"


def _picture(kind: Kind) -> Image.Image:
    canvas = kind.canvas()
    examples = [kind.example(index) for index in range(min(8, len(kind)))]
    shown = kind.apply(np.stack([canvas] * len(examples)), examples).astype(np.int16)
    strip = np.clip(128 + 8 * (shown - canvas), 0, 255).astype(np.uint8)
    picture = to_pil(np.concatenate(list(strip), axis=2))
    scale = max(1, 64 // strip.shape[2])
    size = (picture.width * scale, picture.height * scale)
    return picture.resize(size, Image.Resampling.NEAREST)


def _extent(kind: Kind) -> str:
    """Method, granularity and budget; in place of a budget, what there is."""
    config = kind.config
    extent = kind.describe()
    if config["epsilon"] is not None:
        extent = f"{config['norm']} {format_epsilon(config['epsilon'], config['norm'])}"
    return f"{config['method']}, {config['granularity']}, {extent}"
