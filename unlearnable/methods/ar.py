"""AR: rows of a random autoregressive process per class. (Sandoval-Segura et al., 2206.03693)"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..engine.random import Draws, seed_of
from ..engine.run import Run
from ..perturbation.kinds.generators import MARGIN, Floats, autoregress
from ..perturbation.quantize import UNIT
from .base import Method
from .parameters import Untrained, positive
from .spread_budget import spread_budget

_CANDIDATES = 64  # processes drawn at once
_ROUNDS = 10  # of candidates, without enough of them, after which the distance is lowered
_LOWER = 0.8
_LEAST = 8
_QUIET = 1e-3
_LOUD = 50 / 32  # root mean square of a field that is too much: the paper's norm of 50 at 32x32


@dataclass(kw_only=True, repr=False, eq=False)
class AR(Untrained, Method):
    """Autoregressive perturbations. (Sandoval-Segura et al., NeurIPS 2022, arXiv:2206.03693)

    Each class and channel has a 3x3 window of coefficients. A row starts with two rows and columns
    of normal noise, and every further value is the weighted sum of the window that ends there, so a
    single convolution reveals the class. Nothing is trained, and new images get their own rows.

    Args:
        epsilon: L2 norm of a row in [0, 1] units; None means the paper's 1.0 for 32x32 colour
            images and 3.0 for 96x96, proportional to the square root of the number of values.
        distance: What a class's filter must leave of the field of any other class, relative to that
            field; lowered if too few processes are found. A filter leaves nothing of its own
            class's field.
        granularity: Only ``"sample-wise"``; a row depends on seed, class and image.
        seed: Seed of processes and rows.

    Example:
        >>> from unlearnable.datasets import Shapes
        >>> AR().fit(Shapes(size=20), progress=False).perturbation_
        Perturbation(AR, sample-wise, L2 1, 10 classes of 3x32x32)
    """

    kind = "procedural"
    granularities = ("sample-wise",)
    masked = True
    norm = "L2"

    epsilon: float | None = None
    distance: float = positive(0.3, most=2)
    granularity: str = "sample-wise"
    seed: int = 0

    def _budget(self, shape: Sequence[int]) -> tuple[float | None, str | None]:
        usual = math.sqrt(math.prod(shape) / (3 * 32 * 32))
        return spread_budget(self.epsilon, usual, shape), self.norm

    def _learn(self, run: Run) -> None:
        found = run.cached("processes", lambda: self._search(run))
        run.log(distance=found["distance"])
        run.result(
            "procedural",
            generator="ar-1",
            seed=seed_of(self.seed, "rows"),
            coefficients=found["coefficients"],
        )

    def _search(self, run: Run) -> dict[str, Tensor]:
        """Coefficients (K, C, 3, 3) of processes that stay finite and differ from one another."""
        channels, height, width = run.images.shape[1:]
        if min(height, width) < _LEAST:
            raise ValueError(
                f"expected images of at least {_LEAST} pixels a side, which a process needs, got "
                f"{height}x{width} (height, width); pass image_size={_LEAST} or more (--image-size)"
            )
        small = (min(height, 32), min(width, 32))  # enough to tell processes apart
        accepted: list[Floats] = []
        # Of those accepted: filters (n, C, 9) and second moments of their fields (n, C, 9, 9).
        filters, moments = np.empty((0, channels, 9)), np.empty((0, channels, 9, 9))
        distance, number, since = self.distance, 0, 0
        while True:
            draws = run.global_rng(f"processes {number}").on_cpu()
            drawn = draws.normal((_CANDIDATES * channels, 3, 3)).double().numpy()
            windows, fields = _sound(_normalised(drawn), small, draws)
            whole = len(windows) // channels * channels
            candidates = windows[:whole].reshape(-1, channels, 3, 3)
            for candidate, its in zip(
                candidates, fields[:whole].reshape(-1, channels, *small), strict=True
            ):
                own, seen = _filter(candidate), _moments(its)
                apart = min(_left(own, moments).min(initial=2), _left(filters, seen).min(initial=2))
                if apart < distance:
                    continue
                if small != (height, width):
                    kept, _ = _sound(candidate, (height, width), draws)
                    if len(kept) < channels:
                        continue
                accepted.append(candidate)
                filters = np.concatenate([filters, own[None]])
                moments = np.concatenate([moments, seen[None]])
                since = 0
                if len(accepted) == run.num_classes:
                    return {
                        "coefficients": torch.from_numpy(np.stack(accepted)),
                        "distance": torch.tensor(distance, dtype=torch.float64),
                    }
            number, since = number + 1, since + 1
            if since == _ROUNDS:
                distance, since = distance * _LOWER, 0


def _normalised(windows: Floats) -> Floats:
    """Windows (N, 3, 3) whose entries but the last sum to 1, in the units that are kept."""
    windows = windows.copy()
    windows[:, 2, 2] = 0
    with np.errstate(all="ignore"):
        windows /= windows.sum((1, 2), keepdims=True)
    # Entries beyond 8 belong to processes that explode.
    return np.rint(np.nan_to_num(windows).clip(-8, 8) * UNIT) / UNIT


def _sound(windows: Floats, size: tuple[int, int], draws: Draws) -> tuple[Floats, Floats]:
    """Those windows (n, 3, 3) whose fields neither explode nor die, and such fields (n, H, W)."""
    start = draws.normal((len(windows), size[0] + MARGIN, size[1] + MARGIN))
    with np.errstate(all="ignore"):
        fields = autoregress(windows, start.double().numpy())[:, MARGIN:, MARGIN:]
        loudness = np.sqrt((fields**2).mean((1, 2)))
    sound = (loudness > _QUIET) & (loudness < _LOUD)
    return windows[sound], fields[sound] / loudness[sound, None, None]


def _filter(coefficients: Floats) -> Floats:
    """The 3x3 filter that leaves nothing of the process's fields, (C, 9)."""
    filters = coefficients.reshape(-1, 9).copy()
    filters[:, 8] = -1
    return filters


def _moments(fields: Floats) -> Floats:
    """Mean products of the values of all 3x3 windows, (C, 9, 9)."""
    windows = np.lib.stride_tricks.sliding_window_view(fields, (3, 3), axis=(1, 2))
    flat = windows.reshape(len(fields), -1, 9)
    return flat.transpose(0, 2, 1) @ flat / flat.shape[1]


def _left(filters: Floats, moments: Floats) -> Floats:
    """Root mean square of what filters leave of fields, mean over channels; one of them is many."""
    squares = (filters[..., None, :] @ moments @ filters[..., :, None])[..., 0, 0]
    return np.sqrt(np.maximum(squares, 0)).mean(-1)
