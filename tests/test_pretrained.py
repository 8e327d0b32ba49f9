"""The perturbations that are part of the package."""

import json
import socket
import zlib
from pathlib import Path

import numpy as np
import pytest

import unlearnable as ue
from unlearnable.hub.catalogue import FILE

ENTRIES = ue.list_pretrained()
SHIPPED = [entry for entry in ENTRIES if entry.repo is None and entry.surrogate is None]
COMPUTED = [entry for entry in ENTRIES if entry.surrogate is not None]


class Like:
    """Noise in the shape of the images of an entry, with their classes."""

    def __init__(self, entry):
        self.classes = json.loads((entry.folder / "config.json").read_text())["classes"]

    def __len__(self):
        return 20

    def __getitem__(self, index):
        shape = (32, 32, 3)
        return np.random.default_rng(index).integers(0, 256, shape, dtype=np.uint8), index % 10


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*args):
        raise AssertionError("the network was asked for")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def test_there_is_one_of_each_kind_that_is_small():
    small = {"AR", "ClassConvolution", "ColourShift", "EM", "Gratings", "LSP", "Lasting", "OPS"}
    assert {entry.method for entry in SHIPPED} == small | {"SmoothFields"}
    assert len(SHIPPED + COMPUTED) == len(json.loads(FILE.read_text(encoding="utf-8")))


def test_the_wheel_is_under_8_megabytes():
    package = [file for file in Path(ue.__file__).parent.rglob("*") if file.is_file()]
    shipped = [file for file in package if file.suffix != ".pyc"]
    assert sum(len(zlib.compress(file.read_bytes())) for file in shipped) < 7_900_000


def test_methods_with_rows_per_image_are_there_for_cifar10_and_cifar100():
    named = {entry.name for entry in COMPUTED}
    methods = ("sem", "rem", "em", "tap", "sep", "miue")
    assert named == {f"{data}-{method}" for data in ("cifar10", "cifar100") for method in methods}


@pytest.mark.parametrize("entry", SHIPPED, ids=lambda entry: entry.name)
def test_they_are_whole_and_measured(entry):
    perturbation = ue.Perturbation.from_pretrained(entry.name)
    perturbation.verify()
    dataset = entry.name.partition("-")[0].upper()
    assert entry.dataset == perturbation.config["source"]["name"] == dataset
    assert len(perturbation.config["classes"]) == int(dataset.removeprefix("CIFAR"))
    strength = perturbation.config["strength"]
    assert len(strength["protected"]) == len(strength["clean"]) == len(strength["seeds"])
    protected = ue.ProtectedDataset(Like(entry), perturbation)
    clean = np.stack([protected.clean(index)[0] for index in range(20)]).astype(int)
    change = np.stack([protected[index][0] for index in range(20)]) - clean
    assert change.reshape(20, -1).any(axis=1).all()
    if entry.norm == "Linf":
        assert np.abs(change).max() <= round(255 * perturbation.config["epsilon"])
    elif entry.norm == "L2":
        largest = np.sqrt((change**2).sum(axis=(1, 2, 3))).max() / 255
        assert largest <= 1.05 * perturbation.config["epsilon"]


@pytest.mark.parametrize(
    "entry", [e for e in SHIPPED if e.dataset == "CIFAR10"], ids=lambda entry: entry.name
)
def test_they_fit_torchvisions_cifar10(entry, cifar10):
    protected = ue.ProtectedDataset(cifar10, ue.Perturbation.from_pretrained(entry.name))
    assert protected[0][0].tobytes() != protected.clean(0)[0].tobytes()


@pytest.mark.parametrize("entry", COMPUTED, ids=lambda entry: entry.name)
def test_rows_are_computed_for_the_images_at_hand(entry, tmp_path):
    images = Like(entry)
    options = {"dataset": images, "cache_dir": tmp_path, "device": "cpu"}
    perturbation = ue.Perturbation.from_pretrained(entry.name, **options)
    assert len(perturbation) == 20 and perturbation.config["method"] == entry.method
    change = np.abs(perturbation.rows.astype(int))
    assert 0 < change.max() <= round(255 * perturbation.config["epsilon"])
    assert change.reshape(20, -1).any(axis=1).all()
    assert perturbation.config["strength"] is None  # measured on other images
    again = ue.Perturbation.from_pretrained(entry.name, **options)
    assert again.digest == perturbation.digest
    with pytest.raises(ValueError, match="dataset="):
        ue.Perturbation.from_pretrained(entry.name)
