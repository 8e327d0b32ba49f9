"""How a network is trained from fresh weights: the field's protocol, and a fast one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from .augment import CropFlip
from .names import suggestion
from .run import Run
from .train import Schedule, to_float


def triangle(optimizer: torch.optim.Optimizer, updates: int) -> LRScheduler:
    """Rises from 0.2 to 1 in the first 23 % of the updates, then falls to 0.07."""
    peak = max(1, round(0.23 * updates))

    def factor(done: int) -> float:
        if done < peak:
            return 0.2 + 0.8 * done / peak
        return 1 - 0.93 * (done - peak) / max(1, updates - peak)

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


class Lookahead:
    """A scheduler that also maintains a slow copy of a model, to which the model returns.

    Every few updates the copy, including running statistics, moves part of the way towards the
    model, which continues from there; the parts become smaller, and at the end the model is the
    copy. Weights that are held at that time (``requires_grad=False``) stay as they are. If there
    are fewer updates than that, there is no copy. (Zhang et al., NeurIPS 2019, 1907.08610; the
    schedule is Jordan's, 2404.00498)

    Args:
        scheduler: Scheduler stepped after every update.
        model: The trained model, on its device.
        updates: Total number of updates.
    """

    every = 5
    decay = 0.95

    def __init__(self, scheduler: LRScheduler, model: nn.Module, updates: int) -> None:
        self._scheduler, self._updates, self._done = scheduler, updates, 0
        held = model.state_dict(keep_vars=True).values()
        self._fast = [tensor for tensor in held if tensor.is_floating_point()]
        self._slow = [tensor.detach().clone() for tensor in self._fast]

    @torch.no_grad()
    def step(self) -> None:
        """Called after every update."""
        self._scheduler.step()
        self._done += 1
        last = self._done == self._updates
        if (self._done % self.every and not last) or self._updates < self.every:
            return
        part = 1 - self.decay**self.every * (self._done / self._updates) ** 3
        slow, fast = [], []
        for copied, tensor in zip(self._slow, self._fast, strict=True):
            if isinstance(tensor, nn.Parameter) and not tensor.requires_grad:
                copied.copy_(tensor)
            else:
                slow.append(copied)
                fast.append(tensor)
        torch._foreach_lerp_(slow, fast, 0.0 if last else part)
        torch._foreach_copy_(fast, slow)

    def state_dict(self) -> dict[str, Any]:
        """The state, for :meth:`load_state_dict`."""
        own = {"done": self._done, "slow": self._slow}
        return {"scheduler": self._scheduler.state_dict(), **own}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores a state from :meth:`state_dict`."""
        self._scheduler.load_state_dict(state["scheduler"])
        self._done = state["done"]
        torch._foreach_copy_(self._slow, state["slow"])


@dataclass(frozen=True)
class Recipe:
    """Optimiser, schedule and augmentation for training.

    Attributes:
        name: Name of the recipe.
        epochs: Default number of passes over the images.
        batch_size: Default number of images per update.
        learning_rate: Largest learning rate.
        usual_rate: In its place where no BatchNorm has a trained bias and a fixed scale, or None:
            rates for such networks leave others with the same answer to all images.
        schedule: Function from an optimiser and the total number of updates to a scheduler.
        momentum: Momentum of SGD.
        nesterov: Whether to use Nesterov momentum.
        weight_decay: Weight decay of all weights.
        norm_bias: Factor of the learning rate for the biases of BatchNorm without a scale.
        label_smoothing: Share of the target that is spread over all classes.
        padding: Pixels by which crops may extend beyond the image.
        mirrored: Whether the image is mirrored there, instead of black.
        alternating: Whether an image is flipped in every second epoch, instead of at random.
        lookahead: Whether to use a slow copy of the weights (:class:`Lookahead`).
    """

    name: str = "standard"
    epochs: int = 60
    batch_size: int = 128
    learning_rate: float = 0.1
    usual_rate: float | None = None
    schedule: Schedule = torch.optim.lr_scheduler.CosineAnnealingLR
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 5e-4
    norm_bias: float = 1.0
    label_smoothing: float = 0.0
    padding: int = 4
    mirrored: bool = False
    alternating: bool = False
    lookahead: bool = False

    def optimizer(self, model: nn.Module, factor: float = 1.0) -> torch.optim.SGD:
        """SGD for a model's weights, with ``factor`` times the recipe's learning rate."""
        biases = [
            layer.bias
            for layer in model.modules()
            if isinstance(layer, nn.BatchNorm2d)
            and layer.affine
            and layer.bias.requires_grad
            and not layer.weight.requires_grad
        ]
        usual = self.learning_rate if self.usual_rate is None else self.usual_rate
        rate = factor * (self.learning_rate if biases else usual)
        biases = biases if self.norm_bias != 1 else []
        known = {id(bias): bias for bias in biases}
        others = [weight for weight in model.parameters() if id(weight) not in known]
        groups = [{"params": others, "lr": rate, "weight_decay": self.weight_decay}]
        if biases:
            fast = self.norm_bias * rate  # what decays them in a step is as for the others
            decay = self.weight_decay / self.norm_bias
            groups.append({"params": list(known.values()), "lr": fast, "weight_decay": decay})
        return torch.optim.SGD(groups, lr=rate, momentum=self.momentum, nesterov=self.nesterov)

    def scheduler(
        self, optimizer: torch.optim.Optimizer, model: nn.Module, updates: int
    ) -> LRScheduler | Lookahead:
        """The scheduler to step after each update of a model that has been placed."""
        scheduler = self.schedule(optimizer, updates)
        return Lookahead(scheduler, model, updates) if self.lookahead else scheduler

    def inputs(self, run: Run, epoch: int) -> Callable[[Tensor], Tensor]:
        """Function from image indices (B,) to float images (B, C, H, W), cropped and flipped."""
        flipped = None
        if self.alternating:
            first = run.global_rng("flips").integers((len(run.labels),), 0, 2).bool()
            flipped = first ^ bool(epoch % 2)

        def augmented(index: Tensor) -> Tensor:
            draw = CropFlip.draw(len(index), run.rng("crop"), self.padding)
            if flipped is not None:
                draw = draw._replace(flips=flipped[index])
            return draw(to_float(run.images[index]), mirrored=self.mirrored)

        return augmented


STANDARD = Recipe()

# In the manner of the fastest public CIFAR-10 trainers. (Jordan, 2404.00498)
FAST = Recipe(
    name="fast",
    epochs=12,
    batch_size=1000,
    learning_rate=1.5,
    usual_rate=0.05,
    schedule=triangle,
    momentum=0.85,
    nesterov=True,
    weight_decay=1.33e-3,
    norm_bias=64.0,
    label_smoothing=0.2,
    padding=2,
    mirrored=True,
    alternating=True,
    lookahead=True,
)

RECIPES = {recipe.name: recipe for recipe in (STANDARD, FAST)}


def find_recipe(name: str) -> Recipe:
    """The recipe with this name; raises ``ValueError`` if there is none."""
    if name not in RECIPES:
        near = suggestion(name, RECIPES)
        raise ValueError(f"expected a recipe out of {list(RECIPES)}, got {name!r}{near}")
    return RECIPES[name]
