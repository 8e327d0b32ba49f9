"""Networks for images of about 32x32 pixels, from number of classes and channels to a module.

Those of torchvision get the stem that the field uses on CIFAR: no stride and no pooling where the
original quarters an image of 224x224 before its first block.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision import models
from torchvision.models import vgg
from torchvision.models.densenet import DenseNet
from torchvision.models.mobilenetv2 import MobileNetV2
from torchvision.models.resnet import BasicBlock, ResNet
from torchvision.ops import SqueezeExcitation

_VIT_SIDE = 32  # pixels that the transformer's positions stand for


class Normalize(nn.Module):
    """Normalizes [0, 1] images to about zero mean and unit spread, so that callers need not."""

    def forward(self, images: Tensor) -> Tensor:
        return (images - 0.5) * 4


class Colour(nn.Module):
    """Turns grey images into three equal channels, for networks that take only colour images."""

    def forward(self, images: Tensor) -> Tensor:
        return images.expand(-1, 3, -1, -1)


class ResizedInput(nn.Module):
    """Prepares images in [0, 1] for weights that were trained on ImageNet.

    Both sides become multiples of 32. An image whose shorter side is below ``least_side`` is
    enlarged to it, and one whose shorter side is above ``most_side`` is reduced; others are resized
    to the nearest multiples.

    Args:
        least_side: Smallest shorter side in pixels, rounded up to a multiple of 32.
        most_side: Largest shorter side in pixels, rounded down to a multiple of 32; never below
            ``least_side``.
        mean: Mean of each channel, in [0, 1] units, to subtract.
        std: Standard deviation of each channel, to divide by.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        least_side: int,
        most_side: int = 224,
        *,
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        super().__init__()
        self.least_side = -(-least_side // 32) * 32
        self.most_side = max(most_side // 32 * 32, self.least_side)
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[2:]
        shorter = min(height, width)
        scale = min(max(shorter, self.least_side), self.most_side) / shorter
        sides = tuple(max(32, round(side * scale / 32) * 32) for side in (height, width))
        if sides != (height, width):
            images = F.interpolate(images, sides, mode="bilinear", antialias=True)
        return (images - self.mean) / self.std


def _stem(channels: int, width: int) -> nn.Conv2d:
    convolution = nn.Conv2d(channels, width, 3, padding=1, bias=False)
    init_convolutions(convolution)
    return convolution


def init_convolutions(model: nn.Module) -> None:
    """Initialises a network's convolutions as in He et al."""
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def tiny_cnn(num_classes: int, channels: int) -> nn.Module:
    """Four 3x3 convolutions, 140 thousand weights: minutes on a CPU instead of days."""

    def block(inputs: int, outputs: int) -> list[nn.Module]:
        convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        return [convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]

    return nn.Sequential(
        Normalize(),
        *block(channels, 24),
        nn.MaxPool2d(2),
        *block(24, 48),
        nn.MaxPool2d(2),
        *block(48, 96),
        nn.MaxPool2d(2),
        *block(96, 96),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(4 * 96, num_classes),
    )


def tiny_resnet(num_classes: int, channels: int) -> nn.Module:
    """Three residual blocks, about as large and as fast as :func:`tiny_cnn`."""

    def block(inputs: int, outputs: int) -> nn.Module:
        if inputs == outputs:
            return BasicBlock(inputs, outputs)
        shortcut = nn.Conv2d(inputs, outputs, 1, stride=2, bias=False)
        return BasicBlock(inputs, outputs, 2, nn.Sequential(shortcut, nn.BatchNorm2d(outputs)))

    return nn.Sequential(
        Normalize(),
        _stem(channels, 24),
        nn.BatchNorm2d(24),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        block(24, 24),
        block(24, 48),
        block(48, 80),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(80, num_classes),
    )


def _small_resnet(model: ResNet, channels: int) -> nn.Module:
    model.conv1 = _stem(channels, 64)
    model.maxpool = nn.Identity()
    return nn.Sequential(Normalize(), model)


def resnet18(num_classes: int, channels: int) -> nn.Module:
    """ResNet-18. (He et al., CVPR 2016, 1512.03385)"""
    return _small_resnet(models.resnet18(num_classes=num_classes), channels)


def resnet50(num_classes: int, channels: int) -> nn.Module:
    """ResNet-50."""
    return _small_resnet(models.resnet50(num_classes=num_classes), channels)


class _SEBlock(BasicBlock):
    """A residual block whose channels are weighted by what the whole image shows."""

    def __init__(self, inplanes: int, planes: int, *args: Any, **options: Any) -> None:
        super().__init__(inplanes, planes, *args, **options)
        self.weighted = SqueezeExcitation(planes, planes // 16)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.weighted(self.bn2(self.conv2(x))) + shortcut)


def senet18(num_classes: int, channels: int) -> nn.Module:
    """ResNet-18 with squeeze and excitation. (Hu et al., CVPR 2018, 1709.01507)"""
    return _small_resnet(ResNet(_SEBlock, [2, 2, 2, 2], num_classes=num_classes), channels)


def vgg16(num_classes: int, channels: int) -> nn.Module:
    """VGG-16 with batch normalisation and one linear layer. (Simonyan & Zisserman, 1409.1556)"""
    features = vgg.make_layers(vgg.cfgs["D"], batch_norm=True)
    features[0] = nn.Conv2d(channels, 64, 3, padding=1)
    init_convolutions(features)
    features[-1] = nn.AdaptiveMaxPool2d(1)  # of 2x2 pixels, as the last pool; 28x28 leaves one
    return nn.Sequential(Normalize(), features, nn.Flatten(), nn.Linear(512, num_classes))


def densenet121(num_classes: int, channels: int) -> nn.Module:
    """DenseNet-121. (Huang et al., CVPR 2017, 1608.06993)"""
    model = DenseNet(32, (6, 12, 24, 16), 64, num_classes=num_classes)
    model.features.conv0 = _stem(channels, 64)
    model.features.pool0 = nn.Identity()
    return nn.Sequential(Normalize(), model)


def mobilenetv2(num_classes: int, channels: int) -> nn.Module:
    """MobileNetV2. (Sandler et al., CVPR 2018, 1801.04381)"""
    # Expansion, channels, blocks, stride: as published, but for the second stage's stride of 1.
    stages = [
        [1, 16, 1, 1], [6, 24, 2, 1], [6, 32, 3, 2], [6, 64, 4, 2], [6, 96, 3, 1], [6, 160, 3, 2],
        [6, 320, 1, 1],
    ]  # fmt: skip
    model = MobileNetV2(num_classes, inverted_residual_setting=stages)
    model.features[0][0] = _stem(channels, 32)
    return nn.Sequential(Normalize(), model)


class _WideBlock(nn.Module):
    """Normalisation and ReLU before each of two convolutions."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.shortcut = (
            None if inputs == outputs else nn.Conv2d(inputs, outputs, 1, stride, bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        active = F.relu(self.bn1(x))
        shortcut = x if self.shortcut is None else self.shortcut(active)
        return self.conv2(F.relu(self.bn2(self.conv1(active)))) + shortcut


def wrn28_10(num_classes: int, channels: int) -> nn.Module:
    """A residual network of 28 layers, ten times as wide. (Zagoruyko & Komodakis, 1605.07146)"""
    layers: list[nn.Module] = [Normalize(), nn.Conv2d(channels, 16, 3, padding=1, bias=False)]
    inputs = 16
    for stage, outputs in enumerate((160, 320, 640)):
        for block in range(4):
            layers.append(_WideBlock(inputs, outputs, 2 if stage and not block else 1))
            inputs = outputs
    layers += [nn.BatchNorm2d(640), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    model = nn.Sequential(*layers, nn.Linear(640, num_classes))
    init_convolutions(model)
    return model


class _Resized(nn.Module):
    """Images of a network's one size."""

    def forward(self, images: Tensor) -> Tensor:
        if images.shape[2:] == (_VIT_SIDE, _VIT_SIDE):
            return images
        return F.interpolate(images, (_VIT_SIDE, _VIT_SIDE), mode="bilinear", antialias=True)


def vit_small(num_classes: int, channels: int) -> nn.Module:
    """A transformer over 64 patches of 32x32 images. (Dosovitskiy et al., ICLR 2021, 2010.11929)

    Images of another size are resized first.
    """
    model = models.VisionTransformer(
        image_size=_VIT_SIDE,
        patch_size=4,
        num_layers=6,
        num_heads=6,
        hidden_dim=384,
        mlp_dim=1536,
        num_classes=num_classes,
    )
    if channels != 3:
        model.conv_proj = nn.Conv2d(channels, 384, 4, 4)
    nn.init.trunc_normal_(model.heads.head.weight, std=0.02)  # torchvision's zeros: no gradient
    return nn.Sequential(_Resized(), Normalize(), model)


def from_torchvision(name: str, num_classes: int, channels: int) -> nn.Module:
    """An unmodified torchvision classification model, for images of about 224x224."""
    model = models.get_model(name, weights=None, num_classes=num_classes)
    return nn.Sequential(*([Colour()] if channels == 1 else []), Normalize(), model)


def torchvision_names() -> list[str]:
    """Torchvision's models whose only output in training is logits."""
    with_others = ("googlenet", "inception_v3")
    return [name for name in models.list_models(models) if name not in with_others]
