"""Items of any form: the image is replaced, all else comes back; labels are not guessed."""

import collections
import dataclasses
import pickle
from pathlib import Path
from types import SimpleNamespace

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import ConcatDataset, DataLoader, Dataset, StackDataset, Subset, TensorDataset
from torchvision.transforms import PILToTensor, ToTensor
from torchvision.transforms import functional as F

import unlearnable as ue
from unlearnable import ProtectedDataset, from_items
from unlearnable.data.cache import read_images
from unlearnable.data.image import pixels_of
from unlearnable.datasets import Shapes

SHAPES = Shapes(size=40)
Triple = collections.namedtuple("Triple", "image label index")


@dataclasses.dataclass
class Record:
    image: object
    label: int
    name: str


@pytest.fixture(scope="module")
def reference(shapes, perturbation):
    return list(ProtectedDataset(shapes, perturbation))


class Items(Dataset):
    """Items that a function makes of index, image and label; transforms as torchvision has them."""

    def __init__(self, make, transform=None, target_transform=None, **attributes):
        self.make, self.transform, self.target_transform = make, transform, target_transform
        vars(self).update(attributes)

    def __len__(self):
        return 40

    def __getitem__(self, index):
        image, label = Image.fromarray(SHAPES.data[index]), SHAPES.targets[index]
        if self.transform is not None:
            image = self.transform(image)
        if self.target_transform is not None:
            label = self.target_transform(label)
        return self.make(index, image, label)


def as_dict(index, image, label):
    return {"image": image, "label": label, "name": f"number {index}"}


def one_hot(index, image, label):
    return image, torch.eye(10)[label]


def class_of(item):
    return int(item[1].argmax())


def plus_50(label):
    return label + 50


FORMS = {
    "tuple": lambda i, image, label: (image, label, i),
    "list": lambda i, image, label: [image, label, i],
    "named": lambda i, image, label: Triple(image, label, i),
    "last": lambda i, image, label: (i, f"{i}.png", image, label),
    "dict": as_dict,
    "ordered": lambda i, image, label: collections.OrderedDict(y=label, img=image, box=[i]),
    "dataclass": lambda i, image, label: Record(image, label, str(i)),
}


def parts(item):
    """All fields of an item by name or place."""
    if isinstance(item, dict):
        return dict(item)
    if dataclasses.is_dataclass(item):
        return dict(vars(item))
    return dict(enumerate(item))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("transforms", [False, True])
def test_items_come_back_in_their_form(form, transforms, perturbation, reference):
    on = {"transform": PILToTensor(), "target_transform": plus_50} if transforms else {}
    dataset = Items(FORMS[form], **on)
    protected = ProtectedDataset(dataset, perturbation)
    assert protected.targets == SHAPES.targets
    found, plain = protected[7], dataset[7]
    assert type(found) is type(plain)
    assert list(parts(found)) == list(parts(plain))
    images = 0
    for (_, mine), (_, own) in zip(parts(found).items(), parts(plain).items(), strict=True):
        assert type(mine) is type(own)
        if isinstance(own, (Image.Image, torch.Tensor)):
            pixels = np.asarray(mine.permute(1, 2, 0) if transforms else mine)
            np.testing.assert_array_equal(pixels, np.asarray(reference[7][0]))
            images += 1
        else:
            assert mine == own
    assert images == 1
    clean = parts(protected.clean(7))
    for name, own in parts(plain).items():
        assert np.array_equal(np.asarray(clean[name]), np.asarray(own))


def test_a_loader_collates_dicts(perturbation, reference):
    protected = ProtectedDataset(Items(as_dict, ToTensor()), perturbation)
    batch = next(iter(DataLoader(protected, 8)))
    assert torch.equal(batch["image"][5], F.to_tensor(reference[5][0]))
    assert batch["label"].tolist() == SHAPES.targets[:8] and batch["name"][5] == "number 5"


class Sample(Items):
    """The transform gets the whole dict, as in PyTorch's tutorial."""

    def __getitem__(self, index):
        sample = as_dict(index, Image.fromarray(SHAPES.data[index]), SHAPES.targets[index])
        return self.transform(sample) if self.transform else sample


