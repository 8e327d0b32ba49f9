"""Datasets taken apart into raw pixels, labels and transforms."""

import hashlib
import os
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import (
    ConcatDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    Subset,
    TensorDataset,
)
from torchvision.datasets import FakeData, FashionMNIST, ImageFolder
from torchvision.datasets.vision import StandardTransform, VisionDataset
from torchvision.transforms import Compose, Normalize, PILToTensor, ToTensor

from unlearnable import ProtectedDataset, RandomNoise
from unlearnable.data.cache import read_images
from unlearnable.data.fingerprint import image_key
from unlearnable.data.image import ResizeCrop, pixels_of
from unlearnable.data.raw import RawDataset, check_labels
from unlearnable.datasets import Shapes

RNG = np.random.default_rng(0)
PHOTO = RNG.integers(0, 256, (6, 8, 3), dtype=np.uint8)  # height 6, width 8


class Pictures(Dataset):
    """PIL images and labels as they are, with nothing else."""

    def __init__(self, images, labels=None):
        self.images = images
        self.values = [0] * len(images) if labels is None else labels
        self.reads = 0

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        self.reads += 1
        return self.images[index], self.values[index]


def photos(count=4, side=8, seed=0):
    rng = np.random.default_rng(seed)
    return [
        Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8)) for _ in range(count)
    ]


def whole(raw, index):
    """The item as the dataset would give it."""
    batch = next(raw.batches([index]))
    return raw.finished(batch, batch.images(), {})[0]


def load(path):
    """The image in the mode that its file has."""
    with Image.open(path) as image:
        image.load()
        return image


def chw(image):
    return np.asarray(image.convert("RGB")).transpose(2, 0, 1)


# --- transforms ----------------------------------------------------------------------------------


def test_transforms_come_off_a_copy_and_the_callers_dataset_stays_as_it_was():
    on_image = Compose([ToTensor(), Normalize([0.5] * 3, [0.5] * 3)])
    on_label = lambda label: label + 100
    dataset = Shapes(size=16, transform=on_image, target_transform=on_label)
    before = dict(vars(dataset))
    raw = RawDataset(dataset)
    item = raw[3]
    raw.labels  # noqa: B018
    assert vars(dataset) == before
    assert dataset.transform is on_image and dataset.target_transform is on_label
    assert dataset[3][0].dtype == torch.float32 and dataset[3][1] == dataset.targets[3] + 100
    np.testing.assert_array_equal(item.pixels, dataset.data[3].transpose(2, 0, 1))
    assert item.label == dataset.targets[3]
    image, label = whole(raw, 3)
    torch.testing.assert_close(image, dataset[3][0], rtol=0, atol=0)
    assert label == dataset[3][1]


def test_arrays_are_shared_not_copied():
    dataset = Shapes(size=16, transform=ToTensor())
    assert RawDataset(dataset)._bare[0].data is dataset.data


def test_transform_set_after_construction_counts():
    dataset = Shapes(size=4)
    dataset.transform = PILToTensor()
    raw = RawDataset(dataset)
    assert isinstance(whole(raw, 0)[0], torch.Tensor)


def test_joint_transforms_are_taken_off_and_applied():
    class Joint(VisionDataset):
        def __init__(self, transforms):
            super().__init__("", transforms=transforms)

        def __len__(self):
            return 4

        def __getitem__(self, index):
            pair = photos()[index], index
            return pair if self.transforms is None else self.transforms(*pair)

    both = lambda image, label: (PILToTensor()(image), label + 10)
    dataset = Joint(both)
    raw = RawDataset(dataset)
    item = raw[2]
    assert item.label == 2 and dataset.transforms is both
    image, label = whole(raw, 2)
    assert label == 12
    torch.testing.assert_close(image, dataset[2][0])


class Unasked(Pictures):
    transform = target_transform = None

    def __getitem__(self, index):
        image, label = super().__getitem__(index)
        return self.transform(image), self.target_transform(label)


class UnaskedJoint(Pictures):
    transforms = None

    def __getitem__(self, index):
        return self.transforms(*super().__getitem__(index))


def test_dataset_that_calls_its_transforms_unasked():
    dataset = Unasked(photos(), [0, 1, 2, 3])
    dataset.transform, dataset.target_transform = PILToTensor(), str
    raw = RawDataset(dataset)
    np.testing.assert_array_equal(raw[1].pixels, chw(dataset.images[1]))
    assert raw[1].label == 1 and dataset[1][1] == "1"


