"""Networks for small images, as surrogates and as victims. All take images in [0, 1]."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from . import architectures
from .architectures import from_torchvision, in_torchvision


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
    "resnet18": architectures.resnet18,
    "resnet50": architectures.resnet50,
    "vgg16": architectures.vgg16,
    "densenet121": architectures.densenet121,
    "mobilenetv2": architectures.mobilenetv2,
    "senet18": architectures.senet18,
    "wrn28-10": architectures.wrn28_10,
    "vit-small": architectures.vit_small,
    "tiny": architectures.tiny_cnn,
    "tiny-resnet": architectures.tiny_resnet,
}
_TORCHVISION = "torchvision:"


def is_model_name(name: str) -> bool:
    """Whether :func:`build_model` knows the name."""
    prefix, _, rest = name.partition(":")
    return name in MODELS or (prefix == "torchvision" and in_torchvision(rest))


def check_model_name(name: str) -> None:
    """Raises ``ValueError`` with the list of names unless ``name`` is one of them."""
    if not is_model_name(name):
        raise ValueError(
            f"expected one of {sorted(MODELS)}, a torchvision classifier as "
            f'"{_TORCHVISION}resnet50", or a torch module, got {name!r}'
        )


def build_model(name: str, num_classes: int, channels: int = 3, *, seed: int = 0) -> nn.Module:
    """Builds a network with weights that depend on the seed alone.

    Args:
        name: One of :data:`MODELS`, for images of about 32x32 pixels, or a classification model of
            torchvision as it is, for larger ones, such as ``"torchvision:resnet50"``.
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
        if name in MODELS:
            return MODELS[name](num_classes, channels)
        return from_torchvision(name.removeprefix(_TORCHVISION), num_classes, channels)


def dry_run(model: nn.Module, images: Tensor) -> Any:
    """What a copy of a module gives; the module and the global random state stay as they are.

    Args:
        model: Any module.
        images: float, (B, C, H, W); the copy goes to their device.
    """
    own = copy.deepcopy(model).to(images.device).eval()
    devices = [images.device] if images.is_cuda else []
    with torch.no_grad(), torch.random.fork_rng(devices):
        return own(images)


def check_network(
    network: nn.Module,
    shape: Sequence[int],
    num_classes: int,
    *,
    device: str | torch.device = "cpu",
    role: str = "surrogate",
) -> None:
    """Raises ``ValueError`` unless a network gives a logit for each class."""
    logits = dry_run(network, torch.zeros((2, *shape), device=device))
    if not isinstance(logits, Tensor) or tuple(logits.shape) != (2, num_classes):
        raise ValueError(f"expected a {role} with logits for {num_classes} classes, got {logits!r}")


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
