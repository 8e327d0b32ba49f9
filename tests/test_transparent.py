"""A protected dataset in place of the one below it: transforms, attributes, own datasets."""

import collections
import copy
import functools
import io
import operator
import os
import pickle
import random
import warnings
import zipfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset, random_split
from torchvision import tv_tensors
from torchvision.datasets import ImageFolder
from torchvision.datasets.vision import StandardTransform
from torchvision.transforms import Compose, PILToTensor, RandomHorizontalFlip, ToTensor, v2
from torchvision.transforms import functional as F

import unlearnable as ue
from unlearnable import ProtectedDataset
from unlearnable.data.cache import read_images
from unlearnable.data.compare import same
from unlearnable.data.raw import RawDataset
from unlearnable.datasets import Shapes


def plus_100(label):
    return label + 100


def joint(image, label):
    return PILToTensor()(image), label + 7


@pytest.fixture(scope="module")
def reference(shapes, perturbation):
    """The protected PIL images and labels, by index."""
    return list(ProtectedDataset(shapes, perturbation))


def array(image):
    return np.asarray(image)


class Own(Dataset):
    """A dataset of the caller's own: images of Shapes as arrays, and labels."""

    def __init__(self, transform=None, **attributes):
        shapes = Shapes(size=40)
        self.held, self.numbers = shapes.data, list(shapes.targets)
        self.transform = transform
        vars(self).update(attributes)

    def __len__(self):
        return len(self.held)

    def read(self, index):
        return Image.fromarray(self.held[index]), self.numbers[index]


# --- setting transforms --------------------------------------------------------------------------


def test_what_is_applied_can_be_read(shapes, perturbation):
    on_image = ToTensor()
    dataset = Shapes(size=40, transform=on_image, target_transform=plus_100)
    protected = ProtectedDataset(dataset, perturbation)
    assert protected.transform is on_image and protected.target_transform is plus_100
    assert protected.transforms is dataset.transforms
    plain = ProtectedDataset(shapes, perturbation)
    assert (plain.transform, plain.target_transform, plain.transforms) == (None, None, None)


def test_setting_on_the_view_replaces_and_leaves_the_dataset_alone(perturbation, reference):
    dataset = Shapes(size=40, transform=lambda image: 1 / 0, target_transform=plus_100)
    before = dict(vars(dataset))
    protected = ProtectedDataset(dataset, perturbation)
    protected.transform = PILToTensor()
    image, label = protected[3]
    np.testing.assert_array_equal(image.permute(1, 2, 0), array(reference[3][0]))
    assert label == reference[3][1] + 100 and vars(dataset) == before
    np.testing.assert_array_equal(protected.clean(3)[0].permute(1, 2, 0), dataset.data[3])
    protected.transform = None
    np.testing.assert_array_equal(array(protected[3][0]), array(reference[3][0]))
    protected.target_transform = None
    assert protected[3][1] == reference[3][1]


def test_the_last_one_that_is_set_wins(shapes, perturbation, reference):
    protected = ProtectedDataset(shapes, perturbation)
    protected.transform = lambda image: 1 / 0
    protected.transforms = joint
    assert protected.transforms is joint and protected.transform is None
    assert protected[3][0].dtype == torch.uint8 and protected[3][1] == reference[3][1] + 7
    protected.target_transform = str
    assert protected[3][1] == str(reference[3][1]) and isinstance(protected[3][0], Image.Image)
    assert protected.transforms.target_transform is str
    protected.transforms = None
    assert protected[3][1] == reference[3][1] and protected.target_transform is None


@pytest.mark.parametrize("kind", ["its own", "Subset", "ConcatDataset", "another's class"])
def test_setting_on_the_base_after_wrapping(kind, perturbation, reference):
    dataset = Own() if kind == "another's class" else Shapes(size=40)
    if kind == "another's class":
        type(dataset).__getitem__ = lambda self, index: (
            self.read(index)
            if self.transform is None
            else (self.transform(self.read(index)[0]), self.numbers[index])
        )
    given = {"Subset": Subset(dataset, range(20)), "ConcatDataset": ConcatDataset([dataset])}
    protected = ProtectedDataset(given.get(kind, dataset), perturbation)
    dataset.transform = PILToTensor()
    np.testing.assert_array_equal(protected[3][0].permute(1, 2, 0), array(reference[3][0]))
    assert protected.transform is dataset.transform
    dataset.transform = None
    np.testing.assert_array_equal(array(protected[3][0]), array(reference[3][0]))


def test_joint_transforms_set_on_the_base(perturbation, reference):
    dataset = Shapes(size=40)
    protected = ProtectedDataset(dataset, perturbation)
    dataset.transforms = joint
    assert protected[3][1] == reference[3][1] + 7 and protected.transforms is joint


@pytest.mark.parametrize("way", [copy.copy, copy.deepcopy, lambda d: pickle.loads(pickle.dumps(d))])
def test_copies_keep_what_was_set_and_are_set_by_themselves(way, perturbation):
    dataset = Shapes(size=40)
    protected = ProtectedDataset(dataset, perturbation)
    protected.transform = PILToTensor()
    again = way(protected)
    assert again[3][0].dtype == torch.uint8
    again.transform = None
    assert isinstance(again[3][0], Image.Image) and protected[3][0].dtype == torch.uint8
    again.base.target_transform = plus_100
    assert again[3][1] >= 100 and again.base[3][1] >= 100


def test_setting_through_random_split(perturbation, reference):
    protected = ProtectedDataset(Shapes(size=40), perturbation)
    first, second = random_split(protected, [30, 10])
    first.dataset.transform = ToTensor()
    assert isinstance(first[0][0], torch.Tensor) and isinstance(second[0][0], torch.Tensor)
    part = ProtectedDataset(Subset(Shapes(size=40), [3, 5]), perturbation)
    part.transform = PILToTensor()
    np.testing.assert_array_equal(part[0][0].permute(1, 2, 0), array(reference[3][0]))


def test_views_of_views_keep_what_was_set(perturbation):
    protected = ProtectedDataset(Shapes(size=40), perturbation)
    protected.transform = ToTensor()
    half = protected.with_fraction(0.5)
    assert isinstance(half[0][0], torch.Tensor)
    half.transform = None
    assert isinstance(half[0][0], Image.Image) and isinstance(protected[0][0], torch.Tensor)
    bare = protected.without_transforms()
    assert isinstance(bare[0][0], Image.Image) and bare.transform is None


def test_parts_that_differ_have_no_common_transform(perturbation):
    parts = [Shapes(size=20, transform=ToTensor()), Shapes(size=40)]
    protected = ProtectedDataset(ConcatDataset(parts), perturbation)
    assert protected.transform is None and isinstance(protected[0][0], torch.Tensor)
    protected.transform = PILToTensor()
    assert protected[0][0].dtype == protected[59][0].dtype == torch.uint8


