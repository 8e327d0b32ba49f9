"""Clusters of points: Lloyd's algorithm from spread starts. (Arthur & Vassilvitskii, SODA 2007)"""

from __future__ import annotations

import torch
from torch import Tensor

_ROUNDS = 100  # at most; it ends when no point changes its cluster


def kmeans(points: Tensor, count: int, *, seed: int) -> tuple[Tensor, Tensor]:
    """Assigns points to clusters by the nearest centre.

    Args:
        points: Float (N, D), on the CPU.
        count: Number of clusters, all of which get points.
        seed: Seed of the initial centres (k-means++). The global random state is not changed.

    Returns:
        The cluster of each point, int64 (N,), numbered by first appearance, and the centres, float
        (count, D), which are the means of the clusters.

    Raises:
        ValueError: There are fewer distinct points than clusters.
    """
    centres = _spread(points, count, torch.Generator().manual_seed(seed))
    labels = nearest(points, centres)
    for _ in range(_ROUNDS):
        centres = _means(points, labels, count)
        moved = nearest(points, centres)
        _fill(points, centres, moved)
        if torch.equal(moved, labels):
            break
        labels = moved
    firsts = [int((labels == cluster).nonzero()[0]) for cluster in range(count)]
    order = torch.tensor(firsts).argsort()
    return order.argsort()[labels], _means(points, labels, count)[order]


def nearest(points: Tensor, centres: Tensor) -> Tensor:
    """The nearest centre of each point, int64 (N,)."""
    return torch.cdist(points, centres).argmin(1)


def _spread(points: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Points drawn one after the other, with chances like the squared distance to those before."""
    first = int(torch.randint(len(points), (), generator=generator))
    chosen = [first]
    squares = (points - points[first]).square().sum(1)
    while len(chosen) < count:
        if not squares.any():
            raise ValueError(
                f"expected at least {count} different points for {count} clusters, got "
                f"{len(chosen)}"
            )
        place = int(torch.multinomial(squares, 1, generator=generator))
        chosen.append(place)
        squares = torch.minimum(squares, (points - points[place]).square().sum(1))
    return points[chosen]


def _means(points: Tensor, labels: Tensor, count: int) -> Tensor:
    sums = points.new_zeros(count, points.shape[1]).index_add_(0, labels, points)
    return sums / torch.bincount(labels, minlength=count)[:, None]


def _fill(points: Tensor, centres: Tensor, labels: Tensor) -> None:
    """Gives each empty cluster the point that is farthest from its centre, in place."""
    for cluster in range(len(centres)):
        sizes = torch.bincount(labels, minlength=len(centres))
        if sizes[cluster]:
            continue
        away = (points - centres[labels]).square().sum(1)
        away[sizes[labels] < 2] = -1  # no other cluster becomes empty
        labels[away.argmax()] = cluster
