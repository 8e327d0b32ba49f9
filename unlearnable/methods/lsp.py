"""LSP: patches of class-wise separable colours. (Yu et al., 2111.00898)"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..engine.random import seed_of
from ..engine.run import Run
from ..perturbation.kinds.generators import grid_shape
from .base import Method
from .parameters import Untrained, count, positive
from .spread_budget import spread_budget

_RMS = 6 / 255  # root mean square of a row
_CELLS = 4  # along the shorter side, unless the size of a cell is given


@dataclass(kw_only=True, repr=False, eq=False)
class LSP(Untrained, Method):
    """Linearly separable perturbations. (Yu et al., KDD 2022, arXiv:2111.00898)

    An image is divided into a coarse grid of cells, and its row is drawn from a normal distribution
    over the grid's values: the mean is a corner of a hypercube for each class, and independent
    values are mixed at random. A linear classifier can tell rows of different classes apart, and
    that is what a network learns first. Nothing is trained, and new images get their own rows.

    Args:
        epsilon: L2 norm of a row in [0, 1] units; None means the paper's 6/255 times the square
            root of the number of values, 1.30 for 32x32 colour images.
        cell: Side of a cell in pixels; None means a quarter of the image's shorter side, at least
            1: the paper's 8 for 32x32.
        separation: Half the side of the hypercube, relative to independent values of variance 1.
        granularity: Only ``"sample-wise"``; a row depends on seed, class and image.
        seed: Seed of distributions and rows.

    Example:
        >>> from unlearnable.datasets import Shapes
        >>> LSP().fit(Shapes(size=20), progress=False).perturbation_
        Perturbation(LSP, sample-wise, L2 1.304, 10 classes of 3x32x32)
    """

    kind = "procedural"
    granularities = ("sample-wise",)
    masked = True
    norm = "L2"

    epsilon: float | None = None
    cell: int | None = count(None)
    separation: float = positive(10.0, most=60)
    granularity: str = "sample-wise"
    seed: int = 0

    def _budget(self, shape: Sequence[int]) -> tuple[float | None, str | None]:
        usual = _RMS * math.sqrt(math.prod(shape))
        return spread_budget(self.epsilon, usual, shape), self.norm

    def _learn(self, run: Run) -> None:
        channels, height, width = run.images.shape[1:]
        cell = self.cell or max(1, min(height, width) // _CELLS)
        features = math.prod(grid_shape(cell, (channels, height, width)))
        if features < 62 and 2**features < run.num_classes:
            raise ValueError(
                f"expected enough cells for {run.num_classes} classes to differ, got {features} "
                f"with cell={cell} in an image of {height}x{width}; use smaller cells"
            )
        draws = run.global_rng("distributions")
        shape = (run.num_classes, features, features)
        run.result(
            "procedural",
            generator="lsp-1",
            seed=seed_of(self.seed, "rows"),
            cell=cell,
            centres=self.separation * self._corners(run, features),
            mixing=draws.uniform(shape, -1, 1),
        )

    def _corners(self, run: Run, features: int) -> Tensor:
        """A corner of the hypercube {-1, 1}^F for each class, no corner twice, (K, F)."""
        draws = run.global_rng("corners").on_cpu()
        found: dict[tuple[int, ...], None] = {}
        while len(found) < run.num_classes:
            drawn = draws.integers((run.num_classes, features), 0, 2)
            found |= dict.fromkeys(map(tuple, drawn.tolist()))
        corners = torch.tensor(list(found)[: run.num_classes], device=run.device)
        return 2.0 * corners - 1
