"""Networks for small images, as surrogates and as victims. All take images in [0, 1]."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torchvision.models import resnet18


class Normalize(nn.Module):
    """Moves [0, 1] images to about zero mean and unit spread, so that no caller has to."""

    def forward(self, images: Tensor) -> Tensor:
        return (images - 0.5) * 4


def _cifar_resnet18(num_classes: int, channels: int) -> nn.Module:
    """ResNet-18 with a 3x3 stem of stride 1 and no pooling before the first block."""
    model = resnet18(num_classes=num_classes)
    model.conv1 = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
    model.maxpool = nn.Identity()
    return nn.Sequential(Normalize(), model)


def _tiny_cnn(num_classes: int, channels: int) -> nn.Module:
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


class Ensemble(nn.Module):
    """Several states of one network: with a member's number its logits, without it their mean.

    Args:
        network: Copied for each member.
        size: Number of members.
        features: What belongs to the members and is saved with them, or None.
    """

    features: Tensor | None

    def __init__(self, network: nn.Module, size: int, features: Tensor | None = None) -> None:
        super().__init__()
        self.members = nn.ModuleList(copy.deepcopy(network) for _ in range(size))
        self.register_buffer("features", features)

    def __len__(self) -> int:
        return len(self.members)

    def forward(self, images: Tensor, member: int | None = None) -> Tensor:
        if member is not None:
            return self.members[member](images)
        return torch.stack([network(images) for network in self.members]).mean(0)

    def features_of(self, images: Tensor, member: int) -> Tensor:
        """What the member's last Linear layer is given, float (B, D).

        Raises:
            ValueError: It has none.
        """
        seen: list[Tensor] = []
        hooks = [
            layer.register_forward_hook(lambda layer, inputs, output: seen.append(inputs[0]))
            for layer in self.members[member].modules()
            if isinstance(layer, nn.Linear)
        ]
        try:
            self(images, member)
        finally:
            for hook in hooks:
                hook.remove()
        if not seen:
            raise ValueError(
                f"expected a surrogate with a Linear layer, whose inputs are its features, got a "
                f"{type(self.members[member]).__name__} without"
            )
        return seen[-1].flatten(1).float()


MODELS: dict[str, Callable[[int, int], nn.Module]] = {
    "resnet18": _cifar_resnet18,
    "tiny": _tiny_cnn,
}


def check_model_name(name: str) -> None:
    """Raises ``ValueError`` with the list of names unless ``name`` is one of them."""
    if name not in MODELS:
        raise ValueError(f"expected one of {sorted(MODELS)} or a torch module, got {name!r}")


def build_model(name: str, num_classes: int, channels: int = 3, *, seed: int = 0) -> nn.Module:
    """Builds a network with weights that depend on the seed alone.

    Args:
        name: ``"resnet18"`` (11,173,962 weights for 10 classes) or ``"tiny"`` (139,810).
        num_classes: Number of logits.
        channels: Image channels.
        seed: Of the weights. The global random state is left as it was.

    Returns:
        A module from images (B, channels, H, W) in [0, 1] to logits (B, num_classes).

    Raises:
        ValueError: The name is not known.
    """
    check_model_name(name)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return MODELS[name](num_classes, channels)


def reset_weights(model: nn.Module, *, seed: int = 0) -> None:
    """Draws a module's weights anew, in place, by each layer's own ``reset_parameters``.

    Raises:
        ValueError: A layer holds weights but cannot draw them anew.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        for name, layer in model.named_modules():
            reset = getattr(layer, "reset_parameters", None)
            if callable(reset):
                reset()
            elif next(layer.parameters(recurse=False), None) is not None:
                raise ValueError(
                    f"expected every layer of the surrogate to have reset_parameters(), but "
                    f"{name or 'the module itself'} ({type(layer).__name__}) has weights and no "
                    f"such method; add one, or pass pretrained_surrogate=True to keep its weights"
                )
