"""Networks for small images, as surrogates and as victims. All take images in [0, 1]."""

from __future__ import annotations

import contextlib
import copy
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from . import architectures
from .architectures import from_torchvision, torchvision_names
from .efficientnet_lite import efficientnet_lite0
from .features import features_of
from .names import suggestion
from .random import CPU, global_seed
from .resnet9 import ResNet9


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
        return features_of(self.members[member], images, lambda batch: self(batch, member))


LITE0 = "efficientnet-lite0"
MODELS: dict[str, Callable[[int, int], nn.Module]] = {
    "resnet9": ResNet9,
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
    LITE0: efficientnet_lite0,
}
_TORCHVISION = "torchvision:"
_SIDES = (2, 4, 8, 16, 32, 64, 128, 224)  # that a network which fails on small images is tried at


def is_model_name(name: str) -> bool:
    """Whether :func:`build_model` knows the name."""
    return name in MODELS or torchvision_name(name) is not None


def torchvision_name(name: Any) -> str | None:
    """What torchvision calls a network of its own; None for any other name."""
    if not isinstance(name, str) or not name.startswith(_TORCHVISION):
        return None
    theirs = name.removeprefix(_TORCHVISION)
    return theirs if theirs in torchvision_names() else None


def check_model_name(name: Any) -> None:
    """Raises ``ValueError`` with the list of names unless ``name`` is one of them."""
    if not isinstance(name, str) or not is_model_name(name):
        others = torchvision_names()
        theirs = str(name).lower() in set(others) - set(MODELS)  # and without the prefix
        given = f"{_TORCHVISION}{name}" if theirs else name
        near = suggestion(given, [*MODELS, *(_TORCHVISION + other for other in others)])
        raise ValueError(
            f"expected one of {sorted(MODELS)}, a torchvision classifier as "
            f'"{_TORCHVISION}resnet50", or a torch module, got {name!r}{near}'
        )


