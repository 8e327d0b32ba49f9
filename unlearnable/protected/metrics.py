"""How much a perturbation changes images, whatever its kind promises."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..data.image import Pixels
from ..engine.numbers import integer

_STRIP = 1 << 17  # values of an image that are compared at once: memory does not grow with it
_WINDOW = 7  # pixels, uniform; constants as in Wang et al., 2004
_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2


class Distortion(NamedTuple):
    """Differences measured between clean and protected uint8 images.

    Attributes:
        images: Number of images compared.
        linf: Largest change of any channel of any pixel, in levels of 1/255.
        l2: Mean over images of the L2 norm of the change, in [0, 1] units.
        l0: Mean over images of the number of changed pixels.
        psnr: Peak signal-to-noise ratio of the mean squared error over all images, in dB; infinite
            if nothing changed.
        ssim: Mean structural similarity, over uniform windows of 7x7 pixels; NaN if not measured.
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
            f"up to {self.linf}/255 per value, mean L2 {self.l2:.2f}, {self.l0:.1f} pixels per "
            f"image, PSNR {self.psnr:.1f} dB, SSIM {self.ssim:.3f} ({self.images} images)"
        )


def spread(places: Sequence[int], count: int) -> list[int]:
    """At least one and at most ``count`` of the places, evenly spread."""
    count = integer("images", count, least=1)
    chosen = np.unique(np.linspace(0, len(places) - 1, min(count, len(places))).astype(int))
    return [places[index] for index in chosen.tolist()]


def measure(pairs: Iterable[tuple[Pixels, Pixels]]) -> Distortion:
    """The distortion over one or more images; pixels as in :func:`compare`."""
    return together([compare(clean, protected) for clean, protected in pairs])


def together(each: Sequence[Distortion]) -> Distortion:
    """The distortion over one or more images, combined from that of each."""
    averaged = ("l2", "l0", "ssim", "mean", "share")
    # Errors of images are averaged before the logarithm is taken.
    error = float(np.mean([255**2 / 10 ** (change.psnr / 10) for change in each]))
    return Distortion(
        images=len(each),
        linf=max(change.linf for change in each),
        psnr=_psnr(error),
        **{n: float(np.mean([getattr(change, n) for change in each])) for n in averaged},
    )


def compare(clean: Pixels, protected: Pixels, *, similarity: bool = True) -> Distortion:
    """The distortion of one image, from clean and protected pixels, uint8 (C, H, W).

    SSIM, which takes most of the time, is only measured if ``similarity`` is True.
    """
    channels, height, width = clean.shape
    window = min(_WINDOW, height, width)
    rows = max(window, _STRIP // (channels * width))
    linf = absolute = squared = pixels = 0
    summed = 0.0 if similarity else math.nan
    for top in range(0, height, rows):
        one, other = (image[:, top : top + rows].astype(np.int32) for image in (clean, protected))
        change = np.abs(other - one)
        linf = max(linf, int(change.max()))
        absolute += int(change.sum(dtype=np.int64))
        squared += int((change**2).sum(dtype=np.int64))
        pixels += int(change.any(axis=0).sum(dtype=np.int64))
        # Windows that begin in these rows reach into the next ones.
        reach = slice(top, top + rows + window - 1)
        if similarity and height - top >= window:
            summed += _similarity(clean[:, reach], protected[:, reach], window)
    windows = channels * (height - window + 1) * (width - window + 1)
    return Distortion(
        images=1,
        linf=linf,
        l2=math.sqrt(squared) / 255,
        l0=float(pixels),
        psnr=_psnr(squared / clean.size),
        ssim=summed / windows,
        mean=absolute / clean.size,
        share=pixels / (height * width),
    )


def _psnr(error: float) -> float:
    return 10 * math.log10(255**2 / error) if error else math.inf


def _similarity(clean: Pixels, protected: Pixels, window: int) -> float:
    """Structural similarity summed over all windows; moments are exact integers."""
    a, b = clean.astype(np.int32), protected.astype(np.int32)
    sum_a, sum_b = _window_sums(a, window), _window_sums(b, window)
    count = window**2
    product, squares = sum_a * sum_b, sum_a**2 + sum_b**2
    covariance = count * _window_sums(a * b, window) - product
    variances = count * _window_sums(a**2 + b**2, window) - squares
    c1, c2 = count**2 * _C1, count**2 * _C2
    return float(
        ((2 * product + c1) / (squares + c1) * ((2 * covariance + c2) / (variances + c2))).sum()
    )


def _window_sums(values: NDArray[np.int32], window: int) -> NDArray[np.int32]:
    """Sums over each square window of (C, H, W) values."""
    height, width = (side - window + 1 for side in values.shape[1:])
    rows = functools.reduce(np.add, (values[:, k : k + height] for k in range(window)))
    return functools.reduce(np.add, (rows[..., k : k + width] for k in range(window)))
