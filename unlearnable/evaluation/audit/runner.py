"""Does the protection hold? One artefact against all countermeasures, resumable, with a report."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import logging
import platform
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import torchvision

from ..._version import __version__
from ...data.cache import ImageStore
from ...engine.estimate import Estimate, duration
from ...engine.memory import free_memory
from ...engine.models import check_model_name
from ...engine.numbers import number
from ...engine.recipes import STANDARD
from ...perturbation.perturbation import Perturbation
from ...protected.dataset import ProtectedDataset
from ..countermeasures.adaptive import adaptive_countermeasures, who_can_undo
from ..countermeasures.base import Countermeasure, NoCountermeasure
from ..countermeasures.names import countermeasure
from ..countermeasures.sets import ADAPTIVE, SETS, STANDARD_SET
from ..evaluate import check_victim, train_victims
from ..report.figures import Cell, percent
from ..report.report import AuditReport
from ..training import Training
from ..work import memory_of_audit
from .cells import Ledger, PlannedCell, open_ledger, plan
from .data import AuditData, read_audit_data
from .timing import Clock, probe

_BY_DEFAULT = ("standard", ADAPTIVE)
logger = logging.getLogger(__name__)


def audit(
    dataset: Any,
    perturbation: Perturbation | None = None,
    test: Any = None,
    *,
    victims: str | Sequence[str] = ("resnet18",),
    countermeasures: str | Countermeasure | Sequence[str | Countermeasure] = _BY_DEFAULT,
    epochs: int = 60,
    seeds: int | Iterable[int] = 1,
    batch_size: int = 128,
    peak_images: int | None = None,
    image_size: int | Sequence[int] | None = None,
    held_out: float = 0.2,
    folder: str | Path | None = None,
    device: str | torch.device = "auto",
    precision: str = "auto",
    progress: bool = True,
) -> AuditReport:
    """Trains victims with every countermeasure on protected and, for comparison, on clean images.

    The time and memory needed are estimated and logged before it starts, and the remaining time
    after each cell. All arguments are checked before the first victim trains. Both datasets are
    read once and kept in memory; without ``test``, the dataset is read twice, first to split it.
    A victim whose training diverges is left out of the figures, and the report says so; the next
    start with the same folder tries it again.

    Args:
        dataset: The clean dataset, or a :class:`ProtectedDataset`, which carries its perturbation.
        perturbation: The perturbation that protects a clean dataset.
        test: Clean test images. If omitted, a share ``held_out`` of the dataset is held out for all
            cells; images are chosen by their content.
        victims: Names of networks.
        countermeasures: Names, objects of :mod:`unlearnable.evaluation.countermeasures`, and sets
            of them: ``"standard"``, ``"strong"``, and ``"adaptive"``, countermeasures that know
            this kind of perturbation (:func:`adaptive_countermeasures`). ``"none"`` always comes
            first.
        epochs: Passes of every victim over the training images.
        seeds: Number of victims of each kind (seeds 0, 1, …), or the seeds themselves.
        batch_size: Images per step, rounded down to a multiple of 8, at least 8.
        peak_images: Number of test images on which accuracy is measured after each epoch; see
            :func:`evaluate`.
        image_size: Size to which images are resized and cropped if their sizes vary; by default
            that of the perturbation.
        held_out: Share of the images held out for testing if there is no ``test``.
        folder: Stores every finished cell and the report. If started again, the audit continues
            from there; countermeasures, victims or seeds may be added. Cells of another version of
            this package are refused.
        device: ``"auto"``, ``"cpu"``, ``"cuda"``, …
        precision: As for :func:`evaluate`.
        progress: Show progress bars if standard error is a terminal.

    Raises:
        ValueError: An argument is out of range, the datasets do not match, or the folder contains
            another audit.
        UnknownImageError: The perturbation does not belong to the dataset.
        FloatingPointError: The training of every victim diverged.
    """
    known = dataset.perturbation if isinstance(dataset, ProtectedDataset) else perturbation
    knowing = adaptive_countermeasures(known) if isinstance(known, Perturbation) else ()
    names, counters = _victims(victims), _counters(countermeasures, knowing)
    training = Training.checked(STANDARD, epochs, seeds, batch_size, peak_images, device, precision)
    training = training._replace(seeds=list(dict.fromkeys(training.seeds)))
    for counter, name in itertools.product(counters, names):
        counter.check_victim(name)
    held_out = number("held_out", held_out)
    data = read_audit_data(
        dataset, perturbation, test, held_out=held_out, image_size=image_size, progress=progress
    )
    for name in names:
        check_victim(name, data.clean)
    for counter in counters:
        counter.on_dataset(data.given)  # refuses what it cannot choose from
    cells = plan(counters, names, training.seeds)
    settings = {
        "epochs": training.epochs,
        "batch_size": training.batch_size,
        "peak_images": training.peak_images,
        "image_size": None if data.image_size is None else list(data.image_size),
        "precision": training.precision,
    }
    with open_ledger(folder, data.identity | settings, counters) as ledger:
        report = _empty_report(data, counters, names, training, settings, len(cells))
        todo = [cell for cell in cells if cell not in ledger]
        diverged: dict[str, str] = {}
        for tried in _measured(todo, cells, ledger, diverged, data, training, progress):
            if folder is not None and tried is not todo[-1]:
                _with_cells(report, cells, ledger, diverged).save(folder)
        report = _with_cells(report, cells, ledger, diverged)
        if diverged and not report.cells:
            raise FloatingPointError(next(iter(diverged.values())))
        if folder is not None:
            report.save(folder)
    return report


def _measured(
    todo: Sequence[PlannedCell],
    cells: Sequence[PlannedCell],
    ledger: Ledger,
    diverged: dict[str, str],
    data: AuditData,
    training: Training,
    progress: bool,
) -> Iterator[PlannedCell]:
    """Measures one cell after the other, and gives each when it is in the ledger.

    If the training of one diverges, what was wrong is in ``diverged`` instead.
    """
    if not todo:
        return
    clock = Clock(cells, ledger)
    measure = functools.partial(measure_cell, training=training)
    probe(clock, todo, data, measure, epochs=training.epochs, batch_size=training.batch_size)
    _estimate(todo, cells, clock, data, training).say()
    for done, planned in enumerate(todo, 1):
        counter = planned.countermeasure
        train = data.training_images(planned.trained_on, counter, training.device)
        try:
            cell = measure(planned, train, data.test, training.epochs, progress=progress)
        except FloatingPointError as error:
            diverged[planned.key] = str(error)
            logger.warning(f"{planned.key}: {error}; the audit goes on without it")
            yield planned
            continue
        place = _machine(training.device) | cell.machine
        ledger.put(planned, dataclasses.replace(cell, machine=place))
        clock.took(planned, cell.seconds)
        left = todo[done:]
        rest = f"about {duration(clock.left(left))} left" if left else "done"
        logger.info(
            f"{len(cells) - len(left)} of {len(cells)}: {planned.key}: {percent(cell.peak)} peak "
            f"accuracy, {percent(cell.last)} at the end; {rest}"
        )
        yield planned


def _estimate(
    todo: Sequence[PlannedCell],
    cells: Sequence[PlannedCell],
    clock: Clock,
    data: AuditData,
    training: Training,
) -> Estimate:
    """What the cells that are left are going to take."""
    held = sum(store.images.nbytes for store in (data.clean, data.protected, data.test))
    victims = {cell.victim for cell in todo}
    memory = memory_of_audit(data.clean, held, victims, training)
    return Estimate(
        f"audit of {data.given.perturbation.config['method']} on {data.dataset['name']}",
        f"{len(todo)} of {len(cells)} cells",
        clock.left(todo),
        memory,
        held + free_memory(training.device),
        ["To save time, use fewer countermeasures or epochs, or smaller victims."],
    )


def measure_cell(
    planned: PlannedCell,
    train: ImageStore,
    test: ImageStore,
    epochs: int,
    *,
    training: Training,
    progress: bool = False,
) -> Cell:
    """Trains and tests one victim."""
    start = time.perf_counter()
    counter, victim, seed = planned.countermeasure, planned.victim, planned.seed
    training = training._replace(epochs=epochs, seeds=[seed])
    found = train_victims(train, test, victim, counter, training, progress=progress)
    reached = (found.last[0], found.peak[0], found.train[0], found.curves[0])
    seconds = round(time.perf_counter() - start, 3)
    precision = {"precision": found.precisions[0]}
    return Cell(planned.trained_on, counter.name, victim, seed, *reached, seconds, precision)


def _empty_report(
    data: AuditData,
    counters: Sequence[Countermeasure],
    victims: list[str],
    training: Training,
    settings: dict[str, Any],
    planned: int,
) -> AuditReport:
    """What a report says before any cell was measured."""
    fitted = data.given.perturbation
    about = {"parameters": fitted.config["parameters"], "who_can_undo": who_can_undo(fitted)}
    knowing = {counter.name for counter in adaptive_countermeasures(fitted)} - set(STANDARD_SET)
    return AuditReport(
        perturbation=fitted.info() | about,
        dataset=data.dataset,
        test=data.tested,
        settings=settings,
        countermeasures=[
            {
                "name": counter.name,
                "description": counter.description,
                "parameters": counter.parameters,
                "needs_clean": counter.needs_clean_images,
                "adaptive": counter.knows_method or counter.name in knowing,
            }
            for counter in counters
        ],
        victims=victims,
        seeds=training.seeds,
        cells=[],
        planned=planned,
        change=data.change(),
        change_by_class=data.change_by_class(),
        examples=data.examples(),
        machine=_machine(training.device),
    )


def _with_cells(
    report: AuditReport, cells: Sequence[PlannedCell], ledger: Ledger, diverged: dict[str, str]
) -> AuditReport:
    measured = [ledger[cell] for cell in cells if cell in ledger]
    return dataclasses.replace(report, cells=measured, diverged=diverged, date=ledger.date)


def _machine(place: torch.device) -> dict[str, Any]:
    on_gpu = place.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(place) if on_gpu else platform.machine(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "unlearnable": __version__,
    }


def _victims(victims: str | Sequence[str]) -> list[str]:
    names = [victims] if isinstance(victims, str) else victims
    named = isinstance(names, Sequence) and all(isinstance(name, str) for name in names)
    if not named:
        raise ValueError(f"expected names of networks as victims, got {victims!r}")
    names = list(dict.fromkeys(names))
    if not names:
        raise ValueError(
            'expected names of victims, got none; pass at least one, such as "resnet18"'
        )
    for name in names:
        check_model_name(name)
    return names


def _counters(
    chosen: str | Countermeasure | Sequence[str | Countermeasure],
    knowing: Sequence[Countermeasure],
) -> list[Countermeasure]:
    """Each once, the training without any first; ``knowing`` are those of the adaptive set."""
    if isinstance(chosen, (str, Countermeasure)):
        chosen = [chosen]
    counters = {"none": countermeasure(None)}
    own: dict[str, Countermeasure] = {}
    for name in chosen:
        if isinstance(name, str) and (name in SETS or name == ADAPTIVE):
            of_set = knowing if name == ADAPTIVE else map(countermeasure, SETS[name])
            for counter in of_set:
                counters.setdefault(counter.name, counter)
            continue
        counter = countermeasure(name)
        known = own.setdefault(counter.name, counter)
        if known != counter:
            raise ValueError(
                f"expected countermeasures with different names, got {counter.name} as {known!r} "
                f"and as {counter!r}; keep one of them, or give one another name"
            )
        if counter.name == "none" and not isinstance(counter, NoCountermeasure):
            raise ValueError(
                f'expected another name than "none", with which the others are compared, for '
                f"{counter!r}"
            )
        counters[counter.name] = counter  # before one of a set
    return list(counters.values())
