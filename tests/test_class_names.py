"""Names of classes go by their indices, however a dataset states them, or there are none."""

import enum
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Subset
from torchvision.datasets import ImageFolder, LFWPeople, OxfordIIITPet

from unlearnable import ProtectedDataset, RandomNoise, evaluate, from_items
from unlearnable.data.cache import read_images
from unlearnable.data.class_matching import distinct, match_classes
from unlearnable.data.class_names import class_names
from unlearnable.data.raw import RawDataset
from unlearnable.evaluation.pair import check_pair


class Stated:
    """Eight images of classes 0, 1, 2, … and whatever else is given."""

    def __init__(self, labels=(0, 1, 2, 0, 1, 2, 0, 1), **stated):
        size = (len(labels), 8, 8, 3)
        self.data = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)
        self.targets = list(labels)
        vars(self).update(stated)

    def __len__(self):
        return len(self.data)

    def __getitem__(self, index):
        return Image.fromarray(self.data[index]), self.targets[index]


# --- what a dataset states -----------------------------------------------------------------------

ABC = ["a", "b", "c"]


class Colour(enum.Enum):
    RED, GREEN = 0, 1


@pytest.mark.parametrize(
    "classes",
    [
        ABC,
        tuple(ABC),
        np.array(ABC),
        [np.str_(name) for name in ABC],
        [b"a", b"b", b"c"],
        [("a",), ["b"], ("c",)],
        {0: "a", 1: "b", 2: "c"},
        {2: "c", 0: "a", 1: "b"},
        {"a": 0, "c": 2, "b": 1},
        {"a": np.int64(0), "b": torch.tensor(1), "c": np.uint8(2)},
        {"0": "a", "1": "b", "2": "c"},  # as JSON has it
        OrderedDict(a=0, b=1, c=2),
        dict.fromkeys(ABC).keys(),
        ["a", "b", "c", "a", "b", "c", "a", "b"],  # one for each item
        lambda: ABC,
        lambda: {"a": 0, "b": 1, "c": 2},
    ],
)
def test_names_in_any_form(classes):
    assert class_names(Stated(classes=classes)) == ABC


@pytest.mark.parametrize(
    "classes",
    [
        None,
        3,
        np.int64(3),
        "abc",
        b"abc",
        set(ABC),
        [],
        {},
        {0: 5, 1: 6, 2: 7},  # neither side is a name
        {"a": "first", "b": "second"},
        [object(), object()],
        [("a", 1.5)],
        Colour,
        lambda: 1 / 0,
        lambda index: ABC[index],
        ["a", "a", "c", "a", "a", "c", "a", "a"],  # one for each item: which is the second?
        {"a": -1, "b": 0},
        {"a": 1 << 40},
    ],
)
def test_where_names_are_not_certain_there_are_none(classes, fit):
    dataset = Stated(classes=classes)
    assert class_names(dataset) is None
    perturbation = fit(dataset, granularity="class-wise")
    protected = ProtectedDataset(dataset, perturbation)
    assert protected.classes is None and perturbation.config["num_classes"] == 3
    for index, label in enumerate(dataset.targets):
        row = perturbation.rows[label].transpose(1, 2, 0)
        expected = np.clip(dataset.data[index].astype(int) + row, 0, 255)
        np.testing.assert_array_equal(np.asarray(protected[index][0]), expected)


def test_a_name_for_each_item_goes_by_its_label():
    dataset = Stated(labels=(2, 0, 1, 2), classes=["c", "a", "b", "c"])
    assert class_names(dataset) == ABC
    del dataset.targets
    assert class_names(dataset) is None
    dataset.labels = torch.tensor([2, 0, 1, 2])
    assert class_names(dataset) == ABC
    dataset.labels = [0, 0, 1, 2]  # these items have two names: it is a list by index
    assert class_names(dataset) == ["c", "a", "b", "c"]


def test_a_property_that_fails_names_nothing():
    class Failing(Stated):
        @property
        def classes(self):
            raise RuntimeError("no metadata")

    assert class_names(Failing()) is None


