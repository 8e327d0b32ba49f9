"""What is set on a dataset after it was wrapped reaches the protected items."""

from __future__ import annotations

import copy
import pickle
import threading

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset
from torchvision.datasets import ImageFolder, VisionDataset
from torchvision.transforms import ToTensor

from unlearnable import ProtectedDataset, RandomNoise, UnknownImageError, from_items
from unlearnable.data import raw
from unlearnable.datasets import Shapes

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


class Shards(Own):
    """Keeps the part of its images that it read last."""

    def __init__(self):
        super().__init__()
        self.shard, self.part = None, None

    def __getitem__(self, index):
        if self.shard != index // 4:
            self.shard = index // 4
            self.part = Part(self.pixels[4 * self.shard :][:4])
        return Image.fromarray(self.part.pixels[index % 4]), self.targets[index], self.epoch


class Part:
    def __init__(self, pixels):
        self.pixels = pixels


class Opening(Own):
    """Opens a file when it is read first, and remembers that it did."""

    def __init__(self):
        super().__init__()
        self.opened, self.lock = False, threading.Lock()

    def __getitem__(self, index):
        if not self.opened:
            self.file, self.opened = self.pixels, True
        return Image.fromarray(self.file[index]), self.targets[index], self.epoch

    def __getstate__(self):
        return {**self.__dict__, "lock": None, "file": None, "opened": False}


@pytest.mark.parametrize("kind", [Shards, Opening])
def test_what_the_base_keeps_of_its_reading_is_not_mixed_with_what_is_read_here(kind):
    base, expected = kind(), protect(Own())
    protected = ProtectedDataset(base, expected.perturbation)
    for index in range(COUNT):
        assert base[index][1] == protected[index][1]
        assert np.array_equal(protected[index][0], expected[index][0])
    base.set_epoch(2)
    for again in (protected, pickle.loads(pickle.dumps(protected))):
        assert np.array_equal(again[5][0], expected[5][0]) and again[5][2] == 2
        assert len(list(DataLoader(again, 4, num_workers=1, collate_fn=list))) == 3


def test_a_changed_length_is_refused_each_time_until_it_is_right_again():
    base = Own()
    protected, pixels = protect(base), base.pixels
    base.pixels = pixels[:5]
    for _ in range(2):
        with pytest.raises(RuntimeError, match="keep its 12 images, got 5"):
            protected[0]
    base.pixels = pixels
    assert len(protected) == len(list(protected)) == COUNT


class Relabelled(Own):
    """Takes labels that training code proposes, and an order, in its own lists."""

    def __init__(self, kind=list):
        super().__init__()
        self.targets = kind(self.targets)
        self.order = list(range(COUNT))

    def relabel(self, labels):
        self.targets[:] = labels

    def __getitem__(self, index):
        place = self.order[index]
        return Image.fromarray(self.pixels[place]), int(self.targets[place]), place


@pytest.mark.parametrize("kind", [list, np.array, torch.tensor])
def test_labels_that_change_in_place_are_those_of_items_and_targets(kind):
    base = Relabelled(kind)
    protected = protect(base)
    new = [1 - int(label) for label in protected.targets]
    protected.relabel(kind(new))
    assert [item[1] for item in protected] == new == list(protected.targets)
    assert protected.to_tensors()[1].tolist() == new
    copied = pickle.loads(pickle.dumps(protected))
    copied.relabel(kind(new[::-1]))
    assert [item[1] for item in copied] == new[::-1] == list(copied.targets)
    assert list(protected.targets) == new


def test_an_order_that_changes_in_place_is_that_of_items_also_where_it_could_be_the_label():
    base = Relabelled()
    base.targets = [(index * 5 + 1) % COUNT for index in range(COUNT)]
    base.classes = [f"kind {index}" for index in range(COUNT)]
    protected = protect(base)
    base.order.reverse()
    for found, (clean, label, place) in zip(protected, base, strict=True):
        expected = protected.perturbation.apply(np.asarray(clean).transpose(2, 0, 1), label)
        assert found[1:] == (label, place)
        assert np.array_equal(np.asarray(found[0]).transpose(2, 0, 1), expected)
    assert protected.targets == [label for _, label, _ in base]


@pytest.mark.parametrize("changed", [1, 400])
def test_labels_that_change_in_place_beside_an_array_reach_targets(changed):
    whole = Shapes(size=400)
    protected = protect(whole)
    assert protected.targets == whole.targets
    for index in range(201, 201 + changed):
        whole.targets[index % 400] = (whole.targets[index % 400] + 1) % 10
    assert [label for _, label in protected] == whole.targets == protected.targets


