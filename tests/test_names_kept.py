"""Exported photos are called as the originals; the private list of which became which."""

import csv
import json
import os
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch.utils.data import ConcatDataset, Subset
from torchvision.datasets import ImageFolder

import unlearnable as ue
from unlearnable.cli.main import main
from unlearnable.data.fingerprint import image_key
from unlearnable.data.image import pixels_of
from unlearnable.data.raw import RawDataset
from unlearnable.protected.export import folder_names
from unlearnable.protected.export.file_names import file_names
from unlearnable.protected.export.mapping import mapping_beside
from unlearnable.protected.verify import verify


def photo(path, seed=0, size=(8, 8)):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    ending = path.suffix.lower()
    kind = "JPEG" if ending in (".jpg", ".jpeg") else "WEBP" if ending == ".webp" else "PNG"
    Image.fromarray(pixels).save(path, kind)


def folder_of(tmp_path, *names, root="photos"):
    """An ImageFolder of photos, each with pixels of its own."""
    for seed, name in enumerate(names):
        photo(tmp_path / root / name, seed)
    return ImageFolder(tmp_path / root)


def noise(dataset):
    return ue.RandomNoise(granularity="class-wise").fit(dataset, device="cpu", progress=False)


def exported(dataset, folder, *arguments, **options):
    return noise(dataset).protect(dataset).export(folder, *arguments, progress=False, **options)


def files(folder):
    return sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and path.parent != folder
    )


def rows(path):
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        return list(csv.reader(file))


def names(dataset, ending="png"):
    raw = RawDataset(dataset)
    return file_names(raw, raw.classes, ending)


# --- names ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("format", "options", "ending"),
    [
        ("png", {}, "png"),
        ("webp", {}, "webp"),
        ("webp", {"quality": 90}, "webp"),
        ("jpeg", {"quality": 90}, "jpg"),
    ],
)
def test_class_folders_stems_and_nested_folders_stay(tmp_path, format, options, ending):
    dataset = folder_of(
        tmp_path, "a cat/IMG_2041.JPG", "a cat/2021/May/tabby.v2.jpeg", "dog/rex.png", "dog/o.webp"
    )
    folder = exported(dataset, tmp_path / "out", format, **options)
    stems = ["a cat/2021/May/tabby.v2", "a cat/IMG_2041", "dog/o", "dog/rex"]
    assert files(folder) == [f"{stem}.{ending}" for stem in stems]
    listed = json.loads((folder / "unlearnable.json").read_text())
    assert listed["folders"] == listed["classes"] == ["a cat", "dog"]
    assert "a cat/2021/May/" in listed["files"]
    read = ImageFolder(folder)
    assert read.targets == dataset.targets and read.classes == dataset.classes
    paths = [Path(path).relative_to(folder) for path, _ in read.samples]
    assert [str(path.with_suffix("")) for path in paths] == [
        str(Path(path).relative_to(dataset.root).with_suffix("")) for path, _ in dataset.samples
    ]


def test_each_name_holds_the_pixels_of_its_own_original(tmp_path):
    dataset = folder_of(tmp_path, "x/b.jpg", "x/a.png", "x/a.jpg", "y/a.png", "y/z/a.png")
    protected = noise(dataset).protect(dataset)
    folder = protected.export(tmp_path / "out", progress=False, mapping=tmp_path / "m.csv")
    header, *lines = rows(tmp_path / "m.csv")
    assert header == ["original", "folder", "file"]
    assert [line[0] for line in lines] == [path for path, _ in dataset.samples]
    for index, (_, place, file) in enumerate(lines):
        assert Path(place) == folder
        with Image.open(folder / file) as image:
            np.testing.assert_array_equal(image, np.asarray(protected[index][0]))
    became = {os.path.relpath(line[0], dataset.root): line[2] for line in lines}
    assert became == {
        "x/a.jpg": "x/a (2).png",
        "x/a.png": "x/a.png",
        "x/b.jpg": "x/b.png",
        "y/a.png": "y/a.png",
        "y/z/a.png": "y/z/a.png",
    }