def of_a_sample(sample):
    return {**sample, "image": F.to_tensor(sample["image"]), "label": sample["label"] + 1}


def test_transform_of_the_whole_item(perturbation, reference):
    protected = ProtectedDataset(Sample(None, of_a_sample), perturbation)
    assert torch.equal(protected[7]["image"], F.to_tensor(reference[7][0]))
    assert protected[7]["label"] == reference[7][1] + 1 and protected.targets == SHAPES.targets


def test_items_are_fitted_by_the_labels_in_them(class_wise, shapes):
    for form in FORMS.values():
        dataset = Items(form)
        assert read_images(dataset).digest == read_images(shapes).digest
        first = parts(ProtectedDataset(dataset, class_wise)[7])
        image = next(value for value in first.values() if isinstance(value, Image.Image))
        expected = ProtectedDataset(shapes, class_wise)[7][0]
        np.testing.assert_array_equal(np.asarray(image), np.asarray(expected))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda i, image, label: (image, label, 7 * i), "one label in each item, got several"),
        (lambda i, image, label: (image, image, label), r"one image in each item, got several"),
        (
            lambda i, image, label: {"image": image, "mask": image, "label": label},
            r"one image in each item, got several \(image, mask\)",
        ),
        (
            lambda i, image, label: {"image": image, "label": label, "target": label},
            r"one label in each item, got several \(label, target\)",
        ),
        (lambda i, image, label: {"image": image, "id": i}, "one label in each item, got none"),
        (lambda i, image, label: image, "pairs"),
    ],
)
def test_what_is_not_clear_is_refused(make, message, perturbation):
    with pytest.raises(TypeError, match=rf"Items to have {message}.*unlearnable\.from_items\("):
        ProtectedDataset(Items(make), perturbation)


def test_of_several_images_it_is_said_that_one_is_protected(perturbation):
    items = [(image, other, 0) for (image, _), (other, _) in zip(SHAPES, SHAPES, strict=True)]
    with pytest.raises(TypeError, match=r"only that image is protected then.*taken from"):
        ProtectedDataset(items, perturbation)


def test_listed_labels_tell_which_field_is_the_label(perturbation):
    dataset = Items(lambda i, image, label: (image, 1000 + i, label), targets=SHAPES.targets)
    protected = ProtectedDataset(dataset, perturbation)
    assert protected.targets == SHAPES.targets and protected[3][1] == 1003


# --- from_items ----------------------------------------------------------------------------------


def test_keys_and_positions(perturbation, reference):
    named = Items(lambda i, image, label: {"photo": image, "mask": image, "kind": label})
    protected = ProtectedDataset(from_items(named, image="photo", label="kind"), perturbation)
    np.testing.assert_array_equal(np.asarray(protected[3]["photo"]), np.asarray(reference[3][0]))
    np.testing.assert_array_equal(np.asarray(protected[3]["mask"]), SHAPES.data[3])
    assert protected.targets == SHAPES.targets
    placed = Items(lambda i, image, label: (i * 7, label, image))
    protected = ProtectedDataset(from_items(placed, 2, 1), perturbation)
    assert protected[3][:2] == (21, SHAPES.targets[3]) and protected.targets == SHAPES.targets
    np.testing.assert_array_equal(np.asarray(protected[3][-1]), np.asarray(reference[3][0]))
    alone = Items(lambda i, image, label: image)
    protected = ProtectedDataset(from_items(alone, image=None, label=None), perturbation)
    np.testing.assert_array_equal(np.asarray(protected[3]), np.asarray(reference[3][0]))