def test_a_loader_gets_what_was_set(perturbation, reference):
    """As timm's create_loader sets it."""
    protected = ProtectedDataset(Shapes(size=40), perturbation)
    protected.transform = Compose([ToTensor()])
    images, labels = next(iter(DataLoader(protected, 8)))
    assert torch.equal(images[5], F.to_tensor(reference[5][0])) and labels[5] == reference[5][1]


@pytest.mark.slow
def test_spawned_workers_get_what_was_set(perturbation, reference):
    protected = ProtectedDataset(Shapes(size=40), perturbation)
    protected.transform = ToTensor()
    loader = DataLoader(protected, 20, num_workers=1, multiprocessing_context="spawn")
    images = torch.cat([batch for batch, _ in loader])
    assert torch.equal(images[33], F.to_tensor(reference[33][0]))


def test_evaluate_and_exports_ignore_what_was_set(perturbation, reference):
    protected = ProtectedDataset(Shapes(size=40), perturbation)
    protected.transform, protected.target_transform = (lambda image: 1 / 0), str
    store = read_images(protected)
    np.testing.assert_array_equal(store.images[3].permute(1, 2, 0), array(reference[3][0]))
    assert store.labels.tolist() == protected.targets == protected.to_tensors()[1].tolist()


# --- transforms that are a dataset's own ---------------------------------------------------------


class Negative:
    """Called as albumentations' are: keywords in, a dict out, arrays."""

    def __call__(self, *args, image=None, **others):
        if args:
            raise KeyError("You have to pass data to augmentations as named arguments")
        assert isinstance(image, np.ndarray)
        return {"image": 255 - image, **others}


class Named(Own):
    def __getitem__(self, index):
        image, label = self.held[index], self.numbers[index]
        return (self.transform(image=image)["image"] if self.transform else image), label


class NamedFromPIL(Own):
    def __getitem__(self, index):
        image, label = self.read(index)
        if self.transform:
            image = self.transform(image=np.array(image))["image"]
        return image, label


@pytest.mark.parametrize("kind", [Named, NamedFromPIL])
@pytest.mark.parametrize("when", ["before", "on the base", "on the view"])
def test_transforms_by_keyword(kind, when, perturbation, reference):
    dataset = kind(Negative() if when == "before" else None)
    protected = ProtectedDataset(dataset, perturbation)
    np.testing.assert_array_equal(protected.without_transforms()[3][0], array(reference[3][0]))
    if when != "before":
        (dataset if when == "on the base" else protected).transform = Negative()
    np.testing.assert_array_equal(protected[3][0], 255 - array(reference[3][0]))
    np.testing.assert_array_equal(protected.clean(3)[0], 255 - dataset.held[3])


class Two(Own):
    def __getitem__(self, index):
        pair = self.read(index)
        return pair if self.transform is None else self.transform(*pair)


def test_transforms_of_image_and_label(perturbation, reference):
    protected = ProtectedDataset(Two(joint), perturbation)
    image, label = protected[3]
    np.testing.assert_array_equal(image.permute(1, 2, 0), array(reference[3][0]))
    assert label == reference[3][1] + 7 and protected.targets[3] == reference[3][1]


class Otherwise(Own):
    def __getitem__(self, index):
        image, label = self.read(index)
        return (self.transform(image) if self.transform else F.to_tensor(image)), label


def test_dataset_that_makes_tensors_where_there_is_no_transform(perturbation, reference):
    protected = ProtectedDataset(Otherwise(ToTensor()), perturbation)
    assert torch.equal(protected[3][0], F.to_tensor(reference[3][0]))
    with pytest.raises(TypeError, match=r"Otherwise: expected a PIL image.*got a float32 Tensor"):
        ProtectedDataset(Otherwise(), perturbation)


class ReadOnly(Own):
    transform = property(lambda self: self._own)

    def __init__(self, transform):
        self._own = transform
        shapes = Shapes(size=40)
        self.held, self.numbers = shapes.data, list(shapes.targets)

    def __getitem__(self, index):
        image, label = self.read(index)
        return (self.transform(image) if self.transform else image), label


class Computed(ReadOnly):
    transform = property(lambda self: ToTensor())


def test_read_only_properties(perturbation, reference):
    protected = ProtectedDataset(ReadOnly(ToTensor()), perturbation)
    assert torch.equal(protected[3][0], F.to_tensor(reference[3][0]))
    plain = ProtectedDataset(ReadOnly(None), perturbation)
    assert isinstance(plain[3][0], Image.Image)
    with pytest.raises(TypeError, match=r"Computed that can be replaced.*plain attribute"):
        ProtectedDataset(Computed(None), perturbation)


class Method(Own):
    def __init__(self):
        super().__init__()
        del self.transform

    def transform(self, image):
        return F.to_tensor(image)

    def __getitem__(self, index):
        image, label = self.read(index)
        return self.transform(image), label


def test_transform_that_is_a_method(perturbation, reference):
    protected = ProtectedDataset(Method(), perturbation)
    assert torch.equal(protected[3][0], F.to_tensor(reference[3][0]))


class After(Own):
    def __getitem__(self, index):
        image, label = self.read(index)
        image = self.transform(image) if self.transform else image
        return (image * 2 - 1 if isinstance(image, torch.Tensor) else image), label


class Twice(Own):
    def __getitem__(self, index):
        image, label = self.read(index)
        return self.transform(self.transform(image)), label


def test_steps_after_the_transform_are_refused(perturbation):
    with pytest.raises(TypeError, match=r"After to return what its transform.*into the trans"):
        ProtectedDataset(After(ToTensor()), perturbation)
    with pytest.raises(TypeError, match="After to return what its transform returns"):
        ue.RandomNoise().fit(After(ToTensor()), progress=False)


def test_transform_that_is_applied_twice_is_applied_twice(perturbation, reference):
    turned = functools.partial(F.rotate, angle=90)
    protected = ProtectedDataset(Twice(turned), perturbation)
    expected = turned(turned(reference[3][0]))
    np.testing.assert_array_equal(array(protected[3][0]), array(expected))


class Hidden(Own):
    def __getitem__(self, index):
        image, label = self.read(index)
        if random.random() < 0.5:
            image = F.hflip(image)
        return (self.transform(image) if self.transform else image), label


class OwnGenerator(Own):
    def __getitem__(self, index):
        image, label = self.read(index)
        return (F.hflip(image) if self.generator.random() < 0.5 else image), label


