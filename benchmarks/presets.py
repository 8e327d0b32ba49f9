"""What the paper's schedule gains: victim accuracy against the image passes of the fit.

    python benchmarks/presets.py ROOT

On a CPU: SEM on 2,000 CIFAR-10 images with the tiny surrogate, comparing the paper's recipe at 300
steps with cheaper ones. AUE and MIUE, whose short presets are much weaker than what was published,
between the preset and the paper's recipe:

    python benchmarks/presets.py ROOT --method AUE --images 5000 --epochs 15
    python benchmarks/presets.py ROOT --method MIUE --images 5000 --epochs 15

REM, whose short preset has an adversary of one step, under adversarial training:

    python benchmarks/presets.py ROOT --method REM --images 5000 --epochs 15 \
        --countermeasure adversarial-training-4-steps-3

On a GPU: SEM on the whole set, ResNet-18 and the presets as they are:

    python benchmarks/presets.py ROOT --device cuda --images 50000 --surrogate resnet18 \
        --victim resnet18 --epochs 60 --out benchmarks/results/presets-gpu.json

ROOT is a folder with ``cifar-10-batches-py``. Fits checkpoint into --work, so that the same command
continues an interrupted one. --budget ends a start after that many seconds, at a checkpoint.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from cifar import AnyCIFAR10, first
from cifar10 import fit_through, mean_and_spread
from record import DOCS, RESULTS, Record, fill, where

import unlearnable as ue

PAGE = DOCS / "explanation" / "engine.md"
PAGES = {"SEM": PAGE} | {
    name: DOCS / "reference" / "methods" / f"{name}.md" for name in ("AUE", "MIUE", "REM")
}
PAPER = {"train_steps": 300, "robust_epsilon": 2 / 255, "robust_step_size": 0.4 / 255}
CHEAP = {**PAPER, "warm_start": True, "final_steps": 5}
ONE_STEP = {"robust_steps": 1, "robust_step_size": 2 / 255}

# Row -> what differs from the paper's defaults. The radius of the adversary is the tiny network's.
SEM: dict[str, dict[str, Any]] = {
    "paper": PAPER,
    "fast": {**CHEAP, **ONE_STEP, "steps": 2, "step_size": 4 / 255, "eot_samples": 1},
    "2 samples": {**CHEAP, **ONE_STEP, "steps": 2, "step_size": 4 / 255, "eot_samples": 2},
    "1 step": {**CHEAP, **ONE_STEP, "steps": 1, "step_size": 4 / 255, "eot_samples": 1},
    "3 steps": {**CHEAP, **ONE_STEP, "steps": 3, "step_size": 3.2 / 255, "eot_samples": 1},
    "no warm start": {
        **PAPER, **ONE_STEP, "steps": 3, "step_size": 3.2 / 255, "eot_samples": 1,
        "final_steps": 10,
    },
    "half the steps": {
        **CHEAP, **ONE_STEP, "train_steps": 150, "steps": 2, "step_size": 4 / 255, "eot_samples": 1,
    },
    "twice the steps": {
        **CHEAP, **ONE_STEP, "train_steps": 600, "steps": 2, "step_size": 4 / 255, "eot_samples": 1,
    },
}  # fmt: skip


def between(method: type[ue.Method]) -> dict[str, dict[str, Any]]:
    """The short preset, either half of what it shortens as the paper has it, and the paper's."""
    short = {k: v for k, v in method.presets["fast"].items() if k != "surrogate"}
    epochs = {"train_epochs": short["train_epochs"]}
    return {
        "fast": short,
        "as many epochs as the paper": {k: v for k, v in short.items() if k not in epochs},
        "as many steps as the paper": epochs,
        "paper": {},
    }


def adversaries() -> dict[str, dict[str, Any]]:
    """REM's short preset, whose adversary takes one step, and one nearer to the paper's ten."""
    short = {k: v for k, v in ue.REM.presets["fast"].items() if k != "surrogate"}
    nearer = {"robust_steps": 3, "robust_step_size": 2 / 255}
    return {"fast": short, "adversary of three steps": short | nearer}


ON_CPU = {
    "SEM": SEM, "AUE": between(ue.AUE), "MIUE": between(ue.MIUE), "REM": adversaries()
}  # fmt: skip