def test_below_and_above_subsets(perturbation, reference):
    placed = Items(lambda i, image, label: (label, i * 3, image), PILToTensor())
    for dataset in (
        from_items(Subset(placed, [9, 3]), 2, 0),
        Subset(from_items(placed, 2, 0), [9, 3]),
        ConcatDataset(
            [from_items(Subset(placed, [9]), 2, 0), Subset(from_items(placed, 2, 0), [3])]
        ),
    ):
        protected = ProtectedDataset(dataset, perturbation)
        assert protected.targets == [SHAPES.targets[9], SHAPES.targets[3]]
        image = protected[1][2].permute(1, 2, 0)
        np.testing.assert_array_equal(image, np.asarray(reference[3][0]))
        protected.transform = None
        assert isinstance(protected[1][2], Image.Image)


def test_wrong_places_are_refused(perturbation):
    with pytest.raises(TypeError, match="an image at 'photo' in the items of Items, got KeyError"):
        ProtectedDataset(from_items(Items(as_dict), "photo", "label"), perturbation)
    for arguments in ((True, 1), (1.5, 1), (0, True), (0, 2.5)):
        with pytest.raises(TypeError, match="expected a key"):
            from_items(Items(as_dict), *arguments)

    with pytest.raises(TypeError, match="a label at 5 in the items of Items, got IndexError"):
        ProtectedDataset(from_items(Items(lambda *item: item), 1, 5), perturbation)


@pytest.mark.parametrize("transform", [None, PILToTensor()])
def test_positions_from_the_end(transform, perturbation, reference):
    for make, image, label, place in (
        (lambda index, image, label: (index, image, label), -2, -1, 1),
        (lambda index, image, label: [image, label, index], -3, 1, 0),
        (lambda index, image, label: (image, label), -2, -1, 0),
    ):
        dataset = Items(make, transform)
        protected = ProtectedDataset(from_items(dataset, image, label), perturbation)
        item, expected = protected[7], np.asarray(reference[7][0])
        found = item[place]
        found = np.asarray(found) if transform is None else found.numpy().transpose(1, 2, 0)
        np.testing.assert_array_equal(found, expected)
        assert item[:place] + item[place + 1 :] == dataset[7][:place] + dataset[7][place + 1 :]
        assert protected.targets == SHAPES.targets


def test_class_names_are_given_by_index_or_not_at_all():
    dataset = Items(as_dict)
    names = list("zyxwvutsrq")
    for classes in (
        names,
        {
            name: index
            for index, name in sorted(zip(range(10), names, strict=True), key=lambda n: n[1])
        },
        {9 - place: name for place, name in enumerate(reversed(names))},
    ):
        assert from_items(dataset, "image", "label", classes=classes).classes == names
    assert from_items(dataset, "image", "label", classes=[0, 1]).classes == ["0", "1"]
    for classes in (set(names), "zyxwvutsrq", {1: 2}, 10):
        with pytest.raises(
            TypeError, match="expected classes to be a list of names in index order"
        ):
            from_items(dataset, "image", "label", classes=classes)


def test_one_hot_labels_are_refused_and_a_function_names_the_class(shapes):
    dataset = Items(one_hot)
    with pytest.raises(ValueError, match=r"class indices.*got tensor.*from_items\(dataset, label="):
        ue.RandomNoise(granularity="class-wise").fit(dataset, progress=False)
    said = from_items(dataset, label=class_of, classes=Shapes.classes)
    method = ue.RandomNoise(granularity="class-wise").fit(said, progress=False)
    protected = method.protect(said)
    assert protected.targets == SHAPES.targets and protected.classes == Shapes.classes
    image, vector = protected[7]
    assert torch.equal(vector, torch.eye(10)[SHAPES.targets[7]])
    expected = method.protect(shapes)[7][0]
    np.testing.assert_array_equal(np.asarray(image), np.asarray(expected))
    again = pickle.loads(pickle.dumps(from_items(Subset(SHAPES, [0]), label=class_of)))
    assert again.layout.label is class_of


