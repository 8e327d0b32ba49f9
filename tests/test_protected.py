"""Protected datasets: every image gets its own row, and nothing else about it changes."""

import copy
import errno
import hashlib
import html.parser
import json
import pickle
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import ConcatDataset, DataLoader, Subset, TensorDataset
from torchvision.datasets import ImageFolder, VisionDataset
from torchvision.transforms import Compose, Normalize, PILToTensor, ToTensor

from unlearnable import Perturbation, ProtectedDataset, RandomNoise, UnknownImageError
from unlearnable.data.fingerprint import image_key
from unlearnable.data.image import pixels_of
from unlearnable.datasets import Shapes
from unlearnable.protected.export.encoding import Encoding
from unlearnable.protected.manifest import Seal
from unlearnable.protected.metrics import compare
from unlearnable.protected.verify import verify


class Arrays(VisionDataset):
    """PIL images of arrays, (N, H, W) or (N, H, W, 3), with targets and perhaps classes."""

    def __init__(self, data, targets, classes=None, **transforms):
        super().__init__("", **transforms)
        self.data, self.targets = data, list(targets)
        if classes is not None:
            self.classes = list(classes)

    def __len__(self):
        return len(self.data)

    def __getitem__(self, index):
        pair = Image.fromarray(self.data[index]), self.targets[index]
        return pair if self.transforms is None else self.transforms(*pair)


def added(pixels, row):
    """Pixels (H, W[, 3]) and a row (C, H, W), put together by hand."""
    row = row[0] if pixels.ndim == 2 else row.transpose(1, 2, 0)
    return np.array(np.minimum(np.maximum(pixels.astype(int) + row, 0), 255), dtype=np.uint8)


def array(pair):
    return np.asarray(pair[0])


def is_protected(dataset, index):
    return (array(dataset[index]) != array(dataset.clean(index))).any()


def load(path):
    """The image in the mode that its file has."""
    with Image.open(path) as image:
        return image.copy()


