"""Decoded images in a folder."""

import errno
import json
import multiprocessing
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from PIL import Image
from torch.utils.data import ConcatDataset, Subset
from torchvision.datasets import MNIST, ImageFolder

import unlearnable as ue
from unlearnable.data import cache as store_module
from unlearnable.data.cache import bytes_of_images, read_images
from unlearnable.data.raw import RawDataset
from unlearnable.datasets import Shapes
from unlearnable.io.files import locked


class Mixed:
    """A grey image before the coloured ones."""

    def __len__(self):
        return 6

    def __getitem__(self, index):
        shape = (8, 10) if index == 0 else (8, 10, 3)
        return np.random.default_rng(index).integers(0, 256, shape, dtype=np.uint8), index % 2


def assert_same(a, b):
    assert torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels)
    assert np.array_equal(a.keys, b.keys) and np.array_equal(a.thumbnails, b.thumbnails)
    assert a[4:] == b[4:] and a.digest == b.digest


@pytest.mark.parametrize("dataset", [Shapes(size=20), Mixed()], ids=["shapes", "mixed"])
def test_a_store_holds_what_memory_would(dataset, tmp_path, monkeypatch):
    expected = read_images(dataset)
    assert_same(read_images(dataset, folder=tmp_path / "store"), expected)
    monkeypatch.setattr(store_module, "_write_store", None)  # it is not built twice
    assert_same(read_images(dataset, folder=tmp_path / "store"), expected)


def test_images_are_decoded_by_workers_in_order_and_without_the_global_generator(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(store_module, "_MANY", 1)
    state = torch.get_rng_state()
    found = read_images(Shapes(size=40), folder=tmp_path / "store")
    assert torch.equal(torch.get_rng_state(), state)
    assert_same(found, read_images(Shapes(size=40)))


@pytest.fixture
def forkserver():
    before = multiprocessing.get_start_method()
    multiprocessing.set_start_method("forkserver", force=True)
    yield
    multiprocessing.set_start_method(before, force=True)


@pytest.mark.parametrize("forks", [False, store_module._FORKS])
def test_datasets_that_cannot_be_pickled_are_read_where_processes_are_not_forked(
    forkserver, tmp_path, monkeypatch, forks
):
    monkeypatch.setattr(store_module, "_MANY", 1)
    monkeypatch.setattr(store_module, "_FORKS", forks)
    shapes = Shapes(size=20)

    class Local:
        def __len__(self):
            return len(shapes)

        def __getitem__(self, index):
            return shapes[index]

    found = read_images(Local(), folder=tmp_path / "store")
    assert torch.equal(found.images, read_images(shapes).images)


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="cores cannot be taken away")
def test_no_more_processes_read_images_than_cores_may_be_used():
    code = (
        "import os, warnings; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])\n"
        "from unlearnable.data import cache; cache._MANY, cache._FORKS = 1, True\n"
        "from unlearnable.datasets import Shapes\n"
        "import sys; warnings.simplefilter('error')\n"
        "class Own(list): pass\n"
        "print(len(cache.read_images(Own(Shapes(size=20)), folder=sys.argv[1]).images))"
    )
    with tempfile.TemporaryDirectory() as folder:
        ran = subprocess.run(
            [sys.executable, "-c", code, f"{folder}/store"], capture_output=True, text=True
        )
    assert ran.returncode == 0 and ran.stdout == "20\n", ran.stderr


def test_two_processes_do_not_build_the_same_store(tmp_path):
    found = []

    def build():
        found.append(read_images(Shapes(size=20), folder=tmp_path / "store"))

    (tmp_path / "store").mkdir()
    with locked(tmp_path / "store", wait=True):
        builder = threading.Thread(target=build)
        builder.start()
        builder.join(0.3)
        assert builder.is_alive() and not (tmp_path / "store" / "store.json").exists()
    builder.join(30)
    assert_same(found[0], read_images(Shapes(size=20)))


def test_resized_images_are_stored_resized(tmp_path):
    found = read_images(Shapes(size=8), 16, folder=tmp_path / "store")
    assert found.images.shape == (8, 3, 16, 16)
    assert_same(found, read_images(Shapes(size=8), 16))
    with pytest.raises(ValueError, match="resized to"):
        read_images(Shapes(size=8), folder=tmp_path / "store")


def test_another_datasets_store_is_refused(tmp_path):
    read_images(Shapes(size=40), folder=tmp_path / "store")
    with pytest.raises(ValueError, match="40 images instead of 39"):
        read_images(Subset(Shapes(size=40), range(39)), folder=tmp_path / "store")
    with pytest.raises(ValueError, match="differ"):
        read_images(Shapes(size=40, seed=1), folder=tmp_path / "store")
    relabelled = Shapes(size=40)
    relabelled.targets = [(label + 1) % 10 for label in relabelled.targets]
    with pytest.raises(ValueError, match="labels differ"):
        read_images(relabelled, folder=tmp_path / "store")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "photo.png").write_bytes(b"x")
    with pytest.raises(FileExistsError, match="other files"):
        read_images(Shapes(size=40), folder=tmp_path / "mine")


def test_a_build_that_was_killed_is_begun_anew(tmp_path, monkeypatch):
    folder = tmp_path / "store"
    folder.mkdir()
    for name in (".unlearnable-building", ".images.bin.partial", "index.safetensors"):
        (folder / name).write_bytes(b"half")
    assert_same(read_images(Shapes(size=20), folder=folder), read_images(Shapes(size=20)))
    assert sorted(path.name for path in folder.iterdir()) == [
        "images.bin", "index.safetensors", "store.json",
    ]  # fmt: skip