def global_states():
    numpy = np.random.get_state()[1].tolist()  # noqa: NPY002
    return random.getstate(), numpy, torch.get_rng_state().tolist()


@pytest.mark.parametrize("transform", [None, ToTensor()])
def test_augmentation_in_getitem_is_refused(transform, perturbation):
    states = global_states()
    with pytest.raises(TypeError, match=r"Hidden to return the same item each time.*transform="):
        ProtectedDataset(Hidden(transform), perturbation)
    with pytest.raises(TypeError, match="random augmentation"):
        ue.RandomNoise().fit(Hidden(transform), progress=False)
    assert states == global_states()
    own = OwnGenerator(generator=np.random.default_rng(0))
    with pytest.raises(TypeError, match="OwnGenerator to return the same item"):
        ProtectedDataset(own, perturbation)
    assert own.generator.random() == np.random.default_rng(0).random()


def test_loader_with_augmentation_is_refused(tmp_path):
    (tmp_path / "a").mkdir()
    Image.fromarray(Shapes(size=1).data[0]).save(tmp_path / "a" / "0.png")

    def loader(path):
        with Image.open(path) as image:
            return F.hflip(image) if random.random() < 0.5 else image.copy()

    with pytest.raises(TypeError, match=r"ImageFolder to return the same item each time.*loader"):
        ue.RandomNoise().fit(ImageFolder(tmp_path, loader=loader), progress=False)


class Augmented(Own):
    def __getitem__(self, index):
        image, label = self.read(index)
        return self.transform(self.augment(image)), label


def test_augmentation_under_another_name_comes_after_the_perturbation(perturbation, reference):
    dataset = Augmented(ToTensor(), augment=RandomHorizontalFlip())
    protected = ProtectedDataset(dataset, perturbation)
    expected = F.to_tensor(reference[3][0])
    found = [protected[3][0] for _ in range(20)]
    assert any(torch.equal(image, expected) for image in found)
    assert any(torch.equal(image, expected.flip(2)) for image in found)
    torch.manual_seed(5)
    clean = protected.clean(3)[0]
    torch.manual_seed(5)
    assert torch.equal(clean, dataset[3][0])
    protected.transform = None
    assert isinstance(protected[3][0], Image.Image)


class Delegating:
    """Hands on whatever it has not; not even a copy of it survives its ``__getattr__``."""

    def __init__(self, inner):
        self.inner = inner

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def __len__(self):
        return len(self.inner)

    def __getitem__(self, index):
        return self.inner[index]


def test_delegated_transforms_are_applied_once(perturbation, reference):
    dataset = Shapes(size=40, transform=ToTensor(), target_transform=plus_100)
    protected = ProtectedDataset(Delegating(dataset), perturbation)
    image, label = protected[3]
    assert torch.equal(image, F.to_tensor(reference[3][0])) and label == reference[3][1] + 100
    assert dataset[3][1] == label and protected.transform is dataset.transform
    dataset.transform = PILToTensor()
    assert protected[3][0].dtype == torch.uint8
    protected.transform = None
    assert isinstance(protected[3][0], Image.Image) and protected[3][1] == label


class Around(Dataset):
    def __init__(self, below, transform=None):
        self.below, self.transform = below, transform

    def __len__(self):
        return len(self.below)

    def __getitem__(self, index):
        image, label = self.below[index]
        return (self.transform(image) if self.transform else image), label


class Zipped(Dataset):
    """Opens its file when it is first read, so that each worker process opens its own."""

    def __init__(self, path):
        self.path, self.file, self.process = path, None, None

    def __len__(self):
        return 40

    def __getitem__(self, index):
        if self.file is None:
            self.file, self.process = zipfile.ZipFile(self.path), os.getpid()
        with self.file.open(f"{index}.png") as file:
            image = Image.open(io.BytesIO(file.read()))
        return {"image": image, "label": index % 10, "own": self.process == os.getpid()}


class AroundZipped(Dataset):
    def __init__(self, *below):
        self.below, self.transform = Pair(*below), None

    def __len__(self):
        return 40

    def __getitem__(self, index):
        item = dict(self.below.first[index])
        if self.transform is not None:
            item["image"] = self.transform(item["image"])
        return item


Pair = collections.namedtuple("Pair", "first second")


@pytest.mark.parametrize("around", [lambda zipped: zipped, lambda zipped: AroundZipped(zipped, 1)])
def test_files_that_reading_opens_are_each_processes_own(around, tmp_path, shapes, reference):
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as file:
        for index, (image, _) in enumerate(shapes):
            encoded = io.BytesIO()
            image.save(encoded, "png")
            file.writestr(f"{index}.png", encoded.getvalue())
    zipped = Zipped(tmp_path / "images.zip")
    dataset = around(zipped)
    method = ue.RandomNoise().fit(dataset, device="cpu", progress=False)
    protected = method.protect(dataset)
    for change in (lambda: None, lambda: protected[0]):
        change()
        pickled = pickle.loads(pickle.dumps(protected))
        found = [[pickled[index] for index in range(40)]]
        if hasattr(os, "fork"):
            workers = {"num_workers": 1, "multiprocessing_context": "fork", "collate_fn": list}
            loader = DataLoader(protected, 10, **workers)
            found.append([item for batch in loader for item in batch])
        for items in found:
            assert all(item["own"] for item in items)
            for item, (expected, _) in zip(items, reference, strict=True):
                np.testing.assert_array_equal(array(item["image"]), array(expected))
    assert zipped.file is None, "the caller's own stays as it was"


def test_transforms_below_and_above_are_applied_in_order(perturbation, reference):
    inner = Shapes(size=40, transform=PILToTensor())
    outer = Around(Subset(inner, [5, 3]), lambda image: image.float() / 2)
    protected = ProtectedDataset(outer, perturbation)
    expected = torch.from_numpy(array(reference[3][0]).copy()).permute(2, 0, 1).float() / 2
    assert torch.equal(protected[1][0], expected)
    assert inner[3][0].dtype == torch.uint8
    with pytest.raises(ValueError, match="not protected yet"):
        ProtectedDataset(Around(ProtectedDataset(inner, perturbation)), perturbation)


@pytest.mark.parametrize("set_", ["base", "view", "joint on the base", "joint on the view"])
def test_a_dataset_around_a_protected_one_is_read_without_transforms(set_, perturbation, reference):
    augment = Compose([RandomHorizontalFlip(), ToTensor()])
    base = Shapes(size=40, transform=augment if set_ == "base" else None)
    if set_ == "joint on the base":
        base.transforms = joint
    protected = ProtectedDataset(base, perturbation)
    if set_ == "view":
        protected.transform = augment
    if set_ == "joint on the view":
        protected.transforms = joint
    for dataset in (Around(protected), Around(Subset(protected, range(40)), lambda image: image)):
        raw = RawDataset(dataset)
        for index, (image, label) in enumerate(reference):
            found = raw[index]
            np.testing.assert_array_equal(found.pixels, PILToTensor()(image))
            assert found.label == label
        fitted = ue.RandomNoise().fit(dataset, progress=False)
        assert len(perturbation.then(fitted.perturbation_).parts) == 2
    assert isinstance(protected[0][0], torch.Tensor)