def files(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def protected(shapes, perturbation):
    return ProtectedDataset(shapes, perturbation)


@pytest.fixture(scope="module")
def grey():
    data = np.random.default_rng(0).integers(0, 256, (12, 8, 8), dtype=np.uint8)
    return Arrays(data, [0, 1, 2] * 4, ["ankle boot", "bag", "coat"])


# --- which row -----------------------------------------------------------------------------------


def test_every_image_gets_its_row(shapes, perturbation, protected):
    for index in range(len(shapes)):
        expected = added(shapes.data[index], perturbation.rows[index])
        np.testing.assert_array_equal(array(protected[index]), expected)
        assert protected[index][1] == shapes.targets[index]


def test_budget_on_the_pixels_that_leave(shapes, protected):
    images, _ = protected.to_tensors()
    clean = torch.from_numpy(shapes.data.transpose(0, 3, 1, 2).copy())
    change = (images.int() - clean.int()).abs()
    assert images.dtype == torch.uint8 and change.max() == 8


def test_pixels_at_the_ends_of_the_range_do_not_wrap_around(fit):
    data = np.zeros((2, 8, 8, 3), np.uint8)
    data[1] = 255
    dataset = Arrays(data, [0, 1])
    rows = fit(dataset, epsilon=16 / 255)
    extreme = Perturbation(
        np.stack([-np.abs(rows.rows[0]) - 1, np.abs(rows.rows[1]) + 1]),
        rows.config,
        **{name: rows.tensors[name] for name in ("keys", "labels", "thumbnails")},
    )
    protected = ProtectedDataset(dataset, extreme)
    assert (array(protected[0]) == 0).all() and (array(protected[1]) == 255).all()


def test_shuffled_copy(shapes, perturbation):
    order = np.random.default_rng(0).permutation(40)
    shuffled = Arrays(shapes.data[order], np.array(shapes.targets)[order].tolist(), shapes.classes)
    protected = ProtectedDataset(shuffled, perturbation)
    for place, index in enumerate(order):
        expected = added(shapes.data[index], perturbation.rows[index])
        np.testing.assert_array_equal(array(protected[place]), expected)


def test_subset_of_subset(shapes, protected, perturbation):
    part = ProtectedDataset(Subset(Subset(shapes, range(30, 5, -1)), [0, 7, 3]), perturbation)
    assert len(part) == 3 and part.targets == [shapes.targets[i] for i in (30, 23, 27)]
    for place, index in enumerate([30, 23, 27]):
        np.testing.assert_array_equal(array(part[place]), array(protected[index]))


def test_perturbation_of_a_subset_fits_that_subset_of_the_whole(shapes, fit):
    perturbation = fit(Subset(shapes, [9, 4, 30]))
    protected = ProtectedDataset(Subset(shapes, [30, 9]), perturbation)
    np.testing.assert_array_equal(array(protected[0]), added(shapes.data[30], perturbation.rows[2]))
    np.testing.assert_array_equal(array(protected[1]), added(shapes.data[9], perturbation.rows[0]))


def test_concatenation_in_another_order(shapes, protected, perturbation):
    first, second = Subset(shapes, range(20)), Subset(shapes, range(20, 40))
    both = ProtectedDataset(ConcatDataset([second, first]), perturbation)
    for index in range(40):
        np.testing.assert_array_equal(array(both[(index + 20) % 40]), array(protected[index]))


def test_concatenated_parts_keep_their_transforms(perturbation, protected):
    parts = [Shapes(size=20, transform=PILToTensor()), Shapes(size=40)]
    both = ProtectedDataset(ConcatDataset(parts), perturbation)
    assert isinstance(both[5][0], torch.Tensor) and isinstance(both[25][0], Image.Image)
    np.testing.assert_array_equal(both[5][0].permute(1, 2, 0), array(protected[5]))
    np.testing.assert_array_equal(array(both[25]), array(protected[5]))


def test_another_dataset_is_refused(perturbation):
    with pytest.raises(UnknownImageError, match=r"Shapes, 40 images.*got another one at index 0"):
        ProtectedDataset(Shapes(size=40, seed=1), perturbation)


def test_image_that_was_not_fitted_is_refused_when_it_is_read(fit):
    fitted = Shapes(size=100)
    perturbation = fit(fitted)
    peeked = set(np.linspace(0, 99, 64).astype(int).tolist())
    place = next(index for index in range(100) if index not in peeked)
    changed = Arrays(fitted.data.copy(), fitted.targets, fitted.classes)
    changed.data[place, 0, 0, 0] ^= 1
    protected = ProtectedDataset(changed, perturbation)
    protected[place - 1], protected[place + 1]
    with pytest.raises(UnknownImageError, match=f"at index {place}.*extend"):
        protected[place]
    with pytest.raises(UnknownImageError):
        list(protected)
    with pytest.raises(UnknownImageError):
        protected.to_tensors()


def test_more_images_than_were_fitted_are_refused(perturbation):
    with pytest.raises(UnknownImageError):
        ProtectedDataset(Shapes(size=41), perturbation)


def test_duplicates_go_by_label_and_index_else_label_else_index_else_first(tensors, fit):
    images = tensors[0][[0, 1, 0, 0]]
    perturbation = fit((images, [0, 1, 2, 2]))
    assert len({row.tobytes() for row in perturbation.rows}) == 4
    pixels = images[0].numpy()
    assert [perturbation.find(pixels, label, 3) for label in (0, 2, 9)] == [0, 3, 3]
    assert [perturbation.find(pixels, label, 1) for label in (0, 2, 9)] == [0, 2, 0]
    assert perturbation.find(pixels, 2) == 2
    protected = ProtectedDataset((images, [0, 1, 2, 2]), perturbation)
    for index in range(4):
        expected = added(images[index].permute(1, 2, 0).numpy(), perturbation.rows[index])
        np.testing.assert_array_equal(protected[index][0].permute(1, 2, 0), expected)


# --- classes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["perturbation", "class_wise"])
def test_other_classes_are_refused(which, request, shapes):
    perturbation = request.getfixturevalue(which)
    for classes in ([*shapes.classes[:8], "zebra"], [*shapes.classes, "zebra"]):
        dataset = Arrays(shapes.data, [0] * 40, classes)
        with pytest.raises(
            ValueError, match=f"10 classes arrow, circle.*got {len(classes)}: arrow"
        ):
            ProtectedDataset(dataset, perturbation)


def test_more_labels_than_class_wise_rows_are_refused(shapes, class_wise):
    with pytest.raises(ValueError, match="10 classes, got 11"):
        ProtectedDataset(Arrays(shapes.data, [*range(11), *[0] * 29]), class_wise)


def test_class_wise_rows_go_to_new_images_by_label(class_wise):
    new = Shapes(train=False, size=20)
    protected = ProtectedDataset(new, class_wise)
    for index in range(20):
        expected = added(new.data[index], class_wise.rows[new.targets[index]])
        np.testing.assert_array_equal(array(protected[index]), expected)


def test_class_wise_rows_go_by_name_where_the_order_of_classes_differs(shapes, class_wise):
    targets = [9 - label for label in shapes.targets]
    turned = Arrays(shapes.data, targets, shapes.classes[::-1])
    protected = ProtectedDataset(turned, class_wise)
    for index in range(40):
        expected = added(shapes.data[index], class_wise.rows[shapes.targets[index]])
        np.testing.assert_array_equal(array(protected[index]), expected)
        assert protected[index][1] == targets[index]
    assert protected.classes == shapes.classes[::-1] and protected.targets == targets


def test_label_outside_of_reordered_classes_gets_no_row(shapes, class_wise):
    for label in (-1, 10):
        turned = Arrays(shapes.data, [label] * 40, shapes.classes[::-1])
        with pytest.raises(UnknownImageError, match=f"below 10, got {label}"):
            ProtectedDataset(turned, class_wise)


# --- transforms ----------------------------------------------------------------------------------


def test_transforms_come_after_the_perturbation(perturbation, protected):
    transform = Compose([ToTensor(), Normalize([0.5] * 3, [0.25] * 3)])
    dataset = Shapes(size=40, transform=transform, target_transform=lambda label: -label)
    before = dict(vars(dataset))
    with_transforms = ProtectedDataset(dataset, perturbation)
    for index in (0, 17):
        image, label = with_transforms[index]
        torch.testing.assert_close(image, transform(protected[index][0]), rtol=0, atol=0)
        assert label == -dataset.targets[index]
    assert vars(dataset) == before and with_transforms.base is dataset


def test_joint_transforms_come_after_the_perturbation(shapes, perturbation, protected):
    joint = lambda image, label: (PILToTensor()(image), label + 100)
    dataset = Arrays(shapes.data, shapes.targets, shapes.classes, transforms=joint)
    image, label = ProtectedDataset(dataset, perturbation)[3]
    np.testing.assert_array_equal(image.permute(1, 2, 0), array(protected[3]))
    assert label == shapes.targets[3] + 100


def test_clean_is_the_callers_own_item(perturbation):
    dataset = Shapes(size=40, transform=ToTensor(), target_transform=str)
    protected = ProtectedDataset(dataset, perturbation)
    for index in (0, 17, -1):
        image, label = protected.clean(index)
        expected = dataset[index]
        torch.testing.assert_close(image, expected[0], rtol=0, atol=0)
        assert label == expected[1]
        assert not torch.equal(image, protected[index][0])


def test_without_transforms(perturbation, protected):
    dataset = Shapes(size=40, transform=ToTensor(), target_transform=str)
    with_transforms = ProtectedDataset(dataset, perturbation)
    bare = with_transforms.without_transforms()
    np.testing.assert_array_equal(array(bare[3]), array(protected[3]))
    assert bare[3][1] == dataset.targets[3]
    assert isinstance(with_transforms[3][0], torch.Tensor)


@pytest.mark.parametrize("kind", ["tensors", "arrays", "tensor dataset"])
def test_items_keep_their_type(tensors, fit, kind):
    images, labels = tensors
    dataset = {
        "tensors": (images, labels),
        "arrays": (images.permute(0, 2, 3, 1).numpy(), labels.tolist()),
        "tensor dataset": TensorDataset(images, labels),
    }[kind]
    protected = ProtectedDataset(dataset, fit(dataset))
    clean, image = protected.clean(4)[0], protected[4][0]
    assert type(image) is type(clean) and image.dtype == clean.dtype and image.shape == clean.shape
    assert 0 < np.abs(np.asarray(image, int) - np.asarray(clean, int)).max() <= 8
    assert protected.targets == labels.tolist()
    given = dataset[4][0] if isinstance(dataset, TensorDataset) else dataset[0][4]
    np.testing.assert_array_equal(np.asarray(clean), np.asarray(given))


# --- as a dataset --------------------------------------------------------------------------------


@pytest.mark.parametrize("index", [3, -37, np.int64(3), np.uint8(3), torch.tensor(3), np.array(3)])
def test_indices_of_any_kind(protected, shapes, perturbation, index):
    expected = added(shapes.data[3], perturbation.rows[3])
    np.testing.assert_array_equal(array(protected[index]), expected)
    np.testing.assert_array_equal(array(protected.clean(index)), shapes.data[3])


@pytest.mark.parametrize("index", [40, -41, np.int64(40)])
def test_past_the_end(protected, index):
    with pytest.raises(IndexError, match="below 40"):
        protected[index]
    with pytest.raises(IndexError, match="below 40"):
        protected.clean(index)


@pytest.mark.parametrize("index", [1.0, "1", slice(3)])
def test_what_is_no_index(protected, index):
    with pytest.raises(TypeError, match=r"expected an integer as index, got .*use a Subset"):
        protected[index]


def test_iteration(protected):
    items = list(protected)
    assert len(items) == len(protected) == 40
    for index in (0, 39):
        np.testing.assert_array_equal(array(items[index]), array(protected[index]))


def test_attributes(shapes, protected, perturbation):
    assert protected.targets == shapes.targets and protected.classes == shapes.classes
    assert protected.class_to_idx == shapes.class_to_idx
    assert protected.base is shapes and protected.perturbation is perturbation
    assert isinstance(protected, VisionDataset)


def test_attributes_of_a_dataset_without_names(tensors, fit):
    protected = ProtectedDataset(tensors, fit(tensors))
    assert protected.classes is None and protected.class_to_idx is None
    assert protected.targets == tensors[1].tolist()


def test_to_tensors(perturbation, protected):
    dataset = Shapes(size=40, transform=ToTensor())
    images, labels = ProtectedDataset(dataset, perturbation, fraction=0.5).to_tensors()
    half = ProtectedDataset(Shapes(size=40), perturbation, fraction=0.5)
    assert images.dtype == torch.uint8 and labels.dtype == torch.int64
    assert images.shape == (40, 3, 32, 32) and labels.tolist() == dataset.targets
    for index in range(40):
        np.testing.assert_array_equal(images[index].permute(1, 2, 0), array(half[index]))


def test_repr(protected, shapes, perturbation):
    text = repr(protected)
    assert "Number of datapoints: 40" in text and "Base: Shapes" in text
    assert "RandomNoise" in text and "100% of images protected" in text
    assert "25% of images" in repr(ProtectedDataset(shapes, perturbation, fraction=0.25))


@pytest.mark.parametrize("channels", [1, 3])
def test_html(tensors, fit, channels):
    dataset = (tensors[0][:3, :channels], tensors[1][:3])
    page = ProtectedDataset(dataset, fit(dataset))._repr_html_()
    tags = []
    parser = html.parser.HTMLParser()
    parser.handle_starttag = lambda tag, attributes: tags.append((tag, dict(attributes)))
    parser.feed(page)
    assert [tag for tag, _ in tags] == ["img"]
    assert tags[0][1]["src"].startswith("data:image/png;base64,")


def test_wrapping_twice_is_refused(shapes, protected, perturbation):
    for twice in (protected, Subset(protected, [0]), ConcatDataset([shapes, protected])):
        with pytest.raises(ValueError, match="not protected yet"):
            ProtectedDataset(twice, perturbation)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"fraction": 1.5}, "fraction from 0 to 1, got 1.5"),
        ({"fraction": -0.1}, "fraction"),
        ({"fraction": float("nan")}, "fraction"),
        ({"align": "name"}, "got 'name'"),
    ],
)
def test_arguments_out_of_range(shapes, perturbation, arguments, message):
    with pytest.raises(ValueError, match=message):
        ProtectedDataset(shapes, perturbation, **arguments)


