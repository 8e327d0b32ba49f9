"""The pictures of the front page and the README: a photo before and after ``unlearnable protect``.

    pip install scikit-image scikit-learn
    python benchmarks/before_after.py

Photo: chelsea by Stefan van der Walt, CC0, which comes with scikit-image. It is protected together
with the photos of contact_sheet.py, by the command line with its defaults. before.webp and
after.webp show the same pixels of the original and of its copy. change.webp shows their difference,
amplified around grey. Nothing is enlarged, and the files are lossless. The site's social card, a
PNG, has all three. --copies takes a folder that contact_sheet.py --keep made.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from contact_sheet import protect_all
from PIL import Image, ImageDraw, ImageFont
from record import DOCS

from unlearnable.data.photo import load_photo

PHOTO, CROP = "nature/chelsea", (105, 0, 425, 300)  # 320 x 300 pixels
AMPLIFIED = 8
INK, PAPER, SOFT = "#083d3f", "#f4fbfa", "#3f6b6c"


def crops(photos: Path, copies: Path) -> dict[str, Image.Image]:
    """The photo, its copy and what was changed, by the names of their files."""
    original = next(photos.glob(f"{PHOTO}.*"))
    copy = next(copies.glob(f"{PHOTO}.*"))
    before, after = (load_photo(file).convert("RGB").crop(CROP) for file in (original, copy))
    change = np.asarray(after, np.int16) - np.asarray(before, np.int16)
    shown = np.clip(128 + AMPLIFIED * change, 0, 255).astype(np.uint8)
    return {"before": before, "after": after, "change": Image.fromarray(shown)}


def card(shown: dict[str, Image.Image]) -> Image.Image:
    """What a link to the site looks like where links are shown as cards."""
    page = Image.new("RGB", (1200, 630), PAPER)
    draw = ImageDraw.Draw(page)
    draw.text((84, 58), "unlearnable", INK, ImageFont.load_default(84))
    line = "Make image datasets unlearnable before you publish them"
    draw.text((86, 166), line, SOFT, ImageFont.load_default(34))
    titles = {"before": "photo", "after": "protected copy", "change": f"change, x {AMPLIFIED}"}
    for place, (name, title) in enumerate(titles.items()):
        left = 84 + place * 356
        page.paste(shown[name], (left, 246))
        draw.text((left, 556), title, SOFT, ImageFont.load_default(26))
    return page


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--copies", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        shown = crops(*protect_all(Path(work), args.copies))
    files = {DOCS / "images" / f"{name}.webp": image for name, image in shown.items()}
    for file, image in files.items():
        image.save(file, lossless=True, quality=100, method=6)
    # 256 colours are enough for a card, and a fifth of the size.
    small = card(shown).quantize(256, dither=Image.Dither.FLOYDSTEINBERG)
    small.save(DOCS / "_static" / "social-card.png", optimize=True)
    for file in (*files, DOCS / "_static" / "social-card.png"):
        print(f"{file}: {file.stat().st_size / 1000:,.0f} kB")


if __name__ == "__main__":
    main()