def test_transform_whose_randomness_is_its_own(perturbation, reference):
    generator = np.random.default_rng(0)

    def noisy(image):
        return F.to_tensor(image) + float(generator.random())

    protected = ProtectedDataset(Two(lambda image, label: (noisy(image), label)), perturbation)
    difference = protected[3][0] - F.to_tensor(reference[3][0])
    assert difference.std() < 1e-6 and 0 <= difference.mean() < 1


class SeededByIndex(Own):
    def __getitem__(self, index):
        image, label = self.read(index)
        if self.transform is not None:
            torch.manual_seed(index)
            image = self.transform(image)
        return image, label


def test_transforms_get_the_random_state_that_reading_leaves(perturbation, reference):
    protected = ProtectedDataset(SeededByIndex(RandomHorizontalFlip()), perturbation)
    order = [5, 3, 4, 9, 3, 30]
    for index, (image, _) in zip(order, protected.__getitems__(order), strict=True):
        torch.manual_seed(index)
        np.testing.assert_array_equal(
            array(image), array(RandomHorizontalFlip()(reference[index][0]))
        )


class Unseeded:
    """As albumentations draws: not from the global generators."""

    def __call__(self, image):
        return {"image": image[:, ::-1] if np.random.default_rng().random() < 0.5 else image}


def test_transform_that_no_seed_reaches(perturbation, reference):
    for _ in range(4):
        protected = ProtectedDataset(Named(Unseeded()), perturbation)
        found, expected = protected[3][0], array(reference[3][0])
        assert np.array_equal(found, expected) or np.array_equal(found, expected[:, ::-1])


class Several(Own):
    def __getitem__(self, index):
        image, label = self.read(index)
        for transform in self.steps:
            image = transform(image)
        return self.both["train"](image), label


def test_transforms_in_lists_and_dicts(perturbation, reference):
    steps = [RandomHorizontalFlip(1.0), ToTensor()]
    dataset = Several(steps=steps, both={"train": v2.Identity(), "val": v2.Identity()})
    protected = ProtectedDataset(dataset, perturbation)
    assert torch.equal(protected[3][0], F.to_tensor(reference[3][0]).flip(2))
    assert dataset.steps is steps and isinstance(dataset[3][0], torch.Tensor)


class Preprocessed(Own):
    def __getitem__(self, index):
        image = self.preprocess(index)
        return (self.transform(image) if self.transform else image), self.numbers[index]


def test_what_reads_an_image_is_no_transform(perturbation, reference):
    dataset = Preprocessed(ToTensor())
    dataset.preprocess = lambda index: Image.fromarray(dataset.held[index])
    protected = ProtectedDataset(dataset, perturbation)
    assert torch.equal(protected[3][0], F.to_tensor(reference[3][0]))
    assert torch.equal(protected.clean(3)[0], dataset[3][0])


class Slots:
    __slots__ = ("held", "numbers", "transform")

    def __init__(self, transform):
        own = Own()
        self.held, self.numbers, self.transform = own.held, own.numbers, transform

    def __len__(self):
        return 40

    def __getitem__(self, index):
        image = Image.fromarray(self.held[index])
        return (self.transform(image) if self.transform else image), self.numbers[index]


def test_dataset_with_slots(perturbation, reference):
    protected = ProtectedDataset(Slots(ToTensor()), perturbation)
    assert torch.equal(protected[3][0], F.to_tensor(reference[3][0]))


class Setter(Delegating):
    transform = property(
        lambda self: self.inner.transform,
        lambda self, value: setattr(self.inner, "transform", value),
    )


def test_property_that_sets_the_transform_of_another(perturbation, reference):
    inner = Shapes(size=40, transform=ToTensor())
    dataset = Setter(inner)
    protected = ProtectedDataset(dataset, perturbation)
    assert torch.equal(protected[3][0], F.to_tensor(reference[3][0]))
    assert isinstance(inner.transform, ToTensor)
    dataset.transform = PILToTensor()
    assert protected[3][0].dtype == torch.uint8


def test_views_of_clean_images_beside_the_protected_one_are_not_let_through(perturbation):
    class Views(Own):
        def __getitem__(self, index):
            image, label = self.read(index)
            view = F.rotate(image, 360 * random.random())
            return {"image": image, "view": view, "label": label}

    with pytest.raises(TypeError, match="Views to return the same item each time"):
        ProtectedDataset(Views(), perturbation)


def test_transform_that_fails_is_not_an_error_of_wrapping(perturbation):
    protected = ProtectedDataset(Augmented(lambda image: 1 / 0, augment=ToTensor()), perturbation)
    with pytest.raises(ZeroDivisionError):
        protected[0]


class Keeping(Own):
    """Keeps what it has transformed."""

    def __getitem__(self, index):
        if index not in self.kept:
            self.kept[index] = self.transform(self.read(index)[0])
        return self.kept[index], self.numbers[index]


class KeepingInAList(Own):
    def __getitem__(self, index):
        if self.kept[index] is None:
            image = self.read(index)[0]
            self.kept[index] = self.transform(image) if self.transform else image
        return self.kept[index], self.numbers[index]


class KeepingIfAny(Own):
    def __getitem__(self, index):
        if index not in self.kept:
            image = self.read(index)[0]
            self.kept[index] = self.transform(image) if self.transform else image
        return self.kept[index], self.numbers[index]


@pytest.mark.parametrize(
    ("kind", "empty"),
    [(KeepingIfAny, dict), (KeepingIfAny, collections.OrderedDict), (KeepingInAList, list)],
)
@pytest.mark.parametrize("read", [(), (3, 5)])
def test_caches_hold_clean_items_on_a_copy_alone(kind, empty, read, perturbation, reference):
    held = [None] * 40 if empty is list else empty()
    dataset = kind(lambda image: PILToTensor()(F.hflip(image)), kept=held)
    kept = {index: dataset[index][0] for index in read}
    protected = ProtectedDataset(dataset, perturbation)
    found = dict(enumerate(held)) if empty is list else held
    assert {index: image for index, image in found.items() if image is not None} == kept
    for index in (3, 7, 3):
        expected = array(reference[index][0])[:, ::-1]
        np.testing.assert_array_equal(protected[index][0].permute(1, 2, 0), expected)
    assert dataset[7][0].equal(torch.from_numpy(dataset.held[7][:, ::-1].copy()).permute(2, 0, 1))