@pytest.mark.parametrize("way", [copy.deepcopy, "pickle", "epoch"])
def test_a_label_that_changes_in_place_is_not_lost_where_all_is_looked_at_anew(way):
    base = Relabelled()
    base.pixels, base.targets = (
        np.concatenate([part] * 40) for part in (base.pixels, base.targets)
    )
    base.targets, base.order = base.targets.tolist(), list(range(40 * COUNT))
    protected = protect(base)
    assert protected.targets == base.targets
    base.targets[201] = 1 - base.targets[201]
    if way == "epoch":
        base.set_epoch(1)
    else:
        way = (lambda found: pickle.loads(pickle.dumps(found))) if way == "pickle" else way
        protected = way(protected)
    assert protected.targets == base.targets and protected[201][1] == base.targets[201]


def test_files_that_change_their_places_in_a_list_are_followed(tmp_path):
    for index, pixels in enumerate(Own().pixels):
        (tmp_path / str(index % 2)).mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / str(index % 2) / f"{index}.png")
    base = ImageFolder(tmp_path)
    protected = protect(base)
    before = protected.targets
    base.samples.reverse()
    assert protected.targets == [label for _, label in base] == before[::-1]


def test_a_list_that_training_code_writes_to_costs_nothing(monkeypatch):
    base = Own()
    base.history = [0]
    protected = protect(base)
    taken = []
    monkeypatch.setattr(raw, "take_off", lambda *args: taken.append(args))
    for epoch in range(3):
        base.history.append(epoch)
        assert len(list(protected)) == COUNT
    assert not taken


@pytest.mark.parametrize(
    ("change", "count"),
    [(lambda samples: samples.pop(0), 11), (lambda samples: samples.extend(samples[:3]), 15)],
)
def test_a_length_that_changes_in_place_is_refused(change, count, tmp_path):
    for index, pixels in enumerate(Own().pixels):
        (tmp_path / str(index % 2)).mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / str(index % 2) / f"{index}.png")
    base = ImageFolder(tmp_path)
    protected = protect(Subset(base, range(10)))
    change(base.samples)
    for read in (lambda: protected[9], lambda: protected.targets, protected.to_tensors):
        with pytest.raises(RuntimeError, match=f"keep its 12 images, got {count}.*again"):
            read()


class Training(Own):
    """Augments while a flag is set."""

    train = False

    def __getitem__(self, index):
        image, label, epoch = super().__getitem__(index)
        if self.train and torch.rand(1) < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return image, label, epoch


def test_a_flag_that_makes_items_random_is_refused_as_when_wrapping():
    protected = protect(Training())
    protected.train = True
    assert protected.base.train
    with pytest.raises(TypeError, match="random"):
        list(protected)


def test_another_dataset_inside_is_read_whole():
    first, second = Own(), Own()
    second.pixels, second.targets = 255 - first.pixels, [1 - label for label in first.targets]
    base = Around(first)
    protected = protect(base)
    base.inner, base.targets = second, second.targets
    expected = ProtectedDataset(Around(second), protected.perturbation)
    assert np.array_equal(protected[3][0], expected[3][0])
    assert protected[3][1] == expected[3][1] and protected.targets == second.targets


def test_views_of_one_dataset_all_follow():
    protected = protect(Own())
    other = protected.with_keys(np.arange(COUNT).astype(np.uint64))
    assert other.targets == protected.targets
    protected.base.targets = [1 - label for label in protected.targets]
    assert other.targets == protected.targets == protected.base.targets


def test_an_epoch_does_not_make_labels_be_read_again():
    class Unlisted(Own):
        reads = 0

        def __getitem__(self, index):
            Unlisted.reads += 1
            return super().__getitem__(index)

    base = Unlisted()
    base.values = base.targets
    protected = protect(base)
    assert protected.targets == base.targets
    base.set_epoch(1)
    before = Unlisted.reads
    assert protected.targets == base.targets
    assert Unlisted.reads - before < 40  # those of the trial, which do not grow with the dataset


def test_what_a_subclass_or_a_subset_holds_is_its_own():
    class Noted(ProtectedDataset):
        def __init__(self, *args):
            super().__init__(*args)
            self.epoch = "mine"

    base = Own()
    protected = protect(base)
    noted = Noted(base, protected.perturbation)
    assert (noted.epoch, base.epoch) == ("mine", 0)
    part = Subset(base, [3, 5])
    over = ProtectedDataset(part, protected.perturbation)
    with pytest.raises(AttributeError, match="'indices' to be set on the wrapped dataset before"):
        over.indices = [0]
    assert (part.indices, over.indices, len(over)) == ([3, 5], [3, 5], 2)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda part, whole: setattr(part, "indices", [5, 3]), "Subset to keep its indices"),
        (lambda part, whole: part.indices.append(1), "Subset to keep its indices"),
        (lambda part, whole: part.indices.reverse(), "Subset to keep its indices"),
        (lambda part, whole: setattr(part, "dataset", copy.copy(part.dataset)), "its dataset"),
        (lambda part, whole: setattr(whole, "datasets", [part]), "ConcatDataset to keep its d"),
        (lambda part, whole: whole.datasets.append(part), "ConcatDataset to keep its datasets"),
        (lambda part, whole: whole.datasets.reverse(), "ConcatDataset to keep its datasets"),
    ],
)
def test_other_parts_of_a_subset_or_concatenation_are_refused(change, what):
    base = Own()
    part = Subset(Subset(base, list(range(10))), [3, 5])
    whole = ConcatDataset([base, part])
    perturbation = protect(base).perturbation
    protected = ProtectedDataset(from_items(whole, 0, 1), perturbation)
    copied = pickle.loads(pickle.dumps(protected))
    change(part, whole)
    for read in (lambda: protected[0], lambda: protected.targets, lambda: protected.to_tensors()):
        with pytest.raises(RuntimeError, match=f"{what}.* wrap it again"):
            read()
    assert len(copied.targets) == 14 and copied[13][1] == base.targets[5]
    again = ProtectedDataset(base, perturbation)
    assert np.array_equal(again[0][0], copied[0][0])


