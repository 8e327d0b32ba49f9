"""What people put between a dataset and their loop: workers, samplers, loaders of other packages.

``unlearnable`` adds rows as integers to uint8 pixels, so each test can add them by hand.
"""

import numpy as np
import pytest
import torch
from torch.utils.data import (
    DataLoader,
    Dataset,
    DistributedSampler,
    RandomSampler,
    Subset,
    WeightedRandomSampler,
    default_collate,
)
from torchvision import tv_tensors
from torchvision.datasets import ImageFolder, wrap_dataset_for_transforms_v2
from torchvision.transforms import PILToTensor, v2

import unlearnable as ue
from unlearnable import ProtectedDataset
from unlearnable.datasets import Shapes

# Frameworks warn about what is theirs; this package may not.
pytestmark = [
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.filterwarnings("error:::unlearnable"),
]
MEAN, STD = torch.tensor([0.4, 0.5, 0.6]), torch.tensor([0.2, 0.25, 0.3])


@pytest.fixture(scope="module")
def by_hand(shapes, perturbation):
    """All protected images, uint8 (N, 3, H, W), added and clipped here."""
    clean = shapes.data.transpose(0, 3, 1, 2).astype(int)
    added = np.clip(clean + np.asarray(perturbation.rows), 0, 255).astype(np.uint8)
    assert (added != clean).any((1, 2, 3)).all()
    return torch.from_numpy(added)


@pytest.fixture
def protected(perturbation):
    return ProtectedDataset(Shapes(size=40, transform=PILToTensor()), perturbation)


def normalized(images):
    return (images / 255 - MEAN[:, None, None]) / STD[:, None, None]


def loaded(loader):
    """All images and labels of an epoch."""
    images, labels = (torch.cat(parts) for parts in zip(*loader, strict=True))
    return images, labels.tolist()


def write_photos(root):
    """20 images in class folders."""
    for index, (image, label) in enumerate(Shapes(size=20)):
        folder = root / str(label)
        folder.mkdir(exist_ok=True)
        image.save(folder / f"{index}.png")


# --- torch ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("context", ["fork", "spawn", "forkserver"])
@pytest.mark.slow
def test_workers_that_stay_give_each_epoch_the_protected_images(context, protected, by_hand):
    loader = DataLoader(
        protected,
        batch_size=16,
        num_workers=2,
        persistent_workers=True,
        multiprocessing_context=context,
    )
    for _ in range(2):
        images, labels = loaded(loader)
        assert torch.equal(images, by_hand) and labels == protected.targets


def test_two_ranks_of_a_distributed_sampler_share_the_protected_images(protected, by_hand):
    epochs = []
    for epoch in range(2):
        order = []
        for rank in range(2):
            sampler = DistributedSampler(protected, num_replicas=2, rank=rank, seed=3)
            sampler.set_epoch(epoch)
            images, labels = loaded(DataLoader(protected, 8, sampler=sampler))
            order += list(sampler)
            assert torch.equal(images, by_hand[list(sampler)])
            assert labels == [protected.targets[index] for index in sampler]
        assert sorted(order) == list(range(40))
        epochs.append(order)
    assert epochs[0] != epochs[1]


class Asked(Shapes):
    """A dataset that has an answer of its own."""

    def get_labels(self):
        return [label % 2 for label in self.targets]


def test_a_sampler_that_asks_for_labels_gets_them(protected, perturbation):
    assert protected.get_labels() == protected.targets == Shapes(size=40).targets
    asked = ProtectedDataset(Asked(size=40), perturbation)
    assert asked.get_labels() == [label % 2 for label in protected.targets]
    part = ProtectedDataset(Subset(Shapes(size=40), range(3, 9)), perturbation)
    assert part.get_labels() == protected.targets[3:9]


def test_samplers_that_repeat_images_give_them_protected(protected, by_hand):
    for sampler in (
        RandomSampler(protected, replacement=True, num_samples=60),
        WeightedRandomSampler(np.arange(40), 60),
    ):
        order = []
        sampler = [order.append(index) or index for index in sampler]
        images, _ = loaded(DataLoader(protected, 16, sampler=sampler))
        assert torch.equal(images, by_hand[order])


# --- torchvision v2 ------------------------------------------------------------------------------


class TVImages(Dataset):
    """Gives ``tv_tensors.Image``, which v2 transforms tell from other tensors."""

    def __init__(self, transform=None):
        self.images, self.transform = Shapes(size=40), transform

    def __len__(self):
        return 40

    def __getitem__(self, index):
        image, label = self.images[index]
        image = tv_tensors.Image(np.asarray(image).transpose(2, 0, 1))
        return image if self.transform is None else self.transform(image), label


