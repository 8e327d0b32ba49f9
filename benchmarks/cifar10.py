"""Protect CIFAR-10 with every method, train victims on it, and test them on clean images.

On a CPU, 5,000 training images, two small networks as victims:

    python benchmarks/cifar10.py ROOT --images 5000 --surrogate tiny --preset demo \
        --train-steps 800 --victims tiny tiny-resnet --seeds 3 1 --epochs 15 --peak-images 2000 \
        --out benchmarks/results/methods-cpu.json

The README's table, 10,000 images and fewer methods:

    python benchmarks/cifar10.py ROOT --images 10000 --surrogate tiny --preset demo \
        --train-steps 800 --victims tiny --seeds 3 --epochs 12 \
        --only clean SEM EM REM "EM class-wise" RandomNoise "RandomNoise class-wise" \
        --out benchmarks/results/cifar10-cpu.json

On a GPU, the whole set with the papers' recipes, the published figures beside ours:

    python benchmarks/cifar10.py ROOT --device cuda --preset paper --victims resnet18 --epochs 60 \
        --budget 500

ROOT is a folder with ``cifar-10-batches-py``. The result is written cell by cell, the most
informative cells first. A second start with the same settings continues where the first one ended.
--budget ends a start after that many seconds; a fit then stops at a checkpoint. Fitted
perturbations are kept in --work. Several starts may divide the rows with --only.
"""

from __future__ import annotations

import argparse
import json
import re
import signal
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from cifar import AnyCIFAR10, first
from published import published_range
from record import RESULTS, Record, where

import unlearnable as ue


class Row(NamedTuple):
    """A row of the table.

    Attributes:
        method: Its class.
        overrides: What differs from its preset.
        small: What differs from the presets for small networks.
        preset: In place of --preset where that is "paper", or None.
        on: The row whose perturbation lies below this one, or None.
    """

    method: type[ue.Method]
    overrides: dict[str, Any] = {}  # noqa: RUF012
    small: dict[str, Any] = {}  # noqa: RUF012
    preset: str | None = None
    on: str | None = None


CLASS_WISE = {"granularity": "class-wise"}
# SEP's short presets are for 2/255; a larger budget takes longer steps.
LONGER: dict[str, Any] = {"step_size": 2 / 255, "steps": 8}
# BAIT as its paper has it, shortened; the preset "fast" does without the generator.
GENERATOR: dict[str, Any] = {
    "search": "generator",
    "rounds": 15,
    "round_steps": 4,
    "learning_rate": 0.1,
    "batch_size": 128,
    "generator_width": 16,
}
FA_VR: dict[str, Any] = {"epsilon": 8 / 255, "feature_alignment": True, "variance_reduction": True}

METHODS: dict[str, Row | None] = {
    "clean": None,
    "SEM": Row(ue.SEM),
    "SEP": Row(ue.SEP),
    "EM": Row(ue.EM),
    "TAP": Row(ue.TAP),
    "OPS": Row(ue.OPS),
    "ClassConvolution": Row(ue.ClassConvolution),
    "ColourShift": Row(ue.ColourShift),
    "SmoothFields": Row(ue.SmoothFields),
    "SmoothFields 24/255": Row(ue.SmoothFields, {"epsilon": 24 / 255}),
    "Gratings": Row(ue.Gratings),
    "ColourShift swarm": Row(ue.ColourShift, {"search": "swarm"}),
    "DUNE": Row(ue.DUNE),
    "Lasting": Row(ue.Lasting),
    "PILNoise": Row(ue.PILNoise),
    "REM": Row(ue.REM, preset="fast"),
    "LSP": Row(ue.LSP),
    "AR": Row(ue.AR),
    "SEP 8/255": Row(ue.SEP, {"epsilon": 8 / 255}, LONGER),
    "SEP-FA-VR 8/255": Row(ue.SEP, FA_VR, {**LONGER, "inner_steps": 4}),
    "AUE": Row(ue.AUE),
    "AAP": Row(ue.AAP),
    "HYPO": Row(ue.HYPO),
    "MIUE": Row(ue.MIUE),
    "EM class-wise": Row(ue.EM, CLASS_WISE),
    "BAIT": Row(ue.BAIT, small=GENERATOR),
    "AUE class-wise": Row(ue.AUE, CLASS_WISE),
    "EM then OPS": Row(ue.OPS, on="EM"),
    "RandomNoise": Row(ue.RandomNoise),
    "RandomNoise class-wise": Row(ue.RandomNoise, CLASS_WISE),
}
# SEM with other draws than crops and flips; rows of leaderboard.py.
DRAWS = {
    f"SEM {' '.join(augment)}": Row(ue.SEM, {"augment": augment})
    for augment in (
        {"jpeg": 0.3},
        {"grayscale": 0.6},
        {"resize": 0.2, "jpeg": 0.2, "grayscale": 0.3},
    )
}


