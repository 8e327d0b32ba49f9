"""The report of an audit as one self-contained page, without scripts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

from .figures import CLEAN, PROTECTED, Reached, Row, duration, percent, whole_percent
from .model import Findings
from .style import STYLE
from .svg import Line, accuracy_chart
from .text import (
    COLUMNS,
    LIMITS,
    change_cells,
    dataset_name,
    facts,
    headline,
    how_to_read,
    marks,
    title,
    verdict,
)


def html_page(report: Findings) -> str:
    """The whole page; everything that comes from the user's data is escaped."""
    page = f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(title(report))}</title>
<style>{STYLE}</style>
</head>
<body>
<main>
{_head(report)}
{_table(report)}
{_curves(report)}
{_pictures(report)}
{_imperceptibility(report)}
{_countermeasures(report)}
{_facts(report)}
<section aria-labelledby="limits">
<h2 id="limits">What this does not say</h2>
{"".join(f"<p>{escape(text)}</p>" for text in LIMITS)}
</section>
</main>
</body>
</html>
"""
    return page.replace(" %", "\N{NO-BREAK SPACE}%")


def _head(report: Findings) -> str:
    outcome = report.outcome()
    left = (
        ""
        if report.complete
        else f" · {escape(f'{len(report.cells)} of {report.planned}')} cells so far"
    )
    return f"""<header>
<p class="kicker">Audit of a protection</p>
<h1>{escape(str(report.perturbation["method"]))} on {escape(dataset_name(report))}</h1>
<p class="meta">{escape(report.date[:10])} · {duration(report.seconds)} of training{left}</p>
</header>
<section class="verdict {outcome}" aria-label="Verdict">
<p class="badge">{escape(headline(report))}</p>
<p class="lead">{escape(verdict(report))}</p>
{_tiles(report)}
</section>"""


def _tiles(report: Findings) -> str:
    worst, without = report.worst(), report.without()
    if worst is None or worst.protected is None:
        return ""
    clean = report.reached(CLEAN, "none", worst.victim)
    tiles: list[tuple[str, Reached | None, str]] = [
        ("Worst case", worst.protected, worst.countermeasure),
        ("No countermeasure", without.protected if without else None, "protected images"),
        ("No protection", clean, "clean images"),
    ]
    shown = "".join(
        f"<div{' class=clean' if reached is clean else ''}><dt>{name}</dt><dd>"
        f"<strong>{_figure(reached)}</strong>"
        f"{_bar(reached.peak if reached else 0.0)}<span>{escape(note)}</span></dd></div>"
        for name, reached, note in tiles
    )
    return f'<dl class="tiles">{shown}</dl>'


def _figure(reached: Reached | None, which: str = "peak") -> str:
    if reached is None:
        return '<span class="none">–</span>'
    spread = f" ± {100 * getattr(reached, which + '_std'):.1f}" if reached.seeds > 1 else ""
    return f"{100 * getattr(reached, which):.1f}{spread} %"


def _bar(share: float) -> str:
    return f'<span class="bar" aria-hidden="true"><i style="width:{100 * share:.0f}%"></i></span>'


def _table(report: Findings) -> str:
    worst = report.worst()
    many = len(report.victims) > 1
    head = ["countermeasure", *(["victim"] if many else []), *COLUMNS]
    body = "".join(_table_row(report, row, many, row == worst) for row in report.rows())
    return f"""<section aria-labelledby="figures">
