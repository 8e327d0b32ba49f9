"""Rows per image without a download: computed for the images at hand by a shipped surrogate."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from .._version import __version__
from ..data.class_matching import matched_labels
from ..data.fingerprint import digest_of_images
from ..data.raw import RawDataset
from ..engine.checkpoint import STATE, CheckpointError
from ..engine.interrupts import in_words
from ..engine.quantization import dequantized, quantized, save_quantized
from ..engine.sizes import readable_size
from ..errors import ArtefactError
from ..hub.catalogue import Pretrained, rows_cache
from ..io.files import locked, make_folder
from ..io.mapped import delete
from ..perturbation.perturbation import Perturbation
from . import METHODS
from .base import Method
from .learned import SURROGATE

logger = logging.getLogger(__name__)
_LOCKS = ".locks"  # a folder of the cache
_EVERY = 60.0  # seconds between checkpoints


def make_small(method: Method, examples: Any) -> None:
    """Reduces a fitted method to the little that :func:`rows_for` needs.

    The weights of its surrogate are rounded to 8 bits, and rows are kept only for a few images.

    Args:
        method: A fitted method with rows per image.
        examples: A dataset of a few images of the fitted classes.
    """
    assert method.surrogate_ is not None
    surrogate = method.surrogate_
    surrogate.load_state_dict(dequantized(quantized(surrogate.state_dict())))
    source = method.perturbation_.config["source"]
    method.perturbation_ = method.extend(examples, progress=False)
    method.perturbation_.config["source"] = source  # what the surrogate was fitted on


def save_small(method: Method, folder: str | Path) -> Path:
    """Writes such a method, with weights in 8 bits; an existing folder is replaced."""
    assert method.surrogate_ is not None
    folder = method.save_pretrained(folder, force=True)
    save_quantized(folder / SURROGATE, method.surrogate_.state_dict())
    return folder


def surrogate_digest(folder: Path) -> str:
    """BLAKE2b digest of the surrogate's file, as stated in the catalogue."""
    return hashlib.blake2b((folder / SURROGATE).read_bytes(), digest_size=16).hexdigest()


def rows_for(
    entry: Pretrained,
    dataset: Any,
    *,
    device: str | torch.device = "auto",
    progress: bool = True,
    cache_dir: str | Path | None = None,
) -> Perturbation:
    """The rows for a dataset's images, from the cache or computed and cached.

    Args:
        entry: A catalogue entry with a surrogate.
        dataset: Images with labels, of the entry's classes and size.
        device: As in :meth:`Method.fit`.
        progress: Show a progress bar.
        cache_dir: As in :meth:`Perturbation.from_pretrained`.

    Raises:
        ArtefactError: The surrogate is damaged.
        ValueError: Size, classes or labels differ from those that it was fitted on.
    """
    method = _fitted(entry)
    raw = RawDataset(dataset)
    method.check_labelled(dataset)
    method.check_clusters(dataset, method.perturbation_)
    labels = matched_labels(raw.labels, raw.classes, method.perturbation_.config)
    images = digest_of_images(raw.keys, labels)
    made_by = hashlib.blake2b(f"{entry.digest} {entry.surrogate} {__version__}".encode())
    cache = rows_cache(cache_dir)
    place = cache / f"{entry.name}-{made_by.hexdigest()[:16]}-{images}"
    if (found := _kept(place, images)) is not None:
        return found
    with _held(cache / _LOCKS / place.name) as usable:
        if usable and (found := _kept(place, images)) is not None:  # made by another process
            return found
        logger.info("%s: computing rows for %s images, once", entry.name, f"{len(raw):,}")
        with contextlib.suppress(OSError):
            _report_others(cache, f"{entry.name}-*-{images}*", place.name)
        beside = place.with_name(f"{place.name}-checkpoint") if usable else None
        made = _made(method, dataset, beside, device, progress)
        source, strength = (method.perturbation_.config[name] for name in ("source", "strength"))
        if images == source["digest"]:  # it was measured on these very images
            made.config["strength"] = strength
        if beside is None:
            return made
        return _cached(made, place, beside)


