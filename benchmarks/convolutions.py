"""What a fit on a GPU gains when cuDNN chooses its convolutions by trying them.

    python benchmarks/convolutions.py --device cuda
    python benchmarks/convolutions.py --table

Each case is a short fit of SEM (preset fast) in bf16. It is run in turns with cuDNN's usual choice
and with the fastest kernels, as fits do. The first fit of either kind, which also loads the kernels
and tries them, is given by its seconds, the others by the median of their image passes a second.
Only NVIDIA GPUs have this choice.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from engine import fit
from record import DOCS, RESULTS, Record, fill, where

import unlearnable as ue
from unlearnable.datasets import Shapes
from unlearnable.engine import networks
from unlearnable.engine.device import pick_device
from unlearnable.engine.kernels import fastest_convolutions

PAGE = DOCS / "explanation" / "engine.md"
# network, side of the images, images of a step, steps
CASES = (
    ("resnet9", 32, 128, 100),
    ("resnet18", 32, 128, 60),
    ("torchvision:resnet18", 224, 64, 30),
)
KINDS = ("usual", "fastest")


@contextlib.contextmanager
def _usual(device: torch.device) -> Iterator[None]:
    yield


def measure(case: tuple[str, int, int, int], repeats: int, device: torch.device) -> dict[str, Any]:
    """Passes a second of each kind, in turns."""
    network, side, batch, steps = case
    images = Shapes(size=2 * batch, side=side)
    found: dict[str, list[tuple[float, int]]] = {kind: [] for kind in KINDS}
    for _ in range(repeats + 1):
        for kind, seconds in found.items():
            networks.fastest_convolutions = _usual if kind == "usual" else fastest_convolutions
            method = ue.SEM.preset(
                "fast",
                surrogate=network,
                train_steps=steps,
                final_steps=0,
                search_images=None,
                batch_size=batch,
            )
            seconds.append(fit(method, images, device, "bf16", compile=False))
    networks.fastest_convolutions = fastest_convolutions
    rates = {kind: [passes / s for s, passes in runs[1:]] for kind, runs in found.items()}
    gained = [b / a for a, b in zip(rates["usual"], rates["fastest"], strict=True)]
    return {
        "passes_per_second": {k: round(statistics.median(r), 1) for k, r in rates.items()},
        "times_as_fast": [round(times, 3) for times in gained],
        "seconds_of_the_first": {kind: round(runs[0][0], 2) for kind, runs in found.items()},
    }


def table(result: dict[str, Any]) -> str:
    """A row for each network, from the committed JSON."""
    lines = [
        "| network | images | passes a second, usual choice | fastest kernels | times as fast |",
        "|---|---|---|---|---|",
    ]
    for network, side, batch, _ in CASES:
        cell = result["cells"].get(f"{network}, {side}")
        if cell is None:
            continue
        usual, fastest = (f"{cell['passes_per_second'][kind]:,.0f}" for kind in KINDS)
        gain = f"{statistics.median(cell['times_as_fast']):.2f}"
        lines.append(f"| {network} | {batch} of {side} pixels | {usual} | {fastest} | {gain} |")
    repeats = result["settings"]["repeats"]
    note = (
        f"SEM, preset fast, bf16, median of {repeats} short fits of each kind in turns. "
        f"{result['date']}, {where(result)}."
    )
    return "\n".join([*lines, "", note])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS / "convolutions-gpu.json")
    parser.add_argument("--table", action="store_true", help=f"write the table of {PAGE.name}")
    args = parser.parse_args()
    if args.table:
        made = table(json.loads(args.out.read_text()))
        print(made)
        fill(PAGE, "convolutions.py", made)
        return
    device = pick_device(args.device)
    record = Record(args.out, {"repeats": args.repeats}, args.device)
    for case in CASES:
        name = f"{case[0]}, {case[1]}"
        if name not in record.cells:
            record.put(name, measure(case, args.repeats, device))
            print(f"{name}: {record.cells[name]}", flush=True)


if __name__ == "__main__":
    main()
