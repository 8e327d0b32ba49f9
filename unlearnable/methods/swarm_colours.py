"""A colour per class, found by particle swarms for an ensemble. (Wang et al., 2605.01718)"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ..engine.models import Ensemble
from ..engine.pgd import target_classes
from ..engine.run import Run
from ..engine.sampler import ranks_within
from ..engine.similarity import psnr, ssim
from ..engine.swarm import Swarm
from ..engine.train import to_float

_LEAST_PSNR, _LEAST_SSIM = 20.0, 0.8  # of images with a colour to those without
_FIRST_MOVE = 0.1  # of epsilon


def targets_of(labels: Tensor, shift: int | None, num_classes: int) -> Tensor:
    """The classes that images should be mistaken for; by default the third one on, or the next.

    Raises:
        ValueError: The shift leads to the image's own class, or there is only one.
    """
    usual = 1 if num_classes == 3 else 3
    return target_classes(labels, usual if shift is None else shift, num_classes)


def swarm_colours(
    run: Run,
    ensemble: Ensemble,
    *,
    epsilon: float,
    shift: int | None,
    particles: int,
    iterations: int,
    class_images: int,
    batch_size: int,
) -> Tensor:
    """Finds colours that make networks mistake the images of each class for another class.

    A colour is judged by the mean cross-entropy to the other class over networks and images, and by
    how far the tinted images fall below 20 dB PSNR and 0.8 SSIM.

    Args:
        run: Provides images and labels.
        ensemble: Networks that were trained on clean images.
        epsilon: Half the side of the cube that bounds the colours, in [0, 1] units.
        shift: As in :func:`targets_of`.
        particles: Particles per class.
        iterations: Moves of each particle.
        class_images: Number of images per class, the first ones, by which colours are judged.
        batch_size: Images processed at once.

    Returns:
        Float (K, C), in [0, 1] units.
    """
    targets = targets_of(run.labels, shift, run.num_classes)
    shape = (run.num_classes, particles, run.images.shape[1])
    draws = run.global_rng("particles")
    first_move = _FIRST_MOVE * epsilon
    swarm = Swarm(
        draws.uniform(shape, -epsilon, epsilon),
        draws.uniform(shape, -first_move, first_move),
        epsilon,
    )
    totals = torch.zeros(shape[:2], device=run.device)
    run.track(swarm_totals=totals, **swarm.state())
    judged, counts = _first_of_each(run.labels, run.num_classes, class_images)
    for _ in run.steps(iterations, "swarm"):
        for index in run.sweep(batch_size, title="colours"):
            if judged is not None:
                index = index[judged[index]]
            labels = run.labels[index]
            costs = _costs(run, ensemble, index, swarm.positions[labels], targets[index])
            run.sum_into(totals, labels, costs)
        swarm.update(totals / counts)
        totals.zero_()
    return swarm.best


@torch.no_grad()
def _costs(run: Run, ensemble: Ensemble, index: Tensor, colours: Tensor, targets: Tensor) -> Tensor:
    """What each of an image's colours (B, P, C) costs, (B, P)."""
    costs = torch.zeros(colours.shape[:2], device=run.device)
    if not len(index):
        return costs
    images = to_float(run.images[index])
    with run.frozen(ensemble) as network:
        for number, colour in enumerate(colours.unbind(1)):
            shown = (images + colour[:, :, None, None]).clamp(0, 1)
            cost = (_LEAST_PSNR - psnr(images, shown)).clamp_min(0)
            cost += (_LEAST_SSIM - ssim(images, shown)).clamp_min(0)
            for member in range(len(ensemble)):
                logits = network(shown, member)
                cost += F.cross_entropy(logits, targets, reduction="none") / len(ensemble)
            costs[:, number] = cost
    return costs


def _first_of_each(labels: Tensor, num_classes: int, most: int) -> tuple[Tensor | None, Tensor]:
    """Which images are among the first ``most`` of their class, bool (N,), or None for all of them.

    And how many these are, float (K, 1), at least 1.
    """
    device, labels = labels.device, labels.cpu()
    counts = labels.bincount(minlength=num_classes)
    kept = counts.clamp_max(most)
    numbers = kept.clamp_min(1)[:, None].float().to(device)
    if torch.equal(kept, counts):
        return None, numbers
    return (ranks_within(labels) < most).to(device), numbers