@pytest.mark.parametrize("way", [copy.copy, copy.deepcopy, lambda d: pickle.loads(pickle.dumps(d))])
def test_copies(protected, way):
    again = way(protected)
    assert len(again) == 40 and again.targets == protected.targets
    for index in (0, 39):
        np.testing.assert_array_equal(array(again[index]), array(protected[index]))
        np.testing.assert_array_equal(array(again.clean(index)), array(protected.clean(index)))


# --- loaders -------------------------------------------------------------------------------------


def assert_loads(loader, dataset):
    images, labels = (torch.cat(parts) for parts in zip(*loader, strict=True))
    assert len(images) == len(dataset)
    for index in range(len(dataset)):
        assert torch.equal(images[index], dataset[index][0])
        assert labels[index] == dataset[index][1]
    return images


def test_batches_of_a_loader_are_protected(perturbation, shapes):
    protected = ProtectedDataset(Shapes(size=40, transform=PILToTensor()), perturbation)
    images = assert_loads(DataLoader(protected, 16), protected)
    clean = torch.from_numpy(shapes.data.transpose(0, 3, 1, 2).copy())
    assert ((images != clean).flatten(1).any(1)).all()
    part = Subset(protected, [7, 3, 31])
    assert torch.equal(assert_loads(DataLoader(part, 2), part), images[[7, 3, 31]])


