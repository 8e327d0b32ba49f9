"""Hugging Face datasets, in and out."""

import copy
import json
import pickle
import sys

import datasets
import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch.utils.data import ConcatDataset, DataLoader, Subset
from torchvision.transforms import ToTensor

import unlearnable as ue
from unlearnable import ProtectedDataset, from_hf
from unlearnable.data.cache import read_images
from unlearnable.data.raw import RawDataset
from unlearnable.datasets import Shapes
from unlearnable.protected.export import huggingface
from unlearnable.protected.manifest import MARKER

COUNT = 40
PARQUET = "data/train-00000-of-00001.parquet"


def make(image="img", label="label", classes=Shapes.classes, **columns):
    features = datasets.Features(
        {image: datasets.Image(), label: datasets.ClassLabel(names=classes)}
    )
    shapes = Shapes(size=COUNT)
    pairs = [shapes[index] for index in range(COUNT)]
    found = {image: [pair[0] for pair in pairs], label: [pair[1] for pair in pairs]}
    made = datasets.Dataset.from_dict(found, features=features)
    for name, values in columns.items():
        made = made.add_column(name, values)
    return made


@pytest.fixture(scope="module")
def hf():
    return make()


@pytest.fixture(scope="module")
def protected(shapes, perturbation):
    return ProtectedDataset(shapes, perturbation)


def pixels(image):
    return np.asarray(image.convert("RGB"))


# --- in ------------------------------------------------------------------------------------------


def test_same_images_have_the_same_keys_labels_and_classes(hf, shapes):
    mine, theirs = read_images(hf), read_images(shapes)
    assert mine.digest == theirs.digest and mine.classes == theirs.classes == Shapes.classes
    assert RawDataset(hf).stated_labels() == shapes.targets


def test_fitted_on_one_and_applied_to_the_other(hf, shapes, perturbation, protected, fit):
    np.testing.assert_array_equal(fit(hf).rows, perturbation.rows)
    wrapped = ProtectedDataset(hf, perturbation)
    assert wrapped.classes == Shapes.classes and wrapped.targets == shapes.targets
    for index in (0, 7, -1):
        image, label = wrapped[index]
        np.testing.assert_array_equal(pixels(image), pixels(protected[index][0]))
        assert label == protected[index][1]


def places(hf, perturbation):
    """Ways to read images 5, 2 and 9 of a protected dataset."""
    order = [5, 2, 9]
    return {
        "select": ProtectedDataset(hf.select(order), perturbation),
        "Subset below": ProtectedDataset(Subset(hf, order), perturbation),
        "Subset above": Subset(ProtectedDataset(hf, perturbation), order),
        "concatenated": ProtectedDataset(
            ConcatDataset([hf.select([5]), Subset(hf, [2, 9])]), perturbation
        ),
        "from_hf below": ProtectedDataset(Subset(from_hf(hf), order), perturbation),
    }


@pytest.mark.parametrize(
    "way", ["select", "Subset below", "Subset above", "concatenated", "from_hf below"]
)
def test_batches_of_a_loader_are_protected(way, hf, perturbation, protected):
    dataset = places(hf, perturbation)[way]
    (batch,) = DataLoader(dataset, batch_size=3, collate_fn=list)
    for (image, label), index in zip(batch, [5, 2, 9], strict=True):
        np.testing.assert_array_equal(pixels(image), pixels(protected[index][0]))
        assert (pixels(image) != pixels(protected.clean(index)[0])).any()
        assert label == protected[index][1]


def test_a_batch_never_comes_from_the_dataset_below(hf, perturbation, protected, monkeypatch):
    """The dataset has ``__getitems__`` of its own, which a loader must not find."""

    def trap(self, indices):
        raise AssertionError("clean images were read as a batch")

    monkeypatch.setattr(datasets.Dataset, "__getitems__", trap)
    wrapped = ProtectedDataset(hf, perturbation)
    assert wrapped.__getitems__([1, 4])[1][1] == protected[4][1]
    for dataset in places(hf, perturbation).values():
        next(iter(DataLoader(dataset, batch_size=3, collate_fn=list)))
    next(iter(DataLoader(from_hf(hf), batch_size=3, collate_fn=list)))


def test_pickled_for_workers(hf, perturbation, protected):
    again = pickle.loads(pickle.dumps(ProtectedDataset(hf, perturbation)))
    np.testing.assert_array_equal(pixels(again[3][0]), pixels(protected[3][0]))
    assert copy.copy(from_hf(hf))[3][1] == protected[3][1]


