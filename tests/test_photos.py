"""One photo: modes, colours, orientation, metadata, and what is wrong with files."""

import io
import json

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms
from PIL.PngImagePlugin import PngInfo
from torchvision.datasets import ImageFolder

from unlearnable import ProtectedDataset, RandomNoise
from unlearnable.data.fingerprint import image_key
from unlearnable.data.image import pixels_of
from unlearnable.data.photo import (
    FIRST_FRAME,
    ON_WHITE,
    TO_SRGB,
    UPRIGHT,
    PhotoReader,
    load_photo,
    notes_of,
    standard,
)
from unlearnable.data.raw import RawDataset

RNG = np.random.default_rng(0)
PHOTO = RNG.integers(0, 256, (6, 8, 3), dtype=np.uint8)
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def narrow_profile():
    """sRGB's bytes with the red and green primaries exchanged: a profile of other colours."""
    data = SRGB.replace(b"rXYZ", b"tmpX").replace(b"gXYZ", b"rXYZ").replace(b"tmpX", b"gXYZ")
    assert data != SRGB
    return data


def chw(image):
    return np.asarray(image.convert("RGB")).transpose(2, 0, 1)


def saved(tmp_path, image, name="0.png", **options):
    path = tmp_path / "photos" / "class" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)
    return path


def notes(path):
    with Image.open(path) as image:
        return notes_of(image)


# --- modes ---------------------------------------------------------------------------------------


def with_alpha(image, values):
    image = image.copy()
    image.putalpha(Image.fromarray(np.full(PHOTO.shape[:2], values, np.uint8)))
    return image


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_transparent_parts_are_laid_on_white(tmp_path, mode):
    colours = Image.fromarray(PHOTO).convert(mode)
    clear = saved(tmp_path, with_alpha(colours, 0))
    assert (np.asarray(load_photo(clear)) == 255).all() and notes(clear) == (ON_WHITE,)
    opaque = saved(tmp_path, with_alpha(colours, 255))
    np.testing.assert_array_equal(chw(load_photo(opaque)), chw(colours))
    assert notes(opaque) == ()
    half = standard(with_alpha(colours, 128))
    expected = 255 - (255 - np.asarray(colours, float)) * 128 / 255
    np.testing.assert_allclose(np.asarray(half), expected, atol=0.51)
    assert half.mode == mode


def test_premultiplied_alpha():
    opaque = with_alpha(Image.fromarray(PHOTO), 255).convert("RGBa")
    np.testing.assert_array_equal(chw(standard(opaque)), chw(Image.fromarray(PHOTO)))


@pytest.mark.parametrize("mode", ["P", "RGB", "L", "1"])
def test_one_transparent_colour_is_laid_on_white(tmp_path, mode):
    image = Image.new(mode, (4, 4), 0)
    image.putpixel((0, 0), 1)
    if mode == "P":
        image.putpalette([10, 20, 30, 40, 50, 60])
    path = saved(tmp_path, image, transparency=(0, 0, 0) if mode == "RGB" else 0)
    with Image.open(path) as opened:
        assert opened.mode == mode and "transparency" in opened.info
    found = np.asarray(load_photo(path))
    assert (found[1:] == 255).all()
    assert (found[0, 0] == (np.asarray(image.convert("RGB"))[0, 0])).all()
    assert notes(path) == (ON_WHITE,)


def test_palette_without_transparency(tmp_path):
    image = Image.fromarray(PHOTO).quantize(16)
    path = saved(tmp_path, image)
    np.testing.assert_array_equal(chw(load_photo(path)), chw(image))
    assert notes(path) == ()


@pytest.mark.parametrize("mode", ["YCbCr", "HSV", "1", "L"])
def test_modes_that_pillow_converts(mode):
    image = Image.fromarray(PHOTO).convert(mode)
    np.testing.assert_array_equal(chw(standard(image)), chw(image))
    assert notes_of(image) == ()


def test_cmyk_without_a_profile(tmp_path):
    path = saved(tmp_path, Image.fromarray(PHOTO).convert("CMYK"), "0.tif")
    np.testing.assert_array_equal(chw(load_photo(path)), PHOTO.transpose(2, 0, 1))
    assert notes(path) == (TO_SRGB,)


def test_lab(tmp_path):
    to_lab = ImageCms.buildTransform(SRGB_PROFILE, ImageCms.createProfile("LAB"), "RGB", "LAB")
    grey = Image.fromarray(np.repeat(PHOTO[:, :, :1], 3, axis=2))
    path = saved(tmp_path, ImageCms.applyTransform(grey, to_lab), "0.tif")
    difference = chw(load_photo(path)).astype(int) - chw(grey)
    assert np.abs(difference).max() <= 2 and notes(path) == (TO_SRGB,)


