"""Noise that fills up the average spectrum of each class until all classes have the same one."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .base import Countermeasure
from .channels import to_levels
from .class_spectra import class_amplitudes

_CHUNK = 500  # images at once


@dataclass(frozen=True)
class SpectrumFilling(Countermeasure):
    """Each image gets noise where the average spectrum of its class is below another class's.

    A filter that takes a process out of the images of its class leaves a gap there, which tells
    the class as well as the process did. Noise tells nothing: nothing is taken away, and in the end
    the average power of a class at each frequency is the largest of any class. For each channel c
    and frequency f, P(k, c, f) is the mean squared amplitude over the images of class k; the noise
    that an image of class k gets is normal, independent of all others, and of the mean squared
    amplitude ``max over classes of P(., c, f) - P(k, c, f)``. Frequencies below ``coarse`` on both
    axes, where the pictures themselves have most of their power, get none.

    Args:
        coarse: Share of the highest frequency of an axis, from 0 to 1.
        seed: Of the noise.
    """

    coarse: float = 0.25
    seed: int = 0

    name = "spectrum-filling"
    description = "a victim that adds noise to each class until all have the same average spectrum"
    knows_method = True

    def __post_init__(self) -> None:
        self._numbers("coarse")
        self._integers(seed=None)
        if not 0 <= self.coarse <= 1:
            raise ValueError(f"expected coarse from 0 to 1, got {self.coarse}")

    def on_images(self, images: Tensor, labels: Tensor) -> Tensor:
        missing = missing_power(images, labels, self.coarse)
        size = tuple(images.shape[2:])
        generator = torch.Generator().manual_seed(self.seed)
        for start in range(0, len(images), _CHUNK):
            part = slice(start, start + _CHUNK)
            white = torch.randn(images[part].shape, generator=generator, dtype=torch.float64)
            # Of white noise, the mean squared amplitude is the number of pixels.
            factors = (missing[labels[part]] / (size[0] * size[1])).sqrt()
            noise = torch.fft.irfft2(torch.fft.rfft2(white) * factors, s=size)
            images[part] = to_levels(images[part] + noise)
        return images


def missing_power(images: Tensor, labels: Tensor, coarse: float) -> Tensor:
    """What each class's mean squared amplitudes are below the largest, (K, C, H, W // 2 + 1)."""
    power = class_amplitudes(images, labels).square()
    missing = power.amax(0) - power
    height, width = images.shape[2:]
    rows = 2 * torch.fft.fftfreq(height).abs()[:, None]
    columns = 2 * torch.fft.rfftfreq(width)[None]
    return missing * (torch.maximum(rows, columns) >= coarse)
