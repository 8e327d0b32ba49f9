"""What a method's class says about it: idea, paper, kind, budget, presets and signature."""

from __future__ import annotations

import inspect
import re
from functools import cache
from typing import Any

import unlearnable as ue
from unlearnable.datasets import Shapes
from unlearnable.evaluation import adaptive_countermeasures, who_can_undo
from unlearnable.perturbation.summary import format_epsilon

IMAGES = 50_000  # of the whole of CIFAR-10, for which passes are counted
PRESETS = ("paper", "fast", "demo")
CHANGES = {
    "additive": "adds a row of pixel levels",
    "pixel": "overwrites pixels",
    "convolution": "convolves with a kernel",
    "shift": "adds one colour to all pixels",
    "procedural": "adds a row computed from a seed",
    "stack": "adds a row, then what its class gets on top",
}
# What a stack puts on rows that it learns: who can undo it follows from that.
ON_TOP = {"DUNE": ue.ColourShift}


def summary(cls: type[ue.Method]) -> str:
    """Its name in words, as its docstring begins."""
    head = _paragraphs(cls)[0]
    return re.sub(r"(, (published|of which) .*)?\.? ?\(.*", "", head).rstrip(".")


def idea(cls: type[ue.Method], sentences: int = 2) -> str:
    """The first sentences of its docstring after the summary, as Markdown."""
    found = re.split(r"(?<=[.;])\s+(?=[A-Z(])", _paragraphs(cls)[1])
    text = " ".join(found[:sentences])
    text = re.sub(r":class:`~?\.?(\w+)`", lambda role: f"[`{role[1]}`]({role[1]}.md)", text)
    return text.replace("``", "`")


def paper(cls: type[ue.Method]) -> str:
    """Authors, venue and a link to arXiv, as the class states them."""
    found = re.search(r"\(([^()]*?),? arXiv:([\d.]+)\)", _paragraphs(cls)[0])
    if found is None:
        return ""
    authors, number = found.groups()
    return f"{authors}, [arXiv:{number}](https://arxiv.org/abs/{number})"


def _paragraphs(cls: type[ue.Method]) -> list[str]:
    text = inspect.getdoc(cls) or ""
    return [" ".join(paragraph.split()) for paragraph in text.split("\n\n")]


def budget(method: ue.Method) -> str:
    """Of a 32x32 colour image."""
    epsilon, norm = method._budget((3, 32, 32))
    if epsilon is not None and norm is not None:
        params = method.get_params()
        above = params.get("colour_epsilon", params.get("field_epsilon"))
        on_top = "" if above is None else f", and {format_epsilon(above)} on top"
        return f"{norm} {format_epsilon(epsilon, norm)}{on_top}"
    pixels = method.get_params().get("pixels")
    return "none" if pixels is None else f"{pixels} pixel"


def surrogate(method: ue.Method) -> str:
    """The network that a fit trains, or "none"."""
    if not method.passes(IMAGES):
        return "none"
    return str(method.get_params().get("surrogate", "linear"))


def million(passes: int) -> str:
    """Image passes as tables write them."""
    return f"{passes / 1e6:,.1f} million" if passes else "none"


def new_images(cls: type[ue.Method]) -> str:
    """What images get that were not fitted."""
    if cls()._has_rows:
        return "`extend` computes rows for them"
    return "any image of a known class is protected at once"


def needs(cls: type[ue.Method]) -> str:
    """What a fit has to be given."""
    network = surrogate(cls())
    trained = {"none": "no network", "linear": "a linear surrogate"}.get(
        network, f"a surrogate (`{network}`)"
    )
    labels = "labels" if cls().needs_labels else "no labels sample-wise, labels class-wise"
    return f"{labels}; {trained}"


def facts(cls: type[ue.Method]) -> list[tuple[str, str]]:
    """A method at a glance."""
    method = cls()
    return [
        ("Paper", paper(cls)),
        ("What it does", f"{CHANGES[method.kind]} ({' or '.join(cls.granularities)})"),
        ("Budget", budget(method)),
        ("Needs", needs(cls)),
        ("New images", new_images(cls)),
        ("{term}`Visibility mask <visibility mask>`", "yes" if cls.masked else "no"),
    ]


def signature(cls: type[ue.Method]) -> str:
    """A call with all its parameters at their defaults, as Python code."""
    lines = [f"    {name}={_readable(name, value)}," for name, value in cls().get_params().items()]
    return "\n".join([f"ue.{cls.__name__}(", *lines, ")"])


def _readable(name: str, value: Any) -> str:
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, float) and ("epsilon" in name or "step_size" in name):
        levels = round(value * 255, 4)
        return f"{levels:g} / 255" if levels / 255 == value else repr(value)
    return repr(value).replace("'", '"')


def changed(method: ue.Method) -> str:
    """Parameters that are not at their defaults, as Markdown that wraps between them."""
    inside = repr(method)[len(type(method).__name__) + 1 : -1].replace("'", '"')
    return ", ".join(f"`{text}`" for text in re.split(r", (?=\w+=)", inside) if text)


def presets(cls: type[ue.Method]) -> dict[str, str]:
    """By its name, what a preset sets in place of the defaults; equal ones only once."""
    found: dict[str, str] = {}
    for name in PRESETS:
        method = cls.preset(name)
        text = changed(method) or "the defaults"
        if text not in found.values():
            found[name] = text
    return found


@cache
def _stand_in(cls: type[ue.Method]) -> ue.Perturbation:
    """A perturbation of the same kind, name and budget that takes no training."""
    shapes, method = Shapes(size=20), cls()

    def fitted(method: ue.Method) -> ue.Perturbation:
        return method.fit(shapes, device="cpu", progress=False).perturbation_

    if method.kind != "additive" and cls.__name__ not in ON_TOP:
        return fitted(method)
    noise: type[ue.RandomNoise] = type(cls.__name__, (ue.RandomNoise,), {})
    rows = fitted(noise(epsilon=method.epsilon, granularity=cls.granularities[0]))
    on_top = ON_TOP.get(cls.__name__)
    return rows if on_top is None else rows.then(fitted(on_top()))


def undone_by(cls: type[ue.Method]) -> tuple[list[str], list[str]]:
    """Who can undo it, as sentences, and countermeasures that know its kind, by name."""
    found = _stand_in(cls)
    return who_can_undo(found), [counter.name for counter in adaptive_countermeasures(found)]
