"""Channel statistics of each class made those of other images."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ...data.cache import read_images
from ...data.fingerprint import digest_of_images
from ...data.raw import RawDataset
from .base import Countermeasure
from .channels import to_levels

_CHUNK = 512  # images that are worked on at once


@dataclass(frozen=True)
class ChannelMatching(Countermeasure):
    """Gives the images of each class the channel means and spreads of all or of other images.

    Each image keeps its rank: the image with the third lowest red mean in its class gets the third
    lowest of equally many values spread evenly over the others' red means. The same is done with
    the mean and standard deviation of each channel. So no class stands out by its colours or
    contrast, while the images of a class still vary naturally.

    Two instances are equal, and have the same name, if their images and labels are equal.

    Args:
        dataset: Public images, resized to the shape of the protected ones; None means all protected
            images together.

    Attributes:
        digest: Fingerprint of the dataset, or None for the protected images.
    """

    dataset: Any = field(default=None, compare=False, repr=False)
    digest: str | None = field(default=None, init=False)

    knows_method = True

    def __post_init__(self) -> None:
        if self.dataset is not None:
            raw = RawDataset(self.dataset)
            object.__setattr__(self, "digest", digest_of_images(raw.keys, raw.labels))

    @property
    def name(self) -> str:
        return "channel-matching" if self.digest is None else f"channel-matching-{self.digest[:8]}"

    @property
    def description(self) -> str:
        others = "all images" if self.digest is None else "public images"
        return f"a victim that gives each class the channel means and spreads of {others}"

    @property
    def parameters(self) -> dict[str, Any]:
        return {"dataset": "the protected images" if self.digest is None else self.digest}

    def on_images(self, images: Tensor, labels: Tensor) -> Tensor:
        own = channel_statistics(images)
        others = own if self.dataset is None else channel_statistics(self._public(images))
        wanted = own.clone()
        for label in labels.unique().tolist():
            mine = (labels == label).nonzero()[:, 0]
            wanted[:, mine] = matched(own[:, mine], others)
        means, spreads = own[..., None, None]
        new_means, new_spreads = wanted[..., None, None]
        stretch = new_spreads / spreads.clamp_min(1)  # a flat channel stays about as flat
        for start in range(0, len(images), _CHUNK):
            part = slice(start, start + _CHUNK)
            centred = images[part].double() - means[part]
            images[part] = to_levels(new_means[part] + centred * stretch[part])
        return images

    def _public(self, images: Tensor) -> Tensor:
        found = read_images(self.dataset, tuple(images.shape[2:])).images
        if found.shape[1] == images.shape[1]:
            return found
        grey = found.float().mean(1, keepdim=True).round().to(torch.uint8)
        return grey.expand(-1, images.shape[1], -1, -1)


def channel_statistics(images: Tensor) -> Tensor:
    """Mean and standard deviation of each channel in levels, float64 (2, N, C)."""
    parts = []
    for part in images.split(_CHUNK):
        values = part.double().flatten(2)
        parts.append(torch.stack((values.mean(2), values.std(2, correction=0))))
    return torch.cat(parts, dim=1)


def matched(own: Tensor, others: Tensor) -> Tensor:
    """Replaces each of the statistics (…, N, C) by that of the same rank in others (…, M, C)."""
    count, many = own.shape[-2], others.shape[-2]
    ranks = own.argsort(dim=-2, stable=True).argsort(dim=-2).double()
    in_order = others.sort(dim=-2).values
    # The middle of each of N equal parts of the others, between two of them.
    place = ((ranks + 0.5) / count * many - 0.5).clamp(0, many - 1)
    below = place.long()
    low, high = in_order.gather(-2, below), in_order.gather(-2, (below + 1).clamp_max(many - 1))
    return low + (place - below) * (high - low)