def test_tv_tensors_stay_what_they_are(perturbation, by_hand):
    image, label = ProtectedDataset(TVImages(), perturbation)[5]
    assert type(image) is tv_tensors.Image and image.dtype == torch.uint8
    assert torch.equal(image.as_subclass(torch.Tensor), by_hand[5])
    assert label == Shapes(size=40).targets[5]


def test_v2_transforms_get_the_tv_tensor_of_the_protected_image(perturbation, by_hand):
    kinds = []
    steps = v2.Compose(
        [
            v2.Lambda(lambda image: kinds.append(type(image)) or image),
            v2.RandomHorizontalFlip(p=1),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(MEAN.tolist(), STD.tolist()),
        ]
    )
    protected = ProtectedDataset(TVImages(steps), perturbation)
    kinds.clear()
    image, _ = protected[5]
    assert kinds == [tv_tensors.Image]
    torch.testing.assert_close(image.as_subclass(torch.Tensor), normalized(by_hand[5]).flip(-1))


def test_cutmix_of_a_batch_mixes_protected_images(protected, by_hand):
    def mixed(images, labels):
        torch.manual_seed(0)
        return v2.CutMix(num_classes=10)(images, labels)

    loader = DataLoader(protected, 40, collate_fn=lambda pairs: mixed(*default_collate(pairs)))
    images, labels = next(iter(loader))
    expected, expected_labels = mixed(by_hand, torch.tensor(protected.targets))
    assert torch.equal(images, expected) and torch.equal(labels, expected_labels)
    assert not torch.equal(images, by_hand)


def test_a_dataset_that_torchvision_wraps_for_v2(fit, tmp_path):
    write_photos(tmp_path)
    photos = ImageFolder(tmp_path, transform=v2.ToImage())
    perturbation = fit(photos)
    clean = torch.stack([image for image, _ in photos]).int()
    expected = (clean + torch.from_numpy(np.asarray(perturbation.rows))).clip(0, 255)
    protected = ProtectedDataset(wrap_dataset_for_transforms_v2(photos), perturbation)
    assert {type(image) for image, _ in protected} == {tv_tensors.Image}
    assert torch.equal(torch.stack([image for image, _ in protected]).int(), expected)


# --- timm ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("use_prefetcher", [False, True])
@pytest.mark.parametrize("workers", [0, 2])
def test_timm_sets_the_transform_of_the_protected_dataset(
    workers, use_prefetcher, perturbation, by_hand
):
    from timm.data import create_loader

    protected = ProtectedDataset(Shapes(size=40), perturbation)
    loader = create_loader(
        protected,
        input_size=(3, 32, 32),
        batch_size=16,
        crop_pct=1.0,
        mean=MEAN.tolist(),
        std=STD.tolist(),
        num_workers=workers,
        use_prefetcher=use_prefetcher,
        device=torch.device("cpu"),
    )
    assert protected.transform is not None
    images, labels = loaded(loader)
    torch.testing.assert_close(images, normalized(by_hand))
    assert labels == protected.targets


def test_timms_own_dataset(fit, tmp_path):
    from timm.data import create_dataset, create_loader

    write_photos(tmp_path)
    dataset = create_dataset("", root=str(tmp_path))
    clean = torch.stack([PILToTensor()(image) for image, _ in dataset]).int()
    labels = [label for _, label in dataset]
    perturbation = fit(dataset)
    expected = (clean + torch.from_numpy(np.asarray(perturbation.rows))).clip(0, 255)
    loader = create_loader(
        ProtectedDataset(dataset, perturbation),
        input_size=(3, 32, 32),
        batch_size=10,
        crop_pct=1.0,
        mean=MEAN.tolist(),
        std=STD.tolist(),
        num_workers=0,
        device=torch.device("cpu"),
    )
    images, found = loaded(loader)
    torch.testing.assert_close(images, normalized(expected))
    assert found == labels


# --- accelerate ----------------------------------------------------------------------------------