@pytest.mark.parametrize("context", ["fork", "spawn"])
@pytest.mark.slow
def test_worker_processes_read_the_same(context, perturbation, tmp_path):
    dataset = Shapes(size=40, transform=PILToTensor())
    loaded = Perturbation.from_pretrained(perturbation.save_pretrained(tmp_path))
    both = ConcatDataset(
        [
            ProtectedDataset(dataset, perturbation),
            Subset(ProtectedDataset(dataset, loaded, fraction=0.5), range(39, -1, -1)),
        ]
    )
    assert_loads(DataLoader(both, 16, num_workers=2, multiprocessing_context=context), both)


# --- shares --------------------------------------------------------------------------------------


def chosen(dataset):
    return {index for index in range(len(dataset)) if is_protected(dataset, index)}


@pytest.mark.parametrize(("fraction", "count"), [(0, 0), (0.1, 4), (0.33, 13), (0.5, 20), (1, 40)])
def test_exact_share(shapes, perturbation, fraction, count):
    protected = ProtectedDataset(shapes, perturbation, fraction=fraction)
    assert len(chosen(protected)) == count


def test_choice_is_by_content_and_seed_and_nested(shapes, perturbation):
    def choose(dataset, fraction, seed=0):
        return chosen(ProtectedDataset(dataset, perturbation, fraction=fraction, seed=seed))

    half = choose(shapes, 0.5)
    order = np.random.default_rng(0).permutation(40)
    assert {order[place] for place in choose(Subset(shapes, order), 0.5)} == half
    assert choose(shapes, 0.2) < half < choose(shapes, 0.8)
    assert choose(shapes, 0.5, seed=1) != half
    assert choose(shapes, 0.5, seed=np.int64(0)) == half
    assert choose(shapes, 0.5, seed=-1) != half


def test_method_protects_as_the_wrapper_does(shapes):
    method = RandomNoise().fit(shapes, device="cpu", progress=False)
    protected = method.protect(shapes, fraction=0.5, seed=3)
    by_hand = ProtectedDataset(shapes, method.perturbation_, fraction=0.5, seed=3)
    assert chosen(protected) == chosen(by_hand)


# --- align="index" -------------------------------------------------------------------------------


@pytest.fixture
def other_decoder(shapes):
    """The same images, a few levels off, as another JPEG decoder gives them."""
    off = np.random.default_rng(0).integers(-3, 4, shapes.data.shape)
    data = np.clip(shapes.data + off, 0, 255).astype(np.uint8)
    return Arrays(data, shapes.targets, shapes.classes)


