"""Whether a protection is as strong on a large set as on a small one, and in bf16 as in float32.

    python benchmarks/strength.py ROOT
    python benchmarks/strength.py ROOT --only "SEM, 50000, auto" "clean, 2000"
    python benchmarks/strength.py --table

Uses the preset "fast", with resnet9 as surrogate and victim. SEM is fitted on 2,000, 10,000 and
50,000 images of CIFAR-10; SEM, EM and TAP on 10,000, once in each precision. Victims are trained in
the precision that they choose themselves, for fewer epochs the more images there are, and tested on
all test images. ROOT is a folder with ``cifar-10-batches-py``. Cells that already exist are not
measured again, and a fit continues from its checkpoint in --work. --budget ends a start after that
many seconds.
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
METHODS: dict[str, type[ue.Method]] = {"SEM": ue.SEM, "EM": ue.EM, "TAP": ue.TAP}
# How victims are trained on so many images.
VICTIMS: dict[int, dict[str, Any]] = {
    2_000: {"recipe": "standard", "epochs": 30, "seeds": 3},
    10_000: {"recipe": "standard", "epochs": 12, "seeds": 3},
    50_000: {"recipe": "fast", "epochs": 12, "seeds": 1},
}
CELLS = [
    "SEM, 50000, auto",
    "SEM, 2000, auto",
    "clean, 2000",
    "SEM, 10000, auto",
    "clean, 10000",
    "SEM, 10000, float32",
    *(f"{name}, 10000, {precision}" for name in ("TAP", "EM") for precision in ("auto", "float32")),
    "clean, 50000",
]


def table(result: dict[str, Any]) -> str:
    """A row for each cell, from the committed JSON."""
    lines = [
        "| | images | fit | image passes | seconds | victims | last | peak |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in CELLS:
        cell = result["cells"].get(name, {})
        if "victims" not in cell:
            continue
        method, images, *_ = name.split(", ")
        found, made = cell["victims"], cell.get("fit")
        victims = [
            {"last": last, "peak": peak}
            for last, peak in zip(found["last"], found["peak"], strict=True)
        ]
        last, peak = (mean_and_spread(victims, which) for which in ("last", "peak"))
        fit = ["", "", ""]
        if made:
            seconds = "" if made.get("continued") else f"{made['seconds']:,.0f}"
            fit = [made["precision"], f"{made['passes']:,}", seconds]
        trained = f"{found['recipe']}, {found['epochs']} epochs"
        row = [method, f"{int(images):,}", *fit, trained, last, peak]
        lines.append(f"| {' | '.join(row)} |")
    caption = (
        "Test accuracy in percent; mean and spread over 3 victims, 1 on the whole set. Seconds are "
        "of fits beside other work; those of interrupted fits are left out. "
        f"{result['date']}, {where(result)}."
    )
    return "\n".join([*lines, "", caption])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("root", nargs="?", help="folder with cifar-10-batches-py")
    parser.add_argument("--network", default="resnet9")
    parser.add_argument("--only", nargs="+", choices=CELLS)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--budget", type=float, help="seconds after which to stop")
    parser.add_argument("--work", type=Path, default=Path(__file__).parent / "work")
    parser.add_argument("--out", type=Path, default=RESULTS / "strength-cpu.json")
    parser.add_argument("--table", action="store_true", help="make the table of --out and end")
    args = parser.parse_args()
    args.started = time.monotonic()
    settings = {"network": args.network, "victims": {str(n): how for n, how in VICTIMS.items()}}
    record = Record(args.out, settings, args.device)
    if args.table:
        made = table(json.loads(args.out.read_text()))
        print(made)
        if args.out == RESULTS / "strength-cpu.json":
            fill(PAGE, "strength.py", made)
        return
    whole: Any = AnyCIFAR10(args.root)
    test: Any = AnyCIFAR10(args.root, train=False)
    for name in args.only or CELLS:
        title, images, *precision = name.split(", ")
        train: Any = first(whole, int(images))
        cell: dict[str, Any] = record.cells.get(name, {})
        if "victims" in cell:
            continue
        folder = args.work / args.out.stem / name.replace(", ", "-")
        dataset = train
        if precision:
            (args.precision,) = precision
            if "fit" not in cell or not folder.is_dir():  # another --work has what was fitted
                method = METHODS[title].preset("fast", surrogate=args.network)
                checkpoint = folder.with_name(f"{folder.name}-checkpoint")
                continued = checkpoint.exists()
                taken = fit_through(method, train, checkpoint, args)
                method.save_pretrained(folder, force=True)
                config = method.perturbation_.config
                cell["fit"] = {
                    "method": repr(method),
                    "precision": config["precision"],
                    "passes": config["history"]["passes"],
                    "continued": continued,
                    **taken,
                }
                record.put(name, cell)
                print(f"{name}: {cell['fit']}", flush=True)
            dataset = ue.ProtectedDataset(train, ue.Perturbation.from_pretrained(folder))
        found = ue.evaluate(dataset, test, args.network, device=args.device, **VICTIMS[int(images)])
        cell["victims"] = found.to_dict()
        record.put(name, cell)
        print(f"{name}: {found}", flush=True)


if __name__ == "__main__":
    main()
