"""The page: what is asked, what is shown, and which work a click starts."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from ...engine.sizes import readable_size
from .intake import Dropped
from .visit import FORMATS, Done, Look, Step, Visit
from .words import (
    ABOUT_OTHERS,
    COMPARE,
    KEY_WARNING,
    LOOKS,
    NEXT,
    PRIVATE,
    START,
    THREE_SENTENCES,
    TITLE,
)

LOOKING, STARTING = Step("Looking through the photos"), Step("Starting")
_HERE = Path(__file__).parent
CSS, JS = ((_HERE / f"page.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))


def make_theme() -> gr.themes.Base:
    """Gradio's plain theme with system fonts, so that none is loaded from the network."""
    theme = gr.themes.Base(
        primary_hue="teal",
        neutral_hue="stone",
        radius_size="lg",
        font=["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"],
        font_mono=["ui-monospace", "Menlo", "Consolas", "monospace"],
    )
    # Darker than Gradio's, so that white text on it, and grey text on the page, can be read.
    return theme.set(
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover_dark="*primary_600",
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_400",
    )


def make_page(folder: Path) -> gr.Blocks:
    """The page, which keeps all its files in ``folder``."""
    with gr.Blocks(title="unlearnable", analytics_enabled=False) as page:
        visit = gr.State(None, delete_callback=_close)
        _text(f'<h1>{TITLE}</h1><p class="quiet">{PRIVATE}</p>')
        _text(f'<div class="card">{_listed(THREE_SENTENCES)}</div>')
        _text("<h2>1. Your photos</h2>")
        photos = _drop_zone("photos", "Drop photos, a folder or a zip file here")
        with gr.Accordion("Other pictures to tell yours apart from (optional)", open=False):
            _text(f"<p>{ABOUT_OTHERS}</p>")
            others = _drop_zone("others", "Drop other pictures here")
        _text("<h2>2. How the copies will look</h2>")
        with gr.Group():
            visibility = _choice("visibility", "Change", LOOKS)
            kind = _choice(
                "format", "Files", {name: words for name, (words, *_) in FORMATS.items()}
            )
        plan = gr.HTML(elem_id="plan", padding=False)
        start = gr.Button(START, variant="primary", interactive=False, elem_id="start")
        stop = gr.Button("Stop", visible=False, elem_id="stop")
        progress = gr.HTML(elem_id="progress", padding=False)
        with gr.Column(visible=False, elem_id="result") as result:
            _text(f"<h2>3. Your copies</h2><p>{NEXT}</p>")
            cautions = gr.HTML(elem_id="cautions", padding=False)
            with gr.Row():
                copies = gr.DownloadButton(variant="primary", elem_id="copies")
                key = gr.DownloadButton(elem_id="key")
            _text(f'<div class="card">{KEY_WARNING}</div>')
            _text(f"<h2>Before and after</h2><p>{COMPARE}</p>")
            with gr.Row():
                which = gr.Dropdown(label="Photo", elem_id="which")
                zoom = _choice(
                    "zoom", "Size", {"fit": "Fit to the page", "full": "Full size (1:1)"}
                )
            with gr.Column(elem_id="viewer"):
                slider = gr.ImageSlider(
                    interactive=False,
                    show_label=False,
                    container=False,
                    buttons=["fullscreen"],
                    max_height=0,
                    elem_id="slider",
                )

        def look(
            dropped: list[Dropped], besides: list[Dropped], level: str, here: Visit | None
        ) -> Iterator[dict[Any, Any]]:
            here, found, ready = here or Visit(folder), "", False
            yield {
                visit: here,
                result: gr.update(visible=False),
                progress: _bar(LOOKING) if dropped else "",
                plan: "",
                start: gr.update(interactive=False),
            }
            if dropped:
                try:
                    found, ready = _plan(here.look(dropped, besides, level)), True
                except Exception as error:
                    found = _notice(here.say(error))
            yield {progress: "", plan: found, start: gr.update(interactive=ready)}

        def protect(here: Visit, format: str) -> Iterator[dict[Any, Any]]:
            def state(*, busy: bool) -> dict[Any, Any]:
                free = {choice: gr.update(interactive=not busy) for choice in (visibility, kind)}
                return {start: gr.update(visible=not busy), stop: gr.update(visible=busy), **free}

            yield {
                **state(busy=True),
                result: gr.update(visible=False),
                progress: _bar(STARTING),
            }
            try:
                for step in here.protect(format):
                    if isinstance(step, Done):
                        yield {**state(busy=False), **finished(here, step)}
                    else:
                        yield {progress: _bar(step)}
            except Exception as error:
                yield {**state(busy=False), progress: _notice(here.say(error))}

        def finished(here: Visit, done: Done) -> dict[Any, Any]:
            return {
                progress: "",
                result: gr.update(visible=True),
                cautions: "".join(map(_notice, done.cautions)),
                copies: _download("Download the copies", done.copies),
                key: _download("Download the private key", done.key),
                which: gr.update(choices=[(name, i) for i, name in enumerate(done.names)], value=0),
                zoom: "fit",
                slider: compare(here, 0, "fit"),
            }

        def compare(here: Visit, index: int, scale: str) -> Any:
            before, after, width = here.pair(index)
            full = scale == "full"
            return gr.update(
                value=(str(before), str(after)),
                width=f"{width}px" if full else "100%",
                elem_classes=["full"] if full else [],
            )

        looked = [visit, result, progress, plan, start]
        for change in (photos.change, others.change, visibility.input):
            change(look, [photos, others, visibility, visit], looked, show_progress="hidden")
        shown = [result, cautions, copies, key, which, zoom, slider]
        start.click(
            protect,
            [visit, kind],
            [start, stop, visibility, kind, progress, *shown],
            show_progress="hidden",
            concurrency_limit=None,  # who has to wait is told so
        )
        stop.click(_stop, visit, None, queue=False)
        for change in (which.input, zoom.input):
            change(compare, [visit, which, zoom], slider, show_progress="hidden")
    return page


