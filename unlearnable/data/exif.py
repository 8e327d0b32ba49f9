"""What a protected copy keeps of a photo's EXIF."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from PIL import ExifTags, Image

# What is kept of EXIF when it is asked for, and nothing else. Not there: thumbnails and makers'
# notes, which may hold the unprotected photo in small; the orientation, which has been applied;
# where pixels lie; free comments, owners, serial numbers and identifiers; time zones and the place.
_KEPT = ("ImageDescription", "Make", "Model", "Software", "DateTime", "Artist", "Copyright")
_KEPT_DETAILS = (
    "ExifVersion", "DateTimeOriginal", "DateTimeDigitized",
    "SubsecTime", "SubsecTimeOriginal", "SubsecTimeDigitized",
    "ExposureTime", "FNumber", "ExposureProgram", "ExposureMode", "ExposureBiasValue",
    "ISOSpeedRatings", "SensitivityType", "StandardOutputSensitivity",
    "RecommendedExposureIndex", "ISOSpeed", "GainControl",
    "ShutterSpeedValue", "ApertureValue", "MaxApertureValue", "BrightnessValue",
    "MeteringMode", "LightSource", "Flash", "WhiteBalance", "SubjectDistance",
    "FocalLength", "FocalLengthIn35mmFilm", "DigitalZoomRatio",
    "SceneCaptureType", "Contrast", "Saturation", "Sharpness",
    "LensSpecification", "LensMake", "LensModel",
)  # fmt: skip


def kept_exif(found: Image.Exif, *, gps: bool) -> bytes | None:
    """The EXIF that a protected copy may carry, as bytes for Pillow; None if nothing is kept.

    Args:
        found: EXIF of the original; an error of any type may come of damaged values.
        gps: Keep the location, too.
    """
    kept = Image.Exif()
    kept.update(_named_tags(found, _KEPT))
    details = _named_tags(found.get_ifd(ExifTags.IFD.Exif), _KEPT_DETAILS)
    place = found.get_ifd(ExifTags.IFD.GPSInfo) if gps else {}
    if details:
        details[ExifTags.Base.ColorSpace] = 1  # sRGB
        kept[ExifTags.IFD.Exif] = details  # Pillow before 11.1 writes no get_ifd()
    if place:
        kept[ExifTags.IFD.GPSInfo] = {tag: _whole(v) for tag, v in place.items()}
    return kept.tobytes() if len(kept) else None


def _named_tags(found: Mapping[int, Any], names: Iterable[str]) -> dict[int, Any]:
    tags = (ExifTags.Base[name] for name in names)
    return {tag: _whole(found[tag]) for tag in tags if tag in found}


class _Text(str):
    """Text of EXIF, written as the bytes that it was read from, most often UTF-8.

    Pillow reads each byte as a character, and writes question marks for those outside of ASCII.
    """

    __slots__ = ()

    def encode(self, *_: Any, **__: Any) -> bytes:
        return str.encode(self, "latin-1", "replace")


def _whole(value: Any) -> Any:
    return _Text(value) if isinstance(value, str) else value