def by_index(dataset, perturbation):
    with pytest.warns(UserWarning, match="relies on the order"):
        return ProtectedDataset(dataset, perturbation, align="index")


def test_align_by_index_takes_slightly_other_pixels(other_decoder, perturbation):
    with pytest.raises(UnknownImageError):
        ProtectedDataset(other_decoder, perturbation)
    protected = by_index(other_decoder, perturbation)
    for index in range(40):
        expected = added(other_decoder.data[index], perturbation.rows[index])
        np.testing.assert_array_equal(array(protected[index]), expected)


def test_align_by_index_refuses_another_order_or_number(shapes, other_decoder, perturbation):
    with pytest.raises(UnknownImageError, match="image 0 to look like"):
        by_index(Subset(other_decoder, range(39, -1, -1)), perturbation)
    with pytest.raises(ValueError, match=r"40 images.*got 39"):
        ProtectedDataset(Subset(other_decoder, range(39)), perturbation, align="index")


def test_align_by_index_needs_rows_per_image(shapes, class_wise):
    with pytest.raises(ValueError, match="sample-wise"):
        ProtectedDataset(shapes, class_wise, align="index")


# --- sizes and channels --------------------------------------------------------------------------


def test_resize_is_replayed(varying_folder, fit):
    perturbation = fit(varying_folder, image_size=(6, 5))
    assert perturbation.config["preprocessing"] == {"fit": [6, 5]}
    protected = ProtectedDataset(varying_folder, perturbation)
    for index in range(4):
        clean = protected.clean(index)[0]
        assert clean.size == (5, 6)
        expected = added(np.asarray(clean), perturbation.rows[index])
        np.testing.assert_array_equal(array(protected[index]), expected)
    assert protected.to_tensors()[0].shape == (4, 3, 6, 5)
    assert "<img" in protected._repr_html_()


def test_grey_images_stay_grey(grey, fit):
    perturbation = fit(grey)
    assert perturbation.rows.shape == (12, 1, 8, 8)
    protected = ProtectedDataset(grey, perturbation)
    assert protected[2][0].mode == "L"
    np.testing.assert_array_equal(array(protected[2]), added(grey.data[2], perturbation.rows[2]))


def test_grey_images_read_again_in_colour_are_aligned(grey, fit, tmp_path):
    perturbation = fit(grey)
    clean = ProtectedDataset(grey, perturbation, fraction=0).export(tmp_path / "clean")
    again = ProtectedDataset(ImageFolder(clean), perturbation)
    original = ProtectedDataset(grey, perturbation)
    for place, (path, _) in enumerate(again.base.samples):
        assert again[place][0].mode == "RGB"
        expected = np.asarray(original[int(Path(path).stem)][0].convert("RGB"))
        np.testing.assert_array_equal(array(again[place]), expected)


def test_grey_images_among_colour_ones_become_colour(tmp_path, fit):
    rng = np.random.default_rng(0)
    for index, shape in enumerate([(8, 8), (8, 8, 3), (8, 8)]):
        (tmp_path / "images" / "class").mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, shape, dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / "class" / f"{index}.png")
    dataset = ImageFolder(tmp_path / "images", loader=load)
    perturbation = fit(dataset)
    protected = ProtectedDataset(dataset, perturbation, fraction=0.7)
    assert len(chosen(protected)) == 2
    for index in range(3):
        expected = np.asarray(dataset[index][0].convert("RGB"))
        np.testing.assert_array_equal(array(protected.clean(index)), expected)
        if index in chosen(protected):
            expected = added(expected, perturbation.rows[index])
        np.testing.assert_array_equal(array(protected[index]), expected)
    assert protected.to_tensors()[0].shape == (3, 3, 8, 8)
    assert "<img" in protected._repr_html_()
    exported = ImageFolder(protected.export(tmp_path / "out"))
    np.testing.assert_array_equal(array(exported[0]), array(protected[0]))


# --- export --------------------------------------------------------------------------------------


def assert_exported(folder, protected):
    """Every image and label of the dataset is in the folder, and nothing else."""
    read = ImageFolder(folder, allow_empty=True)
    seen = set()
    for place, (path, label) in enumerate(read.samples):
        index = int(Path(path).stem)
        image, expected_label = protected[index]
        np.testing.assert_array_equal(array(read[place]), np.asarray(image.convert("RGB")))
        assert label == expected_label
        seen.add(index)
    assert seen == set(range(len(protected))) and len(read) == len(seen)
    return read


@pytest.mark.parametrize("format", ["png", "webp"])
def test_export_is_read_back_without_loss(protected, tmp_path, format):
    folder = protected.export(tmp_path / "deep" / "out", format)
    read = assert_exported(folder, protected)
    assert read.classes == protected.classes
    assert {Path(path).suffix for path, _ in read.samples} == {f".{format}"}
    described = json.loads((folder / "unlearnable.json").read_text())
    assert described["images"] == 40 and described["format_version"] == 2
    assert described["perturbation_id"] == Seal(protected.perturbation).perturbation_id
    assert [p.name for p in folder.parent.iterdir()] == ["out"]


