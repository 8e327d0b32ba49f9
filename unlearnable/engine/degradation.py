"""What becomes of pictures on their way to a network: compressed, grey, blurred; differentiable.

Draws of these are part of an expectation over transformations (EOT: Athalye et al., ICML 2018,
1707.07397), so that what is learned withstands them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .augment import jittered, luma
from .device import send
from .filters import BANDS, blurred, resized_and_back, without_bands
from .jpeg import jpeg
from .names import suggestion
from .numbers import number
from .random import Draws

CROP_FLIP = "crop-flip"  # beside the others, and after them
# In this order draws are shared out among them, and then among several one after the other.
DEGRADATIONS = ("resize", "jpeg", "grayscale", "blur", "spectral", "normalize", "jitter")
_QUALITIES = (10, 95)  # from what an audit's countermeasures save to what cameras do
_SMALLEST = 0.5  # of the sides
_DRAWS = 4  # uniform numbers that an image takes for the first three
_SIGMAS = (0.1, 1.5)  # pixels
_MOST_LEFT_OUT = 0.5  # of a spectrum's bands
_FACTORS, _TURN = (0.6, 1.4), 0.1  # of brightness, contrast and saturation; of the circle of hues
_LEVEL, _SPREAD = 0.5, 0.25  # mean and standard deviation of a normalised channel
_MORE = (1, BANDS * BANDS, 3, 4)  # numbers that the others take: blur, bands, spectral, jitter


class Degradation(NamedTuple):
    """One of several transformations for each image, or none.

    Draws are on the CPU, so that each image costs only what is done to it and nothing waits for a
    GPU.

    Attributes:
        names: The transformations: names in :data:`DEGRADATIONS`, or several in order, such as
            ``"grayscale+jpeg"``.
        kinds: Which of the names each image gets, or their number for none, int64 (B,).
        qualities: Quality of JPEG with 4:2:0 subsampling, 10 to 95, int64 (B,).
        shares: Side of the reduced image relative to the original, 0.5 to 1, float32 (B,).
        bicubic: Whether it is resized with bicubic instead of bilinear filters, bool (B,).
        sigmas: Standard deviation of a Gaussian blur in pixels, 0.1 to 1.5, float32 (B,).
        bands: Which frequency bands are kept, bool (B, 8, 8): either up to half of them are
            removed, each drawn separately, or all above a limit in either direction. The lowest
            band is always kept.
        factors: Factors of brightness, contrast and saturation, 0.6 to 1.4, and the rotation of the
            hue as a share of a full turn, -0.1 to 0.1, float32 (B, 4).
    """

    names: tuple[str, ...]
    kinds: Tensor
    qualities: Tensor
    shares: Tensor
    bicubic: Tensor
    sigmas: Tensor
    bands: Tensor
    factors: Tensor

    @classmethod
    def draw(cls, count: int, draws: Draws, probabilities: Mapping[str, float]) -> Degradation:
        """Draws for ``count`` images.

        Args:
            count: Number of images.
            draws: Draws for the current batch.
            probabilities: Probabilities of transformations, from :func:`check_probabilities`; the
                remainder to 1 is the probability of none. ``"crop-flip"`` is drawn separately.
        """
        draws = draws.on_cpu()
        kind, quality, share, filter = draws.uniform((count, _DRAWS), 0, 1).unbind(1)
        names = tuple(name for name in probabilities if name != CROP_FLIP)
        ends = list(itertools.accumulate(probabilities[name] for name in names))
        # Drawn after the others, and only where it is for one of them: their draws stay the same.
        late = any(step in DEGRADATIONS[3:] for name in names for step in name.split("+"))
        numbers = (count, sum(_MORE))
        more = draws.uniform(numbers, 0, 1) if late else torch.zeros(numbers)
        sigma, each, spectral, factors = more.split(_MORE, dim=1)
        low, high = _QUALITIES
        return cls(
            names=names,
            kinds=(kind[:, None] >= torch.tensor(ends)).sum(1),
            qualities=low + (quality * (high + 1 - low)).long().clamp_max(high - low),
            shares=_SMALLEST + (1 - _SMALLEST) * share,
            bicubic=filter < 0.5,
            sigmas=_between(sigma[:, 0], *_SIGMAS),
            bands=_kept(each.unflatten(1, (BANDS, BANDS)), *spectral.unbind(1)),
            factors=torch.cat(
                (_between(factors[:, :3], *_FACTORS), _between(factors[:, 3:], -_TURN, _TURN)), 1
            ),
        )

    def __call__(self, images: Tensor) -> Tensor:
        """Degrades float ``images`` in [0, 1] of shape (B, C, H, W); the result stays in [0, 1]."""
        order = self.kinds.argsort(stable=True)
        counts = self.kinds.bincount(minlength=len(self.names) + 1).tolist()
        parts = images.index_select(0, send(order, images.device)).split(counts)
        seen = [
            self._degraded(name, part, which) if len(part) else part
            for name, part, which in zip((*self.names, ""), parts, order.split(counts), strict=True)
        ]
        return torch.cat(seen).index_select(0, send(order.argsort(), images.device))

    def _degraded(self, name: str, images: Tensor, which: Tensor) -> Tensor:
        """Some of the images, those with the indices ``which``, all by one name."""
        for step in name.split("+"):
            if step == "resize":
                images = resized_and_back(images, self.shares[which], self.bicubic[which])
            elif step == "jpeg":
                images = jpeg(images, self.qualities[which])
            elif step == "grayscale":
                images = luma(images).expand_as(images)
            elif step == "blur":
                images = blurred(images, self.sigmas[which])
            elif step == "spectral":
                images = without_bands(images, self.bands[which])
            elif step == "normalize":
                images = normalized(images)
            elif step == "jitter":
                images = jittered(images, *send(self.factors[which], images.device).unbind(1))
        return images


def normalized(images: Tensor) -> Tensor:
    """Normalizes each channel of each float image (B, C, H, W) to mean 0.5 and spread 0.25.

    The spread is the standard deviation, at least one level. The result is clipped to [0, 1].
    """
    variance, mean = torch.var_mean(images, (2, 3), correction=0, keepdim=True)
    spread = variance.clamp_min(1 / 255**2).sqrt()
    return (_LEVEL + _SPREAD * (images - mean) / spread).clamp(0, 1)


def _between(uniform: Tensor, low: float, high: float) -> Tensor:
    return low + (high - low) * uniform


def _kept(each: Tensor, share: Tensor, low_pass: Tensor, edge: Tensor) -> Tensor:
    """Which bands are kept, bool (B, 8, 8), by uniform draws for each and for all of an image."""
    places = torch.arange(BANDS)
    highest = torch.maximum(places[:, None], places)
    at_random = each >= _MOST_LEFT_OUT * share[:, None, None]
    below = highest <= (1 + (BANDS - 2) * edge).long()[:, None, None]
    return (highest == 0) | torch.where((low_pass < 0.5)[:, None, None], below, at_random)


def check_probabilities(name: str, value: Any) -> dict[str, float] | None:
    """Checks probabilities of transformations and puts them in a fixed order; None if empty.

    Args:
        name: Name of the argument, for errors.
        value: A mapping from names in :data:`DEGRADATIONS`, or combinations such as
            ``"grayscale+jpeg"``, to probabilities, which sum to at most 1; zeros are dropped.
            ``"crop-flip"`` has a separate probability, which may be 0.

    Raises:
        ValueError: The value is invalid.
    """
    known = sorted((*DEGRADATIONS, CROP_FLIP))
    if not isinstance(value, Mapping):
        raise ValueError(
            f'expected {name} to map some of {known} to probabilities, such as {{"jpeg": 0.3}}, '
            f"got {value!r}"
        )
    for key in value:
        _check_name(name, key, known)
    found = {key: number(f"{name}[{key!r}]", value[key]) for key in _in_order(value)}
    for key, probability in found.items():
        if not 0 <= probability <= 1:
            raise ValueError(f"expected {name}[{key!r}] from 0 to 1, got {probability:g}")
    total = math.fsum(share for key, share in found.items() if key != CROP_FLIP)
    if total > 1 + 1e-9:
        raise ValueError(
            f"expected probabilities in {name} that sum to at most 1, because an image gets at "
            f"most one transformation at a time, got {total:g}; to combine two, name them "
            f'together: "grayscale+jpeg"'
        )
    return {key: share for key, share in found.items() if share or key == CROP_FLIP} or None


def _check_name(name: str, key: Any, known: list[str]) -> None:
    """Raises ``ValueError`` for what names no transformation, nor several of them."""
    if key == CROP_FLIP:
        return
    steps = key.split("+") if isinstance(key, str) else [key]
    for step in steps:
        if step == CROP_FLIP:
            raise ValueError(
                f'expected "{CROP_FLIP}" as a separate entry in {name}, got {key!r}; it is '
                f"drawn independently of the others and applied after them, so give it its own "
                f"probability"
            )
        if step not in DEGRADATIONS:
            raise ValueError(
                f"expected names in {name} out of {known}, or combinations such as "
                f'"grayscale+jpeg", got {key!r}{suggestion(step, known)}'
            )
    if len(set(steps)) < len(steps):
        raise ValueError(
            f"expected each transformation at most once per name in {name}, got {key!r}"
        )


def _in_order(keys: Iterable[str]) -> list[str]:
    """Names of single transformations first, as in their list, and then of several."""

    def place(key: str) -> tuple[int, list[int]]:
        steps = [(*DEGRADATIONS, CROP_FLIP).index(step) for step in key.split("+")]
        return len(steps), steps

    return sorted(keys, key=place)
