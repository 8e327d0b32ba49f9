"""PNG files of photos: read back the same by others, with their EXIF data."""

import io
import zlib

import numpy as np
import pytest
from PIL import Image

from unlearnable.io import png
from unlearnable.io.png import save_png

SIZES = [(1, 1), (1, 300), (300, 1), (2, 3), (33, 17), (640, 421)]


def waves(width, height, channels):
    """A picture with flat parts, edges, waves and noise."""
    rows, columns = np.mgrid[:height, :width]
    picture = 128 + 90 * np.sin(columns / 9) * np.cos(rows / 15)
    picture = np.stack([picture, 255.0 * (columns > rows), 0 * picture], -1)[..., :channels]
    noise = np.random.default_rng(0).normal(0, 3, picture.shape)
    noise[: height // 3] = 0
    return np.clip(picture + noise, 0, 255).astype(np.uint8)


def as_picture(pixels):
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def written(picture, **options):
    file = io.BytesIO()
    save_png(picture, file, **options)
    return file.getvalue()


@pytest.mark.parametrize("block", [1, 1000, png._BLOCK])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", SIZES)
def test_others_read_the_same_pixels(size, channels, block, monkeypatch):
    monkeypatch.setattr(png, "_BLOCK", block)
    pixels = waves(*size, channels)
    file = written(as_picture(pixels))
    Image.open(io.BytesIO(file)).verify()  # checksums
    found = Image.open(io.BytesIO(file))
    assert (found.format, found.mode, found.size) == ("PNG", "L" if channels == 1 else "RGB", size)
    assert np.array_equal(np.asarray(found).reshape(pixels.shape), pixels)


@pytest.mark.parametrize("level", [0, 127, 128, 129, 255])
def test_differences_of_half_the_range_come_back(level):
    pixels = np.zeros((9, 9, 3), np.uint8)
    pixels[::2, 1::2] = level
    found = np.asarray(Image.open(io.BytesIO(written(Image.fromarray(pixels)))))
    assert np.array_equal(found, pixels)


def test_blocks_do_not_change_the_file(monkeypatch):
    picture = Image.fromarray(waves(200, 150, 3))
    whole = content(written(picture))
    monkeypatch.setattr(png, "_BLOCK", 700)
    assert content(written(picture)) == whole


def content(file):
    """The rows of a file, each after the number of its filter."""
    found, place = b"", 8
    while place < len(file):
        length, kind = int.from_bytes(file[place : place + 4], "big"), file[place + 4 : place + 8]
        found += file[place + 8 : place + 8 + length] if kind == b"IDAT" else b""
        place += 12 + length
    return zlib.decompress(found)


def test_rows_have_the_filter_that_leaves_least():
    columns = np.tile(np.random.default_rng(0).integers(0, 256, (1, 60, 3), np.uint8), (40, 1, 1))
    slopes = np.arange(60, dtype=np.uint8)[None, :, None] * np.ones((40, 1, 3), np.uint8)
    slopes[1::2] += 100
    for pixels, number in ((columns, 2), (slopes, 1)):
        filters = content(written(Image.fromarray(pixels)))[:: 1 + 60 * 3]
        assert set(filters[1:]) == {number}


def test_files_are_no_larger_than_pillows():
    pixels = waves(640, 421, 3).astype(np.int16)
    pixels += np.random.default_rng(1).integers(-4, 5, pixels.shape, np.int16)
    picture, other = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)), io.BytesIO()
    picture.save(other, "PNG")
    assert len(written(picture)) < 1.02 * len(other.getvalue())


def test_exif_data_is_kept(tmp_path):
    exif = Image.Exif()
    exif[0x010E] = "the sea"
    path = tmp_path / "sea.png"
    save_png(Image.new("L", (5, 4), 7), path, exif.tobytes())
    with Image.open(path) as found:
        assert found.getexif()[0x010E] == "the sea"


def test_a_write_that_fails_leaves_no_file(tmp_path, monkeypatch):
    monkeypatch.setattr(png, "_filtered", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        save_png(Image.new("L", (5, 4), 7), tmp_path / "sea.png")
    assert not list(tmp_path.iterdir())
