"""What the page sets to work: photos that were dropped, their plan, their copies and their key."""

from __future__ import annotations

import contextlib
import csv
import math
import queue
import shutil
import tempfile
import threading
import time
import weakref
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ...data.image_folder import ImageFolder, Survey, open_folder, survey_folder
from ...data.photo import load_photo
from ...protected.manifest import Seal, read_manifest
from ..plan import Plan, plan_photos
from ..words import GROUPS_TOO, HINDERS, NOT_HINDERED, weak
from .intake import Dropped, collect
from .words import KEY_README, LOOKS, cautions, plain, time_left, time_needed

if TYPE_CHECKING:
    from ...methods.base import Method

# Of the page -> in words, and the export's format and quality.
FORMATS: dict[str, tuple[str, str, int | str | None]] = {
    "png": ("PNG: exact, about three times as large as your files", "png", None),
    "jpeg": ("JPEG: about as large as your files, protects less", "jpeg", "original"),
}
_SECONDS = 0.5  # between two steps that are told
_PATIENCE = 10.0  # seconds that work may take to end when the program ends
_working = threading.Lock()  # held by the visit that is at work: there is memory for one
_NOTES = ("unlearnable.json", "unlearnable-files.csv")


class Look(NamedTuple):
    """What is known before the work starts."""

    facts: list[str]  # how many photos, how long, how it will look
    sentences: list[str]  # the plan
    notes: list[str]  # on what was left out, and what reading does to photos


class Step(NamedTuple):
    """The current step of the work."""

    text: str
    share: float | None = None  # of the step, from 0 to 1, or None where it is not known


class Done(NamedTuple):
    """What the work has produced."""

    copies: Path  # an archive to publish
    key: Path  # another one, to be kept
    names: list[str]  # of the copies, in the order of the photos
    cautions: list[str]  # what is wrong with them


class Stopped(Exception):
    """The user has stopped the work."""


class _Teller:
    """Tells the page how far a part of the work is, and ends the work where that is asked for."""

    def __init__(self, tell: Callable[[Step], None], stop: threading.Event) -> None:
        self._tell, self._stop = tell, stop

    def begin(self, what: str, seconds: float = math.nan) -> None:
        """A new part, which is expected to take so long."""
        self._what, self._seconds = what, seconds
        self._start = self._told = time.monotonic()
        self._say(None, seconds)

    def __call__(self, share: float) -> None:
        """From 0 to 1 of the part are done."""
        self._check()
        now = time.monotonic()
        if now - self._told >= _SECONDS:
            self._told, spent = now, now - self._start
            # At first by the plan, more and more by what it has taken so far.
            self._say(share, (1 - share) * (spent + (1 - share) * self._seconds))

    def _say(self, share: float | None, left: float) -> None:
        self._check()
        words = time_left(left)
        self._tell(Step(f"{self._what}, {words}" if words else self._what, share))

    def _check(self) -> None:
        if self._stop.is_set():
            raise Stopped


