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
from ..engine.modes import usual_modes
from ..engine.numbers import integer
from ..engine.pretrained import check_pretrained, features, pretrained_network, without_head
from ..engine.progress import Progress
from ..engine.run import Run
from .batches import RawBatch
from .cache import read_images
from .raw import RawDataset


class ClusteredDataset(Dataset[Any]):
    """The result of :func:`clusters`: a dataset's images without transforms, and their clusters.

    Attributes:
        base: The original dataset.
        targets: The cluster of each image; clusters are numbered from 0 by first appearance.
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
        """Images with their clusters as labels, in the requested order."""
        for batch in self._raw.batches(indices):
            labels: list[Any] = [self.targets[index] for index in batch.indices]
            yield batch._replace(labels=labels, wholes=None)

    def without_transforms(self) -> ClusteredDataset:
        """Returns itself, because it has no transforms."""
        return self

    @usual_modes()
    def assign(self, dataset: Any) -> ClusteredDataset:
        """Assigns other images to the clusters with the nearest centres, for :meth:`Method.extend`.

        Args:
            dataset: As in :func:`clusters`.
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


@usual_modes()
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
    """Sorts images by content into clusters, which stand in for classes if there are none.

    Features of a pretrained network are clustered by k-means. Methods that learn a row for each
    image accept the result like any dataset and protect the original images, whatever their labels,
    because rows are found by content. Methods with class-wise rows refuse it, because an image does
    not reveal its cluster.

    The perturbation makes clusters easy to tell apart. It hinders a victim that learns other
    classes to the extent that these resemble the clusters.

    Args:
        dataset: Any dataset that ``fit`` accepts, with or without labels (``from_items(…,
            label=None)``). It is not modified.
        count: Number of clusters, at least 2.
        network: As in ``pretrained_network``, or a module from images in [0, 1] to logits; its
            features are the inputs of its last Linear layer.
        image_size: Side, or (height, width), to which images are resized and cropped; required if
            their sizes vary.
        device: ``"auto"``, ``"cpu"``, ``"cuda"``, …
        seed: Seed of the initial centres.
        progress: Show progress bars if standard error is a terminal.

    Raises:
        ImportError: The extra ``pretrained`` is not installed.
        ValueError: There are fewer distinct images than clusters.

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
            f"expected at least {count} images that the network can tell apart for {count} "
            f"clusters, got fewer; request fewer clusters"
        ) from error
    return ClusteredDataset(dataset, found.tolist(), centres, like)
