"""How well clusters in place of classes protect when the victim learns the true classes.

    python benchmarks/clusters.py cifar10 ROOT
    python benchmarks/clusters.py cifar100 ROOT

The first images of CIFAR-10 or CIFAR-100 are protected with SEM (preset fast), once fitted with the
true classes and once with clusters of features of EfficientNet-Lite0 (this needs the extra
pretrained). Victims learn the true classes from clean images and from both, and are tested on clean
test images. ROOT is a folder with ``cifar-10-batches-py`` or ``cifar-100-python``, or with Parquet
files of CIFAR-100. Cells that already exist are not measured again, and a fit continues from its
checkpoint in --work. --table writes the tables of docs/explanation/pretrained.md from the results.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from cifar import first, opened
from cifar10 import mean_and_spread
from kept import kept
from record import DOCS, RESULTS, Record, fill, where

import unlearnable as ue

PAGE = DOCS / "explanation" / "pretrained.md"
CELLS = ("clean", "classes", "10 clusters", "100 clusters")


def purity(clusters: list[int], classes: list[int]) -> float:
    """The share of images that are of the most frequent class of their cluster."""
    counts = np.zeros((max(clusters) + 1, max(classes) + 1), dtype=int)
    np.add.at(counts, (clusters, classes), 1)
    return float(counts.max(1).sum() / len(classes))


def table(result: dict[str, Any]) -> str:
    """A row for each way of fitting, from the committed JSON."""
    lines = ["| fitted with | purity | train | last | peak |", "|---|---|---|---|---|"]
    for name in CELLS:
        cell = result["cells"].get(name)
        if cell is None:
            continue
        found = cell["victims"]
        victims = [
            {"train": train, "last": last, "peak": peak}
            for train, last, peak in zip(found["train"], found["last"], found["peak"], strict=True)
        ]
        figures = [mean_and_spread(victims, which) for which in ("train", "last", "peak")]
        share = "" if "purity" not in cell else f"{100 * cell['purity']:.0f} %"
        label = "nothing (clean images)" if name == "clean" else name
        lines.append(f"| {' | '.join([label, share, *figures])} |")
    settings = result["settings"]
    note = (
        f"{settings['dataset'].upper().replace('CIFAR', 'CIFAR-')}, {settings['images']:,} images: "
        f"accuracy in percent of victims {settings['victim']} that learn the true classes, "
        f"{settings['seeds']} each, epochs {settings['epochs']}, on their training images and on "
        f"clean test images; SEM preset fast, surrogate {settings['surrogate']}. Purity is the "
        f"share of images of the most frequent class in their cluster. {result['date']}, "
        f"{where(result)}."
    )
    return "\n".join([*lines, "", note])


def protected(name: str, train: Any, args: argparse.Namespace) -> tuple[Any, dict[str, Any]]:
    """The images to train on, with their true classes, and what is known of the clusters."""
    if name == "clean":
        return train, {}
    learned: Any = train
    known: dict[str, Any] = {}
    if name != "classes":
        learned = ue.clusters(train, int(name.split()[0]), device=args.device, progress=False)
        classes = [train.dataset.targets[index] for index in train.indices]
        known["purity"] = purity(learned.targets, classes)
    folder = args.work / f"{args.dataset}-{args.images}-{args.surrogate}-{name.replace(' ', '-')}"
    method = ue.SEM.preset("fast", surrogate=args.surrogate)

    def fit(checkpoint: Path) -> ue.Perturbation:
        method.fit(
            learned,
            device=args.device,
            precision=args.precision,
            progress=False,
            checkpoint=checkpoint,
        )
        return method.perturbation_

    made_with = {"method": repr(method), "dataset": args.dataset, "images": args.images}
    return ue.ProtectedDataset(train, kept(folder, made_with | {"labels": name}, fit)), known


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset", choices=("cifar10", "cifar100"))
    parser.add_argument("root", nargs="?", help="folder with the dataset's files")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--surrogate", default="tiny")
    parser.add_argument("--victim", default="tiny")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto", choices=["auto", "float32", "bf16"])
    parser.add_argument("--only", nargs="+", choices=CELLS, default=CELLS)
    parser.add_argument("--work", type=Path, default=Path(__file__).parent / "work" / "clusters")
    parser.add_argument("--out", type=Path, help="by default a file of each dataset")
    parser.add_argument("--table", action="store_true", help="make the table of --out and end")
    args = parser.parse_args()
    args.out = args.out or RESULTS / f"clusters-{args.dataset}-cpu.json"
    if args.table:
        fill(PAGE, f"clusters.py {args.dataset}", table(json.loads(args.out.read_text())))
        return
    names = ("dataset", "images", "surrogate", "victim", "epochs", "seeds")
    record = Record(args.out, {name: getattr(args, name) for name in names}, args.device)
    train = first(opened(args.dataset, args.root), args.images)
    test = opened(args.dataset, args.root, train=False)
    for name in args.only:
        if name in record.cells:
            continue
        images, known = protected(name, train, args)
        found = ue.evaluate(
            images,
            test,
            args.victim,
            epochs=args.epochs,
            seeds=args.seeds,
            device=args.device,
            precision=args.precision,
            progress=False,
        )
        record.put(name, known | {"victims": found.to_dict()})
        print(f"{name}: {found}", flush=True)


if __name__ == "__main__":
    main()
