"""One class: what is learned from several is refused before any work; the rest works."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import TensorDataset
from torchvision.datasets import ImageFolder

import unlearnable as ue
from unlearnable.cli.main import main
from unlearnable.data import cache
from unlearnable.methods import METHODS
from unlearnable.methods.one_class import FOR_ONE_CLASS

LEARNED = [method for method in METHODS if method.__name__ not in FOR_ONE_CLASS]


def test_the_page_about_photos_names_all_methods_for_one_class():
    page = Path(__file__).parent.parent / "docs" / "how-to" / "photos.md"
    rows = page.read_text(encoding="utf-8").splitlines()
    (row,) = (row for row in rows if row.startswith("| one class folder"))
    assert set(re.findall(r"`([A-Z]\w+)`", row)) == set(FOR_ONE_CLASS)


class OnlyCats:
    """Twelve images of one class, of one name or of the second of two."""

    def __init__(self, label=0, classes=("cat",)):
        self.data = np.random.default_rng(0).integers(0, 256, (12, 16, 16, 3), dtype=np.uint8)
        self.targets, self.classes = [label] * 12, list(classes)

    def __len__(self):
        return len(self.data)

    def __getitem__(self, index):
        return Image.fromarray(self.data[index]), self.targets[index]


class Unlisted(OnlyCats):
    """Labels that only its items tell."""

    def __init__(self):
        super().__init__()
        del self.targets, self.classes

    def __getitem__(self, index):
        return Image.fromarray(self.data[index]), 0


@pytest.fixture
def folder(tmp_path):
    for index, (image, _) in enumerate(OnlyCats()):
        (tmp_path / "photos" / "cats").mkdir(parents=True, exist_ok=True)
        image.save(tmp_path / "photos" / "cats" / f"{index}.png")
    return tmp_path / "photos"


@pytest.mark.parametrize("method", LEARNED, ids=lambda method: method.__name__)
def test_methods_that_tell_classes_apart_refuse_before_they_read(method, monkeypatch):
    monkeypatch.setattr(cache, "_in_memory", lambda *_: pytest.fail("images were read"))
    expected = f"two classes, got only 'cat'; {method.__name__} learns .*second folder.*RandomNoise"
    for dataset in (OnlyCats(), OnlyCats(1, ["dog", "cat"])):
        with pytest.raises(ValueError, match=expected):
            method.preset("demo").fit(dataset, device="cpu", progress=False)


@pytest.mark.parametrize("method", LEARNED, ids=lambda method: method.__name__)
def test_labels_that_only_items_tell(method, monkeypatch):
    monkeypatch.setattr(method, "_learn", lambda *_: pytest.fail("it learned"))
    with pytest.raises(ValueError, match="two classes, got only class 0; "):
        method.preset("demo").fit(Unlisted(), device="cpu", progress=False)


@pytest.mark.parametrize("name", FOR_ONE_CLASS)
def test_the_others_protect_every_image_of_one_class(name):
    method = getattr(ue, name)
    for granularity in method.granularities:
        dataset = OnlyCats()
        fitted = method(granularity=granularity).fit(dataset, device="cpu", progress=False)
        protected = fitted.protect(dataset)
        assert fitted.perturbation_.config["num_classes"] == 1
        for index in range(12):
            image, label = protected[index]
            assert (np.asarray(image) != dataset.data[index]).any() and label == 0


def test_the_methods_for_one_class_are_those_that_train_nothing():
    assert {m.__name__ for m in METHODS if m.least_classes == 1} == set(FOR_ONE_CLASS)


def test_two_classes_are_enough(tensors):
    images = TensorDataset(tensors[0][:8], torch.tensor([0, 1] * 4))
    fitted = ue.TAP.preset("demo", train_epochs=1, steps=2).fit(
        images, device="cpu", precision="float32", progress=False
    )
    assert fitted.perturbation_.rows[:].any(axis=(1, 2, 3)).all()


def test_an_own_method_may_take_one():
    class Own(ue.RandomNoise):
        least_classes = 2

    class One(Own):
        least_classes = 1

    with pytest.raises(ValueError, match="two classes"):
        Own().fit(OnlyCats(), progress=False)
    assert len(One().fit(OnlyCats(), progress=False).perturbation_) == 12


def test_command_line(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("unlearnable.data.image_folder.survey_folder", None)  # not reached
    for command in ("fit", "protect"):
        arguments = [command, str(folder), str(tmp_path / "out"), "--method", "sem", "--quiet"]
        assert main([*arguments, "--preset", "demo"]) == 1
        err = capsys.readouterr().err
        assert "got photos of one kind" in err and "--others" in err
        assert not (tmp_path / "out").exists()


def test_command_line_of_a_method_for_one_class(folder, tmp_path, capsys):
    options = ["--method", "randomnoise", "--quiet", "--json", "--seed", "5"]
    assert main(["protect", str(folder), str(tmp_path / "out"), *options]) == 0
    assert json.loads(capsys.readouterr().out)["images"] == 12
    for index, (image, _) in enumerate(ImageFolder(tmp_path / "out")):
        own = np.asarray(ImageFolder(folder)[index][0]).astype(int)
        assert 0 < abs(np.asarray(image) - own).max() <= 8


def test_victims_of_one_class_are_refused(folder):
    options = {"victim": "tiny", "epochs": 1, "seeds": 1, "device": "cpu", "progress": False}
    for dataset in (OnlyCats(), OnlyCats(1, ["dog", "cat"]), ImageFolder(folder), Unlisted()):
        with pytest.raises(ValueError, match="training images of at least two classes, got only"):
            ue.evaluate(dataset, dataset, **options)


def test_audits_of_one_class_are_refused(fit):
    for dataset in (OnlyCats(), OnlyCats(1, ["dog", "cat"]), Unlisted()):
        perturbation = fit(dataset)
        with pytest.raises(ValueError, match="training images of at least two classes, got only"):
            ue.audit(dataset, perturbation, dataset, victims=["tiny"], epochs=1, progress=False)


def test_test_images_may_be_of_one_class():
    train = OnlyCats(classes=["cat", "dog"])
    train.targets = [0, 1] * 6
    test = OnlyCats(classes=["cat", "dog"])
    options = {"victim": "tiny", "epochs": 1, "seeds": 1, "device": "cpu", "progress": False}
    assert len(ue.evaluate(train, test, **options).last) == 1