def test_dataset_that_calls_its_joint_transforms_unasked():
    dataset = UnaskedJoint(photos(), [0, 1, 2, 3])
    dataset.transforms = StandardTransform(PILToTensor(), str)
    raw = RawDataset(dataset)
    np.testing.assert_array_equal(raw[1].pixels, chw(dataset.images[1]))
    assert raw[1].label == 1 and dataset[1][1] == "1"


# --- datasets of torchvision ---------------------------------------------------------------------


def test_cifar10(cifar10):
    raw = RawDataset(cifar10)
    assert len(raw) == 40 and raw.name == "AnyCIFAR10" and raw.classes[0] == "airplane"
    np.testing.assert_array_equal(raw[17].pixels, cifar10.data[17].transpose(2, 0, 1))
    assert raw.labels.tolist() == cifar10.targets
    assert raw[17].restore(raw[17].pixels).mode == "RGB"


@pytest.mark.skipif("UNLEARNABLE_CIFAR10" not in os.environ, reason="UNLEARNABLE_CIFAR10 not set")
def test_real_cifar10(cifar10_class):
    dataset = cifar10_class(os.environ["UNLEARNABLE_CIFAR10"])
    store = read_images(Subset(dataset, range(100)))
    expected = torch.from_numpy(dataset.data[:100].transpose(0, 3, 1, 2).copy())
    assert torch.equal(store.images, expected)
    assert store.labels.tolist() == dataset.targets[:100]
    assert store.num_classes == 10 and len(set(store.keys.tolist())) == 100


def write_idx(path, array):
    header = struct.pack(f">I{array.ndim}I", 0x800 + array.ndim, *array.shape)
    path.write_bytes(header + array.tobytes())


def test_fashion_mnist_of_mode_l(tmp_path):
    folder = tmp_path / "FashionMNIST" / "raw"
    folder.mkdir(parents=True)
    images = RNG.integers(0, 256, (10, 28, 28), dtype=np.uint8)
    for split in ("train", "t10k"):
        write_idx(folder / f"{split}-images-idx3-ubyte", images)
        write_idx(folder / f"{split}-labels-idx1-ubyte", np.arange(10, dtype=np.uint8)[::-1].copy())
    dataset = FashionMNIST(tmp_path, transform=ToTensor())
    raw = RawDataset(dataset)
    np.testing.assert_array_equal(raw[3].pixels, images[3][None])
    assert raw.labels.tolist() == list(range(9, -1, -1))
    assert raw[3].restore(raw[3].pixels).mode == "L"
    store = read_images(dataset)
    assert store.images.shape == (10, 1, 28, 28) and store.classes[0] == "T-shirt/top"


class LabelsAttribute(Pictures):
    """As SVHN and STL10 have it."""

    def __init__(self, images, labels):
        super().__init__(images, labels)
        self.labels = np.asarray(labels)

    def __getitem__(self, index):
        image, label = super().__getitem__(index)
        return image, int(label)


def test_labels_attribute_is_read_without_reading_the_images():
    dataset = LabelsAttribute(photos(4) * 50, [0, 1, 2, 1] * 50)
    raw = RawDataset(dataset)
    dataset_reads = raw._bare[0]
    assert raw.labels.tolist() == [0, 1, 2, 1] * 50
    assert 0 < dataset_reads.reads <= 16


def test_labels_attribute_that_disagrees_with_the_items_is_not_used():
    dataset = LabelsAttribute(photos(4), [0, 1, 2, 1])
    dataset.labels = np.array([5, 5, 5, 5])
    assert RawDataset(dataset).labels.tolist() == [0, 1, 2, 1]


def test_labels_attribute_of_another_length_is_not_used():
    dataset = LabelsAttribute(photos(4), [0, 1, 2, 1])
    dataset.labels = np.array([0, 1, 2, 1, 7])
    assert RawDataset(dataset).labels.tolist() == [0, 1, 2, 1]


def test_labels_follow_subsets():
    dataset = LabelsAttribute(photos(4), [0, 1, 2, 1])
    assert RawDataset(Subset(dataset, [2, 0])).labels.tolist() == [2, 0]


