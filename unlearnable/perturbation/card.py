"""The card of a perturbation: the ``README.md`` of its repository on the Hub."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..io.markdown import escape, table
from .summary import format_epsilon

_LONGEST = 200  # characters of a name or value
_LIMITS = """\
Protection by such perturbations is empirical: no theorem stands behind it, and it does not make
learning impossible. Known to weaken or undo it:

- training images that were left unprotected: a network learns from those;
- JPEG compression, grayscale and other changes of the images before training;
- purification by diffusion models and autoencoders;
- adversarial training, also of methods made against it if its radius is large;
- fine-tuning a network that was pretrained on other images;
- pairs of clean and protected images, from which the perturbation can be learned. **This
  repository holds the perturbation itself**: whoever can read it can remove it. For a public
  dataset it is a benchmark, not a protection."""


def write_card(
    info: Mapping[str, Any],
    config: Mapping[str, Any],
    repo_id: str,
    *,
    license: str | None = None,
) -> str:
    """Markdown with YAML front matter, of :meth:`Perturbation.info` and the config."""
    source, parts = config["source"], config.get("parts") or [config]
    title = f"{info['method']} for {source['name']}"
    front: dict[str, Any] = {"pretty_name": _printable(title)}
    if license is not None:
        front["license"] = _printable(license)
    front |= {
        "tags": ["unlearnable-examples"],
        "source_datasets": [_printable(source["name"])],
        "task_categories": ["image-classification"],
        "viewer": False,
    }
    what = {
        "method": info["method"],
        "kind": config["kind"],
        "granularity": info["granularity"],
        "budget": f"{info['norm']} {info['epsilon']}" if info["epsilon"] else info.get("extent"),
        "visibility": info.get("visibility"),
        "parts": info.get("parts"),
        "image shape": config["image_shape"],
        "size": f"{info['bytes']:,} bytes",
        "digest": info["digest"],
        "seed": config.get("seed"),
        "versions": config.get("versions"),
    }
    data = {
        "dataset": source["name"],
        "images": f"{source['images']:,}",
        "digest": source.get("digest"),
        "classes": config["num_classes"],
        "class names": config["classes"],
        "resized and cropped to": (config["preprocessing"] or {}).get("fit"),
    }
    rows = ("additive", "sample-wise")
    keyed = rows in [(part["kind"], part["granularity"]) for part in parts]
    found = "its content, whatever the order" if keyed else "its class"
    sections = [
        f"# {_escape(title)}",
        "What is done to each image of a dataset, meant to keep networks that are trained on the "
        "result from doing well on clean images. Made with the Python package `unlearnable`.",
        _table(what),
        *_parameters(parts),
        "## The data it belongs to",
        _table(data),
        f"The images are not in this repository. What belongs to an image is found by {found}.",
        "## Measured strength",
        _strength(config.get("strength")),
        "## Known limits",
        _LIMITS,
        "## How to load it",
        "```python\nimport unlearnable as ue\n\n"
        f"perturbation = ue.Perturbation.from_pretrained({json.dumps(repo_id)})\n"
        "trainset = ue.ProtectedDataset(trainset, perturbation)\n```",
    ]
    return f"---\n{_yaml(front)}---\n\n" + "\n\n".join(sections) + "\n"


def _parameters(parts: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for part in parts:
        yield f"## Parameters of {_escape(part['method'])}" if len(parts) > 1 else "## Parameters"
        shown = dict(part.get("parameters") or {})
        for name, value in shown.items():
            is_budget = name.endswith(("epsilon", "step_size")) and isinstance(value, int | float)
            if is_budget and part["norm"] == "Linf":
                shown[name] = format_epsilon(value)
        yield _table(shown) or "None."


def _strength(strength: Any) -> str:
    if not strength:
        return "Not measured."
    try:
        others = dict(strength)
        clean, protected, seeds = (list(others.pop(n)) for n in ("clean", "protected", "seeds"))
        shown = {
            "test accuracy, trained on clean images": _shares(clean),
            "test accuracy, trained on protected images": _shares(protected),
            "seeds": seeds,
        } | others
    except (KeyError, TypeError, ValueError):
        shown = dict(strength) if isinstance(strength, Mapping) else {"strength": strength}
    return _table(shown)


def _shares(values: list[float]) -> str:
    mean = statistics.fmean(values)
    if len(values) == 1:
        return f"{mean:.1%} (one seed)"
    spread = 100 * statistics.stdev(values)
    return f"{mean:.1%} ± {spread:.1f} (standard deviation over {len(values)} seeds)"


def _table(values: Mapping[str, Any]) -> str:
    known = {name: words(value) for name, value in values.items() if value is not None}
    return table(["", ""], [map(_escape, row) for row in known.items()]) if known else ""


def words(value: Any) -> str:
    """A value of a config as people read it."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {words(own)}" for name, own in value.items())
    if isinstance(value, list):
        return ", ".join(map(words, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _yaml(values: Mapping[str, Any]) -> str:
    """Strings as JSON, which is YAML once they hold nothing that cannot be printed."""
    lines = []
    for name, value in values.items():
        if isinstance(value, list):
            lines += [f"{name}:", *(f"- {json.dumps(item, ensure_ascii=False)}" for item in value)]
        else:
            lines.append(f"{name}: {json.dumps(value, ensure_ascii=False)}")
    return "\n".join(lines) + "\n"


def _printable(text: str) -> str:
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def _escape(text: str) -> str:
    return escape(_printable(text))