def change(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def truncate(path):
    os.truncate(path, path.stat().st_size - 1)


def flip(path):
    data = bytearray(path.read_bytes())
    data[0] ^= 1
    path.write_bytes(data)


DAMAGE = {
    "shape": lambda folder: change(folder / "store.json", shape=[20, 3, 32]),
    "shape of words": lambda folder: change(folder / "store.json", shape="many"),
    "digest": lambda folder: change(folder / "store.json", digest="0"),
    "short": lambda folder: truncate(folder / "images.bin"),
    "pixel": lambda folder: flip(folder / "images.bin"),
    "no images": lambda folder: (folder / "images.bin").unlink(),
    "no index": lambda folder: (folder / "index.safetensors").unlink(),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_store_is_not_believed(damage, tmp_path):
    read_images(Shapes(size=20), folder=tmp_path / "store")
    damage(tmp_path / "store")
    with pytest.raises(ue.ArtefactError):
        read_images(Shapes(size=20), folder=tmp_path / "store")


def test_a_full_disk_leaves_nothing_half_written(tmp_path, monkeypatch):
    def full(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(store_module.os, "posix_fallocate", full)
        with pytest.raises(OSError, match="not enough space for 61,440 bytes of images"):
            read_images(Shapes(size=20), folder=tmp_path / "store")
    assert [path.name for path in (tmp_path / "store").iterdir()] == []
    read_images(Shapes(size=20), folder=tmp_path / "store")


def test_the_size_is_judged_by_the_first_image():
    assert bytes_of_images(Shapes(size=20)) == 20 * 3 * 32 * 32
    assert bytes_of_images(Shapes(size=20), 16) == 20 * 3 * 16 * 16


# --- in parallel ---------------------------------------------------------------------------------


@pytest.fixture
def photos(tmp_path):
    """Forty-five photos of two modes whose names are not in the order of their brightness."""
    for index in range(45):
        folder = tmp_path / "photos" / f"class{index % 3}"
        folder.mkdir(parents=True, exist_ok=True)
        shape = (20, 24) if index == 0 else (20, 24, 3)
        pixels = np.random.default_rng(index).integers(0, 256, shape, dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{index:02d}.png")
    return ImageFolder(tmp_path / "photos")


@pytest.mark.parametrize("size", [None, 8])
def test_photos_are_decoded_in_several_threads_and_stay_in_order(
    photos, size, tmp_path, monkeypatch
):
    monkeypatch.setattr(store_module, "_PARALLEL", 3)
    expected = read_images(([chw(path) for path, _ in photos.samples], photos.targets), size)
    threads, open_file = [], PIL.Image.open

    def noted(*arguments):
        threads.append(threading.get_ident())
        time.sleep(0.002)
        return open_file(*arguments)

    monkeypatch.setattr(PIL.Image, "open", noted)
    states = torch.get_rng_state(), random.getstate()
    found = read_images(photos, size)
    assert len(threads) == 45 and len(set(threads)) == 3
    assert torch.equal(torch.get_rng_state(), states[0]) and random.getstate() == states[1]
    assert torch.equal(found.images, expected.images) and found.digest == expected.digest
    assert np.array_equal(found.thumbnails, expected.thumbnails)
    assert_same(read_images(photos, size, folder=tmp_path / "store"), found)


def chw(path):
    with PIL.Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def test_the_first_bad_photo_is_named_whichever_thread_reads_it(photos):
    for index in (7, 30):
        Path(photos.samples[index][0]).write_bytes(b"")
    with pytest.raises(ValueError, match="empty file") as caught:
        read_images(photos)
    assert photos.samples[7][0] in str(caught.value)
    Image.new("RGB", (9, 9)).save(photos.samples[3][0])
    with pytest.raises(ValueError, match="24x20 for image 0 and 9x9 for image 3"):
        read_images(photos)


def test_labels_of_photos_are_read_without_decoding_them(photos, monkeypatch):
    photos.targets = [9] * 45  # items have the labels of samples
    monkeypatch.setattr(PIL.Image, "open", None)
    assert RawDataset(photos).labels.tolist() == [label for _, label in photos.samples]


def test_arrays_are_read_many_at_once(monkeypatch):
    dataset = Subset(Shapes(size=200), range(199, -1, -1))
    expected = read_images([(image, label) for image, label in dataset])
    sizes, batches = [], RawDataset.batches

    def noted(self, indices):
        sizes.append(len(list(indices)))
        return batches(self, indices)

    monkeypatch.setattr(RawDataset, "batches", noted)
    found = read_images(dataset)
    assert sizes == [200]
    assert torch.equal(found.images, expected.images) and torch.equal(found.labels, expected.labels)
    assert np.array_equal(found.keys, expected.keys)
    assert np.array_equal(found.thumbnails, expected.thumbnails)
    resized, one_by_one = read_images(dataset, 16), read_images(list(dataset), 16)
    assert torch.equal(resized.images, one_by_one.images)


def test_arrays_of_grey_and_coloured_images_become_coloured(tmp_path):
    class Grey(MNIST):
        classes = Shapes.classes

        def __init__(self):
            self.data = torch.randint(0, 256, (5, 32, 32), dtype=torch.uint8)
            self.targets = torch.arange(5)
            self.transform = self.target_transform = None

        def __len__(self):
            return 5

    both = ConcatDataset([Grey(), Shapes(size=5)])
    assert RawDataset(both).holds_arrays
    found = read_images(both)
    assert found.images.shape == (10, 3, 32, 32)
    assert torch.equal(found.images[2], both.datasets[0].data[2].expand(3, 32, 32))
    assert_same(read_images(both, folder=tmp_path / "store"), found)
