"""Datasets that people have, each by its own class from small files in its own layout.

Protected by rows per class, exported and read back: names, labels and pixels are right.
"""

import bz2
import csv
import itertools
import json
import pickle
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.datasets as tv
from PIL import Image
from torchvision.datasets.vision import StandardTransform
from torchvision.transforms import PILToTensor

from unlearnable import ProtectedDataset, RandomNoise, verify
from unlearnable.data.class_names import class_names
from unlearnable.data.image_folder import open_folder

RNG = np.random.default_rng


@pytest.fixture(autouse=True)
def any_content(monkeypatch):
    """Files count by their names: sums of generated ones cannot be right. No scipy is needed."""

    def is_there(path, md5=None):
        return Path(path).is_file()

    for name, module in vars(tv).items():
        if isinstance(module, types.ModuleType) and hasattr(module, "check_integrity"):
            monkeypatch.setattr(f"torchvision.datasets.{name}.check_integrity", is_there)
    scipy, scipy.io = types.ModuleType("scipy"), types.ModuleType("scipy.io")
    scipy.io.loadmat = lambda path, **options: pickle.loads(Path(path).read_bytes())
    monkeypatch.setitem(sys.modules, "scipy", scipy)
    monkeypatch.setitem(sys.modules, "scipy.io", scipy.io)


def photo(path, *, side=8, mode="RGB"):
    """A random picture as a file, which differs from path to path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    channels = () if mode == "L" else (3,)
    seed = sum(map(ord, str(path.name))) * 1000 + sum(path.parent.name.encode())
    pixels = RNG(seed).integers(0, 256, (side, side, *channels), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def text(path, *lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def mat(path, **content):
    """What loadmat reads here."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content))


