"""Leaked pairs: a network learns from some clean originals to undo the protection of the others.

What that is worth was shown by BridgePure, with a diffusion bridge in place of this small U-Net.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...engine.random import global_seed
from ...engine.run import Run
from ...engine.train import to_float
from .base import Countermeasure, NoCountermeasure
from .channels import to_levels

_CHUNK = 256  # images that are purified at once
_WIDTH = 32  # channels of the first layers, doubled at each halving of the size
_COARSEST = 4  # pixels of a side that become one


@dataclass(frozen=True)
class LeakedPairs(Countermeasure):
    """Trains a small U-Net on the clean originals of some protected images and purifies the rest.

    The network takes an image and its class and learns, with the mean absolute error, what to add
    to the image. The leaked images are replaced by their originals. This is an upper bound on what
    can be undone, and does not count as the worst case, because leaked originals are clean images.

    Args:
        pairs: Number of leaked originals; all images if there are fewer.
        steps: Number of updates of the U-Net.
        batch_size: Pairs per update.
        seed: Seed of the choice of pairs and of the U-Net.
    """

    pairs: int = 500
    steps: int = 1000
    batch_size: int = 64
    seed: int = 0

    needs_clean_images = True
    takes_pairs = True

    def __post_init__(self) -> None:
        self._integers(pairs=1, steps=1, batch_size=1, seed=None)

    @property
    def name(self) -> str:
        return f"leaked-pairs-{self.pairs}"

    @property
    def description(self) -> str:
        return (
            f"a victim that has the originals of {self.pairs:,} images and learns from them to "
            f"purify the others"
        )

    def for_timing(self, few: int, count: int) -> Countermeasure:
        return NoCountermeasure()  # it trains as without any, on other images

    def on_pairs(
        self, images: Tensor, clean: Tensor, labels: Tensor, device: torch.device
    ) -> Tensor:
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(self.seed))
        leaked = order[: self.pairs]
        purify = self.purifier(images[leaked], clean[leaked], labels[leaked], labels, device)
        found = torch.cat([
            to_levels(255 * purify(to_float(part.to(device)), own.to(device))).cpu()
            for part, own in zip(images.split(_CHUNK), labels.split(_CHUNK), strict=True)
        ])  # fmt: skip
        found[leaked] = clean[leaked]
        return found

    def purifier(
        self,
        images: Tensor,
        clean: Tensor,
        labels: Tensor,
        all_labels: Tensor,
        device: torch.device,
    ) -> PairNetwork:
        """The U-Net, trained on protected images and their originals, uint8 (N, C, H, W)."""
        classes = int(all_labels.max()) + 1
        images, clean, labels = (tensor.to(device) for tensor in (images, clean, labels))
        run = Run(images, labels, classes, seed=("leaked pairs", self.seed))
        with contextlib.closing(run):
            with global_seed(run.weight_seed("purifier")):
                network = PairNetwork(images.shape[1], classes).to(device)
            optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.steps)
            for index in run.batches(self.steps, self.batch_size):
                flips = run.rng("flip").uniform((len(index), 1, 1, 1), 0, 1) < 0.5
                seen, wanted = (
                    torch.where(flips, pixels.flip(3), pixels)
                    for pixels in (to_float(images[index]), to_float(clean[index]))
                )

                def loss_fn(
                    purify: nn.Module,
                    seen: Tensor = seen,
                    wanted: Tensor = wanted,
                    own: Tensor = labels[index],
                ) -> Tensor:
                    return F.l1_loss(purify(seen, own), wanted)

                run.train_step(network, optimizer, loss_fn)
                schedule.step()
        return network.eval().requires_grad_(False)


def _block(width: int, out: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for number in range(2):
        layers += [nn.Conv2d(out if number else width, out, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers)


class PairNetwork(nn.Module):
    """A U-Net that takes images in [0, 1] with their classes and returns purified images.

    Args:
        channels: Number of image channels.
        num_classes: K.
    """

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        w = _WIDTH
        self.classes = nn.Embedding(num_classes, w)
        self.first = nn.Conv2d(channels, w, 3, padding=1)
        self.down = nn.ModuleList([_block(w, w), _block(w, 2 * w), _block(2 * w, 4 * w)])
        self.up = nn.ModuleList([_block(6 * w, 2 * w), _block(3 * w, w)])
        self.last = nn.Conv2d(w, channels, 3, padding=1)

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """Maps images (B, C, H, W) and classes (B,) to images."""
        height, width = images.shape[2:]
        missing = (0, -width % _COARSEST, 0, -height % _COARSEST)  # right and below
        hidden = self.first(F.pad(images, missing, mode="replicate"))
        hidden = hidden + self.classes(labels)[:, :, None, None]
        kept: list[Tensor] = []
        for block in self.down:
            hidden = block(F.avg_pool2d(hidden, 2) if kept else hidden)
            kept.append(hidden)
        for block, beside in zip(self.up, reversed(kept[:-1]), strict=True):
            wide = F.interpolate(hidden, scale_factor=2, mode="nearest")
            hidden = block(torch.cat((wide, beside), dim=1))
        change: Tensor = self.last(hidden)[:, :, :height, :width]
        return images + change
