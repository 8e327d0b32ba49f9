"""AVIF and HEIC photos: as other photos, and what is said where they cannot be read."""

import struct
import sys
import zlib

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms
from torchvision.datasets import ImageFolder

import unlearnable as ue
from unlearnable.cli.main import main
from unlearnable.data.extensions import photo_extensions
from unlearnable.data.image_folder import open_folder, survey_folder
from unlearnable.data.photo import TO_SRGB, UPRIGHT, load_photo

AVIF = pytest.param(
    ".avif",
    marks=pytest.mark.skipif(
        ".avif" not in photo_extensions(), reason="Pillow reads AVIF from 11.3 on"
    ),
)
FORMATS = [AVIF, ".heic"]


def save(image, path, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix.lower() == ".avif":
        image.save(path, quality=100, subsampling="4:4:4", **options)
        return path
    pillow_heif = pytest.importorskip("pillow_heif")
    pillow_heif.from_pillow(image).save(path, quality=-1, chroma=444, **options)
    return path


def picture(seed=0):
    """Smooth, so that coding changes it by a few levels at most; 24 wide, 16 high."""
    y, x = np.mgrid[:16, :24]
    rgb = np.stack([x * 9 + seed, y * 13, 255 - x * 5 - y * 4], axis=-1)
    return Image.fromarray(rgb.clip(0, 255).astype(np.uint8))


def assert_like(image, expected, within=6):
    found, wanted = (np.asarray(one, dtype=np.int16) for one in (image, expected))
    assert found.shape == wanted.shape and np.abs(found - wanted).max() <= within


@pytest.mark.parametrize("ending", FORMATS)
def test_photos_are_read_protected_and_verified(ending, tmp_path, capsys):
    for index in range(8):
        name = f"{index}{ending if index % 2 else ending.upper()}"
        save(picture(index), tmp_path / "photos" / "ab"[index % 2] / name)
    dataset = open_folder(tmp_path / "photos")
    assert len(dataset) == 8 and dataset.targets == [0] * 4 + [1] * 4
    assert survey_folder(dataset) == (8, {(24, 16): 8}, {}, [])
    out, kept = tmp_path / "out", tmp_path / "kept"
    options = ["--method", "randomnoise", "--preset", "demo", "--quiet"]
    arguments = ["protect", str(tmp_path / "photos"), str(out), "--save-perturbation", str(kept)]
    assert main([*arguments, *options]) == 0
    originals = ["--originals", str(tmp_path / "photos")]
    assert main(["verify", str(out), str(kept), "--quiet", *originals]) == 0
    assert "All 8 pictures are protected" in capsys.readouterr().out
    written = ImageFolder(out)
    for (path, _), (image, _) in zip(dataset.samples, written, strict=True):
        assert_like(image, load_photo(path), within=8)


@pytest.mark.parametrize("ending", FORMATS)
def test_torchvisions_folder_reads_them_by_our_loader(ending, tmp_path):
    for index in range(4):
        save(picture(index), tmp_path / "photos" / "ab"[index % 2] / f"{index}{ending}")
    dataset = ImageFolder(tmp_path / "photos", is_valid_file=lambda path: path.endswith(ending))
    protected = ue.RandomNoise().fit(dataset, progress=False).protect(dataset)
    for index, (path, _) in enumerate(dataset.samples):
        change = np.asarray(protected[index][0], np.int16) - np.asarray(load_photo(path))
        assert 0 < np.abs(change).max() <= 8


@pytest.mark.parametrize("ending", FORMATS)
def test_they_are_turned_upright(ending, tmp_path):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    path = save(picture(), tmp_path / "photos" / "a" / f"0{ending}", exif=exif.tobytes())
    assert_like(load_photo(path), picture().transpose(Image.Transpose.ROTATE_270))
    survey = survey_folder(open_folder(tmp_path / "photos"))
    notes = {UPRIGHT: 1} if ending == ".avif" else {}  # libheif turns photos on its own
    assert survey.sizes == {(16, 24): 1} and survey.notes == notes


@pytest.mark.parametrize("ending", FORMATS)
def test_their_colour_profile_is_converted(ending, tmp_path):
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    # Red and blue primaries exchanged: a profile that no decoder takes for sRGB.
    red, blue = lab.index(b"rXYZ"), lab.index(b"bXYZ")
    swapped = bytearray(lab)
    swapped[red : red + 4], swapped[blue : blue + 4] = b"bXYZ", b"rXYZ"
    path = save(picture(), tmp_path / "photos" / "a" / f"0{ending}", icc_profile=bytes(swapped))
    other = np.asarray(picture())[..., ::-1]
    assert_like(load_photo(path), other)
    assert survey_folder(open_folder(tmp_path / "photos")).notes == {TO_SRGB: 1}


@pytest.mark.parametrize("ending", FORMATS)
def test_transparency_is_laid_on_white(ending, tmp_path):
    clear = picture().convert("RGBA")
    clear.putalpha(0)
    path = save(clear, tmp_path / f"0{ending}")
    assert_like(load_photo(path), Image.new("RGB", clear.size, "white"), within=1)


def test_ten_bits_become_eight(tmp_path):
    pillow_heif = pytest.importorskip("pillow_heif")
    levels = np.asarray(picture(), np.uint16) * 257
    made = pillow_heif.from_bytes("RGB;16", picture().size, levels.tobytes())
    made.save(tmp_path / "0.heic", quality=-1, chroma=444)
    assert pillow_heif.open_heif(tmp_path / "0.heic").info["bit_depth"] == 10
    assert_like(load_photo(tmp_path / "0.heic"), picture(), within=2)


@pytest.mark.parametrize(
    ("colours", "found"),
    [
        ({"color_primaries": 9, "transfer_characteristics": 16}, r"HDR \(PQ\)"),
        ({"color_primaries": 9, "transfer_characteristics": 18}, r"HDR \(HLG\)"),
        ({"color_primaries": 12, "transfer_characteristics": 13}, "a wide colour gamut"),
    ],
)
def test_hdr_is_refused(colours, found, tmp_path):
    path = save(picture(), tmp_path / "photos" / "a" / "0.heic", **colours)
    with pytest.raises(ValueError, match=f"{found}.*save it as sRGB"):
        load_photo(path)
    with pytest.raises(ValueError, match=f"{found}.*save it as sRGB"):
        survey_folder(open_folder(tmp_path / "photos"))


@pytest.mark.parametrize("ending", FORMATS)
def test_a_damaged_one_is_named(ending, tmp_path):
    path = save(picture(), tmp_path / "photos" / "a" / f"0{ending}")
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ValueError, match=rf"1 bad file:\n.*0\{ending}"):
        survey_folder(open_folder(tmp_path / "photos"))