@pytest.mark.parametrize(
    ("mode", "ending"), [("I;16", "png"), ("I;16", "tif"), ("I", "tif"), ("F", "tif")]
)
def test_deep_greys_are_refused_by_name(tmp_path, mode, ending):
    path = saved(tmp_path, Image.new(mode, (4, 4)), f"0.{ending}")
    for read in (load_photo, lambda _: RawDataset(ImageFolder(tmp_path / "photos"))[0]):
        with pytest.raises(ValueError, match="8 bits per channel") as caught:
            read(path)
        assert str(path) in str(caught.value)


@pytest.mark.parametrize("ending", ["png", "webp", "tif"])
def test_of_animations_the_first_frame_is_read_with_a_warning(tmp_path, ending):
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("blue", "red")]
    lossless = {"lossless": True} if ending == "webp" else {}
    options = {"save_all": True, "append_images": frames[1:], **lossless}
    path = saved(tmp_path, frames[0], f"0.{ending}", **options)
    with pytest.warns(UserWarning, match="first frame") as caught:
        image = load_photo(path)
    assert image.getpixel((1, 1)) == (0, 0, 255) and str(path) in str(caught[0].message)
    assert notes(path) == (FIRST_FRAME,)


def test_the_previews_that_cameras_append_are_no_frames(tmp_path):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("blue", "red")]
    path = saved(tmp_path, frames[0], "0.mpo", save_all=True, append_images=frames[1:])
    path = path.rename(path.with_suffix(".jpg"))
    assert load_photo(path).size == (8, 8) and notes(path) == ()


# --- orientation ---------------------------------------------------------------------------------

TURNED = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
    8: lambda a: np.rot90(a),
}


@pytest.mark.parametrize("orientation", TURNED)
@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "tif"])
def test_every_orientation_is_applied_once(tmp_path, orientation, ending):
    plain = saved(tmp_path, Image.fromarray(PHOTO), f"plain.{ending}")
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    path = saved(tmp_path, Image.fromarray(PHOTO), f"turned.{ending}", exif=exif)
    expected = TURNED[orientation](np.asarray(load_photo(plain)))
    np.testing.assert_array_equal(np.asarray(load_photo(path)), expected)
    raw = RawDataset(ImageFolder(tmp_path / "photos"))
    np.testing.assert_array_equal(raw[1].pixels.transpose(1, 2, 0), expected)
    if ending != "tif":
        assert notes(path) == ((UPRIGHT,) if orientation > 1 else ())


# --- profiles ------------------------------------------------------------------------------------

SRGB_PROFILE = ImageCms.createProfile("sRGB")


def test_colours_of_a_profile_are_converted(tmp_path):
    other = narrow_profile()
    path = saved(tmp_path, Image.fromarray(PHOTO), icc_profile=other)
    expected = ImageCms.profileToProfile(
        Image.fromarray(PHOTO), io.BytesIO(other), SRGB_PROFILE, outputMode="RGB"
    )
    assert np.abs(chw(expected).astype(int) - PHOTO.transpose(2, 0, 1)).max() > 20
    np.testing.assert_array_equal(chw(load_photo(path)), chw(expected))
    assert notes(path) == (TO_SRGB,)
    once = standard(load_photo(path))  # what was converted is not converted again
    np.testing.assert_array_equal(chw(once), chw(expected))
    with Image.open(path) as opened:  # as a dataset of PIL images, read by another loader
        np.testing.assert_array_equal(pixels_of(opened.convert("RGB")), chw(expected))


def test_srgb_profiles_change_nothing(tmp_path):
    path = saved(tmp_path, Image.fromarray(PHOTO), icc_profile=SRGB)
    np.testing.assert_array_equal(chw(load_photo(path)), PHOTO.transpose(2, 0, 1))
    assert notes(path) == ()


def test_profiles_of_another_mode_are_not_used(tmp_path):
    image = Image.fromarray(PHOTO).convert("L")
    path = saved(tmp_path, image, icc_profile=narrow_profile())
    np.testing.assert_array_equal(chw(load_photo(path)), chw(image))


def test_damaged_profiles_are_warned_of(tmp_path):
    path = saved(tmp_path, Image.fromarray(PHOTO), icc_profile=b"damaged" * 30)
    with pytest.warns(UserWarning, match="colour profile of a photo is damaged"):
        np.testing.assert_array_equal(chw(load_photo(path)), PHOTO.transpose(2, 0, 1))


