"""Exports in other people's formats, each read back by its own reader."""

import contextlib
import errno
import io
import json
import shutil
import tarfile
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image
from torch.utils.data import Subset
from torchvision.datasets import CIFAR10, ImageFolder

from unlearnable import ProtectedDataset, RandomNoise
from unlearnable.cli.main import main
from unlearnable.data.fingerprint import image_key
from unlearnable.data.photo import ON_WHITE, UPRIGHT, PhotoReader
from unlearnable.data.raw import RawDataset
from unlearnable.datasets import Shapes
from unlearnable.protected.export import EXPORT_FORMATS, image_files
from unlearnable.protected.export.arrays import write_cifar
from unlearnable.protected.manifest import Seal

UNSAFE = [
    "T-shirt/top",
    "..",
    "/etc",
    "../../outside",
    "C:\\windows",
    "",
    "same\0",
    "é",
    ".",
    "日本",
]


class Arrays(torch.utils.data.Dataset):
    def __init__(self, data, targets, classes=None):
        self.data, self.targets, self.classes = data, list(targets), classes

    def __len__(self):
        return len(self.data)

    def __getitem__(self, index):
        return Image.fromarray(self.data[index]), self.targets[index]


class ExportedCIFAR10(CIFAR10):
    """torchvision's own, which checks that files are there, and not what is in them."""

    train_list = [[name, None] for name, _ in CIFAR10.train_list]  # noqa: RUF012
    test_list = []  # noqa: RUF012
    meta = {**CIFAR10.meta, "md5": None}  # noqa: RUF012


@pytest.fixture(scope="module")
def protected(shapes, perturbation):
    return ProtectedDataset(shapes, perturbation)


@pytest.fixture(scope="module")
def images(protected):
    """Protected pixels, uint8 (N, H, W, C)."""
    return protected.to_tensors()[0].numpy().transpose(0, 2, 3, 1)


def made(fit, shape, classes=None, count=12):
    data = np.random.default_rng(0).integers(0, 256, (count, *shape), dtype=np.uint8)
    dataset = Arrays(data, range(count), classes)
    return ProtectedDataset(dataset, fit(dataset))