def test_an_index_past_the_end_is_an_error(hf):
    with pytest.raises(IndexError):
        ProtectedDataset(hf, ue.RandomNoise().fit(hf, progress=False).perturbation_)[COUNT]
    assert len(RawDataset(from_hf(hf))) == COUNT


@pytest.mark.parametrize(
    ("image", "label"), [("image", "labels"), ("img", "label"), ("picture", "kind")]
)
def test_columns_are_found_by_type(image, label):
    assert from_hf(make(image, label)).extra_repr() == f"Columns: {image}, {label}"


def test_columns_are_found_by_name(tensors):
    plain = datasets.Dataset.from_dict(
        {"img": make()["img"][:4], "labels": [0, 1, 0, 1], "width": [32] * 4},
        features=datasets.Features(
            {
                "img": datasets.Image(),
                "labels": datasets.Value("int32"),
                "width": datasets.Value("int32"),
            }
        ),
    )
    found = from_hf(plain)
    assert found.extra_repr() == "Columns: img, labels"
    assert found.classes is None and found.class_to_idx is None and found.targets == [0, 1, 0, 1]


def test_columns_that_are_not_clear_are_named():
    several = make(label="fine_label").add_column("label", [0] * COUNT)
    with pytest.raises(
        ValueError,
        match=r"one column of labels, got several: fine_label, label; .*from_hf\(dataset, label=",
    ):
        RawDataset(several)
    assert from_hf(several, label="fine_label").classes == Shapes.classes
    assert from_hf(several, label="label").targets == [0] * COUNT
    mask = make(image="image").select_columns(["image"])
    masked = datasets.concatenate_datasets([make(), mask], axis=1)
    with pytest.raises(ValueError, match="one column of images, got several: img, image"):
        RawDataset(masked)
    with pytest.raises(ValueError, match="one column of labels, got none among img, x"):
        from_hf(make(label="x").cast_column("x", datasets.Value("int64")))
    with pytest.raises(
        ValueError, match="expected a column 'picture', got a dataset of the columns img, label"
    ):
        from_hf(make(), image="picture")


def test_cifar100_of_the_hub_has_the_classes_of_torchvisions(shapes):
    lasting = ue.Perturbation.from_pretrained("cifar100-lasting")
    names = ["cra" if name == "crab" else name for name in lasting.config["classes"]]
    features = datasets.Features(
        img=datasets.Image(),
        fine_label=datasets.ClassLabel(names=names),
        coarse_label=datasets.ClassLabel(num_classes=20),
    )
    number = names.index("cra")
    row = {"img": shapes[0][0].resize((32, 32)), "fine_label": number, "coarse_label": 0}
    images = from_hf(datasets.Dataset.from_list([row], features=features), label="fine_label")
    usual = ProtectedDataset([(row["img"], number)], lasting)
    assert np.array_equal(ProtectedDataset(images, lasting)[0][0], usual[0][0])


def test_labels_and_images_of_other_types_are_refused(hf):
    strings = hf.cast_column("label", datasets.Value("string"))
    with pytest.raises(ValueError, match="class_encode_column"):
        RawDataset(strings)
    encoded = hf.cast_column("img", datasets.Image(decode=False))
    with pytest.raises(ValueError, match="cast_column"):
        RawDataset(encoded)
    unlabelled = datasets.Dataset.from_dict(
        {"img": hf["img"][:2], "label": [0, -1]}, features=hf.features
    )
    with pytest.raises(ValueError, match="unlabelled"):
        read_images(unlabelled)
    numbers = datasets.Dataset.from_dict({"image": [[[0, 1], [2, 3]]], "label": [0]})
    with pytest.raises(TypeError, match="expected a PIL image"):
        read_images(numbers)


def test_iterable_and_several_datasets_are_refused(hf):
    both = datasets.DatasetDict(train=hf, test=hf)
    with pytest.raises(TypeError, match=r'pass one of them: dataset\["train"\], dataset\["test"\]'):
        RawDataset(both)
    streamed = hf.to_iterable_dataset()
    for found in (streamed, datasets.IterableDatasetDict(train=streamed)):
        with pytest.raises(TypeError, match=r"IterableDataset|dataset\[.train.\]"):
            ue.RandomNoise().fit(found)
        with pytest.raises(TypeError):
            from_hf(found)
    with pytest.raises(TypeError, match="got a Shapes"):
        from_hf(Shapes(size=10))


