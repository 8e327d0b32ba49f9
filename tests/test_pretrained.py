"""The perturbations that are part of the package."""

import json
import socket

import numpy as np
import pytest

import unlearnable as ue
from unlearnable.hub.catalogue import FILE

ENTRIES = ue.list_pretrained()
SHIPPED = [entry for entry in ENTRIES if entry.repo is None and entry.surrogate is None]
COMPUTED = [entry for entry in ENTRIES if entry.surrogate is not None]
CLASSES = [
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
]  # fmt: skip


class LikeCIFAR10:
    """Noise in CIFAR-10's shape, with its classes."""

    classes = CLASSES

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
    files = [file for entry in ENTRIES for file in entry.folder.iterdir()]
    assert sum(file.stat().st_size for file in files) <= 6_500_000  # the wheel is to be under 8 MB


@pytest.mark.parametrize("entry", SHIPPED, ids=lambda entry: entry.name)
def test_they_are_whole_measured_and_for_cifar10(entry):
    perturbation = ue.Perturbation.from_pretrained(entry.name)
    perturbation.verify()
    assert perturbation.config["classes"] == CLASSES and entry.dataset == "CIFAR10"
    strength = perturbation.config["strength"]
    assert len(strength["protected"]) == len(strength["clean"]) == len(strength["seeds"])
    protected = ue.ProtectedDataset(LikeCIFAR10(), perturbation)
    clean = np.stack([protected.clean(index)[0] for index in range(20)]).astype(int)
    change = np.stack([protected[index][0] for index in range(20)]) - clean
    assert change.reshape(20, -1).any(axis=1).all()
    if entry.norm == "Linf":
        assert np.abs(change).max() <= round(255 * perturbation.config["epsilon"])
    elif entry.norm == "L2":
        largest = np.sqrt((change**2).sum(axis=(1, 2, 3))).max() / 255
        assert largest <= 1.05 * perturbation.config["epsilon"]


@pytest.mark.parametrize("entry", SHIPPED, ids=lambda entry: entry.name)
def test_they_fit_torchvisions_cifar10(entry, cifar10):
    protected = ue.ProtectedDataset(cifar10, ue.Perturbation.from_pretrained(entry.name))
    assert protected[0][0].tobytes() != protected.clean(0)[0].tobytes()


@pytest.mark.parametrize("entry", COMPUTED, ids=lambda entry: entry.name)
def test_rows_are_computed_for_the_images_at_hand(entry, tmp_path):
    images = LikeCIFAR10()
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