@pytest.mark.parametrize("kind", [list, np.array, torch.tensor])
def test_indices_that_are_shuffled_in_place_are_refused(kind):
    whole = Shapes(size=400)
    part = Subset(whole, kind(list(range(300, 20, -1))))
    protected = ProtectedDataset(part, protect(whole).perturbation)
    assert len(protected.targets) == 280 and protected[7][1] == whole[293][1]
    part.indices[:] = kind(np.random.default_rng(0).permutation(280).tolist())
    for read in (lambda: protected[0], lambda: protected.targets, lambda: protected.to_tensors()):
        with pytest.raises(RuntimeError, match=r"Subset to keep its indices.* wrap it again"):
            read()


@pytest.mark.parametrize("kind", [list, np.array, torch.tensor])
def test_two_indices_that_are_exchanged_in_place_are_refused_within_an_epoch(kind):
    whole = Shapes(size=400)
    part = Subset(whole, kind(list(range(300, 20, -1))))
    perturbation = protect(whole).perturbation
    protected = ProtectedDataset(part, perturbation)
    half = ProtectedDataset(Subset(part, range(140)), perturbation)
    part.indices[130], part.indices[131] = kind([160, 161])
    for wrapped in (protected, half):
        with pytest.raises(RuntimeError, match=r"Subset to keep its indices.* wrap it again"):
            wrapped.to_tensors()
        with pytest.raises(RuntimeError, match=r"Subset to keep its indices.* wrap it again"):
            for index in range(len(wrapped)):
                wrapped[index]


def test_indices_that_a_property_makes_anew_are_the_same_as_long_as_they_are_equal():
    class Fold(Subset):
        first = 3

        def __init__(self, dataset):
            self.dataset = dataset

        @property
        def indices(self):
            return [self.first, 5]

    fold = Fold(Own())
    protected = ProtectedDataset(fold, protect(fold.dataset).perturbation)
    assert np.array_equal(protected[0][0], protect(fold.dataset)[3][0])
    fold.first = 4
    with pytest.raises(RuntimeError, match="Fold to keep its indices"):
        protected[0]


def test_a_transform_of_another_name_is_not_set_through_the_view():
    class Named(Own):
        def __init__(self):
            super().__init__()
            self.augment = ToTensor()

        def __getitem__(self, index):
            image, label, epoch = super().__getitem__(index)
            return (image if self.augment is None else self.augment(image)), label, epoch

    base = Named()
    protected = protect(base)
    with pytest.raises(AttributeError, match=r"protected.base.augment"):
        protected.augment = None
    base.augment = None
    assert isinstance(protected[0][0], Image.Image)


@pytest.mark.parametrize("classes", [["dog", "cat"], ["cat", "dog", "bird"], None])
def test_classes_that_are_renamed_after_wrapping_are_refused(classes):
    base = Own()
    protected = protect(base)
    base.classes = classes
    with pytest.raises(RuntimeError, match=r"keep its classes, \['cat', 'dog'\], got .* wrap it"):
        protected[0]
    with pytest.raises(RuntimeError, match="keep its classes"):
        protected.targets  # noqa: B018
    base.classes = ["cat", "dog"]
    assert protected.targets == base.targets and protected[0][1] == 0


@pytest.mark.parametrize("copied", [lambda x: x, copy.deepcopy, pickle.dumps])
def test_a_fraction_follows_images_that_are_put_into_another_order(copied):
    base = Own()
    protected = protect(base, "sample-wise").with_fraction(0.5)
    held = copied(protected)
    held = pickle.loads(held) if isinstance(held, bytes) else held
    shown = {item[0].tobytes() for item in held}
    below = held.base
    below.pixels, below.targets = below.pixels[::-1].copy(), below.targets[::-1]
    assert {item[0].tobytes() for item in held} == shown
    assert held.chosen.sum() == COUNT // 2
