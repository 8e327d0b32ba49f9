"""Spectra of each class made alike: against convolutions, and processes of one spectrum."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .base import Countermeasure
from .channels import to_levels

_CHUNK = 512  # images that are transformed at once


@dataclass(frozen=True)
class SpectrumMatching(Countermeasure):
    """Replaces the average spectrum of each class by the average spectrum of all classes.

    A kernel with which all images of a class were convolved multiplies the average spectrum of the
    class, so dividing each image's spectrum by it undoes the kernel's effect on the strength of
    each frequency. An added random process also shows in the average spectrum and is damped.
    Differences between the spectra of clean classes are lost as well; the gain has to outweigh this
    loss.

    Args:
        limit: Largest factor by which a frequency is amplified or damped.
    """

    limit: float = 4.0

    name = "spectrum-matching"
    description = "a victim that gives each class the average spectrum of all classes"
    knows_method = True

    def __post_init__(self) -> None:
        self._numbers("limit")
        if self.limit < 1:
            raise ValueError(f"expected a limit of 1 or more, got {self.limit}")

    def on_images(self, images: Tensor, labels: Tensor) -> Tensor:
        amplitudes = class_amplitudes(images, labels)
        known = labels.bincount(minlength=len(amplitudes)) > 0
        logs = amplitudes.clamp_min(1e-6).log()
        factors = (logs[known].mean(0) - logs).exp().clamp(1 / self.limit, self.limit)
        size = tuple(images.shape[2:])
        for start in range(0, len(images), _CHUNK):
            part = slice(start, start + _CHUNK)
            spectra = torch.fft.rfft2(images[part].double()) * factors[labels[part]]
            images[part] = to_levels(torch.fft.irfft2(spectra, s=size))
        return images


def class_amplitudes(images: Tensor, labels: Tensor) -> Tensor:
    """Root-mean-square amplitude of each class's frequencies, (K, C, H, W // 2 + 1)."""
    classes = int(labels.max()) + 1
    totals = torch.zeros(classes, *torch.fft.rfft2(images[:1].double()).shape[1:]).double()
    for part, own in zip(images.split(_CHUNK), labels.split(_CHUNK), strict=True):
        totals.index_add_(0, own, torch.fft.rfft2(part.double()).abs().square())
    counts = labels.bincount(minlength=classes).clamp_min(1)
    return (totals / counts[:, None, None, None]).sqrt()