def test_unlabelled_images_are_refused_and_a_subset_helps():
    dataset = LabelsAttribute(photos(4), [0, 1, -1, 1])
    with pytest.raises(ValueError, match=r"got -1 for image 2.*Subset"):
        read_images(dataset)
    with pytest.raises(ValueError, match=r"got -1 for image 2.*Subset"):
        RawDataset(dataset).labels  # noqa: B018
    assert read_images(Subset(dataset, [0, 1, 3])).labels.tolist() == [0, 1, 1]


def test_fake_data():
    dataset = FakeData(6, (3, 8, 8), num_classes=3, transform=ToTensor())
    raw = RawDataset(dataset)
    plain = FakeData(6, (3, 8, 8), num_classes=3)
    np.testing.assert_array_equal(raw[4].pixels, chw(plain[4][0]))
    assert raw.labels.tolist() == [plain[i][1] for i in range(6)]
    assert raw.classes is None


# --- image folders, modes and sizes --------------------------------------------------------------


def palette(transparent):
    image = Image.fromarray(PHOTO).quantize(16)
    if transparent:
        image.info["transparency"] = bytes(range(0, 256, 16))
    return image


def alpha(mode):
    image = Image.fromarray(PHOTO).convert(mode)
    image.putalpha(Image.fromarray(np.ascontiguousarray(PHOTO[:, :, 0])))
    return image


MODES = {
    "P": (lambda: palette(False), "png"),
    "P-transparent": (lambda: palette(True), "png"),
    "RGBA": (lambda: alpha("RGB"), "png"),
    "LA": (lambda: alpha("L"), "png"),
    "L": (lambda: Image.fromarray(PHOTO).convert("L"), "png"),
    "1": (lambda: Image.fromarray(PHOTO).convert("1"), "png"),
    "CMYK": (lambda: Image.fromarray(PHOTO).convert("CMYK"), "jpg"),
    "RGB": (lambda: Image.fromarray(PHOTO), "png"),
}


@pytest.fixture
def mode_folder(tmp_path):
    for name, (make, ending) in MODES.items():
        (tmp_path / "modes" / name).mkdir(parents=True)
        make().save(tmp_path / "modes" / name / f"0.{ending}")
    return tmp_path / "modes"


@pytest.mark.parametrize("name", MODES)
def test_mode_as_opened(mode_folder, name):
    (path,) = (mode_folder / name).iterdir()
    image = load(path)
    assert image.mode == name.split("-")[0]
    item = RawDataset(([image], [0]))[0]
    grey = name in ("L", "LA", "1")
    assert item.pixels.shape == (1 if grey else 3, 6, 8) and item.pixels.dtype == np.uint8
    reference = image
    if image.mode in ("RGBA", "LA") or "transparency" in image.info:
        reference = Image.new("RGBA", image.size, "white")
        reference.alpha_composite(image.convert("RGBA"))
    np.testing.assert_array_equal(np.broadcast_to(item.pixels, (3, 6, 8)), chw(reference))
    assert item.restore(item.pixels).mode == ("L" if grey else "RGB")


def load_rgb(path):
    """ImageFolder's own loader without Pillow's warning of transparent palettes."""
    image = load(path)
    return (image.convert("RGBA") if "transparency" in image.info else image).convert("RGB")


def test_image_folder_of_all_modes(mode_folder):
    dataset = ImageFolder(mode_folder, loader=load_rgb)
    store = read_images(dataset)
    assert store.images.shape == (len(MODES), 3, 6, 8)
    assert store.classes == sorted(MODES)
    for index, (path, label) in enumerate(dataset.samples):
        np.testing.assert_array_equal(store.images[index].numpy(), chw(load_rgb(path)))
        assert store.labels[index] == label


def test_image_folder_whose_loader_keeps_modes_mixes_grey_and_colour(mode_folder):
    store = read_images(ImageFolder(mode_folder, loader=load))
    assert store.images.shape == (len(MODES), 3, 6, 8)
    grey = store.images[sorted(MODES).index("L")]
    assert torch.equal(grey[0], grey[1]) and torch.equal(grey[0], grey[2])


