"""Exports as JPEG and as lossy WebP: what is left of the change, and how they are verified."""

import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageFile, JpegImagePlugin
from torchvision.datasets import ImageFolder

import unlearnable as ue
from unlearnable.cli.main import main
from unlearnable.data.fingerprint import image_key
from unlearnable.data.image import pixels_of
from unlearnable.datasets import Shapes
from unlearnable.protected.export import EXPORT_FORMATS, check_target
from unlearnable.protected.manifest import Seal
from unlearnable.protected.share_left import ShareLeft
from unlearnable.protected.verify import verify

FILES = "unlearnable-files.csv"
TABLES = [[min(255, 3 + 2 * place) for place in range(64)], [7] * 64]


def smooth(size, seed):
    patches = np.random.default_rng(seed).integers(40, 216, (3, 4, 3), dtype=np.uint8)
    return Image.fromarray(patches).resize(size, Image.Resampling.BILINEAR)


@pytest.fixture
def photos(tmp_path):
    """Six JPEG photos of three sizes and two classes."""
    for index in range(6):
        folder = tmp_path / "photos" / f"class{index % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        image = smooth([(48, 32), (32, 48), (40, 40)][index % 3], index)
        image.save(folder / f"photo {index}.jpg", quality=90, subsampling=2)
    return ImageFolder(tmp_path / "photos")


@pytest.fixture
def made(photos):
    return ue.RandomNoise().fit(photos, device="cpu", image_size=16, progress=False)


def export(made, photos, folder, format="jpeg", quality=90, **options):
    protected = ue.ProtectedDataset(photos, made.perturbation_, full_size=True)
    return protected.export(folder, format, quality=quality, progress=False, **options)


def lossy(folder):
    return json.loads((folder / "unlearnable.json").read_text())["lossy"]


def check(*arguments):
    return verify(*arguments, progress=False)


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"), np.int64).transpose(2, 0, 1)


def pairs(made, photos, folder):
    """Clean, protected and written pixels of each file, by another way than the package's."""
    protected = ue.ProtectedDataset(photos, made.perturbation_, full_size=True)
    for (path, label), (clean, added) in zip(
        photos.samples, protected.pixel_pairs(range(len(photos))), strict=True
    ):
        written = next((folder / photos.classes[label]).glob(f"{Path(path).stem}.*"))
        yield clean.astype(np.int64), added.astype(np.int64), pixels(written)


def share_by_hand(triples):
    along = sum(((c - a) * (b - a)).sum() for a, b, c in triples)
    return along / sum(((b - a) ** 2).sum() for a, b, _ in triples)


# --- what is measured ----------------------------------------------------------------------------


def image(*levels):
    return np.array(levels, np.uint8).reshape(1, 1, -1)


@pytest.mark.parametrize(
    ("changed", "share"),
    [
        (image(14, 96), 1.0),  # all of it: +4 and -4
        (image(10, 100), 0.0),  # the clean image
        (image(12, 98), 0.5),
        (image(6, 104), -1.0),  # the opposite
        (image(14, 100), 0.5),  # all of one, nothing of the other
        (image(14 + 3, 96 + 3), 1.0),  # what else changes, evenly, is no part of it
    ],
)
def test_the_share_that_is_left(changed, share):
    left = ShareLeft()
    assert left.add(image(10, 100), image(14, 96), changed) == left.share == share


def test_the_share_of_several_images_is_of_all_values_together(monkeypatch):
    for strip in (1, 7, 1 << 20):
        monkeypatch.setattr("unlearnable.protected.share_left._STRIP", strip)
        rng, left = np.random.default_rng(0), ShareLeft()
        triples = [rng.integers(0, 256, (3, 3, height, 5), np.uint8) for height in (4, 9, 1)]
        for triple in triples:
            left.add(*triple)
        wide = [triple.astype(np.int64) for triple in triples]
        assert left.share == pytest.approx(share_by_hand(wide), rel=1e-12)
        error = sum(((b - c) ** 2).sum() for _, b, c in wide) / sum(a.size for a, _, _ in wide)
        assert left.psnr == pytest.approx(10 * np.log10(255**2 / error), rel=1e-12)


def test_nothing_added_leaves_no_share():
    left = ShareLeft()
    assert left.add(image(1, 2), image(1, 2), image(9, 9)) is None is left.share
    assert left.psnr is not None
    same = ShareLeft()
    same.add(image(1), image(3), image(3))
    assert same.share == 1 and same.psnr is None