def title_of(name: str) -> str:
    """A row's name, with the radius where other rows differ in it: ``"SEP"`` is "SEP 2/255"."""
    row = METHODS.get(name)
    others = [other for other in METHODS if re.fullmatch(rf"{re.escape(name)} \d+/255", other)]
    if row is None or not others:
        return name
    return f"{name} {255 * row.method(**row.overrides).get_params()['epsilon']:g}/255"


def method_of(name: str, args: argparse.Namespace) -> ue.Method:
    row = (METHODS | DRAWS)[name]
    assert row is not None
    overrides = {**row.overrides, **({} if args.preset == "paper" else row.small)}
    preset = (row.preset if args.preset == "paper" else None) or args.preset
    known = row.method.preset(preset).get_params()
    # A network that starts from pretrained weights is the method's own.
    if "surrogate" in known and not known.get("pretrained_surrogate"):
        overrides["surrogate"] = args.surrogate
    if args.train_steps and "train_steps" in known:
        overrides["train_steps"] = args.train_steps
    return row.method.preset(preset, **overrides)


def fit_through(
    method: ue.Method, train: Any, checkpoint: Path, args: argparse.Namespace
) -> dict[str, float]:
    """Fits through a checkpoint, until --budget ends the start; what this start took in seconds."""
    timer = None
    if args.budget is not None:
        left = max(0.0, args.started + args.budget - time.monotonic())
        timer = threading.Timer(left, lambda: signal.raise_signal(signal.SIGINT))
        timer.start()
    start, worked = time.perf_counter(), time.process_time()
    method.fit(
        train,
        device=args.device,
        compile=args.compile,
        precision=getattr(args, "precision", "auto"),
        checkpoint=checkpoint,
        checkpoint_every=120,
    )
    if timer is not None:
        timer.cancel()
    taken = {"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - worked}
    return {name: round(seconds, 1) for name, seconds in taken.items()}


def perturbation_of(
    name: str, train: Any, args: argparse.Namespace, record: Record
) -> ue.Perturbation:
    """The fitted perturbation, from --work where an earlier start left it."""
    row = METHODS[name]
    assert row is not None
    folder = args.work / args.out.stem / name.replace(" ", "-").replace("/", "-")
    cell = record.cells.get(name, {"victims": {}})
    if "fit" in cell and folder.is_dir():
        return ue.Perturbation.from_pretrained(folder)
    below = None if row.on is None else perturbation_of(row.on, train, args, record)
    method = method_of(name, args)
    onto = train if below is None else ue.ProtectedDataset(train, below)
    taken = fit_through(method, onto, folder.with_name(f"{folder.name}-checkpoint"), args)
    perturbation = method.perturbation_ if below is None else below.then(method.perturbation_)
    perturbation.save_pretrained(folder, force=True)
    passes = method.perturbation_.config["history"]["passes"]
    change = ue.ProtectedDataset(train, perturbation).change(1000)._asdict()
    change = {name: round(value, 4) for name, value in change.items()}
    cell = record.cells.get(name, cell)  # with the victims that other starts added meanwhile
    fit = {"method": repr(method), **taken, "passes": passes}
    record.put(name, cell | {"fit": fit, "change": change})
    return perturbation


def mean_and_spread(victims: list[dict[str, Any]], which: str) -> str:
    """In percent, over the seeds of one network."""
    values = 100 * np.array([victim[which] for victim in victims])
    spread = f" ± {values.std(ddof=1):.1f}" if len(values) > 1 else ""
    return f"{values.mean():.1f}{spread}"


def accuracy_shown(cell: dict[str, Any] | None, key: str = "last") -> str:
    """Of a cell with the victims of one evaluation, empty if it was not measured."""
    if cell is None:
        return ""
    return mean_and_spread([{key: value} for value in cell["victims"][key]], key)


def table(result: dict[str, Any]) -> str:
    """The table of a result, from the committed JSON."""
    machine, settings, cells = (result[name] for name in ("machine", "settings", "cells"))
    on_gpu = not machine["device"].startswith(("x86", "aarch", "arm", "AMD64"))
    # Victims by network; a network's seeds are one column.
    networks: dict[str, int] = {}
    for cell in cells.values():
        for victim in cell["victims"]:
            network, _, _ = victim.partition(", seed ")
            seeds = sum(other.startswith(f"{network}, ") for other in cell["victims"])
            networks[network] = max(networks.get(network, 0), seeds)
    first, *others = networks
    head = ["training images", "test accuracy, last", "peak", "train accuracy"]
    head += [f"{network}, {which}" for network in others for which in ("last", "peak")]
    changed = all("change" in cell for name, cell in cells.items() if name != "clean")
    head += ["fit", *(["L∞", "L2", "PSNR", "SSIM"] if changed else [])]
    comparable = settings["surrogate"] == "resnet18"
    head += ["published"] if comparable else []
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for name in METHODS:
        cell = cells.get(name, {"victims": {}})
        if not cell["victims"]:
            continue
        columns = [name]
        for network in networks:
            of_it = [v for key, v in cell["victims"].items() if key.startswith(f"{network}, ")]
            for which in ("last", "peak", "train") if network == first else ("last", "peak"):
                columns.append(mean_and_spread(of_it, which) if of_it else "")
        # On a processor that other work shares, its own time says more than the clock.
        fit = cell.get("fit", {})
        seconds = fit.get("seconds" if on_gpu else "cpu_seconds", fit.get("seconds"))
        columns.append("" if seconds is None else f"{seconds:.0f} s")
        if changed:
            change = cell.get("change")
            columns += ["", "", "", ""] if change is None else [
                f"{change['linf']:.0f}/255",
                f"{change['l2']:.2f}",
                f"{change['psnr']:.1f} dB",
                f"{change['ssim']:.3f}",
            ]  # fmt: skip
        columns += [published_range(name)] if comparable else []
        lines.append(f"| {' | '.join(columns)} |")
    victims = " and ".join(f"{seeds} {network}" for network, seeds in networks.items())
    fits = max(len({v.get("fit") for v in cell["victims"].values()}) for cell in cells.values())
    peak = settings.get("peak_images")
    caption = (
        f"{settings['images']:,} images, surrogate {settings['surrogate']}, preset "
        f"{settings['preset']}, {settings['epochs']} epochs, "
        f"{'one fit' if fits == 1 else f'1 to {fits} fits'} each, "
        f"victims {victims}: mean and spread in percent"
        + (f", the peak on {peak:,} of the test images" if peak else "")
        + f". {result['date']}, {where(result)}."
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
    parser.add_argument("--victims", nargs="+", default=["resnet18"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[3], help="of each network")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--peak-images", type=int)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--budget", type=float, help="seconds after which to stop")
    parser.add_argument("--only", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--work", type=Path, default=Path(__file__).parent / "work")
    parser.add_argument("--out", type=Path, default=RESULTS / "methods-gpu.json")
    parser.add_argument("--table", action="store_true", help="print the table of --out and end")
    args = parser.parse_args()
    args.started = time.monotonic()
    if args.table:
        print(table(json.loads(args.out.read_text())))
        return

    chosen = ("images", "preset", "surrogate", "train_steps", "epochs", "peak_images")
    record = Record(args.out, {name: getattr(args, name) for name in chosen}, args.device)
    train: Any = AnyCIFAR10(args.root)
    train = train if args.images == len(train) else first(train, args.images)
    test = AnyCIFAR10(args.root, train=False)

    # Fits and first seeds of all methods come before second seeds of any.
    rounds = [
        (network, seed)
        for seed in range(max(args.seeds))
        for network, seeds in zip(args.victims, args.seeds, strict=True)
        if seed < seeds
    ]
    for network, seed in rounds:
        for name in args.only:
            victim = f"{network}, seed {seed}"
            if victim in record.cells.get(name, {"victims": {}})["victims"]:
                continue
            dataset, fit = train, {}
            if METHODS[name] is not None:
                perturbation = perturbation_of(name, train, args, record)
                dataset = ue.ProtectedDataset(train, perturbation)
                # Another start without the first one's --work fits anew.
                fit = {"fit": perturbation.digest[:16]}
            left = (args.budget or float("inf")) - (time.monotonic() - args.started)
            if left < 0:
                raise SystemExit("the budget is spent; the same command continues from here")
            start = time.perf_counter()
            evaluation = ue.evaluate(
                dataset,
                test,
                network,
                epochs=args.epochs,
                seeds=[seed],
                peak_images=args.peak_images,
                device=args.device,
            )
            cell = record.cells.get(name, {"victims": {}})
            cell["victims"][victim] = {
                "last": evaluation.last[0],
                "peak": evaluation.peak[0],
                "train": round(evaluation.train[0], 4),
                "curve": evaluation.curves[0],
                "seconds": round(time.perf_counter() - start, 1),
                **fit,
            }
            record.put(name, cell)
            print(f"{name}, seed {seed}: {evaluation}", flush=True)
    print(table(json.loads(args.out.read_text())))


if __name__ == "__main__":
    main()