@pytest.mark.parametrize("split_batches", [False, True])
def test_two_processes_of_accelerate_share_the_protected_images(split_batches, protected, by_hand):
    from accelerate.data_loader import prepare_data_loader

    parts = []
    for rank in range(2):
        loader = prepare_data_loader(
            DataLoader(protected, 10),
            num_processes=2,
            process_index=rank,
            split_batches=split_batches,
            put_on_device=False,
        )
        parts.append(loaded(loader))
    size = 5 if split_batches else 10
    for rank, (images, labels) in enumerate(parts):
        mine = [index for index in range(40) if index // size % 2 == rank]
        assert torch.equal(images, by_hand[mine])
        assert labels == [protected.targets[index] for index in mine]


# --- Hugging Face --------------------------------------------------------------------------------


@pytest.fixture
def hf(shapes):
    import datasets

    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=shapes.classes)}
    )
    columns = {"image": [image for image, _ in shapes], "label": shapes.targets}
    return datasets.Dataset.from_dict(columns, features=features)


def test_map_and_filter_of_a_protected_hugging_face_dataset(hf, perturbation, by_hand):
    made = ProtectedDataset(hf, perturbation).to_hf_dataset()
    made = made.filter(lambda row: row["label"] != 3)
    made = made.map(lambda row: {"mean": float(np.asarray(row["image"]).mean())})
    kept = [index for index, label in enumerate(hf["label"]) if label != 3]
    assert 0 < len(kept) < 40
    assert made["mean"] == pytest.approx(by_hand[kept].float().mean((1, 2, 3)).tolist())


def pixel_values(batch):
    images = [PILToTensor()(image.convert("RGB")) for image in batch["image"]]
    return {"pixel_values": images, "labels": batch["label"]}


def test_with_transform_after_the_protection(hf, perturbation, by_hand):
    made = ProtectedDataset(hf, perturbation).to_hf_dataset().with_transform(pixel_values)
    rows = next(iter(DataLoader(made, 40, num_workers=1)))
    assert torch.equal(rows["pixel_values"], by_hand)
    assert rows["labels"].tolist() == hf["label"]


@pytest.mark.parametrize("said", [False, True])
def test_with_transform_before_the_protection(said, hf, perturbation, by_hand):
    rows = hf.with_transform(pixel_values)
    if said:
        rows = ue.from_items(rows, image="image", label="label")
    protected = ProtectedDataset(rows, perturbation)
    assert sorted(protected[0]) == ["labels", "pixel_values"]
    assert protected.classes == Shapes.classes
    batch = next(iter(DataLoader(protected, 40, num_workers=1)))
    assert torch.equal(batch["pixel_values"], by_hand)
    assert batch["labels"].tolist() == hf["label"] == protected.targets


def test_with_transform_that_adds_columns_and_keeps_the_image(hf, perturbation, by_hand):
    def add(batch):
        return {**batch, **pixel_values(batch)}

    rows = hf.with_transform(add)
    protected = ProtectedDataset(rows, perturbation)
    assert list(protected[0]) == list(rows[0]) == ["image", "label", "pixel_values", "labels"]
    for index in (0, 7):
        row = protected[index]
        assert torch.equal(row["pixel_values"], by_hand[index])
        assert torch.equal(PILToTensor()(row["image"]), by_hand[index])
    batch = next(iter(DataLoader(protected, 40, collate_fn=lambda rows: rows)))
    assert [row["labels"] for row in batch] == hf["label"] == protected.targets


def test_a_random_with_transform_leaves_the_random_state_as_it_was(hf, perturbation):
    rows = hf.with_transform(lambda batch: {"pixels": [torch.rand(3) for _ in batch["image"]]})
    torch.manual_seed(0)
    before = torch.get_rng_state()
    ProtectedDataset(rows, perturbation)
    assert torch.equal(torch.get_rng_state(), before)


# --- webdataset ----------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 2])
def test_an_export_is_read_as_shards(workers, perturbation, by_hand, tmp_path, monkeypatch):
    import webdataset as wds

    from unlearnable.protected.export import image_files

    monkeypatch.setattr(image_files, "SHARD_BYTES", 40_000)
    protected = ProtectedDataset(Shapes(size=40), perturbation)
    folder = protected.export(tmp_path / "shards", "webdataset", progress=False)
    files = sorted(map(str, folder.glob("*.tar")))
    assert len(files) >= 2  # one for each worker
    read = wds.WebDataset(files, shardshuffle=True, seed=0).shuffle(20).decode("pil")
    read = read.to_tuple("__key__", "png", "cls").map_tuple(int, PILToTensor(), int)
    loader = wds.WebLoader(read, batch_size=8, num_workers=workers)
    order, images, labels = (torch.cat(parts) for parts in zip(*loader, strict=True))
    assert sorted(order.tolist()) == list(range(40)) and order.tolist() != list(range(40))
    assert torch.equal(images, by_hand[order])
    assert labels.tolist() == [protected.targets[index] for index in order]
