"""The page: what is asked, what is shown, and which work a click starts."""

from __future__ import annotations

import html
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from ..engine.estimate import duration
from .intake import Dropped
from .words import KEY_WARNING, PRIVATE, THREE_SENTENCES, TITLE, VISIBILITIES
from .work import FORMATS, Done, Look, Step, Work

_HERE = Path(__file__).parent
CSS, JS = ((_HERE / f"page.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))

from gradio.events import Dependency

class Photos(gr.File):
    """Gradio's drop zone, whose files keep the names that their owner gave them."""

    is_template = True  # for the browser, it is gr.File

    def preprocess(self, payload: Any) -> Any:
        """What was dropped, as a list of :class:`Dropped`."""
        return [Dropped(Path(f.path), f.orig_name or Path(f.path).name) for f in payload or []]
    from typing import Callable, Literal, Sequence, Any, TYPE_CHECKING
    from gradio.blocks import Block
    if TYPE_CHECKING:
        from gradio.components import Timer
        from gradio.components.base import Component


def make_theme() -> gr.themes.Base:
    """Gradio's plain theme in the fonts that the system has: none is loaded from the network."""
    return gr.themes.Base(
        primary_hue="teal",
        neutral_hue="stone",
        radius_size="lg",
        font=["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"],
        font_mono=["ui-monospace", "Menlo", "Consolas", "monospace"],
    )


def make_page(folder: Path) -> gr.Blocks:
    """The page, which lays all files into ``folder``."""
    with gr.Blocks(title="unlearnable", analytics_enabled=False) as page:
        work = gr.State(None, delete_callback=_close)
        gr.HTML(f"<h1>{TITLE}</h1><p>{PRIVATE}</p>")
        gr.HTML(_listed(THREE_SENTENCES), elem_id="for-what")
        gr.HTML("<h2>1. Your photos</h2>")
        photos = Photos(
            file_count="multiple",
            label="Drop photos here, a folder of them, or a zip",
            elem_id="photos",
            height=200,
        )
        folder_button = gr.Button("Choose a whole folder…", size="sm", elem_id="choose-folder")
        gr.HTML("<h2>2. How it will look</h2>")
        visibility = gr.Radio(
            [(words, name) for name, words in VISIBILITIES.items()],
            value="low",
            show_label=False,
            elem_id="visibility",
        )
        kind = gr.Radio(
            [(words, name) for name, (words, *_) in FORMATS.items()],
            value="png",
            label="Files",
            elem_id="format",
        )
        plan = gr.HTML(elem_id="plan")
        start = gr.Button(
            "Protect the photos", variant="primary", interactive=False, elem_id="start"
        )
        stop = gr.Button("Stop", visible=False, elem_id="stop")
        progress = gr.HTML(elem_id="progress")
        with gr.Column(visible=False, elem_id="result") as result:
            gr.HTML("<h2>3. Protected</h2>")
            with gr.Row():
                copies = gr.DownloadButton("Download", variant="primary", elem_id="copies")
                key = gr.DownloadButton("Download", elem_id="key")
            gr.HTML(f"<p>{KEY_WARNING}</p>")
            which = gr.Dropdown(label="Compare a photo", elem_id="which")
            zoom = gr.Radio(
                [("Fit to the page", "fit"), ("Full size, pixel by pixel", "full")],
                value="fit",
                show_label=False,
                elem_id="zoom",
            )
            with gr.Column(elem_id="viewer"):
                slider = gr.ImageSlider(
                    interactive=False,
                    show_label=False,
                    buttons=["fullscreen"],
                    max_height=0,
                    elem_id="slider",
                )

        def look(dropped: list[Dropped], level: str, here: Work | None) -> Any:
            if here is None:
                here = Work(folder)
            unready = gr.update(interactive=False)
            if not dropped:
                return here, "", unready, gr.update(visible=False), ""
            try:
                found = here.look(dropped, level)
            except Exception as error:
                return here, _notice(here.say(error)), unready, gr.update(visible=False), ""
            return here, _plan(found), gr.update(interactive=True), gr.update(visible=False), ""

        def protect(here: Work, format: str) -> Iterator[Any]:
            running = {start: gr.update(visible=False), stop: gr.update(visible=True)}
            ready = {start: gr.update(visible=True), stop: gr.update(visible=False)}
            yield {**running, result: gr.update(visible=False), progress: _bar(Step("Starting"))}
            try:
                for step in here.protect(format):
                    if isinstance(step, Done):
                        yield {**ready, **shown(here, step)}
                    else:
                        yield {progress: _bar(step)}
            except Exception as error:
                yield {**ready, progress: _notice(here.say(error))}

        def shown(here: Work, done: Done) -> dict[Any, Any]:
            return {
                progress: "",
                result: gr.update(visible=True),
                copies: gr.update(value=str(done.copies), label=_download("the copies", done.copies)),
                key: gr.update(value=str(done.key), label=_download("the private key", done.key)),
                which: gr.update(choices=[(name, i) for i, name in enumerate(done.names)], value=0),
                slider: compare(here, 0, "fit"),
            }

        def compare(here: Work, index: int, scale: str) -> Any:
            before, after, width = here.pair(index)
            wide = f"{width}px" if scale == "full" else "100%"
            return gr.update(value=(str(before), str(after)), width=wide)

        inputs, planned = [photos, visibility, work], [work, plan, start, result, progress]
        photos.change(look, inputs, planned, show_progress="hidden")
        visibility.input(look, inputs, planned, show_progress="hidden")
        folder_button.click(None, js="() => window.chooseFolder()")
        running = start.click(
            protect,
            [work, kind],
            [start, stop, progress, result, copies, key, which, slider],
            show_progress="hidden",
        )
        stop.click(Work.stop, work, None, queue=False)
        for change in (which.input, zoom.input):
            change(compare, [work, which, zoom], slider, show_progress="hidden")
    return page


def _close(work: Work | None) -> None:
    if work is not None:
        work.close()


def _listed(sentences: Sequence[str]) -> str:
    return "<ul>" + "".join(f"<li>{text}</li>" for text in sentences) + "</ul>"


def _notice(text: str) -> str:
    lines = [html.escape(line) for line in text.splitlines()]
    return f'<div class="notice" role="alert">{"<br>".join(lines)}</div>'


def _plan(found: Look) -> str:
    plan = found.plan
    count = "1 photo" if plan.images == 1 else f"{plan.images:,} photos"
    known = math.isfinite(plan.seconds)
    time = f"about {duration(plan.seconds)}" if known else "time not known"
    facts = f'<p class="facts"><strong>{count}</strong><strong>{time}</strong></p>'
    said = _listed([html.escape(text) for text in plan.sentences()])
    notes = _listed([html.escape(text) for text in found.notes]) if found.notes else ""
    return facts + said + (f'<div class="notes">{notes}</div>' if notes else "")


def _bar(step: Step) -> str:
    share = "" if step.share is None else f' value="{step.share:.3f}"'
    text = html.escape(step.text)
    return f'<label class="bar" role="status">{text}<progress{share}></progress></label>'


def _download(what: str, file: Path) -> str:
    size = file.stat().st_size
    amount = f"{size / 1e6:,.0f} MB" if size >= 1e6 else f"{size / 1e3:,.0f} kB"
    return f"Download {what} ({amount})"