<h2 id="figures">What victims reach on clean test images</h2>
<p>{escape(how_to_read(report))}</p>
{_scroll("Accuracies by countermeasure", _rows(head, body))}
</section>"""


def _table_row(report: Findings, row: Row, many: bool, worst: bool) -> str:
    share = report.recovered(row)
    recovered = "–" if share is None else whole_percent(share)
    marked = "".join(f' <span class="mark">{mark}</span>' for mark in marks(report, row))
    cells = [
        f'<th scope="row">{escape(row.countermeasure)}{marked}</th>',
        *([f"<td>{escape(row.victim)}</td>"] if many else []),
        _accuracy(row.protected, "peak", "heat"),
        _accuracy(row.protected, "last", "heat"),
        _accuracy(row.clean, "peak", "clean"),
        f'<td class="number">{recovered}</td>',
    ]
    return f"<tr{' class=worst' if worst else ''}>{''.join(cells)}</tr>"


def _accuracy(reached: Reached | None, which: str, style: str) -> str:
    """A cell with its figure and a bar as long; ``"heat"`` is a colour as strong."""
    if reached is None:
        return f'<td class="number">{_figure(None)}</td>'
    share = getattr(reached, which)
    return (
        f'<td class="number {style}" style="--share:{share:.3f}">{_figure(reached, which)}'
        f"{_bar(share)}</td>"
    )


def _rows(head: Iterable[str], body: str) -> str:
    heads = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    return f"<table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>"


def _scroll(label: str, content: str) -> str:
    name = escape(label)
    return f'<div class="scroll" role="region" aria-label="{name}" tabindex="0">{content}</div>'


def _curves(report: Findings) -> str:
    charts = []
    for row in report.rows():
        seen = [
            Line(cell.curve, trained_on)
            for trained_on in (CLEAN, PROTECTED)
            for cell in report.curves(trained_on, row.countermeasure, row.victim)
        ]
        if not seen:
            continue
        name = row.countermeasure + (f", {row.victim}" if len(report.victims) > 1 else "")
        figures = [
            f"{reached and percent(reached.peak)} on {kind} images"
            for kind, reached in ((PROTECTED, row.protected), (CLEAN, row.clean))
            if reached
        ]
        chart = accuracy_chart(seen, report.chance, f"{name}: at best {', '.join(figures)}")
        charts.append(f"<figure>{chart}<figcaption>{escape(name)}</figcaption></figure>")
    if not charts:
        return ""
    return f"""<section aria-labelledby="curves">
<h2 id="curves">Accuracy after each epoch</h2>
<p class="legend"><span class="key protected">trained on protected images</span>
<span class="key clean">trained on clean images</span>
<span class="key chance">guessing</span></p>
<div class="charts">{"".join(charts)}</div>
</section>"""


def _pictures(report: Findings) -> str:
    if not report.examples:
        return ""
    rows = (("clean", "clean"), ("change", "change x8"), ("protected", "protected"))
    columns = "".join(
        f'<th scope="col">{escape(example["label"])}</th>' for example in report.examples
    )
    body = "".join(
        f'<tr><th scope="row">{shown}</th>'
        + "".join(f"<td>{_picture(example, name, shown)}</td>" for example in report.examples)
        + "</tr>"
        for name, shown in rows
    )
    measured = "".join(
        f'<tr><th scope="row">{name}</th>'
        + "".join(
            f"<td>{escape(change_cells(example)[column])}</td>" for example in report.examples
        )
        + "</tr>"
        for name, column in (("PSNR", "PSNR"), ("SSIM", "SSIM"))
    )
    table = (
        f'<table class="pictures"><thead><tr><td></td>{columns}</tr></thead>'
        f"<tbody>{body}{measured}</tbody></table>"
    )
    return f"""<section aria-labelledby="pictures">
<h2 id="pictures">What it looks like</h2>
<p>The change is amplified eight times around grey.</p>
{_scroll("Example images", table)}
</section>"""


def _picture(example: Mapping[str, Any], name: str, shown: str) -> str:
    text = escape(f"{example['label']}, {shown}")
    data = escape(str(example[name]))
    return f'<img alt="{text}" width="96" height="96" src="data:image/png;base64,{data}">'


def _imperceptibility(report: Findings) -> str:
    if not report.change:
        return ""
    rows = [("all classes", report.change), *report.change_by_class.items()]
    columns = list(change_cells(report.change))
    body = "".join(
        f'<tr><th scope="row">{escape(name)}</th>'
        + "".join(
            f'<td class="number">{escape(text)}</td>' for text in change_cells(change).values()
        )
        + "</tr>"
        for name, change in rows
    )
    return f"""<section aria-labelledby="change">
<h2 id="change">How much it changes</h2>
<p>Measured between clean and protected 8-bit images; changes in levels of 1/255.</p>
{_scroll("Change by class", _rows(["class", *columns], body))}
</section>"""


def _countermeasures(report: Findings) -> str:
    tried = {
        entry["name"]: f"{entry['description']}{_parameters(entry['parameters'])}"
        for entry in report.countermeasures
    }
    return f"""<section aria-labelledby="countermeasures">
<h2 id="countermeasures">What was tried</h2>
{_list(tried)}
</section>"""


def _parameters(parameters: Mapping[str, Any]) -> str:
    if not parameters:
        return ""
    return f" ({', '.join(f'{name}={value}' for name, value in parameters.items())})"


def _list(entries: Mapping[str, str]) -> str:
    items = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(text)}</dd></div>"
        for name, text in entries.items()
    )
    return f'<dl class="facts">{items}</dl>'


def _facts(report: Findings) -> str:
    return f"""<section aria-labelledby="facts">
<h2 id="facts">How it was measured</h2>
{_list(facts(report))}
</section>"""