@pytest.mark.parametrize(
    ("classes", "indices", "names"),
    [
        (["a", "b", "c"], {"a": 0, "b": 1, "c": 2}, ABC),
        (["c", "b", "a"], {"a": 0, "b": 1, "c": 2}, ABC),
        (None, {"b": 1, "a": 0, "c": 2}, ABC),
        (["cat", "dog", "ewe"], {"n1": 0, "n2": 1, "n3": 2}, ["n1", "n2", "n3"]),
        (["cat", "dog", "ewe"], {"cat": 0, "n2": 1, "ewe": 2}, ["cat", "dog", "ewe"]),  # renamed
        (["b", "b"], {"a": 0, "b": 1}, ["a", "b"]),
        (["0", "1", "10", "2"], {"0": 0, "1": 1, "2": 2, "10": 3}, ["0", "1", "2", "10"]),
        (["a", "b", "c", "d"], {"a": 0, "b": 1, "c": 2}, ["a", "b", "c", "d"]),
        (["a", "c"], {"a": 0, "c": 2}, ["a", "class 1", "c"]),  # a gap
        (["a", "b"], {"a": 1, "b": 2}, ["class 0", "a", "b"]),  # indices from 1
        ([None, "a", "b"], {"a": 1, "b": 2}, ["class 0", "a", "b"]),
        (["0", "1"], {"0": 1, "1": 2}, ["class 0", "0", "1"]),
        (["class 0"], {"class 0": 1}, ["class 0_", "class 0"]),
        (["cat", "kitten", "dog"], {"cat": 0, "kitten": 0, "dog": 1}, ["cat, kitten", "dog"]),
        (["cat", "dog"], {"cat": 0, "kitten": 0, "dog": 1}, ["cat", "dog"]),
        (["a", "b"], {0: "a", 1: "b"}, ["a", "b"]),
        (["a", "b"], {"a": "first", "b": "second"}, ["a", "b"]),  # these are no indices
        (["3", "5"], {3: 0, 5: 1}, ["3", "5"]),
        (["a", "b", "c", "a", "b", "c", "a", "b"], {"a": 0, "b": 1, "c": 2}, ABC),  # of each item
        (["b", "b", "a", "a"], {"a": 0, "b": 1}, ["a", "b"]),
        ([("crane", "bird"), ("x",), ("crane",)], {"crane": 2, "bird": 0, "x": 1},
         ["crane, bird", "x", "crane"]),
        ([("crane",), ("x",), ("crane",)], {"crane": 2, "x": 1}, ["crane", "x", "crane"]),
        ([("maillot",), ("maillot", "tank suit")], {"maillot": 1, "tank suit": 1},
         ["maillot", "maillot, tank suit"]),
    ],
)  # fmt: skip
def test_names_by_class_to_idx(classes, indices, names):
    assert class_names(Stated(classes=classes, class_to_idx=indices)) == names
    if classes is None:
        assert class_names(Stated(class_to_idx=indices)) == names


def test_class_to_idx_as_a_method():
    dataset = Stated(classes=["b", "a"], class_to_idx=lambda: {"a": 0, "b": 1})
    assert class_names(dataset) == ["a", "b"]


def test_names_of_medmnist():
    names = {"0": "adipose", "1": "background", "2": "debris"}
    task = {"task": "multi-class", "label": names}
    assert class_names(Stated(info=task)) == [*names.values()]
    assert class_names(Stated(info=task | {"task": "multi-label, binary-class"})) is None
    assert class_names(Stated(info=task, classes=["x", "y", "z"])) == ["x", "y", "z"]


def test_names_of_torchvision_that_are_elsewhere():
    pets = object.__new__(OxfordIIITPet)
    vars(pets).update(
        _target_types=["binary-category"], classes=["Abyssinian", "Beagle", "Boxer"],
        bin_classes=["Cat", "Dog"], bin_class_to_idx={"Cat": 0, "Dog": 1}, _labels=[], _images=[],
    )  # fmt: skip
    assert class_names(pets) == ["Cat", "Dog"]
    pets._target_types = ["category"]
    assert class_names(pets) == pets.classes
    people = object.__new__(LFWPeople)
    people.class_to_idx = {"Ann": 0, "Bob": 1}
    assert class_names(people) == ["Ann", "Bob"]


# --- folders -------------------------------------------------------------------------------------


class ByNumber(ImageFolder):
    """Folders 0 to 11, each with the class index that it is called by."""

    def find_classes(self, directory):
        classes, _ = super().find_classes(directory)
        return classes, {name: int(name) for name in classes}


@pytest.fixture
def numbered(tmp_path):
    rng = np.random.default_rng(0)
    for name in range(12):
        (tmp_path / "numbered" / str(name)).mkdir(parents=True)
        for index in range(2):
            pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "numbered" / str(name) / f"{index}.png")
    return tmp_path / "numbered"