def test_export_leaves_transforms_out(perturbation, protected, tmp_path):
    dataset = Shapes(size=40, transform=ToTensor(), target_transform=str)
    assert_exported(ProtectedDataset(dataset, perturbation).export(tmp_path / "out"), protected)


def test_export_of_grey_images(grey, fit, tmp_path):
    protected = ProtectedDataset(grey, fit(grey))
    folder = protected.export(tmp_path / "out")
    assert_exported(folder, protected)
    assert {load(p).mode for p in folder.rglob("*.png")} == {"L"}


def test_export_without_names_has_a_folder_per_class_index(tmp_path, fit):
    data = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 3), dtype=np.uint8)
    dataset = Arrays(data, range(12))
    protected = ProtectedDataset(dataset, fit(dataset))
    assert assert_exported(protected.export(tmp_path / "out"), protected).classes[:2] == [
        "00",
        "01",
    ]


UNSAFE = [
    ["T-shirt/top", "..", "Ankle boot"],
    ["b", "a", "c"],
    ["/etc", "../../outside", "C:\\windows"],
    ["same", "same", "same"],
    ["Cat", "cat"],  # one folder on some systems
    ["", " ", "."],
    [f"n{index}" for index in range(12)],  # n10 sorts before n2
    [".hidden", "é", "日本"],
]


@pytest.mark.parametrize("classes", UNSAFE)
def test_class_names_that_are_no_folder_names_keep_their_order(classes, fit, tmp_path):
    count = len(classes)
    data = np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    dataset = Arrays(data, range(count), classes)
    protected = ProtectedDataset(dataset, fit(dataset))
    with pytest.warns(UserWarning, match="class folders could not be named like their classes"):
        folder = protected.export(tmp_path / "place" / "out")
    assert_exported(folder, protected)
    assert len([p for p in folder.iterdir() if p.is_dir()]) == count
    assert json.loads((folder / "unlearnable.json").read_text())["classes"] == classes
    assert [p.relative_to(tmp_path).parts[:2] for p in tmp_path.rglob("*.png")] == [
        ("place", "out")
    ] * count


def test_export_keeps_the_place_of_a_class_without_images(shapes, perturbation, tmp_path):
    part = [index for index, label in enumerate(shapes.targets) if label != 4]
    protected = ProtectedDataset(Subset(shapes, part), perturbation)
    name = shapes.classes[4]
    with pytest.warns(UserWarning, match=rf"no images of 1 of 10 .*\({name}\)"):
        folder = protected.export(tmp_path / "out")
    read = ImageFolder(folder, allow_empty=True)
    assert read.classes == shapes.classes and set(read.targets) == set(range(10)) - {4}
    assert [label for _, label in read] == read.targets and not list((folder / name).iterdir())
    assert verify(folder, perturbation, progress=False).whole
    with pytest.raises(FileNotFoundError, match=name):
        ImageFolder(folder)


def test_export_warns_of_nothing_else(protected, fit, tmp_path):
    whole = Shapes(size=48)
    assert set(whole.targets) == set(range(10)) > set(protected.targets)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ProtectedDataset(whole, fit(whole)).export(tmp_path / "out")
        protected.export(tmp_path / "arrays", "npz")  # which has the names of all


@pytest.mark.parametrize("format", ["jpg", "jpeg", "JPEG"])
def test_jpeg_is_refused(protected, tmp_path, format):
    with pytest.raises(ValueError, match=r"lossless.*JPEG also changes"):
        protected.export(tmp_path / "out", format)
    assert not (tmp_path / "out").exists()


def test_unknown_format_is_refused(protected, tmp_path):
    with pytest.raises(
        ValueError, match=r"png, webdataset, webp, or jpeg with a quality, got 'bmp'"
    ):
        protected.export(tmp_path / "out", "bmp")


def test_existing_folder_is_refused(protected, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="force=True"):
        protected.export(tmp_path)
    assert files(tmp_path) == {"mine.txt": b"mine"}
    protected.export(tmp_path / "out")
    before = files(tmp_path / "out")
    with pytest.raises(FileExistsError, match="force=True"):
        protected.export(tmp_path / "out")
    assert files(tmp_path / "out") == before


def test_empty_folder_is_taken(protected, tmp_path):
    (tmp_path / "out").mkdir()
    assert_exported(protected.export(tmp_path / "out"), protected)


def test_file_is_never_replaced(protected, tmp_path):
    (tmp_path / "out").write_text("mine")
    for force in (False, True):
        with pytest.raises((FileExistsError, NotADirectoryError)):
            protected.export(tmp_path / "out", force=force)
    assert files(tmp_path) == {"out": b"mine"}


def test_force_into_a_foreign_folder_keeps_its_files(protected, tmp_path):
    out = tmp_path / "out"
    (out / "arrow").mkdir(parents=True)
    (out / "mine.txt").write_text("mine")
    (out / "arrow" / "notes.txt").write_text("notes")
    protected.export(out, force=True)
    assert_exported(out, protected)
    assert (out / "mine.txt").read_text() == "mine"
    assert (out / "arrow" / "notes.txt").read_text() == "notes"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("name", ["unlearnable.json", "arrow", "arrow/{}.png"])