# --- exports -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("format", "quality"), [("jpeg", 95), ("jpeg", 60), ("webp", 90)])
def test_an_export_measures_its_own_files(made, photos, tmp_path, format, quality):
    folder = export(made, photos, tmp_path / "out", format, quality)
    triples = list(pairs(made, photos, folder))
    found = lossy(folder)
    assert (found["format"], found["quality"]) == (format, quality)
    assert found["share_left"] == pytest.approx(share_by_hand(triples), abs=5e-5)
    error = sum(((b - c) ** 2).sum() for _, b, c in triples) / sum(a.size for a, _, _ in triples)
    assert found["psnr"] == pytest.approx(10 * np.log10(255**2 / error), abs=5e-3)
    ending = "jpg" if format == "jpeg" else format
    written = sum(path.stat().st_size for path in folder.rglob(f"*.{ending}"))
    before = sum(Path(path).stat().st_size for path, _ in photos.samples)
    assert found["size"] == pytest.approx(written / before, abs=5e-4)


def test_a_higher_quality_leaves_more(made, photos, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        left = [
            lossy(export(made, photos, tmp_path / f"q{quality}", quality=quality))["share_left"]
            for quality in (10, 50, 80, 95, 100)
        ]
    assert left == sorted(left) and left[0] < 0.5 < 0.9 < left[-1] < 1.05


def test_colour_is_not_halved_and_files_are_progressive(made, photos, tmp_path):
    folder = export(made, photos, tmp_path / "out")
    for path in folder.rglob("*.jpg"):
        original = Path(photos.root) / path.relative_to(folder)
        with Image.open(path) as read, Image.open(original) as before:
            assert JpegImagePlugin.get_sampling(read) == 0 and read.info["progressive"]
            assert read.size == before.size


def test_less_than_half_is_warned_of(made, photos, tmp_path):
    with pytest.warns(UserWarning, match=r"only \d+% of the change is left in these jpeg files"):
        export(made, photos, tmp_path / "low", quality=10)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        export(made, photos, tmp_path / "high", quality=95)


def test_the_original_quality_takes_the_tables_of_each_photo(tmp_path):
    places = [tmp_path / "photos" / "c" / name for name in ("a.jpg", "b.jpeg", "c.png", "d.jpg")]
    places[0].parent.mkdir(parents=True)
    smooth((40, 32), 0).save(places[0], "JPEG", qtables=TABLES, subsampling=2)
    smooth((40, 32), 1).save(places[1], "JPEG", quality=40, subsampling=1)
    smooth((40, 32), 2).save(places[2], "PNG")
    smooth((40, 32), 3).convert("L").save(places[3], "JPEG", quality=70)
    photos = ImageFolder(tmp_path / "photos")
    made = ue.RandomNoise().fit(photos, device="cpu", image_size=16, progress=False)
    folder = export(made, photos, tmp_path / "out", quality="original")
    smooth((40, 32), 2).save(tmp_path / "95.jpg", quality=95)
    tables = []
    for name in ("a", "b", "c", "d"):
        with Image.open(folder / "c" / f"{name}.jpg") as read:
            tables.append(read.quantization)
            assert JpegImagePlugin.get_sampling(read) == 0
    assert tables[0] == dict(enumerate(TABLES))
    for place, found in ((places[1], tables[1]), (tmp_path / "95.jpg", tables[2])):
        with Image.open(place) as read:
            assert found == read.quantization
    with Image.open(places[3]) as read:
        assert tables[3][0] == read.quantization[0]
    assert lossy(folder)["quality"] == "original"


def test_sizes_at_the_quality_of_the_originals(made, photos, tmp_path):
    assert lossy(export(made, photos, tmp_path / "out", quality="original"))["size"] < 1.5


def test_noise_of_the_highest_quality_has_room(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (2, 96, 640, 3), dtype=np.uint8)
    images = [Image.fromarray(pixels) for pixels in noise]
    made = ue.RandomNoise().fit((images, [0, 1]), device="cpu", progress=False)
    before = ImageFile.MAXBLOCK
    for quality in (95, 100):
        folder = made.protect((images, [0, 1])).export(
            tmp_path / f"q{quality}", "jpeg", quality=quality, progress=False
        )
        assert lossy(folder)["size"] is None and lossy(folder)["share_left"] > 0.6
    assert before == ImageFile.MAXBLOCK


def test_arrays_are_written_too_and_grey_ones_as_grey(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (4, 24, 24), dtype=np.uint8)
    dataset = ([Image.fromarray(pixels) for pixels in images], [0, 1, 0, 1])
    made = ue.RandomNoise().fit(dataset, device="cpu", progress=False)
    folder = made.protect(dataset).export(tmp_path / "out", "jpeg", quality=95, progress=False)
    assert sorted(path.name for path in folder.rglob("*.jpg")) == [f"{i}.jpg" for i in range(4)]
    with Image.open(folder / "0" / "0.jpg") as read:
        assert read.mode == "L"
    assert check(folder, made.perturbation_).whole
    assert check(folder, made.perturbation_, dataset).whole


def test_nothing_protected_says_so(made, photos, tmp_path):
    clean = ue.ProtectedDataset(photos, made.perturbation_, fraction=0)
    folder = clean.export(tmp_path / "out", "jpeg", quality=90, progress=False)
    assert lossy(folder)["share_left"] is None
    found = check(folder, made.perturbation_)
    assert found.counts["clean"] == 6 and found.lossy is None


@pytest.mark.parametrize("format", ["jpeg", "webp"])
def test_metadata_is_kept_where_it_is_asked_for(tmp_path, format):
    path = tmp_path / "photos" / "c" / "a.jpg"
    path.parent.mkdir(parents=True)
    exif = Image.Exif()
    exif[ExifTags.Base.Artist], exif[ExifTags.Base.Orientation] = "Ada", 6
    smooth((40, 32), 0).save(path, exif=exif)
    photos = ImageFolder(tmp_path / "photos")
    made = ue.RandomNoise(granularity="class-wise")
    made.fit(photos, device="cpu", image_size=16, progress=False)
    for keep in (True, False):
        folder = export(made, photos, tmp_path / f"out{keep}", format, metadata=keep)
        (written,) = (path for path in folder.rglob("a.*"))
        with Image.open(written) as read:
            assert read.size == (32, 40)
            assert dict(read.getexif()) == ({ExifTags.Base.Artist: "Ada"} if keep else {})
        assert check(folder, made.perturbation_).whole


def test_exif_that_a_jpeg_has_no_room_for_is_left_out_with_a_warning(tmp_path):
    path = tmp_path / "photos" / "c" / "a.png"
    path.parent.mkdir(parents=True)
    exif = Image.Exif()
    exif[ExifTags.Base.ImageDescription] = "x" * 70_000
    smooth((40, 32), 0).save(path, exif=exif)
    photos = ImageFolder(tmp_path / "photos")
    made = ue.RandomNoise(granularity="class-wise")
    made.fit(photos, device="cpu", image_size=16, progress=False)
    with pytest.warns(UserWarning, match=r"a\.jpg keeps no EXIF"):
        folder = export(made, photos, tmp_path / "out", metadata=True)
    with Image.open(folder / "c" / "a.jpg") as read:
        assert not dict(read.getexif())


@pytest.mark.parametrize(
    ("format", "quality", "message"),
    [
        ("jpeg", None, r"lossless format.*JPEG also changes.*--quality"),
        ("jpg", 90, r"lossless format.*\"jpeg\" needs a quality"),
        ("png", 90, r"no quality \(--quality\) with the format 'png', which is lossless, got 90"),
        ("npz", "original", r"no quality .* 'npz'"),
        ("jpeg", 0, r"1 to 100 or \"original\", got 0"),
        ("jpeg", 101, r"1 to 100 or \"original\", got 101"),
        ("jpeg", True, r"1 to 100 or \"original\", got True"),
        ("jpeg", 90.5, r"1 to 100 or \"original\", got 90.5"),
        ("jpeg", "high", r"1 to 100 or \"original\", got 'high'"),
        ("webp", "original", r"from 1 to 100, got 'original'"),
        ("gif", 90, r"lossless format"),
    ],
)
def test_qualities_that_are_refused(made, photos, tmp_path, format, quality, message):
    with pytest.raises(ValueError, match=message):
        export(made, photos, tmp_path / "out", format, quality)
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


def test_the_original_quality_of_images_that_are_no_files_is_refused(tmp_path):
    shapes = Shapes(size=10)
    made = ue.RandomNoise().fit(shapes, device="cpu", progress=False)
    for attempt in (
        lambda: export(made, shapes, tmp_path / "out", quality="original"),
        lambda: check_target(tmp_path / "out", "jpeg", quality="original", dataset=shapes),
    ):
        with pytest.raises(ValueError, match=r"from 1 to 100 for images of a Shapes, got \"orig"):
            attempt()
    assert not list(tmp_path.iterdir())


def test_lossless_exports_say_nothing_of_losses(made, photos, tmp_path):
    for format in sorted({*EXPORT_FORMATS} - {"cifar", "npz"}):
        folder = export(made, photos, tmp_path / format, format, None)
        assert "lossy" not in json.loads((folder / "unlearnable.json").read_text())


def test_the_same_images_give_the_same_bytes(made, photos, tmp_path):
    one, other = (export(made, photos, tmp_path / name) for name in ("one", "other"))
    files = [path.relative_to(one) for path in one.rglob("*") if path.is_file()]
    assert len(files) == 8
    assert all((one / file).read_bytes() == (other / file).read_bytes() for file in files)


# --- verification --------------------------------------------------------------------------------


@pytest.mark.parametrize(("format", "quality"), [("jpeg", 90), ("jpeg", "original"), ("webp", 90)])
def test_files_of_a_lossy_export_are_recognised(made, photos, tmp_path, format, quality):
    folder = export(made, photos, tmp_path / "out", format, quality)
    stated = lossy(folder)["share_left"]
    found = check(folder, made.perturbation_)
    assert found.whole and found.counts["protected"] == 6
    assert found.lossy == {
        "format": format, "quality": quality, "share_left": stated, "measured": False,
    }  # fmt: skip
    which = "the originals' quality" if quality == "original" else f"quality {quality}"
    line = f"{stated:.0%} of the change is left in {format.upper()} at {which} (as recorded"
    assert line in str(found) and found.to_dict()["lossy"] == found.lossy
    found = check(folder, made.perturbation_, photos)
    assert found.whole and found.lossy["measured"] and found.lossy["share_left"] == stated
    assert "(measured against the originals)" in str(found)
    by_hand = [share_by_hand([triple]) for triple in pairs(made, photos, folder)]
    assert sorted(found.lossy["files"]) == sorted(found.files)
    assert sorted(found.lossy["files"].values()) == pytest.approx(sorted(by_hand), abs=5e-5)


def test_keys_are_those_of_the_decoded_files(made, photos, tmp_path):
    folder = export(made, photos, tmp_path / "out")
    seal = Seal(made.perturbation_)
    lines = [line.split(",") for line in (folder / FILES).read_text().splitlines()[1:]]
    assert [line[0] for line in lines] == [
        f"{photos.classes[label]}/{Path(path).name}" for path, label in photos.samples
    ]
    for file, key, state, _ in lines:
        with Image.open(folder / file) as read:
            assert key == seal.key(image_key(pixels_of(read.convert("RGB"))))
        assert state == seal.state(file, key, protected=True)


@pytest.mark.parametrize("given", [False, True])
def test_other_files_in_a_lossy_export_are_told_apart(made, photos, tmp_path, given):
    folder = export(made, photos, tmp_path / "out")
    again, original, moved, gone, *_ = sorted(folder.rglob("*.jpg"))
    with Image.open(again) as read:
        read.load()
        read.save(again, quality=50)  # a site's recompression
    shutil.copy(Path(photos.root) / original.relative_to(folder), original)
    moved.rename(folder / "class1" / "renamed.jpg")
    gone.unlink()
    smooth((20, 20), 99).save(folder / "class0" / "foreign.png")
    found = check(folder, made.perturbation_, *([photos] if given else []))
    named = {Path(file).name: state for file, state in found.files.items()}
    assert named.pop(again.name) == "changed" and named.pop(original.name) == "clean"
    assert named.pop("foreign.png") == "unknown"
    assert named.pop("renamed.jpg") == "protected"
    assert set(named.values()) == {"protected"} and not found.whole
    assert found.lossy["measured"] == given and 0.5 < found.lossy["share_left"] < 1.1
    assert len(found.missing) == 3


def test_unprotected_shares_are_found(made, photos, tmp_path):
    half = ue.ProtectedDataset(photos, made.perturbation_, fraction=0.5)
    folder = half.export(tmp_path / "out", "jpeg", quality=95, progress=False)
    for originals in ([], [photos]):
        found = check(folder, made.perturbation_, *originals)
        assert found.counts == {"protected": 3, "clean": 3, "changed": 0, "unknown": 0}


def test_the_originals_have_to_be_those_of_the_files(made, photos, tmp_path):
    folder = export(made, photos, tmp_path / "out")
    some = ImageFolder(photos.root, is_valid_file=lambda path: "photo 0" not in path)
    found = check(folder, made.perturbation_, some)
    assert found.files.pop("class0/photo 0.jpg") == "changed"
    assert set(found.files.values()) == {"protected"}


def test_another_perturbation_recognises_nothing(made, photos, tmp_path):
    folder = export(made, photos, tmp_path / "out")
    other = ue.RandomNoise(seed=5).fit(photos, device="cpu", image_size=16, progress=False)
    for originals in ([], [photos]):
        found = check(folder, other.perturbation_, *originals)
        assert found.counts["protected"] == 0 and found.lossy is None


def test_a_recompressed_lossless_export_is_not_protected(made, photos, tmp_path):
    folder = export(made, photos, tmp_path / "out", "png", None)
    for path in sorted(folder.rglob("*.png")):
        with Image.open(path) as read:
            read.save(path.with_suffix(".jpg"), quality=95)
        path.unlink()
    for originals in ([], [photos]):
        found = check(folder, made.perturbation_, *originals)
        assert found.counts["changed"] == 6 and "lossy" not in found.to_dict()


def test_images_that_are_there_twice(tmp_path):
    twice = [smooth((32, 32), 0), smooth((32, 32), 0), smooth((32, 32), 1)]
    dataset = (twice, [0, 0, 1])
    made = ue.RandomNoise().fit(dataset, device="cpu", progress=False)
    folder = made.protect(dataset).export(tmp_path / "out", "jpeg", quality=95, progress=False)
    found = check(folder, made.perturbation_, dataset)
    assert found.whole and len(found.lossy["files"]) == 3
    assert found.lossy["share_left"] == pytest.approx(lossy(folder)["share_left"], abs=1e-4)


# --- the command line ----------------------------------------------------------------------------


def run(capsys, *arguments):
    code = main([*map(str, arguments)])
    return code, *capsys.readouterr()


LEARN = ("--method", "randomnoise", "--image-size", 16, "--device", "cpu", "--quiet")


def test_the_command_line_says_what_is_left(photos, tmp_path, capsys):
    out, saved = tmp_path / "out", tmp_path / "p"
    options = (*LEARN, "--visibility", "full", "--save-perturbation", saved)
    code, said, err = run(
        capsys, "protect", photos.root, out, "--format", "JPG", "--quality", 90, *options
    )
    assert code == 0, err
    share = lossy(out)["share_left"]
    assert f"JPEG at quality 90 keeps {share:.0%} of the change; the files are " in said
    assert "times as large as the photos." in said and "PSNR" not in said
    code, said, _ = run(capsys, "verify", out, saved, "--originals", photos.root, "--json")
    shown = json.loads(said)
    assert code == 0 and shown["whole"] and shown["lossy"]["share_left"] == share
    code, said, _ = run(capsys, "verify", out, saved)
    assert code == 0 and f"{share:.0%} of the change is left in JPEG at quality 90" in said
    options = ("--format", "jpeg", "--quality", "Original", "--force", "--perturbation", saved)
    code, _, err = run(capsys, "protect", photos.root, out, "--quiet", *options)
    assert code == 0 and lossy(out)["quality"] == "original", err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--format", "jpeg"), "--quality"),
        (("--quality", "90"), "no quality (--quality) with the format 'png'"),
        (("--format", "webp", "--quality", "original"), "from 1 to 100, got 'original'"),
        (("--format", "jpeg", "--quality", "200"), "from 1 to 100"),
        (("--format", "jpeg", "--quality", "-5"), "from 1 to 100"),
    ],
)
def test_the_command_line_refuses_before_it_learns(photos, tmp_path, capsys, options, message):
    code, _, err = run(capsys, "protect", photos.root, tmp_path / "out", *LEARN, *options)
    assert code == 1 and message in err and err.count("\n") == 1
    assert not (tmp_path / "out").exists()