class Faces(Items):
    """As CelebA gives attributes."""

    def __init__(self):
        super().__init__(None)
        self.attr = torch.stack([torch.arange(40) % 2, torch.tensor(SHAPES.targets) // 5], dim=1)
        self.attr_names = ["odd", "high"]

    def __getitem__(self, index):
        return Image.fromarray(SHAPES.data[index]), self.attr[index]


def is_high(item):
    return int(item[1][1])


def test_one_attribute_of_many(tmp_path):
    said = from_items(Faces(), label=is_high, classes=["1 low", "2 high"])
    protected = ue.RandomNoise(granularity="class-wise").fit(said, progress=False).protect(said)
    assert protected.targets == [label // 5 for label in SHAPES.targets]
    assert torch.equal(protected[7][1], Faces().attr[7]) and protected.attr_names[1] == "high"
    folder = protected.export(tmp_path / "out", progress=False)
    files = sorted(Path(folder).rglob("*.png"))
    assert len(files) == 40
    for file in files:
        assert file.parent.name == ["1 low", "2 high"][protected.targets[int(file.stem)]]


def test_classes_of_the_dataset_are_not_those_of_a_function(shapes):
    merged = from_items(shapes, label=lambda item: item[1] // 5)
    protected = ue.RandomNoise().fit(merged, progress=False).protect(merged)
    assert protected.classes is None and max(protected.targets) == 1
    assert from_items(shapes, 0, 1).classes is None
    assert ProtectedDataset(from_items(shapes, 0, 1), protected.perturbation).classes is not None


def test_without_labels(perturbation, tmp_path):
    dataset = from_items(Items(one_hot), label=None)
    protected = ue.RandomNoise().fit(dataset, progress=False).protect(dataset)
    change = np.asarray(protected[7][0]).astype(int) - SHAPES.data[7]
    assert 0 < np.abs(change).max() <= 8 and protected[7][1].shape == (10,)
    assert not hasattr(protected, "targets") and not protected.labelled
    with pytest.raises(ValueError, match=r"EM\(.*got a dataset without.*from_items"):
        ue.EM.preset("demo").fit(dataset, progress=False)
    by_class = ue.RandomNoise(granularity="class-wise")
    with pytest.raises(ValueError, match="images with labels"):
        by_class.fit(dataset, progress=False)
    with pytest.raises(ValueError, match="a dataset with labels, by which"):
        by_class.fit(SHAPES, progress=False).protect(dataset)


def test_tensor_datasets_of_more_or_fewer_than_two(tensors, fit):
    images, labels = tensors
    perturbation = fit((images, labels))
    three = TensorDataset(images, labels, torch.arange(20))
    protected = ProtectedDataset(three, perturbation)
    expected = ProtectedDataset((images, labels), perturbation)[4][0]
    assert torch.equal(protected[4][0], expected) and protected[4][2] == 4
    assert protected.targets == labels.tolist()
    alone = from_items(TensorDataset(images), label=None)
    assert torch.equal(ProtectedDataset(alone, perturbation)[4][0], expected)


@pytest.mark.parametrize(
    "form",
    [
        lambda image: image,
        np.asarray,
        lambda image: np.asarray(image.convert("RGBA")),
        lambda image: torch.from_numpy(np.asarray(image).transpose(2, 0, 1).copy()),
    ],
)
def test_a_position_in_items_that_are_images_is_refused(form):
    """A row of pixels was taken for the image, and the rest stayed clean."""
    items = [form(image) for image, _ in SHAPES]
    with pytest.raises(TypeError, match=r"an image at 0 .* row of pixels.*pass image=None"):
        ue.RandomNoise().fit(from_items(items, label=None), progress=False)
    inside = [{"image": image} for image in items]
    with pytest.raises(TypeError, match=r"at \('image', 0\) .*end the path before it"):
        ue.RandomNoise().fit(from_items(inside, ("image", 0), None), progress=False)


@pytest.mark.parametrize("path", [0, ("views", 0)])
def test_an_image_in_a_stack_of_several_is_replaced_in_a_copy(path, perturbation, reference):
    images = torch.from_numpy(SHAPES.data.transpose(0, 3, 1, 2).copy())
    stacks = torch.stack([images, 255 - images], 1)
    items = stacks if path == 0 else [{"views": stack} for stack in stacks]
    before = stacks.clone()
    protected = ProtectedDataset(from_items(items, path, None), perturbation)
    for _ in range(2):
        item = protected[3] if path == 0 else protected[3]["views"]
        assert torch.equal(item[0], F.pil_to_tensor(reference[3][0]))
        assert torch.equal(item[1], stacks[3, 1])
    assert torch.equal(stacks, before)


def test_labels_in_arrays_of_one(perturbation, class_wise, shapes, tmp_path):
    """As MedMNIST has them."""
    labels = np.array(SHAPES.targets)[:, None]
    dataset = Items(lambda i, image, label: (image, np.array([label])), labels=labels)
    protected = ProtectedDataset(dataset, class_wise)
    assert protected.targets == SHAPES.targets and protected[7][1].tolist() == [SHAPES.targets[7]]
    expected = ProtectedDataset(shapes, class_wise)[7][0]
    np.testing.assert_array_equal(np.asarray(protected[7][0]), np.asarray(expected))
    assert read_images(dataset).digest == read_images(shapes).digest
    protected.export(tmp_path / "out", progress=False)


def test_an_export_refuses_a_label_that_its_dataset_lists_otherwise(perturbation, tmp_path):
    listed = list(SHAPES.targets)
    place = 17
    listed[place] = (listed[place] + 1) % 10
    dataset = Items(lambda i, image, label: (image, label), targets=listed)
    protected = ProtectedDataset(dataset, perturbation)
    try:
        folder = protected.export(tmp_path / "out", progress=False)
    except ValueError as error:
        assert f"image {place} to have the label" in str(error)
    else:
        found = {int(file.stem): int(file.parent.name) for file in folder.rglob("*.png")}
        assert [found[index] for index in range(40)] == SHAPES.targets


def test_stacked_datasets_and_lists(perturbation, reference):
    images = Items(lambda i, image, label: image, ToTensor())
    labels = Items(lambda i, image, label: label)
    for dataset, image in ((StackDataset(image=images, label=labels), "image"), (
        StackDataset(images, labels), 0
    )):  # fmt: skip
        protected = ProtectedDataset(dataset, perturbation)
        assert torch.equal(protected[7][image], F.to_tensor(reference[7][0]))
        assert protected.targets == SHAPES.targets
    rows = [{"image": image, "label": label} for image, label in SHAPES]
    protected = ProtectedDataset(rows, perturbation)
    np.testing.assert_array_equal(np.asarray(protected[7]["image"]), np.asarray(reference[7][0]))
    np.testing.assert_array_equal(np.asarray(rows[7]["image"]), SHAPES.data[7])


def test_an_integer_beside_the_label_is_not_taken_for_it(perturbation):
    """The label equals the index here, and must not be taken for a counter."""
    dataset = Items(lambda i, image, label: (image, i, label * 3))
    with pytest.raises(TypeError, match=r"one label in each item, got several \(1, 2\)"):
        ProtectedDataset(dataset, perturbation)


def test_formats_that_need_labels_are_refused_without(tmp_path):
    dataset = from_items(Items(one_hot), label=None)
    protected = ue.RandomNoise().fit(dataset, progress=False).protect(dataset)
    with pytest.raises(ValueError, match="for images without labels, got 'npz'"):
        protected.export(tmp_path / "npz", "npz")
    folder = protected.export(tmp_path / "png", progress=False)
    assert len(list(folder.rglob("*.png"))) == 40


def test_listed_labels_that_disagree_are_not_trusted(perturbation):
    merged = [label // 2 for label in SHAPES.targets]
    dataset = Items(lambda i, image, label: (image, label), targets=merged)
    assert ProtectedDataset(dataset, perturbation).targets == SHAPES.targets
    nearly = [9 if label == 4 else label for label in SHAPES.targets]
    dataset = Items(lambda i, image, label: (image, label), targets=nearly)
    assert ProtectedDataset(dataset, perturbation).targets == SHAPES.targets


def test_labels_that_a_target_transform_merges(class_wise, tmp_path):
    dataset = Shapes(size=40, target_transform=lambda label: label // 5)
    protected = ProtectedDataset(dataset, class_wise)
    plain = ProtectedDataset(Shapes(size=40), class_wise)
    assert protected.targets == SHAPES.targets and protected.classes == Shapes.classes
    for index in range(40):
        assert protected[index][1] == SHAPES.targets[index] // 5
        np.testing.assert_array_equal(np.asarray(protected[index][0]), np.asarray(plain[index][0]))


# --- Hugging Face datasets -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def rows():
    features = datasets.Features(
        {
            "img": datasets.Image(),
            "label": datasets.ClassLabel(names=Shapes.classes),
            "note": datasets.Value("string"),
        }
    )
    columns = {"img": [SHAPES[i][0] for i in range(40)], "label": SHAPES.targets}
    columns["note"] = [f"number {i}" for i in range(40)]
    return datasets.Dataset.from_dict(columns, features=features)


def to_tensors(batch):
    return {"pixel_values": [ToTensor()(x) for x in batch["img"]], "labels": batch["label"]}


def test_rows_of_hugging_face_datasets_stay_dicts(rows, perturbation, reference):
    protected = ProtectedDataset(from_items(rows, "img", "label"), perturbation)
    row = protected[7]
    assert list(row) == ["img", "label", "note"] and row["note"] == "number 7"
    np.testing.assert_array_equal(np.asarray(row["img"]), np.asarray(reference[7][0]))
    assert protected.classes == Shapes.classes and protected.targets == SHAPES.targets
    assert protected.column_names == ["img", "label", "note"]
    assert not hasattr(protected, "select") and not hasattr(protected, "with_format")


def test_transform_of_rows_set_before_or_after_wrapping(rows, perturbation, reference):
    before = ProtectedDataset(
        from_items(rows.with_transform(to_tensors), "img", "label"), perturbation
    )
    later = rows.select(range(40))
    after = ProtectedDataset(from_items(later, "img", "label"), perturbation)
    later.set_transform(to_tensors)
    for protected in (before, after):
        row = protected[7]
        assert list(row) == ["pixel_values", "labels"] and row["labels"] == reference[7][1]
        assert torch.equal(row["pixel_values"], F.to_tensor(reference[7][0]))
        batch = next(iter(DataLoader(protected, 4)))
        assert batch["pixel_values"].shape == (4, 3, 32, 32)


def test_set_transform_after_wrapping_counts_for_pairs_too(rows, perturbation, reference):
    dataset = rows.select(range(40))
    protected = ProtectedDataset(dataset, perturbation)
    assert protected.transforms is None
    dataset.set_transform(lambda batch: {"img": [ToTensor()(x) for x in batch["img"]]}, ["img"])
    assert torch.equal(protected[7][0], F.to_tensor(reference[7][0]))
    protected.transform = PILToTensor()
    assert protected[7][0].dtype == torch.uint8
    ready = ue.from_hf(rows)
    ready.transform = ToTensor()
    assert isinstance(ready[3][0], torch.Tensor)


@pytest.mark.parametrize(
    ("columns", "all_columns"), [(["img"], True), (["img", "label"], False), (["img"], False)]
)
@pytest.mark.parametrize("transformed", [False, True])
def test_rows_have_the_columns_of_the_format(
    columns, all_columns, transformed, rows, perturbation, reference
):
    def transform(batch):
        return {f"new_{name}": values for name, values in batch.items()}

    given = {"columns": columns, "output_all_columns": all_columns}
    dataset = rows.with_transform(transform, **given) if transformed else rows.with_format(**given)
    row = ProtectedDataset(from_items(dataset, "img", "label"), perturbation)[7]
    expected = dataset[7]
    assert set(row) == set(expected)
    image = "new_img" if transformed else "img"
    np.testing.assert_array_equal(np.asarray(row.pop(image)), np.asarray(reference[7][0]))
    del expected[image]
    assert row == expected


def test_a_table_is_not_made_of_images_without_labels(perturbation):
    protected = ProtectedDataset(from_items(SHAPES, label=None), perturbation)
    for make in (protected.to_hf_dataset, lambda: protected.push_to_hub("owner/images")):
        with pytest.raises(ValueError, match=r"with labels for a table.*export\(folder, \"png\"\)"):
            make()


def test_attributes_of_an_object_are_named_not_the_object(perturbation):
    with pytest.raises(TypeError, match=r"got a SimpleNamespace; .*from_items\(dataset, image=…"):
        ProtectedDataset(Items(lambda i, image, label: SimpleNamespace(image=image)), perturbation)


def test_missing_labels_are_refused_with_what_takes_none():
    dataset = Items(lambda i, image, label: (image, None))
    with pytest.raises(ValueError, match=r"labels are missing.*from_items\(dataset, label=None\)"):
        ue.RandomNoise().fit(dataset, progress=False)


class Nested(Dataset):
    """Items whose image and label lie one level deeper."""

    def __init__(self, transform=None, base=SHAPES):
        self.base, self.transform = base, transform

    def __len__(self):
        return len(self.base)

    def __getitem__(self, index):
        image, label = self.base[index]
        if self.transform is not None:
            image = self.transform(image)
        return {"inputs": {"pixels": image, "size": 32}, "truth": (index, label)}


@pytest.mark.parametrize("transform", [None, PILToTensor()])
def test_an_image_deeper_in_an_item_is_named_by_its_path(transform):
    whole = Nested(transform)
    dataset = from_items(whole, image=("inputs", "pixels"), label=("truth", 1))
    protected = (
        ue.RandomNoise(granularity="class-wise").fit(dataset, progress=False).protect(dataset)
    )
    assert protected.targets == [label for _, label in SHAPES]
    item, clean = protected[3], whole[3]
    assert (item["truth"], item["inputs"]["size"]) == (clean["truth"], 32)
    pixels = protected.without_transforms()[3]["inputs"]["pixels"]
    expected = protected.perturbation.apply(pixels_of(SHAPES[3][0]), SHAPES[3][1])
    assert np.array_equal(pixels_of(pixels), expected)
    made = pixels if transform is None else transform(pixels)
    assert np.array_equal(np.asarray(item["inputs"]["pixels"]), np.asarray(made))
    again = whole[3]["inputs"]["pixels"]
    assert np.array_equal(np.asarray(again), np.asarray(clean["inputs"]["pixels"]))


def test_a_deeper_image_is_found_for_the_message():
    with pytest.raises(TypeError, match=r"image=\('inputs', 'pixels'\), label=…"):
        ue.RandomNoise().fit(Nested(), progress=False)


@pytest.mark.parametrize("image", [(), (0, 1.5), ("inputs", True), 1.5])
def test_a_path_of_anything_but_keys_and_positions_is_refused(image):
    with pytest.raises(TypeError, match="a tuple of them as image"):
        from_items(Nested(), image=image, label=("truth", 1))


class Beside(Nested):
    """Items that hold the clean image beside the one that is named."""

    def __getitem__(self, index):
        item = super().__getitem__(index)
        return {**item, "inputs": {**item["inputs"], "raw": self.base[index][0]}}


def test_a_clean_image_beside_a_deeper_one_is_refused():
    dataset = from_items(Beside(PILToTensor()), image=("inputs", "pixels"), label=("truth", 1))
    with pytest.raises(TypeError, match=r"'pixels'\) and again at \('inputs', 'raw'\)"):
        ue.RandomNoise().fit(dataset, progress=False)


def with_tuple_keys(index, image, label):
    return {"image": image, "label": label, ("a", "b"): 3, "boxes": {(1, 2): 3}}


@pytest.mark.parametrize("transform", [None, PILToTensor()])
def test_tuples_may_be_keys_themselves(transform):
    dataset = Items(with_tuple_keys, transform)
    for whole in (dataset, from_items(dataset, image="image", label="label")):
        protected = ue.RandomNoise().fit(whole, progress=False).protect(whole)
        assert protected[1][("a", "b")] == 3


def test_a_path_of_one_key_is_that_key():
    dataset = from_items(SHAPES, image=(0,), label=(1,))
    assert ue.RandomNoise().fit(dataset, progress=False).protect(dataset)[2][1] == SHAPES[2][1]
