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
    """An RGB picture with one column per image: clean, its change on grey, protected.

    The rows are labelled. Pixels are uint8 (1 or 3, H, W); changes are multiplied by ``amplify``.
    """
    columns = [[_tile(pixels) for pixels in triple(*pair, amplify=amplify)] for pair in pairs]
    names = ("clean", f"change x{amplify}", "protected")
    font = ImageFont.load_default(_TEXT)
    margin = round(max(font.getlength(name) for name in names)) + _GAP
    width = margin + sum(column[0].width + _GAP for column in columns) + _GAP
    height = 3 * (max(column[0].height for column in columns) + _GAP) + _GAP
    picture = Image.new("RGB", (width, height), "white")
    write = ImageDraw.Draw(picture)
    step = (height - _GAP) // 3
    for row, name in enumerate(names):
        write.text((_GAP, _GAP + row * step + step // 2), name, "black", font, anchor="lm")
    left = margin + _GAP
    for column in columns:
        for row, tile in enumerate(column):
            picture.paste(tile, (left, _GAP + row * (tile.height + _GAP)))
        left += column[0].width + _GAP
    return picture


def triple(clean: Pixels, protected: Pixels, *, amplify: int = 8) -> tuple[Pixels, Pixels, Pixels]:
    """One image clean, its amplified change on grey, and the image protected.

    Takes uint8 pixels (1 or 3, H, W) and returns three arrays of uint8 RGB pixels (3, H, W).
    """
    shape = (3, *clean.shape[1:])
    clean, protected = np.broadcast_to(clean, shape), np.broadcast_to(protected, shape)
    change = protected.astype(np.int16) - clean
    return clean, np.clip(128 + amplify * change, 0, 255).astype(np.uint8), protected


def _tile(pixels: Pixels) -> Image.Image:
    image = to_pil(pixels)
    scale = max(1, -(-_TILE // max(image.size)))
    return image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST)
