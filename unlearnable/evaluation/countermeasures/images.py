"""Filters applied to all images once, before training. (ISS: Liu et al., ICML 2023, 2301.13838)"""

from __future__ import annotations

import io
from abc import abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as v2

from ...data.image import pixels_of, to_pil
from .base import Countermeasure

_CHUNK = 64  # images that are filtered at once


@dataclass(frozen=True)
class Filter(Countermeasure):
    """A function applied to each image separately; a subclass defines :meth:`_filter`.

    Args:
        test_images: Also filter the test images. Published figures filter only training images.
    """

    test_images: bool = field(default=False, kw_only=True)

    # Of a subclass: its name with test images as they are, and its victim in plain words, with "its
    # training images"; or it defines name and description.
    _name: ClassVar[Any] = ""
    _description: ClassVar[Any] = ""

    @property
    def name(self) -> str:
        return f"{self._name}-everywhere" if self.test_images else self._name

    @property
    def description(self) -> str:
        if not self.test_images:
            return self._description
        every = self._description.replace("its training images' pixels", "all pixels that it sees")
        return every.replace("its training images", "every image that it sees")

    def on_images(self, images: Tensor, labels: Tensor) -> Tensor:
        return torch.cat([self._filter(part) for part in images.split(_CHUNK)])

    @abstractmethod
    def _filter(self, images: Tensor) -> Tensor:
        """uint8 (B, C, H, W) to the same."""


@dataclass(frozen=True)
class Grayscale(Filter):
    """Replaces all channels of every pixel by its luma.

    A network that has only seen grey images during training may fail on coloured ones for this
    reason alone. A trainer who converts all images to grey avoids that: ``grayscale-everywhere``.
    """

    _name = "grayscale"
    _description = "a victim that removes the colour from its training images"

    def _filter(self, images: Tensor) -> Tensor:
        if images.shape[1] == 1:
            return images
        # As Pillow does it: torchvision's own cuts decimals off, which darkens grey by a level.
        red, green, blue = images.int().unbind(1)
        grey = (19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16
        return grey.to(torch.uint8)[:, None].expand_as(images).contiguous()


@dataclass(frozen=True)
class JPEG(Filter):
    """JPEG compression, as in Pillow.

    Args:
        quality: Quality from 1 to 100.
    """

    quality: int = 10

    def __post_init__(self) -> None:
        self._integers(quality=None)
        if not 1 <= self.quality <= 100:
            raise ValueError(f"expected a JPEG quality from 1 to 100, got {self.quality}")

    @property
    def _name(self) -> str:
        return f"jpeg-{self.quality}"

    @property
    def _description(self) -> str:
        return f"a victim that saves its training images as JPEG at quality {self.quality}"

    def _filter(self, images: Tensor) -> Tensor:
        opened = []
        for pixels in images.numpy():
            file = io.BytesIO()
            to_pil(pixels).save(file, "JPEG", quality=self.quality)
            opened.append(pixels_of(Image.open(file)))
        return torch.from_numpy(np.stack(opened))


@dataclass(frozen=True)
class BitDepth(Filter):
    """Reduces the bit depth by setting the low bits of every pixel to 0.

    Args:
        bits: Number of bits kept, from 1 to 8.
    """

    bits: int = 2

    def __post_init__(self) -> None:
        self._integers(bits=None)
        if not 1 <= self.bits <= 8:
            raise ValueError(f"expected a bit depth from 1 to 8, got {self.bits}")

    @property
    def _name(self) -> str:
        return f"bit-depth-{self.bits}"

    @property
    def _description(self) -> str:
        return f"a victim that keeps {self.bits} of the 8 bits of its training images' pixels"

    def _filter(self, images: Tensor) -> Tensor:
        return v2.posterize(images, self.bits)


@dataclass(frozen=True)
class _Neighbourhood(Filter):
    """A function of the square around each pixel; images are mirrored at their edges.

    Edge pixels of images smaller than that are repeated instead.

    Args:
        kernel_size: Odd side of the square in pixels.
    """

    kernel_size: int = 3

    def __post_init__(self) -> None:
        self._integers(kernel_size=1)
        if self.kernel_size % 2 == 0:
            raise ValueError(f"expected an odd kernel_size, got {self.kernel_size}")

    def _squares(self, images: Tensor) -> Tensor:
        """The values around each pixel, float (B, C, H, W, kernel_size ** 2)."""
        size, edge = self.kernel_size, self.kernel_size // 2
        padded = F.pad(images.float(), [edge] * 4, mode=self._padding(images))
        return padded.unfold(2, size, 1).unfold(3, size, 1).flatten(4)

    def _padding(self, images: Tensor) -> str:
        return "reflect" if min(images.shape[2:]) > self.kernel_size // 2 else "replicate"


@dataclass(frozen=True)
class GaussianBlur(_Neighbourhood):
    """A Gaussian blur.

    Args:
        kernel_size: Odd side of the kernel in pixels.
        sigma: Standard deviation in pixels, above 0. Published figures use a kernel of 3 pixels and
            a sigma of 0.1, where the weight of the neighbours disappears in rounding: images do not
            change.
    """

    kernel_size: int = 5
    sigma: float = 1.0

    _name = "gaussian-blur"
    _description = "a victim that blurs its training images (Gaussian)"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._numbers("sigma")
        if self.sigma <= 0:
            raise ValueError(f"expected a sigma above 0, got {self.sigma}")

    def _filter(self, images: Tensor) -> Tensor:
        edge = self.kernel_size // 2 if self._padding(images) == "replicate" else 0
        padded = F.pad(images.float(), [edge] * 4, mode="replicate").to(torch.uint8)
        blurred = v2.gaussian_blur(padded, [self.kernel_size] * 2, [self.sigma] * 2)
        height, width = images.shape[2:]
        return blurred[..., edge : edge + height, edge : edge + width]


@dataclass(frozen=True)
class MedianFilter(_Neighbourhood):
    """The median of the square around each pixel."""

    _name = "median-filter"
    _description = "a victim that applies a median filter to its training images"

    def _filter(self, images: Tensor) -> Tensor:
        return self._squares(images).median(-1).values.to(torch.uint8)


@dataclass(frozen=True)
class MeanFilter(_Neighbourhood):
    """The mean of the square around each pixel."""

    _name = "mean-filter"
    _description = "a victim that applies a mean filter to its training images"

    def _filter(self, images: Tensor) -> Tensor:
        return self._squares(images).mean(-1).round().to(torch.uint8)
