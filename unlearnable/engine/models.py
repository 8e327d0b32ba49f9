"""Networks for small images, as surrogates and as victims. All take images in [0, 1]."""

from __future__ import annotations

import contextlib
import copy
import itertools
import math
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
    """Several states of one network: gives the logits of a member, or without a number their mean.

    Args:
        network: Copied for each member.
        size: Number of members.
        features: Tensors that belong to the members and are saved with them, or None.
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
        """The inputs of the member's last Linear layer, float (B, D).

        Raises:
            ValueError: There is no Linear layer.
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
    """Torchvision's own name of a network; None for other networks."""
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
            f"expected one of {sorted(MODELS)}, a torchvision classifier such as "
            f'"{_TORCHVISION}resnet50", or a torch module, got {name!r}{near}'
        )


def build_model(name: str, num_classes: int, channels: int = 3, *, seed: int = 0) -> nn.Module:
    """Builds a network with weights that depend only on the seed.

    Args:
        name: One of :data:`MODELS`, for images of about 32x32 pixels, or an unmodified torchvision
            classifier for larger images, such as ``"torchvision:resnet50"``.
        num_classes: Number of logits.
        channels: Number of image channels.
        seed: Seed of the weights. The global random state is not changed.

    Returns:
        A module from images (B, channels, H, W) in [0, 1] to logits (B, num_classes).

    Raises:
        ValueError: The name is unknown.
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
    """Raises an error unless a network can be trained to classify images of a given shape.

    A copy of it processes two images in evaluation mode and learns from two in training mode. The
    network and the global random state are not changed. Layers may share a parameter.

    Args:
        network: Network from float images (B, C, H, W) in [0, 1] to logits (B, K).
        shape: Shape of an image, (C, H, W).
        num_classes: K.
        device: Device on which the copy is tried; not a GPU, where an error may kill the process.
        role: Name of the network in errors: ``"surrogate"`` or ``"victim"``.

    Raises:
        ValueError: It has weights other than float32, uninitialised lazy layers, or parameters that
            share memory; it fails on such images, for example because it is too deep for their
            size; or it does not output one logit for each class.
    """
    check_state(network, role)
    place = torch.device(device)
    with global_seed(0, place):
        copied = copy.deepcopy(network).to(place)
        images = torch.rand(2, *shape, device=place)
        for mode in ("evaluation", "training"):
            copied.train(mode == "training")
            seen = images.clone()
            try:
                logits = copied(seen)
            except Exception as error:
                side = _side_that_does(copied, shape, place)
                fails = f"fails in {mode} mode ({_summary(error)})"
                if side is not None:
                    raise ValueError(
                        f"expected a {role} for images of {shape[1]}x{shape[2]} (height, width), "
                        f"got one that is too deep for them and {fails}; use images of at least "
                        f"{side} pixels a side: pass image_size={side} or more (--image-size)"
                    ) from error
                raise ValueError(
                    f"expected a {role} that takes float images of shape {tuple(images.shape)}, "
                    f"but it {fails}; it may be meant for another number of channels or for "
                    f"larger images (image_size=)"
                ) from error
            _check_logits(logits, (2, num_classes), role, mode)
            if not torch.equal(seen, images):
                raise ValueError(
                    f"expected a {role} that leaves its images as they are, got one that changes "
                    f"them in place in {mode} mode; write x = x - …, for example, and not x -= …"
                )
            if mode == "evaluation" and role == "surrogate":
                _check_slope(copied, images)
        if not any(weight.requires_grad for weight in copied.parameters()):
            return
        try:
            F.cross_entropy(logits, torch.arange(2, device=place) % num_classes).backward()
        except RuntimeError as error:
            raise ValueError(
                f"expected a {role} with a gradient from its logits back to its weights, got none "
                f"({_summary(error)}); remove detach(), no_grad() and in-place operations"
            ) from error


def _check_slope(network: nn.Module, images: Tensor) -> None:
    """Raises ``ValueError`` where a surrogate gives no gradient back to its images."""
    seen = images.clone().requires_grad_()
    found = None
    with contextlib.suppress(RuntimeError):
        (found,) = torch.autograd.grad(network(seen).sum(), [seen], allow_unused=True)
    if found is None:
        raise ValueError(
            "expected a surrogate with a gradient from its logits back to the images in evaluation "
            "mode, got none; remove detach() and no_grad()"
        )


def _side_that_does(network: nn.Module, shape: Sequence[int], place: torch.device) -> int | None:
    """The least of a few usual sides at which a network takes what it fails on; None for others."""
    for side in _SIDES:
        larger = (2, shape[0], max(shape[1], side), max(shape[2], side))
        if larger[2:] != tuple(shape[1:]):
            with contextlib.suppress(Exception):
                network(torch.rand(larger, device=place))
                return side
    return None


def check_state(network: nn.Module, role: str = "surrogate") -> None:
    """Raises ``ValueError`` for parameters that a run cannot train, copy and keep."""
    at: dict[int, str] = {}  # address -> name
    if next(network.parameters(), None) is None:
        raise ValueError(
            f"expected a {role} with weights to train, got a {type(network).__name__} without any"
        )
    for name, weight in network.named_parameters():
        if isinstance(weight, nn.UninitializedParameter) or weight.is_meta:
            raise ValueError(
                f"expected a {role} with initialised layers, got a lazy one with {name}; pass it "
                f"a batch of images first"
            )
        if weight.is_floating_point() and weight.dtype != torch.float32:
            raise ValueError(
                f"expected a {role} with float32 weights, got {weight.dtype} in {name}; call "
                f'.float() on it, and use precision="bf16" for bf16 passes'
            )
        # A parameter that several layers share has one name here.
        other = at.setdefault(weight.data_ptr(), name)
        if other != name and weight.numel():
            raise ValueError(
                f"expected a {role} whose layers share weights through one parameter, got two "
                f"parameters in the same memory, {other} and {name}; assign the same parameter to "
                f"both layers"
            )
    objects = [n for n, value in network.state_dict().items() if not isinstance(value, Tensor)]
    if objects:
        raise ValueError(
            f"expected a {role} whose state is only tensors, got {objects[0]}; leave out "
            f"get_extra_state()"
        )
    try:
        copy.deepcopy(network)
    except Exception as error:
        raise ValueError(
            f"expected a {role} that can be copied, got an error ({_summary(error)}); in place of "
            f"torch.nn.utils.weight_norm or spectral_norm use those of "
            f"torch.nn.utils.parametrizations, with pretrained_surrogate=True for a surrogate"
        ) from error


def _check_logits(logits: Any, expected: tuple[int, int], role: str, mode: str) -> None:
    if isinstance(logits, Tensor) and logits.is_floating_point():
        found = str(tuple(logits.shape))
        advice = "give its last layer one output per class"
    else:
        found = str(logits.dtype) if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
        advice = "wrap it in a module that returns only float logits"
    if found != str(expected):
        raise ValueError(
            f"expected a {role} with one logit for each of the {expected[1]} classes, {expected} "
            f"for {expected[0]} images, got {found} in {mode} mode; {advice}"
        )


def _summary(error: Exception) -> str:
    """The first line of an error."""
    return f"{type(error).__name__}: {error}".splitlines()[0]


def reset_weights(model: nn.Module, *, seed: int = 0, role: str = "surrogate") -> None:
    """Reinitialises a module's weights in place, with each layer's ``reset_parameters``.

    In torch's attention layers this is called ``_reset_parameters``. Each layer is moved to the CPU
    meanwhile, so its weights do not depend on the device.

    Args:
        model: The module.
        seed: Seed of the weights.
        role: Name of the network in errors.

    Raises:
        ValueError: A layer has weights but cannot reinitialise them.
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
                _reset_all(layer, reset, name, role)
                layer.to(device)
            elif own is not None:
                kept = ", or pass pretrained_surrogate=True to keep its weights"
                raise ValueError(
                    f"expected every layer of the {role} to have reset_parameters(), but "
                    f"{name or 'the module itself'} ({type(layer).__name__}) has weights and no "
                    f"such method; add one{kept if role == 'surrogate' else ''}"
                )


def _reset_all(layer: nn.Module, reset: Callable[[], None], name: str, role: str) -> None:
    """Calls a layer's reset; raises ``ValueError`` where some of its own weights are left."""
    own = {
        n: w
        for n, w in layer.named_parameters(recurse=False)
        if w.is_floating_point() and not w.is_meta
    }
    with torch.no_grad():
        for weight in own.values():
            weight.fill_(math.nan)
    reset()
    left = [n for n, weight in own.items() if weight.numel() and weight.isnan().any()]
    if left:
        raise ValueError(
            f"expected reset_parameters() of every layer of the {role} to reset all its weights, "
            f"but that of {name or 'the module itself'} ({type(layer).__name__}) leaves "
            f"{', '.join(left)}; write one that does"
        )


def last_linear(model: nn.Module) -> str:
    """The name of a network's last linear layer; raises ``ValueError`` if there is none."""
    names = [name for name, layer in model.named_modules() if isinstance(layer, nn.Linear)]
    if not names:
        raise ValueError(
            f"expected a network that ends with a Linear layer, to be replaced by a new one, got "
            f"a {type(model).__name__} without one; add one"
        )
    return names[-1]
