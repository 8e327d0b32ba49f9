"""How much a perturbation changes images, whatever its kind promises."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..data.image import Pixels

_WINDOW = 7  # pixels, uniform; constants as in Wang et al., 2004
_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2


class Distortion(NamedTuple):
    """What was measured between clean and protected uint8 images.

    Attributes:
        images: How many were compared.
        linf: Largest change of any channel of any pixel, in levels of 1/255.
        l2: Mean over images of the L2 norm of the change, in [0, 1] units.
        l0: Mean over images of the number of changed pixels.
        psnr: Peak signal-to-noise ratio of the mean squared error over all images, in dB;
            infinite where nothing changed.
        ssim: Mean structural similarity, over uniform windows of 7x7 pixels.
        mean: Mean absolute change of a channel of a pixel, in levels of 1/255.
        share: Share of pixels that changed in any channel, from 0 to 1.
    """

    images: int
    linf: int
    l2: float
    l0: float
    psnr: float
    ssim: float
    mean: float
    share: float

    def __str__(self) -> str:
        return (
            f"up to {self.linf}/255 per value, mean L2 {self.l2:.2f}, {self.l0:.1f} pixels an "
            f"image, PSNR {self.psnr:.1f} dB, SSIM {self.ssim:.3f} ({self.images} images)"
        )


def spread(places: Sequence[int], count: int) -> list[int]:
    """At most ``count`` of the places, evenly spread over them.

    Raises:
        ValueError: ``count`` is below 1.
    """
    if count < 1:
        raise ValueError(f"expected at least one image to compare, got {count}")
    chosen = np.unique(np.linspace(0, len(places) - 1, min(count, len(places))).astype(int))
    return [places[index] for index in chosen.tolist()]


def measure(pairs: Iterable[tuple[Pixels, Pixels]]) -> Distortion:
    """The distortion of several images together.

    Args:
        pairs: Clean and protected pixels of each, as for :func:`compare`; one pair at least.
    """
    each = [compare(clean, protected) for clean, protected in pairs]

    def average(name: str) -> float:
        return float(np.mean([getattr(change, name) for change in each]))

    # Errors of images are averaged before the logarithm is taken.
    error = float(np.mean([255**2 / 10 ** (change.psnr / 10) for change in each]))
    return Distortion(
        images=len(each),
        linf=max(change.linf for change in each),
        l2=average("l2"),
        l0=average("l0"),
        psnr=_psnr(error),
        ssim=average("ssim"),
        mean=average("mean"),
        share=average("share"),
    )


def compare(clean: Pixels, protected: Pixels) -> Distortion:
    """The change of one image.

    Args:
        clean: uint8, (C, H, W).
        protected: The same.
    """
    change = protected.astype(np.int64) - clean
    changed = change.any(axis=0)
    return Distortion(
        images=1,
        linf=int(np.abs(change).max()),
        l2=math.sqrt((change**2).sum()) / 255,
        l0=float(changed.sum()),
        psnr=_psnr(float((change**2).mean())),
        ssim=_ssim(torch.from_numpy(clean.copy()), torch.from_numpy(protected.copy())),
        mean=float(np.abs(change).mean()),
        share=float(changed.mean()),
    )


def _psnr(error: float) -> float:
    return 10 * math.log10(255**2 / error) if error else math.inf


def _ssim(one: Tensor, other: Tensor) -> float:
    window = min(_WINDOW, *one.shape[1:])

    def mean(values: Tensor) -> Tensor:
        return F.avg_pool2d(values, window, stride=1)

    a, b = one.double(), other.double()  # (C, H, W)
    mean_a, mean_b = mean(a), mean(b)
    var_a, var_b = mean(a * a) - mean_a**2, mean(b * b) - mean_b**2
    covariance = mean(a * b) - mean_a * mean_b
    similar = (2 * mean_a * mean_b + _C1) * (2 * covariance + _C2)
    return float((similar / ((mean_a**2 + mean_b**2 + _C1) * (var_a + var_b + _C2))).mean())
