"""Ten photos before and after ``unlearnable protect``, at 1:1, for docs/how-to/photos.md.

    pip install scikit-image scikit-learn
    python benchmarks/contact_sheet.py

The photos come with scikit-image and scikit-learn, and may be shown: they are in the public domain
or CC0, except china.jpg and flower.jpg, which are CC BY 2.0 (danielbuechele and vultilion at
flickr.com). The command line protects them with its defaults. The same pixels of the original and
of its copy are shown above each other; nothing is enlarged or compressed. --copies takes an
existing folder of copies.
"""

from __future__ import annotations

import argparse
import importlib.util
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from record import DOCS

from unlearnable.data.photo import load_photo

SIDE, GAP, LINE = 192, 8, 22
# Class folder, file below a package, left and upper edge of the crop.
PHOTOS = [
    ("people", "skimage/data/astronaut.png", (130, 10)),
    ("nature", "skimage/data/chelsea.png", (120, 50)),
    ("things", "skimage/data/coffee.png", (230, 60)),
    ("things", "skimage/data/rocket.jpg", (250, 80)),
    ("nature", "sklearn/datasets/images/flower.jpg", (200, 60)),
    ("people", "skimage/data/camera.png", (160, 40)),
    ("things", "skimage/data/clock_motion.png", (120, 60)),
    ("nature", "skimage/data/grass.png", (100, 100)),
    ("things", "sklearn/datasets/images/china.jpg", (210, 40)),
    ("nature", "skimage/data/hubble_deep_field.jpg", (380, 330)),
]


def shipped(name: str) -> Path:
    """A file that an installed package brings along."""
    package, _, rest = name.partition("/")
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise SystemExit(
            f"expected {package} to be installed: pip install scikit-image scikit-learn"
        )
    return Path(found.origin).parent / rest


def sheet(photos: Path, copies: Path) -> Image.Image:
    """Crops of each photo and, below it, of its copy."""
    columns = len(PHOTOS) // 2
    width, height = SIDE + GAP, 2 * (SIDE + LINE) + GAP
    page = Image.new("RGB", (columns * width - GAP, 2 * height - GAP), "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(13)
    for number, (folder, name, (x, y)) in enumerate(PHOTOS):
        left, top = number % columns * width, number // columns * height
        copy = next((copies / folder).glob(f"{Path(name).stem}.*"))
        shown = {"before": photos / folder / Path(name).name, "after": copy}
        for place, (title, file) in enumerate(shown.items()):
            upper = top + place * (SIDE + LINE)
            draw.text((left, upper + 3), title, "black", font)
            image = load_photo(file).convert("RGB")  # as a viewer shows it: in sRGB
            page.paste(image.crop((x, y, x + SIDE, y + SIDE)), (left, upper + LINE))
    return page


def protect_all(work: Path, copies: Path | None = None) -> tuple[Path, Path]:
    """Folders with the photos and with their copies, which are made unless there are some."""
    photos = work / "photos"
    for folder, name, _ in PHOTOS:
        (photos / folder).mkdir(parents=True, exist_ok=True)
        shutil.copy(shipped(name), photos / folder)
    if copies is None:
        copies = work / "copies"
        command = [sys.executable, "-m", "unlearnable", "protect", str(photos), str(copies)]
        subprocess.run(command, check=True)
    return photos, copies


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--copies", type=Path, help="of an earlier start with --keep")
    parser.add_argument("--keep", type=Path, help="folder for the copies")
    parser.add_argument("--out", type=Path, default=DOCS / "images" / "contact-sheet.webp")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        photos, copies = protect_all(Path(work), args.copies)
        if args.keep is not None and args.copies is None:
            shutil.copytree(copies, args.keep)
        args.out.parent.mkdir(parents=True, exist_ok=True)
        sheet(photos, copies).save(args.out, lossless=True, quality=100, method=6)
    print(f"{args.out}: {args.out.stat().st_size / 1000:,.0f} kB")


if __name__ == "__main__":
    main()
