"""One perturbation per class, learned from the images of that class."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ..engine.run import Run


def class_rows(run: Run) -> Tensor:
    """Tracked rows of zeros, (K, C, H, W)."""
    rows = torch.zeros((run.num_classes, *run.images.shape[1:]), device=run.device)
    run.track(by_class=rows)
    return rows


def move_to_means(run: Run, by_class: Tensor, labels: Tensor, delta: Tensor) -> None:
    """Sets each class's row to the mean of its images' perturbations, over all processes.

    Rows of classes that the batch does not hold stay as they are.

    Args:
        run: Of which the batch is.
        by_class: Tracked rows, (K, C, H, W), changed in place.
        labels: Of the batch, (B,).
        delta: Perturbations of the batch, (B, C, H, W).
    """
    members = F.one_hot(labels, len(by_class)).to(delta.dtype)  # (B, K)
    counts = run.sum(members.sum(0))
    sums = run.sum(torch.einsum("bk,bchw->kchw", members, delta))
    means = sums / counts.clamp_min(1)[:, None, None, None]
    by_class.copy_(torch.where(counts[:, None, None, None] > 0, means, by_class))
