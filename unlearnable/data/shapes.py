"""Generated datasets: real training behaviour without a download."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torchvision.datasets import VisionDataset

from ..engine.numbers import integer

_SIDE = 32
_SUPERSAMPLING = 2  # samples per pixel and axis: anti-aliased outlines
_CHUNK = 100  # images drawn at once, ten of each class
Field = NDArray[np.float32]


def _star(u: Field, v: Field) -> NDArray[np.bool_]:
    radius, angle = np.hypot(u, v), np.arctan2(v, u)
    # Distance of a five-pointed star's outline: a line between tip (1.0) and notch (0.42).
    turn = np.abs(((angle + np.pi / 2) / (2 * np.pi / 5) + 0.5) % 1 - 0.5) * (2 * np.pi / 5)
    tip, notch = np.array([1.0, 0.0]), 0.42 * np.array([np.cos(np.pi / 5), np.sin(np.pi / 5)])
    normal = np.array([notch[1] - tip[1], tip[0] - notch[0]])
    x, y = radius * np.cos(turn), radius * np.sin(turn)
    return (x - tip[0]) * normal[0] + (y - tip[1]) * normal[1] <= 0


# Each shape as a predicate on local coordinates: u to the right, v downwards, radius about 1.
_SHAPES: dict[str, Callable[[Field, Field], NDArray[np.bool_]]] = {
    "arrow": lambda u, v: (
        ((np.abs(u) < 0.26) & (v > -0.1) & (v < 0.95))
        | ((v > -0.95) & (v <= 0.05) & (np.abs(u) < 0.8 * (v + 0.95)))
    ),
    "circle": lambda u, v: np.hypot(u, v) < 0.9,
    "crescent": lambda u, v: (np.hypot(u, v) < 0.95) & (np.hypot(u - 0.5, v) > 0.75),
    "cross": lambda u, v: (
        (np.minimum(np.abs(u), np.abs(v)) < 0.28) & (np.maximum(np.abs(u), np.abs(v)) < 0.95)
    ),
    "heart": lambda u, v: (
        (u * 1.15) ** 2 + (-(v - 0.05) * 1.15 - 0.55 * np.sqrt(np.abs(u * 1.15))) ** 2 < 0.9
    ),
    "hourglass": lambda u, v: (np.abs(v) < 0.9) & (np.abs(u) < 0.08 + 0.8 * np.abs(v)),
    "ring": lambda u, v: np.abs(np.hypot(u, v) - 0.72) < 0.22,
    "square": lambda u, v: np.maximum(np.abs(u), np.abs(v)) < 0.78,
    "star": _star,
    "triangle": lambda u, v: (v < 0.72) & (np.abs(u) < 0.58 * (v + 0.98)),
}


def _textures(rng: np.random.Generator, count: int, side: int) -> Field:
    """Random surfaces with the 1/f spectrum of natural images, (count, 3, side, side) around 0."""
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side))
    frequency[0, 0] = np.inf
    slope = rng.uniform(0.7, 1.5, (count, 1, 1, 1))
    white = rng.standard_normal((count, 4, side, side))
    field = np.fft.irfft2(np.fft.rfft2(white) / frequency**slope, s=(side, side))
    field /= field.std(axis=(2, 3), keepdims=True) + 1e-8
    # One luminance field shared by the channels and a weaker one of each channel's own.
    return (field[:, :1] + 0.35 * field[:, 1:]).astype(np.float32)


def _draw(rng: np.random.Generator, labels: NDArray[np.int64], side: int) -> NDArray[np.uint8]:
    count = len(labels)
    ground = rng.uniform(0.2, 0.8, (count, 3, 1, 1))
    # The shape's colour lies 0.33 to 0.73 away from the ground's, in a random direction.
    away = rng.standard_normal((count, 3, 1, 1))
    away *= rng.uniform(0.33, 0.73, (count, 1, 1, 1)) / np.linalg.norm(away, axis=1, keepdims=True)
    colour = np.clip(ground + away, 0.05, 0.95)
    strength = rng.uniform(0.045, 0.12, (2, count, 1, 1, 1))
    background = ground + strength[0] * _textures(rng, count, side)
    foreground = colour + 0.6 * strength[1] * _textures(rng, count, side)

    radius = rng.uniform(8.5, 12.5, (count, 1, 1)) * (side / _SIDE)
    centre = side / 2 + rng.uniform(-1, 1, (2, count, 1, 1)) * 0.8 * (side / 2 - 0.9 * radius)
    angle = np.deg2rad(rng.uniform(-15, 15, (count, 1, 1)))
    stretch = rng.uniform(0.85, 1.15, (count, 1, 1))
    samples = side * _SUPERSAMPLING
    grid = (np.arange(samples) + 0.5) / _SUPERSAMPLING
    dx, dy = grid[None, None, :] - centre[0], grid[None, :, None] - centre[1]
    u = ((np.cos(angle) * dx + np.sin(angle) * dy) / radius * stretch).astype(np.float32)
    v = ((-np.sin(angle) * dx + np.cos(angle) * dy) / radius / stretch).astype(np.float32)
    inside = np.zeros((count, samples, samples), np.float32)
    for label, contains in enumerate(_SHAPES.values()):
        mine = labels == label
        inside[mine] = contains(u[mine], v[mine])
    cover = inside.reshape(count, 1, side, _SUPERSAMPLING, side, _SUPERSAMPLING).mean((3, 5))

    image = background * (1 - cover) + foreground * cover
    image = image + 0.02 * rng.standard_normal(image.shape)
    return np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)


class Shapes(VisionDataset):
    """Ten classes of shapes on textured backgrounds, generated from a seed in about a second.

    Each RGB image shows one shape with random position, size, tilt, colour and texture on a
    background with the 1/f spectrum of natural images. Classes differ only in outline, so a
    perturbation that gives the class away is easier to learn than the shape.

    Args:
        train: The training split; the test split is drawn from an independent stream.
        size: Number of images; by default 3,000 for training and 1,000 for testing. The first
            images do not depend on it.
        seed: Non-negative seed. Images depend only on seed, split and side.
        side: Height and width in pixels, at least 8.
        transform: Transform from a PIL image to what the model expects.
        target_transform: Transform of the class index.

    Raises:
        ValueError: ``size``, ``seed`` or ``side`` is not an integer, or too small.

    Attributes:
        data: uint8 array of shape (N, side, side, 3).
        targets: List of N class indices, each class ten times in every hundred.
        classes: The ten names, in alphabetical order; ``class_to_idx`` is their inverse.

    Example:
        >>> image, label = Shapes(train=False, size=10)[3]
        >>> image.size, image.mode
        ((32, 32), 'RGB')
    """

    classes = list(_SHAPES)  # noqa: RUF012
    class_to_idx = {name: index for index, name in enumerate(_SHAPES)}  # noqa: RUF012

    def __init__(
        self,
        train: bool = True,
        *,
        size: int | None = None,
        seed: int = 0,
        side: int = _SIDE,
        transform: Callable[..., Any] | None = None,
        target_transform: Callable[..., Any] | None = None,
    ) -> None:
        super().__init__(root=None, transform=transform, target_transform=target_transform)
        if size is None:
            size = 3000 if train else 1000
        size, side = integer("size", size, least=1), integer("side", side, least=8)
        self.train = train
        self.seed = seed = integer("seed", seed, least=0)
        images, labels = [], []
        for chunk in range(-(-size // _CHUNK)):
            rng = np.random.default_rng([seed, int(train), chunk])
            drawn = rng.permutation(np.arange(_CHUNK) % len(_SHAPES))
            images.append(_draw(rng, drawn, side))
            labels.append(drawn)
        self.data = np.ascontiguousarray(np.concatenate(images)[:size].transpose(0, 2, 3, 1))
        self.targets: list[int] = np.concatenate(labels)[:size].tolist()

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        image: Any = Image.fromarray(self.data[index])
        label: Any = self.targets[index]
        if self.transform is not None:
            image = self.transform(image)
        if self.target_transform is not None:
            label = self.target_transform(label)
        return image, label

    def extra_repr(self) -> str:
        return f"Split: {'Train' if self.train else 'Test'}\nSeed: {self.seed}"