@pytest.mark.parametrize("mode", ["I;16", "I", "F"])
def test_more_than_8_bits_are_refused(mode):
    image = Image.new(mode, (8, 8))
    with pytest.raises(ValueError, match=f"8 bits per channel.*{mode}"):
        RawDataset(([image], [0]))[0]


def test_16_bit_png_as_opened_is_refused(tmp_path):
    Image.fromarray(np.full((8, 8), 40_000, np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(ValueError, match="8 bits per channel"):
        RawDataset(([load(tmp_path / "deep.png")], [0]))[0]


@pytest.mark.parametrize("ending", ["png", "jpg"])
@pytest.mark.parametrize("loader", ["default", "open"])
def test_exif_orientation_is_applied(tmp_path, ending, loader):
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying, shown turned by 90 degrees clockwise
    (tmp_path / "class").mkdir()
    path = tmp_path / "class" / f"0.{ending}"
    Image.fromarray(PHOTO).save(path, exif=exif)
    dataset = ImageFolder(tmp_path, **({} if loader == "default" else {"loader": load}))
    item = RawDataset(dataset)[0]
    stored = chw(load(path))
    np.testing.assert_array_equal(item.pixels, np.rot90(stored, -1, axes=(1, 2)))
    assert item.restore(item.pixels).getexif().get(0x0112) is None


def test_varying_sizes_need_image_size(varying_folder):
    with pytest.raises(ValueError, match=r"8x6 for image 0 and 6x12 for image 1.*image_size="):
        read_images(varying_folder)


@pytest.mark.parametrize(("image_size", "shape"), [(5, (5, 5)), ((4, 6), (4, 6)), ([4, 6], (4, 6))])
def test_image_size_makes_them_equal(varying_folder, image_size, shape):
    store = read_images(varying_folder, image_size)
    assert tuple(store.images.shape) == (4, 3, *shape)
    assert store.fit == ResizeCrop(*shape)
    own_size = [
        image_key(item.pixels) for item in (RawDataset(varying_folder)[i] for i in range(4))
    ]
    assert store.keys.tolist() == own_size  # keys are of the images before they are resized


@pytest.mark.parametrize("image_size", [0, -3, (8,), (8, 8, 8), 8.0, (8.5, 8), "8x8"])
def test_image_size_of_no_sense(image_size):
    with pytest.raises(ValueError, match="image_size"):
        ResizeCrop.parse(image_size)


def test_fit_leaves_images_of_its_size_alone_and_grey_images_grey():
    pixels = PHOTO.transpose(2, 0, 1)
    assert ResizeCrop(6, 8)(pixels) is pixels
    assert ResizeCrop(4, 4)(pixels[:1]).shape == (1, 4, 4)


# --- datasets of datasets ------------------------------------------------------------------------


def test_subset_of_subset(shapes):
    raw = RawDataset(Subset(Subset(shapes, range(10, 30)), [5, 0, 19]))
    assert len(raw) == 3 and raw.classes == shapes.classes
    for place, index in enumerate([15, 10, 29]):
        np.testing.assert_array_equal(raw[place].pixels, shapes.data[index].transpose(2, 0, 1))
        assert raw.labels[place] == raw[place].label == shapes.targets[index]


def test_concatenated_parts_keep_their_own_transforms():
    first = Shapes(size=4, transform=PILToTensor())
    second = Shapes(size=4, seed=1, target_transform=str)
    raw = RawDataset(ConcatDataset([first, Subset(second, [3, 1])]))
    assert len(raw) == 6
    assert raw.labels.tolist() == [*first.targets, second.targets[3], second.targets[1]]
    for index, expected in enumerate([*first, second[3], second[1]]):
        image, label = whole(raw, index)
        assert type(image) is type(expected[0]) and label == expected[1]
        np.testing.assert_array_equal(np.asarray(image), np.asarray(expected[0]))


def test_the_same_dataset_twice_is_one_leaf(shapes):
    raw = RawDataset(ConcatDataset([shapes, Subset(shapes, [7])]))
    assert len(raw.originals) == 1 and len(raw) == 41
    np.testing.assert_array_equal(raw[40].pixels, raw[7].pixels)


def test_concatenated_parts_with_other_classes_are_refused():
    first, second = Shapes(size=4), Shapes(size=4)
    second.classes = second.classes[::-1]
    with pytest.raises(ValueError, match="same classes in the same order"):
        RawDataset(ConcatDataset([first, second]))


class TurnedSubset(Subset):
    """A Subset that changes what it reads, as many people write one for its own transform."""

    transform = None

    def __getitem__(self, index):
        image, label = super().__getitem__(index)
        image = image.rotate(90)
        return (image if self.transform is None else self.transform(image)), label

    def __getitems__(self, indices):
        return [self[index] for index in indices]


def test_subclass_of_subset_that_reads_in_its_own_way_is_read_in_that_way(shapes):
    turned = TurnedSubset(shapes, [4, 2])
    turned.transform = PILToTensor()
    raw = RawDataset(turned)
    item = raw[1]
    np.testing.assert_array_equal(item.pixels, chw(shapes[2][0].rotate(90)))
    assert raw.labels.tolist() == [shapes.targets[4], shapes.targets[2]]
    assert isinstance(whole(raw, 1)[0], torch.Tensor)


# --- tensors and arrays --------------------------------------------------------------------------


def test_tensor_dataset(tensors):
    raw = RawDataset(TensorDataset(*tensors))
    item = raw[5]
    np.testing.assert_array_equal(item.pixels, tensors[0][5].numpy())
    restored = item.restore(item.pixels)
    assert torch.equal(restored, tensors[0][5])
    assert restored.data_ptr() != tensors[0][5].data_ptr()
    assert raw.labels.tolist() == tensors[1].tolist()


@pytest.mark.parametrize("kind", ["tensors", "arrays", "grey arrays", "pictures"])
def test_pair_of_images_and_labels(tensors, kind):
    images, labels = tensors
    expected = images.numpy()
    if kind == "arrays":
        images = expected.transpose(0, 2, 3, 1)
    elif kind == "grey arrays":
        expected = expected[:, :1]
        images = expected[:, 0]
    elif kind == "pictures":
        images = [Image.fromarray(e.transpose(1, 2, 0)) for e in expected]
    raw = RawDataset((images, labels.tolist()))
    store = read_images((images, labels))
    np.testing.assert_array_equal(store.images.numpy(), expected)
    assert store.labels.tolist() == raw.labels.tolist() == labels.tolist()
    restored = raw[2].restore(raw[2].pixels)
    assert type(restored) is type(images[2])
    np.testing.assert_array_equal(np.asarray(restored), np.asarray(images[2]))


def test_pair_of_unequal_lengths(tensors):
    with pytest.raises(ValueError, match="got 19 and 20"):
        RawDataset((tensors[0], tensors[1][:19]))


def test_grey_and_colour_copies_share_a_key_and_other_images_do_not():
    grey = PHOTO[None, :, :, 0]
    assert image_key(grey) == image_key(np.repeat(grey, 3, axis=0))
    assert image_key(grey) != image_key(grey.reshape(1, 8, 6))
    changed = grey.copy()
    changed[0, 0, 0] ^= 1
    assert image_key(changed) != image_key(grey)


def test_key_is_the_same_in_every_version():
    pixels = np.arange(12, dtype=np.uint8).reshape(3, 1, 4)
    by_hand = hashlib.blake2b(struct.pack("<II", 1, 4), digest_size=8)
    by_hand.update(bytes([0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11]))
    assert image_key(pixels) == int.from_bytes(by_hand.digest(), "little")


@pytest.mark.parametrize(
    "image",
    [
        torch.rand(3, 8, 8),
        np.zeros((8, 8, 3), np.float32),
        torch.zeros(8, 8, 3, dtype=torch.uint8),
        torch.zeros(8, 8, dtype=torch.uint8),
        np.zeros((8, 8, 3), np.int64),
        "picture.png",
    ],
)
def test_other_images_are_refused(image):
    with pytest.raises(TypeError, match=r"expected a PIL image.*without ToTensor"):
        RawDataset(([image], [0]))[0]


class BakedIn(Pictures):
    def __getitem__(self, index):
        return ToTensor()(self.images[index]), 0


def test_baked_in_totensor_is_refused():
    with pytest.raises(TypeError, match=r"float32 Tensor of shape \(3, 8, 8\)"):
        read_images(BakedIn(photos()))


# --- labels --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ("cat", "'cat' for image 1"),
        (None, "missing"),
        (-1, "unlabelled"),
        (1.0, "1.0 for image 1"),
        (True, "True for image 1"),
        ([0, 1], r"\[0, 1\] for image 1"),
        (torch.tensor(1.0), "1.0 for image 1"),
        (torch.tensor([0, 1]), "for image 1"),
    ],
)
def test_labels_that_are_no_class_indices(label, message):
    dataset = Pictures(photos(2), [0, label])
    with pytest.raises(ValueError, match=f"(?s)class indices.*{message}"):
        read_images(dataset)
    with pytest.raises(ValueError, match=f"(?s)class indices.*{message}"):
        RawDataset(dataset).labels  # noqa: B018