def idx(path, array, kind=8):
    """A file of MNIST's format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    head = bytes([0, 0, kind, array.ndim]) + np.array(array.shape, ">i4").tobytes()
    path.write_bytes(head + array.astype(">i4" if kind == 12 else "u1").tobytes())


def greys(count, side=8):
    return RNG(count).integers(0, 256, (count, side, side), dtype=np.uint8)


# --- files of each; they give the dataset, its class names by index, and its labels ---------------


def cifar10(root):
    names = ["airplane", "automobile", "bird"]
    labels = [0, 2, 1, 0, 1]
    for number, label in enumerate(labels, 1):
        path = root / "cifar-10-batches-py" / f"data_batch_{number}"
        path.parent.mkdir(exist_ok=True)
        data = RNG(number).integers(0, 256, (1, 3072), dtype=np.uint8)
        path.write_bytes(pickle.dumps({"data": data, "labels": [label]}))
    (path.parent / "test_batch").write_bytes(b"")
    (path.parent / "batches.meta").write_bytes(pickle.dumps({"label_names": names}))
    return tv.CIFAR10(root), names, labels


def cifar100(root):
    names, labels = ["apple", "aquarium_fish", "baby"], [2, 0, 1, 2]
    folder = root / "cifar-100-python"
    folder.mkdir()
    data = RNG(0).integers(0, 256, (4, 3072), dtype=np.uint8)
    batch = {"data": data, "fine_labels": labels, "coarse_labels": [4, 1, 14, 14]}
    (folder / "train").write_bytes(pickle.dumps(batch))
    (folder / "test").write_bytes(b"")
    (folder / "meta").write_bytes(pickle.dumps({"fine_label_names": names}))
    return tv.CIFAR100(root), names, labels


def of_mnist(name):
    def make(root):
        cls, labels = getattr(tv, name), [9, 0, 3, 0, 1]
        for part in ("train", "t10k"):
            idx(root / name / "raw" / f"{part}-images-idx3-ubyte", greys(5))
            idx(root / name / "raw" / f"{part}-labels-idx1-ubyte", np.array(labels))
        return cls(root), cls.classes, labels

    return make


def emnist(split, labels):
    def make(root):
        idx(root / "EMNIST" / "raw" / f"emnist-{split}-train-images-idx3-ubyte", greys(5))
        idx(root / "EMNIST" / "raw" / f"emnist-{split}-train-labels-idx1-ubyte", np.array(labels))
        return tv.EMNIST(root, split), tv.EMNIST.classes_split_dict[split], labels

    return make


def qmnist(root):
    labels = [9, 0, 3, 0, 1]
    idx(root / "QMNIST" / "raw" / "qmnist-train-images-idx3-ubyte", greys(5))
    rows = np.array([[label, *range(7)] for label in labels])
    idx(root / "QMNIST" / "raw" / "qmnist-train-labels-idx2-int", rows, kind=12)
    return tv.QMNIST(root), tv.QMNIST.classes, labels


def usps(root):
    labels = [0, 9, 3]
    values = RNG(0).uniform(-1, 1, (3, 256))
    lines = [
        f"{label + 1} " + " ".join(f"{place}:{value:.4f}" for place, value in enumerate(row, 1))
        for label, row in zip(labels, values, strict=True)
    ]
    (root / "usps.bz2").write_bytes(bz2.compress("\n".join(lines).encode()))
    return tv.USPS(root), None, labels


def svhn(root):
    x = RNG(0).integers(0, 256, (32, 32, 3, 4), dtype=np.uint8)
    mat(root / "train_32x32.mat", X=x, y=np.array([[10], [1], [9], [1]], np.uint8))
    return tv.SVHN(root), None, [0, 1, 9, 1]


STL10_NAMES = ["airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck"]


def stl10(root, split="train"):
    folder = root / "stl10_binary"
    text(folder / "class_names.txt", *STL10_NAMES)
    for name in ("train", "test", "unlabeled"):
        data = RNG(len(name)).integers(0, 256, (3, 3, 96, 96), dtype=np.uint8)
        (folder / f"{name}_X.bin").write_bytes(data.tobytes())
        (folder / f"{name}_y.bin").write_bytes(bytes([10, 1, 4]))
    return tv.STL10(root, split), STL10_NAMES, [9, 0, 3]


def gtsrb(root):
    for label, number in ((0, 0), (0, 1), (1, 0), (2, 0)):
        photo(root / "gtsrb/GTSRB/Training" / f"{label:05d}" / f"{number:05d}.ppm")
    return tv.GTSRB(root), None, [0, 0, 1, 2]


def food101(root):
    files = {"waffles": ["waffles/7", "waffles/3"], "apple_pie": ["apple_pie/5"]}
    text(root / "food-101/meta/train.json", json.dumps(files))
    for name in itertools.chain(*files.values()):
        photo(root / "food-101/images" / f"{name}.jpg")
    return tv.Food101(root), ["apple_pie", "waffles"], [1, 1, 0]


def flowers102(root):
    labels = [60, 0, 11, 60]  # of pictures 3, 1, 2 and 4
    mat(root / "flowers-102/setid.mat", trnid=np.array([3, 1, 2, 4]))
    mat(root / "flowers-102/imagelabels.mat", labels=np.array([1, 12, 61, 61]))
    for number in range(1, 5):
        photo(root / "flowers-102/jpg" / f"image_{number:05d}.jpg")
    return tv.Flowers102(root), tv.Flowers102.classes, labels


def pets(kind):
    def make(root):
        lines = ["Abyssinian_1 1 1 1", "Egyptian_Mau_2 3 1 1", "american_bulldog_4 2 2 1"]
        lines += ["Abyssinian_5 1 1 1"]
        text(root / "oxford-iiit-pet/annotations/trainval.txt", *lines)
        for line in lines:
            photo(root / "oxford-iiit-pet/images" / f"{line.split()[0]}.jpg")
        dataset = tv.OxfordIIITPet(root, target_types=kind)
        if kind == "category":
            return dataset, ["Abyssinian", "American Bulldog", "Egyptian Mau"], [0, 2, 1, 0]
        return dataset, ["Cat", "Dog"], [0, 0, 1, 0]

    return make


class Smiling(tv.CelebA):
    """One of the attributes as the class."""

    classes = ("not smiling", "smiling")

    def __getitem__(self, index):
        image, attributes = super().__getitem__(index)
        return image, int(attributes[self.attr_names.index("Smiling")])


def celeba_files(root):
    names = [f"{number:06d}.jpg" for number in range(1, 5)]
    folder = root / "celeba"
    text(folder / "list_eval_partition.txt", *(f"{name} 0" for name in names))
    people = zip(names, (2, 1, 2, 3), strict=True)
    text(folder / "identity_CelebA.txt", *(f"{name} {person}" for name, person in people))
    text(folder / "list_bbox_celeba.txt", 4, "id x y w h", *(f"{n} 1 2 3 4" for n in names))
    text(folder / "list_landmarks_align_celeba.txt", 4, "a b", *(f"{n} 1 2" for n in names))
    attributes = zip(names, ("-1 1", "1 -1", "1 1", "-1 1"), strict=True)
    text(folder / "list_attr_celeba.txt", 4, "Male Smiling", *(f"{n} {a}" for n, a in attributes))
    for name in names:
        photo(folder / "img_align_celeba" / name)


def celeba_attribute(root):
    celeba_files(root)
    return Smiling(root), ["not smiling", "smiling"], [1, 0, 1, 1]


def celeba_identity(root):
    celeba_files(root)
    return tv.CelebA(root, target_type="identity"), None, [2, 1, 2, 3]


def places365(root):
    text(root / "categories_places365.txt", "/a/airfield 0", "/b/bar 2", "/a/apse/indoor 1")
    files = {"/b/bar/1.jpg": 2, "/a/airfield/1.jpg": 0, "/a/apse/indoor/1.jpg": 1}
    text(root / "places365_train_standard.txt", *(f"{name} {i}" for name, i in files.items()))
    for name in files:
        photo(root / "data_256_standard" / name[1:])
    names = ["/a/airfield", "/a/apse/indoor", "/b/bar"]
    return tv.Places365(root, small=True), names, [2, 0, 1]


def imagenet(root):
    classes = {
        "n01440764": ("tench", "Tinca tinca"), "n02012849": ("crane",), "n03126707": ("crane",),
        "n03710637": ("maillot",), "n03710721": ("maillot", "tank suit"),
    }  # fmt: skip
    torch.save((classes, []), root / "meta.bin")
    for name in classes:
        photo(root / "train" / name / f"{name}_1.JPEG")
    names = ["tench, Tinca tinca", "crane", "crane", "maillot", "maillot, tank suit"]
    return tv.ImageNet(root), names, [0, 1, 2, 3, 4]


def imagenette(root):
    for name in ("n01440764", "n02102040", "n02979186"):
        photo(root / "imagenette2-160/train" / name / f"{name}_1.jpeg")
    names = ["tench, Tinca tinca", "English springer, English springer spaniel", "cassette player"]
    return tv.Imagenette(root, size="160px"), names, [0, 1, 2]


def caltech101(root):
    folder = root / "caltech101" / "101_ObjectCategories"
    names = ["Faces", "accordion", "airplanes"]
    for name in (*names, "BACKGROUND_Google"):
        for number in (1, 2):
            photo(folder / name / f"image_{number:04d}.jpg", mode="L" if number == 2 else "RGB")
    return tv.Caltech101(root), names, [0, 0, 1, 1, 2, 2]


def dtd(root):
    files = ["dotted/dotted_1.jpg", "banded/banded_1.jpg", "dotted/dotted_2.jpg"]
    text(root / "dtd/dtd/labels/train1.txt", *files)
    for name in files:
        photo(root / "dtd/dtd/images" / name)
    return tv.DTD(root), ["banded", "dotted"], [1, 0, 1]


def eurosat(root):
    for name in ("Forest", "AnnualCrop"):
        photo(root / "eurosat/2750" / name / f"{name}_1.jpg")
    return tv.EuroSAT(root), ["AnnualCrop", "Forest"], [0, 1]


def fgvc_aircraft(root):
    data = root / "fgvc-aircraft-2013b" / "data"
    text(data / "variants.txt", "707-320", "F-16A/B", "F/A-18")
    text(data / "images_variant_trainval.txt", "11 F/A-18", "12 707-320", "13 F-16A/B")
    for number in (11, 12, 13):
        photo(data / "images" / f"{number}.jpg")
    return tv.FGVCAircraft(root), ["707-320", "F-16A/B", "F/A-18"], [2, 0, 1]


def stanford_cars(root):
    names = ["Ram C/V Cargo Van Minivan 2012", "Audi TT RS Coupe 2012"]
    kinds = [("class", "u1"), ("fname", "U9")]
    notes = np.array([(2, "00001.jpg"), (1, "00002.jpg"), (2, "00003.jpg")], kinds)
    mat(root / "stanford_cars/devkit/cars_train_annos.mat", annotations=notes)
    mat(root / "stanford_cars/devkit/cars_meta.mat", class_names=np.array(names, object))
    for note in notes:
        photo(root / "stanford_cars/cars_train" / note["fname"])
    return tv.StanfordCars(root), names, [1, 0, 1]


def sun397(root):
    names = ["abbey", "apse/indoor", "bar"]
    text(root / "SUN397/ClassName.txt", "/a/abbey", "/a/apse/indoor", "/b/bar")
    photo(root / "SUN397/a/apse/indoor/sun_1.jpg")
    return tv.SUN397(root), names, [1]


def country211(root):
    for name in ("FR", "AD"):
        photo(root / "country211/train" / name / "1.jpg")
    return tv.Country211(root), ["AD", "FR"], [0, 1]


def rendered_sst2(root):
    for name in ("positive", "negative"):
        photo(root / "rendered-sst2/train" / name / "1.png")
    return tv.RenderedSST2(root), ["negative", "positive"], [0, 1]


def inaturalist(kind):
    def make(root):
        folders = ["00000_Animalia_Mollusca_a_b_c_d_e", "00001_Fungi_Asco_a_b_c_d_f"]
        for name in (*folders, "00002_Animalia_Arthropoda_a_b_c_d_g"):
            photo(root / "2021_train" / name / "1.jpg")
        dataset = tv.INaturalist(root, "2021_train", kind)
        if kind == "full":
            return dataset, [*folders, "00002_Animalia_Arthropoda_a_b_c_d_g"], [0, 1, 2]
        return dataset, ["Animalia", "Fungi"], [0, 1, 0]

    return make


def fer2013(root):
    pixels = [" ".join(map(str, image.reshape(-1))) for image in greys(3, 48)]
    rows = (f'{label},"{row}"' for label, row in zip((6, 0, 3), pixels, strict=True))
    text(root / "fer2013/train.csv", "emotion,pixels", *rows)
    return tv.FER2013(root), None, [6, 0, 3]


FAMILIES = [
    cifar10, cifar100, of_mnist("MNIST"), of_mnist("FashionMNIST"), of_mnist("KMNIST"),
    emnist("byclass", [61, 0, 9, 10, 36]), emnist("bymerge", [46, 0, 9, 10, 36]),
    emnist("balanced", [46, 0, 9, 10, 36]), emnist("letters", [1, 26, 2, 2, 13]),
    emnist("digits", [9, 0, 1, 1, 2]), emnist("mnist", [9, 0, 1, 1, 2]),
    qmnist, usps, svhn, stl10, gtsrb, food101, flowers102, pets("category"),
    pets("binary-category"), celeba_attribute, celeba_identity, places365, imagenet, imagenette,
    caltech101, dtd, eurosat, fgvc_aircraft, stanford_cars, sun397, country211, rendered_sst2,
    inaturalist("full"), inaturalist("kingdom"), fer2013,
]  # fmt: skip
IDS = [f"{number}-{make.__qualname__.split('.')[0]}" for number, make in enumerate(FAMILIES)]


def pixels_of(image):
    return np.asarray(image.convert("RGB")).astype(int)


@pytest.mark.parametrize("make", FAMILIES, ids=IDS)
@pytest.mark.filterwarnings(
    "ignore:.* class folders could not be named like their classes",
    # Caltech101 and CelebA leave files open until an image is read.
    "ignore::pytest.PytestUnraisableExceptionWarning",
)
def test_names_labels_and_pixels(make, tmp_path):
    (tmp_path / "root").mkdir()
    dataset, names, labels = make(tmp_path / "root")
    items = [dataset[index] for index in range(len(dataset))]
    assert [int(label) for _, label in items] == labels
    method = RandomNoise(granularity="class-wise").fit(dataset, device="cpu", progress=False)
    rows = method.perturbation_.rows
    assert len(rows) == (max(labels) + 1 if names is None else len(names))
    protected = method.protect(dataset)
    assert protected.classes == names and list(protected.targets) == labels
    expected = []
    for index, (image, label) in enumerate(items):
        row = rows[int(label)].transpose(1, 2, 0)
        expected.append(np.clip(pixels_of(image) + row, 0, 255))
        shown, own = protected[index]
        assert own == label and type(own) is type(label)
        np.testing.assert_array_equal(pixels_of(shown), expected[-1])
    mapping = tmp_path / "mapping.csv"
    folder = protected.export(tmp_path / "out", mapping=mapping, progress=False)
    read = tv.ImageFolder(folder, allow_empty=True)
    assert class_names(read) == names
    files = [folder / row["file"] for row in csv.DictReader(mapping.read_text().splitlines())]
    label_of = {Path(path): label for path, label in read.samples}
    assert [label_of[file] for file in files] == labels
    for file, pixels in zip(files, expected, strict=True):
        np.testing.assert_array_equal(pixels_of(Image.open(file)), pixels)
    assert verify(folder, method.perturbation_, progress=False).whole


def test_folders_keep_the_names_that_can_be(tmp_path):
    (tmp_path / "root").mkdir()
    dataset, _, _ = fgvc_aircraft(tmp_path / "root")
    method = RandomNoise(granularity="class-wise").fit(dataset, device="cpu", progress=False)
    with pytest.warns(UserWarning, match="2 of 3 .* 'F-16A/B' -> 'F-16A_B', 'F/A-18' -> 'F_A-18'"):
        folder = method.protect(dataset).export(tmp_path / "out", progress=False)
    assert open_folder(folder).classes == ["707-320", "F-16A_B", "F_A-18"]


@pytest.mark.parametrize("make", [pets("category"), places365])
def test_pair_of_transforms_set_on_a_base_that_reads_no_other(make, tmp_path):
    dataset, _, _ = make(tmp_path)
    method = RandomNoise(granularity="class-wise").fit(dataset, device="cpu", progress=False)
    protected = method.protect(dataset)
    expected = np.asarray(protected[0][0]).transpose(2, 0, 1)
    dataset.transforms = StandardTransform(PILToTensor())
    np.testing.assert_array_equal(protected[0][0], expected)
    np.testing.assert_array_equal(method.protect(dataset)[0][0], expected)
    assert dataset[0][0].shape == expected.shape
    dataset.transforms = StandardTransform()
    assert isinstance(protected[0][0], Image.Image)
    dataset.transform = PILToTensor()
    assert isinstance(dataset[0][0], Image.Image)  # torchvision's reads the pair alone


@pytest.mark.parametrize("split", ["unlabeled", "train+unlabeled"])
def test_images_without_labels_have_no_class(split, tmp_path):
    dataset, _, _ = stl10(tmp_path, split)
    with pytest.raises(ValueError, match=r"got -1 .*unlabelled images, so exclude these"):
        RandomNoise(granularity="class-wise").fit(dataset, device="cpu", progress=False)
    whole, _, labels = stl10(tmp_path)
    method = RandomNoise(granularity="class-wise").fit(whole, device="cpu", progress=False)
    labelled = torch.utils.data.Subset(tv.STL10(tmp_path, "train+unlabeled"), range(3))
    assert list(ProtectedDataset(labelled, method.perturbation_).targets) == labels


# --- MedMNIST ------------------------------------------------------------------------------------


class PathMNIST:
    """As the class of the package medmnist: arrays of an .npz, labels of shape (N, 1), ``info``."""

    info = None

    def __init__(self, root, transform=None, target_transform=None, as_rgb=False):
        found = np.load(root / "pathmnist.npz")
        self.imgs, self.labels = found["train_images"], found["train_labels"]
        names = {"0": "adipose", "1": "background", "2": "debris"}
        self.info = {"task": "multi-class", "label": names, "n_channels": 3}
        self.transform, self.target_transform, self.as_rgb = transform, target_transform, as_rgb

    def __len__(self):
        return len(self.imgs)

    def __getitem__(self, index):
        image, target = Image.fromarray(self.imgs[index]), self.labels[index].astype(int)
        if self.as_rgb:
            image = image.convert("RGB")
        if self.transform is not None:
            image = self.transform(image)
        if self.target_transform is not None:
            target = self.target_transform(target)
        return image, target


def medmnist(root):
    images = RNG(0).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
    labels = np.array([[2], [0], [1], [0]], np.uint8)
    np.savez(root / "pathmnist.npz", train_images=images, train_labels=labels)
    return PathMNIST(root), ["adipose", "background", "debris"], [2, 0, 1, 0]


def test_medmnist(tmp_path):
    dataset, names, labels = medmnist(tmp_path)
    method = RandomNoise(granularity="class-wise").fit(dataset, device="cpu", progress=False)
    protected = method.protect(dataset)
    assert protected.classes == names and list(protected.targets) == labels
    for index, label in enumerate(labels):
        row = method.perturbation_.rows[label].transpose(1, 2, 0)
        image, own = protected[index]
        expected = np.clip(dataset.imgs[index].astype(int) + row, 0, 255)
        np.testing.assert_array_equal(np.asarray(image), expected)
        assert own.shape == (1,) and own[0] == label
    read = tv.ImageFolder(protected.export(tmp_path / "out", progress=False))
    assert class_names(read) == names and sorted(read.targets) == sorted(labels)