def build_model(name: str, num_classes: int, channels: int = 3, *, seed: int = 0) -> nn.Module:
    """Builds a network with weights that depend only on the seed.

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
    with global_seed(seed):
        if name in MODELS:
            return MODELS[name](num_classes, channels)
        return from_torchvision(name.removeprefix(_TORCHVISION), num_classes, channels)


def check_network(
    network: nn.Module,
    shape: Sequence[int],
    num_classes: int,
    *,
    device: str | torch.device = "cpu",
    role: str = "surrogate",
) -> None:
    """Raises unless a network can be trained as a classifier of images of a shape.

    A copy of it gets two images in evaluation mode and learns from two in training mode. The
    network and the global random state stay as they are. Layers may share one parameter.

    Args:
        network: From float images (B, C, H, W) in [0, 1] to logits (B, K).
        shape: Of an image, (C, H, W).
        num_classes: K.
        device: Where the copy is tried. An error on a GPU may end the process, so not there.
        role: What errors call the network: ``"surrogate"`` or ``"victim"``.

    Raises:
        ValueError: It has weights other than float32, layers without weights yet, or parameters
            that share memory; it fails on such images, also by being too deep for their size; or it
            gives something else than a logit for each class.
    """
    _check_weights(network, role)
    place = torch.device(device)
    with global_seed(0, place):
        copied = copy.deepcopy(network).to(place)
        images = torch.rand(2, *shape, device=place)
        for mode in ("evaluation", "training"):
            copied.train(mode == "training")
            try:
                logits = copied(images.clone())
            except Exception as error:
                side = _side_that_does(copied, shape, place)
                fails = f"fails in {mode} mode ({_summary(error)})"
                if side is not None:
                    raise ValueError(
                        f"expected a {role} for images of {shape[1]}x{shape[2]} (height, width), "
                        f"got one that is too deep for them and {fails}; it takes {side} pixels a "
                        f"side: pass larger images (image_size=), {side} or more (--image-size)"
                    ) from error
                raise ValueError(
                    f"expected a {role} that takes float images of shape {tuple(images.shape)}, "
                    f"but it {fails}; it may be meant for other channels or for larger images "
                    f"(image_size=)"
                ) from error
            _check_logits(logits, (2, num_classes), role, mode)
        if not any(weight.requires_grad for weight in copied.parameters()):
            return
        try:
            F.cross_entropy(logits, torch.arange(2, device=place) % num_classes).backward()
        except RuntimeError as error:
            raise ValueError(
                f"expected a {role} with a gradient from its logits back to its weights, got none "
                f"({_summary(error)}); leave out detach(), no_grad() and what changes tensors in "
                f"place"
            ) from error


def _side_that_does(network: nn.Module, shape: Sequence[int], place: torch.device) -> int | None:
    """The least of a few usual sides at which a network takes what it fails on; None for others."""
    for side in _SIDES:
        larger = (2, shape[0], max(shape[1], side), max(shape[2], side))
        if larger[2:] != tuple(shape[1:]):
            with contextlib.suppress(Exception):
                network(torch.rand(larger, device=place))
                return side
    return None


def _check_weights(network: nn.Module, role: str) -> None:
    """Raises ``ValueError`` for parameters that a run cannot train and keep."""
    at: dict[int, str] = {}  # address -> name
    for name, weight in network.named_parameters():
        if isinstance(weight, nn.UninitializedParameter) or weight.is_meta:
            raise ValueError(
                f"expected a {role} whose layers have their weights, got a lazy one with {name}; "
                f"give it a batch of images first"
            )
        if weight.is_floating_point() and weight.dtype != torch.float32:
            raise ValueError(
                f"expected a {role} with float32 weights, got {weight.dtype} in {name}; call "
                f'.float() on it, and choose bf16 for its passes by precision="bf16"'
            )
        # A parameter that several layers share has one name here.
        other = at.setdefault(weight.data_ptr(), name)
        if other != name and weight.numel():
            raise ValueError(
                f"expected a {role} whose layers share weights as one parameter, got two in the "
                f"same memory, {other} and {name}; assign the parameter itself to both layers"
            )


def _check_logits(logits: Any, expected: tuple[int, int], role: str, mode: str) -> None:
    if isinstance(logits, Tensor) and logits.is_floating_point():
        found = str(tuple(logits.shape))
        advice = "give its last layer as many outputs as there are classes"
    else:
        found = str(logits.dtype) if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
        advice = "wrap it in a module that returns nothing but float logits"
    if found != str(expected):
        raise ValueError(
            f"expected a {role} that gives a logit for each of the {expected[1]} classes, "
            f"{expected} for {expected[0]} images, got {found} in {mode} mode; {advice}"
        )


def _summary(error: Exception) -> str:
    """The first line of an error."""
    return f"{type(error).__name__}: {error}".splitlines()[0]


def reset_weights(model: nn.Module, *, seed: int = 0, role: str = "surrogate") -> None:
    """Draws a module's weights again, in place, by each layer's own ``reset_parameters``.

    Torch's attention layers call it ``_reset_parameters``. Each layer is on the CPU meanwhile: its
    weights are the same whatever its device.

    Args:
        model: The module.
        seed: Of the draws.
        role: Of the network, as errors call it.

    Raises:
        ValueError: A layer holds weights but cannot draw them again.
    """
    with global_seed(seed):
        for name, layer in model.named_modules():
            own = next(layer.parameters(recurse=False), None)
            reset = getattr(layer, "reset_parameters", None)
            reset = reset or getattr(layer, "_reset_parameters", None)
            if callable(reset):
                held = itertools.chain(layer.parameters(), layer.buffers())
                device = next((tensor.device for tensor in held), CPU)
                layer.to(CPU)
                reset()
                layer.to(device)
            elif own is not None:
                kept = ", or pass pretrained_surrogate=True to keep its weights"
                raise ValueError(
                    f"expected every layer of the {role} to have reset_parameters(), but "
                    f"{name or 'the module itself'} ({type(layer).__name__}) has weights and no "
                    f"such method; add one{kept if role == 'surrogate' else ''}"
                )


def last_linear(model: nn.Module) -> str:
    """The name of a network's last linear layer; without any, raises ``ValueError``."""
    names = [name for name, layer in model.named_modules() if isinstance(layer, nn.Linear)]
    if not names:
        raise ValueError(
            f"expected a network with a Linear layer at its end, which a new one replaces, got a "
            f"{type(model).__name__} without"
        )
    return names[-1]
