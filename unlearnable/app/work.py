"""What the page sets to work: photos that were dropped, their plan, their copies and their key."""

from __future__ import annotations

import csv
import queue
import shutil
import tempfile
import threading
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..data.image_folder import ImageFolder, Survey, open_folder, survey_folder
from ..data.photo import load_photo
from ..photos.plan import Plan, plan_photos
from .intake import Dropped, Gathered, gather
from .words import KEY_README, sentence

if TYPE_CHECKING:
    from ..methods.base import Method

# Of the page -> in words, and the export's format and quality.
FORMATS: dict[str, tuple[str, str, int | str | None]] = {
    "png": ("PNG: every pixel as it was protected, about three times as large", "png", None),
    "jpeg": ("JPEG: about as large as yours, and somewhat weaker", "jpeg", "original"),
}
_NOTES = ("unlearnable.json", "unlearnable-files.csv")


class Look(NamedTuple):
    """What is known before the work."""

    plan: Plan
    notes: list[str]  # sentences on what was left out, and what reading does to photos


class Step(NamedTuple):
    """What is being done."""

    text: str
    share: float | None = None  # of the step, from 0 to 1, or None where it is not known


class Done(NamedTuple):
    """What there is at the end."""

    copies: Path  # an archive to publish
    key: Path  # another one, to be kept
    names: list[str]  # of the copies, in the order of the photos


class Stopped(Exception):
    """The person has stopped the work."""


class Work:
    """The photos of one visitor, in a folder of their own below ``parent``.

    Attributes:
        folder: Where everything lies; :meth:`close` deletes it.
    """

    def __init__(self, parent: Path) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="visit-", dir=parent))
        self._dropped: list[Dropped] = []
        self._gathered: Gathered | None = None
        self._dataset: ImageFolder | None = None
        self._survey: Survey | None = None
        self._plan: Plan | None = None
        self._pairs: list[tuple[Path, Path]] = []
        self._number = 0
        self._stop = threading.Event()

    def look(self, dropped: Sequence[Dropped], visibility: str) -> Look:
        """Sorts and looks through what was dropped, and plans the work.

        Raises:
            ValueError: There are no photos, or some cannot be used.
        """
        if self._survey is None or list(dropped) != self._dropped:
            self._survey = self._plan = None
            self._number += 1
            shutil.rmtree(self.folder / f"photos-{self._number - 1}", ignore_errors=True)
            self._gathered = gather(dropped, self.folder / f"photos-{self._number}")
            self._dataset = open_folder(self._gathered.folder)
            self._survey = survey_folder(self._dataset)
            self._dropped = list(dropped)
        assert self._gathered is not None
        self._plan = plan_photos(self._dataset, self._survey, visibility=visibility)
        return Look(self._plan, [*self._gathered.left_out, *self._survey.summary()])

    def protect(self, format: str) -> Iterator[Step | Done]:
        """Learns, writes the copies, and packs them, as :meth:`look` has planned.

        Raises:
            Stopped: By :meth:`stop`.
        """
        self._stop.clear()
        steps: queue.SimpleQueue[Step | Done | BaseException] = queue.SimpleQueue()
        worker = threading.Thread(target=self._run, args=(format, steps.put), daemon=True)
        worker.start()
        try:
            while True:
                step = steps.get()
                if isinstance(step, BaseException):
                    raise step
                yield step
                if isinstance(step, Done):
                    return
        finally:
            self.stop()  # also where the browser has gone
            worker.join()

    def stop(self) -> None:
        """Ends the work at its next step."""
        self._stop.set()

    def pair(self, index: int) -> tuple[Path, Path, int]:
        """A photo as a picture that browsers show, its copy, and their width in pixels."""
        original, copy = self._pairs[index]
        before = self.folder / f"before-{self._number}-{index}.png"
        photo = load_photo(original)
        if not before.exists():
            photo.save(before, compress_level=1)
        return before, copy, photo.width

    def say(self, error: BaseException) -> str:
        """An error as a sentence for the page."""
        if isinstance(error, Stopped):
            return "Stopped. Nothing was kept."
        return sentence(error, self.folder if self._gathered is None else self._gathered.folder)

    def close(self) -> None:
        """Ends the work and deletes all of it."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _run(self, format: str, tell: Callable[[Any], None]) -> None:
        try:
            tell(self._protected(format, tell))
        except BaseException as error:
            tell(error)

    def _protected(self, format: str, tell: Callable[[Step], None]) -> Done:
        assert self._plan is not None and self._survey is not None
        out = self.folder / "out"
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()

        def goes_on(*_: Any) -> None:
            if self._stop.is_set():
                raise Stopped

        tell(Step("Learning what to change"))
        method = self._plan.fit(self._dataset, progress=False, callback=goes_on)
        tell(Step("Writing the copies"))
        copies, names = self._export(method, format, out)
        goes_on()
        tell(Step("Packing"))
        return Done(*self._pack(method, copies, out), names)

    def _export(self, method: Method, format: str, out: Path) -> tuple[Path, list[str]]:
        assert self._survey is not None
        perturbation = method.perturbation_
        learned = tuple(perturbation.config["image_shape"][:0:-1])
        full_size = set(self._survey.sizes) != {learned} or perturbation.fit_size is not None
        protected = method.protect(self._dataset, full_size=full_size)
        _, kind, quality = FORMATS[format]
        mapping = out / "mapping.csv"
        folder = protected.export(
            out / "copies", kind, quality=quality, mapping=mapping, progress=False
        )
        with mapping.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            rows = list(csv.DictReader(file))
        self._pairs = [(Path(row["original"]), folder / row["file"]) for row in rows]
        return folder, [row["file"] for row in rows]

    def _pack(self, method: Method, copies: Path, out: Path) -> tuple[Path, Path]:
        """Two archives: the pictures alone, and all that is to be kept apart from them."""
        published, key = out / "protected-photos.zip", out / "private-key.zip"
        with zipfile.ZipFile(published, "x", zipfile.ZIP_STORED) as archive:
            for _, copy in self._pairs:
                archive.write(copy, copy.relative_to(copies))
        saved = method.save_pretrained(out / "perturbation")
        with zipfile.ZipFile(key, "x", zipfile.ZIP_STORED) as archive:
            archive.writestr("README.txt", KEY_README)
            for file in sorted(saved.rglob("*")):
                if file.is_file():
                    archive.write(file, Path("perturbation", file.relative_to(saved)))
            for name in _NOTES:
                archive.write(copies / name, Path("notes", name))
        return published, key
