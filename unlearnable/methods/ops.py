"""OPS: one pixel per class, where it stands out from the class. (Wu et al., 2205.12141)"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ..engine.run import Run
from .base import Method
from .parameters import Untrained, count


@dataclass(kw_only=True, repr=False, eq=False)
class OPS(Untrained, Method):
    """One-pixel shortcut. (Wu et al., ICLR 2023, arXiv:2205.12141)

    Each class gets a position and a colour that differ from its images there, strongly and evenly;
    the colour overwrites that position in every image of the class. Among all positions and the
    colours of {0, 1}^C, the one with the largest ratio of mean to variance of the distance is
    chosen, where the distance of an image is the sum of absolute differences over channels. There
    is no budget.

    Args:
        pixels: Positions per class.
        granularity: Only ``"class-wise"``.
        batch_size: Images processed at once.
        seed: Has no effect, because the search is exact and draws nothing.

    Example:
        >>> from unlearnable.datasets import Shapes
        >>> OPS().fit(Shapes(size=40), progress=False).perturbation_
        Perturbation(OPS, class-wise, 1 pixel, 10 classes of 3x32x32)
    """

    kind = "pixel"
    granularities = ("class-wise",)
    seeded = False

    pixels: int = count(1)
    granularity: str = "class-wise"
    batch_size: int = 128
    seed: int = 0

    def _learn(self, run: Run) -> None:
        channels, height, width = run.images.shape[1:]
        classes, area = run.num_classes, height * width
        if classes * self.pixels > area:
            least = math.isqrt(classes * self.pixels - 1) + 1
            fewer = "use fewer pixels, or " if self.pixels > 1 else ""
            raise ValueError(
                f"expected at most {area} pixels in total, the positions in {height}x{width}, got "
                f"{classes} classes with pixels={self.pixels}; {fewer}pass image_size={least} or "
                f"more (--image-size)"
            )
        # Mean and variance of the distance to any colour follow from these sums, in integer levels.
        pairs = list(itertools.combinations_with_replacement(range(channels), 2))
        counts = torch.zeros(classes, dtype=torch.int64, device=run.device)
        sums = torch.zeros((classes, channels, area), dtype=torch.int64, device=run.device)
        products = torch.zeros((classes, len(pairs), area), dtype=torch.int64, device=run.device)
        run.track(counts=counts, sums=sums, products=products)
        for index in run.sweep(self.batch_size, title="statistics"):
            labels = run.labels[index]
            values = run.images[index].flatten(2).long()  # (B, C, H * W)
            run.sum_into(counts, labels, torch.ones_like(labels))
            run.sum_into(sums, labels, values)
            for number, (a, b) in enumerate(pairs):
                run.sum_into(products[:, number], labels, values[:, a] * values[:, b])
        positions, colours = choose(
            counts.cpu().numpy(), sums.cpu().numpy(), products.cpu().numpy(), self.pixels
        )
        places = np.stack(np.unravel_index(positions, (height, width)), axis=-1)
        run.result("pixel", positions=torch.from_numpy(places), colours=torch.from_numpy(colours))


def choose(
    counts: NDArray[np.int64], sums: NDArray[np.int64], products: NDArray[np.int64], pixels: int
) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """The best positions (K, pixels) and colours (K, pixels, C) of each class, 0 or 255.

    The arguments are, for each class, the number of images (K,), the sums of their values by
    channel and position (K, C, P), and the sums of the products of channels (0, 0), (0, 1), …, (C -
    1, C - 1). No position is used twice: classes choose in order, those without images last.
    """
    classes, channels, area = sums.shape
    palette = np.array(list(itertools.product((0, 1), repeat=channels)))  # (V, C)
    taken = np.zeros(area, dtype=bool)
    positions = np.zeros((classes, pixels), dtype=np.int64)
    colours = np.zeros((classes, pixels, channels), dtype=np.uint8)
    for label in sorted(range(classes), key=lambda label: counts[label] == 0):
        scores = np.stack(
            [_score(int(counts[label]), sums[label], products[label], v) for v in palette]
        )
        best = scores.argmax(0)  # of each position's colours
        order = np.argsort(-scores.max(0), kind="stable")
        positions[label] = order[~taken[order]][:pixels]
        colours[label] = 255 * palette[best[positions[label]]]
        taken[positions[label]] = True
    return positions, colours


def _score(
    count: int, sums: NDArray[np.int64], products: NDArray[np.int64], colour: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Mean over variance of the distance to a colour at every position, (P,).

    Where all distances are equal, the variance counts as 1 / count^2 squared levels, less than any
    other can be: such positions come first, the farthest before the others.
    """
    signs = 1 - 2 * colour  # a distance is the sum over channels of sign * value, plus a constant
    constant = 255 * int(colour.sum())
    linear = np.tensordot(signs, sums, 1)
    pairs = itertools.combinations_with_replacement(range(len(colour)), 2)
    squares = sum(
        (1 if a == b else 2) * signs[a] * signs[b] * product
        for (a, b), product in zip(pairs, products, strict=True)
    )
    total = linear + constant * count  # sum of distances
    squares = squares + 2 * constant * linear + constant**2 * count
    spread = count * squares - total**2  # count^2 times the variance, an integer
    return count * total / np.maximum(spread, 1)
