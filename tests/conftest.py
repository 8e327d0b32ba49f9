"""Small datasets and what is fitted on them, shared by the tests."""

import pickle
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import CIFAR10, ImageFolder

from unlearnable import RandomNoise
from unlearnable.datasets import Shapes
from unlearnable.engine import precision

CIFAR_CLASSES = [
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
]  # fmt: skip


class AnyCIFAR10(CIFAR10):
    """torchvision's own, reading files of any content."""

    meta = {**CIFAR10.meta, "md5": None}  # noqa: RUF012

    def _check_integrity(self):
        return True


@pytest.fixture(scope="session", autouse=True)
def ctrl_c():
    """Ctrl-C interrupts, also in a job that a shell started in the background and keeps it from."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session", autouse=True)
def float32():
    """Precision "auto" is float32 on every CPU, whatever it has: bytes do not depend on timing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(precision, "bf16_in_hardware", lambda device: device.type == "cuda")
        yield


@pytest.fixture(scope="session")
def shapes():
    return Shapes(size=40)


@pytest.fixture(scope="session")
def perturbation(shapes):
    return RandomNoise().fit(shapes, device="cpu", progress=False).perturbation_


@pytest.fixture(scope="session")
def class_wise(shapes):
    method = RandomNoise(granularity="class-wise")
    return method.fit(shapes, device="cpu", progress=False).perturbation_


@pytest.fixture(scope="session")
def cifar10_class():
    return AnyCIFAR10


def write_cifar10(root):
    """40 random images in torchvision's own files."""
    rng = np.random.default_rng(0)
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    for name, _ in AnyCIFAR10.train_list:
        data = rng.integers(0, 256, (8, 3072), dtype=np.uint8)
        batch = {"data": data, "labels": rng.integers(0, 10, 8).tolist()}
        (folder / name).write_bytes(pickle.dumps(batch))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": CIFAR_CLASSES}))


@pytest.fixture
def cifar10(tmp_path):
    write_cifar10(tmp_path / "cifar")
    return AnyCIFAR10(tmp_path / "cifar")


@pytest.fixture
def tensors():
    """(images, labels) of uint8 tensors, 20 images of 3 classes."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (20, 3, 8, 8), dtype=torch.uint8, generator=generator)
    return images, torch.arange(20) % 3


@pytest.fixture
def varying_folder(tmp_path):
    """An ImageFolder of four images of different sizes."""
    rng = np.random.default_rng(0)
    for index, size in enumerate([(8, 6), (10, 10), (6, 12), (8, 8)]):
        folder = tmp_path / "varying" / f"class{index % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.png")
    return ImageFolder(tmp_path / "varying")


def _fit(dataset, *, image_size=None, **parameters):
    method = RandomNoise(**parameters)
    method.fit(dataset, device="cpu", image_size=image_size, progress=False)
    return method.perturbation_


@pytest.fixture(scope="session")
def fit():
    """Fits RandomNoise and returns its perturbation."""
    return _fit


@pytest.fixture
def benchmarks(monkeypatch):
    """The commands of benchmarks/ can be imported."""
    folder = Path(__file__).parent.parent / "benchmarks"
    monkeypatch.syspath_prepend(str(folder))
    yield
    for path in folder.glob("*.py"):
        sys.modules.pop(path.stem, None)
