"""What is set on a dataset after it was wrapped reaches the protected items."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, Subset
from torchvision.datasets import VisionDataset
from torchvision.transforms import ToTensor

from unlearnable import ProtectedDataset, RandomNoise, UnknownImageError, from_items

COUNT = 12


class Own(Dataset):
    """Keeps an epoch, as datasets for curricula do."""

    def __init__(self, transform=None):
        draws = np.random.default_rng(0)
        self.pixels = draws.integers(20, 200, (COUNT, 8, 8, 3), np.uint8)
        self.targets = [index % 2 for index in range(COUNT)]
        self.classes = ["cat", "dog"]
        self.transform = transform
        self.epoch, self.share = 0, None
        self.file, self.cache = None, None

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __len__(self):
        return len(self.pixels)

    def __getitem__(self, index):
        image = Image.fromarray(self.pixels[index])
        if self.transform is not None:
            image = self.transform(image)
        return image, self.targets[index], self.epoch


class Around(Dataset):
    def __init__(self, inner):
        self.inner, self.targets = inner, inner.targets
        self.transform = None

    def __len__(self):
        return len(self.inner)

    def __getitem__(self, index):
        image, label, epoch = self.inner[index]
        return (image if self.transform is None else self.transform(image)), label, epoch


def protect(base, granularity="class-wise"):
    method = RandomNoise(granularity=granularity)
    return method.fit(base, progress=False).protect(base)


def epochs(dataset):
    return {item[2] for item in dataset}


def test_an_epoch_that_is_set_on_the_base_or_through_the_view_counts():
    base = Own()
    protected = protect(base)
    assert epochs(protected) == {0}
    base.set_epoch(3)
    assert epochs(protected) == {3}
    protected.set_epoch(4)
    assert (base.epoch, epochs(protected)) == (4, {4})
    protected.epoch = 5
    assert (base.epoch, protected.epoch, epochs(protected)) == (5, 5, {5})
    assert "epoch" not in vars(protected)


@pytest.mark.parametrize(
    "again", [copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))]
)
def test_copies_follow_their_own_base(again):
    protected = protect(Own())
    protected.set_epoch(2)
    other = again(protected)
    assert epochs(other) == {2}
    other.base.set_epoch(7)
    assert epochs(other) == {7}


def test_worker_processes_start_with_what_was_set():
    protected = protect(Own(ToTensor()))
    loader = DataLoader(protected, 4, num_workers=1)
    for epoch in range(2):
        protected.set_epoch(epoch)
        assert {int(part) for _, _, numbers in loader for part in numbers} == {epoch}


def test_a_dataset_inside_another_or_under_a_subset_is_followed():
    inner = Own()
    protected, part = protect(Around(inner)), protect(Subset(inner, [3, 5]))
    inner.set_epoch(6)
    assert epochs(protected) == epochs(part) == {6}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (0.5, 1e-3),
        (None, "hard"),
        ((1, 2), (3, 4)),
        (np.float32(1), np.float32(2)),
        (torch.tensor(1.0), torch.tensor(2.0)),
        (np.array(1), np.array(2)),
        (torch.zeros(3), torch.ones(3)),
        ([1], [2, 3]),
    ],
)
def test_numbers_texts_and_replaced_arrays_are_passed_on(before, after):
    class Reading(Own):
        def __getitem__(self, index):
            return (*super().__getitem__(index)[:2], self.held)

    base = Reading()
    base.held = before
    protected = protect(from_items(base))
    base.held = after
    assert str(protected[0][2]) == str(after)


def test_new_labels_and_images_count():
    base = Own()
    protected = protect(base)
    rows = protected.perturbation
    base.targets = [1 - label for label in base.targets]
    assert protected.targets == base.targets
    assert [item[1] for item in protected] == base.targets
    base.pixels = base.pixels[::-1].copy()
    clean = base.pixels[0].transpose(2, 0, 1)
    expected = rows.apply(clean, protected.targets[0])
    assert np.array_equal(np.asarray(protected[0][0]).transpose(2, 0, 1), expected)


def test_sample_wise_rows_refuse_images_that_were_replaced():
    base = Own()
    protected = protect(base, "sample-wise")
    base.pixels = base.pixels + 1
    with pytest.raises(UnknownImageError):
        protected[0]


def test_a_dataset_whose_length_changes_is_refused():
    base = Own()
    protected = protect(base)
    base.pixels, base.targets = base.pixels[:5], base.targets[:5]
    with pytest.raises(RuntimeError, match=r"keep its 12 images, got 5 .* wrap it again"):
        protected[0]


def test_a_transform_set_on_the_base_is_applied_once_to_the_protected_image():
    base = Own()
    protected = protect(base)
    plain = np.array(protected[0][0])
    base.transform = ToTensor()
    base.set_epoch(1)
    image, _, epoch = protected[0]
    assert epoch == 1
    assert torch.equal((image * 255).round().byte(), torch.from_numpy(plain).permute(2, 0, 1))


class Keeping(Own):
    """Opens a file and keeps transformed items when it is read."""

    def __getitem__(self, index):
        if self.file is None:
            self.file, self.cache, self.share = object(), {}, np.zeros(3)
        if index not in self.cache:
            self.cache[index] = super().__getitem__(index)
        return self.cache[index]


def test_what_reading_the_base_leaves_there_is_not_passed_on():
    base = Keeping(ToTensor())
    protected = protect(Own(ToTensor()))
    expected = protected[0][0]
    protected = ProtectedDataset(base, protected.perturbation)
    clean = base[0][0]
    assert torch.equal(protected[0][0], expected)
    assert torch.equal(base[0][0], clean) and not torch.equal(expected, clean)


class Listed(VisionDataset):
    """Read through torchvision's own constructor, with a class-wide default."""

    epoch = 0

    def __init__(self):
        super().__init__("", transform=ToTensor())
        self.targets = [0, 1] * 3

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, index):
        image = Image.new("RGB", (6, 6), (40 + 10 * index,) * 3)
        return self.transform(image), self.targets[index], self.epoch


def test_a_class_wide_default_that_is_set_counts():
    base = Listed()
    protected = protect(base)
    base.epoch = 2
    assert epochs(protected) == {2}
