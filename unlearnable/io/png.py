"""Pictures as PNG: for files, and as text for web pages."""

from __future__ import annotations

import base64
import html
import io

from PIL import Image


def html_image(picture: Image.Image, text: str) -> str:
    """An ``<img>`` element that carries its picture."""
    return f'<img alt="{html.escape(text)}" src="data:image/png;base64,{png_base64(picture)}">'


def png_base64(picture: Image.Image) -> str:
    """A picture as the text of a PNG file."""
    return base64.b64encode(png_file(picture)).decode()


def png_file(picture: Image.Image) -> bytes:
    """The bytes of a picture's PNG file, as small as Pillow makes it."""
    file = io.BytesIO()
    picture.save(file, "png", optimize=True)
    return file.getvalue()
