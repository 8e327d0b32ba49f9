"""How visible perturbations of photos are under each visibility mask, and what the masks cost.

    python benchmarks/visibility.py PHOTOS

PHOTOS is a folder of photos, with or without class folders. Each photo gets rows of 8/255, learned
size 224 pixels (or less if its shorter side is smaller), enlarged as protect would do: uniform
noise, random signs (the strongest row there is), and LSP and Lasting, each at its own strength. For
each visibility, the result gives means over photos: SSIM, PSNR, and the mean change in the
smoothest tenth of the pixels (by the variance in windows of 7x7) and in the rest. Times and memory
are measured on generated photos of 12 and of 100 megapixels, each in its own process. --table
writes the table of docs/how-to/photos.md from the result.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from record import DOCS, RESULTS, Record, fill, where

import unlearnable as ue
from unlearnable.data.image import Pixels, pixels_of
from unlearnable.data.photo import load_photo
from unlearnable.perturbation.visibility import VISIBILITIES
from unlearnable.protected.metrics import compare

PAGE = DOCS / "how-to" / "photos.md"
LEARNED = 224
LEVELS = 8  # of 255
ROWS = ("uniform noise", "random signs", "LSP", "Lasting")
LARGE = {"12 megapixels": (3000, 4000), "100 megapixels": (8660, 11547)}
WINDOW = 7


def perturbation(row: str, side: int) -> Any:
    """A class-wise perturbation of one class."""
    draws = np.random.default_rng(0)
    if row in ("LSP", "Lasting"):
        images = [Image.fromarray(draws.integers(0, 256, (side, side, 3), np.uint8))] * 2
        return getattr(ue, row)().fit((images, [0, 1]), progress=False).perturbation_
    shape = (1, 3, side, side)
    if row == "uniform noise":
        rows = draws.integers(-LEVELS, LEVELS + 1, shape)
    else:
        rows = LEVELS * (2 * draws.integers(0, 2, shape) - 1)
    config = {
        "method": row,
        "kind": "additive",
        "granularity": "class-wise",
        "epsilon": LEVELS / 255,
        "norm": "Linf",
        "image_shape": [3, side, side],
        "classes": None,
        "num_classes": 1,
        "source": {"name": "benchmark", "images": 1},
        "preprocessing": {"fit": [side, side]},
    }
    return ue.Perturbation(rows.astype(np.int8), config)


def smoothest(pixels: Pixels) -> Any:
    """The tenth of the pixels around which the luminance varies least, bool (H, W)."""
    grey = np.pad(pixels.mean(0), WINDOW // 2, "edge")

    def means(values: Any) -> Any:
        sums = np.pad(values, ((1, 0), (1, 0))).cumsum(0).cumsum(1)
        whole = sums[WINDOW:, WINDOW:] - sums[:-WINDOW, WINDOW:]
        return (whole - sums[WINDOW:, :-WINDOW] + sums[:-WINDOW, :-WINDOW]) / WINDOW**2

    variance = means(grey**2) - means(grey) ** 2
    return variance <= np.quantile(variance, 0.1)


def photos(folder: Path) -> Iterator[Pixels]:
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp"):
            yield pixels_of(load_photo(path))


def look(folder: Path, row: str) -> dict[str, Any]:
    """Figures of each visibility, means over photos."""
    found: dict[str, list[list[float]]] = {name: [] for name in VISIBILITIES}
    for pixels in photos(folder):
        smooth = smoothest(pixels)
        base = perturbation(row, min(LEARNED, *pixels.shape[1:]))
        applied = base.find(pixels, 0)
        for name, figures in found.items():
            after = base.with_visibility(name).apply(pixels, applied, full_size=True)
            seen = compare(pixels, after)
            change = np.abs(after.astype(np.int16) - pixels)
            calm, rest = change[:, smooth].mean(), change[:, ~smooth].mean()
            figures.append([seen.ssim, seen.psnr, calm, rest])
    names = ("ssim", "psnr", "smooth tenth", "rest")
    return {
        name: dict(zip(names, np.mean(figures, axis=0).round(4).tolist(), strict=True))
        | {"least ssim": round(min(ssim for ssim, *_ in figures), 4), "photos": len(figures)}
        for name, figures in found.items()
    }


def large(size: str, name: str) -> dict[str, float]:
    """Seconds of one generated photo, and the memory beside it, that of its copy too."""
    height, width = LARGE[size]
    draws = np.random.default_rng(0)
    coarse = draws.integers(0, 256, (3, height // 8 + 1, width // 8 + 1), np.uint8)
    pixels = np.empty((3, height, width), np.uint8)
    for channel, plane in zip(pixels, coarse, strict=True):
        resized = Image.fromarray(plane).resize((width, height), Image.Resampling.BICUBIC)
        channel[:] = np.asarray(resized)
    del resized
    applied = perturbation("random signs", LEARNED).with_visibility(name)
    # What is resident now: the peak so far is that of drawing the photo.
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    start, busy = time.perf_counter(), time.process_time()
    applied.apply(pixels, 0, full_size=True)
    seconds, busy = time.perf_counter() - start, time.process_time() - busy
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "seconds": round(seconds, 2),
        "processor seconds": round(busy, 2),
        "megabytes": round((peak * 1024 - resident) / 1e6),
        "megabytes of the photo": round(pixels.nbytes / 1e6),
    }


def table(result: dict[str, Any]) -> str:
    """What each visibility does to photos, for the page."""
    cells = result["cells"]
    head = ["visibility", "SSIM", "PSNR", "change of the smoothest tenth", "of the rest"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for name in VISIBILITIES:
        shown = [cells[row][name] for row in ROWS]
        columns = [" / ".join(f"{cell['ssim']:.3f}" for cell in shown)]
        columns.append(" / ".join(f"{cell['psnr']:.1f}" for cell in shown) + " dB")
        for which in ("smooth tenth", "rest"):
            columns.append(" / ".join(f"{cell[which]:.1f}" for cell in shown))
        lines.append(f"| {name} | {' | '.join(columns)} |")
    costs = [
        f"{size} take {cells[f'{size}, low']['processor seconds']:.1f} s of one core and "
        f"{cells[f'{size}, low']['megabytes']} MB beside the photo (full: "
        f"{cells[f'{size}, full']['processor seconds']:.1f} s)"
        for size in LARGE
    ]
    note = (
        f"Means over {cells[ROWS[0]]['low']['photos']} photos, for rows of {' / '.join(ROWS)} at "
        f"{LEARNED} pixels and {LEVELS}/255 (LSP and Lasting: of their own strength), enlarged; "
        f"changes in levels of 255. At low, {'; '.join(costs)}; the copy is part of that memory. "
        f"{result['date']}, {where(result)}."
    )
    return "\n".join([*lines, "", note])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photos", type=Path, nargs="?", help="folder of photos")
    parser.add_argument("--out", type=Path, default=RESULTS / "visibility-cpu.json")
    parser.add_argument("--large", nargs=2, metavar=("SIZE", "VISIBILITY"), help=argparse.SUPPRESS)
    parser.add_argument("--table", action="store_true", help=f"write the table of {PAGE.name}")
    args = parser.parse_args()
    if args.large:
        print(json.dumps(large(*args.large)))
        return
    if args.table:
        fill(PAGE, "visibility.py", table(json.loads(args.out.read_text())))
        return
    if args.photos is None or not args.photos.is_dir():
        parser.error("expected a folder of photos")
    record = Record(args.out, {"learned": LEARNED, "levels": LEVELS}, "cpu")
    for size in LARGE:
        for name in VISIBILITIES:
            cell = f"{size}, {name}"
            if cell not in record.cells:
                command = [sys.executable, __file__, "--large", size, name]
                found = subprocess.run(command, check=True, capture_output=True, text=True)
                record.put(cell, json.loads(found.stdout))
                print(cell, record.cells[cell])
    for row in ROWS:
        if row not in record.cells:
            record.put(row, look(args.photos, row))
            print(row, record.cells[row])


if __name__ == "__main__":
    main()
