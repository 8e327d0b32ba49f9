import dataclasses
import importlib

import numpy as np
import pytest
import torch
from torch import nn

import unlearnable as ue
from unlearnable.datasets import Shapes
from unlearnable.evaluation.countermeasures import Countermeasure
from unlearnable.evaluation.report.curves import plot_curves

module = importlib.import_module("unlearnable.evaluation.evaluate")


@pytest.fixture(scope="module")
def evaluation():
    return ue.evaluate(
        Shapes(size=64), Shapes(train=False, size=50), "tiny", epochs=2, seeds=2, progress=False
    )


def test_last_peak_train_and_curves_belong_together(evaluation):
    assert evaluation.seeds == [0, 1]
    assert evaluation.last == [curve[-1] for curve in evaluation.curves]
    assert evaluation.peak == [max(curve) for curve in evaluation.curves]
    assert all(len(curve) == 2 for curve in evaluation.curves + evaluation.losses)
    assert all(0 <= share <= 1 for share in evaluation.last + evaluation.train)
    assert evaluation.mean("last") == pytest.approx(sum(evaluation.last) / 2)
    assert evaluation.std("last") == pytest.approx(
        abs(evaluation.last[0] - evaluation.last[1]) / 2**0.5
    )
    assert evaluation.to_dict()["victim"] == "tiny" and "2 seeds" in str(evaluation)


def test_a_victim_follows_from_its_seed_and_leaves_the_global_state_alone(evaluation):
    torch.manual_seed(0)
    state = torch.get_rng_state()
    again = ue.evaluate(
        Shapes(size=64), Shapes(train=False, size=50), "tiny", epochs=2, seeds=[1], progress=False
    )
    assert torch.equal(torch.get_rng_state(), state)
    assert again.losses == evaluation.losses[1:] and again.curves == evaluation.curves[1:]


def test_numbers_of_numpy_are_those_of_python(evaluation):
    again = ue.evaluate(
        Shapes(size=64), Shapes(train=False, size=50), "tiny", epochs=np.int64(2),
        seeds=np.arange(2), batch_size=np.uint8(128), peak_images=np.int64(50),
        image_size=[np.int32(32)] * 2, progress=False,
    )  # fmt: skip
    assert again == evaluation and all(type(seed) is int for seed in again.seeds)


def test_a_network_too_deep_for_the_images_is_refused(monkeypatch, tensors):
    refused(monkeypatch, tensors, tensors, "vgg16", match="expected a victim")


def test_the_peak_may_be_watched_on_some_images_and_the_last_is_on_all(evaluation):
    test = Shapes(train=False, size=50)
    few = ue.evaluate(
        Shapes(size=64), test, "tiny", epochs=2, seeds=1, peak_images=5, progress=False
    )
    assert few.losses == evaluation.losses[:1] and few.last == evaluation.last[:1]
    assert few.peak == [max(few.curves[0])]
    assert all(accuracy * 5 == pytest.approx(round(accuracy * 5)) for accuracy in few.curves[0])


def test_the_datasets_own_transforms_are_ignored(evaluation):
    def broken(image):
        raise AssertionError("the protocol has its own augmentation")

    again = ue.evaluate(
        Shapes(size=64, transform=broken),
        Shapes(train=False, size=50),
        "tiny",
        epochs=2,
        seeds=1,
        progress=False,
    )
    assert again.losses == evaluation.losses[:1]


