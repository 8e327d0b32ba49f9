"""Uniform colour statistics for every image, which undo shifts of colour."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as v2

from .images import Filter

_LEAST = 1.0  # level of 1/255: a channel that varies less is left as flat as it is
# Red, green and blue to luma and two differences of colour (ITU-R BT.601).
_YUV = ((0.299, 0.587, 0.114), (-0.14713, -0.28886, 0.436), (0.615, -0.51499, -0.10001))


@dataclass(frozen=True)
class _Statistics(Filter):
    """Changes the statistics of images; by default also those of test images.

    Args:
        test_images: Also process the test images. A trainer who normalizes images does so wherever
            the network sees any; otherwise training and test images would look different to it.
    """

    test_images: bool = field(default=True, kw_only=True)

    @property
    def name(self) -> str:
        return self._name if self.test_images else f"{self._name}-training-only"

    @property
    def description(self) -> str:
        which = "" if self.test_images else ", of its training images only"
        return self._description + which


@dataclass(frozen=True)
class ChannelNormalization(_Statistics):
    """Shifts and scales each channel of each image to a fixed mean and spread.

    Args:
        mean: Mean of every channel, in [0, 1] units.
        spread: Standard deviation of every channel, in [0, 1] units, before clipping to valid
            values. A channel that varies by less than one level stays that flat.
    """

    mean: float = 0.5
    spread: float = 0.25

    _name = "channel-normalization"
    _description = "a victim that gives each channel of each image the same mean and spread"

    def __post_init__(self) -> None:
        self._numbers("mean", "spread")
        if not 0 <= self.mean <= 1 or not 0 < self.spread <= 1:
            raise ValueError(
                f"expected a mean and a spread in [0, 1] units, got mean={self.mean} and "
                f"spread={self.spread}"
            )

    def _filter(self, images: Tensor) -> Tensor:
        values = images.double()
        centred = values - values.mean((2, 3), keepdim=True)
        own = centred.square().mean((2, 3), keepdim=True).sqrt().clamp_min(_LEAST)
        return to_levels(255 * self.mean + 255 * self.spread * centred / own)


@dataclass(frozen=True)
class HistogramEqualization(_Statistics):
    """Equalizes the histogram of each channel of each image, like Pillow and torchvision."""

    _name = "histogram-equalization"
    _description = "a victim that equalizes the histogram of each channel of each image"

    def _filter(self, images: Tensor) -> Tensor:
        return v2.equalize(images)


@dataclass(frozen=True)
class ColourWhitening(_Statistics):
    """Makes the colours of each image average to grey, uncorrelated in YUV, with a fixed spread.

    An image's pixels are points in YUV. Their mean becomes medium grey and their covariance
    diagonal (using its inverse square root, so that no axis is rotated more than necessary). Grey
    images have only luma.

    Args:
        luma: Standard deviation of Y in [0, 1] units.
        chroma: Standard deviation of U and of V. Directions that vary by less than one level are
            not amplified beyond what one level would become.
    """

    luma: float = 0.25
    chroma: float = 0.06

    _name = "colour-whitening"
    _description = "a victim that whitens the colours of each image (YUV)"

    def __post_init__(self) -> None:
        self._numbers("luma", "chroma")
        if not 0 < self.luma <= 1 or not 0 < self.chroma <= 1:
            raise ValueError(
                f"expected spreads in [0, 1] units, above 0, got luma={self.luma} and "
                f"chroma={self.chroma}"
            )

    def _filter(self, images: Tensor) -> Tensor:
        channels = images.shape[1]
        if channels == 3:
            matrix = torch.tensor(_YUV, dtype=torch.float64)
        else:
            matrix = torch.eye(channels, dtype=torch.float64)
        points = matrix @ images.double().flatten(2)  # (B, C, H * W)
        points = points - points.mean(2, keepdim=True)
        covariance = points @ points.mT / points.shape[2]
        variances, axes = torch.linalg.eigh(covariance)
        root = (axes / variances.clamp_min(_LEAST**2).sqrt()[:, None]) @ axes.mT
        spreads = [self.luma, *[self.chroma] * (channels - 1)]
        wanted = 255 * torch.tensor(spreads, dtype=torch.float64)
        colours = torch.linalg.inv(matrix) @ (wanted[:, None] * (root @ points))
        return to_levels(127.5 + colours.view(images.shape))


def to_levels(values: Tensor) -> Tensor:
    """Values in levels of 1/255 as uint8, rounded and clipped to 0 and 255."""
    return values.round().clamp(0, 255).to(torch.uint8)
