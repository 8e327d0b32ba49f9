"""Pictures of what a perturbation does: clean, amplified perturbation, protected."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..data.image import Pixels, to_pil

_GAP = 4
_TEXT = 12  # size of the rows' names
_TILE = 96  # pixels of a shown image's longer side, at least


def comparison(pairs: Iterable[tuple[Pixels, Pixels]], *, amplify: int = 8) -> Image.Image:
    """A picture with a column per image: clean, the change amplified around grey, protected.

    The rows say what they show.

    Args:
        pairs: Clean and protected pixels of each image, uint8 (1 or 3, H, W).
        amplify: Factor that changes are multiplied by.

    Returns:
        An RGB image.
    """
    columns = [
        [_tile(pixels) for pixels in triple(clean, protected, amplify=amplify)]
        for clean, protected in pairs
    ]
    names = ("clean", f"change x{amplify}", "protected")
    margin = round(max(ImageFont.load_default(_TEXT).getlength(name) for name in names)) + _GAP
    width = margin + sum(column[0].width + _GAP for column in columns) + _GAP
    height = 3 * (max(column[0].height for column in columns) + _GAP) + _GAP
    picture = Image.new("RGB", (width, height), "white")
    write = ImageDraw.Draw(picture)
    step = (height - _GAP) // 3
    for row, name in enumerate(names):
        place = (_GAP, _GAP + row * step + step // 2)
        write.text(place, name, "black", ImageFont.load_default(_TEXT), anchor="lm")
    left = margin + _GAP
    for column in columns:
        for row, tile in enumerate(column):
            picture.paste(tile, (left, _GAP + row * (tile.height + _GAP)))
        left += column[0].width + _GAP
    return picture


def triple(clean: Pixels, protected: Pixels, *, amplify: int = 8) -> tuple[Pixels, Pixels, Pixels]:
    """One image clean, its change amplified around grey, and the image protected.

    Args:
        clean: uint8 pixels, (1 or 3, H, W).
        protected: The same.
        amplify: Factor that the change is multiplied by.

    Returns:
        Three times uint8 RGB pixels, (3, H, W).
    """
    clean, protected = _rgb(clean), _rgb(protected)
    change = protected.astype(np.int16) - clean
    return clean, np.clip(128 + amplify * change, 0, 255).astype(np.uint8), protected


def _rgb(pixels: Pixels) -> Pixels:
    return np.broadcast_to(pixels, (3, *pixels.shape[1:]))


def _tile(pixels: Pixels) -> Image.Image:
    image = to_pil(pixels)
    scale = max(1, -(-_TILE // max(image.size)))
    return image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST)
