"""Protect CIFAR-10 by every method, train victims on it, and test them on clean images.

On a CPU, 10,000 training images, in about an hour on two cores:

    python benchmarks/cifar10.py ROOT --images 10000 --surrogate tiny --preset demo \
        --train-steps 800 --victim tiny --epochs 12 --out benchmarks/results/cifar10-cpu.json

On a GPU, the whole set by the papers' recipes:

    python benchmarks/cifar10.py ROOT --device cuda --preset paper --victim resnet18 --epochs 60

ROOT is a folder with ``cifar-10-batches-py``. The result is written cell by cell: a second start
with the same settings goes on where the first one ended. Fitted perturbations are kept in --work.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from record import RESULTS, Record
from torch.utils.data import Subset
from torchvision.datasets import CIFAR10

import unlearnable as ue

# Row of the table -> class of the method and what differs from its preset.
METHODS: dict[str, tuple[type[ue.Method], dict[str, Any]] | None] = {
    "clean": None,
    "SEM": (ue.SEM, {}),
    "EM": (ue.EM, {}),
    "RandomNoise": (ue.RandomNoise, {}),
    "REM": (ue.REM, {}),
    "EM class-wise": (ue.EM, {"granularity": "class-wise"}),
    "RandomNoise class-wise": (ue.RandomNoise, {"granularity": "class-wise"}),
}


class AnyCIFAR10(CIFAR10):
    """CIFAR-10 from any copy of its files, whatever their checksums."""

    meta = {**CIFAR10.meta, "md5": None}  # noqa: RUF012

    def _check_integrity(self) -> bool:
        return True


def method_of(name: str, args: argparse.Namespace) -> ue.Method | None:
    entry = METHODS[name]
    if entry is None:
        return None
    cls, overrides = entry
    overrides = dict(overrides)
    if "surrogate" in cls().get_params():
        overrides["surrogate"] = args.surrogate
    if args.train_steps and "train_steps" in cls().get_params():
        overrides["train_steps"] = args.train_steps
    return cls.preset(args.preset, **overrides)


def perturbation_of(
    name: str, train: Any, args: argparse.Namespace, cell: dict[str, Any]
) -> ue.Perturbation | None:
    """The fitted perturbation, from --work where an earlier start left it."""
    method = method_of(name, args)
    if method is None:
        return None
    folder = args.work / args.out.stem / name.replace(" ", "-")
    if "fit" in cell and folder.is_dir():
        return ue.Perturbation.from_pretrained(folder)
    start = time.perf_counter()
    method.fit(train, device=args.device)
    seconds = time.perf_counter() - start
    method.save_pretrained(folder, force=True)
    cell["fit"] = {
        "method": repr(method),
        "seconds": round(seconds, 1),
        "passes": method.perturbation_.config["history"]["passes"],
        "mean_change": round(float(np.abs(method.perturbation_.rows.astype(int)).mean()), 2),
    }
    return method.perturbation_


def table(result: dict[str, Any]) -> str:
    """The README's table, from the committed JSON alone."""
    machine = result["machine"]
    settings = result["settings"]
    seeds = max(len(cell.get("victims", {})) for cell in result["cells"].values())
    caption = (
        f"{settings['images']:,} images, surrogate and victim {settings['victim']}, preset "
        f"{settings['preset']}, {settings['epochs']} epochs, one fit and {seeds} victims each: "
        f"mean and spread in percent. {result['date']}, {machine['device']}, "
        f"{machine['threads']} thread, torch {machine['torch']}."
    )
    lines = [
        "| training images | test accuracy, last | peak | train accuracy | fit |",
        "|---|---|---|---|---|",
    ]
    for name in METHODS:
        cell = result["cells"].get(name, {})
        victims = list(cell.get("victims", {}).values())
        if not victims:
            continue

        def figure(which: str, victims: list[dict[str, Any]] = victims) -> str:
            values = 100 * np.array([victim[which] for victim in victims])
            spread = f" ± {values.std(ddof=1):.1f}" if len(values) > 1 else ""
            return f"{values.mean():.1f}{spread}"

        fit = cell.get("fit")
        seconds = f"{fit['seconds']:.0f} s" if fit else ""
        lines.append(
            f"| {name} | {figure('last')} | {figure('peak')} | {figure('train')} | {seconds} |"
        )
    return "\n".join([*lines, "", caption])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("root", nargs="?", help="folder with cifar-10-batches-py")
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--preset", default="paper", choices=["paper", "fast", "demo"])
    parser.add_argument("--surrogate", default="resnet18")
    parser.add_argument("--train-steps", type=int, help="surrogate steps of REM and SEM")
    parser.add_argument("--victim", default="resnet18")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--only", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--work", type=Path, default=Path(__file__).parent / "work")
    parser.add_argument("--out", type=Path, default=RESULTS / "cifar10-gpu.json")
    parser.add_argument("--table", action="store_true", help="print the table of --out and end")
    args = parser.parse_args()
    if args.table:
        print(table(json.loads(args.out.read_text())))
        return

    chosen = ("images", "preset", "surrogate", "train_steps", "victim", "epochs")
    record = Record(args.out, {name: getattr(args, name) for name in chosen}, args.device)
    train: Any = AnyCIFAR10(args.root)
    train = Subset(train, range(args.images)) if args.images < len(train) else train
    test = AnyCIFAR10(args.root, train=False)

    # Fits and first seeds of all methods come before second seeds of any.
    for seed in range(args.seeds):
        for name in args.only:
            cell = record.cells.get(name, {"victims": {}})
            if str(seed) in cell["victims"]:
                continue
            perturbation = perturbation_of(name, train, args, cell)
            record.put(name, cell)
            dataset = train if perturbation is None else ue.ProtectedDataset(train, perturbation)
            start = time.perf_counter()
            evaluation = ue.evaluate(
                dataset, test, args.victim, epochs=args.epochs, seeds=[seed], device=args.device
            )
            cell["victims"][str(seed)] = {
                "last": evaluation.last[0],
                "peak": evaluation.peak[0],
                "train": round(evaluation.train[0], 4),
                "curve": evaluation.curves[0],
                "seconds": round(time.perf_counter() - start, 1),
            }
            record.put(name, cell)
            print(f"{name}, seed {seed}: {evaluation}", flush=True)
    result = json.loads(args.out.read_text())
    print(table(result))


if __name__ == "__main__":
    main()