def test_each_photo_is_exported_into_its_own_folder(numbered, tmp_path):
    dataset = ByNumber(numbered)
    assert dataset.classes[2] == "10" and dataset.class_to_idx["10"] == 10
    protected = RandomNoise(granularity="class-wise").fit(dataset, progress=False).protect(dataset)
    assert protected.classes == [str(name) for name in range(12)]
    assert protected.class_to_idx == dataset.class_to_idx
    with pytest.warns(UserWarning, match="'0' -> '00_0'"):
        folder = protected.export(tmp_path / "out", progress=False)
    read = ImageFolder(folder)
    assert [name.split("_")[1] for name in read.classes] == protected.classes
    assert read.targets == sorted(protected.targets)
    for path, label in dataset.samples:
        row = protected.perturbation.rows[label].transpose(1, 2, 0)
        pixels = np.asarray(Image.open(path)).astype(int) + row
        copy = folder / f"{label:02d}_{label}" / Path(path).with_suffix(".png").name
        found = np.asarray(Image.open(copy))
        np.testing.assert_array_equal(found, np.clip(pixels, 0, 255))


def test_class_rows_go_to_folders_in_another_order(numbered):
    dataset, text = ByNumber(numbered), ImageFolder(numbered)
    perturbation = RandomNoise(granularity="class-wise").fit(dataset, progress=False).perturbation_
    protected = ProtectedDataset(text, perturbation)
    assert protected.classes == text.classes and protected.targets == text.targets
    for index, (path, label) in enumerate(text.samples):
        row = perturbation.rows[int(text.classes[label])].transpose(1, 2, 0)
        pixels = np.asarray(Image.open(path)).astype(int) + row
        np.testing.assert_array_equal(np.asarray(protected[index][0]), np.clip(pixels, 0, 255))


def test_victims_are_tested_by_name(numbered):
    dataset, text = ByNumber(numbered), ImageFolder(numbered)
    tested = check_pair(read_images(dataset), read_images(text))
    assert tested.labels.tolist() == [int(text.classes[label]) for label in text.targets]
    assert tested.classes == [str(name) for name in range(12)]
    options = {"epochs": 2, "seeds": 1, "batch_size": 8, "device": "cpu", "progress": False}
    both = [evaluate(dataset, test, "tiny", **options) for test in (dataset, text)]
    assert both[0].curves == both[1].curves


def test_new_images_of_an_extension_go_by_name(numbered):
    dataset, text = ByNumber(numbered), ImageFolder(numbered)
    method = RandomNoise().fit(dataset, device="cpu", progress=False)
    extended = method.extend(text, device="cpu", progress=False)
    labels = extended.tensors["labels"].tolist()
    assert labels == [int(text.classes[label]) for label in text.targets]
    assert extended.config["classes"] == [str(name) for name in range(12)]


def test_new_images_of_some_classes_are_extended_to_by_name(numbered, tmp_path):
    method = RandomNoise().fit(ByNumber(numbered), device="cpu", progress=False)
    (tmp_path / "some").mkdir()
    for name in ("10", "7"):
        (numbered / name).rename(tmp_path / "some" / name)
    extended = method.extend(ImageFolder(tmp_path / "some"), device="cpu", progress=False)
    assert extended.tensors["labels"].tolist() == [10, 10, 7, 7]


@pytest.mark.filterwarnings("error")
def test_folders_called_by_numbers_and_labels_without_names_are_not_mixed_up_in_silence(numbered):
    text = ImageFolder(numbered)
    numbers = [(image, int(text.classes[label])) for image, label in text]
    said = r"called 0, 1, 10, 11, 2, …, in this order.* its label 2 is taken for the class '10'"
    stores = read_images(text), read_images(numbers)
    for pair in (stores, stores[::-1]):
        with pytest.warns(UserWarning, match=said):
            check_pair(*pair)
    named = from_items(numbers, classes=[str(name) for name in range(12)])
    tested = check_pair(stores[0], read_images(named))
    assert tested.labels.tolist() == text.targets

    options = {"device": "cpu", "progress": False}
    class_wise = RandomNoise(granularity="class-wise").fit(text, **options).perturbation_
    with pytest.warns(UserWarning, match=said):
        ProtectedDataset(numbers, class_wise)
    ProtectedDataset(named, class_wise)
    sample_wise = RandomNoise().fit(text, **options)
    ProtectedDataset(numbers, sample_wise.perturbation_)  # found by content
    with pytest.warns(UserWarning, match=said):
        sample_wise.extend(numbers, **options)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("names", [["0", "1", "2"], ["00", "01", "10"], ["b", "2", "1"], None])
