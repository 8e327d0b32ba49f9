"""Methods against countermeasures on CIFAR-10: what victims reach on clean test images.

On a CPU, 5,000 training images and the tiny network:

    python benchmarks/leaderboard.py ROOT --images 5000 --peak-images 2000 \
        --out benchmarks/results/leaderboard-cpu.json

On a GPU, the whole set by the papers' recipes:

    python benchmarks/leaderboard.py ROOT --device cuda --preset paper --victim resnet18 \
        --surrogate resnet18 --epochs 60 --out benchmarks/results/leaderboard-gpu.json

ROOT is a folder with ``cifar-10-batches-py``. The result is written cell by cell, the most
informative cells first, and a second start goes on where the first one ended. Several starts may
share the rows by --only, and columns by --countermeasures. Fitted perturbations are kept in --work.

    python benchmarks/leaderboard.py --page

writes docs/leaderboard.md from the committed results, the published figures beside them.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from cifar10 import AnyCIFAR10, fit_through, method_of
from record import RESULTS, Record
from torch.utils.data import Subset

import unlearnable as ue
from unlearnable.evaluation.cells import needs_clean
from unlearnable.evaluation.countermeasures import countermeasure
from unlearnable.output import locked

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "leaderboard.md"
PUBLISHED = HERE / "published.json"

# Rows of cifar10.py.
METHODS = (
    "clean", "SEM", "EM", "OPS", "TAP", "SEP 8/255", "ClassConvolution", "LSP", "PILNoise", "AR",
    "REM",
)  # fmt: skip
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


def perturbation_of(name: str, train: Any, args: argparse.Namespace) -> ue.Perturbation:
    """The fitted perturbation, from --work where this or another start left it."""
    folder = args.work / args.out.stem / name.replace(" ", "-").replace("/", "-")
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder, wait=True):  # starts that share rows fit each once
        if not (folder / "config.json").exists():
            method = method_of(name, args)
            fit_through(method, train, folder.with_name(f"{folder.name}-checkpoint"), args)
            method.perturbation_.save_pretrained(folder)
        return ue.Perturbation.from_pretrained(folder)


def measure(dataset: Any, test: Any, counter: str, args: argparse.Namespace) -> dict[str, Any]:
    """One cell."""
    start, worked = time.perf_counter(), time.process_time()
    found = ue.evaluate(
        dataset,
        test,
        args.victim,
        countermeasure=counter,
        epochs=args.epochs,
        seeds=[args.seed],
        peak_images=args.peak_images,
        device=args.device,
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


def fill(record: Record, train: Any, test: Any, args: argparse.Namespace) -> None:
    """Measures what is missing, column by column."""
    for counter in args.countermeasures:
        for name in args.only:
            cell = key(name, counter, args.seed)
            # What is about unprotected images says nothing where none is protected.
            idle = name == "clean" and needs_clean(countermeasure(counter))
            if cell in record.cells or idle:
                continue
            dataset = train
            if name != "clean":
                dataset = ue.ProtectedDataset(train, perturbation_of(name, train, args))
            found = measure(dataset, test, counter, args)
            # Starts that share the file write one after the other.
            args.out.parent.mkdir(parents=True, exist_ok=True)
            with locked(args.work, wait=True):
                record.put(cell, found)
            shown = f"{100 * found['peak']:.1f} % peak, {100 * found['last']:.1f} % last"
            print(f"{cell}: {shown}, {found['seconds']:.0f} s", flush=True)


# --- the page ------------------------------------------------------------------------------------


def heading(result: dict[str, Any]) -> str:
    settings, machine = result["settings"], result["machine"]
    return f"{settings['victim']}, {settings['images']:,} images, on {machine['device']}"


def table(result: dict[str, Any], which: str) -> list[str]:
    """Peak or last by method and countermeasure; the worst case of each row is bold."""
    cells = result["cells"]
    parsed = [tuple(name.rsplit(", ", 2)) for name in cells]
    counters = [c for c in COUNTERMEASURES if any(c == found for _, found, _ in parsed)]
    others = sorted({found for _, found, _ in parsed} - set(counters))
    counters += others
    chosen = {c for c in counters if not needs_clean(countermeasure(c))}
    lines = [f"| trained on | {' | '.join(counters)} |", "|---" * (len(counters) + 1) + "|"]
    for method in METHODS:
        reached: dict[str, list[float]] = {}
        for name, (of, counter, _) in zip(cells, parsed, strict=True):
            if of == method:
                reached.setdefault(counter, []).append(100 * cells[name][which])
        if not reached:
            continue
        means = {counter: sum(values) / len(values) for counter, values in reached.items()}
        worst = max((c for c in means if c in chosen), key=lambda c: means[c], default=None)
        shown = [f"{means[c]:.1f}" if c in means else "" for c in counters]
        if method != "clean" and worst is not None:
            place = counters.index(worst)
            shown[place] = f"**{shown[place]}**"
        lines.append(f"| {method} | {' | '.join(shown)} |")
    return lines


def caption(result: dict[str, Any]) -> str:
    settings, machine = result["settings"], result["machine"]
    seeds = sorted({name.rsplit(", ", 1)[1] for name in result["cells"]})
    peak = settings["peak_images"]
    return (
        f"{settings['images']:,} training images of CIFAR-10, victim {settings['victim']}, "
        f"epochs: {settings['epochs']}, {' and '.join(seeds)}; methods with preset "
        f"{settings['preset']}, surrogate {settings['surrogate']}"
        + (f", {settings['train_steps']} surrogate steps" if settings["train_steps"] else "")
        + (f"; peak on {peak:,} test images that are spread over the set" if peak else "")
        + f". {result['date']}, {machine['device']}, {machine['threads']} thread, torch "
        f"{machine['torch']}."
    )


def published_table() -> list[str]:
    """What others published: several figures of a cell stand beside one another."""
    content = json.loads(PUBLISHED.read_text(encoding="utf-8"))
    marks = {source: number for number, source in enumerate(content["sources"], 1)}
    figures: dict[tuple[str, str], list[str]] = {}
    for entry in content["figures"]:
        shown = f"{entry['accuracy']:.1f} [{marks[entry['source']]}]"
        figures.setdefault((entry["method"], entry["countermeasure"]), []).append(shown)
    found = dict.fromkeys(counter for _, counter in figures)
    counters = [c for c in COUNTERMEASURES if c in found]
    counters += [c for c in found if c not in counters]
    methods = dict.fromkeys([*METHODS, *(method for method, _ in figures)])
    lines = [f"| trained on | {' | '.join(counters)} |", "|---" * (len(counters) + 1) + "|"]
    for method in methods:
        row = ["; ".join(figures.get((method, counter), [])) for counter in counters]
        if any(row):
            lines.append(f"| {method} | {' | '.join(row)} |")
    sources = [
        f"{marks[source]}. {entry['title']}, {entry['where']}"
        for source, entry in content["sources"].items()
    ]
    return [content["about"], "", *lines, "", "Sources:", "", *sources]


def page(results: list[dict[str, Any]]) -> str:
    """docs/leaderboard.md, from committed files alone."""
    lines = [
        "# Leaderboard",
        "",
        "What networks reach on clean CIFAR-10 test images, in percent, after training on",
        "protected images with a countermeasure. Low figures mean a strong protection; in the row",
        "*clean* nothing is protected. The largest figure of each row is bold: the worst case. The",
        "columns *unprotected* and *clean-part-only* are about clean images that a trainer has",
        "besides, and do not count for it. `benchmarks/leaderboard.py` measures the figures and",
        "writes this page.",
        "",
    ]
    for result in results:
        lines += [f"## Measured: {heading(result)}", ""]
        lines += ["Best epoch (peak):", "", *table(result, "peak"), ""]
        lines += ["Last epoch:", "", *table(result, "last"), "", caption(result), ""]
    lines += ["## Published", ""]
    lines += published_table()
    lines += [
        "",
        "Published and measured figures are not directly comparable: networks, numbers of images,",
        "budgets and schedules differ, and the same method's published figures differ too.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("root", nargs="?", help="folder with cifar-10-batches-py")
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--preset", default="demo", choices=["paper", "fast", "demo"])
    parser.add_argument("--surrogate", default="tiny")
    parser.add_argument("--train-steps", type=int, help="surrogate steps of methods that have them")
    parser.add_argument("--victim", default="tiny")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0, help="of the victims")
    parser.add_argument("--peak-images", type=int, help="test images for the peak (all)")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--budget", type=float, help="seconds after which a fit stops")
    parser.add_argument("--only", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--countermeasures", nargs="+", default=list(COUNTERMEASURES))
    parser.add_argument("--work", type=Path, default=HERE / "work")
    parser.add_argument("--out", type=Path, default=RESULTS / "leaderboard-cpu.json")
    parser.add_argument("--page", action="store_true", help=f"write docs/{PAGE.name} and end")
    args = parser.parse_args()
    args.started = time.monotonic()
    if args.page:
        found = [
            json.loads(path.read_text()) for path in sorted(RESULTS.glob("leaderboard-*.json"))
        ]
        PAGE.write_text(page(found), encoding="utf-8")
        return
    if args.root is None:
        parser.error("ROOT is needed, but for --page")
    for counter in args.countermeasures:
        countermeasure(counter)
    names = (
        "images", "preset", "surrogate", "train_steps", "victim", "epochs", "peak_images"
    )  # fmt: skip
    args.work.mkdir(parents=True, exist_ok=True)
    record = Record(args.out, {name: getattr(args, name) for name in names}, args.device)
    train: Any = AnyCIFAR10(args.root)
    train = Subset(train, range(args.images)) if args.images < len(train) else train
    fill(record, train, AnyCIFAR10(args.root, train=False), args)


if __name__ == "__main__":
    main()
