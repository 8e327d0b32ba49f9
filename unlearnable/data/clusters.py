"""Clusters of similar images in place of classes, for images that nobody sorted.

(Zhang et al., Unlearnable Clusters, CVPR 2023, 2301.01217)
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset

from ..engine.device import pick_device
from ..engine.kmeans import kmeans, nearest
from ..engine.models import LITE0
from ..engine.numbers import integer
from ..engine.pretrained import check_pretrained, features, pretrained_network, without_head
from ..engine.progress import Progress
from ..engine.run import Run
from .batches import RawBatch
from .cache import read_images
from .raw import RawDataset


class ClusteredDataset(Dataset[Any]):
    """What :func:`clusters` returns: a dataset's images without transforms, and their clusters.

    Attributes:
        base: The dataset that was given.
        targets: The cluster of each image, from 0, in the order of their first images.
        centres: Mean features of each cluster, float (K, D).
    """

    def __init__(self, base: Any, targets: Sequence[int], centres: Tensor, like: _Features) -> None:
        self.base = base
        self.targets = list(targets)
        self.centres = centres
        self._like = like
        self._raw = RawDataset(base)

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        item = self._raw[index]
        return item.restore(item.pixels), self.targets[index]

    def raw_batches(self, indices: Sequence[int]) -> Iterator[RawBatch]:
        """Images with their clusters as labels, in the order asked for."""
        for batch in self._raw.batches(indices):
            labels: list[Any] = [self.targets[index] for index in batch.indices]
            yield batch._replace(labels=labels, wholes=None)

    def without_transforms(self) -> ClusteredDataset:
        """Itself: transforms are off already."""
        return self

    def assign(self, dataset: Any) -> ClusteredDataset:
        """Other images, each in the cluster whose centre is nearest: for :meth:`Method.extend`.

        Args:
            dataset: As for :func:`clusters`.
        """
        found = nearest(self._like.of(dataset), self.centres)
        return ClusteredDataset(dataset, found.tolist(), self.centres, self._like)


class _Features:
    """How features are made of a dataset; arguments are those of :func:`clusters`."""

    def __init__(
        self,
        network: str | nn.Module,
        image_size: int | Sequence[int] | None,
        device: str | torch.device,
        progress: bool,
    ) -> None:
        self._network = network
        self._image_size = image_size
        self._device = device
        self._progress = progress

    def of(self, dataset: Any) -> Tensor:
        """Features of length 1, float (N, D), on the CPU."""
        images = read_images(dataset, self._image_size, progress=self._progress).images
        model = self._network
        if isinstance(model, str):
            model = pretrained_network(model, channels=images.shape[1])
        place = pick_device(self._device)
        bars = Progress(show=self._progress, title="clusters")
        labels = torch.zeros(len(images), dtype=torch.int64, device=place)
        run = Run(images.to(place), labels, 1, progress=bars)
        with contextlib.closing(run):
            found = features(run, without_head(model).to(place))
        return F.normalize(found.cpu(), dim=1)


def clusters(
    dataset: Any,
    count: int = 10,
    *,
    network: str | nn.Module = LITE0,
    image_size: int | Sequence[int] | None = None,
    device: str | torch.device = "auto",
    seed: int = 0,
    progress: bool = True,
) -> ClusteredDataset:
    """Sorts images by what they show: clusters that stand for classes where there are none.

    Features of a pretrained network are divided by k-means. A method that learns a row for each
    image takes the result like any dataset, and protects the images themselves, whatever labels
    they have: rows are found by content. Methods whose rows belong to classes refuse it, since no
    image tells its cluster.

    What is learned makes clusters easy to tell apart. It hinders a victim that learns other
    classes as far as these are like the clusters.

    Args:
        dataset: Any dataset that ``fit`` takes, with labels or without
            (``from_items(…, label=None)``). It is not changed.
        count: Number of clusters, at least 2.
        network: As for ``pretrained_network``, or a module from images in [0, 1] to logits, of
            which the inputs of its last Linear layer count.
        image_size: Side, or (height, width), that images are resized and cropped to; needed where
            their sizes vary.
        device: ``"auto"``, ``"cpu"``, ``"cuda"``, …
        seed: Of the first centres.
        progress: Show bars, where standard error is a terminal.

    Raises:
        ImportError: The extra ``pretrained`` is not installed.
        ValueError: There are fewer different images than clusters.

    Example:
        >>> from unlearnable import RandomNoise
        >>> from unlearnable.datasets import Shapes
        >>> from unlearnable.engine.models import build_model
        >>> photos = Shapes(size=40)
        >>> sorted_photos = clusters(photos, 4, network=build_model("tiny", 10), progress=False)
        >>> method = RandomNoise().fit(sorted_photos, progress=False)
        >>> len(set(sorted_photos.targets)), len(method.protect(photos))
        (4, 40)
    """
    count, seed = integer("count", count, least=2), integer("seed", seed)
    if isinstance(network, str):
        check_pretrained(network)
    like = _Features(network, image_size, device, progress)
    try:
        found, centres = kmeans(like.of(dataset), count, seed=seed)
    except ValueError as error:
        if "different points" not in str(error):
            raise
        raise ValueError(
            f"expected at least {count} images that the network tells apart for {count} clusters, "
            f"got fewer; ask for fewer clusters"
        ) from error
    return ClusteredDataset(dataset, found.tolist(), centres, like)
