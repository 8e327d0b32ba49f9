"""Pictures as PNG: for files, and as text for web pages."""

from __future__ import annotations

import base64
import html
import io

from PIL import Image


def html_image(picture: Image.Image, text: str) -> str:
    """An ``<img>`` element with its picture embedded."""
    return f'<img alt="{html.escape(text)}" src="data:image/png;base64,{png_base64(picture)}">'


def png_base64(picture: Image.Image) -> str:
    """A picture as a base64-encoded PNG file."""
    return base64.b64encode(png_file(picture)).decode()


def png_file(picture: Image.Image) -> bytes:
    """The bytes of a picture's PNG file, compressed as well as Pillow can."""
    file = io.BytesIO()
    picture.save(file, "png", optimize=True)
    return file.getvalue()