def test_one_hot_labels_are_refused(tensors):
    one_hot = torch.nn.functional.one_hot(tensors[1])
    with pytest.raises(ValueError, match="class indices"):
        RawDataset(TensorDataset(tensors[0], one_hot)).labels  # noqa: B018


def test_labels_beyond_the_classes_are_refused():
    dataset = Pictures(photos(2), [0, 2])
    dataset.classes = ["a", "b"]
    with pytest.raises(ValueError, match="number of classes, 2, got 2"):
        read_images(dataset)


def test_integers_of_any_type_are_labels():
    labels = [1, np.int64(2), np.uint8(3), torch.tensor(4), np.array(5)]
    checked = check_labels(labels, None)
    assert checked.tolist() == [1, 2, 3, 4, 5] and checked.dtype == np.int64


@pytest.mark.parametrize("label", [1440764, 2**70])
def test_numbers_that_are_no_class_indices_are_refused(label):
    expected = rf"0, 1, 2, … below 1,048,576, got {label} for image 1; .*a function of the item"
    with pytest.raises(ValueError, match=expected):
        check_labels([0, label], None)


# --- what is no dataset --------------------------------------------------------------------------


class Stream(IterableDataset):
    def __iter__(self):
        return iter([])


@pytest.mark.parametrize("dataset", [Stream(), 7, {1, 2}, {"image": [1], "label": [2]}, Pictures])
def test_no_map_style_dataset(dataset):
    with pytest.raises(TypeError, match="map-style dataset"):
        RawDataset(dataset)


