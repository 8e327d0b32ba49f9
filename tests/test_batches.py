"""Read in batches from a dataset's own array or one by one: the same items, in the same order."""

import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import ConcatDataset, DataLoader, Subset, TensorDataset
from torchvision.datasets import (
    CIFAR10,
    CIFAR100,
    EMNIST,
    KMNIST,
    MNIST,
    QMNIST,
    STL10,
    SVHN,
    USPS,
    FashionMNIST,
    VisionDataset,
)
from torchvision.transforms import Compose, PILToTensor, RandomCrop, RandomHorizontalFlip

import unlearnable as ue
from unlearnable import ArtefactError, Perturbation, ProtectedDataset, UnknownImageError
from unlearnable.data import array_backed as arrays_module
from unlearnable.data import batches as batches_module
from unlearnable.data.array_backed import held_by
from unlearnable.data.fingerprint import image_key, image_keys
from unlearnable.data.image import to_pils
from unlearnable.data.raw import RawDataset
from unlearnable.datasets import Shapes

COUNT = 23
AUGMENT = Compose([RandomCrop(10, padding=2), RandomHorizontalFlip(), PILToTensor()])


def pixels(shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def labels(dtype=list):
    drawn = np.random.default_rng(1).integers(0, 10, COUNT)
    return drawn.tolist() if dtype is list else drawn


def filled(cls, data, *, transform=None, **attributes):
    """torchvision's own dataset with these arrays, as its constructor leaves it."""
    dataset = cls.__new__(cls)
    VisionDataset.__init__(dataset, "", transform=transform)
    dataset.data = data
    for name, value in attributes.items():
        setattr(dataset, name, value)
    return dataset


def of_cifar(cls, **more):
    # As the pickles are read: planar in memory, seen as (N, H, W, 3).
    data = pixels((COUNT, 3, 12, 12)).transpose(0, 2, 3, 1)
    return filled(cls, data, targets=labels(), classes=[f"c{i:02d}" for i in range(10)], **more)


def of_mnist(cls, **more):
    data, targets = torch.from_numpy(pixels((COUNT, 12, 12))), torch.from_numpy(labels(np.array))
    return filled(cls, data, targets=targets, **more)


def of_svhn(cls, **more):
    return filled(cls, pixels((COUNT, 3, 12, 12)), labels=labels(np.array), **more)


def of_usps(cls, **more):
    return filled(cls, pixels((COUNT, 12, 12)), targets=labels(), **more)


def of_shapes(cls, **more):
    dataset = cls(size=COUNT, **more)
    dataset.data = np.ascontiguousarray(dataset.data[:, :12, :12])
    return dataset


MADE = {
    CIFAR10: of_cifar,
    CIFAR100: of_cifar,
    MNIST: of_mnist,
    FashionMNIST: of_mnist,
    KMNIST: of_mnist,
    EMNIST: of_mnist,
    SVHN: of_svhn,
    STL10: of_svhn,
    USPS: of_usps,
    Shapes: of_shapes,
}


def slow(cls):
    """The same class with a ``__getitem__`` of its own: nothing is known of how it reads."""

    class Slow(cls):
        def __getitem__(self, index):
            return super().__getitem__(index)

    return Slow


def seeded(read):
    torch.manual_seed(5)
    return read()


def assert_same(found, expected):
    assert len(found) == len(expected) > 0
    for (image, label), (own, own_label) in zip(found, expected, strict=True):
        assert type(image) is type(own) and type(label) is type(own_label)
        assert label == own_label
        if isinstance(image, Image.Image):
            assert image.mode == own.mode and image.size == own.size and image.info == own.info
        np.testing.assert_array_equal(np.asarray(image), np.asarray(own))


@pytest.fixture
def any_state():
    with torch.random.fork_rng():
        yield


@pytest.fixture
def reads(monkeypatch):
    """What was read one by one."""
    seen, read = [], RawDataset._read

    def note(raw, index):
        seen.append(index)
        return read(raw, index)

    monkeypatch.setattr(RawDataset, "_read", note)
    return seen


# --- torchvision's datasets ----------------------------------------------------------------------


@pytest.mark.parametrize("transform", [None, AUGMENT])
@pytest.mark.parametrize("cls", MADE, ids=lambda cls: cls.__name__)
def test_both_ways_give_the_same_items(cls, transform, fit, reads, any_state):
    fast = MADE[cls](cls, transform=transform)
    other = MADE[cls](slow(cls), transform=transform)
    perturbation = fit(fast)
    assert held_by(fast) is not None and held_by(other) is None
    assert fit(other).keys.tolist() == perturbation.keys.tolist()
    order = np.random.default_rng(2).permutation(COUNT).tolist()
    reads.clear()
    protected = ProtectedDataset(fast, perturbation, fraction=0.7)
    found = seeded(lambda: protected.__getitems__(order))
    single = seeded(lambda: [protected[index] for index in order])
    clean = [protected.clean(index) for index in range(3)]
    tensors = protected.to_tensors()[0]
    assert not reads
    one_by_one = ProtectedDataset(other, perturbation, fraction=0.7)
    expected = seeded(lambda: [one_by_one[index] for index in order])
    assert set(reads) == set(range(COUNT))
    assert_same(found, expected)
    assert_same(single, expected)
    assert_same(seeded(lambda: one_by_one.__getitems__(order)), expected)
    assert torch.equal(tensors, one_by_one.to_tensors()[0])
    if transform is None:
        assert_same(clean, [other[index] for index in range(3)])
        changed = [
            np.asarray(a[0]) != np.asarray(other[i][0]) for a, i in zip(found, order, strict=True)
        ]
        assert sum(map(np.any, changed)) == round(0.7 * COUNT)


def test_unprotected_ones_are_the_datasets_own_down_to_the_draws(fit, any_state):
    dataset = of_cifar(CIFAR10, transform=AUGMENT)
    protected = ProtectedDataset(dataset, fit(dataset), fraction=0)
    order = [5, 0, 22, 5, -1]
    expected = seeded(lambda: [dataset[index] for index in order])
    assert_same(seeded(lambda: protected.__getitems__(order)), expected)
    batches = [list(DataLoader(d, 4, generator=torch.Generator())) for d in (dataset, protected)]
    assert [len(images) for images, _ in batches[1]] == [4, 4, 4, 4, 4, 3]
    assert all(torch.equal(a[1], b[1]) for a, b in zip(*batches, strict=True))


def test_unlabelled_images_of_stl10_have_none(reads):
    dataset = filled(STL10, pixels((COUNT, 3, 12, 12)), labels=None)
    assert [item.label for item in RawDataset(dataset).items([3, 4])] == [None, None]
    assert not reads


def test_a_family_member_with_another_way_of_reading_is_read_in_that_way(fit, reads):
    targets = torch.from_numpy(np.stack([labels(np.array)] * 8, axis=1))
    dataset = of_mnist(QMNIST, compat=True, what="train")
    dataset.targets = targets
    protected = ProtectedDataset(dataset, fit(dataset))
    assert protected[4][1] == targets[4, 0] and 4 in reads


# --- what must not be bypassed -------------------------------------------------------------------


class Negative(CIFAR10):
    def __getitem__(self, index):
        image, label = super().__getitem__(index)
        return Image.fromarray(255 - np.asarray(image)), label


def test_a_subclass_with_its_own_way_of_reading_is_honoured(class_wise_12):
    dataset = of_cifar(Negative)
    protected = ProtectedDataset(dataset, class_wise_12)
    plain = ProtectedDataset(of_cifar(CIFAR10), class_wise_12)
    for index, (image, _) in enumerate(protected.__getitems__(range(COUNT))):
        row = class_wise_12.rows[dataset.targets[index]].transpose(1, 2, 0)
        expected = np.clip(255 - dataset.data[index].astype(int) + row, 0, 255)
        np.testing.assert_array_equal(np.asarray(image), expected)
        assert (np.asarray(image) != np.asarray(plain[index][0])).any()


@pytest.fixture
def class_wise_12(fit):
    return fit(of_cifar(CIFAR10), granularity="class-wise")


@pytest.mark.parametrize("cls", [CIFAR10, SVHN, MNIST], ids=lambda cls: cls.__name__)
def test_data_that_changes_after_wrapping_is_seen(cls, fit):
    dataset = MADE[cls](cls)
    by_class = ProtectedDataset(dataset, fit(dataset, granularity="class-wise"))
    by_image = ProtectedDataset(dataset, fit(dataset))
    assert len(by_class.targets) == len(dataset)
    dataset.data[4] ^= 255
    assert_same([by_class[4]], by_class.__getitems__([4]))
    change = np.asarray(by_class[4][0]).astype(int) - np.asarray(dataset[4][0])
    assert 0 < np.abs(change).max() <= 8
    with pytest.raises(UnknownImageError, match="at index 4"):
        by_image.__getitems__([3, 4, 5])
    assert len(by_image.__getitems__([3, 5])) == 2


def test_labels_that_change_after_wrapping_are_seen(class_wise_12):
    dataset = of_cifar(CIFAR10)
    protected = ProtectedDataset(dataset, class_wise_12)
    before = np.asarray(protected[0][0])
    dataset.targets[0] = (dataset.targets[0] + 1) % 10
    image, label = protected.__getitems__([0])[0]
    assert label == dataset.targets[0] and (np.asarray(image) != before).any()


@pytest.mark.parametrize(
    "change",
    [
        lambda d: np.ascontiguousarray(d.data),
        lambda d: d.data[:, ::-1],
        lambda d: d.data[..., 0].copy(),  # which Pillow takes for grey images
        lambda d: np.concatenate([d.data, d.data[..., :1]], axis=3),  # and these for RGBA
        lambda d: list(d.data),
        lambda d: np.ma.masked_array(d.data),
    ],
)
def test_other_data_than_torchvisions_own_is_read_as_torchvision_would(change, fit):
    dataset, other = of_cifar(CIFAR10), of_cifar(slow(CIFAR10))
    dataset.data = other.data = change(dataset)
    perturbation = fit(other)
    found = ProtectedDataset(dataset, perturbation).__getitems__([7, 2])
    expected = ProtectedDataset(other, perturbation)
    assert_same(found, [expected[7], expected[2]])


def test_float_data_is_refused_as_before(fit):
    dataset = of_cifar(CIFAR10)
    perturbation = fit(dataset)
    dataset.data = dataset.data.astype(np.float32)
    with pytest.raises(TypeError):
        ProtectedDataset(dataset, perturbation)


def test_items_that_differ_from_the_array_are_believed(monkeypatch, class_wise_12):
    known = arrays_module._KNOWN[CIFAR10.__getitem__]
    monkeypatch.setitem(arrays_module._KNOWN, Negative.__getitem__, known)
    dataset = of_cifar(Negative)
    assert held_by(dataset) is not None
    assert np.array_equal(RawDataset(dataset)[3].pixels, 255 - dataset.data[3].transpose(2, 0, 1))


def test_a_subclass_of_protected_dataset_is_read_in_its_own_way(class_wise_12):
    class Marked(ProtectedDataset):
        def __getitem__(self, index):
            return super().__getitem__(index)[0], "mine"

    dataset = Marked(of_cifar(CIFAR10, transform=PILToTensor()), class_wise_12)
    assert [label for _, label in dataset.__getitems__([0, 1])] == ["mine", "mine"]


# --- datasets of datasets, mixtures, sizes -------------------------------------------------------


def test_parts_of_several_datasets_in_any_order(fit, any_state):
    parts = [
        of_svhn(SVHN, transform=PILToTensor()),
        of_usps(USPS),
        of_svhn(slow(STL10)),
        of_svhn(STL10),
    ]
    for number, part in enumerate(parts):
        part.data = pixels(part.data.shape, seed=number)
    whole = ConcatDataset([parts[0], Subset(ConcatDataset(parts[1:]), range(60, 2, -3)), parts[3]])
    other = ConcatDataset(
        [slowed(parts[0]), Subset(ConcatDataset([slowed(p) for p in parts[1:]]), range(60, 2, -3)),
         slowed(parts[3])]
    )  # fmt: skip
    perturbation = fit(whole)
    assert perturbation.keys.tolist() == fit(other).keys.tolist()
    order = np.random.default_rng(0).permutation(len(whole)).tolist()
    found = ProtectedDataset(whole, perturbation).__getitems__(order)
    expected = ProtectedDataset(other, perturbation)
    assert_same(found, [expected[index] for index in order])


def slowed(dataset):
    copy = object.__new__(slow(type(dataset)))
    copy.__dict__.update(dataset.__dict__)
    return copy


@pytest.mark.parametrize("limit", [1, 1000, 2000])
def test_batches_of_any_size(monkeypatch, limit, fit):
    dataset = of_cifar(CIFAR10)
    both = ProtectedDataset(ConcatDataset([dataset, slowed(dataset)]), fit(dataset))
    order = np.random.default_rng(0).permutation(2 * COUNT).tolist()
    expected = both.__getitems__(order)
    monkeypatch.setattr(batches_module, "_TOGETHER", limit)
    assert_same(both.__getitems__(order), expected)
    sizes = [len(batch.labels) for batch in both.raw_batches(range(COUNT))]
    assert sum(sizes) == COUNT and max(sizes) == max(1, limit // 432)


def test_large_images_are_not_held_together():
    log = []

    class Photos(VisionDataset):
        def __len__(self):
            return 4

        def __getitem__(self, index):
            log.append(f"read {index}")
            image = Image.fromarray(pixels((300, 300, 3), index))
            return image if self.transform is None else self.transform(image), index % 2

    dataset = Photos("", transform=lambda image: log.append("transform"))
    dataset.classes = ["a", "b"]
    perturbation = ue.OPS().fit(dataset, progress=False).perturbation_
    protected = ProtectedDataset(dataset, perturbation)
    log.clear()
    protected.__getitems__([2, 0, 3])
    assert log == ["read 2", "read 0", "transform", "read 3", "transform", "transform"]


def test_varying_sizes_and_modes_in_one_batch(varying_folder, fit):
    perturbation = fit(varying_folder, image_size=6)
    protected = ProtectedDataset(varying_folder, perturbation)
    assert_same(protected.__getitems__([3, 0, 1, 2]), [protected[i] for i in (3, 0, 1, 2)])


def test_tensors_and_arrays_in_batches(tensors, fit):
    for dataset in (tensors, TensorDataset(*tensors), (tensors[0][:, 0].numpy(), tensors[1])):
        protected = ProtectedDataset(dataset, fit(dataset), fraction=0.5)
        assert_same(protected.__getitems__([9, 3, 3]), [protected[i] for i in (9, 3, 3)])
        protected.__getitems__([9])[0][0][...] = 0  # nobody else's memory
        assert_same(protected.__getitems__([9, 3, 3]), [protected[i] for i in (9, 3, 3)])


# --- indices, rows, kinds ------------------------------------------------------------------------


def test_pictures_in_memory_and_others_in_one_batch():
    noted = Image.fromarray(pixels((9, 8, 3), 4))
    noted.info["comment"] = "read by the slow way"
    images = [
        *(Image.fromarray(pixels((9, 8, 3), seed)) for seed in range(3)),
        *(Image.fromarray(pixels((9, 8), seed)) for seed in range(2)),
        Image.fromarray(pixels((8, 9, 3), 3)),
        noted,
        pixels((9, 8, 3), 5),
        Image.fromarray(pixels((9, 8, 3), 6)).convert("RGBA"),
        Image.fromarray(pixels((9, 8, 3), 7)),
    ]
    raw = RawDataset((images, [0, 1] * 5))
    batches = list(raw.batches(range(10)))
    assert [len(batch.labels) for batch in batches] == [3, 2, 1, 3, 1]
    read = [image for batch in batches for image in batch.pixels]
    for image, found in zip(images, read, strict=True):
        expected = np.asarray(
            image.convert("RGB")
            if isinstance(image, Image.Image) and image.mode == "RGBA"
            else image
        )
        planes = expected[None] if expected.ndim == 2 else expected.transpose(2, 0, 1)
        np.testing.assert_array_equal(found, planes)


def test_indices_of_any_kind_in_a_batch(shapes, perturbation):
    protected = ProtectedDataset(shapes, perturbation)
    mixed = [-1, np.int64(3), torch.tensor(4), np.uint8(39)]
    assert_same(protected.__getitems__(mixed), [protected[index] for index in (39, 3, 4, 39)])
    assert protected.__getitems__([]) == []
    for wrong in ([0, 40], [0, -41]):
        with pytest.raises(IndexError, match="below 40"):
            protected.__getitems__(wrong)
    with pytest.raises(TypeError):
        protected.__getitems__([0, 1.0])


def test_duplicates_in_a_batch_go_by_label_and_index_else_label_else_index_else_first(tensors, fit):
    perturbation = fit((tensors[0][[0, 1, 0, 0]], [0, 1, 2, 2]))
    same = np.stack([tensors[0][0].numpy()] * 4)
    assert perturbation.find_batch(same, [0, 2, 9, 2], [3, 1, 1, 99]) == [0, 2, 0, 2]
    assert perturbation.find_batch(same, [2, 2, 9, 0], [3, 2, 3, 3]) == [3, 2, 3, 0]
    assert perturbation.find_batch(same, [0, 2, 9, 2]) == [0, 2, 0, 2]
    assert perturbation.find(same[0], 2, -1) == 2


def test_a_damaged_row_is_found_in_a_batch(shapes, perturbation, tmp_path):
    folder = perturbation.save_pretrained(tmp_path / "p")
    loaded = Perturbation.from_pretrained(folder)
    content = bytearray((folder / "perturbation.safetensors").read_bytes())
    place = content.index(loaded.rows[7].tobytes())
    content[place + 5] ^= 1
    (folder / "perturbation.safetensors").write_bytes(content)
    protected = ProtectedDataset(Subset(shapes, range(7)), Perturbation.from_pretrained(folder))
    assert len(protected.__getitems__(range(7))) == 7
    loaded = Perturbation.from_pretrained(folder)
    clean = shapes.data.transpose(0, 3, 1, 2)
    for read in range(2):  # each time
        with pytest.raises(ArtefactError, match="row 7"):
            loaded.apply_batch(clean[5 + read : 9], list(range(5 + read, 9)))


def test_keys_and_pictures_of_batches():
    for shape in ((4, 3, 6, 9), (4, 1, 6, 9)):
        images = pixels(shape)
        planar = np.ascontiguousarray(images.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
        keys = [image_key(image) for image in images]
        assert image_keys(images) == image_keys(planar) == keys and len(set(keys)) == 4
        for image, picture in zip(images, to_pils(planar), strict=True):
            assert picture.mode == ("RGB" if shape[1] == 3 else "L") and picture.size == (9, 6)
            np.testing.assert_array_equal(
                np.asarray(picture).reshape(6, 9, -1).transpose(2, 0, 1), image
            )


METHODS = [
    ue.RandomNoise(),
    ue.RandomNoise(granularity="class-wise"),
    ue.OPS(pixels=3),
    ue.ClassConvolution(),
    ue.ClassConvolution(kernel_size=5, normalize="sum"),
    ue.LSP(),
    ue.AR(),
    ue.Gratings(),
    ue.ColourShift(),
    ue.SmoothFields(),
]


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_every_kind_does_the_same_to_a_batch_and_to_each_image(method, shapes):
    p = method.fit(shapes, progress=False).perturbation_
    clean = shapes.data.transpose(0, 3, 1, 2)
    rows = p.find_batch(clean, shapes.targets, range(40))
    before = clean.copy()
    together = p.apply_batch(clean, rows)
    for index in range(40):
        row = p.find(clean[index], shapes.targets[index], index)
        assert row == rows[index]
        np.testing.assert_array_equal(p.apply(clean[index], row), together[index])
    np.testing.assert_array_equal(clean, before)
    assert (together != clean).any()


def test_rows_fitted_partly_on_clean_images_and_partly_on_what_lies_below(shapes):
    below = ue.RandomNoise().fit(shapes, progress=False)
    on_clean = ue.RandomNoise(seed=1).fit(shapes, progress=False).perturbation_
    on_below = ue.RandomNoise(seed=1).fit(below.protect(shapes), progress=False).perturbation_
    keys = np.where(np.arange(40) % 3 == 0, on_clean.keys, on_below.keys)
    parts = {name: on_clean.tensors[name] for name in ("labels", "thumbnails")}
    mixed = Perturbation(on_clean.rows, on_clean.config, keys=keys, **parts)
    stack = below.perturbation_.then(mixed)
    protected = ProtectedDataset(Subset(shapes, range(39, -1, -1)), stack)
    expected = below.protect(shapes).to_tensors()[0].numpy().astype(int) + on_clean.rows
    np.testing.assert_array_equal(protected.to_tensors()[0], np.clip(expected, 0, 255)[::-1])


# --- copies for workers --------------------------------------------------------------------------


def test_pickles_hold_the_arrays_once(tmp_path, fit):
    dataset = filled(CIFAR10, pixels((400, 12, 12, 3)), targets=[0, 1] * 200)
    perturbation = Perturbation.from_pretrained(fit(dataset).save_pretrained(tmp_path / "p"))
    protected = ProtectedDataset(dataset, perturbation)
    protected.__getitems__(range(400))
    more = len(pickle.dumps(protected)) - len(pickle.dumps(dataset))
    assert 0 < more < 16 * 400 + 8192 < dataset.data.nbytes
    again = pickle.loads(pickle.dumps(protected))
    assert again._raw._bare[0].data is again.base.data
    assert_same(again.__getitems__([5, 2]), protected.__getitems__([5, 2]))
