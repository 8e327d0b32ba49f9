"""What victims that start from ImageNet weights learn from images that EM, BAIT and TAP protect.

    python benchmarks/bait.py ROOT
    python benchmarks/bait.py ROOT --only "BAIT, fine-tuning-imagenet"
    python benchmarks/bait.py ROOT --learning-rate 0.01 --test-images 2000 \
        --precision bf16 --only "clean, fine-tuning-imagenet" "EM, fine-tuning-imagenet" \
        "EM, sample-wise, fine-tuning-imagenet" "TAP, fine-tuning-imagenet" \
        "BAIT, rows, fine-tuning-imagenet" --out benchmarks/results/bait-32-gpu.json
    python benchmarks/bait.py ROOT --learning-rate 0.01 --test-images 2000 \
        --precision bf16 --side 96 --tap-steps 20 --only "clean, fine-tuning-imagenet" \
        "EM, fine-tuning-imagenet" "EM, sample-wise, fine-tuning-imagenet" \
        "TAP, fine-tuning-imagenet" "BAIT, rows, fine-tuning-imagenet" \
        --out benchmarks/results/bait-96-gpu.json
    python benchmarks/bait.py --table

The first images of CIFAR-10 are protected with EM class-wise and with BAIT and its generator, once
more with EM sample-wise, with BAIT on a surrogate without pretrained weights, with BAIT's rows
moved directly (preset fast), and with TAP on the pretrained network. The victims are
EfficientNet-Lite0 with ImageNet weights, which enlarges images to 96 pixels, fine-tuned or under a
linear probe, and a network that starts from fresh weights. With --side the images are enlarged
before the fit, so that perturbations have all the pixels that victims see. This needs the extra
pretrained. ROOT is a folder with ``cifar-10-batches-py``. Cells that already exist are not measured
again, and a fit continues from its checkpoint in --work. --table writes the tables of
docs/explanation/pretrained.md.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from cifar import AnyCIFAR10, first
from cifar10 import GENERATOR, accuracy_shown
from kept import kept
from PIL import Image
from record import DOCS, RESULTS, Record, fill, where

import unlearnable as ue
from unlearnable.engine.models import LITE0
from unlearnable.evaluation.countermeasures.base import Countermeasure, NoCountermeasure
from unlearnable.evaluation.countermeasures.imagenet import FineTuningImageNet, LinearProbeImageNet

PAGE = DOCS / "explanation" / "pretrained.md"
FITS = ("clean", "EM", "EM, sample-wise", "BAIT", "BAIT, fresh weights", "BAIT, rows", "TAP")
TAP = {"train_epochs": 3, "learning_rate": 0.01, "steps": 15, "shift": 3}
SHOWN = {
    "EM": "EM, class-wise",
    "BAIT": "BAIT, generator",
    "BAIT, fresh weights": "BAIT, generator, fresh weights",
}
TABLES = {
    "bait.py": "bait-gpu.json",
    "bait.py --learning-rate 0.01": "bait-32-gpu.json",
    "bait.py --learning-rate 0.01 --side 96": "bait-96-gpu.json",
}
VICTIMS = ("fine-tuning-imagenet", "linear-probe-imagenet", "none")
CELLS = [f"{fit}, {victim}" for victim in VICTIMS for fit in FITS]


def method_of(name: str, args: argparse.Namespace) -> ue.Method:
    if name == "EM":
        return ue.EM.preset("fast", surrogate=args.network, granularity="class-wise", steps=1)
    if name == "EM, sample-wise":
        return ue.EM.preset("fast", surrogate=args.network)
    if name == "TAP":
        steps = TAP if args.tap_steps is None else TAP | {"steps": args.tap_steps}
        return ue.TAP.preset("fast", surrogate=LITE0, pretrained_surrogate=True, **steps)
    chosen = {"rounds": args.rounds, "round_steps": args.round_steps}
    given = {name: value for name, value in chosen.items() if value is not None}
    if name == "BAIT, rows":
        return ue.BAIT.preset("fast", **given)
    fresh = {"pretrained_surrogate": False, "surrogate": args.network}
    return ue.BAIT(**GENERATOR | ({} if name == "BAIT" else fresh) | given)


def perturbation_of(name: str, train: Any, args: argparse.Namespace) -> ue.Perturbation:
    """The fitted perturbation, from --work where an earlier start left it."""
    method, precision = method_of(name, args), args.fit_precision or args.precision

    def fit(checkpoint: Path) -> ue.Perturbation:
        method.fit(
            train,
            device=args.device,
            precision=precision,
            progress=False,
            checkpoint=checkpoint,
        )
        return method.perturbation_

    folder = args.work / f"{args.out.stem}-{name.replace(', ', '-').replace(' ', '-')}"
    made_with = {"method": repr(method), "images": args.images, "side": args.side}
    return kept(folder, made_with | {"precision": precision}, fit)


def counter_of(name: str, args: argparse.Namespace) -> Countermeasure:
    if name == "none":
        return NoCountermeasure()
    if name == "linear-probe-imagenet":
        return LinearProbeImageNet()
    return FineTuningImageNet(learning_rate=args.learning_rate)


def enlarged(dataset: Any, side: int) -> list[Any]:
    """The images at another size, before anything protects them."""
    size = (side, side)
    return [(image.resize(size, Image.Resampling.BICUBIC), label) for image, label in dataset]


def table(result: dict[str, Any]) -> str:
    """A row for each method, a column for each victim that was measured."""
    settings, cells = result["settings"], result["cells"]
    heads = {
        "fine-tuning-imagenet": "ImageNet weights, fine-tuned",
        "linear-probe-imagenet": "ImageNet weights, linear probe",
        "none": f"{settings['network']}, fresh weights",
    }
    victims = [victim for victim in VICTIMS if any(f"{fit}, {victim}" in cells for fit in FITS)]
    names = " | ".join(heads[victim] for victim in victims)
    lines = [f"| trained on | {names} |", "|---" * (len(victims) + 1) + "|"]
    for fit in FITS:
        found = [cells.get(f"{fit}, {victim}") for victim in victims]
        if any(found):
            shown = [
                "" if cell is None else f"{accuracy_shown(cell)} / {accuracy_shown(cell, 'peak')}"
                for cell in found
            ]
            lines.append(f"| {' | '.join([SHOWN.get(fit, fit), *shown])} |")
    shortened = "BAIT, fine-tuning-imagenet" in cells
    generator = f", {GENERATOR['rounds']} rounds of BAIT's generator" if shortened else ""
    size = f" enlarged to {settings['side']} pixels" if "side" in settings else ""
    note = (
        f"Accuracy on {settings['test_images']:,} clean test images in percent after the last "
        f"epoch / on {min(1_000, settings['test_images']):,} of them after the best one, victims "
        f"{settings['seeds']} each; CIFAR-10{size}, {settings['images']:,} training images, epochs "
        f"{settings['epochs']}, fine-tuning at a learning rate of "
        f"{settings['learning_rate']:g}; presets fast, surrogate of EM {settings['network']}"
        f"{generator}. "
        f"{result['date']}, {where(result)}."
    )
    return "\n".join([*lines, "", note])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("root", nargs="?", help="folder with cifar-10-batches-py")
    parser.add_argument("--images", type=int, default=5_000)
    parser.add_argument("--test-images", type=int, default=10_000)
    parser.add_argument("--network", default="resnet9", help="of EM, and of victims from scratch")
    parser.add_argument("--rounds", type=int, help="of BAIT, in place of its preset's")
    parser.add_argument("--round-steps", type=int, help="of BAIT's surrogate, likewise")
    parser.add_argument("--tap-steps", type=int, help=f"in place of {TAP['steps']}")
    parser.add_argument("--side", type=int, help="enlarge all images to it before the fit")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--learning-rate", type=float, default=0.001, help="of fine-tuning")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto", choices=["auto", "float32", "bf16"])
    parser.add_argument("--fit-precision", choices=["auto", "float32", "bf16"], help="of fits")
    parser.add_argument("--only", nargs="+", choices=CELLS, default=CELLS)
    parser.add_argument("--work", type=Path, default=Path(__file__).parent / "work" / "bait")
    parser.add_argument("--out", type=Path, default=RESULTS / "bait-gpu.json")
    parser.add_argument("--table", action="store_true", help="make the tables and end")
    args = parser.parse_args()
    if args.table:
        for command, file in TABLES.items():
            fill(PAGE, command, table(json.loads((RESULTS / file).read_text())))
        return
    names = ("images", "test_images", "network", "rounds", "epochs", "learning_rate", "seeds")
    settings = {name: getattr(args, name) for name in names}
    for name in ("round_steps", "tap_steps", "side"):
        if getattr(args, name) is not None:
            settings[name] = getattr(args, name)
    record = Record(args.out, settings, args.device)
    train: Any = first(AnyCIFAR10(args.root), args.images)
    test: Any = first(AnyCIFAR10(args.root, train=False), args.test_images)
    if args.side is not None:
        train, test = (enlarged(dataset, args.side) for dataset in (train, test))
    for name in args.only:
        if name in record.cells:
            continue
        fit, victim = name.rsplit(", ", 1)
        images = train
        if fit != "clean":
            images = ue.ProtectedDataset(train, perturbation_of(fit, train, args))
        found = ue.evaluate(
            images,
            test,
            args.network,
            countermeasure=counter_of(victim, args),
            epochs=args.epochs,
            seeds=args.seeds,
            peak_images=min(1_000, args.test_images),
            device=args.device,
            precision=args.precision,
            progress=False,
        )
        record.put(name, {"victims": found.to_dict()})
        print(f"{name}: {found}", flush=True)


if __name__ == "__main__":
    main()
