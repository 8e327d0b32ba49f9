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
    """The results of :func:`audit`.

    Attributes:
        perturbation: The result of :meth:`Perturbation.info`, the ``parameters`` of the method, and
            ``who_can_undo``, a list of sentences (absent in reports of earlier releases).
        dataset: ``name``, ``images``, ``classes`` (names or None), ``num_classes``, ``digest``,
            ``fraction`` of images protected.
        test: ``name``, ``images``, ``digest``, ``chance`` (share of the most frequent class),
            ``held_out`` (share of the dataset, or None), ``overlap`` with the training images.
        settings: ``epochs``, ``batch_size``, ``peak_images``, ``image_size``, ``precision``
            (as requested).
        countermeasures: For each, in order: ``name``, ``description``, ``parameters``,
            ``needs_clean`` (whether the trainer needs clean images of the dataset) and ``adaptive``
            (whether it targets this kind of perturbation; absent in reports of earlier releases).
        victims: Names of the networks.
        seeds: Seeds of the victims.
        cells: The measurements.
        planned: Number of cells in the complete audit.
        change: Imperceptibility: the fields of :class:`Distortion` (``psnr`` is None if infinite).
        change_by_class: The same for each class name.
        examples: Example images: ``label``, ``psnr``, ``ssim``, and ``clean``, ``change`` and
            ``protected`` as base64-encoded PNG.
        diverged: What was wrong, for each victim whose training diverged: ``"protected, jpeg-10,
            tiny, seed 0"``, … They are in no figure (absent in reports of earlier releases).
        machine: Processor, threads and versions of the last start; cells also record the precision.
        date: Date of the last cell, in ISO format.
    """

    def headline(self) -> str:
        """The outcome in a few words."""
        return headline(self)

    def verdict(self) -> str:
        """The findings in plain words, worst case first."""
        return verdict(self)

    def __str__(self) -> str:
        return f"{self.headline()}. {self.verdict()}\n\n{plain_table(self)}"

    def to_dict(self) -> dict[str, Any]:
        """All values, for JSON."""
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
            ArtefactError: The content is not a report.
        """
        if content.get("format") != REPORT_FORMAT:
            raise ArtefactError(
                f"expected a report of format {REPORT_FORMAT}, got a different file"
            )
        content = {"diverged": {}, **content}
        values = {f.name: content[f.name] for f in dataclasses.fields(cls)}
        return cls(**values | {"cells": [Cell(**cell) for cell in content["cells"]]})

    def to_html(self) -> str:
        """The report as a self-contained HTML page."""
        return html_page(self)

    def to_markdown(self) -> str:
        """The report as Markdown, without pictures."""
        return markdown_page(self)

    def save(self, folder: str | Path) -> Path:
        """Writes ``report.html``, ``report.md`` and ``report.json``.

        Returns:
            The path of ``report.html``.

        Raises:
            FileExistsError: The folder contains files that this package did not write.
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
        """Reads a report written by :meth:`save` or by an audit.

        Raises:
            FileNotFoundError: There is no report.
            ArtefactError: The file is not a report.
        """
        path = Path(folder) / REPORT
        try:
            return cls.from_dict(json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ArtefactError(f"expected the report of an audit in {path}: {error}") from error
