"""One photo in a file: its colours, its orientation, its metadata, and what is wrong with it.

Whatever is opened becomes upright 8-bit sRGB or grey without transparency, so that what is
protected is what a viewer shows.
"""

from __future__ import annotations

import contextlib
import functools
import io
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageCms, UnidentifiedImageError

from .exif import kept_exif

HEIC_EXTENSIONS = (".heic", ".heif", ".hif")
HEIC_HINT = "to read HEIC photos, install pillow-heif: pip install 'unlearnable[heic]'"
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
# Transfer functions of H.273 whose white is far below the highest level.
_HDR = {16: "PQ", 18: "HLG"}
_SRGB_PRIMARIES = (1, 2, 5, 6, 7)  # of H.273: BT.709, not said, and those of standard television
_GREY_MODES = ("L", "1", "LA", "La")
_COLOUR_MODES = ("RGB", "P", "PA", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV", "LAB")
_SPACES = {"RGB": "RGB", "L": "GRAY", "CMYK": "CMYK", "LAB": "Lab"}  # of a profile for each mode
_SAME = 2  # levels that a profile may differ from sRGB and still be taken for it
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
LEAVE_OUT = "leave it out"
REPLACE = "replace it or leave it out"
UPRIGHT = "turned upright according to EXIF"
ON_WHITE = "transparency replaced with white"
TO_SRGB = "colours converted to sRGB"
FIRST_FRAME = "only the first frame or page read"


def standard(image: Image.Image) -> Image.Image:
    """The picture upright, in mode L or RGB, in sRGB, with transparency replaced with white.

    Raises ``ValueError`` for more than 8 bits per channel or an unknown mode.
    """
    check_mode(image)
    original, scale = image, _scale_of_grey(image)
    image.load()  # before its EXIF is asked for: Pillow turns TIFFs on its own then
    if scale is not None and isinstance(image.info.get("transparency"), int):
        image.info["transparency"] *= scale
    turn = _TURNS.get(orientation(image))
    image = image if turn is None else image.transpose(turn)
    profile = image.info.get("icc_profile") or b""
    mode = "L" if image.mode in _GREY_MODES else "RGB"
    alpha: Image.Image | None = None
    if _has_alpha(image):
        image = _as_rgba(image)
        alpha = image.getchannel("A")
        image = image.convert("RGB").convert(mode)
    elif image.mode not in ("CMYK", "LAB", mode):
        image = image.convert(mode)
    transform = _to_srgb(profile, image.mode)
    if transform is not None:
        image = transform.apply(image)
    if image.mode != mode:
        image = image.convert(mode)
    if alpha is not None:
        image = Image.composite(image, Image.new(mode, image.size, "white"), alpha)
    image = image.copy() if image is original else image
    image.info = {}  # so that no profile or orientation is applied twice
    return image


def _scale_of_grey(image: Image.Image) -> int | None:
    """By what Pillow multiplies levels of 2 or 4 bits, but not the one that is transparent."""
    tiles = getattr(image, "tile", None) or [(None,)]
    return {"L;2": 85, "L;4": 17}.get(tiles[0][-1]) if image.mode == "L" else None


def orientation(image: Image.Image) -> int:
    """The EXIF orientation from 1 to 8; 1 if it is missing or unreadable."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # Pillow raises errors of any type on damaged EXIF, which viewers pass over
        return 1


def check_mode(image: Image.Image) -> None:
    """Raises ``ValueError`` for a mode or an HDR scale whose levels would have to be guessed."""
    _check_scale(image)
    if image.mode in _GREY_MODES + _COLOUR_MODES:
        return
    raise ValueError(
        f"expected an image with 8 bits per channel, got mode {image.mode!r}, whose levels for "
        f"black and white are unknown; scale it to 0…255 and save it with 8 bits, as grey or RGB"
    )


def _check_scale(image: Image.Image) -> None:
    """Refuses a HEIC whose colours are given by numbers (nclx) that no profile here converts."""
    said = image.info.get("nclx_profile")
    if not isinstance(said, dict):
        return
    hdr = _HDR.get(said.get("transfer_characteristics", 2))
    wide = said.get("color_primaries", 2) not in _SRGB_PRIMARIES
    if hdr or (wide and not image.info.get("icc_profile")):
        found = f"HDR ({hdr})" if hdr else "a wide colour gamut without an ICC profile"
        raise ValueError(
            f"expected an image in sRGB or with an ICC profile, got {found}; save it as sRGB"
        )


def _has_alpha(image: Image.Image) -> bool:
    return image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info


def _as_rgba(image: Image.Image) -> Image.Image:
    # Levels that are multiplied by alpha become RGBA by way of their own mode only.
    return image.convert({"La": "LA", "RGBa": "RGBA"}.get(image.mode, image.mode)).convert("RGBA")


@functools.lru_cache(maxsize=64)
def _to_srgb(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """How colours of a profile become sRGB; None where they are that, or the profile is useless."""
    target = ImageCms.createProfile("sRGB")
    if not profile and mode != "LAB":
        return None
    if not profile:
        return ImageCms.buildTransform(ImageCms.createProfile("LAB"), target, mode, "RGB")
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if source.profile.xcolor_space.strip() != _SPACES[mode]:
            return _to_srgb(b"", mode)  # of the file, before somebody's loader converted it
        transform = ImageCms.buildTransform(source, target, mode, "RGB")
    except (ImageCms.PyCMSError, OSError):
        warnings.warn("the colour profile of a photo is damaged; assuming sRGB", stacklevel=2)
        return None
    if mode in ("RGB", "L"):
        levels = np.linspace(0, 255, 18).astype(np.uint8)
        cube = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(18, -1, 3)
        before = Image.linear_gradient("L") if mode == "L" else Image.fromarray(cube)
        after = np.asarray(transform.apply(before), np.int16)
        if np.abs(after - np.asarray(before.convert("RGB"))).max() <= _SAME:
            return None
    return transform


def notes_of(image: Image.Image, *, decode: bool = True) -> tuple[str, ...]:
    """What :func:`standard` changes about a picture that its owner may want to know.

    Transparency is only detected with ``decode``.
    """
    notes = []
    if orientation(image) in _TURNS:
        notes.append(UPRIGHT)
    if decode and _has_alpha(image) and _as_rgba(image).getchannel("A").getextrema() != (255, 255):
        notes.append(ON_WHITE)
    profile = image.info.get("icc_profile") or b""
    mode = "L" if image.mode in _GREY_MODES else image.mode
    mode = mode if mode in _SPACES else "RGB"
    if mode in ("CMYK", "LAB") or _to_srgb(profile, mode) is not None:
        notes.append(TO_SRGB)
    if _frames(image):
        notes.append(FIRST_FRAME)
    return tuple(notes)


def _frames(image: Image.Image) -> bool:
    # The second picture of an MPO is a camera's preview or its other eye.
    return bool(getattr(image, "is_animated", False)) and image.format != "MPO"


def _is_heic(path: Path) -> bool:
    """By its ending or its content: some programs give HEIC files the ending .jpg."""
    head = b""
    with contextlib.suppress(OSError), path.open("rb") as file:
        head = file.read(12)
    named = path.suffix.lower() in HEIC_EXTENSIONS
    return named or (head[4:8] == b"ftyp" and head[8:] in _HEIC_BRANDS)


def _register_heic(path: str | Path) -> None:
    """Lets Pillow read HEIC, once a file of it is opened."""
    if "HEIF" in Image.OPEN or not _is_heic(Path(path)):
        return
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return  # Pillow does not know the file then, and the error says what to install
    register_heif_opener()


def load_photo(path: str | Path) -> Image.Image:
    """Loads a file as an RGB image; replaces the loader of torchvision's ``ImageFolder``.

    Torchvision's loader drops transparency and colour profiles and clips 16-bit greys at 255
    without a warning. Raises ``ValueError`` if the file is not a picture, is truncated or too
    large, or has an unsupported mode; ``OSError`` if it cannot be read.
    """
    with open_photo(path) as image:
        return load_opened(image, path)


def load_opened(image: Image.Image, path: str | Path) -> Image.Image:
    """Loads an opened file in the same way as :func:`load_photo`."""
    if _frames(image):
        warnings.warn(f"only the first frame or page of {path} is read", stacklevel=3)
    found = standard(image)
    return found if found.mode == "RGB" else found.convert("RGB")


def load_frames(path: str | Path) -> Iterator[Image.Image]:
    """Every frame or page of a file, in turn, as :func:`load_photo` gives the first."""
    with open_photo(path) as image:
        yield standard(image).convert("RGB")
        for number in range(1, getattr(image, "n_frames", 1)):
            image.seek(number)
            yield standard(image).convert("RGB")


@contextlib.contextmanager
def open_photo(path: str | Path) -> Iterator[Image.Image]:
    """Opens a file; errors raised in the block name it and say what to do."""
    _register_heic(path)
    try:
        with Image.open(path) as image:
            yield image
    except MemoryError:
        raise
    except Exception as error:  # Pillow's plugins raise errors of any type on damaged files
        raise named(error, path, quoted=False) from error


def named(error: Exception, path: str | Path, *, quoted: bool = True) -> Exception:
    """Turns an error of reading a file into one that names the file and says what to do.

    A library's description of the damage is left to the traceback unless ``quoted``.
    """
    path = Path(path)
    if isinstance(error, OSError) and error.errno is not None:
        if isinstance(error, FileNotFoundError) and path.is_symlink():
            return FileNotFoundError(
                f"expected a photo, got the broken link {path} to {path.readlink()}; repair it "
                f"or remove it"
            )
        return OSError(error.errno, error.strerror, str(path))
    if isinstance(error, Image.DecompressionBombError):
        return ValueError(
            f"expected a photo of at most {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels, got "
            f"a larger one, {path}; make it smaller, or raise PIL.Image.MAX_IMAGE_PIXELS if you "
            f"trust it"
        )
    if isinstance(error, UnidentifiedImageError):
        if "HEIF" not in Image.OPEN and _is_heic(path):
            return ValueError(f"expected a photo of a known format, got {path}; {HEIC_HINT}")
        kind = "an empty file" if path.is_file() and not path.stat().st_size else "something else"
        advice = LEAVE_OUT
        if path.name.startswith("."):
            kind = "a hidden file of another program"
            advice += ", or exclude such files with ImageFolder(..., is_valid_file=...)"
        return ValueError(f"expected a photo, got {kind}: {path}; {advice}")
    if str(path) in str(error) and isinstance(error, ValueError):
        return error
    if isinstance(error, OSError):
        return _damaged(error, path, quoted)
    if quoted or str(error).startswith("expected"):  # the latter are our own
        return ValueError(f"could not read {path}: {error or type(error).__name__}")
    return _damaged(error, path, quoted)


def _damaged(error: Exception, path: Path, quoted: bool) -> ValueError:
    why = f" ({error})" if quoted else ""
    return ValueError(f"expected an intact photo, got a damaged one: {path}{why}; {REPLACE}")


class PhotoInfo(NamedTuple):
    """What an export records about a photo besides its pixels."""

    notes: tuple[str, ...]  # from notes_of
    exif: bytes | None  # what a protected copy may carry, or None where there is nothing to keep
    tables: list[list[int]] | None  # of quantisation, by which a JPEG is as fine as it is


class PhotoReader:
    """Reads photos like :func:`load_photo`, and their other information from the same open file.

    With ``exif``, the tags for description, author, camera, times and exposure are kept, with
    ``gps`` also the location, and nothing else.
    """

    def __init__(self, *, exif: bool, gps: bool) -> None:
        self._exif, self._gps = exif, gps
        self._found: dict[Path, PhotoInfo] = {}

    def __call__(self, path: str | Path) -> Image.Image:
        """Loads a file as an RGB image; raises the same errors as :func:`load_photo`."""
        with open_photo(path) as image:
            check_mode(image)
            self._found[Path(path)] = self._info(image, path)  # first: loading turns a TIFF upright
            return load_opened(image, path)

    def info(self, path: Path) -> PhotoInfo | None:
        """Information about a file, just read or opened now; None if Pillow cannot open it."""
        if path in self._found:
            return self._found.pop(path)
        _register_heic(path)
        try:
            with Image.open(path) as image:
                return self._info(image, path)
        except Exception:  # Pillow's plugins raise errors of any type, here on files of any kind
            return None

    def _info(self, image: Image.Image, path: str | Path) -> PhotoInfo:
        exif = None
        if self._exif:
            try:
                exif = kept_exif(image.getexif(), gps=self._gps)
            except Exception:  # of any type, on values that make no sense
                warnings.warn(f"could not keep the damaged EXIF of {path}", stacklevel=2)
        return PhotoInfo(notes_of(image), exif, _tables(image))


def _tables(image: Image.Image) -> list[list[int]] | None:
    """A JPEG's tables of quantisation, for luminance first; None for other formats."""
    found = getattr(image, "quantization", None) if image.format in ("JPEG", "MPO") else None
    return [list(found[place]) for place in sorted(found)] if found else None