@pytest.mark.parametrize(
    ("make", "hint"),
    [
        (lambda shapes: "photos", "got str; open a folder of photos with .*ImageFolder"),
        (lambda shapes: Path("photos"), "got .*Path; open a folder of photos with .*ImageFolder"),
        (lambda shapes: DataLoader(shapes), r"got DataLoader; pass its \.dataset"),
    ],
)
def test_what_is_taken_for_a_dataset_is_refused_with_what_to_pass(make, hint, shapes):
    with pytest.raises(TypeError, match=hint):
        RawDataset(make(shapes))


def test_empty_dataset(shapes):
    with pytest.raises(ValueError, match="empty Subset"):
        RawDataset(Subset(shapes, []))


@pytest.mark.parametrize(
    ("item", "found"),
    [
        (photos(1)[0], r"pairs \(image, label\), got a Image"),
        ((photos(1)[0], 0, 0), r"one label in each item, got several \(1, 2\) in a tuple"),
        ({"image": photos(1)[0]}, "one label in each item, got none in a dict of image: Image"),
    ],
)
def test_items_that_are_not_clear(item, found):
    class Odd(Pictures):
        def __getitem__(self, index):
            return item

    with pytest.raises(TypeError, match=rf"expected Odd to have {found}.*from_items"):
        read_images(Odd(photos(2)))


def test_read_images_describes_the_dataset(shapes):
    store = read_images(shapes)
    assert store.images.dtype == torch.uint8 and store.num_classes == 10 and store.fit is None
    np.testing.assert_array_equal(store.images.numpy(), shapes.data.transpose(0, 3, 1, 2))
    assert store.digest == read_images(Subset(shapes, range(40))).digest
    assert store.digest != read_images(Subset(shapes, [*range(39), 38])).digest
    assert store.thumbnails.shape == (40, 3, 4, 4)
    blocks = shapes.data[0].reshape(4, 8, 4, 8, 3).mean((1, 3)).transpose(2, 0, 1)
    assert np.abs(store.thumbnails[0] - blocks).max() <= 1


# --- numbers of any type -------------------------------------------------------------------------