def test_exif_of_a_heic_is_kept_where_it_is_asked_for(tmp_path):
    exif = Image.Exif()
    exif[ExifTags.Base.Artist] = "Ada"
    for index in range(2):
        path = tmp_path / "photos" / "ab"[index] / "0.heic"
        save(picture(index), path, exif=exif.tobytes())
    dataset = open_folder(tmp_path / "photos")
    protected = ue.RandomNoise().fit(dataset, progress=False).protect(dataset)
    folder = protected.export(tmp_path / "out", metadata=True, progress=False)
    with Image.open(next(folder.rglob("*.png"))) as image:
        assert image.getexif()[ExifTags.Base.Artist] == "Ada"


@pytest.fixture
def without_heic(monkeypatch):
    """As where the extra is not installed."""
    Image.init()
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    monkeypatch.delitem(Image.OPEN, "HEIF", raising=False)
    monkeypatch.setattr(Image, "ID", [name for name in Image.ID if name != "HEIF"])


def test_without_the_extra_the_error_says_what_to_install(without_heic, tmp_path):
    path = tmp_path / "photos" / "a" / "0.HEIC"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"\0\0\0\x18ftypheic")
    assert ".heic" not in photo_extensions()
    with pytest.raises(ValueError, match=r"pip install 'unlearnable\[heic\]'"):
        load_photo(path)
    with pytest.raises(ValueError, match=r"found none in .*pip install 'unlearnable\[heic\]'"):
        open_folder(tmp_path / "photos")
    Image.new("RGB", (8, 8)).save(path.with_name("1.png"))
    said = survey_folder(open_folder(tmp_path / "photos")).summary()
    assert len(said) == 2 and "1 picture (a/0.HEIC)" in said[0] and "[heic]" in said[1]


def test_a_heic_that_is_called_jpg(tmp_path):
    path = save(picture(), tmp_path / "photos" / "0.heic").rename(tmp_path / "photos" / "0.JPG")
    assert_like(load_photo(path), picture())
    assert survey_folder(open_folder(tmp_path / "photos")).sizes == {(24, 16): 1}


def test_without_the_extra_one_that_is_called_jpg_says_so_too(without_heic, tmp_path):
    path = tmp_path / "0.jpg"
    path.write_bytes(b"\0\0\0\x18ftypheic")
    with pytest.raises(ValueError, match=r"pip install 'unlearnable\[heic\]'"):
        load_photo(path)


