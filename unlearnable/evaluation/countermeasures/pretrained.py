"""Fine-tuning: the victim starts from weights that it learned on other, clean images."""

from __future__ import annotations

import copy
import functools
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ...datasets import Shapes
from ...learning.models import build_model, reset_weights
from ...learning.run import Run
from ...learning.train import augmented, sgd, train_surrogate
from ...store import read_images
from .base import Countermeasure


@dataclass(frozen=True)
class FineTuning(Countermeasure):
    """Starts from a pretrained network and a new last layer, at a low learning rate.

    Pretraining follows the protocol and is done once per victim, image shape and dataset in a
    process. Published fine-tuning starts from ImageNet; here nothing is downloaded, and weights
    from few or simple images are a weaker start than those.

    Args:
        dataset: What to pretrain on, read like any other; None is generated images
            (:class:`~unlearnable.datasets.Shapes`, seed 1).
        epochs: Of pretraining.
        learning_rate: Of the training that follows.
    """

    dataset: Any = None
    epochs: int = 10
    learning_rate: float = 0.001

    name = "fine-tuning"

    @property
    def description(self) -> str:
        return f"a victim that starts from weights trained on {self._source} and fine-tunes them"

    @property
    def _source(self) -> str:
        return "generated images" if self.dataset is None else type(self.dataset).__name__

    @property
    def parameters(self) -> dict[str, Any]:
        count = "" if self.dataset is None else f", {len(self.dataset):,} images"
        return super().parameters | {"dataset": self._source + count}

    def on_start(self, model: nn.Module, victim: str | nn.Module, run: Run) -> None:
        shape = tuple(run.images.shape[1:])
        learned = pretrained(
            victim, self.dataset, shape, self.epochs, str(run.device), run.precision
        )
        head = last_linear(model)
        weights = {
            name: weight for name, weight in learned.items() if not name.startswith(f"{head}.")
        }
        model.load_state_dict(weights, strict=False)


@functools.lru_cache(maxsize=8)
def pretrained(
    victim: str | nn.Module,
    dataset: Any,
    shape: tuple[int, int, int],
    epochs: int,
    device: str,
    precision: str,
) -> dict[str, Tensor]:
    """The weights of a victim after training on other images, on the CPU; kept in memory.

    Args:
        victim: Name or module.
        dataset: What to train on; None is generated images.
        shape: (C, H, W), which the images are resized to.
        epochs: Of training.
        device: Where to train.
        precision: Of network passes.
    """
    store = read_images(Shapes(seed=1) if dataset is None else dataset, shape[1:])
    images = store.images
    if len(images[0]) != shape[0]:
        grey = images.float().mean(1, keepdim=True).round().to(torch.uint8)
        images = grey.expand(-1, shape[0], -1, -1)
    run = Run(
        images.to(device), store.labels.to(device), store.num_classes,
        seed="pretraining", precision=precision,
    )  # fmt: skip
    seed = run.weight_seed("victim")
    if isinstance(victim, str):
        model = build_model(victim, store.num_classes, shape[0], seed=seed)
    else:
        model = copy.deepcopy(victim)
        name = last_linear(model)
        features: Any = model.get_submodule(name).in_features
        head = nn.utils.skip_init(nn.Linear, features, store.num_classes)
        model.set_submodule(name, head)
        reset_weights(model, seed=seed)
    try:
        train_surrogate(
            run,
            model,
            sgd(model),
            torch.optim.lr_scheduler.CosineAnnealingLR,
            epochs=epochs,
            batch_size=128,
            inputs=augmented(run),
        )
    finally:
        run.close()
    return {name: weight.cpu() for name, weight in model.state_dict().items()}


def last_linear(model: nn.Module) -> str:
    """The name of a network's last linear layer.

    Raises:
        ValueError: It has none.
    """
    names = [name for name, layer in model.named_modules() if isinstance(layer, nn.Linear)]
    if not names:
        raise ValueError(
            f"expected a victim with a Linear layer at its end, which fine-tuning replaces, got a "
            f"{type(model).__name__} without"
        )
    return names[-1]