# --- bad files -----------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "tif", "bmp"])
def test_files_that_were_cut_short_are_named(tmp_path, ending):
    big = Image.fromarray(RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8))
    path = saved(tmp_path, big, f"0.{ending}")
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    dataset = ImageFolder(tmp_path / "photos")
    for read in (RawDataset(dataset).__getitem__, lambda _: load_photo(path)):
        with pytest.raises(ValueError, match="expected a") as caught:
            read(0)
        assert str(path) in str(caught.value)
    with pytest.raises(ValueError, match=r"0\."):
        RandomNoise().fit(dataset, device="cpu", progress=False)


@pytest.mark.parametrize(("content", "what"), [(b"", "an empty file"), (b"text", "something else")])
def test_what_is_no_photo_is_named(tmp_path, content, what):
    path = tmp_path / "0.jpg"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"got {what}: .*0.jpg"):
        load_photo(path)


def test_broken_links_and_missing_files_are_named(tmp_path):
    (tmp_path / "0.jpg").symlink_to(tmp_path / "gone.jpg")
    with pytest.raises(FileNotFoundError, match=r"broken link .*0.jpg to .*gone.jpg"):
        load_photo(tmp_path / "0.jpg")
    with pytest.raises(FileNotFoundError, match=r"1.jpg"):
        load_photo(tmp_path / "1.jpg")


def test_unreadable_files_are_named(tmp_path, monkeypatch):
    path = saved(tmp_path, Image.fromarray(PHOTO))

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Image, "open", refuse)
    with pytest.raises(PermissionError, match=str(path)):
        load_photo(path)


def test_errors_of_the_callers_own_loader_name_the_file(tmp_path):
    path = saved(tmp_path, Image.fromarray(PHOTO))

    def loader(_):
        raise OSError("broken data stream")

    with pytest.raises(ValueError, match="broken data stream") as caught:
        RawDataset(ImageFolder(tmp_path / "photos", loader=loader))[0]
    assert str(path) in str(caught.value)
    dataset = ImageFolder(tmp_path / "photos", loader=lambda _: Image.new("F", (2, 2)))
    with pytest.raises(ValueError, match=r"0.png: expected .* 8 bits"):
        RawDataset(dataset)[0]


def test_huge_photos_are_refused_with_their_name(tmp_path, monkeypatch):
    path = saved(tmp_path, Image.fromarray(PHOTO))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    with pytest.raises(ValueError, match=r"at most 40 pixels.*0.png.*MAX_IMAGE_PIXELS"):
        load_photo(path)


# --- metadata ------------------------------------------------------------------------------------


def camera_exif():
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    exif[ExifTags.Base.Make] = "Maker"
    exif[ExifTags.Base.Artist] = "Somebody"
    exif[ExifTags.IFD.Exif] = {
        ExifTags.Base.DateTimeOriginal: "2024:01:02 03:04:05",
        ExifTags.Base.MakerNote: b"secret serial number",
        ExifTags.Base.UserComment: b"ASCII\0\0\0secret comment",
        ExifTags.Base.CameraOwnerName: "secret owner",
        ExifTags.Base.BodySerialNumber: "secret 42",
        ExifTags.Base.OffsetTimeOriginal: "+02:00",
        0xFDE8: "secret of a tag that nobody knows",
        ExifTags.Base.FNumber: 2.8,
        ExifTags.Base.LensModel: "Lens",
        ExifTags.Base.ColorSpace: 0xFFFF,
    }
    exif[ExifTags.IFD.GPSInfo] = {
        ExifTags.GPS.GPSLatitudeRef: "N",
        ExifTags.GPS.GPSLatitude: (47.0, 33.0, 12.0),
    }
    return exif


XMP = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'>secret place</x:xmpmeta>"


@pytest.fixture(params=["jpg", "png", "webp"])
def camera(request, tmp_path):
    """A folder with a photo that tells everything."""
    options = {"exif": camera_exif(), "icc_profile": narrow_profile()}
    if request.param == "png":
        options["pnginfo"] = PngInfo()
        options["pnginfo"].add_text("Comment", "secret comment")
        options["pnginfo"].add_itxt("XML:com.adobe.xmp", XMP.decode())
    else:
        options["xmp"] = XMP
    if request.param == "jpg":
        options["comment"] = b"secret comment"
    path = saved(tmp_path, Image.fromarray(PHOTO), f"0.{request.param}", **options)
    saved(tmp_path, Image.fromarray(PHOTO), "1.png")
    assert b"secret" in path.read_bytes()
    return tmp_path / "photos"