def _ready(ready: bool) -> Any:
    return gr.update(interactive=ready)


def _text(text: str) -> None:
    gr.HTML(text, padding=False)


def _drop_zone(name: str, label: str) -> gr.File:
    """A place to drop photos, and a button for who would rather choose a folder."""
    zone = gr.File(
        file_count="multiple", label=label, elem_id=name, elem_classes="drop", height=190
    )
    # Not by a subclass, of which Gradio writes a stub beside this file.
    zone.preprocess = _as_dropped
    button = gr.Button("Choose a folder…", size="sm", elem_id=f"{name}-folder")
    button.click(None, js=f"() => window.chooseFolder('{name}')")
    return zone


def _as_dropped(payload: Any) -> list[Dropped]:
    """Files with the names that their owner gave them, where Gradio gives its own."""
    return [Dropped(Path(f.path), f.orig_name or Path(f.path).name) for f in payload or []]


def _choice(name: str, label: str, words: Mapping[str, str]) -> gr.Radio:
    """Of a few names, the first of which is chosen."""
    choices = [(text, value) for value, text in words.items()]
    return gr.Radio(choices, value=next(iter(words)), label=label, elem_id=name)


def _close(visit: Visit | None) -> None:
    if visit is not None:
        visit.close()


def _stop(visit: Visit | None) -> None:
    if visit is not None:
        visit.stop()


def _listed(sentences: Sequence[str]) -> str:
    return "<ul>" + "".join(f"<li>{text}</li>" for text in sentences) + "</ul>"


def _notice(text: str) -> str:
    lines = [html.escape(line) for line in text.splitlines()]
    return f'<div class="card notice" role="alert">{"<br>".join(lines)}</div>'


def _plan(found: Look) -> str:
    facts = "".join(f"<strong>{html.escape(fact)}</strong>" for fact in found.facts)
    said = _listed([html.escape(text) for text in [*found.sentences, *found.notes]])
    return f'<div class="card"><p class="facts">{facts}</p>{said}</div>'


def _bar(step: Step) -> str:
    share = "" if step.share is None else f' value="{step.share:.3f}"'
    text = html.escape(step.text)
    return f'<label class="card bar" role="status">{text}<progress{share}></progress></label>'


def _download(what: str, file: Path) -> Any:
    size = readable_size(file.stat().st_size).replace(" ", "\u00a0")  # stays on one line
    return gr.update(value=str(file), label=f"{what} ({size})")