def test_cache_that_cannot_be_told_from_chance_is_refused(perturbation):
    dataset = Keeping(ToTensor(), kept={})
    with pytest.raises(TypeError, match=r"apply its transforms each time.*caches trans"):
        ProtectedDataset(dataset, perturbation)
    assert not dataset.kept


class ByClass(Own):
    """One class has a transform, or another one, which no item has that is tried at first."""

    def __getitem__(self, index):
        image, label = self.read(index)
        if index != 21:
            return (self.other_transform(image) if self.other_transform else image), label
        return self.transform(image), label


@pytest.mark.parametrize("other", [None, v2.Identity()])
def test_transforms_of_some_items_alone_are_found_when_those_are_read(other):
    dataset = ByClass(RandomHorizontalFlip(1.0), other_transform=other)
    with pytest.raises(TypeError, match=r"same transforms to all .* for items 21 and 0"):
        ue.RandomNoise().fit(dataset, progress=False)


class TwoViews(Own):
    def __getitem__(self, index):
        image, label = self.read(index)
        return self.transform(image), self.transform(image), label


def test_second_view_of_an_image_is_not_left_clean(perturbation):
    dataset = ue.from_items(TwoViews(RandomHorizontalFlip(1e-9)), image=0, label=2)
    with pytest.raises(
        TypeError, match=r"each image only once.*at 0 and again at 1.*in one transform"
    ):
        ProtectedDataset(dataset, perturbation)


def weak_and_strong(weak, strong, label, index):
    return index, weak, strong, label


@pytest.mark.parametrize(
    ("form", "first", "second"),
    [
        (lambda weak, strong, label, index: (weak, strong, label), "0", "1"),
        (weak_and_strong, "1", "2"),
        (lambda weak, strong, label, index: (weak, strong), "0", "1"),
        (lambda weak, strong, label, index: ([weak, strong], label), r"\(0, 0\)", r"\(0, 1\)"),
        (lambda weak, strong, label, index: ((weak, strong), label), r"\(0, 0\)", r"\(0, 1\)"),
        (
            lambda weak, strong, label, index: {"weak": weak, "strong": strong, "label": label},
            "'weak'",
            "'strong'",
        ),
        (
            lambda weak, strong, label, index: {"image": weak, "strong": strong, "label": label},
            "'image'",
            "'strong'",
        ),
    ],
)
@pytest.mark.parametrize("strong", [None, Compose([RandomHorizontalFlip(0.9), ToTensor()])])
def test_two_views_are_refused_with_what_to_do(form, first, second, strong, perturbation):
    class Views(Own):
        def __getitem__(self, index):
            image, label = self.read(index)
            weak = image if self.transform is None else self.transform(image)
            strong = self.transform if self.strong_transform is None else self.strong_transform
            return form(weak, image if strong is None else strong(image), label, index)

    dataset = Views(Compose([RandomHorizontalFlip(), ToTensor()]), strong_transform=strong)
    with pytest.raises(
        TypeError, match=f"each image only once.*at {first} and again at {second},.*one transform"
    ):
        ProtectedDataset(dataset, perturbation)


class RarelyTwice(Own):
    def __getitem__(self, index):
        image, label = self.read(index)
        return (self.transform(self.transform(image)) if self.transform else image), label


def test_items_are_compared_under_several_seeds(perturbation, reference):
    turned = RandomHorizontalFlip(0.7)
    protected = ProtectedDataset(RarelyTwice(turned), perturbation)
    torch.manual_seed(3)
    found = protected[3][0]
    torch.manual_seed(3)
    np.testing.assert_array_equal(array(found), array(turned(turned(reference[3][0]))))


@pytest.mark.parametrize("set_", ["the pair", "one of it", "nothing"])
def test_pair_of_transforms_set_on_the_base(set_, perturbation, reference):
    dataset = Shapes(size=40, transform=ToTensor())
    protected = ProtectedDataset(dataset, perturbation)
    if set_ == "the pair":
        dataset.transforms = StandardTransform(PILToTensor(), plus_100)
    elif set_ == "one of it":
        dataset.transform, dataset.target_transform = PILToTensor(), plus_100
    else:
        dataset.transforms = StandardTransform(None, plus_100)
        assert isinstance(protected[3][0], Image.Image) and protected.transform is None
        dataset.transforms.transform = PILToTensor()
    again = pickle.loads(pickle.dumps(protected))
    for view in (protected, copy.deepcopy(protected), again):
        np.testing.assert_array_equal(view[3][0].permute(1, 2, 0), array(reference[3][0]))
        assert view[3][1] == reference[3][1] + 100


def test_many_threads_read_own_datasets(perturbation, reference):
    protected = ProtectedDataset(Twice(functools.partial(F.rotate, angle=90)), perturbation)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(protected.__getitem__, [3, 5, 7] * 40))
    for place, (image, label) in enumerate(found):
        expected, own = reference[(3, 5, 7)[place % 3]]
        assert label == own
        np.testing.assert_array_equal(array(image), array(F.rotate(expected, 180)))


# --- images --------------------------------------------------------------------------------------


class Tensors(Own):
    def __getitem__(self, index):
        image = torch.from_numpy(self.held[index]).permute(2, 0, 1).contiguous()
        item = tv_tensors.Image(image), self.numbers[index]
        return item if self.transform is None else (self.transform(item[0]), item[1])


def test_tv_tensors_stay_so(perturbation, reference):
    protected = ProtectedDataset(Tensors(), perturbation)
    image = protected[3][0]
    assert type(image) is tv_tensors.Image and type(protected.clean(3)[0]) is tv_tensors.Image
    np.testing.assert_array_equal(image.permute(1, 2, 0), array(reference[3][0]))
    flipped = ProtectedDataset(Tensors(v2.RandomHorizontalFlip(1.0)), perturbation)
    assert torch.equal(flipped[3][0], image.flip(2))
    assert type(flipped[3][0]) is tv_tensors.Image


def test_transforms_v2(perturbation, reference):
    to_image = v2.Compose([v2.ToImage(), v2.RandomHorizontalFlip(1.0)])
    protected = ProtectedDataset(Shapes(size=40, transform=to_image), perturbation)
    assert type(protected[3][0]) is tv_tensors.Image
    np.testing.assert_array_equal(protected[3][0].permute(1, 2, 0), array(reference[3][0])[:, ::-1])