def _fitted(entry: Pretrained) -> Method:
    """The method of an entry, whose files were compared with what the catalogue states."""
    cls = next(method for method in METHODS if method.__name__ == entry.method)
    found = surrogate_digest(entry.folder)
    if found != entry.surrogate:
        raise ArtefactError(
            f"expected the surrogate {entry.surrogate} stated in the catalogue, got {found} in "
            f"{entry.folder}; reinstall the package"
        )
    method = cls.from_pretrained(entry.folder)
    if method.perturbation_.digest != entry.digest:
        raise ArtefactError(
            f"expected the digest {entry.digest} stated in the catalogue, got "
            f"{method.perturbation_.digest} in {entry.folder}; reinstall the package"
        )
    return method


def _made(
    method: Method, dataset: Any, beside: Path | None, device: str | torch.device, progress: bool
) -> Perturbation:
    """Rows for images; a folder beside their place, if any, keeps them should they be stopped."""
    rows_in = functools.partial(_rows, method, dataset, device, progress)
    try:
        if beside is None:
            return rows_in(None)
        try:
            return rows_in(beside)
        except OSError as error:
            if not str(error.filename or "").startswith(str(beside)):
                raise  # of the images
            logger.warning("what is computed is not kept meanwhile (%s)", error)
            return rows_in(None)
    except KeyboardInterrupt as interrupt:
        kept = beside is not None and (beside / STATE).exists()
        rest = "the rows made so far are kept: run the same again to continue"
        interrupt.args = (f"{in_words(type(interrupt))}; {rest if kept else 'nothing was kept'}",)
        raise


def _rows(
    method: Method, dataset: Any, device: str | torch.device, progress: bool, beside: Path | None
) -> Perturbation:
    """Rows for images, continued or, where that cannot be, from the start."""
    options: dict[str, Any] = {"device": device, "progress": progress}
    if beside is not None:
        options |= {"checkpoint": beside, "checkpoint_every": _EVERY, "keep_checkpoint": True}
    try:
        return method.extend(dataset, **options)
    except (CheckpointError, FileExistsError, NotADirectoryError) as error:
        if beside is None:
            raise
        # Damaged, or made in another precision on another machine: a cache heals itself.
        logger.warning("rows that an earlier call began cannot be continued, and begin again")
        logger.info("%s", error)
        delete(beside)
        return method.extend(dataset, **options)


def _cached(made: Perturbation, place: Path, beside: Path) -> Perturbation:
    """The same rows, read from the cache; what stood beside them until they are there goes."""
    try:
        try:
            made.save_pretrained(place, force=True)
        except OSError:
            delete(beside)  # there may be room for one of both
            made.save_pretrained(place, force=True)
    except OSError as error:
        logger.warning("rows are not cached (%s)", error)
        return made
    shutil.rmtree(beside, ignore_errors=True)
    return Perturbation.from_pretrained(place)


def _report_others(cache: Path, pattern: str, ours: str) -> None:
    """Names what other versions of the package left for these images; they may still be in use."""
    for other in sorted(cache.glob(pattern)):
        if other.is_dir() and not other.name.startswith(ours):
            size = sum(file.stat().st_size for file in other.rglob("*"))
            logger.warning(
                "%s is of another version of this package and not read by this one: delete it to "
                "free %s",
                other,
                readable_size(size),
            )


@contextlib.contextmanager
def _held(lock: Path) -> Iterator[bool]:
    """Holds rows against other processes that make the same; false where none can be kept."""
    with contextlib.ExitStack() as held:
        usable = True
        try:
            held.enter_context(locked(make_folder(lock), wait=True))
        except OSError as error:
            logger.warning("rows are not cached: %s", error)
            usable = False
        yield usable


def _kept(place: Path, images: str) -> Perturbation | None:
    """What an earlier call left in the cache for these images; None where nothing sound is."""
    try:
        found = Perturbation.from_pretrained(place)
        found.verify()
    except (ArtefactError, OSError):
        return None
    return found if found.config["source"]["digest"] == images else None
