"""Folders are called as their classes; what an export calls otherwise is read back by name."""

import json
import warnings

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import ImageFolder

from unlearnable import Perturbation, ProtectedDataset, RandomNoise, audit, evaluate, verify
from unlearnable.cli.main import main
from unlearnable.data.class_names import class_names
from unlearnable.data.image_folder import open_folder
from unlearnable.protected.export import folder_names as rules
from unlearnable.protected.export.folder_names import folder_names


class Named:
    """Two images of each class."""

    def __init__(self, classes, seed=0):
        size = (2 * len(classes), 12, 12, 3)
        self.data = np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)
        self.classes = classes

    def __len__(self):
        return len(self.data)

    def __getitem__(self, index):
        return Image.fromarray(self.data[index]), index // 2


class Labelled(list):
    """Images of the first class."""

    def __init__(self, images, classes):
        super().__init__((image, 0) for image in images)
        self.classes = classes


def exported(dataset, folder, fraction=0.0):
    """A copy, clean by default; a perturbation by rows per class, and the folders of classes."""
    method = RandomNoise(granularity="class-wise").fit(dataset, device="cpu", progress=False)
    method.protect(dataset, fraction=fraction).export(folder, progress=False)
    return method.perturbation_, sorted(path.name for path in folder.iterdir() if path.is_dir())


# --- names ---------------------------------------------------------------------------------------

TAKEN = sorted(
    ["fruit & food", "Mom & Dad", "o'clock", "#1", "Ame\u0301lie", "日本", "🐕 dog", "a b", "50 %",
     "(x)", "a,b", "a;b", "C++", "$", "~", "!", "a=b", "[1]", "{2}", "`q`", "naïve", "what?", "a:b",
     "ß", "-v", "a.b.c", " led"]
)  # fmt: skip


