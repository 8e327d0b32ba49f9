"""The card of a perturbation: the ``README.md`` of its repository on the Hub."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..io.markdown import escape, printable, table
from .front_matter import metadata, viewed, with_front_matter
from .papers import papers_of
from .preview import GAIN, PREVIEW, Preview
from .summary import format_epsilon

KNOWN_LIMITS = """\
Protection by such perturbations is empirical: it is not backed by a proof and does not make
learning impossible. The following are known to weaken or undo it:

- training images that were left unprotected, because a network can learn from those;
- JPEG compression, conversion to grey and other changes of the images before training;
- purification by diffusion models and autoencoders;
- adversarial training, with a large radius even for methods designed to resist it;
- fine-tuning a network that was pretrained on other images;
- pairs of clean and protected images, from which the perturbation can be learned."""
_OWN_LIMIT = """\
**This repository contains the perturbation itself**: anyone who can read it can remove it. For a
public dataset it is a benchmark, not a protection."""


def write_card(
    info: Mapping[str, Any],
    config: Mapping[str, Any],
    repo_id: str,
    *,
    license: str | None = None,
    preview: Preview | None = None,
) -> str:
    """Markdown with YAML front matter, from :meth:`Perturbation.info` and the config."""
    source, parts = config["source"], config.get("parts") or [config]
    fitted = [part for part in parts if not part.get("on_top")]
    methods = [part["method"] for part in fitted]
    title = f"{info['method']} for {source['name']}"
    per_image = config["granularity"] == "sample-wise"
    rows = source["images"] if per_image else config["num_classes"]
    imported = [part["imported"] for part in fitted if part.get("imported")]
    made = "Imported" if imported else "Made"
    whose = " from a file that other code wrote" if imported else ""
    front = metadata(title, methods, rows, license=license)
    front["source_datasets"] = [printable(source["name"])]
    if preview is None:
        front["viewer"] = False
    else:
        features = [
            {"name": "perturbation", "dtype": "image"},
            {"name": "class", "dtype": "string"},
        ]
        front |= viewed(
            "preview",
            PREVIEW,
            features,
            preview.rows,
            num_bytes=preview.num_bytes,
            download_size=len(preview.content),
        )
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
        "imported": imported or None,
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
    by_key = ("additive", "sample-wise")
    keyed = by_key in [(part["kind"], part["granularity"]) for part in parts]
    found = "the image's content, regardless of order" if keyed else "the image's class"
    sections = [
        f"# {escaped(title)}",
        f"A perturbation for each {'image' if per_image else 'class'} of a dataset, meant to keep "
        f"networks trained on the perturbed images from doing well on clean ones. {made} with the "
        f"Python package `unlearnable`{whose}.",
        fact_table(what),
        *_parameters(fitted),
        *_preview_section(preview, parts),
        "## The dataset it belongs to",
        fact_table(data),
        f"The images are not in this repository. An image's perturbation is found by {found}.",
        "## Measured strength",
        measured(config.get("strength")),
        "## Known limits",
        KNOWN_LIMITS,
        _OWN_LIMIT,
        "## How to load it",
        "```python\nimport unlearnable as ue\n\n"
        f"perturbation = ue.Perturbation.from_pretrained({json.dumps(repo_id)})\n"
        "trainset = ue.ProtectedDataset(trainset, perturbation)\n```",
        *citation(methods),
    ]
    return with_front_matter(front, sections)


def citation(methods: Sequence[str]) -> Iterator[str]:
    """The section that cites the methods' papers, if they are known."""
    if papers := papers_of(methods):
        yield "## Citation"
        entries = "\n\n".join(paper.bibtex() for paper in papers)
        yield f"```bibtex\n{entries}\n```"


def _preview_section(preview: Preview | None, parts: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if preview is not None:
        where = " of its first part" if len(parts) > 1 else ""
        yield "## Preview"
        yield (
            f"The viewer shows the change{where} for {preview.rows} examples, at most one per "
            f"class, amplified {GAIN} times on grey; large ones are cropped. It contains no image "
            f"of the dataset."
        )


def _parameters(parts: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for part in parts:
        yield f"## Parameters of {escaped(part['method'])}" if len(parts) > 1 else "## Parameters"
        shown = dict(part.get("parameters") or {})
        for name, value in shown.items():
            is_budget = name.endswith(("epsilon", "step_size")) and isinstance(value, int | float)
            on_top = name in ("colour_epsilon", "field_epsilon")  # always Linf
            if is_budget and (on_top or part["norm"] == "Linf"):
                shown[name] = format_epsilon(value)
        unknown = "Not known." if part.get("imported") else "None."
        yield fact_table(shown) or unknown


def measured(strength: Any) -> str:
    """The measured strength stated in a config."""
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
    return fact_table(shown)


def _shares(values: list[float]) -> str:
    mean = statistics.fmean(values)
    if len(values) == 1:
        return f"{mean:.1%} (one seed)"
    spread = 100 * statistics.stdev(values)
    return f"{mean:.1%} ± {spread:.1f} (standard deviation over {len(values)} seeds)"


def fact_table(values: Mapping[str, Any]) -> str:
    """A table of names and known values."""
    known = {n: words(value) for n, value in _one_seed(values).items() if value is not None}
    return table(["", ""], [map(escaped, row) for row in known.items()]) if known else ""


def words(value: Any) -> str:
    """A config value in readable form."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {words(own)}" for name, own in _one_seed(value).items())
    if isinstance(value, list):
        return ", ".join(map(words, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _one_seed(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """The same, where seeds are one by that word: "seeds 0" reads as none."""
    seeds = values.get("seeds")
    if not isinstance(seeds, list) or len(seeds) != 1:
        return values
    return {("seed" if n == "seeds" else n): value for n, value in values.items()}


def escaped(text: str) -> str:
    """Escapes any text as one line of Markdown."""
    return escape(printable(text))
