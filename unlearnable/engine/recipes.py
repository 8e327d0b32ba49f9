"""How a network is trained from fresh weights: the field's protocol, and a fast one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from .augment import CropFlip
from .run import Run
from .train import Schedule, to_float


def triangle(optimizer: torch.optim.Optimizer, updates: int) -> LRScheduler:
    """From 0.2 up to 1 in the first 23 % of the updates, and down to 0.07."""
    peak = max(1, round(0.23 * updates))

    def factor(done: int) -> float:
        if done < peak:
            return 0.2 + 0.8 * done / peak
        return 1 - 0.93 * (done - peak) / max(1, updates - peak)

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


@dataclass(frozen=True)
class Recipe:
    """Optimiser, schedule and augmentation of a training.

    Attributes:
        name: What users call it.
        epochs: Passes over the images, where nothing else is asked for.
        batch_size: Images of an update, likewise.
        learning_rate: The largest.
        schedule: Makes a scheduler from an optimiser and the number of updates in all.
        momentum: Of SGD.
        nesterov: Whether in Nesterov's form.
        weight_decay: Of all weights.
        norm_bias: Factor of the learning rate of BatchNorm's biases.
        label_smoothing: Share of the target that all classes have in common.
        padding: Pixels that crops may reach beyond the image.
        mirrored: Whether the image is continued there by its mirror image, else by black.
        alternating: Whether an image is flipped in every second epoch, else at random.
    """

    name: str = "standard"
    epochs: int = 60
    batch_size: int = 128
    learning_rate: float = 0.1
    schedule: Schedule = torch.optim.lr_scheduler.CosineAnnealingLR
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 5e-4
    norm_bias: float = 1.0
    label_smoothing: float = 0.0
    padding: int = 4
    mirrored: bool = False
    alternating: bool = False

    def optimizer(self, model: nn.Module, factor: float = 1.0) -> torch.optim.SGD:
        """SGD for a model's weights, with ``factor`` times the recipe's learning rate."""
        rate = factor * self.learning_rate
        biases = [
            layer.bias
            for layer in model.modules()
            if isinstance(layer, nn.BatchNorm2d) and layer.affine and self.norm_bias != 1
        ]
        known = {id(bias): bias for bias in biases}
        others = [weight for weight in model.parameters() if id(weight) not in known]
        groups = [{"params": others, "lr": rate, "weight_decay": self.weight_decay}]
        if biases:
            fast = self.norm_bias * rate  # what decays them in a step is as for the others
            decay = self.weight_decay / self.norm_bias
            groups.append({"params": list(known.values()), "lr": fast, "weight_decay": decay})
        return torch.optim.SGD(groups, lr=rate, momentum=self.momentum, nesterov=self.nesterov)

    def inputs(self, run: Run, epoch: int) -> Callable[[Tensor], Tensor]:
        """From image indices (B,) to float images (B, C, H, W), cropped and flipped."""
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
    schedule=triangle,
    momentum=0.85,
    nesterov=True,
    weight_decay=1.33e-3,
    norm_bias=64.0,
    label_smoothing=0.2,
    padding=2,
    mirrored=True,
    alternating=True,
)

RECIPES = {recipe.name: recipe for recipe in (STANDARD, FAST)}


def find_recipe(name: str) -> Recipe:
    """A recipe by its name; ``ValueError`` for any other."""
    if name not in RECIPES:
        raise ValueError(f"expected a recipe, one of {list(RECIPES)}, got {name!r}")
    return RECIPES[name]
