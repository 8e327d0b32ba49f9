"""A network from images to images of the same size."""

from __future__ import annotations

from torch import Tensor, nn

_GROUPS = 4  # of channels that are normalised together; BatchNorm would tie images to their batch


def _layers(inputs: int, outputs: int, stride: int = 1) -> list[nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
    return [convolution, nn.GroupNorm(_GROUPS, outputs), nn.ReLU(inplace=True)]


class _Residual(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*_layers(width, width), *_layers(width, width)[:-1])

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class ImageToImage(nn.Module):
    """Encoder, residual blocks at a quarter of the size, decoder.

    Args:
        channels: Number of image channels.
        width: Channels at full size, a multiple of 4; there are four times as many at a quarter of
            the size.
        blocks: Number of residual blocks.
    """

    def __init__(self, channels: int, width: int = 32, blocks: int = 8) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *_layers(channels, width),
            *_layers(width, 2 * width, 2),
            *_layers(2 * width, 4 * width, 2),
            *(_Residual(4 * width) for _ in range(blocks)),
            nn.Upsample(scale_factor=2),
            *_layers(4 * width, 2 * width),
            nn.Upsample(scale_factor=2),
            *_layers(2 * width, width),
            nn.Conv2d(width, channels, 3, padding=1),
            nn.Tanh(),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Maps float (B, C, H, W) to values between -1 and 1 of the same shape."""
        height, width = images.shape[2:]
        made: Tensor = self.layers((images - 0.5) * 4)
        return made[..., :height, :width]
