"""Pictures of what a perturbation does: clean, amplified perturbation, protected."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .batches import Pixels, to_pil
from .data import RawDataset, pixels_of

if TYPE_CHECKING:
    from .protected import ProtectedDataset

_GAP = 4
_TEXT = 12  # size of the rows' names
_TILE = 96  # pixels of a shown image's longer side, at least


def comparison(
    dataset: ProtectedDataset, indices: Sequence[int] = range(8), *, amplify: int = 8
) -> Image.Image:
    """A picture with a column per image: clean, the change amplified around grey, protected.

    The rows say what they show.

    Args:
        dataset: The protected dataset.
        indices: Images to show.
        amplify: Factor that changes are multiplied by.

    Returns:
        An RGB image.
    """
    columns = [
        [_tile(pixels) for pixels in triple(dataset, index, amplify=amplify)] for index in indices
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


def triple(
    dataset: ProtectedDataset, index: int, *, amplify: int = 8
) -> tuple[Pixels, Pixels, Pixels]:
    """One image clean, its change amplified around grey, and the image protected.

    Returns:
        Three times uint8 RGB pixels, (3, H, W).
    """
    bare = dataset.without_transforms()
    protected = _rgb(RawDataset(bare)[index].pixels)
    clean = _rgb(pixels_of(bare.clean(index)[0]))
    change = protected.astype(np.int16) - clean
    return clean, np.clip(128 + amplify * change, 0, 255).astype(np.uint8), protected


def _rgb(pixels: Pixels) -> Pixels:
    return np.broadcast_to(pixels, (3, *pixels.shape[1:]))


def _tile(pixels: Pixels) -> Image.Image:
    image = to_pil(pixels)
    scale = max(1, -(-_TILE // max(image.size)))
    return image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST)


def html_image(picture: Image.Image, text: str) -> str:
    """An ``<img>`` element that carries its picture."""
    return f'<img alt="{html.escape(text)}" src="data:image/png;base64,{png_base64(picture)}">'


def png_base64(picture: Image.Image) -> str:
    """A picture as the text of a PNG file."""
    file = io.BytesIO()
    picture.save(file, "png", optimize=True)
    return base64.b64encode(file.getvalue()).decode()


def html_strip(dataset: ProtectedDataset) -> str:
    """The comparison of a dataset's first images, for notebooks."""
    picture = comparison(dataset, range(min(8, len(dataset))))
    return html_image(picture, "clean images, amplified perturbation, protected images")