def test_names_that_file_systems_take_stay(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _, folders = exported(Named(TAKEN), tmp_path / "out")
    assert folders == TAKEN


@pytest.mark.parametrize(
    ("names", "folders"),
    [
        (["N/A", "a"], ["N_A", "a"]),
        (["a", "b/c", "d & e"], ["a", "b_c", "d & e"]),
        (["Dad.", "Mom & Dad"], ["Dad_", "Mom & Dad"]),
        (["Dad ", "Mom"], ["Dad_", "Mom"]),
        (["a\0b", "c"], ["a_b", "c"]),
        (["a\\b", "c\n"], ["a_b", "c_"]),
        ([".net", "c"], ["_net", "c"]),
        (["..", "z"], ["__", "z"]),
        (["", "z"], ["_", "z"]),
        (["@eaDir", "z"], ["_eaDir", "z"]),
        (["Cat", "cat"], ["Cat", "cat (1)"]),
        (["straSSe", "straße"], ["straSSe", "straße (1)"]),
        (["Ame\u0301lie", "Am\u00e9lie"], ["Ame\u0301lie", "Am\u00e9lie (1)"]),
        (["crane", "crane"], ["crane", "crane (1)"]),
        (["a", "unlearnable.json"], ["a", "unlearnable.json (1)"]),
        (["a/b", "a_b"], ["a-b", "a_b"]),  # a_b (0) would come last
        (["x/A", "x/Z", "xA"], ["x-A", "x-Z", "xA"]),  # _ would come after A
        (["zz/", "zz0"], ["zz-", "zz0"]),
        (["b", "a"], ["0_b", "1_a"]),
        (["b/", "a."], ["0_b_", "1_a_"]),
        ([f"n{index}" for index in range(11)], [f"{index:02d}_n{index}" for index in range(11)]),
        (["a" * 255, "b"], ["a" * 255, "b"]),
        (["a" * 300, "b"], ["a" * 255, "b"]),
        (["é" * 200, "日"], ["é" * 127, "日"]),
        (["a" * 255, "A" * 255], ["0_" + "a" * 253, "1_" + "A" * 253]),
        (["a" * 255, "a" * 256], ["0_" + "a" * 253, "1_" + "a" * 253]),
        (["\ud800", "\ud801"], ["_", "_ (1)"]),
        (["a\udcff", "b"], ["a\udcff", "b"]),  # a byte that is not UTF-8
    ],
)
def test_only_what_has_to_change_does(names, folders):
    found = folder_names(names)
    assert found == sorted(found) and len({name.casefold() for name in found}) == len(names)
    assert found == folders


def test_names_that_windows_does_not_take(monkeypatch):
    names = ["aux", "con.txt", "console", "what?"]
    assert folder_names(names) == names
    monkeypatch.setattr(rules, "_WINDOWS", True)
    assert folder_names(names) == ["aux_", "con.txt_", "console", "what_"]


# --- exports that are read again -----------------------------------------------------------------

RENAMED = ["Dad.", "Mom & Dad", "N/A", "o'clock"]


def assert_wraps(dataset, folder, perturbation):
    """A clean copy, read again, is protected as the dataset is."""
    protected = ProtectedDataset(dataset, perturbation)
    again = ProtectedDataset(ImageFolder(folder), perturbation)
    assert again.classes == protected.classes and again.targets == protected.targets
    for one, other in zip(protected, again, strict=True):
        np.testing.assert_array_equal(np.asarray(one[0]), np.asarray(other[0]))


def test_a_change_is_said_and_everything_goes_on_by_name(tmp_path):
    dataset, folder = Named(RENAMED), tmp_path / "out"
    with pytest.warns(UserWarning, match="2 of 4 class .* 'Dad.' -> 'Dad_', 'N/A' -> 'N_A'; unlea"):
        perturbation, folders = exported(dataset, folder)
    assert folders == ["Dad_", "Mom & Dad", "N_A", "o'clock"]
    described = json.loads((folder / "unlearnable.json").read_text())
    assert described["classes"] == RENAMED and described["folders"] == folders
    assert class_names(open_folder(folder)) == class_names(ImageFolder(str(folder))) == RENAMED
    assert_wraps(dataset, folder, perturbation)


def test_a_protected_copy_is_verified_and_evaluated_by_name(tmp_path):
    dataset, folder = Named(RENAMED), tmp_path / "out"
    with pytest.warns(UserWarning, match="2 of 4 class folders"):
        perturbation, _ = exported(dataset, folder, fraction=1.0)
    assert verify(folder, perturbation, progress=False).whole
    options = {"victim": "tiny", "epochs": 1, "seeds": 1, "device": "cpu", "progress": False}
    train = open_folder(folder)
    assert len(evaluate(train, dataset, **options).last) == 1
    with pytest.raises(ValueError, match=r"4 classes Dad\., Mom & Dad, N/A, o'clock, got 2: a, b"):
        evaluate(train, Named(["a", "b"]), **options)


@pytest.mark.filterwarnings("ignore:1 of 4 class folders .*'Dad.' -> 'Dad_'")
def test_photos_in_folders_go_through_the_command_line(tmp_path, capsys):
    names = ["Mom & Dad", "#1", "Dad.", "fruit & food"]
    for part, seed in (("photos", 0), ("test", 1)):
        dataset = Named(names, seed)
        for index in range(len(dataset)):
            image, label = dataset[index]
            (tmp_path / part / names[label]).mkdir(parents=True, exist_ok=True)
            image.save(tmp_path / part / names[label] / f"{index}.png")

    def run(*arguments):
        code = main([*map(str, arguments), "--quiet", "--json"])
        out, err = capsys.readouterr()
        assert code == 0, err
        return json.loads(out)

    photos, test, p, out = (tmp_path / name for name in ("photos", "test", "p", "out"))
    run("fit", photos, p, "--method", "randomnoise")
    run("protect", photos, out, "--perturbation", p)
    folders = ["#1", "Dad_", "Mom & Dad", "fruit & food"]
    assert sorted(path.name for path in out.iterdir() if path.is_dir()) == folders
    tiny = ("--victim", "tiny", "--epochs", 1, "--seeds", 1)
    assert len(run("evaluate", out, test, *tiny)["last"]) == 1
    assert run("verify", out, p)["whole"] and run("verify", out, p, "--originals", photos)["whole"]


def test_order_and_names_come_back(tmp_path):
    names = ["T-shirt/top", "Trouser", "Bag"]
    dataset = Named(names)
    with pytest.warns(UserWarning, match="3 of 3 .*'T-shirt/top' -> '0_T-shirt_top', 'Trouser' ->"):
        perturbation, folders = exported(dataset, tmp_path / "out")
    assert folders == ["0_T-shirt_top", "1_Trouser", "2_Bag"]
    read = ImageFolder(tmp_path / "out")
    assert class_names(read) == names
    assert_wraps(dataset, tmp_path / "out", perturbation)
    report = audit(
        ProtectedDataset(dataset, perturbation), None, read, victims=["tiny"], epochs=1, seeds=1,
        countermeasures=["none"], device="cpu", progress=False,
    )  # fmt: skip
    assert report.dataset["classes"] == names


def test_an_export_with_fewer_folders_keeps_its_names(tmp_path):
    with pytest.warns(UserWarning, match="-> '0_c'"):
        perturbation, _ = exported(Named(["c", "b", "a"]), tmp_path / "out")
    for path in (tmp_path / "out" / "1_b").iterdir():
        path.unlink()
    (tmp_path / "out" / "1_b").rmdir()
    read = ImageFolder(tmp_path / "out")
    assert class_names(read) == ["c", "a"]
    for (image, label), (copy, _) in zip(read, ProtectedDataset(read, perturbation), strict=True):
        row = perturbation.rows[[0, 2][label]].transpose(1, 2, 0)
        expected = np.clip(np.asarray(image).astype(int) + row, 0, 255)
        np.testing.assert_array_equal(np.asarray(copy), expected)


def test_new_photos_of_some_kinds_are_protected_with_the_key_of_all(tmp_path, capsys):
    for part, names in (("photos", ["bird", "cat", "dog"]), ("more", ["dog"]), ("odd", ["cow"])):
        for number, (image, label) in enumerate(Named(names)):
            (tmp_path / part / names[label]).mkdir(parents=True, exist_ok=True)
            image.resize((16, 16)).save(tmp_path / part / names[label] / f"{number}.png")

    def run(*arguments):
        code = main([*map(str, arguments), "--quiet"])
        return code, capsys.readouterr().err

    photos, more, odd, out, key = (
        tmp_path / name for name in ("photos", "more", "odd", "out", "key")
    )
    code, err = run("fit", photos, key, "--method", "lasting")
    assert code == 0, err
    code, err = run("protect", more, out, "--perturbation", key)
    assert code == 0, err
    assert run("verify", out, key, "--originals", more)[0] == 0
    code, err = run("protect", odd, tmp_path / "out2", "--perturbation", key)
    assert code == 1 and "name the folders alike" in err
    perturbation = Perturbation.from_pretrained(key)
    whole = ProtectedDataset(ImageFolder(photos), perturbation)
    among = whole.base.samples.index((str(photos / "dog" / "4.png"), 2))
    image = whole.base[among][0]
    (again, _), *_ = ProtectedDataset(Labelled([image], ["dog"]), perturbation)
    np.testing.assert_array_equal(np.asarray(again), np.asarray(whole[among][0]))


def test_classes_without_names_have_none_again(tmp_path):
    dataset = Named(["a", "b", "c"])
    dataset.classes = None
    perturbation, folders = exported(dataset, tmp_path / "out")
    assert folders == ["0", "1", "2"]
    assert class_names(ImageFolder(tmp_path / "out")) is None
    assert_wraps(dataset, tmp_path / "out", perturbation)
    for path in (tmp_path / "out" / "0").iterdir():
        path.unlink()
    (tmp_path / "out" / "0").rmdir()  # now the others have other indices
    assert class_names(ImageFolder(tmp_path / "out")) == ["1", "2"]
    with pytest.raises(ValueError, match="3 classes, got 2"):
        ProtectedDataset(ImageFolder(tmp_path / "out"), perturbation)


@pytest.mark.parametrize(
    "content",
    [
        "", "[]", "{", '{"format": "other", "folders": ["a", "b"], "classes": ["x", "y"]}',
        '{"format": "unlearnable-export"}',
        '{"format": "unlearnable-export", "folders": ["a", "b"], "classes": ["x"]}',
        '{"format": "unlearnable-export", "folders": [1, 2], "classes": ["x", "y"]}',
        '{"format": "unlearnable-export", "folders": "ab", "classes": "xy"}',
        "[" * 100_000,
    ],
)  # fmt: skip
def test_what_is_no_list_of_folders_names_nothing(content, tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / name / "0.png")
    (tmp_path / "unlearnable.json").write_text(content)
    assert class_names(ImageFolder(tmp_path)) == ["a", "b"]


def test_an_export_of_an_earlier_release_is_read(tmp_path):
    """It put an index in front of all names where one of them could not stay."""
    for name in ("0_Mom _ Dad", "1_Zoe"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / name / "0.png")
    described = {
        "format": "unlearnable-export", "format_version": 2, "images": 2,
        "folders": ["0_Mom _ Dad", "1_Zoe"], "classes": ["Mom & Dad", "Zoe"],
    }  # fmt: skip
    (tmp_path / "unlearnable.json").write_text(json.dumps(described))
    assert class_names(ImageFolder(tmp_path)) == ["Mom & Dad", "Zoe"]


def test_two_classes_of_one_name(tmp_path):
    dataset = Named(["crane", "dog", "crane"])
    with pytest.warns(UserWarning, match="3 of 3 .*'crane' -> '0_crane'"):
        perturbation, folders = exported(dataset, tmp_path / "out")
    assert folders == ["0_crane", "1_dog", "2_crane"]
    assert class_names(ImageFolder(tmp_path / "out")) == ["crane", "dog", "crane"]
    assert_wraps(dataset, tmp_path / "out", perturbation)


def test_hugging_face_tells_classes_of_one_name_apart(tmp_path):
    pytest.importorskip("datasets")
    dataset = Named(["crane", "dog", "crane"])
    method = RandomNoise(granularity="class-wise").fit(dataset, device="cpu", progress=False)
    made = method.protect(dataset, fraction=0).to_hf_dataset()
    assert made.features["label"].names == ["crane", "dog", "crane (2)"]
    assert ProtectedDataset(made, method.perturbation_).classes == ["crane", "dog", "crane (2)"]


def test_a_parquet_export_with_two_classes_of_one_name_is_read_as_its_card_says(tmp_path):
    datasets = pytest.importorskip("datasets")
    dataset = Named(["crane", "dog", "crane"])
    protected = RandomNoise().fit(dataset, progress=False).protect(dataset)
    folder = protected.export(tmp_path / "out", "parquet", progress=False)
    read = datasets.load_dataset(str(folder), split="train", cache_dir=str(tmp_path / "cache"))
    assert read.features["label"].names == ["crane", "dog", "crane (2)"]
    assert read["label"][:] == protected.targets


# --- folders of splits ---------------------------------------------------------------------------


def photo(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (len(str(path)) % 256, 0, 0)).save(path)


@pytest.mark.parametrize(
    "splits",
    [
        ["train", "val"], ["training", "validation", "test"], ["Train", "Test"], ["train"],
        ["train", "valid"], ["testing", "dev"], ["train2017", "val2017"], ["train_images", "test"],
    ],
)  # fmt: skip
def test_splits_are_no_classes(splits, tmp_path, capsys):
    for name in splits:
        for label in ("cat", "dog"):
            photo(tmp_path / "data" / name / label / "0.png")
    ordered = sorted(splits)
    training = [name for name in ordered if name.lower().startswith("train")]
    first = tmp_path / "data" / (training or ordered)[0]
    with pytest.raises(ValueError, match=f"splits {', '.join(sorted(splits))}.*pass one .*{first}"):
        open_folder(tmp_path / "data")
    assert open_folder(first).classes == ["cat", "dog"]
    assert main(["fit", str(tmp_path / "data"), str(tmp_path / "p"), "--quiet"]) == 1
    assert "pass one of them" in capsys.readouterr().err and not (tmp_path / "p").exists()


def test_folders_that_all_hold_the_same_folders_may_be_no_classes(tmp_path):
    """Folds of a cross-validation, or domains: Art, Clipart, Product."""
    for name in ("fold1", "fold2"):
        for label in ("cat", "dog"):
            photo(tmp_path / "folds" / name / label / "0.png")
    with pytest.warns(UserWarning, match="using fold1, fold2 as .*cat, dog; .*pass .*/fold1"):
        assert open_folder(tmp_path / "folds").classes == ["fold1", "fold2"]


@pytest.mark.parametrize("folders", [["cat/images", "dog/images"], ["cat/a", "cat/b", "dog/a"]])
def test_folders_within_classes_are_not_warned_of(folders, tmp_path):
    for name in folders:
        photo(tmp_path / name / "0.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert open_folder(tmp_path).classes == ["cat", "dog"]


def test_test_images_without_classes_beside_training_images(tmp_path):
    photo(tmp_path / "train" / "cat" / "0.png")
    photo(tmp_path / "test" / "0.png")
    with pytest.raises(ValueError, match="the splits train,"):
        open_folder(tmp_path)


def test_splits_beside_other_folders(tmp_path):
    for name in ("train/cat", "val/cat", "extra"):
        photo(tmp_path / name / "0.png")
    with pytest.raises(ValueError, match="the splits train, val"):
        open_folder(tmp_path)


@pytest.mark.parametrize(
    "folders",
    [
        ["train", "plane"], ["train", "test"], ["train/steam", "train/electric", "plane", "car"],
        ["trainer", "tester"], ["development/a", "valley/b"], ["test tube/glass", "train"],
    ],
)  # fmt: skip
def test_classes_may_be_called_as_splits(folders, tmp_path):
    for name in folders:
        photo(tmp_path / name / "0.png")
    assert open_folder(tmp_path).classes == sorted({name.split("/")[0] for name in folders})