def test_a_hidden_file_in_a_folder_of_torchvisions_own(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "._0.png").write_bytes(b"of macOS")
    with pytest.raises(ValueError, match=r"hidden file .*_0\.png; leave it out.*is_valid_file"):
        ue.RandomNoise().fit(ImageFolder(tmp_path), progress=False)


class Utf8(str):
    """Pillow writes only ASCII by itself."""

    def encode(self, *_):
        return str.encode(self, "utf-8")


def tagged(path, **options):
    """A photo with text outside ASCII in all parts of its EXIF, as cameras write it: UTF-8."""
    words = {name: Utf8(text) for name, text in WORDS.items()}
    exif = Image.Exif()
    exif[ExifTags.Base.Artist], exif[ExifTags.Base.Copyright] = words["artist"], words["rights"]
    exif[ExifTags.IFD.Exif] = {ExifTags.Base.LensModel: words["lens"]}
    exif[ExifTags.IFD.GPSInfo] = {ExifTags.GPS.GPSSatellites: words["place"]}
    path.parent.mkdir(parents=True, exist_ok=True)
    picture().save(path, exif=exif, **options)


WORDS = {"artist": "Jörg Müller", "rights": "© 2026 Jörg", "lens": "Objektiv ½", "place": "日本"}


@pytest.mark.parametrize("options", [("png", None), ("webp", None), ("jpeg", 95)], ids=str)
def test_exif_keeps_text_in_any_language(options, fit, tmp_path):
    tagged(tmp_path / "photos" / "a" / "x.jpg")
    dataset = open_folder(tmp_path / "photos")
    protected = ue.ProtectedDataset(dataset, fit(dataset))
    out = protected.export(
        tmp_path / "out", options[0], quality=options[1], metadata=True, gps=True, progress=False
    )
    (copy,) = (path for path in out.rglob("x.*"))
    with Image.open(copy) as image:
        exif = image.getexif()
        place = exif.get_ifd(ExifTags.IFD.GPSInfo)
        lens = exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.LensModel]
        found = {
            "artist": exif[ExifTags.Base.Artist],
            "rights": exif[ExifTags.Base.Copyright],
            "lens": lens,
            "place": place[ExifTags.GPS.GPSSatellites],
        }
    assert {name: text.encode("latin-1").decode() for name, text in found.items()} == WORDS


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_the_transparent_level_of_grey_of_few_bits(bits, tmp_path):
    levels = np.arange(1 << bits, dtype=np.uint8)[None] if bits > 1 else np.uint8([[0, 1]])
    packed = np.packbits(np.unpackbits(levels[..., None], axis=2)[..., -bits:].reshape(1, -1), 1)
    transparent = levels.size // 2

    def chunk(kind, content):
        crc = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", crc)

    header = struct.pack(">IIBBBBB", levels.size, 1, bits, 0, 0, 0, 0)
    path = tmp_path / "grey.png"
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"tRNS", struct.pack(">H", transparent))
        + chunk(b"IDAT", zlib.compress(b"\0" + packed.tobytes()))
        + chunk(b"IEND", b"")
    )
    expected = (levels.astype(int) * 255 // ((1 << bits) - 1))[0]
    expected[transparent] = 255
    assert np.array_equal(np.asarray(load_photo(path))[0, :, 0], expected)


def test_an_unused_fourth_channel_is_no_transparency(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 6, 4), dtype=np.uint8)
    Image.frombytes("RGBX", (6, 5), pixels.tobytes()).save(tmp_path / "x.tif")
    with Image.open(tmp_path / "x.tif") as image:
        assert image.mode in ("RGBX", "RGB")
    assert np.array_equal(np.asarray(load_photo(tmp_path / "x.tif")), pixels[..., :3])


@pytest.mark.parametrize(("format", "side"), [("webp", 16384), ("jpeg", 65501)])
def test_images_too_large_for_a_format_are_refused_by_name(format, side, fit, tmp_path):
    (tmp_path / "photos" / "a").mkdir(parents=True)
    Image.new("RGB", (side, 2)).save(tmp_path / "photos" / "a" / "wide.png")
    dataset = open_folder(tmp_path / "photos")
    rows = fit(dataset, image_size=8)
    protected = ue.ProtectedDataset(dataset, rows, full_size=True)
    quality = {"quality": 90} if format == "jpeg" else {}
    with pytest.raises(ValueError, match=rf"at most .* a side .* got wide.* of {side:,}x2"):
        protected.export(tmp_path / "out", format, progress=False, **quality)
    assert not (tmp_path / "out").exists()
