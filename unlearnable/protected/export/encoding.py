"""How an image becomes a file: losslessly, or as JPEG or WebP of a quality that was asked for."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from PIL import Image, ImageFile

from ...data.photo import PhotoInfo
from ...data.raw import RawDataset
from ...engine.numbers import integer
from ...io.png import save_png
from ..share_left import HARDLY, ShareLeft

_LOSSY = ("jpeg", "webp")
_ENDINGS = {"jpeg": "jpg"}  # where it is not the format's name
ORIGINAL = "original"  # the quality of each photo's own file
_OTHERS = 95  # the quality of photos that are no JPEGs, where the originals' is asked for
# Colour is never halved, nor where an original's is: that of a perturbation changes from pixel to
# pixel, and would be lost.
_JPEG: dict[str, Any] = {"subsampling": 0, "optimize": True, "progressive": True}
# Pillow's default of 80 takes several times as long for files of about the same size.
_WEBP: dict[str, Any] = {"lossless": True, "exact": True, "quality": 20}
# Method 0 needs less memory, for somewhat larger files.
_LARGE, _LARGE_WEBP = 8_000_000, _WEBP | {"method": 0}  # pixels, and options of more than these
_SIDES = {"webp": 16383, "jpeg": 65500}  # pixels of the longest side that Pillow writes
_LONGEST_EXIF = 65533  # bytes that a JPEG takes


class Encoding(NamedTuple):
    """A format of image files and its quality: 1 to 100 or "original"; None if lossless."""

    format: str
    quality: int | str | None

    @classmethod
    def of(cls, format: str, quality: int | str | None) -> Encoding:
        """Raises ``ValueError`` for a quality that the format does not accept."""
        if quality is None:
            return cls(format, None)
        if format not in _LOSSY:
            raise ValueError(
                f"expected no quality (--quality) with the format {format!r}, which is lossless, "
                f"got {quality!r}; omit it, or use one of the formats {', '.join(_LOSSY)}"
            )
        if quality == ORIGINAL and format == "jpeg":
            return cls(format, ORIGINAL)
        range_ = "an integer from 1 to 100" + ' or "original"' * (format == "jpeg")
        try:
            number = integer("quality", quality, least=1)
        except ValueError:
            number = 0
        if not 1 <= number <= 100:
            raise ValueError(f"expected a quality for {format!r}, {range_}, got {quality!r}")
        return cls(format, number)

    @property
    def lossy(self) -> bool:
        """Whether saving changes the pixels."""
        return self.quality is not None

    @property
    def ending(self) -> str:
        """File extension without the dot."""
        return _ENDINGS.get(self.format, self.format)

    def check(self, raw: RawDataset) -> None:
        """Raises ``ValueError`` for the quality "original" if the originals are not files."""
        if self.quality == ORIGINAL and all(raw.path(index) is None for index in range(len(raw))):
            raise ValueError(
                f'expected a quality from 1 to 100 for images of a {raw.name}, got "original": '
                f"it does not list its files as ImageFolder does, so their quality is unknown"
            )

    def check_side(self, size: tuple[int, int], name: str = "one") -> None:
        """Raises ``ValueError`` for an image that is too large for the format."""
        most = _SIDES.get(self.format)
        if most is not None and max(size) > most:
            raise ValueError(
                f"expected photos of at most {most:,} pixels a side with the format "
                f"{self.format!r}, got {name} of {size[0]:,}x{size[1]:,}; use the format png, or "
                f"make it smaller"
            )

    def save(self, image: Image.Image, path: Path | BinaryIO, info: PhotoInfo | None) -> None:
        """Writes a file with the EXIF data kept in ``info``."""
        self.check_side(image.size, getattr(path, "name", "one"))
        exif = None if info is None else info.exif
        if self.format == "png":
            save_png(image, path, exif)
            return
        if self.format == "jpeg":
            options: dict[str, Any] = _JPEG | {"quality": self.quality}
            if self.quality == ORIGINAL:
                tables = None if info is None else info.tables
                own = {"quality": _OTHERS} if tables is None else {"qtables": tables, "quality": -1}
                options |= own
        elif self.format == "webp" and self.lossy:
            options = {"quality": self.quality}
        else:
            options = dict(_LARGE_WEBP if image.width * image.height > _LARGE else _WEBP)
        if exif is not None and self.format == "jpeg" and len(exif) > _LONGEST_EXIF:
            warnings.warn(
                f"{path.name} keeps no EXIF data, because it is too large for a JPEG file",
                stacklevel=2,
            )
            exif = None
        if exif is not None:
            options["exif"] = exif
        with _room(image):
            image.save(path, self.format, **options)

    def described(self, left: ShareLeft, written: int, originals: int) -> dict[str, Any]:
        """The entry in ``unlearnable.json``; warns if less than half of the change is left.

        Args:
            left: Measurements on the files.
            written: Bytes of the files whose originals are known.
            originals: Bytes of these originals.
        """
        if left.share is not None and left.share < HARDLY:
            warnings.warn(
                f"only {left.share:.0%} of the change is left in these {self.format} files at "
                f"quality {self.quality}, so they are hardly protected; use a higher quality, or "
                f"png",
                stacklevel=2,
            )
        found: dict[str, Any] = {"format": self.format, "quality": self.quality}
        found["share_left"] = None if left.share is None else round(left.share, 4)
        found["psnr"] = None if left.psnr is None else round(left.psnr, 2)
        found["size"] = round(written / originals, 3) if originals else None
        return {"lossy": found}


@contextlib.contextmanager
def _room(image: Image.Image) -> Iterator[None]:
    """Lets Pillow write a progressive JPEG of any content: it takes what exceeds its buffer for
    an error, and the buffer is too small for noise of a high quality.
    """
    before = ImageFile.MAXBLOCK
    ImageFile.MAXBLOCK = max(before, 8 * image.width * image.height)
    try:
        yield
    finally:
        ImageFile.MAXBLOCK = before
