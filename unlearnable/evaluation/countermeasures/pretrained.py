"""Fine-tuning: the victim starts from weights that it learned on other, clean images."""

from __future__ import annotations

import contextlib
import copy
import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ...data.cache import read_images
from ...data.fingerprint import digest_of_images
from ...data.raw import RawDataset
from ...data.shapes import Shapes
from ...engine.models import build_model, check_network, last_linear, reset_weights
from ...engine.run import Run
from ...engine.train import augmented, sgd, train_surrogate
from .base import Countermeasure, NoCountermeasure


@dataclass(frozen=True)
class Start:
    """The dataset a victim is pretrained on, as in :class:`FineTuning`; compared by its digest."""

    dataset: Any = field(compare=False, repr=False)
    digest: str | None
    epochs: int


@dataclass(frozen=True)
class FineTuning(Countermeasure):
    """Starts from a pretrained network with a new last layer, at a low learning rate.

    Pretraining follows the protocol and is done once per process for each victim, image shape,
    dataset and number of epochs. Published fine-tuning starts from ImageNet. Here nothing is
    downloaded, and weights from few or simple images are a weaker start.

    Two instances are equal, and have the same name, if their images and labels are equal. For this
    fingerprint, a dataset is read once when it is passed.

    Args:
        dataset: Dataset to pretrain on; None means generated images
            (:class:`~unlearnable.datasets.Shapes`, seed 1).
        epochs: Epochs of pretraining.
        learning_rate: Initial learning rate of the training that follows.

    Attributes:
        digest: Fingerprint of the dataset, or None for generated images.
    """

    dataset: Any = field(default=None, compare=False, repr=False)
    epochs: int = 10
    learning_rate: float = 0.001
    digest: str | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._integers(epochs=1)
        self._numbers("learning_rate")
        if self.learning_rate <= 0:
            raise ValueError(f"expected a learning rate above 0, got {self.learning_rate}")
        if self.dataset is not None:
            raw = RawDataset(self.dataset)
            object.__setattr__(self, "digest", digest_of_images(raw.keys, raw.labels))

    @property
    def name(self) -> str:
        return "fine-tuning" if self.digest is None else f"fine-tuning-{self.digest[:8]}"

    @property
    def description(self) -> str:
        return f"a victim that starts from weights trained on {self._source} and fine-tunes them"

    @property
    def _source(self) -> str:
        if self.dataset is None:
            return "generated images"
        return "arrays" if isinstance(self.dataset, tuple) else type(self.dataset).__name__

    @property
    def parameters(self) -> dict[str, Any]:
        described = self._source
        if self.dataset is not None:
            described += f", {len(RawDataset(self.dataset)):,} images, digest {self.digest}"
        own = super().parameters | {"dataset": described}
        del own["digest"]
        return own

    def check_victim(self, victim: str | nn.Module, shape: Sequence[int] | None = None) -> None:
        if isinstance(victim, str):
            with torch.device("meta"):
                victim = build_model(victim, 2)
        head = last_linear(victim)
        if shape is None:
            return
        # One logit more than before: where another layer gives the logits, it does not show.
        layer: Any = victim.get_submodule(head)
        width = layer.out_features + 1
        try:
            check_network(with_head(victim, width), shape, width, role="victim")
        except ValueError as error:
            raise ValueError(
                f"expected a victim whose last Linear layer outputs the logits, because "
                f"fine-tuning replaces it, got a {type(victim).__name__} in which "
                f"{head or 'the module itself'}, defined last, does not; define its layers in the "
                f"order in which they are used"
            ) from error

    def for_timing(self, few: int, count: int) -> Countermeasure:
        return NoCountermeasure()  # pretraining is done once for all victims

    def on_start(self, model: nn.Module, victim: str | nn.Module, run: Run) -> None:
        shape = tuple(run.images.shape[1:])
        start = Start(self.dataset, self.digest, self.epochs)
        learned = pretrained(victim, start, shape, str(run.device), run.precision)
        head = last_linear(model)
        body = {name: w for name, w in learned.items() if not name.startswith(f"{head}.")}
        model.load_state_dict(body, strict=False)


@functools.lru_cache(maxsize=8)
def pretrained(
    victim: str | nn.Module, start: Start, shape: tuple[int, int, int], device: str, precision: str
) -> dict[str, Tensor]:
    """A victim's weights, on the CPU, after training on other images, resized to a given shape."""
    store = read_images(Shapes(seed=1) if start.digest is None else start.dataset, shape[1:])
    images = store.images
    if len(images[0]) != shape[0]:
        grey = images.float().mean(1, keepdim=True).round().to(torch.uint8)
        images = grey.expand(-1, shape[0], -1, -1)
    images, labels = images.to(device), store.labels.to(device)
    run = Run(images, labels, store.num_classes, seed="pretraining", precision=precision)
    with contextlib.closing(run):
        seed = run.weight_seed("victim")
        if isinstance(victim, str):
            model = build_model(victim, store.num_classes, shape[0], seed=seed)
        else:
            model = with_head(victim, store.num_classes)
            reset_weights(model, seed=seed, role="victim")
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR
        crop_flip = augmented(run)
        train_surrogate(
            run, model, sgd(model), schedule, epochs=start.epochs, batch_size=128, inputs=crop_flip
        )
    return {name: weight.cpu() for name, weight in model.state_dict().items()}


def with_head(victim: nn.Module, num_classes: int) -> nn.Module:
    """A copy of a module with a new last linear layer, whose weights are not initialised."""
    model = copy.deepcopy(victim)
    name = last_linear(model)
    features: Any = model.get_submodule(name).in_features
    model.set_submodule(name, nn.utils.skip_init(nn.Linear, features, num_classes))
    return model
