"""A fast network of nine layers for images of 32 to 96 pixels.

It is put together from what the fastest public CIFAR-10 trainers have in common: whitened 2x2
patches in place of a learned first layer, convolutions that start as the identity, pooling before
normalisation, and a scaled head. (Jordan, 2404.00498; the shape is He et al.'s, 1512.03385)
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_WIDTHS = (64, 256, 256)  # channels of the three groups
_OTHERS = 0.1  # share of the usual random start beside copies
_HEAD = 1 / 9  # keeps the logits of the first steps small

# Variance of 2x2 patches of natural images along (luma, blue-yellow or red-green, the third axis) x
# (mean, across, down, diagonal), in units of the channels' own: photographs differ little in it.
_VARIANCE = (
    (10.0, 0.37, 0.37, 0.055),
    (0.84, 0.015, 0.015, 0.0016),
    (0.18, 0.0043, 0.0043, 0.0006),
)
_SMALLEST = 5e-4  # added to a variance, so that sensor noise is not blown up


def whitening_filters(channels: int) -> Tensor:
    """Filters whose outputs on natural images are uncorrelated with about unit variance.

    They are fixed, so an untrained network does not depend on its training images.

    Args:
        channels: 1 or 3.

    Returns:
        float32, (8 * channels, channels, 2, 2): each filter and its negative.
    """
    colour = torch.tensor([[1.0, 1, 1], [1, 0, -1], [1, -2, 1]]) if channels == 3 else torch.eye(1)
    colour = colour / colour.norm(dim=1, keepdim=True)
    across = torch.tensor([[1.0, -1], [1, -1]])
    place = torch.stack([torch.ones(2, 2), across, across.T, across * across.T]) / 2
    deviation = (torch.tensor(_VARIANCE[:channels]) + _SMALLEST).sqrt()
    filters = torch.einsum("kc,sij->kscij", colour, place) / deviation[:, :, None, None, None]
    filters = filters.reshape(-1, channels, 2, 2)
    return torch.cat([filters, -filters])


class Whitening(nn.Conv2d):
    """A convolution with :func:`whitening_filters`, which are not trained."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, 8 * channels, 2, bias=False)

    def reset_parameters(self) -> None:
        with torch.no_grad():
            self.weight.copy_(whitening_filters(self.in_channels))
        self.weight.requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """Whitens images in [0, 1], (B, C, H, W) -> (B, 8 C, H - 1, W - 1)."""
        return super().forward((images - 0.47) * 4)  # about zero mean and unit spread


class _Convolution(nn.Conv2d):
    """3x3, whose first outputs start as copies of its inputs, with a little of the others."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 3, padding=1, bias=False)

    def reset_parameters(self) -> None:
        super().reset_parameters()
        copies = self.weight[: self.in_channels]
        with torch.no_grad():
            # Channels of colour are empty in grey images, and normalisation blows up what is empty.
            copies.mul_(_OTHERS).add_(nn.init.dirac_(torch.empty_like(copies)))


class _Norm(nn.BatchNorm2d):
    """Without a scale, which the next convolution has; statistics follow the last few batches."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-5, momentum=0.4)
        self.weight.requires_grad_(False)


class _Group(nn.Module):
    """Two convolutions; the first one's output is pooled to half the side."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = _Convolution(inputs, outputs), _Norm(outputs)
        self.conv2, self.norm2 = _Convolution(outputs, outputs), _Norm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.norm1(F.max_pool2d(self.conv1(x), 2)))
        return F.gelu(self.norm2(self.conv2(x)))


class ResNet9(nn.Module):
    """A network from images (B, channels, H, W) in [0, 1] to logits (B, num_classes).

    Args:
        num_classes: Number of logits.
        channels: 1 or 3.
        width: Factor of all channel numbers.
    """

    def __init__(self, num_classes: int, channels: int, width: float = 1.0) -> None:
        super().__init__()
        first, second, third = (8 * round(width * number / 8) for number in _WIDTHS)
        self.whitening = Whitening(channels)
        self.groups = nn.Sequential(
            _Group(8 * channels, first), _Group(first, second), _Group(second, third)
        )
        self.head = nn.Linear(third, num_classes, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        x = self.groups(F.gelu(self.whitening(images)))
        return self.head(x.amax((2, 3))) * _HEAD