def test_force_never_writes_over_a_foreign_file(protected, shapes, tmp_path, name):
    mine = tmp_path / "out" / name.format(f"{shapes.targets.index(0):02d}")
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    before = files(tmp_path)
    with pytest.raises(FileExistsError, match="never overwritten"):
        protected.export(tmp_path / "out", force=True)
    assert files(tmp_path) == before


def test_force_over_an_earlier_export_replaces_it(shapes, perturbation, protected, tmp_path):
    protected.export(tmp_path / "out")
    part = ProtectedDataset(Subset(shapes, range(30)), perturbation)
    part.export(tmp_path / "out", "webp", force=True)
    assert_exported(tmp_path / "out", part)
    assert not list((tmp_path / "out").rglob("*.png"))
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("place", [".", "sub", "class0", "..", "../varying/../varying"])
def test_never_into_the_images_own_folder(varying_folder, fit, force, place):
    root = Path(varying_folder.root)
    before = files(root.parent)
    perturbation = fit(varying_folder, image_size=8)
    for dataset in (varying_folder, Subset(varying_folder, [0, 1])):
        with pytest.raises(ValueError, match="never overwritten"):
            ProtectedDataset(dataset, perturbation).export(root / place, force=force)
    assert files(root.parent) == before


def test_never_into_the_images_own_folder_through_a_link(varying_folder, fit, tmp_path):
    (tmp_path / "link").symlink_to(varying_folder.root)
    protected = ProtectedDataset(varying_folder, fit(varying_folder, image_size=8))
    with pytest.raises(ValueError, match="never overwritten"):
        protected.export(tmp_path / "link" / "new")


def fail_at(number, function):
    """The function, with a full disk at its call of this number."""
    calls = []

    def call(*args, **kwargs):
        calls.append(args)
        if len(calls) == number:
            raise OSError(errno.ENOSPC, "No space left on device")
        return function(*args, **kwargs)

    return call


FAILURES = {
    "image": (Encoding, "save", 5),
    "description": (Path, "replace", 1),
    "first rename": (Path, "rename", 1),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_failure_midway_leaves_nothing(protected, tmp_path, monkeypatch, failure):
    owner, name, number = FAILURES[failure]
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, fail_at(number, getattr(owner, name)))
        with pytest.raises(OSError, match="No space left"):
            protected.export(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("failure", [*FAILURES, "second rename"])
def test_failure_midway_keeps_an_earlier_export(protected, tmp_path, monkeypatch, failure):
    protected.export(tmp_path / "out")
    before = files(tmp_path)
    owner, name, number = FAILURES.get(failure, (Path, "rename", 2))
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, fail_at(number, getattr(owner, name)))
        with pytest.raises(OSError, match="No space left"):
            protected.export(tmp_path / "out", "webp", force=True)
    assert files(tmp_path) == before and [p.name for p in tmp_path.iterdir()] == ["out"]


