"""Which part of orthogonal projection undoes a perturbation: projection or augmentation.

    python benchmarks/projection.py ROOT
    python benchmarks/projection.py --table

The first images of CIFAR-10 get pre-made rows. Victims train on them plainly, with the whole
countermeasure, with its augmentation alone (CutMix, rotation, shear, scaling, colours), with its
projection alone, and with the whole for three times as many epochs. Beside them stands what the
regression learned: its accuracy on the protected images and on the same ones clean, and the share
of the perturbation's energy in its directions.
ROOT is a folder with ``cifar-10-batches-py``. Cells that already exist are not measured again.
--table writes the table of docs/explanation/countermeasures.md from the committed result.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from cifar import AnyCIFAR10, first
from record import DOCS, RESULTS, Record, fill, where
from torch import Tensor

import unlearnable as ue
from unlearnable.evaluation.countermeasures.base import Countermeasure, NoCountermeasure
from unlearnable.evaluation.countermeasures.projection import OrthogonalProjection

PAGE = DOCS / "explanation" / "countermeasures.md"
IMAGES = {"clean": None, "EM": "cifar10-em", "SEM": "cifar10-sem", "REM": "cifar10-rem"}
COLUMNS = {
    "none": "plain",
    "whole": "whole countermeasure",
    "augmentation": "augmentation alone",
    "projection": "projection alone",
    "longer": "whole, three times the epochs",
}
CELLS = [f"{images}, {part}" for images in IMAGES for part in COLUMNS]


class Augmentation(OrthogonalProjection):
    """The augmentation of orthogonal projection, on images from which nothing was removed."""

    name = "projection-augmentation"

    def on_images(self, images: Tensor, labels: Tensor) -> Tensor:
        """Nothing is removed."""
        return images


def countermeasure(part: str) -> Countermeasure:
    """What a victim of a column does."""
    if part == "none":
        return NoCountermeasure()
    if part == "augmentation":
        return Augmentation()
    return OrthogonalProjection(augment=part != "projection")


def learned(train: Any, protected: Any) -> dict[str, float]:
    """What the regression learned of protected images, as shares of 1."""
    clean, labels = ue.ProtectedDataset(train, protected.perturbation, fraction=0).to_tensors()
    images = protected.to_tensors()[0]
    weights = OrthogonalProjection().regression(images, labels)
    directions = torch.linalg.qr(weights.T).Q
    flat, before = (each.flatten(1).float() / 255 for each in (images, clean))
    change = flat - before

    def right(inputs: Tensor) -> float:
        return float(((inputs @ weights.T).argmax(1) == labels).float().mean())

    return {
        "protected": right(flat),
        "clean": right(before),
        "removed": float((change @ directions).square().sum() / change.square().sum()),
    }


def table(result: dict[str, Any]) -> str:
    """A row for each kind of image, from the committed JSON."""
    cells = result["cells"]
    shown = [part for part in COLUMNS if any(name.endswith(f", {part}") for name in cells)]
    heads = [*(COLUMNS[part] for part in shown), "regression: protected / clean", "energy removed"]
    lines = [f"| trained on | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    for images in IMAGES:
        of_it = [cells.get(f"{images}, {part}") for part in shown]
        if not any(of_it):
            continue
        row = ["clean images" if images == "clean" else images]
        row += ["" if cell is None else f"{100 * cell['victims']['last'][0]:.1f}" for cell in of_it]
        found = cells.get(f"{images}, whole", {}).get("regression")
        if found is None:
            row += ["", ""]
        else:
            row.append(f"{100 * found['protected']:.1f} / {100 * found['clean']:.1f}")
            row.append(f"{100 * found['removed']:.1f} %")
        lines.append(f"| {' | '.join(row)} |")
    settings = result["settings"]
    note = (
        f"Accuracy on clean test images after the last epoch in percent, one victim each: "
        f"{settings['victim']}, {settings['epochs']} epochs; {settings['images']:,} images of "
        f"CIFAR-10 with pre-made rows (`cifar10-em` and so on). Regression: its accuracy on the "
        f"protected images and on the same ones clean. Energy removed: the share of the "
        f"perturbation's squares that lies in its directions. "
        f"{result['date']}, {where(result)}."
    )
    return "\n".join([*lines, "", note])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("root", nargs="?", help="folder with cifar-10-batches-py")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--victim", default="resnet9")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto", choices=["auto", "float32", "bf16"])
    parser.add_argument("--only", nargs="+", choices=CELLS, default=CELLS)
    parser.add_argument("--out", type=Path, default=RESULTS / "projection-cpu.json")
    parser.add_argument("--table", action="store_true", help="make the table of --out and end")
    args = parser.parse_args()
    if args.table:
        fill(PAGE, "projection.py", table(json.loads(args.out.read_text())))
        return
    names = ("images", "victim", "epochs")
    record = Record(args.out, {name: getattr(args, name) for name in names}, args.device)
    train = first(AnyCIFAR10(args.root), args.images)
    test = AnyCIFAR10(args.root, train=False)
    for name in args.only:
        if name in record.cells:
            continue
        kind, part = name.split(", ")
        images, found = train, {}
        if (premade := IMAGES[kind]) is not None:
            rows = ue.Perturbation.from_pretrained(premade, dataset=train)
            images = ue.ProtectedDataset(train, rows)
            found = {"regression": learned(train, images)} if part == "whole" else {}
        victims = ue.evaluate(
            images,
            test,
            args.victim,
            countermeasure=countermeasure(part),
            epochs=args.epochs * (3 if part == "longer" else 1),
            seeds=1,
            peak_images=1_000,
            device=args.device,
            precision=args.precision,
            progress=False,
        )
        record.put(name, found | {"victims": victims.to_dict()})
        print(f"{name}: {victims}", flush=True)


if __name__ == "__main__":
    main()