def test_dataset_wrapped_for_transforms_v2(cifar10):
    from torchvision.datasets import wrap_dataset_for_transforms_v2

    perturbation = ue.RandomNoise().fit(cifar10, progress=False).perturbation_
    expected = ProtectedDataset(cifar10, perturbation)[3][0]
    cifar10.transforms = lambda image, label: (v2.functional.to_image(image), label)
    wrapped = wrap_dataset_for_transforms_v2(cifar10)
    protected = ProtectedDataset(wrapped, perturbation)
    assert type(protected[3][0]) is tv_tensors.Image
    np.testing.assert_array_equal(protected[3][0].permute(1, 2, 0), array(expected))
    assert type(wrapped[3][0]) is tv_tensors.Image


@pytest.mark.parametrize(
    "images", [torch.zeros(4, 4, 8, 8, dtype=torch.uint8), np.zeros((4, 8, 8, 4), np.uint8)]
)
def test_transparency_is_refused_with_what_to_do(images):
    with pytest.raises(TypeError, match=r"1 or 3 channels.*background.*image\[:"):
        ue.RandomNoise().fit((images, [0, 1, 0, 1]), progress=False)


# --- attributes ----------------------------------------------------------------------------------


class Rich(Own):
    def __init__(self):
        super().__init__()
        self.samples = [("a/0.png", 0)]
        self.attribute_names, self.split, self.num_images = ["red", "round"], "train", 40
        self.attributes = torch.zeros(40, 2)
        self.places, self.kept = ["a/0.png", "a/1.png"], {"clean": self.held}
        self.by_name, self.extensions = {"0": "a/0.png"}, (".jpg", ".png")
        self.inner = Shapes(size=4)

    def __getitem__(self, index):
        return self.read(index)

    def describe(self):
        return "of Rich"

    def load_image(self, index):
        return self.held[index]


def test_other_attributes_pass_through(perturbation):
    protected = ProtectedDataset(Rich(), perturbation)
    assert protected.attribute_names == ["red", "round"] and protected.split == "train"
    assert protected.num_images == 40 and protected.describe() == "of Rich"
    assert protected.attributes is protected.base.attributes
    assert protected.extensions == (".jpg", ".png")
    again = pickle.loads(pickle.dumps(copy.deepcopy(protected)))
    assert again.split == "train"


@pytest.mark.parametrize(
    "name",
    [
        *("samples", "imgs", "data", "images", "tensors", "_samples", "_images", "_image_files"),
        *("held", "places", "kept", "by_name", "inner", "load_image"),
    ],
)
def test_what_leads_to_clean_images_is_absent(name, perturbation):
    protected = ProtectedDataset(Rich(), perturbation)
    assert not hasattr(protected, name) and getattr(protected, name, None) is None
    with pytest.raises(AttributeError, match=rf"{name}'.*to_tensors\(\).*targets.*base"):
        getattr(protected, name)


@pytest.mark.parametrize("name", ["data", "samples", "imgs", "loader", "labels", "targets"])
def test_images_are_not_set_on_the_view_where_that_would_change_nothing(shapes, perturbation, name):
    protected = ProtectedDataset(shapes, perturbation)
    with pytest.raises(AttributeError, match=rf"{name}' to be set on the wrapped dataset"):
        setattr(protected, name, [])
    protected.note = "one's own"
    assert protected.note == "one's own" and copy.copy(protected).note == "one's own"


def test_attributes_that_nobody_has(perturbation):
    protected = ProtectedDataset(Rich(), perturbation)
    with pytest.raises(AttributeError, match="'colour', nor does the Rich that it wraps"):
        protected.colour  # noqa: B018
    part = ProtectedDataset(Subset(Rich(), range(4)), perturbation)
    assert not hasattr(part, "split") and not hasattr(part, "dataset")
    tuples = ProtectedDataset((Shapes(size=40).data, Shapes(size=40).targets), perturbation)
    assert not hasattr(tuples, "count")


def test_batches_never_come_from_the_base(perturbation, reference):
    class Batched(Rich):
        def __getitems__(self, indices):
            raise AssertionError("clean images were read")

    protected = ProtectedDataset(Batched(), perturbation)
    protected.transform = ToTensor()
    images, _ = next(iter(DataLoader(protected, 4)))
    assert torch.equal(images[3], F.to_tensor(reference[3][0]))


# --- Copies of an image within its item ----------------------------------------------------------


class Copied(Own):
    def __getitem__(self, index):
        image, label = self.read(index)
        shown = image if self.transform is None else self.transform(image)
        return {"image": shown, "label": label, "extra": self.extra(np.asarray(image))}


CLEAN_COPIES = {
    "float": lambda pixels: pixels.astype(np.float32) / 255,
    "normalised": lambda pixels: (torch.from_numpy(pixels).permute(2, 0, 1) / 255 - 0.4) / 0.2,
    "nested": lambda pixels: {"views": [0, Image.fromarray(pixels)]},
    "batch of one": lambda pixels: torch.from_numpy(pixels.copy())[None],
}


@pytest.mark.parametrize("kind", CLEAN_COPIES)
def test_a_clean_copy_within_an_item_is_found_in_any_units(kind, perturbation):
    dataset = Copied(RandomHorizontalFlip(0.5), extra=CLEAN_COPIES[kind])
    with pytest.raises(TypeError, match=r"only once in an item, got it at 'image' and again at"):
        ProtectedDataset(dataset, perturbation)


@pytest.mark.parametrize(
    "extra", [lambda pixels: pixels[..., 0] > 99, lambda pixels: pixels.mean(2)]
)
def test_masks_and_maps_are_no_copies(extra, perturbation, reference):
    protected = ProtectedDataset(Copied(RandomHorizontalFlip(0), extra=extra), perturbation)
    assert np.array_equal(protected[3]["image"], reference[3][0])


# --- Several steps, and steps that are set later -------------------------------------------------


class Steps(Own):
    def __getitem__(self, index):
        image, label = self.read(index)
        for step in self.steps:
            image = step(image)
        return image, label


def shrunk(side):
    return v2.Resize(side)


