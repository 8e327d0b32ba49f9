"""Pictures of what each method does to generated images, for the pages about methods.

    python benchmarks/methods_pictures.py
    python benchmarks/methods_pictures.py --only SEM OPS

Each method is fitted with its preset "demo" on 300 Shapes, some of them in fewer rounds. For each,
docs/reference/methods/images gets two WebP files: NAME.webp with three images, two of one class and
one of another, and NAME-small.webp with one. results/pictures-cpu.json records what made each
picture, so that a test can tell when one is stale; others are not made again.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from record import DOCS, RESULTS, Record

import unlearnable as ue
from unlearnable.datasets import Shapes

FOLDER = DOCS / "reference" / "methods" / "images"
NOTES = RESULTS / "pictures-cpu.json"
SIZE = 300
# A picture shows what a perturbation looks like, not how strong it is.
SHORTER: dict[str, dict[str, Any]] = {
    "EM": {"max_rounds": 6},
    "DUNE": {"iterations": 2},
}
SHOWN = (6, 3, 5)  # two arrows and a ring: two images of one class and one of another
ZOOM, GAP = 3, 6
MOST_GAIN = 16
Pixels = NDArray[np.uint8]


def method_of(cls: type[ue.Method]) -> ue.Method:
    """What a picture is of."""
    return cls.preset("demo", **SHORTER.get(cls.__name__, {}))


def gain_of(change: NDArray[np.int64]) -> int:
    """By how much a change is amplified: its larger values then reach about half of the range."""
    large = np.quantile(np.abs(change), 0.99)
    return int(min(MOST_GAIN, max(1, 112 // max(large, 1)))) if large else 1


def sheet(rows: list[list[Pixels]], zoom: int) -> Image.Image:
    """Images (H, W, 3) side by side and above each other, enlarged, on a transparent ground."""
    side = rows[0][0].shape[0] * zoom
    width, height = (len(x) * (side + GAP) - GAP for x in (rows[0], rows))
    page = Image.new("RGBA", (width, height), (0, 0, 0, 0))
    for down, row in enumerate(rows):
        for along, pixels in enumerate(row):
            tile = Image.fromarray(pixels).resize((side, side), Image.Resampling.NEAREST)
            page.paste(tile, (along * (side + GAP), down * (side + GAP)))
    return page


def save(page: Image.Image, path: Path) -> None:
    page.save(path, lossless=True, quality=100, method=6)


def draw(cls: type[ue.Method], train: Any) -> dict[str, Any]:
    """Fits a method, writes its pictures, and returns what made them."""
    method, start = method_of(cls), time.process_time()
    method.fit(train, device="cpu", progress=False)
    images, _ = method.protect(train).to_tensors()
    protected = images[list(SHOWN)].permute(0, 2, 3, 1).numpy()
    clean = np.stack([np.asarray(train[index][0]) for index in SHOWN])
    change = protected.astype(np.int64) - clean
    gain = gain_of(change)
    shown = (128 + gain * change).clip(0, 255).astype(np.uint8)
    FOLDER.mkdir(parents=True, exist_ok=True)
    save(sheet([list(clean), list(shown), list(protected)], ZOOM), FOLDER / f"{cls.__name__}.webp")
    small = sheet([[shown[0], protected[0]]], ZOOM)
    save(small, FOLDER / f"{cls.__name__}-small.webp")
    return {
        "method": repr(method),
        "gain": gain,
        "largest": int(np.abs(change).max()),
        "cpu_seconds": round(time.process_time() - start, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [cls.__name__ for cls in ue.METHODS]
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    args = parser.parse_args()
    record = Record(NOTES, {"images": SIZE, "shown": list(SHOWN), "zoom": ZOOM}, "cpu")
    train = Shapes(size=SIZE)
    for cls in ue.METHODS:
        name = cls.__name__
        made = record.cells.get(name, {}).get("method") == repr(method_of(cls))
        if name in args.only and not (made and (FOLDER / f"{name}.webp").exists()):
            record.put(name, draw(cls, train))
            print(f"{name}: {record.cells[name]}", flush=True)


if __name__ == "__main__":
    main()