# --- transforms ----------------------------------------------------------------------------------


def to_tensors(batch):
    return {
        "img": [ToTensor()(image) for image in batch["img"]],
        "label": [-x for x in batch["label"]],
    }


def test_own_transform_is_applied_after_the_perturbation(hf, perturbation, protected):
    transformed = hf.with_transform(to_tensors)
    wrapped = ProtectedDataset(transformed, perturbation)
    image, label = wrapped[3]
    assert torch.equal(image, ToTensor()(protected[3][0])) and label == -protected[3][1]
    assert torch.equal(wrapped.clean(3)[0], transformed[3]["img"])
    assert wrapped.targets == protected.targets
    assert torch.equal(transformed[3]["img"], ToTensor()(hf[3]["img"])), "it was not changed"
    np.testing.assert_array_equal(wrapped.to_tensors()[0], protected.to_tensors()[0])


def test_own_transform_of_the_image_column_alone(hf, perturbation, protected):
    transformed = hf.with_transform(
        lambda batch: {"img": [x.size for x in batch["img"]]}, columns=["img"]
    )
    assert from_hf(transformed)[3] == ((32, 32), protected[3][1])
    assert ProtectedDataset(transformed, perturbation)[3] == ((32, 32), protected[3][1])


def test_own_transform_that_needs_or_gives_other_columns_is_refused():
    dataset = make(box=[1] * COUNT)
    needs = dataset.with_transform(lambda batch: {"img": batch["box"], "label": batch["label"]})
    with pytest.raises(
        ValueError, match=r"to need only the columns \['img', 'label'\], got a KeyError: 'box'"
    ):
        from_hf(needs)[0]
    gives = dataset.with_transform(lambda batch: {"pixel_values": batch["img"]})
    with pytest.raises(ValueError, match=r"got \['pixel_values'\]; pass the dataset without it"):
        from_hf(gives)[0]


def test_formats_are_refused(hf):
    with pytest.raises(ValueError, match=r'the format "torch".*with_format\(None\)'):
        RawDataset(hf.with_format("torch"))


def test_transforms_as_in_torchvision(hf, perturbation, protected):
    dataset = from_hf(hf, transform=ToTensor(), target_transform=str)
    assert dataset[3][1] == str(protected[3][1])
    image, label = ProtectedDataset(dataset, perturbation)[3]
    assert torch.equal(image, ToTensor()(protected[3][0])) and label == str(protected[3][1])
    with pytest.raises(ValueError, match="one transform"):
        from_hf(hf.with_transform(to_tensors), transform=ToTensor())


# --- out -----------------------------------------------------------------------------------------


def test_to_hf_dataset(protected, tmp_path):
    made = protected.to_hf_dataset()
    assert made.features["label"].names == Shapes.classes
    made.to_parquet(tmp_path / "made.parquet")
    read = datasets.Dataset.from_parquet(
        str(tmp_path / "made.parquet"), cache_dir=str(tmp_path / "c")
    )
    for found in (made, read):
        assert found.features == made.features
        assert found["label"][:] == protected.targets
        for index in range(COUNT):
            image = found[index]["image"]
            assert image.format == "PNG" and image.mode == "RGB"
            np.testing.assert_array_equal(pixels(image), pixels(protected[index][0]))


def test_to_hf_dataset_of_grey_images_without_class_names(tensors, fit):
    grey = (tensors[0][:, :1], tensors[1])
    protected = ProtectedDataset(grey, fit(grey))
    made = protected.to_hf_dataset()
    assert made.features["label"] == datasets.Value("int64")
    np.testing.assert_array_equal(np.asarray(made[3]["image"]), protected[3][0][0].numpy())


@pytest.mark.parametrize("piece", [1, 20_000, 1 << 28])
def test_parquet_export(protected, tmp_path, monkeypatch, piece):
    monkeypatch.setattr(huggingface, "PIECE_BYTES", piece)
    folder = protected.export(tmp_path / "out", "parquet", progress=False)
    files = sorted(path.name for path in (folder / "data").iterdir())
    assert files[-1] == f"train-{len(files) - 1:05d}-of-{len(files):05d}.parquet"
    assert len(files) == COUNT if piece == 1 else len(files) < COUNT / 4
    read = datasets.load_dataset(str(folder), split="train", cache_dir=str(tmp_path / "cache"))
    assert read.features["label"].names == Shapes.classes
    images = np.stack([pixels(row["image"]) for row in read]).transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(images, protected.to_tensors()[0].numpy())
    assert read["label"][:] == protected.targets
    assert len(protected.to_hf_dataset()) == COUNT