def test_a_shortcut_is_learned_in_training_and_gone_in_testing():
    """Each class has a colour in the training images, and none in the test images."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(100, 156, (192, 3, 16, 16), generator=generator, dtype=torch.uint8)
    labels = torch.arange(192) % 3
    coloured = images.clone()
    coloured[torch.arange(192), labels] += 60
    result = ue.evaluate(
        (coloured, labels), (images, labels), "tiny", epochs=8, batch_size=32, seeds=1,
        progress=False,
    )  # fmt: skip
    assert result.train[0] > 0.95
    assert result.last[0] < 0.5


def test_victims_may_be_modules_and_are_not_changed():
    module = nn.Sequential(nn.Flatten(), nn.Linear(3072, 10))
    before = module[1].weight.clone()
    result = ue.evaluate(Shapes(size=16), Shapes(size=8), module, epochs=1, seeds=1, progress=False)
    assert torch.equal(module[1].weight, before) and result.victim == "Sequential"


class Diverging(nn.Linear):
    """Gives infinite logits from the second batch on."""

    def forward(self, images):
        seen, self.seen = getattr(self, "seen", 0), getattr(self, "seen", 0) + self.training
        return super().forward(images.flatten(1)) * (1.0 if seen < 1 else float("inf"))


@pytest.mark.parametrize(("recipe", "advice"), [("fast", "use 'standard'"), ("standard", "$")])
def test_a_victim_whose_training_diverges_is_not_taken_for_protection(recipe, advice):
    message = f"epoch 2 of 3.*countermeasure none, seed 0.*diverged.*{recipe}'.*{advice}"
    with pytest.raises(FloatingPointError, match=message):
        ue.evaluate(
            Shapes(size=16), Shapes(size=10, train=False), Diverging(3072, 10), recipe=recipe,
            epochs=3, batch_size=16, seeds=1, device="cpu", precision="float32", progress=False,
        )  # fmt: skip


class OnlyInTraining(nn.Linear):
    """Gives no numbers for a whole batch of test images."""

    def forward(self, images):
        broken = not self.training and len(images) == 10
        return super().forward(images.flatten(1)) * (float("nan") if broken else 1.0)


def test_a_victim_that_gives_no_numbers_when_it_is_tested_is_not_taken_for_protection():
    with pytest.raises(FloatingPointError, match="finite logits, got nan in epoch 1 of 2"):
        ue.evaluate(
            Shapes(size=16), Shapes(size=10, train=False), OnlyInTraining(3072, 10), epochs=2,
            batch_size=16, seeds=1, device="cpu", precision="float32", progress=False,
        )  # fmt: skip


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"victim": "resnet19"}, "tiny"),
        ({"epochs": 0}, "epoch"),
        ({"seeds": 0}, "seed"),
        ({"peak_images": 0}, "peak"),
        ({"precision": "fp16"}, "bf16"),
        ({"seeds": []}, "seed"),
        *[
            ({name: value}, name)
            for name in ("epochs", "seeds", "batch_size", "peak_images", "image_size")
            for value in (True, 1.5, "1")
        ],
        *[({name: None}, name) for name in ("seeds",)],
    ],
)
def test_bad_arguments_are_explained(options, message):
    with pytest.raises(ValueError, match=message):
        ue.evaluate(
            Shapes(size=8), Shapes(size=8), **({"victim": "tiny", "progress": False} | options)
        )


def test_a_test_set_of_another_kind_is_refused():
    other = (torch.zeros(4, 3, 8, 8, dtype=torch.uint8), [0, 1, 2, 3])
    with pytest.raises(ValueError, match="shape"):
        ue.evaluate(Shapes(size=8), other, "tiny", progress=False)


def refused(monkeypatch, *args, match, **options):
    """Asserts that an evaluation is refused, and that before it would have trained."""

    def train(*args, **kwargs):
        raise AssertionError("nothing is to be trained")

    monkeypatch.setattr(module, "_train_victim", train)
    with pytest.raises(ValueError, match=match):
        ue.evaluate(*args, **{"device": "cpu", "progress": False} | options)


def test_labels_that_no_training_image_may_have_are_refused(monkeypatch):
    images = torch.zeros(4, 3, 8, 8, dtype=torch.uint8)
    refused(
        monkeypatch, (images, [0, 1, 0, 1]), (images, [0, 1, 2, 1]), "tiny",
        match="training images' 2 classes.*labels up to 2",
    )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class TwoClasses(Countermeasure):
    name = "two-classes"
    description = "a victim that leaves the last class out"

    def on_dataset(self, dataset):
        images, labels = dataset
        return images[labels < 2], labels[labels < 2]


def test_classes_are_those_of_the_whole_training_set(tensors):
    """Of which a victim that chooses its images need not see all."""
    found = ue.evaluate(
        tensors, tensors, "tiny", countermeasure=TwoClasses(), epochs=1, seeds=1, device="cpu",
        progress=False,
    )  # fmt: skip
    assert 0 <= found.last[0] <= 1


def test_protected_images_to_test_on_are_refused(monkeypatch, shapes, perturbation):
    protected = ue.ProtectedDataset(shapes, perturbation)
    for test in (protected, torch.utils.data.Subset(protected, [0, 1])):
        refused(monkeypatch, shapes, test, "tiny", match=r"clean test images.*\.base")


class Pair(nn.Module):
    def forward(self, x):
        return x, x


@pytest.mark.parametrize(
    ("head", "found"), [(nn.Linear(8, 12), r"\(2, 12\)"), (Pair(), "tuple"), (nn.Identity(), "8")]
)
def test_a_victim_of_another_width_is_refused_and_left_as_it_was(monkeypatch, head, found):
    victim = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.AdaptiveAvgPool2d(1), nn.Flatten(), head
    )
    victim[1].eval()
    before = {name: value.clone() for name, value in victim.state_dict().items()}
    state = torch.get_rng_state()
    refused(
        monkeypatch, Shapes(size=16), Shapes(size=8), victim,
        match=f"each of the 10 classes.*got .*{found}",
    )  # fmt: skip
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in victim.state_dict().items())
    assert [layer.training for layer in victim] == [True, False, True, True, True]


def test_curves_are_drawn(evaluation, tmp_path):
    pytest.importorskip("matplotlib")
    assert plot_curves({"clean": evaluation}, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_curves_are_left_out_with_a_hint_without_matplotlib(
    evaluation, tmp_path, monkeypatch, caplog
):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    assert not plot_curves({"clean": evaluation}, tmp_path / "curves.png")
    assert "unlearnable[plot]" in caplog.text and not list(tmp_path.iterdir())


class Grey(torch.utils.data.Dataset):
    def __init__(self, base):
        self.base, self.classes = base, base.classes

    def __len__(self):
        return len(self.base)

    def __getitem__(self, index):
        image, label = self.base[index]
        return image.convert("L"), label


def test_grey_images_that_a_perturbation_colours_have_grey_test_images():
    train, test = Grey(Shapes(size=40)), Grey(Shapes(train=False, size=40))
    perturbation = ue.SmoothFields().fit(Shapes(size=40), progress=False).perturbation_
    options = {"epochs": 1, "progress": False, "precision": "float32", "device": "cpu"}
    protected = ue.ProtectedDataset(train, perturbation)
    found = ue.evaluate(protected, test, "tiny", seeds=1, **options)
    assert 0 <= found.last[0] <= 1
    audited = ue.audit(train, perturbation, victims="tiny", countermeasures=["none"], **options)
    assert audited.complete
    with pytest.raises(ValueError, match=r'convert\("L"\)'):
        ue.evaluate(train, Shapes(train=False, size=40), "tiny", seeds=1, **options)


@dataclasses.dataclass(frozen=True)
class Wrong(Countermeasure):
    result: object = None
    name = "wrong"
    description = "a victim that does something else"

    def on_images(self, images, labels):
        return self.result(images)


@pytest.mark.parametrize(
    ("result", "got"),
    [
        (lambda images: images.float() / 255, r"torch.float32 of shape \(20, 3, 32, 32\)"),
        (lambda images: images[:, :, :16, :16], r"torch.uint8 of shape \(20, 3, 16, 16\)"),
        (lambda images: images[:-1], r".*of shape \(19, 3, 32, 32\)"),
        (lambda images: None, "None"),
        (lambda images: images.numpy(), "ndarray"),
    ],
)
def test_images_of_a_countermeasure_that_are_none_are_refused(monkeypatch, result, got):
    data = Shapes(size=20)
    monkeypatch.setattr(importlib.import_module("unlearnable.evaluation.evaluate"), "Run", None)
    with pytest.raises(ValueError, match=rf"expected wrong to give uint8 .*32\), got {got}"):
        ue.evaluate(data, data, "tiny", countermeasure=Wrong(result), progress=False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"victim": None}, "name of a network or a torch module, got None"),
        ({"victim": nn.Flatten}, "name of a network or a torch module"),
        ({"victim": lambda images: images}, "name of a network or a torch module"),
        ({"countermeasure": 5}, "a countermeasure, its name, or None, got 5"),
        ({"countermeasure": ["jpeg-10"]}, r"got \['jpeg-10'\]"),
        ({"countermeasure": Wrong}, r"make one of it: Wrong\("),
    ],
)
def test_arguments_of_other_kinds_are_explained(options, message):
    data = Shapes(size=20)
    with pytest.raises(ValueError, match=message):
        ue.evaluate(data, data, **({"victim": "tiny", "progress": False} | options))


def test_an_audit_takes_victims_by_name_alone():
    data = Shapes(size=20)
    perturbation = ue.OPS().fit(data, progress=False).perturbation_
    for victims in (nn.Flatten(), [nn.Flatten()], 5):
        with pytest.raises(ValueError, match="names of networks"):
            ue.audit(data, perturbation, data, victims=victims, progress=False)