@pytest.mark.parametrize("name", ["steps", "transforms"])
@pytest.mark.parametrize(
    ("first", "then"),
    [
        ([shrunk(16), shrunk(12)], [shrunk(16), shrunk(12), shrunk(8)]),
        ([shrunk(16), shrunk(12)], [shrunk(20)]),
        ([shrunk(16)], []),
        ([], [ToTensor(), shrunk(9)]),
    ],
)
@pytest.mark.parametrize("in_place", [False, True])
def test_a_list_of_steps_may_become_longer_or_shorter(name, first, then, in_place, perturbation):
    class Named(Own):
        def __getitem__(self, index):
            image, label = self.read(index)
            for step in getattr(self, name):
                image = step(image)
            return image, label

    dataset = Named(**{name: list(first)})
    protected = ProtectedDataset(dataset, perturbation)
    assert type(protected[3][0]) is type(dataset[3][0])
    if in_place:
        getattr(dataset, name)[:] = then
    else:
        setattr(dataset, name, then)
    for found, clean in zip(protected[3], dataset[3], strict=True):
        assert type(found) is type(clean)
    shape = np.asarray(dataset[3][0]).shape
    assert np.asarray(protected[3][0]).shape == shape
    assert not np.array_equal(np.asarray(protected[3][0]), np.asarray(dataset[3][0]))


def test_a_transform_of_another_name_may_be_set_later_and_taken_off_again(perturbation):
    class Augmented(Own):
        def __getitem__(self, index):
            image, label = self.read(index)
            return (image if self.augment is None else self.augment(image)), label

    dataset = Augmented(augment=None)
    protected = ProtectedDataset(dataset, perturbation)
    for augment, side in ((None, 32), (shrunk(8), 8), (shrunk(9), 9), (None, 32), (shrunk(8), 8)):
        dataset.augment = augment
        assert protected[0][0].size == dataset[0][0].size == (side, side)


def test_setting_the_transform_to_itself_changes_nothing(perturbation):
    dataset = Steps(steps=[RandomHorizontalFlip(0), ToTensor(), v2.Normalize([0.5], [0.5])])
    protected = ProtectedDataset(dataset, perturbation)
    before = protected[0][0]
    protected.transform = protected.transform
    assert torch.equal(protected[0][0], before) and before.min() < 0
    protected.transform = Compose([protected.transform, v2.Resize(8)])
    assert protected[0][0].shape == (3, 8, 8)


# --- Caches --------------------------------------------------------------------------------------


class OwnDict(dict):
    pass


CACHES = {
    "array": lambda: np.empty(40, object),
    "deque": lambda: collections.deque([None] * 40),
    "own dict": OwnDict,
    "ordered": collections.OrderedDict,
}


@pytest.mark.parametrize("kind", CACHES)
def test_wrapping_leaves_nothing_in_a_cache(kind, perturbation, reference):
    class Caching(Own):
        def __getitem__(self, index):
            held = self.cache.get(index) if isinstance(self.cache, dict) else self.cache[index]
            if held is None:
                image, label = self.read(index)
                held = (image if self.transform is None else self.transform(image)), label
                self.cache[index] = held
            return held

    dataset = Caching(PILToTensor(), cache=CACHES[kind]())
    protected = ProtectedDataset(dataset, perturbation)
    assert all(isinstance(dataset[index][0], torch.Tensor) for index in range(40))
    for _ in range(2):
        assert torch.equal(protected[20][0], PILToTensor()(reference[20][0]))


# --- Labels --------------------------------------------------------------------------------------


def test_labels_are_one_list_that_nobody_changes(shapes, perturbation):
    protected = ProtectedDataset(shapes, perturbation)
    assert protected.targets is protected.targets and protected.targets == shapes.targets
    for change in (
        lambda targets: targets.__setitem__(0, 7),
        lambda targets: targets.append(7),
        lambda targets: targets.sort(),
    ):
        with pytest.raises(AttributeError, match="set on the wrapped dataset before"):
            change(protected.targets)
    again = pickle.loads(pickle.dumps(protected))
    assert again.targets == copy.deepcopy(protected).targets == shapes.targets
    assert type(again.targets) is type(protected.targets)
    copied = list(protected.targets)
    copied[0] = 7


class WithTargets(Own):
    def __getitem__(self, index):
        return self.read(index)


def of_targets(kind, perturbation):
    dataset = WithTargets(targets=kind(Shapes(size=40).targets))
    return dataset, ProtectedDataset(dataset, perturbation)


@pytest.mark.parametrize("kind", [torch.tensor, np.array])
def test_labels_of_a_tensor_or_an_array_give_masks_as_it_does(kind, perturbation):
    dataset, protected = of_targets(kind, perturbation)
    own, found = dataset.targets, protected.targets
    assert isinstance(found, type(own)) and found is protected.targets
    for other in (3, 3.0, np.int64(3), own, found, own.tolist(), kind([3] * 40)):
        for compare in (
            operator.eq,
            operator.ne,
            operator.lt,
            operator.le,
            operator.gt,
            operator.ge,
        ):
            if compare not in (operator.eq, operator.ne) and isinstance(other, list):
                continue
            assert same(compare(found, other), compare(own, other))
    again = ProtectedDataset(dataset, perturbation)
    assert same(found == again.targets, own == own) and bool((found == again.targets).all())
    part = ProtectedDataset(Subset(dataset, range(9)), perturbation)
    assert part.targets == own[:9].tolist() and (part.targets == 3) is False


@pytest.mark.parametrize("kind", [torch.tensor, np.array])
def test_labels_of_a_tensor_or_an_array_have_its_parts_and_methods(kind, perturbation):
    dataset, protected = of_targets(kind, perturbation)
    own, found = dataset.targets, protected.targets
    for chosen in (own == 3, own < 4, kind([5, 3, 5]), [5, 3], slice(2, 9), slice(None, None, 2)):
        assert same(found[chosen], own[chosen]) and same(found[chosen, None], own[chosen, None])
    for index in (3, -1, np.int64(3)):
        assert same(found[index], own[index]) and type(found[index]) is type(own[index])
        assert found[index].item() == own[index].item()
    assert [label.item() for label in found] == own.tolist() == found.tolist()
    assert found.shape == own.shape and found.dtype == own.dtype and len(found) == 40
    assert same(found.max(), own.max()) and same((found == 3).nonzero(), (own == 3).nonzero())
    assert same(found.argsort(), own.argsort()) and repr(found) == repr(own)
    for convert in (np.asarray, sorted, list):
        assert same(convert(found), convert(own))
    assert not hasattr(found, "no_such_name") and not hasattr(found, "_hidden")
    for again in (pickle.loads(pickle.dumps(found)), copy.deepcopy(found), copy.copy(found)):
        assert type(again) is type(own) and same(again, own)