def test_only_those_that_collide_are_numbered_and_no_other_name_is_taken_from_its_owner(tmp_path):
    dataset = folder_of(tmp_path, "c/a.jpg", "c/a.png", "c/a.webp", "c/a (2).jpg", "c/b.jpg")
    paths = [Path(path).name for path, _ in dataset.samples]
    found = dict(zip(paths, names(dataset), strict=True))
    assert found == {
        "a (2).jpg": "c/a (2).png",
        "a.jpg": "c/a (3).png",
        "a.png": "c/a.png",
        "a.webp": "c/a (4).png",
        "b.jpg": "c/b.png",
    }


def test_numbers_do_not_depend_on_the_order(tmp_path):
    dataset = folder_of(tmp_path, "c/a.jpg", "c/a.png", "c/a.webp", "c/b.jpg")
    by_path = dict(zip([path for path, _ in dataset.samples], names(dataset), strict=True))
    order = [3, 2, 0, 1]
    shuffled = names(Subset(dataset, order))
    assert shuffled == [by_path[dataset.samples[index][0]] for index in order]


def test_names_that_some_systems_take_for_one(tmp_path):
    composed, apart = (unicodedata.normalize(form, "Zoë") for form in ("NFC", "NFD"))
    dataset = folder_of(tmp_path, f"c/{composed}.png", f"c/{apart}.png", "c/IMG.png", "c/img.png")
    found = names(dataset)
    assert sorted(found) == sorted(
        ["c/IMG.png", "c/img (2).png", f"c/{apart}.png", f"c/{composed} (2).png"]
    )
    assert len({folder_names.comparable(name) for name in found}) == 4


def test_a_file_gives_way_to_a_folder_of_its_new_name(tmp_path):
    dataset = folder_of(tmp_path, "c/a.jpg", "c/a.png/b.jpg")
    assert sorted(names(dataset)) == ["c/a (2).png", "c/a.png/b.png"]
    assert files(exported(dataset, tmp_path / "out")) == ["c/a (2).png", "c/a.png/b.png"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (".hidden.jpg", "_hidden.png"),
        (".jpg", "_jpg.png"),
        ("a\nb.jpg", "a_b.png"),
        ("a\\b.jpg", "a_b.png"),
        ("-rf.jpg", "-rf.png"),
        ('=1+1,"x".jpg', '=1+1,"x".png'),
        ("12:30:00.jpg", "12:30:00.png"),
        ("a .jpg", "a .png"),
        ("日本.jpg", "日本.png"),
        ("@eaDir/a.jpg", "_eaDir/a.png"),
        (".cache/a.jpg", "_cache/a.png"),
        ("a./b.jpg", "a_/b.png"),
        ("a.jpg.jpg", "a.jpg.png"),
        ("x" * 251 + ".png", "x" * 251 + ".png"),
    ],
)
def test_names_that_are_not_taken_everywhere(tmp_path, name, expected):
    dataset = folder_of(tmp_path, f"c/{name}")
    folder = exported(dataset, tmp_path / "out", mapping=tmp_path / "m.csv")
    assert files(folder) == [f"c/{expected}"]
    assert rows(tmp_path / "m.csv")[1:] == [
        [str(tmp_path / "photos" / "c" / name), str(folder), f"c/{expected}"]
    ]
    perturbation = noise(dataset).perturbation_
    assert verify(folder, perturbation, progress=False).whole
    assert exported(dataset, folder, force=True) == folder  # its own list is taken
    assert files(folder) == [f"c/{expected}"]


def test_names_that_are_no_unicode(tmp_path):
    name = os.fsdecode(b"caf\xe9")
    try:
        dataset = folder_of(tmp_path, f"c/{name}.jpg", f"c/{name}.png")
    except OSError:
        pytest.skip("a file system that takes Unicode alone")
    folder = exported(dataset, tmp_path / "out", mapping=tmp_path / "m.csv")
    assert files(folder) == [f"c/{name} (2).png", f"c/{name}.png"]
    assert {row[2] for row in rows(tmp_path / "m.csv")[1:]} == set(files(folder))
    assert verify(folder, noise(dataset).perturbation_, progress=False).whole