INTEGERS = [np.int64, np.uint8, np.array, torch.tensor, lambda n: np.arange(n + 1)[n]]
NOT_INTEGERS = [True, np.True_, torch.tensor(True), 1.5, 16.0, "16", None, np.float32(16)]


@pytest.mark.parametrize("kind", INTEGERS)
def test_sizes_of_any_integer_type(kind):
    found = ResizeCrop.parse(kind(16))
    assert found == (16, 16) and all(type(side) is int for side in found)
    assert ResizeCrop.parse([kind(16), 8]) == (16, 8)


@pytest.mark.parametrize("kind", [tuple, list, np.array, torch.tensor, torch.Size])
def test_sizes_of_any_type_of_pair(kind):
    found = ResizeCrop.parse(kind([16, 8]))
    assert found == (16, 8) and all(type(side) is int for side in found)


@pytest.mark.parametrize("size", [*NOT_INTEGERS[:-2], NOT_INTEGERS[-1], 0, -1])
def test_sizes_that_are_refused(size):
    for given in (size, (size, 16), [16, size]):
        with pytest.raises(ValueError, match=r"a side or \(height, width\) in pixels, got"):
            ResizeCrop.parse(given)


@pytest.mark.parametrize("size", [(1, 2, 3), [[1, 2]], [1], (None, 16), [1, [2]], np.ones((1, 2))])
def test_sizes_that_are_no_pair(size):
    with pytest.raises(ValueError, match=r"a side or \(height, width\) in pixels, got"):
        ResizeCrop.parse(size)


@pytest.mark.parametrize("kind", INTEGERS)
def test_shapes_of_any_integer_type(kind):
    expected = Shapes(size=12, seed=3, side=16)
    found = Shapes(size=kind(12), seed=kind(3), side=kind(16))
    np.testing.assert_array_equal(found.data, expected.data)
    assert found.targets == expected.targets and type(found.seed) is int


@pytest.mark.parametrize("name", ["size", "seed", "side"])
def test_shapes_of_numbers_that_are_refused(name):
    for value in NOT_INTEGERS:
        if name == "size" and value is None:
            continue  # the usual one
        with pytest.raises(ValueError, match=f"expected {name} to be an integer"):
            Shapes(**{name: value})
    for value in ({"size": 0}, {"seed": -1}, {"side": 7}):
        with pytest.raises(ValueError, match=r"an integer >= \d, got"):
            Shapes(**value)


@pytest.mark.parametrize(
    ("image", "hint"),
    [
        (b"\x89PNG", "got bytes, an encoded file; decode it with PIL.Image.open"),
        ({"bytes": b"\x89PNG", "path": None}, "got dict, an encoded file; .*datasets.Image"),
        ("photos/cat.jpg", "got str, a path; open it with PIL.Image.open"),
        (Path("photos/cat.jpg"), "got .*Path, a path; open it"),
        (3, r"got int\. Perturbations"),
        (torch.zeros(8, 8, dtype=torch.uint8), r"shape \(8, 8\); image\[None\] adds the channel"),
        (
            torch.zeros(3, 8, 8, dtype=torch.int64),
            r"; to\(torch\.uint8\) converts it if its levels",
        ),
        (np.zeros((8, 8, 3), np.int64), r"; astype\(np\.uint8\) converts it if its levels are 0"),
        (np.zeros((8, 8), np.uint16), r"; astype\(np\.uint8\) converts it"),
        (np.zeros((8, 8), bool), r"shape \(8, 8\)\. Perturbations"),
        (torch.zeros(3, 8, 8, dtype=torch.bool), r"shape \(3, 8, 8\)\. Perturbations"),
        (torch.zeros(3, 8, 8), r"shape \(3, 8, 8\)\. Perturbations"),
    ],
)
def test_what_is_no_image_yet_is_refused_with_what_to_do(image, hint):
    with pytest.raises(TypeError, match=hint):
        pixels_of(image)


@pytest.mark.parametrize("number", [np.array(3), torch.tensor(3)])
def test_single_numbers_under_the_names_of_lists_are_no_lists(number):
    dataset = Pictures(photos(), [0, 1, 1, 0])
    dataset.labels = dataset.paths = number
    assert RawDataset(dataset).labels.tolist() == [0, 1, 1, 0]
    ProtectedDataset(dataset, RandomNoise().fit(dataset, progress=False).perturbation_)