def table(result: dict[str, Any]) -> str:
    """Victim accuracy against image passes, from the committed JSON."""
    settings = result["settings"]
    done = {name: cell for name, cell in result["cells"].items() if "victims" in cell}
    cells = sorted(done.items(), key=lambda item: -item[1].get("fit", {}).get("passes", 1 << 60))
    lines = [
        f"| {settings['method']} | image passes | test accuracy, last | peak |",
        "|---|---|---|---|",
    ]
    for name, cell in cells:
        passes = f"{cell['fit']['passes']:,}" if "fit" in cell else ""
        victims = [
            dict(zip(("last", "peak"), values, strict=True))
            for values in zip(cell["victims"]["last"], cell["victims"]["peak"], strict=True)
        ]
        last, peak = (mean_and_spread(victims, which) for which in ("last", "peak"))
        title = "clean images" if name == "clean" else name
        lines.append(f"| {title} | {passes} | {last} | {peak} |")
    counter = settings.get("countermeasure")
    against = f"countermeasure `{counter}`, " if counter else ""
    caption = (
        f"{settings['images']:,} CIFAR-10 images, surrogate and victim {settings['victim']}, "
        f"{against}{settings['epochs']} epochs, one fit and {settings['seeds']} victims each, in "
        f"percent: mean and spread. {result['date']}, {where(result)}."
    )
    return "\n".join([*lines, "", caption])


def result_of(method: str) -> str:
    """The file with what a CPU gave."""
    return "presets-cpu.json" if method == "SEM" else f"presets-{method.lower()}-cpu.json"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("root", nargs="?", help="folder with cifar-10-batches-py")
    parser.add_argument("--method", default="SEM", choices=list(ON_CPU))
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--surrogate", default="tiny")
    parser.add_argument("--victim", default="tiny")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--countermeasure", default="none", help="of the victims")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--budget", type=float, help="seconds after which to stop")
    parser.add_argument("--only", nargs="+")
    parser.add_argument("--work", type=Path, default=Path(__file__).parent / "work")
    parser.add_argument("--out", type=Path, help="results/presets-cpu.json, or of another method")
    parser.add_argument("--table", action="store_true", help="make the table of --out and end")
    args = parser.parse_args()
    own = RESULTS / result_of(args.method)
    args.out = args.out or own
    if args.table:
        made = table(json.loads(args.out.read_text()))
        print(made)
        if args.out == own:
            fill(PAGES[args.method], "presets.py", made)
        return
    args.started = time.monotonic()
    chosen = ("method", "images", "surrogate", "victim", "epochs", "seeds")
    known = {name: getattr(args, name) for name in chosen}
    known |= {} if args.countermeasure == "none" else {"countermeasure": args.countermeasure}
    record = Record(args.out, known, args.device)
    train: Any = first(AnyCIFAR10(args.root), args.images)
    test = AnyCIFAR10(args.root, train=False)
    cls = getattr(ue, args.method)
    settings = ON_CPU[args.method]
    if args.surrogate != "tiny":
        settings = {"paper": {}, "fast": cls.presets["fast"]}
    names = ["clean", *settings]
    if unknown := set(args.only or ()) - set(names):
        parser.error(f"expected --only from {', '.join(names)}, got {', '.join(sorted(unknown))}")
    for name in args.only or names:
        cell: dict[str, Any] = record.cells.get(name, {})
        if "victims" in cell:
            continue
        folder = args.work / args.out.stem / name.replace(" ", "-")
        dataset = train
        if name != "clean":
            method = cls(**{"surrogate": args.surrogate} | settings[name])
            if "fit" not in cell or not folder.is_dir():  # another --work has what was fitted
                taken = fit_through(
                    method, train, folder.with_name(f"{folder.name}-checkpoint"), args
                )
                method.save_pretrained(folder, force=True)
                passes = method.perturbation_.config["history"]["passes"]
                cell["fit"] = {
                    "method": repr(method), "passes": passes, **taken
                }  # fmt: skip
                record.put(name, cell)
            dataset = ue.ProtectedDataset(train, ue.Perturbation.from_pretrained(folder))
        evaluation = ue.evaluate(
            dataset,
            test,
            args.victim,
            countermeasure=args.countermeasure,
            epochs=args.epochs,
            seeds=args.seeds,
            device=args.device,
        )
        cell["victims"] = evaluation.to_dict()
        cell["last"] = round(evaluation.mean("last"), 4)
        cell["peak"] = round(evaluation.mean("peak"), 4)
        record.put(name, cell)
        print(f"{name}: {cell.get('fit', {}).get('passes', 0):,} passes, {evaluation}")


if __name__ == "__main__":
    main()