def test_names_that_are_too_long_with_their_new_ending_are_cut(tmp_path):
    dataset = folder_of(tmp_path, f"c/{'x' * 251}.jpg", f"c/{'x' * 251}.png", f"c/{'é' * 125}.png")
    found = {Path(path).name: name for (path, _), name in zip(
        dataset.samples, names(dataset, "webp"), strict=True
    )}  # fmt: skip
    assert found["x" * 251 + ".png"] == f"c/{'x' * 246} (2).webp"
    assert found["x" * 251 + ".jpg"] == f"c/{'x' * 250}.webp"
    assert found["é" * 125 + ".png"] == f"c/{'é' * 125}.webp"


def test_a_photo_that_a_dataset_has_twice_is_numbered(tmp_path):
    dataset = folder_of(tmp_path, "c/a.png", "c/b.png")
    assert names(Subset(dataset, [1, 0, 1, 1])) == [
        "c/b.png",
        "c/a.png",
        "c/b (2).png",
        "c/b (3).png",
    ]


def test_two_folders_of_photos_joined(tmp_path):
    one = folder_of(tmp_path, "c/a.png", "d/a.png", root="2020")
    other = folder_of(tmp_path, "c/a.png", "d/b.png", root="2021")
    assert names(ConcatDataset([other, one])) == ["c/a (2).png", "d/b.png", "c/a.png", "d/a.png"]


class Listed(list):
    """Photos in one folder, whose classes a table says; or in folders below another one."""

    def __init__(self, root, samples, classes):
        super().__init__(samples)
        self.root, self.samples, self.classes = str(root), samples, classes

    def __getitem__(self, index):
        path, label = self.samples[index]
        with Image.open(path) as image:
            return image.convert("RGB"), label


def test_other_datasets_that_list_files(tmp_path):
    for seed, name in enumerate(("images/1.jpg", "images/2.jpg")):
        photo(tmp_path / name, seed)
    samples = [(str(tmp_path / "images" / f"{i + 1}.jpg"), i) for i in range(2)]
    # A folder that holds several classes is none of theirs.
    table = Listed(tmp_path, samples, ["cat", "dog"])
    assert names(table) == ["cat/images/1.png", "dog/images/2.png"]
    assert names(Listed(tmp_path / "images", samples, ["cat", "dog"])) == ["cat/1.png", "dog/2.png"]
    elsewhere = Listed(tmp_path / "nowhere", samples, ["cat", "dog"])
    assert names(elsewhere) == ["cat/1.png", "dog/2.png"]
    # Below another folder, and with folders that are not called as the classes.
    for seed, name in enumerate(("train/n01/1.jpg", "train/n02/x/1.jpg")):
        photo(tmp_path / name, seed)
    samples = [
        (str(tmp_path / "train" / "n01" / "1.jpg"), 0),
        (str(tmp_path / "train" / "n02" / "x" / "1.jpg"), 1),
    ]
    called = Listed(tmp_path / "train", samples, ["tench", "goldfish"])
    assert names(called) == ["tench/1.png", "goldfish/x/1.png"]
    assert names(Listed(tmp_path, samples, ["n01", "n02"])) == ["n01/1.png", "n02/x/1.png"]


def test_no_listed_path_leads_out_of_the_export(tmp_path):
    photo(tmp_path / "other" / "a.jpg")
    (tmp_path / "photos").mkdir()
    samples = [(f"{tmp_path}/photos/../other/a.jpg", label) for label in range(2)]
    folder = exported(Listed(tmp_path / "photos", samples, ["c", "d"]), tmp_path / "out")
    assert files(folder) == ["c/__/other/a.png", "d/__/other/a.png"]


def test_images_that_are_no_files_keep_their_numbers(shapes, perturbation, tmp_path):
    folder = ue.ProtectedDataset(shapes, perturbation).export(
        tmp_path / "out", mapping=tmp_path / "m.csv", progress=False
    )
    assert sorted(Path(file).name for file in files(folder)) == [f"{i:02d}.png" for i in range(40)]
    lines = rows(tmp_path / "m.csv")[1:]
    assert {line[0] for line in lines} == {""}
    assert [Path(line[2]).stem for line in lines] == [f"{index:02d}" for index in range(40)]


