"""One perturbation per class, learned from the images of that class."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ..engine.run import Run


class ClassRows:
    """Rows of classes, read and written by image index, like ``run.rows``.

    Writing takes perturbations of images, (B, C, H, W): each class's row becomes the mean over its
    images, across all processes. Rows of classes that are not in the batch do not change.

    Attributes:
        by_class: The tracked rows, (K, C, H, W), initially zero.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self.by_class = torch.zeros((run.num_classes, *run.images.shape[1:]), device=run.device)
        run.track(by_class=self.by_class)

    def __getitem__(self, index: Tensor) -> Tensor:
        return self.by_class[self._run.labels[index]]

    def __setitem__(self, index: Tensor, delta: Tensor) -> None:
        members = F.one_hot(self._run.labels[index], len(self.by_class)).to(delta.dtype)  # (B, K)
        counts = self._run.sum(members.sum(0))
        sums = self._run.sum(torch.einsum("bk,bchw->kchw", members, delta))
        counts = counts[:, None, None, None]
        self.by_class.copy_(torch.where(counts > 0, sums / counts.clamp_min(1), self.by_class))
