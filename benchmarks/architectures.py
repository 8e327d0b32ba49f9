"""Whether a protection learned with one network holds against other kinds of victims.

    python benchmarks/architectures.py ROOT
    python benchmarks/architectures.py ROOT --only "MIUE, vit" "SEM, vit"
    python benchmarks/architectures.py ROOT --longer --seeds 1
    python benchmarks/architectures.py --table
    python benchmarks/architectures.py --longer --table

The first images of CIFAR-10 are protected with EM, SEM and MIUE (preset fast, surrogate resnet9).
The victims are a ResNet-9, a small vision transformer and a multilayer perceptron, trained with the
standard recipe and tested on all test images; with --longer only the last two, for more epochs at a
lower learning rate, with which they learn more of their training images. ROOT is a folder with
``cifar-10-batches-py``. Cells that already exist are not measured again; --fits shares the fits of
a leaderboard with the same settings. --table writes the table of docs/reference/methods/MIUE.md.
"""

from __future__ import annotations

import argparse
import itertools
import json
from pathlib import Path
from typing import Any

import torch
from cifar import AnyCIFAR10, first
from cifar10 import accuracy_shown
from leaderboard import perturbation_of
from record import DOCS, RESULTS, Record, fill, where
from torch import Tensor, nn

import unlearnable as ue
from unlearnable.evaluation.countermeasures.base import NoCountermeasure

PAGE = DOCS / "reference" / "methods" / "MIUE.md"
METHODS = ("clean", "EM", "SEM", "MIUE")
EPOCHS = {"resnet9": 12, "vit": 15, "mlp": 15}
LONGER = {"vit": 60, "mlp": 60}
CELLS = [f"{method}, {victim}" for victim in EPOCHS for method in METHODS]


class LowerRate(NoCountermeasure):
    """Nothing but a lower learning rate, which networks without BatchNorm need."""

    learning_rate = 0.01


class ViT(nn.Module):
    """A small vision transformer: patches of 4x4 pixels, four layers of 96 features."""

    def __init__(self, classes: int = 10, side: int = 32, width: int = 96) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 4, 4)
        self.places = nn.Parameter(torch.empty(1, (side // 4) ** 2, width))
        self.layers = nn.Sequential(
            *(
                nn.TransformerEncoderLayer(
                    width, 3, 2 * width, dropout=0.0, batch_first=True, norm_first=True
                )
                for _ in range(4)
            )
        )
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Of what belongs to no layer."""
        nn.init.normal_(self.places, std=0.02)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, classes)."""
        tokens = self.patches(images).flatten(2).transpose(1, 2) + self.places
        logits: Tensor = self.head(self.norm(self.layers(tokens).mean(1)))
        return logits


def network(name: str) -> str | nn.Module:
    """A victim for ten classes of 32x32 images in colour."""
    if name == "vit":
        return ViT()
    if name == "mlp":
        sides = (3 * 32 * 32, 1024, 512)
        layers: list[nn.Module] = [nn.Flatten()]
        for inputs, outputs in itertools.pairwise(sides):
            layers += [nn.Linear(inputs, outputs), nn.ReLU()]
        return nn.Sequential(*layers, nn.Linear(sides[-1], 10))
    return name


def table(result: dict[str, Any]) -> str:
    """A row for each method, a column for each kind of victim, from the committed JSON."""
    settings, cells = result["settings"], result["cells"]
    victims = settings["epochs"]
    lines = [f"| trained on | {' | '.join(victims)} |", "|---" * (len(victims) + 1) + "|"]
    for method in METHODS:
        found = [cells.get(f"{method}, {victim}") for victim in victims]
        if any(found):
            lines.append(f"| {' | '.join([method, *map(accuracy_shown, found)])} |")
    rate = f" at a learning rate of {LowerRate.learning_rate:g}" if victims == LONGER else ""
    epochs = ", ".join(f"{name} {number}" for name, number in settings["epochs"].items())
    note = (
        f"CIFAR-10, {settings['images']:,} images, presets fast with a resnet9: last accuracy of "
        f"victims on clean test images in percent, seeds {settings['seeds']}, epochs {epochs}{rate}"
        f". {result['date']}, {where(result)}."
    )
    return "\n".join([*lines, "", note])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("root", nargs="?", help="folder with cifar-10-batches-py")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto", choices=["auto", "float32", "bf16"])
    parser.add_argument("--only", nargs="+", choices=CELLS, default=CELLS)
    parser.add_argument("--work", type=Path, default=Path(__file__).parent / "work")
    parser.add_argument("--fits", default="leaderboard-resnet9", help="their folder in --work")
    parser.add_argument("--longer", action="store_true", help="the transformer and the perceptron")
    parser.add_argument("--out", type=Path, help="by default a file of each of both")
    parser.add_argument("--table", action="store_true", help="make the table of --out and end")
    args = parser.parse_args()
    kind = "longer-cpu" if args.longer else "gpu"
    args.out = args.out or RESULTS / f"architectures-{kind}.json"
    if args.table:
        command = "architectures.py" + " --longer" * args.longer
        fill(PAGE, command, table(json.loads(args.out.read_text())))
        return
    epochs = LONGER if args.longer else EPOCHS
    settings = {"images": args.images, "seeds": args.seeds, "epochs": epochs}
    record = Record(args.out, settings, args.device)
    train: Any = first(AnyCIFAR10(args.root), args.images)
    test = AnyCIFAR10(args.root, train=False)
    fits = argparse.Namespace(
        images=args.images, preset="fast", surrogate="resnet9", train_steps=None, budget=None,
        compile=False, device=args.device, precision=args.precision, work=args.work,
        out=Path(f"{args.fits}.json"),
    )  # fmt: skip
    for name in args.only:
        method, victim = name.split(", ")
        if name in record.cells or victim not in epochs:
            continue
        images = train
        if method != "clean":
            images = ue.ProtectedDataset(train, perturbation_of(method, train, fits))
        found = ue.evaluate(
            images,
            test,
            network(victim),
            countermeasure=LowerRate() if args.longer else None,
            epochs=epochs[victim],
            seeds=args.seeds,
            peak_images=1_000,
            device=args.device,
            precision=args.precision,
            progress=False,
        )
        record.put(name, {"victims": found.to_dict()})
        print(f"{name}: {found}", flush=True)


if __name__ == "__main__":
    main()