def test_keys_and_states_are_those_of_each_file(tmp_path):
    dataset = folder_of(tmp_path, "x/b.jpg", "x/a.png", "y/a.jpg", "y/z/a.png")
    made = noise(dataset)
    folder = made.protect(dataset, fraction=0.5).export(
        tmp_path / "out", mapping=tmp_path / "m.csv", progress=False
    )
    clean = {row[2]: row[0] for row in rows(tmp_path / "m.csv")[1:]}
    found = verify(folder, made.perturbation_, progress=False)
    assert found.counts["clean"] == found.counts["protected"] == 2
    for file, state in found.files.items():
        with Image.open(folder / file) as one, Image.open(clean[file]) as other:
            same = image_key(pixels_of(one)) == image_key(pixels_of(other))
        assert same == (state == "clean")


@pytest.mark.parametrize("format", ["png", "webp"])
def test_times_are_kept_with_metadata_alone(tmp_path, format):
    dataset = folder_of(tmp_path, "c/a.png", "c/b.jpg")
    os.utime(dataset.samples[0][0], ns=(0, 1_234_567_890_123_456_789))
    for keep in (True, False):
        folder = exported(dataset, tmp_path / f"out{keep}", format, metadata=keep)
        kept = (folder / "c" / f"a.{format}").stat().st_mtime_ns == 1_234_567_890_123_456_789
        assert kept == keep


# --- the mapping ---------------------------------------------------------------------------------


def test_a_mapping_is_refused_where_it_would_be_published_or_replace_another_file(tmp_path):
    dataset = folder_of(tmp_path, "c/a.png")
    with pytest.raises(ValueError, match="outside the published folder"):
        exported(dataset, tmp_path / "out", mapping=tmp_path / "out" / "deep" / "m.csv")
    (tmp_path / "mine.csv").write_text("mine")
    with pytest.raises(FileExistsError, match="never overwritten"):
        exported(dataset, tmp_path / "out", mapping=tmp_path / "mine.csv")
    with pytest.raises(ValueError, match=r"one of the formats .* with a mapping, got 'npz'"):
        exported(dataset, tmp_path / "out", "npz", mapping=tmp_path / "m.csv")
    assert not (tmp_path / "out").exists() and (tmp_path / "mine.csv").read_text() == "mine"
    for _ in range(2):  # its own it replaces
        exported(dataset, tmp_path / "out", force=True, mapping=tmp_path / "new" / "m.csv")
    assert len(rows(tmp_path / "new" / "m.csv")) == 2


def test_mappings_beside_a_perturbation(tmp_path):
    one, other = tmp_path / "a" / "out", tmp_path / "b" / "out"
    dataset = folder_of(tmp_path, "c/a.png")
    first = mapping_beside(tmp_path / "p", one)
    assert first == tmp_path / "p" / "exports" / "out.csv"
    exported(dataset, one, mapping=first)
    assert mapping_beside(tmp_path / "p", one) == first
    assert mapping_beside(tmp_path / "p", other) == first.with_name("out (2).csv")


def test_the_command_line_keeps_the_mapping_beside_the_perturbation(tmp_path, capsys):
    dataset = folder_of(tmp_path, "x/a.jpg", "x/b.png", "y/c.jpg", "y/d.png")
    saved, quiet = tmp_path / "p", ("--quiet", "--device", "cpu", "--json")
    learn = ("--method", "randomnoise", "--save-perturbation", str(saved))
    assert main(["protect", str(dataset.root), str(tmp_path / "one"), *learn, *quiet]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["mapping"] == str(saved / "exports" / "one.csv")
    apply = ("--perturbation", str(saved))
    assert main(["protect", str(dataset.root), str(tmp_path / "two"), *apply, *quiet]) == 0
    assert sorted(path.name for path in (saved / "exports").iterdir()) == ["one.csv", "two.csv"]
    became = {Path(row[0]).name: row[2] for row in rows(saved / "exports" / "two.csv")[1:]}
    assert became == {
        "a.jpg": "x/a.png",
        "b.png": "x/b.png",
        "c.jpg": "y/c.png",
        "d.png": "y/d.png",
    }
    assert not list(tmp_path.glob("one/**/*.csv")) or files(tmp_path / "one") == [*became.values()]
    for written in (tmp_path / "two").glob("unlearnable*"):
        assert str(dataset.root) not in written.read_text()
    assert ue.Perturbation.from_pretrained(str(saved)).folder == saved