def test_unknown_image_midway_leaves_nothing(fit, tmp_path):
    fitted = Shapes(size=100)
    peeked = set(np.linspace(0, 99, 64).astype(int).tolist())
    place = max(set(range(100)) - peeked)
    changed = Arrays(fitted.data.copy(), fitted.targets, fitted.classes)
    changed.data[place] ^= 255
    protected = ProtectedDataset(changed, fit(fitted))
    with pytest.raises(UnknownImageError):
        protected.export(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


# --- numbers of any type -------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [np.int64, np.int8, np.array, torch.tensor])
def test_a_seed_of_any_integer_type_chooses_the_same_images(kind, shapes, perturbation):
    for seed in (5, -5):
        expected = ProtectedDataset(shapes, perturbation, fraction=0.5, seed=seed)
        found = ProtectedDataset(shapes, perturbation, fraction=np.float32(0.5), seed=kind(seed))
        assert (found.chosen == expected.chosen).all() and found.chosen.sum() == 20
        assert type(found.seed) is int and type(found.fraction) is float


def test_a_seed_of_any_size_chooses_a_share(shapes, perturbation):
    chosen = {}
    for seed in (0, -1, 2**63 - 1, -(2**63), 2**63, 2**64, -(2**64)):
        chosen[seed] = ProtectedDataset(shapes, perturbation, fraction=0.5, seed=seed).chosen
        assert chosen[seed].sum() == 20
    assert len({choice.tobytes() for choice in chosen.values()}) == len(chosen)
    for seed in (-1, -(2**63)):  # seeds of 64 bits choose what they always chose
        salt = seed.to_bytes(8, "little", signed=True)
        keys = [image_key(pixels_of(image)).to_bytes(8, "little") for image, _ in shapes]
        ranks = [hashlib.blake2b(key, digest_size=8, key=salt).digest()[::-1] for key in keys]
        np.testing.assert_array_equal(chosen[seed], [rank in sorted(ranks)[:20] for rank in ranks])


@pytest.mark.parametrize("seed", [True, np.True_, 1.5, 1.0, "1", None, np.float64(1)])
def test_seeds_that_are_no_integers(seed, shapes, perturbation):
    with pytest.raises(ValueError, match="expected seed to be an integer, got"):
        ProtectedDataset(shapes, perturbation, fraction=0.5, seed=seed)


@pytest.mark.parametrize("fraction", [0.25, np.float64(0.25), torch.tensor(0.25), np.array(0.25)])
def test_fractions_of_any_type(fraction, shapes, perturbation):
    whole = ProtectedDataset(shapes, perturbation)
    parts = [ProtectedDataset(shapes, perturbation, fraction=fraction)]
    parts.append(whole.with_fraction(fraction))
    for part in parts:
        assert part.chosen.sum() == 10 and part.fraction == 0.25 and type(part.fraction) is float
    whole.with_fraction(np.int64(1)).change(np.int64(3))


@pytest.mark.parametrize("fraction", [True, None, "0.5", float("nan"), 1.5, -0.1])
def test_fractions_that_are_refused(fraction, shapes, perturbation):
    for make in (
        lambda: ProtectedDataset(shapes, perturbation, fraction=fraction),
        lambda: ProtectedDataset(shapes, perturbation).with_fraction(fraction),
    ):
        with pytest.raises(ValueError, match=r"expected a fraction|expected fraction to be"):
            make()


@pytest.mark.parametrize("count", [0, True, 1.5, None])
def test_numbers_of_images_to_compare_that_are_refused(count, protected):
    with pytest.raises(ValueError, match="images to be an integer >= 1"):
        protected.change(count)


def test_an_export_of_numpy_numbers_says_what_that_of_python_numbers_says(
    shapes, perturbation, tmp_path
):
    numbers = {"fraction": 0.5, "seed": 7}
    scalars = {"fraction": np.float64(0.5), "seed": np.int64(7)}
    for name, given in (("python", numbers), ("numpy", scalars)):
        ProtectedDataset(shapes, perturbation, **given).export(tmp_path / name, progress=False)
    assert files(tmp_path / "python") == files(tmp_path / "numpy")


# --- distortion ----------------------------------------------------------------------------------


def ssim_of_whole_images(one, other):
    """As published, in float64 over both images at once."""
    window = min(7, *one.shape[1:])
    mean = lambda values: torch.nn.functional.avg_pool2d(values, window, stride=1)
    a, b = torch.from_numpy(one).double(), torch.from_numpy(other).double()
    mean_a, mean_b = mean(a), mean(b)
    var_a, var_b = mean(a * a) - mean_a**2, mean(b * b) - mean_b**2
    covariance = mean(a * b) - mean_a * mean_b
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    similar = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    return float((similar / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))).mean())


SHAPES = [
    (3, 32, 32), (1, 5, 9), (3, 1, 1), (1, 3, 700), (3, 7, 7), (3, 8, 4001), (3, 501, 333),
    (1, 2000, 131), (3, 13, 6007), (3, 15, 6007),
]  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_strips_give_what_the_image_at_once_gives(shape):
    rng = np.random.default_rng(0)
    clean = rng.integers(0, 256, shape, dtype=np.uint8)
    change = rng.integers(-9, 10, shape) * (rng.random(shape) < 0.3)
    protected = np.clip(clean + change, 0, 255).astype(np.uint8)
    found = compare(clean, protected)
    change = protected.astype(np.int64) - clean
    assert found.ssim == pytest.approx(ssim_of_whole_images(clean, protected), rel=1e-9)
    assert found.linf == np.abs(change).max() and found.l0 == change.any(axis=0).sum()
    assert found.l2 == np.sqrt((change**2).sum()) / 255
    assert found.mean == np.abs(change).mean() and found.share == change.any(axis=0).mean()
    if change.any():
        assert found.psnr == pytest.approx(10 * np.log10(255**2 / (change**2).mean()), rel=1e-12)


def test_extreme_images_do_not_overflow():
    black, white = np.zeros((3, 40, 40), np.uint8), np.full((3, 40, 40), 255, np.uint8)
    found = compare(black, white)
    assert found.ssim == pytest.approx(ssim_of_whole_images(black, white), rel=1e-9)
    assert found.linf == 255 and found.psnr == 0 and compare(white, white).ssim == 1


def test_memory_of_a_comparison_does_not_grow_with_the_image():
    peaks = []
    for height in (600, 2400):
        image = np.random.default_rng(0).integers(0, 256, (3, height, 500), dtype=np.uint8)
        tracemalloc.start()
        compare(image, image)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0] < 12 << 20


def test_pairs_of_pixels_are_read_once(shapes, perturbation):
    class Counting(Arrays):
        reads = 0

        def __getitem__(self, index):
            type(self).reads += 1
            return super().__getitem__(index)

    dataset = Counting(shapes.data, shapes.targets, shapes.classes)
    protected = ProtectedDataset(dataset, perturbation)
    Counting.reads = 0
    pairs = list(protected.pixel_pairs([5, 3]))
    assert Counting.reads == 2
    np.testing.assert_array_equal(pairs[1][0], shapes.data[3].transpose(2, 0, 1))
    np.testing.assert_array_equal(pairs[1][1].transpose(1, 2, 0), array(protected[3]))
