"""The report of an audit: its verdict in plain words, its pages, its files."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import ArtefactError
from ...io.files import claim_folder, write_bytes, write_json
from .figures import Cell
from .html import html_page
from .markdown import markdown_page
from .model import Findings
from .text import headline, plain_table, verdict

REPORT_FORMAT = "unlearnable-audit-report"
REPORT = "report.json"


@dataclass(frozen=True)
class AuditReport(Findings):
    """What :func:`audit` found.

    Attributes:
        perturbation: What :meth:`Perturbation.info` says, ``parameters`` of the method, and
            ``who_can_undo``, sentences (absent in reports of earlier releases).
        dataset: ``name``, ``images``, ``classes`` (names or None), ``num_classes``, ``digest``,
            ``fraction`` of images that were protected.
        test: ``name``, ``images``, ``digest``, ``chance`` (share of the most frequent class),
            ``held_out`` (share of the dataset, or None), ``overlap`` with the training images.
        settings: ``epochs``, ``batch_size``, ``peak_images``, ``image_size``, ``precision``
            (as it was asked for).
        countermeasures: ``name``, ``description``, ``parameters``, ``needs_clean`` (whether the
            trainer has to have clean images of the dataset) and ``adaptive`` (whether it is aimed
            at this kind of perturbation; absent in reports of earlier releases) of each, in order.
        victims: Names.
        seeds: Of the victims.
        cells: What was measured.
        planned: Number of cells of the whole audit.
        change: Imperceptibility, the fields of :class:`Distortion` (``psnr`` None where infinite).
        change_by_class: The same by class name.
        examples: Images to look at: ``label``, ``psnr``, ``ssim``, and ``clean``, ``change`` and
            ``protected`` as PNG in base64.
        machine: Processor, threads and versions of the last start; a cell has the precision, too.
        date: Of the last cell, ISO format.
    """

    def headline(self) -> str:
        """The outcome in a few words."""
        return headline(self)

    def verdict(self) -> str:
        """What was found, in plain words: the worst case first."""
        return verdict(self)

    def __str__(self) -> str:
        return f"{self.headline()}. {self.verdict()}\n\n{plain_table(self)}"

    def to_dict(self) -> dict[str, Any]:
        """Everything, for JSON."""
        said = {
            "headline": self.headline(),
            "verdict": self.verdict(),
            "worst_case": {of: self._worst(of) for of in ("standard", "adaptive")},
        }
        return {"format": REPORT_FORMAT} | said | dataclasses.asdict(self)

    def _worst(self, of: str) -> dict[str, Any] | None:
        row = self.worst(of)
        if row is None or row.protected is None:
            return None
        return {
            "countermeasure": row.countermeasure,
            "victim": row.victim,
            "peak": row.protected.peak,
            "last": row.protected.last,
            "clean_peak": None if row.clean is None else row.clean.peak,
            "recovered": self.recovered(row),
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> AuditReport:
        """The inverse of :meth:`to_dict`.

        Raises:
            ArtefactError: It is something else.
        """
        if content.get("format") != REPORT_FORMAT:
            raise ArtefactError(f"expected a report of format {REPORT_FORMAT}, got another file")
        values = {f.name: content[f.name] for f in dataclasses.fields(cls)}
        return cls(**values | {"cells": [Cell(**cell) for cell in content["cells"]]})

    def to_html(self) -> str:
        """One self-contained page."""
        return html_page(self)

    def to_markdown(self) -> str:
        """The same without pictures."""
        return markdown_page(self)

    def save(self, folder: str | Path) -> Path:
        """Writes ``report.html``, ``report.md`` and ``report.json``.

        Returns:
            The page to look at, ``report.html``.

        Raises:
            FileExistsError: The folder holds things that are not ours.
        """
        folder = Path(folder)
        if not (folder / "audit.json").exists():
            claim_folder(folder, REPORT)
        for name, text in (("report.html", self.to_html()), ("report.md", self.to_markdown())):
            # Names of classes need not be Unicode, as those of folders.
            write_bytes(folder / name, text.encode("utf-8", "backslashreplace"))
        write_json(folder / REPORT, self.to_dict())
        return folder / "report.html"

    @classmethod
    def load(cls, folder: str | Path) -> AuditReport:
        """Reads what :meth:`save` or an audit wrote.

        Raises:
            FileNotFoundError: There is none.
            ArtefactError: It is no report.
        """
        path = Path(folder) / REPORT
        try:
            return cls.from_dict(json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ArtefactError(f"expected the report of an audit in {path}: {error}") from error