def test_names_in_the_order_of_their_numbers_and_other_words_are_taken_as_they_are(names):
    one, other = read_images(Stated(classes=names)), read_images(Stated())
    assert check_pair(one, other).labels.tolist() == other.labels.tolist()


# --- two datasets --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expected", "found", "indices"),
    [
        (ABC, ABC, [0, 1, 2]),
        (ABC, ["c", "a", "b"], [2, 0, 1]),
        (["x", "x", "y"], ["x", "x", "y"], [0, 1, 2]),
        (["x", "y", "x"], ["x", "x (2)", "y"], [0, 2, 1]),  # as Parquet has them
        (["x", "x (2)", "y"], ["x", "y", "x"], [0, 2, 1]),
        (["Ame\u0301lie", "b"], ["b", "Am\u00e9lie"], [1, 0]),  # one accent, spelled in two ways
        (["crab", "fox"], ["fox", "cra"], [1, 0]),  # CIFAR-100 on the Hugging Face Hub
        (["cra", "fox"], ["crab", "fox"], [0, 1]),
        (["crab", "cra"], ["cra", "crab"], [1, 0]),
    ],
)
def test_matches(expected, found, indices):
    assert match_classes(expected, found, "a dataset") == indices


@pytest.mark.parametrize(
    ("expected", "found", "message"),
    [
        (ABC, ["a", "b"], "got 2: a, b; missing: c; name them although .* allow_empty=True"),
        (ABC, ["a", "b", "d"], "got 3: a, b, d; missing: c; not expected: d$"),
        (ABC, [*ABC, "d"], "got 4: a, b, c, d; not expected: d"),
        (["x", "y", "x"], ["x", "x", "y"], "same order, because several are called 'x'"),
        (["x", "y"], ["x", "x", "y"], "got 3: x, x, y; not expected: x .1."),
        (["x", "x", "y"], ["y", "x"], "missing: x .1."),
        (["crab", "fox"], ["cra", "crab"], "missing: fox; not expected: cra"),
    ],
)
def test_what_does_not_match(expected, found, message):
    with pytest.raises(ValueError, match=message):
        match_classes(expected, found, "a dataset")


@pytest.mark.parametrize(
    ("expected", "found", "indices"),
    [
        (ABC, ["b"], [1]),
        (ABC, ["c", "a"], [2, 0]),
        (ABC, ["c", "b", "a"], [2, 1, 0]),
        (["Ame\u0301lie", "b"], ["Am\u00e9lie"], [0]),
        (["crab", "fox"], ["cra"], [0]),
    ],
)
def test_matches_where_some_classes_suffice(expected, found, indices):
    assert match_classes(expected, found, "a dataset", some=True) == indices


@pytest.mark.parametrize(
    ("expected", "found", "message"),
    [
        (ABC, ["a", "d"], "got 2: a, d; missing: b, c; not expected: d"),
        (ABC, ["a", "a"], "not expected: a .1."),
        (["x", "x", "y"], ["x"], "3 classes x, x, y, got 1: x; missing"),
        (["x", "x", "y"], ["y"], "3 classes x, x, y, got 1: y; missing"),
    ],
)
def test_what_does_not_match_where_some_classes_suffice(expected, found, message):
    with pytest.raises(ValueError, match=message):
        match_classes(expected, found, "a dataset", some=True)


def test_several_classes_of_one_name_are_never_mixed_up(fit):
    cranes = Stated(classes=[("crane",), ("dog",), ("crane",)], class_to_idx={"crane": 2, "dog": 1})
    perturbation = fit(cranes, granularity="class-wise")
    assert perturbation.config["classes"] == ["crane", "dog", "crane"]
    ProtectedDataset(cranes, perturbation)
    turned = Stated(classes=["dog", "crane", "crane"])
    with pytest.raises(ValueError, match="several are called 'crane', got dog, crane, crane"):
        ProtectedDataset(turned, perturbation)


def test_distinct():
    names = ["a", "b", "a", "a (2)", "a"]
    assert distinct(names) == ["a", "b", "a (2)_", "a (2)", "a (4)"]
    assert distinct(ABC) == ABC


def test_parts_and_subsets_have_the_names_of_the_whole():
    dataset = Stated(classes=ABC)
    assert RawDataset(Subset(dataset, [3, 1])).classes == ABC