def export(folder, out, **options):
    dataset = ImageFolder(folder)
    method = RandomNoise().fit(dataset, device="cpu", image_size=6, progress=False)
    protected = ProtectedDataset(dataset, method.perturbation_, full_size=True)
    return protected.export(out, options.pop("format", "png"), progress=False, **options)


@pytest.mark.parametrize("format", ["png", "webp"])
def test_exports_carry_no_metadata(camera, tmp_path, format):
    folder = export(camera, tmp_path / "out", format=format)
    path = folder / "class" / f"0.{format}"
    data = path.read_bytes()
    for trace in (b"secret", b"Maker", b"Somebody", b"EXIF", b"eXIf", b"ICCP", b"iCCP", b"XMP"):
        assert trace not in data
    with Image.open(path) as image:
        assert not image.getexif() and image.size == (6, 8)
        assert not {"icc_profile", "exif", "xmp", "comment"} & set(image.info)


@pytest.mark.parametrize("format", ["png", "webp"])
@pytest.mark.parametrize("gps", [False, True])
def test_exif_is_kept_when_asked_for_and_the_place_alone_when_asked_twice(
    camera, tmp_path, format, gps
):
    folder = export(camera, tmp_path / "out", format=format, metadata=True, gps=gps)
    path = folder / "class" / f"0.{format}"
    assert b"secret" not in path.read_bytes()
    with Image.open(path) as image:
        exif = image.getexif()
        assert exif[ExifTags.Base.Make] == "Maker" and "icc_profile" not in image.info
        assert ExifTags.Base.Orientation not in exif
        details = exif.get_ifd(ExifTags.IFD.Exif)
        assert details[ExifTags.Base.DateTimeOriginal] == "2024:01:02 03:04:05"
        assert details[ExifTags.Base.ColorSpace] == 1
        assert details[ExifTags.Base.FNumber] == 2.8
        assert details[ExifTags.Base.LensModel] == "Lens"
        kept = ("DateTimeOriginal", "ColorSpace", "FNumber", "LensModel")
        assert set(details) == {ExifTags.Base[name] for name in kept}
        assert bool(exif.get_ifd(ExifTags.IFD.GPSInfo)) == gps
        assert image.size == (6, 8)
    with Image.open(folder / "class" / f"1.{format}") as image:
        assert not image.getexif()


def test_the_place_needs_metadata(camera, tmp_path):
    with pytest.raises(ValueError, match="metadata=True"):
        export(camera, tmp_path / "out", gps=True)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("format", ["png", "webdataset"])
def test_exports_say_what_was_done_to_photos(tmp_path, format):
    saved(tmp_path, with_alpha(Image.fromarray(PHOTO), 0), "clear.png")
    saved(tmp_path, Image.fromarray(PHOTO), "other.png", icc_profile=narrow_profile())
    saved(tmp_path, Image.fromarray(PHOTO), "turned.png", exif=camera_exif())
    folder = export(tmp_path / "photos", tmp_path / "out", format=format)
    described = json.loads((folder / "unlearnable.json").read_text())
    assert described["notes"] == {ON_WHITE: 1, TO_SRGB: 1, UPRIGHT: 1}
    assert described["metadata"] == [] and described["full_size"] is True


def test_arrays_hold_no_metadata(tmp_path):
    saved(tmp_path, Image.fromarray(PHOTO))
    with pytest.raises(ValueError, match=r"png, webp.*'webdataset'"):
        export(tmp_path / "photos", tmp_path / "out", format="webdataset", metadata=True)


def test_damaged_exif_stops_nothing(tmp_path):
    path = saved(tmp_path, Image.fromarray(PHOTO), exif=b"Exif\x00\x00" + bytes(range(60)))
    np.testing.assert_array_equal(chw(load_photo(path)), PHOTO.transpose(2, 0, 1))
    assert notes(path) == ()
    with pytest.warns(UserWarning, match=r"damaged EXIF of .*0\.png"):
        assert PhotoReader(exif=True, gps=False).info(path).exif is None


def test_keys_are_of_what_is_seen(tmp_path):
    """A turned file and an upright one of the same picture are one image."""
    turned = Image.fromarray(np.rot90(PHOTO).copy())
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    path = saved(tmp_path, turned, exif=exif)
    assert image_key(pixels_of(load_photo(path))) == image_key(PHOTO.transpose(2, 0, 1))
