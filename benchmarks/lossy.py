"""What is left of a perturbation in lossy copies of photos, and how large the files are.

    python benchmarks/lossy.py PHOTOS

PHOTOS is a folder of class folders of photos, mostly JPEG files. Their copies at full size, under
the visibility "low", are exported in each encoding. The result contains what each export measured
on its own files: the share of the change that is left, the PSNR to the protected pixels, and the
size of the files relative to the originals. "halved colour" is the chroma subsampling that is the
default of Pillow and most programs, but not of this package. Rows are class-wise random noise of
8/255, and LSP at its own strength, learned at 224 pixels. --table writes the table of
docs/how-to/photos.md from the result.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from record import DOCS, RESULTS, Record, fill, where

import unlearnable as ue
from unlearnable.data.image_folder import open_folder
from unlearnable.protected.export import encoding

PAGE = DOCS / "how-to" / "photos.md"
METHODS: dict[str, Any] = {
    "RandomNoise": ue.RandomNoise(granularity="class-wise"),
    "LSP": ue.LSP(),
}
ENCODINGS: dict[str, tuple[str, int | str | None, bool]] = {
    "PNG": ("png", None, False),
    "JPEG, quality of the originals": ("jpeg", "original", False),
    "JPEG 95": ("jpeg", 95, False),
    "JPEG 85": ("jpeg", 85, False),
    "JPEG 75": ("jpeg", 75, False),
    "JPEG 95, halved colour": ("jpeg", 95, True),
    "JPEG 85, halved colour": ("jpeg", 85, True),
    "JPEG 75, halved colour": ("jpeg", 75, True),
    "WebP 95": ("webp", 95, False),
    "WebP 85": ("webp", 85, False),
    "WebP 75": ("webp", 75, False),
}
VISIBILITY, LEARNED = "low", 224


def look(protected: Any, photos: Any, name: str) -> dict[str, Any]:
    """Figures of one encoding, over all photos together."""
    format, quality, halved = ENCODINGS[name]
    before = encoding._JPEG["subsampling"]
    encoding._JPEG["subsampling"] = 2 if halved else before
    try:
        with tempfile.TemporaryDirectory() as place:
            folder = protected.export(Path(place) / "out", format, quality=quality, progress=False)
            content = json.loads((folder / "unlearnable.json").read_text())
            files = [path for path in folder.rglob("*") if path.parent != folder]
            written = sum(path.stat().st_size for path in files if path.is_file())
    finally:
        encoding._JPEG["subsampling"] = before
    size = written / sum(Path(path).stat().st_size for path, _ in photos.samples)
    found = content.get("lossy", {"share_left": 1.0, "psnr": None})
    return {name: found[name] for name in ("share_left", "psnr")} | {
        "size": round(size, 3),
        "photos": len(photos),
    }


def table(result: dict[str, Any]) -> str:
    """Each encoding's share and size, for the page."""
    cells = result["cells"]
    head = ["files", "left of the change", "size relative to the originals"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for name in ENCODINGS:
        shown = [cells[f"{method}, {name}"] for method in METHODS]
        left = " / ".join(f"{cell['share_left']:.0%}" for cell in shown)
        size = " / ".join(f"{cell['size']:.2f}" for cell in shown)
        lines.append(f"| {name} | {left} | {size} |")
    photos = cells[f"{next(iter(METHODS))}, PNG"]["photos"]
    note = (
        f"Over {photos} photos, for {' / '.join(METHODS)} at {LEARNED} pixels, enlarged, under the "
        f"visibility {VISIBILITY}. {result['date']}, {where(result)}."
    )
    return "\n".join([*lines, "", note])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photos", type=Path, nargs="?", help="folder of class folders of photos")
    parser.add_argument("--out", type=Path, default=RESULTS / "lossy-cpu.json")
    parser.add_argument("--table", action="store_true", help=f"write the table of {PAGE.name}")
    args = parser.parse_args()
    if args.table:
        fill(PAGE, "lossy.py", table(json.loads(args.out.read_text())))
        return
    if args.photos is None or not args.photos.is_dir():
        parser.error("expected a folder of photos")
    photos = open_folder(args.photos)
    record = Record(args.out, {"learned": LEARNED, "visibility": VISIBILITY}, "cpu")
    for method, made in METHODS.items():
        made.fit(photos, image_size=LEARNED, visibility=VISIBILITY, device="cpu", progress=False)
        protected = made.protect(photos, full_size=True)
        for name in ENCODINGS:
            cell = f"{method}, {name}"
            if cell not in record.cells:
                record.put(cell, look(protected, photos, name))
                print(cell, record.cells[cell], flush=True)


if __name__ == "__main__":
    main()
