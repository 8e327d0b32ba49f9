"""Methods against countermeasures on CIFAR-10: what victims reach on clean test images.

On a CPU, 5,000 training images and the tiny network:

    python benchmarks/leaderboard.py ROOT --images 5000 --train-steps 800 --peak-images 2000 \
        --out benchmarks/results/leaderboard-cpu.json

--seed 1 and --seed 2 add victims, for the columns none, jpeg-10, grayscale and adversarial
training, chosen with --countermeasures. How OPS fares when adversarial training takes longer:

    python benchmarks/leaderboard.py ROOT --images 5000 --train-steps 800 --peak-images 2000 \
        --epochs 36 --seed 1 --only OPS clean --countermeasures adversarial-training-4-steps-3 \
        --out benchmarks/results/leaderboard-long-cpu.json

SEM with and without JPEG, resizing and greyscale among its draws, against these:

    python benchmarks/leaderboard.py ROOT --images 5000 --train-steps 800 --peak-images 2000 \
        --only clean SEM "SEM jpeg" "SEM grayscale" "SEM resize jpeg grayscale" \
        --countermeasures none jpeg-10 jpeg-30 jpeg-75 grayscale \
        --out benchmarks/results/draws-cpu.json

Lasting against the standard set and the set adapted to it; worst_case.py reads this and the next:

    python benchmarks/leaderboard.py ROOT --images 5000 --train-steps 800 --peak-images 2000 \
        --only Lasting clean --countermeasures none grayscale jpeg-10 jpeg-30 bit-depth-2 low-pass \
        displacement channel-normalization histogram-equalization colour-whitening colour-jitter \
        shift-noise-8 cutmix ueraser-lite adversarial-training-4-steps-3 orthogonal-projection \
        jpeg-10+grayscale channel-normalization+jpeg-10 class-mean-subtraction spectrum-matching \
        class-mean-subtraction+spectrum-matching --out benchmarks/results/lasting-cpu.json

With resnet9 and 10,000 images, and on the whole set with the fast recipe; a GPU holds a process for
each row (--only), and --precision bf16 spares each the trial of it:

    python benchmarks/leaderboard.py ROOT --images 10000 --preset fast --surrogate resnet9 \
        --victim resnet9 --peak-images 1000 --precision bf16 --countermeasures none jpeg-10 \
        orthogonal-projection channel-normalization+jpeg-10 bit-depth-2 low-pass ueraser-lite \
        histogram-equalization colour-whitening adversarial-training-4-steps-3 \
        grayscale-everywhere jpeg-10+grayscale-everywhere class-mean-subtraction \
        --out benchmarks/results/leaderboard-resnet9.json
    python benchmarks/leaderboard.py ROOT --preset fast --surrogate resnet9 --victim resnet9 \
        --recipe fast --peak-images 1000 --precision bf16 --countermeasures none jpeg-10 \
        adversarial-training-4-steps-3 orthogonal-projection ueraser-lite \
        channel-normalization cutout --out benchmarks/results/full-resnet9.json

The same with other victims, and on CIFAR-100 from a folder with ``cifar-100-python`` or with its
Parquet files:

    python benchmarks/leaderboard.py ROOT --preset fast --surrogate resnet9 --victim resnet18 \
        --recipe fast --peak-images 1000 --precision bf16 --only clean SEM SEP REM EM \
        --countermeasures none --out benchmarks/results/full-resnet18.json
    python benchmarks/leaderboard.py ROOT --dataset cifar100 --preset fast --surrogate resnet9 \
        --victim resnet9 --recipe fast --peak-images 1000 --precision bf16 \
        --only clean SEM SEP EM MIUE Lasting --countermeasures none jpeg-10 \
        adversarial-training-4-steps-3 --out benchmarks/results/full-cifar100-resnet9.json

On a GPU, the whole set with the papers' recipes:

    python benchmarks/leaderboard.py ROOT --device cuda --preset paper --victim resnet18 \
        --surrogate resnet18 --epochs 60 --out benchmarks/results/leaderboard-gpu.json

ROOT is a folder with ``cifar-10-batches-py``. The result is written cell by cell, the most
informative cells first, with the time that the rest is going to take, and a second start continues
where the first one ended. Several starts may divide the rows with --only, and the columns with
--countermeasures. Fitted perturbations are kept in --work, with a note of what made them.

leaderboard_page.py writes docs/reference/leaderboard.md from the committed results, the published
figures beside them.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from cifar import first, opened
from cifar10 import DRAWS, fit_through, method_of
from kept import kept
from record import RESULTS, Record

import unlearnable as ue
from unlearnable.engine.estimate import duration
from unlearnable.evaluation.countermeasures import countermeasure

HERE = Path(__file__).parent

# Rows of cifar10.py.
METHODS = (
    "clean", "SEM", "EM", "OPS", "TAP", "SEP 8/255", "ClassConvolution", "LSP", "PILNoise", "AR",
    "REM", "MIUE", "ColourShift", "SmoothFields 24/255", "Gratings", "DUNE", "BAIT", "Lasting",
    "SEP", "AUE", "AAP",
)  # fmt: skip
# What a perturbation depends on beside its method.
FIT_SETTINGS = ("images", "preset", "surrogate", "train_steps")
# The most telling first. Adversarial training takes a number of network passes per image.
COUNTERMEASURES = (
    "none",
    "jpeg-10",
    "grayscale",
    "adversarial-training-4-steps-3",
    "orthogonal-projection",
    "bit-depth-2",
    "cutout",
    "ueraser-max",
    "unprotected-20",
    "mixup",
    "cutmix",
    "median-filter",
    "displacement",
    "randaugment",
    "clean-part-only-20",
)


def folder_of(name: str, args: argparse.Namespace) -> Path:
    """Where --work has the fitted perturbation, or is going to."""
    place: Path = args.work / args.out.stem / name.replace(" ", "-").replace("/", "-")
    return place


def perturbation_of(name: str, train: Any, args: argparse.Namespace) -> ue.Perturbation:
    """The fitted perturbation, from --work where this or another start left it."""
    method = method_of(name, args)

    def fit(checkpoint: Path) -> ue.Perturbation:
        fit_through(method, train, checkpoint, args)
        return method.perturbation_

    made_with = {"settings": {s: getattr(args, s) for s in FIT_SETTINGS}, "method": repr(method)}
    return kept(folder_of(name, args), made_with, fit)


def measure(dataset: Any, test: Any, counter: str, args: argparse.Namespace) -> dict[str, Any]:
    """One cell."""
    start, worked = time.perf_counter(), time.process_time()
    found = ue.evaluate(
        dataset,
        test,
        args.victim,
        countermeasure=counter,
        recipe=args.recipe,
        epochs=args.epochs,
        seeds=[args.seed],
        peak_images=args.peak_images,
        device=args.device,
        precision=args.precision,
    )
    return {
        "last": found.last[0],
        "peak": found.peak[0],
        "train": round(found.train[0], 4),
        "curve": found.curves[0],
        "seconds": round(time.perf_counter() - start, 1),
        "cpu_seconds": round(time.process_time() - worked, 1),
    }


def key(method: str, counter: str, seed: int) -> str:
    return f"{method}, {counter}, seed {seed}"


def missing(record: Record, args: argparse.Namespace) -> list[tuple[str, str]]:
    """Countermeasures and methods that are still to be measured, column by column."""
    cells = record.cells
    return [
        (counter, name)
        for counter in args.countermeasures
        for name in args.only
        # What is about unprotected images says nothing where none is protected.
        if not (name == "clean" and countermeasure(counter).needs_clean_images)
        and key(name, counter, args.seed) not in cells
    ]


def passes_of(cells: list[tuple[str, str]], train: Any, args: argparse.Namespace) -> float:
    """Image passes of these cells and of the fits that they still need."""
    unfitted = {name for _, name in cells if name != "clean"}
    unfitted = {name for name in unfitted if not (folder_of(name, args) / "config.json").exists()}
    fits = sum(method_of(name, args).passes(len(train)) for name in unfitted)
    each = args.epochs * len(train)
    return fits + sum(each * countermeasure(counter).passes for counter, _ in cells)


def fill(record: Record, train: Any, test: Any, args: argparse.Namespace) -> None:
    """Measures what is missing, column by column, and says how long the rest is going to take."""
    start, done = time.monotonic(), 0.0
    for counter, name in missing(record, args):
        cell = key(name, counter, args.seed)
        if cell in record.cells:  # another start was faster
            continue
        done += passes_of([(counter, name)], train, args)
        dataset, fit = train, {}
        if name != "clean":
            perturbation = perturbation_of(name, train, args)
            dataset = ue.ProtectedDataset(train, perturbation)
            # Another start without the first one's --work fits anew.
            fit = {"fit": perturbation.digest[:16]}
        found = measure(dataset, test, counter, args) | fit
        record.put(cell, found)
        shown = f"{100 * found['peak']:.1f} % peak, {100 * found['last']:.1f} % last"
        print(f"{cell}: {shown}, {found['seconds']:.0f} s", flush=True)
        if rest := missing(record, args):
            left = (time.monotonic() - start) * passes_of(rest, train, args) / done
            print(f"  {len(rest)} more, about {duration(left)} for this start alone", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("root", help="folder with cifar-10-batches-py, or of CIFAR-100")
    parser.add_argument("--dataset", default="cifar10", choices=["cifar10", "cifar100"])
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--preset", default="demo", choices=["paper", "fast", "demo"])
    parser.add_argument("--surrogate", default="tiny")
    parser.add_argument("--train-steps", type=int, help="surrogate steps of methods that have them")
    parser.add_argument("--victim", default="tiny")
    parser.add_argument("--recipe", default="standard", choices=["standard", "fast"])
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0, help="of the victims")
    parser.add_argument("--peak-images", type=int, help="test images for the peak (all)")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto", choices=["auto", "float32", "bf16"])
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--budget", type=float, help="seconds after which a fit stops")
    parser.add_argument("--only", nargs="+", choices=(*METHODS, *DRAWS), default=METHODS)
    parser.add_argument("--countermeasures", nargs="+", default=list(COUNTERMEASURES))
    parser.add_argument("--work", type=Path, default=HERE / "work")
    parser.add_argument("--out", type=Path, default=RESULTS / "leaderboard-cpu.json")
    args = parser.parse_args()
    args.started = time.monotonic()
    for counter in args.countermeasures:
        countermeasure(counter)
    names = (*FIT_SETTINGS, "victim", "epochs", "peak_images")
    settings = {name: getattr(args, name) for name in names}
    settings |= {} if args.recipe == "standard" else {"recipe": args.recipe}
    settings |= {} if args.dataset == "cifar10" else {"dataset": args.dataset}
    record = Record(args.out, settings, args.device)
    train = opened(args.dataset, args.root)
    train = train if args.images == len(train) else first(train, args.images)
    args.work.mkdir(parents=True, exist_ok=True)
    fill(record, train, opened(args.dataset, args.root, train=False), args)


if __name__ == "__main__":
    main()
