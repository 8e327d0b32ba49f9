"""What surrounds an algorithm while it learns: processes, images, rows, checkpoints."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import tempfile
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from .._version import __version__
from ..data.cache import ImageStore, bytes_of_images, read_images
from ..engine.checkpoint import STATE, Checkpoint
from ..engine.device import pick_device
from ..engine.distributed import Group
from ..engine.estimate import duration
from ..engine.interrupts import in_words
from ..engine.memory import memory_of_host
from ..engine.precision import check_precision
from ..engine.prefetch import ImageSource, StreamedImages
from ..engine.progress import Progress
from ..engine.run import Run
from ..io.mapped import delete
from ..perturbation.perturbation import Perturbation
from ..perturbation.quantize import Levels
from ..perturbation.visibility import with_mask
from .checkpoint_folder import ROW_FILE, claimed_checkpoint, remove_checkpoint
from .learned import Learned, fingerprint_of
from .masks import masks_of
from .row_buffer import RowBuffer, RowFile
from .work import work_of_fit

logger = logging.getLogger(__name__)
_HOST_SHARE = 0.25  # of the machine's memory that images, and again rows, may take
_DEVICE_SHARE = 0.2  # of a GPU's free memory, likewise
_ROWS_IN_MEMORY = 1 << 30  # bytes of rows above which a perturbation keeps them in a file


class FitOptions(NamedTuple):
    """Arguments of :meth:`Method.fit` on where, how fast and how safely a fit works."""

    image_size: int | Sequence[int] | None
    visibility: str | None
    device: str | torch.device
    precision: str
    compile: bool
    checkpoint: str | Path | None
    checkpoint_every: float
    keep_checkpoint: bool
    store: str | Path | None
    resident: bool | None
    profile: bool
    progress: bool | Callable[[float], None]
    callback: Callable[[dict[str, Any]], None] | None


class FitSession(contextlib.AbstractContextManager["FitSession"]):
    """One fit, from the dataset to its perturbation; a context manager for all that it opens.

    Attributes:
        images: The dataset, decoded.
        budget: Epsilon in [0, 1] units and norm, which the result respects.
        run: The run passed to the algorithm.
    """

    def __init__(self, method: Learned, dataset: Any, options: FitOptions) -> None:
        self._method = method
        self._title = type(method).__name__
        self._options = options
        self._group = Group.join()
        self._device = self._group.own_device(pick_device(options.device))
        self._precision = check_precision(options.precision)
        first = self._group.rank == 0
        self._show = options.progress is True and first
        self._listener = options.progress if callable(options.progress) and first else None
        self._file: RowFile | None = None
        self._rows: RowBuffer | None = None
        self._lock = contextlib.ExitStack()
        method.check_labelled(dataset)
        self._checkpoint: Checkpoint | None = None
        self._start = time.monotonic()
        with self._explained(), contextlib.ExitStack() as self._cleanup:
            self._resident = self._decide(dataset)
            self._scratch = self._make_scratch()
            self.images = self._read(dataset)
            shape = self.images.images.shape[1:]
            method._check_moves(shape)  # before anything is made for the fit
            self.budget = method._budget(shape)
            folder = self._claim()
            if method._has_rows:
                self._rows = self._make_rows(folder or self._scratch)
            self.run = self._make_run(folder)
            self._cleanup = self._cleanup.pop_all()  # all went well: kept until the end

    def __exit__(self, *exc_info: Any) -> None:
        self._explain(exc_info[1])
        with self._explained():
            self._cleanup.__exit__(*exc_info)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except KeyboardInterrupt as interrupt:
            self._explain(interrupt)
            raise

    def _explain(self, error: BaseException | None) -> None:
        """Gives Ctrl-C, or SIGTERM, the words that it comes without: what is kept, and how."""
        if not isinstance(error, KeyboardInterrupt) or str(error):
            return
        after = f"{in_words(type(error))} after {duration(time.monotonic() - self._start)}"
        folder = self._options.checkpoint
        if self._checkpoint is not None:
            error.args = (f"{after}{self._checkpoint.what_is_kept}",)
        elif folder is None:
            error.args = (
                f"{after}, and nothing was kept; pass checkpoint= (--checkpoint FOLDER) next time "
                f"to be able to continue",
            )
        elif (Path(folder) / STATE).exists():
            again = "run the same again to continue from there"
            error.args = (f"{after}; the checkpoint in {folder} is kept: {again}",)
        else:
            error.args = (f"{after}, before the first checkpoint in {folder}; start again",)

    def _decide(self, dataset: Any) -> bool:
        size = bytes_of_images(dataset, self._options.image_size)
        on_gpu = self._device.type == "cuda"
        limit = host = _HOST_SHARE * memory_of_host() / self._group.size_here()
        if on_gpu:
            limit = _DEVICE_SHARE * torch.cuda.mem_get_info(self._device)[0]
        resident = size <= limit if self._options.resident is None else self._options.resident
        resident = not self._group.max(int(not resident))  # all processes alike
        in_memory = self._options.store is None and (resident or (on_gpu and size <= host))
        self._in_memory = not self._group.max(int(not in_memory))
        if not resident:
            streamed = f"{size / 1e9:.1f} GB of images are streamed"
            logger.info("%s: %s, not held on the %s", self._title, streamed, self._device.type)
        return resident

    def _make_scratch(self) -> Path | None:
        """A folder that all processes see and that goes when the fit ends."""
        if self._resident and self._in_memory and self._group.size == 1:
            return None
        folder = None
        if self._group.rank == 0:
            folder = tempfile.mkdtemp(prefix="unlearnable-")
            self._cleanup.callback(_remove_own, folder, os.getpid())
        return Path(self._group.share(folder))

    def _read(self, dataset: Any) -> ImageStore:
        image_size, show = self._options.image_size, self._show or self._listener is not None
        if self._in_memory:
            images = read_images(dataset, image_size, progress=show)
        else:
            assert self._scratch is not None
            store = Path(self._options.store or self._group.shared(self._scratch) / "images")
            with self._group.rank_zero_first():
                images = read_images(dataset, image_size, folder=store, progress=show)
        if self._group.share(images.digest) != images.digest:
            raise ValueError(
                "expected the same dataset in all processes, got different ones; pass the "
                "same images in the same order"
            )
        return images

    def _claim(self) -> Path | None:
        """The checkpoint's folder, new or of this very fit."""
        if self._options.checkpoint is None:
            return None
        folder, images = Path(self._options.checkpoint), self.images
        kept = getattr(self._method, "pretrained_surrogate", True)
        described = {
            "format": "unlearnable-checkpoint",
            **self._method._identity,
            "surrogate": fingerprint_of(getattr(self._method, "surrogate", None), kept=kept),
            "version": __version__,
            "dataset": images.digest,
            "shape": list(images.images.shape),
            "fit": None if images.fit is None else list(images.fit),
            "precision": self._precision,
        }
        described = with_mask(described, self._options.visibility)
        with self._group.rank_zero_first() as first:
            if first:
                row_bytes = images.images.numel() if self._method._has_rows else None
                self._lock = self._cleanup.enter_context(contextlib.ExitStack())
                self._lock.enter_context(claimed_checkpoint(folder, described, row_bytes))
        return self._group.shared(folder)

    def _make_rows(self, folder: Path | None) -> RowBuffer:
        shape, (epsilon, norm) = tuple(self.images.images.shape), self.budget
        assert epsilon is not None and norm is not None
        if folder is not None:
            path = self._group.shared(folder) / ROW_FILE
            with self._group.rank_zero_first():  # one process makes the file, the others open it
                self._file = RowFile(path, shape, rank=self._group.rank)
            self._cleanup.callback(self._file.close)
        return RowBuffer(
            shape, epsilon, norm, self._device, file=self._file, resident=self._resident
        )

    def _make_run(self, folder: Path | None) -> Run:
        first = self._group.rank == 0
        if self._resident:
            images: ImageSource = self.images.images.to(self._device)
        else:
            images = StreamedImages(self.images.images, self._device)
            self._cleanup.callback(images.close)
        checkpoint = None
        if folder is not None:
            every = self._options.checkpoint_every
            checkpoint = Checkpoint(folder, self._rows, self._group, every=every)
            self._checkpoint = self._cleanup.enter_context(checkpoint)
        size = self.images.images.numel() if self._resident else 0
        held = size * (1 if self._rows is None else 2)  # rows take as much as images
        described = with_mask({}, self._options.visibility)
        progress = Progress(
            show=self._show,
            title=self._title,
            profile=self._options.profile,
            listener=self._listener,
            passes=self._method.passes(len(self.images.images)),
        )
        run = Run(
            images,
            self.images.labels.to(self._device),
            self.images.num_classes,
            rows=self._rows,
            mask=masks_of(described, self.images.images, self._device, resident=self._resident),
            seed=self._method.seed,
            precision=self._precision,
            compile=self._options.compile,
            group=self._group,
            checkpoint=checkpoint,
            work=work_of_fit(self._method, held, len(self.images.images)),
            progress=progress,
            callback=self._options.callback if first else None,
        )
        if checkpoint is not None and checkpoint.number and first:
            logger.info("%s: continuing from checkpoint %d", self._title, checkpoint.number)
        self._cleanup.callback(run.close)
        return run

    def end(self) -> None:
        """Saves the finished state after the algorithm, if requested."""
        self.run.finish()
        if self._options.keep_checkpoint and self._options.checkpoint is not None:
            self.run.save()
        if self._checkpoint is not None:
            self._checkpoint.end_if_asked(self.run.save)

    def levels(self) -> Levels:
        """All rows after the algorithm; raises ``RuntimeError`` if it left images out."""
        assert self._rows is not None
        missed = len(self.images.images) - int(self.run.sum(self._rows.written.sum()))
        if missed:
            raise RuntimeError(f"{self._title} left {missed} images without a row")
        alone = self._resident and self._group.size == 1  # else others' rows are in the file too
        levels = self._rows.levels(from_file=not alone)
        self._group.wait()
        return np.array(levels) if self._resident and not alone else levels

    def keep(self, perturbation: Perturbation) -> Perturbation:
        """Moves the perturbation's rows to where they can stay and ends the checkpoint."""
        if perturbation.nbytes > _ROWS_IN_MEMORY or not (self._resident or self._rows is None):
            perturbation = self._own(perturbation)
        if self._checkpoint is not None:  # all processes have read what is deleted here
            self._checkpoint.end_if_asked(self.run.save)
        self._group.wait()
        folder = self._options.checkpoint
        if folder is not None and self._group.rank == 0 and not self._options.keep_checkpoint:
            self._lock.close()
            if self._file is not None:
                self._file.close()
            try:
                remove_checkpoint(folder)
            except OSError as error:  # what was learned is worth more
                logger.warning("%s: %s stays, delete it (%s)", self._title, folder, error)
        return perturbation

    def _own(self, perturbation: Perturbation) -> Perturbation:
        """The same in a temporary artefact that is deleted with the perturbation."""
        made, problem = None, None
        if self._group.rank == 0:
            folder = self._options.checkpoint
            beside = None if folder is None else Path(folder).parent
            made = tempfile.mkdtemp(prefix="unlearnable-", dir=beside)
            try:
                perturbation.save_pretrained(made)
            except OSError as error:
                shutil.rmtree(made, ignore_errors=True)
                problem = error
        made, problem = self._group.share((made, problem))
        if problem is not None:
            if not self._resident:
                raise problem
            logger.warning("%s: rows stay in memory (%s)", self._title, problem)
            return perturbation
        owned = Perturbation.from_pretrained(made)
        if self._group.rank == 0:
            weakref.finalize(owned, _remove_own, made, os.getpid())
        return owned


def _remove_own(folder: str, process: int) -> None:
    if os.getpid() == process:  # forked workers hold copies of what it belongs to
        with contextlib.suppress(OSError):
            delete(Path(folder))