class _Photos:
    """What was dropped in one place, below a folder."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder, self._name = folder, name
        self._dropped: list[Dropped] = []
        self.dataset: ImageFolder | None = None
        self.survey: Survey | None = None
        self.notes: list[str] = []

    @property
    def folder(self) -> Path:
        """Where they lie."""
        return self._folder / self._name

    def take(self, dropped: Sequence[Dropped]) -> None:
        """Takes these in place of those before; does nothing where they are the same."""
        if list(dropped) == self._dropped:
            return
        self._dropped, self.dataset, self.survey, self.notes = [], None, None, []
        shutil.rmtree(self.folder, ignore_errors=True)
        if dropped:
            left_out = collect(dropped, self.folder).left_out
            self.dataset = open_folder(self.folder)
            self.survey = survey_folder(self.dataset)
            self.notes = [*left_out, *self.survey.summary()]
        self._dropped = list(dropped)


class Visit:
    """The photos of one visitor, in a separate folder below ``parent``.

    Attributes:
        folder: Holds all files; :meth:`close` deletes it.
    """

    def __init__(self, parent: Path) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="visit-", dir=parent))
        self._photos = _Photos(self.folder, "photos")
        self._others = _Photos(self.folder, "others")
        self._plan: Plan | None = None
        self._pairs: list[tuple[Path, Path]] = []
        self._stop = threading.Event()
        self._busy = threading.Lock()
        _visits.add(self)

    def look(self, dropped: Sequence[Dropped], others: Sequence[Dropped], visibility: str) -> Look:
        """Sorts and checks the dropped files and plans the work; stops work in progress.

        Raises:
            ValueError: There are no photos, or some of them cannot be used.
        """
        self.stop()
        with self._busy:
            self._plan = None
            self._photos.take(dropped)
            self._others.take(others)
            assert self._photos.dataset is not None and self._photos.survey is not None
            plan = self._plan = plan_photos(
                self._photos.dataset,
                self._photos.survey,
                visibility=visibility,
                others=self._others.dataset,
            )
        count = "1 photo" if plan.images == 1 else f"{plan.images:,} photos"
        facts = [count, time_needed(plan.seconds), LOOKS[visibility].lower()]
        notes = [
            f"{note[:1].upper()}{note[1:]}" for note in self._photos.notes + self._others.notes
        ]
        return Look(facts, _for_the_page(plan), notes)

    def protect(self, format: str) -> Iterator[Step | Done]:
        """Learns, writes the copies and packs them, as planned by :meth:`look`.

        Raises:
            Stopped: :meth:`stop` was called.
        """
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
        """Stops the work at its next step."""
        self._stop.set()

    def pair(self, index: int) -> tuple[Path, Path, int]:
        """A photo in a format that browsers show, its copy, and their width in pixels."""
        original, copy = self._pairs[index]
        before = self.folder / "out" / f"before-{index}.png"
        photo = load_photo(original)
        if not before.exists():
            photo.save(before, compress_level=1)
        return before, copy, photo.width

    def say(self, error: BaseException) -> str:
        """Puts an error into a sentence for the page."""
        if isinstance(error, Stopped):
            return "Stopped. Nothing was kept."
        return plain(error, self._photos.folder, self._others.folder)

    def close(self) -> None:
        """Stops the work and deletes all files."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _run(self, format: str, tell: Callable[[Any], None]) -> None:
        try:
            with self._busy:
                self._stop.clear()
                with self._turn(tell):
                    tell(self._protected(format, tell))
        except BaseException as error:
            tell(error)

    @contextlib.contextmanager
    def _turn(self, tell: Callable[[Step], None]) -> Iterator[None]:
        """Waits while another visit is at work."""
        while not _working.acquire(timeout=_SECONDS):
            if self._stop.is_set():
                raise Stopped
            tell(Step("Waiting for the photos in another window"))
        try:
            yield
        finally:
            _working.release()

    def _protected(self, format: str, tell: Callable[[Step], None]) -> Done:
        assert self._plan is not None
        out = self.folder / "out"
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()

        told = _Teller(tell, self._stop)
        told.begin("Learning the change", self._plan.seconds - self._plan.writing)
        method = self._plan.fit(self._photos.dataset, progress=told)
        told.begin("Writing the copies", self._plan.writing)
        copies, names = self._export(method, format, out, told)
        told.begin("Packing the files")
        return Done(*self._pack(method, copies, out), names, self._cautions(method, copies))

    def _cautions(self, method: Method, copies: Path) -> list[str]:
        assert self._plan is not None
        described, _, entries = read_manifest(copies, Seal(method.perturbation_))
        bare = [entry.file for entry in entries if not entry.protected]
        left = described.get("lossy", {}).get("share_left")
        warning = weak(self._plan)
        return cautions(bare, len(entries), left) + ([f"{warning}."] if warning else [])

    def _export(
        self, method: Method, format: str, out: Path, told: _Teller
    ) -> tuple[Path, list[str]]:
        assert self._photos.survey is not None
        full_size = method.perturbation_.resizes(self._photos.survey.sizes)
        protected = method.protect(self._photos.dataset, full_size=full_size)
        _, kind, quality = FORMATS[format]
        mapping = out / "mapping.csv"
        folder = protected.export(
            out / "copies", kind, quality=quality, mapping=mapping, progress=told
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


_visits: weakref.WeakSet[Visit] = weakref.WeakSet()


def stop_all() -> None:
    """Ends all work: threads of the network crash a program that ends before they do."""
    visits = list(_visits)
    for visit in visits:
        visit.stop()
    end = time.monotonic() + _PATIENCE
    for visit in visits:
        if visit._busy.acquire(timeout=max(0.0, end - time.monotonic())):
            visit._busy.release()


def _for_the_page(plan: Plan) -> list[str]:
    """The plan's sentences without those that the page says in other words, or for a terminal."""
    said = (text for text in plan.sentences() if text not in (HINDERS, NOT_HINDERED))
    return [text.replace(", --others FOLDER,", "").replace(GROUPS_TOO, "") for text in said]
