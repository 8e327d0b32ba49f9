"""What evaluations and audits are going to do, for the estimate before their first step."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

from torch import nn

from ..data.cache import ImageStore
from ..engine.distributed import Group
from ..engine.estimate import Work, memory_of
from ..engine.models import build_model
from ..engine.networks import Networks
from .countermeasures.base import Countermeasure
from .training import Training

_FORWARD = 1 / 3  # of a pass, forward and backward


def work_of_victims(
    learned: ImageStore,
    tested: ImageStore,
    victim: str | nn.Module,
    counter: Countermeasure,
    training: Training,
) -> Work:
    """The work of all victims of an evaluation."""
    name = victim if isinstance(victim, str) else type(victim).__name__
    watched = min(training.peak_images or len(tested.labels), len(tested.labels))
    an_epoch = counter.passes * len(learned.labels) + _FORWARD * watched
    epochs = training.epochs if counter.trains else 1
    passes = round(len(training.seeds) * epochs * an_epoch)

    def advice(seconds: float) -> list[str]:
        return ['To save time, use fewer seeds or epochs, or the network "tiny".']

    held = learned.images.nbytes + tested.images.nbytes
    return Work("evaluation", name, passes, training.batch_size, held=held, advice=advice)


def memory_of_audit(
    clean: ImageStore,
    held: int,
    victims: Iterable[str],
    training: Training,
) -> float:
    """Bytes of memory that the largest cell of an audit takes.

    Args:
        clean: Training images.
        held: Bytes of all images held in memory.
        victims: Names of networks.
        training: Training settings; for precision ``"auto"``, float32 is assumed, which takes more.
    """
    few = clean.images[:2].to(training.device).float() / 255
    largest = 0.0
    for name in victims:
        model = build_model(name, clean.num_classes, few.shape[1])
        precision = "float32" if training.precision == "auto" else training.precision
        networks = Networks(training.device, precision, compile=False, group=Group())
        with contextlib.closing(networks):
            networks.place(model, few)
            kept = networks.kept(model, few, training.batch_size, training.batch_size)
            largest = max(largest, memory_of(model, few, training.batch_size, kept))
    return held + largest