def test_an_exported_folder_has_a_card_that_datasets_agrees_with(shapes, perturbation, tmp_path):
    protected = ProtectedDataset(shapes, perturbation, fraction=0.5)
    folder = protected.export(tmp_path / "out", "parquet", progress=False)
    text = (folder / "README.md").read_text(encoding="utf-8")
    front = yaml.safe_load(text.split("---\n", 2)[1])
    features = protected.to_hf_dataset().features
    assert front["dataset_info"]["features"] == features._to_yaml_list()
    assert front["configs"] == [
        {
            "config_name": "default",
            "data_files": [{"split": "train", "path": "data/train-*.parquet"}],
        }
    ]
    size = (folder / PARQUET).stat().st_size
    assert front["dataset_info"]["download_size"] == size
    assert front["dataset_info"]["splits"][0]["num_examples"] == 40
    assert front["size_categories"] == ["n<1K"] and "license" not in front
    assert front["tags"][2:] == ["RandomNoise", "arxiv:2101.04898"]
    assert "README.md" in json.loads((folder / MARKER).read_text())["files"]
    for fact in (
        "| share protected | 50% |",
        "32x32",
        "JPEG",
        "Not measured.",
        "2101.04898",
        "expected to perform poorly",
    ):
        assert fact in text
    read = datasets.load_dataset(str(folder), split="train", cache_dir=str(tmp_path / "cache"))
    np.testing.assert_array_equal(
        np.stack([pixels(row["image"]) for row in read]).transpose(0, 3, 1, 2),
        protected.to_tensors()[0].numpy(),
    )


def test_only_parquet_has_a_card(protected, tmp_path):
    for format in ("png", "npz", "webdataset"):
        assert not (protected.export(tmp_path / format, format) / "README.md").exists()


def test_class_names_of_any_text_are_read_back(fit, tmp_path):
    names = ["a: b", "no", "'\"\\", "two  spaces ", "\u2028\U0001f600\U000e0001", "x" * 300, "1"]
    data = np.random.default_rng(0).integers(0, 256, (len(names), 8, 8, 3), np.uint8)
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=names)}
    )
    images = [Image.fromarray(pixels) for pixels in data]
    columns = {"image": images, "label": list(range(len(names)))}
    dataset = datasets.Dataset.from_dict(columns, features=features)
    protected = ProtectedDataset(dataset, fit(dataset))
    folder = protected.export(tmp_path / "out", "parquet", progress=False)
    read = datasets.load_dataset(str(folder), split="train", cache_dir=str(tmp_path / "cache"))
    assert from_hf(read).classes == names


def test_images_without_class_names(tensors, fit, tmp_path):
    protected = ProtectedDataset(tensors, fit(tensors))
    folder = protected.export(tmp_path / "out", "parquet", progress=False)
    read = datasets.load_dataset(str(folder), split="train", cache_dir=str(tmp_path / "cache"))
    assert read.features["label"] == datasets.Value("int64")
    assert from_hf(read).targets == protected.targets and from_hf(read).classes is None


def test_a_readme_of_ones_own_stays(protected, shapes, perturbation, tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "README.md").write_text("mine")
    protected.export(folder, "parquet", force=True, progress=False)
    assert (folder / "README.md").read_text() == "mine"
    assert "README.md" not in json.loads((folder / MARKER).read_text())["files"]
    other = protected.export(tmp_path / "other", "parquet", progress=False)
    fewer = ProtectedDataset(Subset(shapes, range(20)), perturbation)
    fewer.export(other, "parquet", force=True, progress=False)
    card = (other / "README.md").read_text(encoding="utf-8")
    assert "| images | 20 |" in card, "an earlier export's card is replaced"


def test_without_the_package(protected, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ImportError, match=r"unlearnable\[hf\]"):
        protected.to_hf_dataset()
    with pytest.raises(ImportError, match=r"unlearnable\[hf\]"):
        protected.export(tmp_path / "out", "parquet")
    assert list(tmp_path.iterdir()) == []
