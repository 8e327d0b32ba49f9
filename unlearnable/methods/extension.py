"""Rows for new images: a sweep of the fitted surrogate over them, which can be interrupted."""

from __future__ import annotations

import contextlib
import copy
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .._version import __version__
from ..data.cache import ImageStore, read_images
from ..data.class_matching import matched_labels
from ..engine.checkpoint import Checkpoint
from ..engine.device import pick_device
from ..engine.distributed import Group
from ..engine.interrupts import in_words
from ..engine.precision import as_fitted
from ..engine.progress import Progress
from ..engine.run import Run
from ..perturbation.perturbation import Perturbation
from ..perturbation.quantize import Result
from .checkpoint_folder import ROW_FILE, claimed_checkpoint, remove_checkpoint
from .learned import Learned, fingerprint_of
from .masks import masks_of
from .row_buffer import RowBuffer, RowFile

logger = logging.getLogger(__name__)


class ExtensionOptions(NamedTuple):
    """Arguments of :meth:`Method.extend` on where, how fast and how safely it works."""

    device: str | torch.device
    precision: str
    checkpoint: str | Path | None
    checkpoint_every: float
    keep_checkpoint: bool
    progress: bool


def extension(
    method: Learned,
    perturb: Callable[[Run, Tensor, Any], Tensor],
    dataset: Any,
    options: ExtensionOptions,
) -> tuple[Perturbation, Result, ImageStore]:
    """The perturbation for new images, its rows, and the images.

    Args:
        method: A fitted method with rows per image.
        perturb: Makes the rows of a batch, with the fitted surrogate.
        dataset: The new images.
        options: See :class:`ExtensionOptions`.

    Raises:
        ValueError: Images or classes do not match, or the checkpoint is of something else.
        OSError: The checkpoint cannot be written.
        KeyboardInterrupt: Ctrl-C was pressed; with a checkpoint, the rows made so far are kept.
    """
    fitted = method.perturbation_
    images = _new_images(dataset, fitted, options.progress)
    below, *on_top = fitted.parts
    place = pick_device(options.device)
    precision = as_fitted(
        options.precision, fitted.config.get("precision", options.precision), place
    )
    surrogate = copy.deepcopy(method.surrogate_)
    with _storage(method, images, precision, place, options) as (rows, checkpoint):
        run = Run(
            images.images.to(place),
            images.labels.to(place),
            images.num_classes,
            rows=rows,
            mask=masks_of(below.config, images.images, place, resident=True),
            # New images get draws of their own, not those of the first fitted ones.
            seed=(method.seed, images.digest),
            precision=precision,
            progress=Progress(show=options.progress, title=type(method).__name__),
            checkpoint=checkpoint,
        )
        try:
            if surrogate is not None:
                run.track(surrogate=surrogate)
            for index in run.sweep(method.batch_size, title="extend"):
                run.rows[index] = perturb(run, index, surrogate)
            run.finish()
            if checkpoint is not None:
                if options.keep_checkpoint:
                    _keep(run)
                checkpoint.end_if_asked(run.save)
        except KeyboardInterrupt as interrupt:
            if not str(interrupt):  # it comes without words
                kept = ", and nothing was kept; pass checkpoint= to extend"
                kept = kept if checkpoint is None else checkpoint.what_is_kept
                interrupt.args = (f"{in_words(type(interrupt))}{kept}",)
            raise
        finally:
            run.close()
        levels = rows.levels(from_file=False)
    if options.checkpoint is not None and not options.keep_checkpoint:
        try:
            remove_checkpoint(options.checkpoint)
        except OSError as error:  # what was made is worth more
            logger.warning("%s stays, delete it (%s)", options.checkpoint, error)
    result = Result("additive", {"rows": levels}, {})
    asked = options.precision != "auto"
    origin = {
        "device": run.device.type,
        "precision": run.precision,
        "precision_reason": run.precision_reason if asked else "that of the fit, where it can be",
    }
    made = Perturbation.from_fit(result, images, below.config | origin).below(on_top)
    return made, result, images


def _keep(run: Run) -> None:
    try:
        run.save()
    except OSError as error:  # what was made is worth more
        logger.warning("the finished rows are not kept in the checkpoint (%s)", error)


@contextlib.contextmanager
def _storage(
    method: Learned,
    images: ImageStore,
    precision: str,
    place: torch.device,
    options: ExtensionOptions,
) -> Iterator[tuple[RowBuffer, Checkpoint | None]]:
    """Where rows go: memory, and with a checkpoint also a file that follows it."""
    shape = tuple(images.images.shape)
    epsilon, norm = method._budget(shape[1:])
    assert epsilon is not None and norm is not None
    if options.checkpoint is None:
        yield RowBuffer(shape, epsilon, norm, place), None
        return
    described = {
        "format": "unlearnable-checkpoint",
        **method._identity,
        "surrogate": fingerprint_of(method.surrogate_, kept=True),
        "extended": method.perturbation_.digest,
        "version": __version__,
        "dataset": images.digest,
        "shape": list(shape),
        "precision": precision,
    }
    folder = Path(options.checkpoint)
    with contextlib.ExitStack() as opened:
        opened.enter_context(claimed_checkpoint(folder, described, images.images.numel()))
        file = RowFile(folder / ROW_FILE, shape)
        opened.callback(file.close)
        rows = RowBuffer(shape, epsilon, norm, place, file=file)
        checkpoint = Checkpoint(folder, rows, Group(), every=options.checkpoint_every)
        yield rows, opened.enter_context(checkpoint)


def _new_images(dataset: Any, fitted: Perturbation, progress: bool) -> ImageStore:
    """New images to extend a fitted perturbation to; their classes are its own."""
    images = read_images(dataset, fitted.fit_size, progress=progress)
    config = fitted.config
    if list(images.images.shape[1:]) != config["image_shape"]:
        found = tuple(images.images.shape[1:])
        mode = "RGB" if config["image_shape"][0] == 3 else "L"
        alike = list(found[1:]) == config["image_shape"][1:]
        advice = f'convert them with convert("{mode}")' if alike else "resize them"
        raise ValueError(
            f"expected images of the fitted shape {tuple(config['image_shape'])}, got "
            f"{found}; {advice}"
        )
    labels = torch.from_numpy(matched_labels(images.labels.numpy(), images.classes, config))
    return images._replace(
        labels=labels, classes=config["classes"], num_classes=config["num_classes"]
    )
