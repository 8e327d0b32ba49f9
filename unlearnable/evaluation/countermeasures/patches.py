"""What a linear model on coarse patches tells the classes by, erased."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from .base import Countermeasure
from .channels import to_levels

_CHUNK = 512  # images that are changed at once
_LEAST = 1e-9  # share of the largest variance below which a direction counts as constant


@dataclass(frozen=True)
class PatchErasure(Countermeasure):
    """Makes the mean colours of patches useless for linear models, with the least change.

    The closed form of LEACE (Belrose et al., NeurIPS 2023, 2306.03819) makes the means of square
    cells uncorrelated with the classes, and each pixel of a cell changes by as much as the mean. It
    undoes rows that a linear model can tell apart, such as those of LSP.

    Args:
        cell: Side of a cell in pixels; None means a quarter of the image's shorter side.
    """

    cell: int | None = None

    description = (
        "a victim that erases what lets a linear model tell classes apart by coarse patches"
    )
    knows_method = True

    def __post_init__(self) -> None:
        if self.cell is not None:
            self._integers(cell=1)

    @property
    def name(self) -> str:
        return "patch-erasure" if self.cell is None else f"patch-erasure-{self.cell}"

    def on_images(self, images: Tensor, labels: Tensor) -> Tensor:
        side = max(1, min(images.shape[2:]) // 4) if self.cell is None else self.cell
        cells = torch.cat([patch_means(part, side) for part in images.split(_CHUNK)])
        change = erased(cells.flatten(1), labels).view_as(cells) - cells
        height, width = images.shape[2:]
        for start in range(0, len(images), _CHUNK):
            part = slice(start, start + _CHUNK)
            wide = change[part].repeat_interleave(side, 2).repeat_interleave(side, 3)
            images[part] = to_levels(images[part].double() + wide[:, :, :height, :width])
        return images


def patch_means(images: Tensor, side: int) -> Tensor:
    """Means of square cells of images (B, C, H, W), float64; the last cells may be smaller."""
    return F.avg_pool2d(images.double(), side, ceil_mode=True, count_include_pad=False)


def erased(features: Tensor, labels: Tensor) -> Tensor:
    """Changes features (N, F) as little as possible so that all classes have the same mean.

    With W the inverse square root of their covariance, and P the projection onto W times their
    covariance with the classes, the part W^+ P W of the centred features is subtracted.
    """
    centred = features - features.mean(0)
    classes = F.one_hot(labels).double()
    covariance = centred.T @ centred / len(features)
    shared = centred.T @ (classes - classes.mean(0)) / len(features)
    variances, axes = torch.linalg.eigh(covariance)
    kept = variances > _LEAST * variances.max()
    root = torch.where(kept, variances, 1.0).sqrt()
    inverse = (axes * (kept / root)) @ axes.T
    back = (axes * (kept * root)) @ axes.T
    left, sizes, _ = torch.linalg.svd(inverse @ shared, full_matrices=False)
    basis = left[:, sizes > _LEAST * sizes.max().clamp_min(_LEAST)]
    return features - centred @ inverse @ basis @ basis.T @ back