def tree(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


# --- npz -----------------------------------------------------------------------------------------


def test_npz(protected, images, tmp_path):
    folder = protected.export(tmp_path / "out", "npz")
    assert sorted(tree(folder)) == ["images.npz", "unlearnable.json"]
    with np.load(folder / "images.npz", allow_pickle=False) as read:
        assert sorted(read) == ["classes", "images", "labels"]
        np.testing.assert_array_equal(read["images"], images)
        assert read["images"].dtype == np.uint8
        assert read["labels"].dtype == np.int64 and read["labels"].tolist() == protected.targets
        assert read["classes"].tolist() == protected.classes


def test_npz_of_grey_images_without_names(fit, tmp_path):
    protected = made(fit, (8, 6))
    folder = protected.export(tmp_path / "out", "npz")
    with np.load(folder / "images.npz") as read:
        assert sorted(read) == ["images", "labels"] and read["images"].shape == (12, 8, 6, 1)
        np.testing.assert_array_equal(read["images"][5, ..., 0], np.asarray(protected[5][0]))


def test_npz_of_images_of_two_shapes_is_refused(varying_folder, class_wise, tmp_path):
    grey = np.zeros((2, 32, 32), np.uint8)
    colour = np.zeros((2, 32, 32, 3), np.uint8)
    dataset = Arrays([*grey, *colour], [0, 1, 2, 3], Shapes.classes)
    clean = ProtectedDataset(dataset, class_wise)  # of colour: grey images become colour ones
    clean.export(tmp_path / "colour", "npz")
    rows = class_wise.rows[:, :1]
    config = class_wise.config | {"image_shape": [1, 32, 32]}
    of_grey = type(class_wise)(np.ascontiguousarray(rows), config)
    with pytest.raises(ValueError, match=r"image 2 .*for images of any size"):
        ProtectedDataset(dataset, of_grey).export(tmp_path / "out", "npz")
    assert [path.name for path in tmp_path.iterdir() if path.name != "varying"] == ["colour"]


# --- CIFAR ---------------------------------------------------------------------------------------


def test_cifar(protected, images, tmp_path):
    folder = protected.export(tmp_path / "out", "cifar")
    read = ExportedCIFAR10(folder)
    np.testing.assert_array_equal(read.data, images)
    assert read.targets == protected.targets
    assert read.classes == protected.classes and read.class_to_idx == protected.class_to_idx
    with pytest.raises(RuntimeError, match="corrupted"):
        CIFAR10(folder)


def test_cifar_asks_for_the_classes_once_and_before_it_writes(protected, tmp_path, monkeypatch):
    asked = []
    count = property(lambda raw: asked.append(list(tmp_path.iterdir())) or 10)
    monkeypatch.setattr(RawDataset, "num_classes", count)
    write_cifar(protected._raw, protected._exported(PhotoReader(exif=False, gps=False)), tmp_path)
    assert asked == [[]]


def test_cifar_of_few_images_without_names(fit, tmp_path):
    protected = made(fit, (32, 32, 3), count=3)
    read = ExportedCIFAR10(protected.export(tmp_path / "out", "cifar"))
    assert read.classes == ["0", "1", "2"] and read.targets == [0, 1, 2]
    np.testing.assert_array_equal(np.asarray(read[2][0]), np.asarray(protected[2][0]))


@pytest.mark.parametrize(
    ("shape", "count", "message"),
    [
        ((32, 32, 3), 11, "at most 10 classes .*, got 11"),
        ((32, 32), 3, "got 32x32 with 1 channel for image 0"),
        ((32, 30, 3), 3, "got 30x32 with 3 channels"),
    ],
)
def test_cifar_that_does_not_fit_is_refused(shape, count, message, fit, tmp_path):
    with pytest.raises(ValueError, match=message):
        made(fit, shape, count=count).export(tmp_path / "out", "cifar")
    assert list(tmp_path.iterdir()) == []


def test_command_line_refuses_before_it_fits(tmp_path, capsys):
    for index in range(11):
        (tmp_path / "in" / f"class{index:02d}").mkdir(parents=True)
        Image.new("RGB", (32, 32)).save(tmp_path / "in" / f"class{index:02d}" / "a.png")
    arguments = ["protect", str(tmp_path / "in"), str(tmp_path / "out"), "--format", "cifar"]
    assert main(arguments) == 1
    assert "at most 10 classes" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_command_line(tmp_path, perturbation, images):
    perturbation.save_pretrained(tmp_path / "p")
    arguments = ["protect", "shapes:40", str(tmp_path / "out"), "--quiet", "--format", "cifar"]
    assert main([*arguments, "--perturbation", str(tmp_path / "p")]) == 0
    np.testing.assert_array_equal(ExportedCIFAR10(tmp_path / "out").data, images)


# --- WebDataset ----------------------------------------------------------------------------------


@pytest.mark.parametrize("shard", [1, 20_000, 1 << 28])
def test_webdataset(protected, images, tmp_path, monkeypatch, shard):
    monkeypatch.setattr(image_files, "SHARD_BYTES", shard)
    folder = protected.export(tmp_path / "out", "webdataset")
    shards = json.loads((folder / "unlearnable.json").read_text())["shards"]
    assert sorted(tree(folder)) == [*shards, "unlearnable.json"]
    assert len(shards) == 40 if shard == 1 else len(shards) < 10
    keys = []
    for name in shards:
        with tarfile.open(folder / name) as tar:
            names = tar.getnames()
            assert names == sorted(names) and len(names) % 2 == 0
            keys += [name.removesuffix(".png") for name in names if name.endswith(".png")]
            assert all(m.mtime == m.uid == m.gid == 0 and not m.uname for m in tar)
            for key in (name.removesuffix(".png") for name in names if name.endswith(".png")):
                png = tar.extractfile(f"{key}.png").read()
                np.testing.assert_array_equal(
                    np.asarray(Image.open(io.BytesIO(png))), images[int(key)]
                )
    assert keys == [f"{index:06d}" for index in range(40)]


def test_webdataset_by_its_own_reader(protected, images, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import webdataset as wds

        folder = protected.export(tmp_path / "out", "webdataset")
        files = [str(path) for path in sorted(folder.glob("*.tar"))]
        read = list(wds.WebDataset(files, shardshuffle=False).decode("rgb8").to_tuple("png", "cls"))
    np.testing.assert_array_equal(np.stack([image for image, _ in read]), images)
    assert [label for _, label in read] == protected.targets


# --- all -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", sorted(EXPORT_FORMATS))
def test_the_same_images_give_the_same_bytes(format, protected, tmp_path):
    one = protected.export(tmp_path / "one", format)
    other = protected.export(tmp_path / "other", format)
    assert tree(one) == tree(other)
    described = json.loads((one / "unlearnable.json").read_text())
    assert described["perturbation_id"] == Seal(protected.perturbation).perturbation_id
    assert described["classes"] == protected.classes and described["images"] == 40
    assert one.stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("format", sorted(EXPORT_FORMATS))
def test_no_class_name_leads_out_of_the_folder(format, fit, tmp_path):
    protected = made(fit, (32, 32, 3), UNSAFE, count=10)
    told = pytest.warns(UserWarning, match="10 of 10 class folders could not be named")
    with told if format in ("png", "webp") else contextlib.nullcontext():
        folder = protected.export(tmp_path / "place" / "out", format)
    assert all(
        path.relative_to(tmp_path).parts[:2] == ("place", "out")
        for path in tmp_path.rglob("*.*")
        if path.is_file()
    )
    assert json.loads((folder / "unlearnable.json").read_text())["classes"] == UNSAFE
    if format == "webdataset":
        with tarfile.open(folder / "shard-000000.tar") as tar:
            assert all("/" not in name for name in tar.getnames())


@pytest.mark.parametrize("format", sorted(EXPORT_FORMATS))
def test_failure_midway_leaves_nothing(format, protected, tmp_path, monkeypatch):
    read = RawDataset.batches
    seen = []

    def fail(self, indices):
        for batch in read(self, indices):
            seen.extend(batch.indices)
            if len(seen) >= 20:
                raise OSError("No space left on device")
            yield batch

    monkeypatch.setattr(RawDataset, "batches", fail)
    with pytest.raises(OSError, match="No space left"):
        protected.export(tmp_path / "out", format)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("format", sorted(EXPORT_FORMATS))
@pytest.mark.parametrize("force", [False, True])
def test_a_link_in_place_of_the_folder_is_not_followed(format, force, protected, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    for target in ("elsewhere", "nowhere"):
        link = tmp_path / "out"
        link.symlink_to(tmp_path / target)
        with pytest.raises(FileExistsError, match="symbolic link"):
            protected.export(link, format, force=force)
        assert link.is_symlink() and not list((tmp_path / "elsewhere").iterdir())
        link.unlink()
    assert not (tmp_path / "nowhere").exists()


LINKED = {
    "cifar": ["cifar-10-batches-py", "cifar-10-batches-py/data_batch_1"],
    "npz": ["images.npz", "unlearnable.json"],
    "parquet": ["data", "data/train-00000-of-00001.parquet"],
    "png": ["arrow", "unlearnable.json"],
    "webdataset": ["shard-000000.tar"],
    "webp": ["star"],
}


@pytest.mark.parametrize(
    ("format", "place"), [(f, p) for f, places in LINKED.items() for p in places]
)
@pytest.mark.parametrize("there", [True, False])
def test_a_link_inside_a_foreign_folder_is_not_followed(format, place, there, protected, tmp_path):
    link = tmp_path / "out" / place
    link.parent.mkdir(parents=True)
    elsewhere = tmp_path / "elsewhere"
    if there and "." not in place and not place.endswith("1"):
        elsewhere.mkdir()
    elif there:
        elsewhere.write_text("mine")
    link.symlink_to(elsewhere)
    with pytest.raises(FileExistsError, match=r"got a symbolic link in .* never overwritten"):
        protected.export(tmp_path / "out", format, force=True)
    assert link.readlink() == elsewhere
    assert [path for path in (tmp_path / "out").rglob("*") if path != link and path.is_file()] == []
    assert (
        (not there and not elsewhere.exists())
        or elsewhere.is_dir()
        or elsewhere.read_text() == "mine"
    )
    if elsewhere.is_dir():
        assert not list(elsewhere.iterdir())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["elsewhere", "out"][not there :]


def test_a_link_to_the_marker_of_an_export_does_not_make_a_folder_ours(protected, tmp_path):
    protected.export(tmp_path / "one", "npz")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    (tmp_path / "out" / "unlearnable.json").symlink_to(tmp_path / "one" / "unlearnable.json")
    with pytest.raises(FileExistsError, match="symbolic link"):
        protected.export(tmp_path / "out", "npz", force=True)
    assert (tmp_path / "out" / "mine.txt").read_text() == "mine"


def test_another_format_replaces_an_earlier_export(protected, tmp_path):
    protected.export(tmp_path / "out")
    protected.export(tmp_path / "out", "npz", force=True)
    assert sorted(tree(tmp_path / "out")) == ["images.npz", "unlearnable.json"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("format", sorted(EXPORT_FORMATS))
def test_exports_tell_neither_seeds_nor_digests_nor_keys(format, shapes, tmp_path):
    method = RandomNoise(seed=987654321).fit(shapes, device="cpu", progress=False)
    protected = method.protect(shapes, fraction=0.5, seed=123456789)
    folder = protected.export(tmp_path / "out", format)
    written = (folder / "unlearnable.json").read_text()
    assert "seed" not in written and "digest" not in written
    if format in ("png", "webp"):
        written += (folder / "unlearnable-files.csv").read_text()
    plain = [image_key(pixels.numpy()) for pixels in protected.to_tensors()[0]]
    hidden = [f"{key:016x}" for key in [*plain, *method.perturbation_.keys.tolist()]]
    hidden += [method.perturbation_.digest, "987654321", "123456789"]
    assert [secret for secret in hidden if secret in written] == []


class Listing(Arrays):
    """Has ``samples``, which need not be those of an ImageFolder."""

    def __init__(self, samples, root=None):
        data = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
        super().__init__(data, [0, 1, 0, 1])
        self.samples = samples
        if root is not None:
            self.root = root


ODD = {
    "identifiers": [("id0", 0), ("id1", 1), ("id2", 0), ("id3", 1)],
    "numbers": [(0, 0), (1, 1), (2, 0), (3, 1)],
    "names alone": ["a.png", "b.png", "c.png", "d.png"],
    "fewer": [("a.png", 0)],
    "dicts": [{"path": "a.png"}] * 4,
    "empty": [()] * 4,
    "not paths": [("a\0", 0), ("", 1), (None, 0), (b"x", 1)],
    "array": np.zeros((4, 2)),
    "none": None,
}


@pytest.mark.parametrize("format", ["png", "npz"])
@pytest.mark.parametrize("samples", ODD)
def test_samples_of_another_kind_are_not_taken_for_files(samples, format, fit, tmp_path):
    for place, root in (("a", None), ("b", tmp_path), ("c", 5)):
        dataset = Listing(ODD[samples], root)
        protected = ProtectedDataset(dataset, fit(dataset))
        options = {"metadata": True} if format == "png" else {}
        folder = protected.export(tmp_path / place, format, **options)
        assert described(folder)["notes"] == {}
        assert RawDataset(dataset).path(3) is None
        if format == "png":
            assert sorted(path.name for path in folder.rglob("*.png")) == [
                f"{index}.png" for index in range(4)
            ]


def test_files_that_are_no_photos_have_no_metadata(fit, tmp_path):
    paths = [tmp_path / "in" / f"{index}.npy" for index in range(4)]
    paths[0].parent.mkdir()
    for path in paths:
        np.save(path, np.zeros(3))
    dataset = Listing([(path, 0) for path in paths], tmp_path / "in")
    assert RawDataset(dataset).path(3) == paths[3]
    protected = ProtectedDataset(dataset, fit(dataset))
    with pytest.raises(ValueError, match="originals are never overwritten"):
        protected.export(tmp_path / "in" / "out", metadata=True)
    assert described(protected.export(tmp_path / "out", metadata=True))["notes"] == {}


def test_errors_of_a_dataset_with_other_samples_stay_as_they_are():
    class Broken(Listing):
        def __getitem__(self, index):
            raise KeyError(f"nothing at {index}")

    with pytest.raises(KeyError, match="nothing at 2"):
        RawDataset(Broken(ODD["identifiers"]))[2]


# --- over an earlier export ----------------------------------------------------------------------


def described(folder):
    return json.loads((folder / "unlearnable.json").read_text())


def listing(folder, *names):
    """Makes an earlier export list these files too."""
    content = described(folder)
    content["files"] += names
    (folder / "unlearnable.json").write_text(json.dumps(content))


@pytest.mark.parametrize("format", sorted(EXPORT_FORMATS))
def test_an_export_lists_what_it_wrote(format, protected, tmp_path):
    folder = protected.export(tmp_path / "out", format)
    found = described(folder)["files"]
    assert [name for name in found if not name.endswith("/")] == sorted(
        name for name in tree(folder) if name != "unlearnable.json"
    )
    assert {name for name in found if name.endswith("/")} == {
        f"{path.relative_to(folder)}/" for path in folder.rglob("*") if path.is_dir()
    }


@pytest.mark.parametrize("format", ["npz", "png", "webp"])
def test_files_beside_an_earlier_export_stay(format, protected, tmp_path):
    folder = protected.export(tmp_path / "out")
    mine = {"mine.txt": b"mine", "arrow/mine.png": b"mine too", "own/deep/a.txt": b"deep"}
    for name, content in mine.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    (folder / "empty").mkdir()
    protected.export(folder, format, force=True)
    expected = tree(protected.export(tmp_path / "expected", format)) | mine
    assert tree(folder) == expected and (folder / "empty").is_dir()
    assert (folder / "star").is_dir() == (format != "npz")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["expected", "out"]


def test_files_in_the_way_stop_it_before_anything_is_deleted(protected, tmp_path):
    folder = protected.export(tmp_path / "out")
    (folder / "images.npz").write_bytes(b"mine")
    before = tree(tmp_path)
    with pytest.raises(FileExistsError, match="never overwritten"):
        protected.export(folder, "npz", force=True)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("number", [1, 30, 60, 84])
def test_a_failure_midway_keeps_what_was_there(number, protected, tmp_path, monkeypatch):
    folder = protected.export(tmp_path / "out")
    (folder / "mine.txt").write_text("mine")
    before, rename, calls = tree(tmp_path), Path.rename, []

    def fail(self, target):
        calls.append(target)
        if len(calls) == number:
            raise OSError("No space left on device")
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", fail)
        with pytest.raises(OSError, match="No space left"):
            protected.export(folder, "webp", force=True)
    assert tree(tmp_path) == before and [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("others", [True, False])
def test_an_interrupt_between_any_two_moves_leaves_all_or_nothing(
    others, protected, tmp_path, monkeypatch
):
    rename, done = Path.rename, False
    earlier = protected.export(tmp_path / "earlier")
    if others:
        (earlier / "mine.txt").write_text("mine")
    before, number = tree(earlier), 1
    while not done:
        folder, calls = shutil.copytree(earlier, tmp_path / "out"), []

        def interrupted(self, target, calls=calls, number=number):
            moved = rename(self, target)
            calls.append(target)
            if len(calls) == number:
                raise KeyboardInterrupt
            return moved

        number += 10
        with monkeypatch.context() as patch:
            patch.setattr(Path, "rename", interrupted)
            try:
                protected.export(folder, "npz", force=True, progress=False)
            except KeyboardInterrupt:
                assert tree(folder) == before
            else:
                done = True
        assert not [path for path in folder.iterdir() if path.name.startswith(".")]
        assert {path.name for path in tmp_path.iterdir()} == {"earlier", "out"}
        if done:
            assert (folder / "images.npz").is_file() and not (folder / "arrow").exists()
            assert (folder / "mine.txt").exists() == others
        shutil.rmtree(folder)
    assert number > 60


def test_a_class_folder_may_take_the_place_of_an_earlier_file(fit, protected, tmp_path):
    folder = protected.export(tmp_path / "out", "npz")
    named = made(fit, (8, 8, 3), classes=["images.npz"], count=1)
    named.export(folder, force=True)
    assert (folder / "images.npz" / "0.png").is_file()
    with pytest.raises(FileExistsError):  # nor is a folder deleted for a file
        protected.export(folder, "npz", force=True)


def test_a_folder_that_exists_is_filled_from_within(protected, tmp_path, monkeypatch):
    """It may be a mount point: nothing can be renamed into it, nor it itself."""
    (tmp_path / "out").mkdir()
    rename = Path.rename

    def on_one_device(self, target):
        if not all(tmp_path / "out" in Path(path).parents for path in (self, target)):
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", on_one_device)
    folder = protected.export(tmp_path / "out")
    assert protected.export(folder, force=True) == folder
    assert len(ImageFolder(folder, allow_empty=True)) == len(protected)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(
    "name", ["../mine.txt", "/etc/passwd", "arrow/../../mine.txt", "..", "", "C:\\mine.txt", 3]
)
def test_a_list_that_leads_out_of_the_folder_is_refused(name, protected, tmp_path):
    folder = protected.export(tmp_path / "out")
    (tmp_path / "mine.txt").write_text("mine")
    listing(folder, name)
    before = tree(tmp_path)
    with pytest.raises(ValueError, match="nothing was deleted"):
        protected.export(folder, "npz", force=True)
    assert tree(tmp_path) == before


def test_links_in_an_earlier_export_are_not_followed(protected, tmp_path):
    folder = protected.export(tmp_path / "out")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a.png").write_text("mine")
    (folder / "link").symlink_to(tmp_path / "mine")
    (folder / "file.png").symlink_to(tmp_path / "mine" / "a.png")
    listing(folder, "link/a.png", "link/", "file.png", "gone.png")
    protected.export(folder, "npz", force=True)
    assert (tmp_path / "mine" / "a.png").read_text() == "mine"
    assert (folder / "link").is_symlink() and (folder / "file.png").is_symlink()
    assert sorted(path.name for path in folder.iterdir()) == [
        "file.png",
        "images.npz",
        "link",
        "unlearnable.json",
    ]


def test_an_earlier_export_without_a_list_is_refused(protected, tmp_path):
    folder = protected.export(tmp_path / "out")
    content = described(folder)
    del content["files"]
    (folder / "unlearnable.json").write_text(json.dumps(content))
    before = tree(folder)
    with pytest.raises(FileExistsError, match="lists its files"):
        protected.export(folder, force=True)
    assert tree(folder) == before


# --- how often files are read --------------------------------------------------------------------


@pytest.fixture
def photos(tmp_path):
    """Three photos with EXIF, one of them with transparency and one turned."""
    folder = tmp_path / "photos" / "class"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for index, ending in enumerate(("jpg", "png", "tif")):
        exif = Image.Exif()
        exif[ExifTags.Base.Make] = f"Maker {index}"
        exif[ExifTags.Base.Orientation] = 6 if ending == "jpg" else 1
        channels = 4 if ending == "png" else 3
        pixels = rng.integers(0, 256, (20, 30, channels), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.{ending}", exif=exif)
    return ImageFolder(tmp_path / "photos")


def counted(monkeypatch):
    """Counters of the files that Pillow opens, and of those that it decodes."""
    opened, decoded = Counter(), Counter()
    open_file = Image.open

    def counting(path, *arguments, **options):
        image = open_file(path, *arguments, **options)
        opened[str(path)] += 1
        load_prepare = image.load_prepare

        def prepare():
            decoded[str(path)] += 1
            load_prepare()

        image.load_prepare = prepare
        return image

    monkeypatch.setattr(Image, "open", counting)
    return opened, decoded


def test_a_function_is_told_the_share_of_images_written(protected, tmp_path):
    shares = []
    protected.export(tmp_path / "out", progress=shares.append)
    assert shares == [(number + 1) / len(protected) for number in range(len(protected))]


PHOTO_FORMATS = sorted({*EXPORT_FORMATS} - {"cifar"})
OF_ANY_SIZE = [name for name in PHOTO_FORMATS if name != "npz"]  # an array has one size


@pytest.mark.parametrize(
    ("format", "full_size"),
    [(name, False) for name in PHOTO_FORMATS] + [(name, True) for name in OF_ANY_SIZE],
)
def test_each_photo_is_opened_and_decoded_once(
    format, full_size, fit, photos, tmp_path, monkeypatch
):
    protected = ProtectedDataset(photos, fit(photos, image_size=8), full_size=full_size)
    options = {"metadata": True, "gps": True} if format in ("png", "webp") else {}
    with monkeypatch.context() as patch:
        opened, decoded = counted(patch)
        folder = protected.export(tmp_path / "out", format, **options)
    names = dict.fromkeys((path for path, _ in photos.samples), 1)
    assert opened == names and decoded == names
    assert described(folder)["notes"] == {ON_WHITE: 1, UPRIGHT: 1}
    if options:
        for index in range(3):
            with Image.open(folder / "class" / f"{index}.{format}") as image:
                assert image.getexif()[ExifTags.Base.Make] == f"Maker {index}"


def test_photos_of_another_loader_are_opened_once_more_for_what_they_say(
    fit, photos, tmp_path, monkeypatch
):
    def loader(path):
        with Image.open(path) as image:
            return image.convert("RGB")

    dataset = ImageFolder(photos.root, loader=loader)
    protected = ProtectedDataset(dataset, fit(dataset, image_size=8))
    with monkeypatch.context() as patch:
        opened, _ = counted(patch)
        folder = protected.export(tmp_path / "out", metadata=True)
    assert opened == dict.fromkeys((path for path, _ in photos.samples), 2)
    assert described(folder)["notes"] == {ON_WHITE: 1, UPRIGHT: 1}
    with Image.open(folder / "class" / "1.png") as image:
        assert image.getexif()[ExifTags.Base.Make] == "Maker 1"


def test_a_photo_that_a_dataset_has_twice_keeps_its_metadata_twice(fit, photos, tmp_path):
    twice = Subset(photos, [0, 0, 1, 0])
    protected = ProtectedDataset(twice, fit(photos, image_size=8))
    folder = protected.export(tmp_path / "out", metadata=True)
    assert described(folder)["notes"] == {ON_WHITE: 1, UPRIGHT: 3}
    for name, number in {"0": 0, "0 (2)": 0, "1": 1, "0 (3)": 0}.items():
        with Image.open(folder / "class" / f"{name}.png") as image:
            assert image.getexif()[ExifTags.Base.Make] == f"Maker {number}"


def test_jpg_with_a_quality_is_told_its_name(protected, tmp_path):
    with pytest.raises(ValueError, match="got 'jpg'; did you mean \"jpeg\""):
        protected.export(tmp_path / "out", "jpg", quality=95)
    with pytest.raises(ValueError, match="needs a quality"):
        protected.export(tmp_path / "out", "JPEG")
    with pytest.raises(ValueError, match="got None"):
        protected.export(tmp_path / "out", None)


class Stop(Exception):
    pass


def stop(share):
    if share > 0.5:
        raise Stop


def test_what_another_loader_read_is_not_taken_over(photos, tmp_path):
    def mirrored(path):
        return Image.open(path).convert("RGB").transpose(Image.Transpose.FLIP_LEFT_RIGHT)

    method = RandomNoise(granularity="class-wise")
    method.fit(photos, device="cpu", image_size=16, progress=False)
    whole = {}
    for name, options in (("plain", {}), ("mirrored", {"loader": mirrored})):
        protected = method.protect(ImageFolder(photos.root, **options))
        out = tmp_path / name
        protected.export(out, progress=False)
        whole[name] = {path.relative_to(out): path.read_bytes() for path in out.rglob("*.png")}
        if name == "plain":
            with pytest.raises(Stop):
                protected.export(tmp_path / "both", progress=stop, resume=True)
        else:
            protected.export(tmp_path / "both", progress=False, resume=True)
    both = tmp_path / "both"
    assert {p.relative_to(both): p.read_bytes() for p in both.rglob("*.png")} == whole["mirrored"]
    assert whole["plain"] != whole["mirrored"]


@pytest.mark.parametrize("format", EXPORT_FORMATS)
def test_images_that_nothing_changes_are_named(tmp_path, format):
    if format == "parquet":
        pytest.importorskip("datasets")
    pixels = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), np.uint8)
    images = Arrays(pixels, [index % 2 for index in range(40)])
    fitted = RandomNoise().fit(images, progress=False).perturbation_
    chosen = ProtectedDataset(images, fitted, fraction=0.5).chosen
    rows = fitted.rows.copy()
    rows[[np.argmax(chosen), np.argmin(chosen)]] = 0
    known = {name: fitted.tensors[name] for name in ("keys", "labels", "thumbnails")}
    protected = ProtectedDataset(images, type(fitted)(rows, fitted.config, **known))
    with pytest.warns(UserWarning, match="2 of 40 copies are not protected") as told:
        protected.export(tmp_path / "out", format, progress=False)
    assert len(told) == 1
    few = protected.with_fraction(0.5)  # one of them is not to be protected
    with pytest.warns(UserWarning, match="1 of 40 copies is not protected"):
        few.export(tmp_path / "few", format, progress=False)


def test_a_resumed_export_names_images_that_nothing_changes(photos, tmp_path):
    method = RandomNoise(granularity="class-wise")
    made = method.fit(photos, device="cpu", image_size=16, progress=False).perturbation_
    rows = made.rows.copy()
    rows[0] = 0
    protected = ProtectedDataset(photos, type(made)(rows, made.config), full_size=True)
    with pytest.raises(Stop):
        protected.export(tmp_path / "out", progress=stop, resume=True)
    count, name = photos.targets.count(0), Path(photos.samples[0][0]).stem
    with pytest.warns(UserWarning, match=f"{count} of {len(photos)} copies .*{name}"):
        protected.export(tmp_path / "out", progress=False, resume=True)
