"""Random sharpening, against blurs. (Kim & Sandoval-Segura, 2411.01742, after its description)"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from .base import Countermeasure
from .channels import to_levels

_CHUNK = 512  # images that are sharpened at once


@dataclass(frozen=True)
class Sharpening(Countermeasure):
    """Convolves each image with its own 3x3 sharpening kernel, the same in all channels.

    The centre's weight is drawn from a normal distribution and is at least 1; the other eight
    weights subtract its excess over 1, in random shares. Edge pixels are repeated beyond the image.

    Args:
        centre: Mean of the centre's weight.
        spread: Standard deviation of the centre's weight.
        seed: Seed of the kernels, which are drawn once.
    """

    centre: float = 2.5
    spread: float = 0.5
    seed: int = 0

    name = "sharpening"
    description = "a victim that sharpens each training image with a random kernel"

    def __post_init__(self) -> None:
        self._numbers("centre", "spread")
        self._integers(seed=None)
        if self.centre < 1 or self.spread < 0:
            raise ValueError(
                f"expected a centre of 1 or more and a spread of 0 or more, got "
                f"centre={self.centre} and spread={self.spread}"
            )

    def on_images(self, images: Tensor, labels: Tensor) -> Tensor:
        kernels = self.kernels(len(images))
        for start in range(0, len(images), _CHUNK):
            part = slice(start, start + _CHUNK)
            values = images[part].float()
            count, channels = values.shape[:2]
            padded = F.pad(values, (1, 1, 1, 1), mode="replicate").flatten(0, 1)[None]
            own = kernels[part].repeat_interleave(channels, 0)[:, None]
            sharp = F.conv2d(padded, own, groups=count * channels)
            images[part] = to_levels(sharp.view_as(values))
        return images

    def kernels(self, count: int) -> Tensor:
        """One kernel per image, float (N, 3, 3), whose weights sum to 1."""
        rng = torch.Generator().manual_seed(self.seed)
        centre = (self.centre + self.spread * torch.randn(count, 1, generator=rng)).clamp_min(1)
        shares = torch.rand(count, 8, generator=rng)
        others = (1 - centre) * shares / shares.sum(1, keepdim=True)
        return torch.cat((others[:, :4], centre, others[:, 4:]), dim=1).view(count, 3, 3)
