"""Colours that change from batch to batch, so that no colour can indicate a class."""

from __future__ import annotations

from dataclasses import dataclass

from ...engine.run import Run
from ...engine.train import Batch
from . import operations
from .base import Countermeasure


@dataclass(frozen=True)
class ColourJitter(Countermeasure):
    """Randomly changes brightness, contrast, saturation and hue of each image, in that order.

    The operations are those of torchvision's ``ColorJitter``, which applies them in random order.

    Args:
        brightness: Factors are drawn from 1 minus this to 1 plus this.
        contrast: Like ``brightness``.
        saturation: Like ``brightness``.
        hue: Largest rotation of the hues in either direction, as a share of a full turn; up to 0.5.
    """

    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4
    hue: float = 0.1

    name = "colour-jitter"
    description = "a victim that changes the colours of each image at random in every batch"

    def __post_init__(self) -> None:
        names = ("brightness", "contrast", "saturation", "hue")
        self._numbers(*names)
        for name in names:
            most = 0.5 if name == "hue" else 1
            if not 0 <= getattr(self, name) <= most:
                raise ValueError(f"expected {name} from 0 to {most}, got {getattr(self, name)}")

    def on_batch(self, batch: Batch, run: Run, done: float) -> Batch:
        images = batch.images
        drawn = run.rng("colour jitter").uniform((len(images), 4), -1, 1).unbind(1)
        brighter, sharper, livelier, turn = drawn
        images = operations.brightness(images, 1 + self.brightness * brighter)
        images = operations.contrast(images, 1 + self.contrast * sharper)
        images = operations.saturation(images, 1 + self.saturation * livelier)
        return batch._replace(images=operations.hue(images, self.hue * turn))


@dataclass(frozen=True)
class HueShift(Countermeasure):
    """Randomly rotates the hues of each image.

    Args:
        turn: Largest rotation in either direction, as a share of a full turn; 0.5 allows any hue.
    """

    turn: float = 0.5

    name = "hue-shift"
    description = "a victim that rotates the hues of each image at random in every batch"

    def __post_init__(self) -> None:
        self._numbers("turn")
        if not 0 < self.turn <= 0.5:
            raise ValueError(f"expected a turn above 0 and up to 0.5, got {self.turn}")

    def on_batch(self, batch: Batch, run: Run, done: float) -> Batch:
        images = batch.images
        turn = run.rng("hue shift").uniform((len(images),), -self.turn, self.turn)
        return batch._replace(images=operations.hue(images, turn))


@dataclass(frozen=True)
class ShiftNoise(Countermeasure):
    """Adds one random colour to all pixels of an image, and noise to each pixel.

    Args:
        levels: Largest shift of each channel in either direction, drawn uniformly, in levels of
            1/255.
        noise: Standard deviation of the Gaussian noise, in levels of 1/255.
    """

    levels: float = 8
    noise: float = 4

    def __post_init__(self) -> None:
        self._numbers("levels", "noise")
        for name in ("levels", "noise"):
            if not 0 <= getattr(self, name) <= 255:
                raise ValueError(f"expected {name} from 0 to 255, got {getattr(self, name)}")

    @property
    def name(self) -> str:
        return f"shift-noise-{self.levels:g}"

    @property
    def description(self) -> str:
        return (
            f"a victim that adds a random colour of up to {self.levels:g}/255 and noise to each "
            f"image in every batch"
        )

    def on_batch(self, batch: Batch, run: Run, done: float) -> Batch:
        images, draws = batch.images, run.rng("shift noise")
        size = self.levels / 255
        shift = draws.uniform((*images.shape[:2], 1, 1), -size, size)
        noise = draws.normal(tuple(images.shape)) * (self.noise / 255)
        return batch._replace(images=(images + shift + noise).clamp(0, 1))