CHANGES = {
    "one": lambda labels: labels.__setitem__(0, 7),
    "some": lambda labels: labels.__setitem__(slice(5), 7),
    "sum": lambda labels: operator.iadd(labels, 1),
    "shuffled": lambda labels: random.Random(0).shuffle(labels),
}
TENSOR_CHANGES = {
    "filled": lambda labels: labels.fill_(7),
    "out": lambda labels: torch.add(labels, 1, out=labels),
    "form": lambda labels: labels.unsqueeze_(1),
    "each": lambda labels: torch._foreach_add_([labels], 1),
    "as tensor": lambda labels: torch.as_tensor(labels).fill_(7),
}


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("way", [None, copy.copy, copy.deepcopy, "pickle"])
@pytest.mark.parametrize("kind", [torch.tensor, np.array])
def test_labels_of_a_tensor_or_an_array_cannot_be_changed(kind, way, mode, perturbation):
    dataset, protected = of_targets(kind, perturbation)
    expected = dataset.targets.tolist()
    assert protected.targets.tolist() == expected
    if way is not None:
        way = (lambda found: pickle.loads(pickle.dumps(found))) if way == "pickle" else way
        protected = way(protected)
    for change in (CHANGES | (TENSOR_CHANGES if kind is torch.tensor else {})).values():
        with (
            mode(),
            pytest.raises((AttributeError, ValueError), match=r"set on the wrapped|read-only"),
        ):
            change(protected.targets)
        assert protected.targets.tolist() == protected.base.targets.tolist() == expected


def test_what_is_made_of_the_labels_of_a_tensor_is_its_own(perturbation):
    dataset, protected = of_targets(torch.tensor, perturbation)
    own, found = dataset.targets.clone(), protected.targets
    for make in (
        lambda labels: labels[:5],
        lambda labels: labels.view(-1),
        lambda labels: labels.clone(),
        lambda labels: labels.detach(),
        lambda labels: labels.numpy(),
        lambda labels: np.asarray(labels),
        lambda labels: torch.ravel(labels),
        lambda labels: labels.split(9)[0],
        torch.LongTensor,
        torch.tensor,
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch.tensor of a tensor
            made = make(found)
        made[:] = 7
        assert torch.equal(found, own) and torch.equal(dataset.targets, own)


@pytest.mark.parametrize("kind", [torch.tensor, np.array])
def test_labels_of_a_tensor_or_an_array_follow_it_where_it_changes_in_place(kind, perturbation):
    dataset, protected = of_targets(kind, perturbation)
    dataset.numbers = dataset.targets
    assert (protected.targets == protected.targets[3]).any()
    dataset.targets[:4] = 9
    assert protected.targets.tolist() == dataset.targets.tolist()
    assert [int(protected[index][1]) for index in range(4)] == [9] * 4


@pytest.mark.parametrize("kind", [torch.tensor, np.array])
@pytest.mark.parametrize("other", ["float", "bool", "not those of the items"])
def test_labels_are_a_list_where_the_datasets_own_are_no_class_indices(kind, other, perturbation):
    dataset, _ = of_targets(kind, perturbation)
    expected = dataset.targets.tolist()
    dataset.targets = {
        "float": kind([float(label) for label in expected]),
        "bool": kind([label > 4 for label in expected]),
        "not those of the items": kind(expected[::-1]),
    }[other]
    protected = ProtectedDataset(dataset, perturbation)
    assert protected.targets == expected and isinstance(protected.targets, list)


def test_labels_keep_their_type_of_number(perturbation):
    for dtype in (torch.uint8, torch.int32):
        dataset, _ = of_targets(functools.partial(torch.tensor, dtype=dtype), perturbation)
        protected = ProtectedDataset(dataset, perturbation)
        assert protected.targets.dtype == dtype and same(protected.targets + 1, dataset.targets + 1)


@pytest.mark.parametrize("kind", [torch.tensor, np.array])
def test_labels_of_a_tensor_or_an_array_are_computed_with_as_it_is(kind, perturbation):
    dataset, protected = of_targets(kind, perturbation)
    own, found = dataset.targets, protected.targets
    for other in (2, 2.5, kind([3] * 40)):
        for compute in (
            operator.add,
            operator.sub,
            operator.mul,
            operator.truediv,
            operator.floordiv,
            operator.mod,
            operator.pow,
        ):
            assert same(compute(found, other), compute(own, other))
        for compute in (operator.add, operator.sub, operator.mul):
            assert same(compute(other, found), compute(other, own))
    assert same(-found, -own) and same(found + found, own + own)
    assert type(found + found) is type(own)


def test_functions_of_torch_take_the_labels_of_a_tensor(perturbation):
    dataset, protected = of_targets(torch.tensor, perturbation)
    own, found = dataset.targets, protected.targets
    for function in (
        torch.bincount,
        lambda targets: torch.unique(targets, return_counts=True),
        lambda targets: torch.isin(targets, torch.tensor([1, 2])),
        lambda targets: torch.cat([targets, targets]),
        lambda targets: torch.ones(10)[targets],
        lambda targets: torch.zeros_like(input=targets),
        lambda targets: torch.zeros(40, 10).scatter_(1, targets[:, None], 1),
        lambda targets: torch.zeros(10).index_add_(0, targets, torch.ones(40)),
        torch.nn.functional.one_hot,
    ):
        with torch.inference_mode():
            assert same(function(found), function(own))
        assert same(function(found), function(own))


@pytest.mark.parametrize("name", ["labels", "_labels", "train_labels", "test_targets"])
@pytest.mark.parametrize("kind", [torch.tensor, np.array, list])
def test_labels_of_another_name_are_as_fixed_as_targets(name, kind, perturbation):
    class Held(Own):
        def __getitem__(self, index):
            return Image.fromarray(self.held[index]), int(getattr(self, name)[index])

    dataset = Held(**{name: kind(Shapes(size=40).targets)})
    protected = ProtectedDataset(dataset, perturbation)
    before = list(protected.targets)
    found = getattr(protected, name)
    assert isinstance(found, type(getattr(dataset, name))) and list(found) == before
    with pytest.raises((AttributeError, ValueError), match=r"set on the wrapped|read-only"):
        found[0] = 7
    assert [label for _, label in protected] == before == list(getattr(dataset, name))


# --- Ways to clean images ------------------------------------------------------------------------


def test_readers_by_other_names_give_no_clean_images(shapes, perturbation):
    class Graph(Shapes):
        def get(self, index):
            return self[index]

        def example(self):
            return self[0]

        def num_samples(self):
            return len(self)

    dataset = Graph(size=40)
    dataset.reader = dataset
    protected = ProtectedDataset(dataset, perturbation)
    for name in ("get", "example", "reader"):
        with pytest.raises(AttributeError, match="clean images"):
            getattr(protected, name)
    assert protected.num_samples() == 40


def test_iterable_datasets_are_refused_by_name(perturbation):
    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            yield 0

        def __len__(self):
            return 1

    for dataset in (Stream(), torch.utils.data.ChainDataset([Stream()])):
        with pytest.raises(TypeError, match="got the IterableDataset"):
            ProtectedDataset(dataset, perturbation)
