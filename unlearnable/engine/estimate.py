"""What work is going to take, time and memory, said before its first step."""

from __future__ import annotations

import itertools
import logging
import math
import statistics
import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .memory import free_memory
from .precision import Pace

LONG = 3600  # seconds from which on work warns
_TINY = 10**8  # pixel values in all passes below which nothing is measured or said
_WEIGHTS = 4  # times the weights: gradients, momentum and the copy for searches, too
_INPUTS = 6  # times a batch of images: as they are seen, what is added, and gradients of both

logger = logging.getLogger(__name__)


class Work(NamedTuple):
    """The work to be done, as far as it is known before there is a network.

    Attributes:
        title: Name of the work, such as ``"SEM"``.
        network: The user's name for the network.
        passes: Forward and backward image passes of all processes.
        batch: Largest number of images that a network learns from at once.
        searched: Largest number of images that a search sees at once; 0 if there is no search.
        held: Bytes of images and rows held in memory.
        advice: Function from the seconds per pass to sentences on how to save time.
    """

    title: str
    network: str
    passes: int
    batch: int
    searched: int = 0
    held: int = 0
    advice: Callable[[float], Sequence[str]] = lambda seconds: ()

    def is_tiny(self, values: int) -> bool:
        """Whether it would finish before it could be measured; ``values`` are those of an image."""
        return self.passes * values < _TINY


class Estimate(NamedTuple):
    """Expected time and memory of some work.

    Attributes:
        title: Name of the work.
        work: Description of the work.
        seconds: Time, or None if unknown.
        memory: Bytes.
        free: Available bytes.
        advice: Sentences added to a warning.
    """

    title: str
    work: str
    seconds: float | None
    memory: float
    free: float
    advice: Sequence[str] = ()

    def __str__(self) -> str:
        time = "" if self.seconds is None else f"{duration(self.seconds)} and "
        return f"{self.title}: {self.work}, about {time}{gigabytes(self.memory)} here"

    def say(self) -> None:
        """Logs one line; warns if it exceeds an hour or the available memory."""
        logger.info("%s", self)
        long = self.seconds is not None and self.seconds > LONG
        large = self.memory > self.free
        if not (long or large):
            return
        problem = f"; only {gigabytes(self.free)} of memory are available" if large else ""
        advice = list(self.advice)
        if large:
            advice.append("To save memory, use a smaller batch_size, image_size or network.")
        if long and not torch.cuda.is_available():
            advice.append('A GPU (device="cuda") does many times more passes per second.')
        warnings.warn(" ".join([f"{self}{problem}.", *advice]), stacklevel=2)


def estimate(
    work: Work,
    network: nn.Module,
    images: Tensor,
    precision: str,
    pace: Pace | None,
    kept: float,
    processes: int = 1,
    here: int = 1,
) -> Estimate:
    """Estimates time and memory of work with a network.

    Args:
        work: The remaining work.
        network: The network, on its device.
        images: Some of the images, float (B, C, H, W).
        precision: Precision of the passes.
        pace: The measured pace, or None.
        kept: Bytes that a batch keeps for its gradients.
        processes: Number of processes that share the work.
        here: Number of processes that share this machine's memory.
    """
    seconds = None
    if pace is not None:
        # Which passes are of a search is not known: an even share of both is never far off.
        each = statistics.fmean(pace) if work.searched else pace.training
        seconds = each * work.passes / processes
    batch = max(work.batch, work.searched)
    memory = work.held + memory_of(network, images, batch, kept)
    free = work.held + free_memory(images.device, here)
    text = f"{work.passes:,} image passes of {work.network} in {precision}"
    advice = () if seconds is None else work.advice(each / processes)
    return Estimate(work.title, text, seconds, memory, free, advice)


def memory_of(network: nn.Module, images: Tensor, batch: int, kept: float) -> float:
    """Bytes that steps with a network take; arguments as above, plus the images per step."""
    weights = sum(t.nbytes for t in itertools.chain(network.parameters(), network.buffers()))
    return kept + _WEIGHTS * weights + _INPUTS * batch * images[0].nbytes


def duration(seconds: float) -> str:
    """Formats a time: 40 s, 12 min, 3.5 h, 2.1 days."""
    if seconds < 90:
        return f"{math.ceil(seconds)} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.1f} days"


def gigabytes(size: float) -> str:
    """Formats bytes as gigabytes: 0.4 GB, 12 GB."""
    return f"{size / 1e9:.0f} GB" if size >= 1e10 else f"{max(0.1, size / 1e9):.1f} GB"
