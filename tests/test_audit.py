"""Audits: which cells there are, interruption and resumption, and what is refused."""

import dataclasses
import importlib
import json
import logging

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import Dataset, Subset

import unlearnable as ue
from unlearnable import OPS, ProtectedDataset, UnknownImageError
from unlearnable.data.cache import read_images
from unlearnable.data.raw import RawDataset
from unlearnable.datasets import Shapes
from unlearnable.engine.recipes import STANDARD
from unlearnable.evaluation import (
    STANDARD_SET,
    STRONG_SET,
    adaptive_countermeasures,
    who_can_undo,
)
from unlearnable.evaluation.audit.cells import PlannedCell, plan
from unlearnable.evaluation.audit.data import AuditData, read_audit_data, split
from unlearnable.evaluation.audit.timing import Clock, probe
from unlearnable.evaluation.countermeasures import Countermeasure, countermeasure, projection
from unlearnable.evaluation.countermeasures.adversarial import AdversarialTraining
from unlearnable.evaluation.countermeasures.images import JPEG
from unlearnable.evaluation.countermeasures.leaked_pairs import LeakedPairs
from unlearnable.evaluation.countermeasures.pretrained import FineTuning
from unlearnable.evaluation.countermeasures.projection import OrthogonalProjection
from unlearnable.evaluation.countermeasures.unprotected import Unprotected
from unlearnable.evaluation.evaluate import Training, train_victims
from unlearnable.evaluation.report.figures import Cell
from unlearnable.io.files import locked

module = importlib.import_module("unlearnable.evaluation.audit.runner")
PROTECTED, CLEAN = "protected", "clean"


@dataclasses.dataclass(frozen=True)
class Leak(Countermeasure):
    """A trainer who has some of the clean images."""

    name = "leak"
    description = "a victim that has clean images"
    needs_clean_images = True

    def for_timing(self, few, count):
        return countermeasure(None)

    def on_dataset(self, dataset):
        assert isinstance(dataset, ProtectedDataset)
        return dataset


@dataclasses.dataclass(frozen=True)
class HalfOfThem(Countermeasure):
    """A trainer who chooses among the images that everybody has."""

    name = "half"
    description = "a victim that trains on half of the images"

    def on_dataset(self, dataset):
        return Subset(dataset, range(0, len(dataset), 2))


class Counting(Dataset):
    """How often each image is read; copies count together."""

    def __init__(self, base):
        self.base, self.classes = base, base.classes
        self.reads = np.zeros(len(base), dtype=int)

    def __len__(self):
        return len(self.base)

    def __getitem__(self, index):
        self.reads[index] += 1
        return self.base[index]


@pytest.fixture(scope="module")
def images():
    return Shapes(size=64), Shapes(train=False, size=30)


@pytest.fixture(scope="module")
def pixel(images):
    return OPS().fit(images[0], device="cpu", progress=False).perturbation_


@pytest.fixture
def trained(monkeypatch):
    """Victims that answer at once, by what they were asked; the list of them."""
    asked = []

    def measure(planned, train, test, epochs, **_):
        asked.append(tuple(planned.key.split(", ")))
        peak = (len(planned.countermeasure.name) % 7 + 2 + planned.seed) / 20
        return Cell(
            planned.trained_on, planned.countermeasure.name, planned.victim, planned.seed,
            peak / 2, peak, 1.0, [peak] * epochs, 0.01,
        )  # fmt: skip

    def probe(clock, cells, *_, **__):
        for cell in cells:
            clock.expect(cell.kind, 1.0)

    monkeypatch.setattr(module, "measure_cell", measure)
    monkeypatch.setattr(module, "probe", probe)
    return asked


def run(images, perturbation, **options):
    defaults = {
        "victims": "tiny", "countermeasures": ["jpeg-10", "grayscale"], "epochs": 2,
        "device": "cpu", "progress": False,
    }  # fmt: skip
    return ue.audit(images[0], perturbation, images[1], **defaults | options)


def test_cells_come_with_their_baseline_and_the_telling_ones_first():
    counters = [countermeasure(None), countermeasure("jpeg-10"), Leak()]
    keys = [cell.key for cell in plan(counters, ["tiny", "resnet18"], [0, 1])]
    assert keys[:5] == [
        "protected, none, tiny, seed 0",
        "clean, none, tiny, seed 0",
        "protected, jpeg-10, tiny, seed 0",
        "clean, jpeg-10, tiny, seed 0",
        "protected, leak, tiny, seed 0",
    ]
    assert len(keys) == len(set(keys)) == 2 * 2 * 5
    assert all("seed 0" in key for key in keys[:10])


def test_a_real_audit_trains_tests_and_reports(images, pixel, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    report = run(
        images, pixel, countermeasures=["grayscale"], epochs=1, batch_size=32, folder=tmp_path / "a"
    )
    assert report.complete and len(report.cells) == 4
    assert [cell.trained_on for cell in report.cells] == [PROTECTED, CLEAN] * 2
    direct = ue.evaluate(
        ProtectedDataset(images[0], pixel), images[1], "tiny", countermeasure="grayscale",
        epochs=1, seeds=1, batch_size=32, device="cpu", progress=False,
    )  # fmt: skip
    assert [report.cells[2].last, report.cells[2].curve] == [direct.last[0], direct.curves[0]]
    assert report.dataset["classes"] == Shapes.classes and report.test["images"] == 30
    assert report.chance == max(np.bincount(images[1].targets)) / 30
    assert set(report.change_by_class) == set(Shapes.classes) and len(report.examples) == 8
    messages = [record.getMessage() for record in caplog.records]
    assert "4 cells, about" in messages[0] and messages[0].endswith(" GB here")
    assert messages[-1].endswith("done") and len(messages) == 5
    for name in ("report.html", "report.md", "report.json", "audit.json"):
        assert (tmp_path / "a" / name).is_file()
    assert ue.AuditReport.load(tmp_path / "a") == report


@pytest.mark.slow
@pytest.mark.parametrize("where", ["training", "saving"])
def test_interrupted_at_every_cell_it_goes_on_and_gives_the_same(
    images, pixel, trained, tmp_path, monkeypatch, where
):
    small = {"countermeasures": ["jpeg-10"], "seeds": 2}
    whole = run(images, pixel, **small, folder=tmp_path / "whole")
    count = whole.planned
    assert count == 8 == len(trained)
    trained.clear()
    measure, save = module.measure_cell, ue.AuditReport.save
    before = 0

    def stop_training(*args, **kwargs):
        if len(trained) > before:
            raise KeyboardInterrupt
        return measure(*args, **kwargs)

    def stop_saving(report, folder):
        if len(trained) < count:
            raise KeyboardInterrupt
        return save(report, folder)

    if where == "training":
        monkeypatch.setattr(module, "measure_cell", stop_training)
    else:
        monkeypatch.setattr(ue.AuditReport, "save", stop_saving)
    for before in range(count - 1):
        with pytest.raises(KeyboardInterrupt):
            run(images, pixel, **small, folder=tmp_path / "parts")
        assert len(trained) == before + 1
        if where == "training":
            partial = ue.AuditReport.load(tmp_path / "parts")
            assert len(partial.cells) == before + 1 and not partial.complete
            assert f"Only {before + 1} of {count}" in partial.verdict()
    before = count
    final = run(images, pixel, **small, folder=tmp_path / "parts")
    assert len(trained) == len(set(trained)) == count
    assert untimed(final) == untimed(whole) and str(final) == str(whole)
    assert run(images, pixel, **small, folder=tmp_path / "parts") == final
    assert len(trained) == count


def untimed(report):
    cells = [dataclasses.replace(cell, seconds=0.0) for cell in report.cells]
    return dataclasses.replace(report, cells=cells, date="")


@dataclasses.dataclass(frozen=True)
class TooFast(Countermeasure):
    """A trainer whose victim of one seed diverges."""

    name = "too-fast"
    description = "a victim that learns too fast"

    def on_batch(self, batch, run, done):
        return batch._replace(images=batch.images * float("nan" if run.seed == 1 else "1"))


def test_a_victim_that_diverges_is_left_out_and_said(images, pixel, tmp_path, caplog):
    small = {"epochs": 1, "batch_size": 32, "seeds": 2, "folder": tmp_path / "a"}
    report = run(images, pixel, countermeasures=[TooFast()], **small)
    lost = [f"{kind}, too-fast, tiny, seed 1" for kind in (PROTECTED, CLEAN)]
    assert list(report.diverged) == lost and "seed 1) diverged" in report.diverged[lost[0]]
    assert len(report.cells) == 6 and report.planned == 8 and not report.complete
    assert all(any(key in record.getMessage() for record in caplog.records) for key in lost)
    assert report.reached(PROTECTED, "too-fast", "tiny").seeds == 1
    said = f"Left out, because the training diverged: {'; '.join(lost)}."
    for text in (report.verdict(), report.to_markdown(), report.to_html()):
        assert said in text.replace("\\", "") and "so far" not in text
    assert "6 of 8, 2 diverged" in report.to_markdown()
    assert ue.AuditReport.load(tmp_path / "a") == report
    again = run(images, pixel, countermeasures=[TooFast()], **small)
    assert again == report  # they were tried again, and nothing else was


def test_an_audit_in_which_every_victim_diverges_says_why(images, pixel, monkeypatch, trained):
    def diverge(planned, *_, **__):
        raise FloatingPointError(f"{planned.key} diverged")

    monkeypatch.setattr(module, "measure_cell", diverge)
    with pytest.raises(FloatingPointError, match="protected, none, tiny, seed 0 diverged"):
        run(images, pixel)


def test_a_folder_takes_more_countermeasures_and_seeds(images, pixel, trained, tmp_path):
    run(images, pixel, folder=tmp_path / "a")
    first = list(trained)
    more = run(
        images, pixel, countermeasures=["jpeg-10", "bit-depth-2"], seeds=2, folder=tmp_path / "a"
    )
    assert more.complete and len(trained) == len(set(trained)) > len(first)
    assert {entry["name"] for entry in more.countermeasures} == {"none", "jpeg-10", "bit-depth-2"}


def test_sets_are_taken_by_name_and_the_default_knows_the_method(
    images, pixel, trained, monkeypatch
):
    monkeypatch.setattr(LeakedPairs, "on_pairs", lambda self, images, *_: images)
    options = {"victims": "tiny", "epochs": 1, "device": "cpu", "progress": False}
    report = ue.audit(images[0], pixel, images[1], **options)
    names = [entry["name"] for entry in report.countermeasures]
    knowing = [counter.name for counter in adaptive_countermeasures(pixel)]
    assert names == [*STANDARD_SET, *knowing]
    adaptive = [entry["name"] for entry in report.countermeasures if entry["adaptive"]]
    assert adaptive == knowing == ["pixel-repair", "median-filter"]
    assert report.perturbation["who_can_undo"] == who_can_undo(pixel)
    assert report.worst_adaptive.countermeasure in knowing
    assert report.worst_standard.countermeasure in STANDARD_SET
    strong = run(images, pixel, countermeasures="strong")
    assert [entry["name"] for entry in strong.countermeasures] == list(STRONG_SET)
    mixed = run(images, pixel, countermeasures=["adaptive", "jpeg-10+grayscale", "standard"])
    assert [e["name"] for e in mixed.countermeasures][:4] == ["none", *knowing, "jpeg-10+grayscale"]
    assert len(mixed.countermeasures) == len(names)
    wrapped = ue.audit(ProtectedDataset(images[0], pixel), None, images[1], **options)
    assert wrapped.countermeasures == report.countermeasures


def test_the_standard_set_is_large_enough_and_what_it_costs_is_known():
    counters = [countermeasure(name) for name in STANDARD_SET]
    assert STANDARD_SET[0] == "none" and len(set(STANDARD_SET)) == len(STANDARD_SET) >= 13
    assert set(STANDARD_SET) < set(STRONG_SET) and len(set(STRONG_SET)) == len(STRONG_SET)
    assert max(counter.passes for counter in counters) <= 4
    assert not any(counter.knows_method for counter in counters)
    for needed in ("adversarial-training-2", "adversarial-training-8", "fine-tuning"):
        assert needed in STRONG_SET


def test_ones_own_comes_before_that_of_a_set(images, pixel, trained):
    own = dataclasses.replace(countermeasure("median-filter"), kernel_size=5)
    for chosen in (["adaptive", own], [own, "adaptive"]):
        report = run(images, pixel, countermeasures=chosen)
        (entry,) = [e for e in report.countermeasures if e["name"] == "median-filter"]
        assert entry["parameters"]["kernel_size"] == 5


def test_an_evaluation_takes_no_set(images):
    for name in ("standard", "strong", "adaptive"):
        with pytest.raises(ValueError, match=f"one countermeasure, got the set '{name}'"):
            ue.evaluate(*images, "tiny", countermeasure=name, device="cpu", progress=False)


def test_fine_tuning_from_other_images_is_another_cell(images, pixel, trained, tmp_path):
    starts = [FineTuning(Shapes(size=size, seed=2), 1) for size in (8, 9)]
    run(images, pixel, countermeasures=starts[:1], folder=tmp_path / "a")
    report = run(images, pixel, countermeasures=starts, folder=tmp_path / "a")
    content = json.loads((tmp_path / "a" / "audit.json").read_text())
    assert len(report.cells) == len(content["cells"]) == len(trained) == 6
    for start in starts:
        assert f"protected, {start.name}, tiny, seed 0" in content["cells"]
        assert start.digest in content["countermeasures"][start.name]["dataset"]


def test_a_victim_that_cannot_be_fine_tuned_is_refused_before_anything_is_trained(
    images, pixel, trained
):
    with pytest.raises(ValueError, match="Linear layer"):
        run(
            images, pixel, victims=["tiny", "torchvision:squeezenet1_1"],
            countermeasures=["fine-tuning"],
        )  # fmt: skip
    assert not trained


@dataclasses.dataclass(frozen=True)
class Twice(JPEG):
    times: int = 2


def test_another_audits_folder_is_refused(images, pixel, trained, tmp_path):
    folder = tmp_path / "a"
    run(images, pixel, folder=folder)
    kept = (folder / "audit.json").read_bytes()
    other = OPS(seed=1, pixels=2).fit(images[0], device="cpu", progress=False).perturbation_
    for changed, message in (
        ({"epochs": 3}, "epochs"),
        ({"batch_size": 64}, "batch_size"),
        ({"peak_images": 10}, "peak_images"),
    ):
        with pytest.raises(ValueError, match=f"that of this audit.*{message}"):
            run(images, pixel, folder=folder, **changed)
    with pytest.raises(ValueError, match="perturbation"):
        run(images, other, folder=folder)
    with pytest.raises(ValueError, match="test"):
        run((images[0], Shapes(train=False, size=20)), pixel, folder=folder)
    with pytest.raises(ValueError, match="dataset"):
        run((Shapes(size=50), images[1]), pixel, folder=folder)
    with pytest.raises(ValueError, match="jpeg-10"):
        run(images, pixel, folder=folder, countermeasures=[Twice(10)])
    assert (folder / "audit.json").read_bytes() == kept
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a.txt").write_text("keep")
    with pytest.raises(FileExistsError):
        run(images, pixel, folder=tmp_path / "mine")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"countermeasures": ["jpeg"]}, "jpeg-QUALITY"),
        ({"victims": ["resnet19"]}, "tiny"),
        ({"victims": []}, "victims"),
        ({"epochs": 0}, "epoch"),
        ({"seeds": 0}, "seed"),
        ({"precision": "fp16"}, "bf16"),
        ({"image_size": 0}, "image_size"),
        ({"held_out": True}, "held_out"),
        *[
            ({name: value}, name)
            for name in ("epochs", "seeds", "batch_size", "peak_images", "image_size")
            for value in (True, 1.5, "1")
        ],
        *[({name: None}, name) for name in ("seeds", "held_out")],
        ({"seeds": [0, True]}, "seeds"),
    ],
)
def test_bad_arguments_are_explained_before_anything_is_trained(
    images, pixel, trained, tmp_path, options, message
):
    with pytest.raises(ValueError, match=message):
        run(images, pixel, folder=tmp_path / "a", **options)
    assert not trained and not (tmp_path / "a").exists()


def test_what_does_not_belong_together_is_refused(images, pixel, fit, trained, tmp_path):
    train, test = images
    noise = torch.zeros(30, 3, 32, 32, dtype=torch.uint8)
    pixels = torch.from_numpy(train.data).permute(0, 3, 1, 2)
    named = Shapes(train=False, size=10)
    named.classes = ["other", *Shapes.classes[1:]]
    cases = [
        ((train, (noise[:, :, :16, :16], [0] * 30)), pixel, "shape"),
        ((train, (noise, [10] * 30)), pixel, "10 classes"),
        ((train, ProtectedDataset(train, pixel)), pixel, "clean test images"),
        ((train, named), pixel, "other"),
        ((train, (noise[:0], [])), pixel, "empty"),
        ((train, torch.utils.data.Subset(test, [])), pixel, "empty"),
        ((train, test), None, "expected a perturbation"),
        (((pixels[:5], [0, 1, 2, 3, 9]), test), fit((pixels[:5], [0, 1, 2, 3, 9])), "5 images"),
        ((ProtectedDataset(train, pixel), test), fit(train), "its own"),
    ]
    for datasets, perturbation, message in cases:
        with pytest.raises(ValueError, match=message):
            run(datasets, perturbation, folder=tmp_path / "a")
    # One image out of all is not the one that was fitted, between those that are peeked at.
    other = Shapes(size=64)
    many = torch.utils.data.ConcatDataset([other] * 3)
    perturbation = fit(other)
    strange = Shapes(size=192)
    with pytest.raises(UnknownImageError):
        run((strange, test), perturbation, folder=tmp_path / "a")
    assert run((many, test), perturbation).complete
    assert not (tmp_path / "a").exists()


def test_an_unknown_image_between_those_that_are_peeked_at_is_found(images, fit, trained):
    base = Shapes(size=200)
    perturbation = fit(base)
    base.data = base.data.copy()
    peeked = set(np.linspace(0, 199, 64).astype(int).tolist())
    base.data[next(i for i in range(200) if i not in peeked)] ^= 1
    with pytest.raises(UnknownImageError):
        run((base, images[1]), perturbation)
    assert not trained


def test_without_a_test_set_a_share_is_held_out_by_content(pixel, trained):
    base = Shapes(size=64)
    kept, held = split(RawDataset(base).keys, 0.25)
    assert sorted(kept + held) == list(range(64)) and 12 <= len(held) <= 20
    order = np.random.default_rng(0).permutation(64).tolist()
    shuffled, moved = split(RawDataset(Subset(base, order)).keys, 0.25)
    assert {order[i] for i in moved} == set(held) and {order[i] for i in shuffled} == set(kept)
    twice, again = split(RawDataset(torch.utils.data.ConcatDataset([base, base])).keys, 0.25)
    assert not {i % 64 for i in twice} & {i % 64 for i in again}
    report = run((base, None), pixel, held_out=0.25)
    assert report.test["held_out"] == 0.25 and report.test["overlap"] == 0
    assert report.dataset["images"] == len(kept) and report.test["images"] == len(held)
    pair = (torch.from_numpy(base.data).permute(0, 3, 1, 2), base.targets)
    assert run((pair, None), pixel, held_out=0.25).test["digest"] == report.test["digest"]
    for share in (0, 1, -0.1, 0.001):
        with pytest.raises(ValueError, match="hold out"):
            run((base, None), pixel, held_out=share)


def test_a_protected_dataset_keeps_its_fraction(images, pixel, trained):
    half = ProtectedDataset(images[0], pixel, fraction=0.5, seed=3)
    report = run((half, images[1]), None)
    assert report.dataset["fraction"] == 0.5
    assert report.change["share"] < run(images, pixel).change["share"]


def test_test_images_that_were_trained_on_are_messages(images, pixel, trained, caplog):
    report = run((images[0], images[0]), pixel)
    assert report.test["overlap"] == 64 and "64 of the test images" in caplog.text


def test_photos_of_a_perturbation_with_a_size_are_resized_alike(
    varying_folder, fit, trained, tmp_path
):
    perturbation = fit(varying_folder, image_size=8)
    report = run((varying_folder, varying_folder), perturbation)
    assert report.settings["image_size"] == [8, 8]
    with pytest.raises(ValueError, match="image_size of the perturbation"):
        run((varying_folder, varying_folder), perturbation, image_size=6)
    whole = ProtectedDataset(varying_folder, perturbation, full_size=True)
    report = run((whole, varying_folder), None, image_size=10, folder=tmp_path / "a")
    assert report.complete and report.settings["image_size"] == [10, 10]
    with pytest.raises(ValueError, match="full_size"):
        run((varying_folder, varying_folder), perturbation, folder=tmp_path / "a")


class Cranes(Dataset):
    """Of ImageNet's classes two are called crane."""

    classes = ("crane", "dog", "crane")

    def __init__(self, base):
        self.base = base

    def __len__(self):
        return len(self.base)

    def __getitem__(self, index):
        return self.base[index][0], index % 3


def test_the_change_of_classes_with_one_name_is_shown_for_each(images, fit, trained):
    train, test = map(Cranes, images)
    report = run((train, test), fit(train))
    assert list(report.change_by_class) == ["crane", "dog", "crane (2)"]
    assert [example["label"] for example in report.examples] == ["crane", "dog", "crane (2)"]
    assert sum(change["images"] for change in report.change_by_class.values()) == len(train)


def test_countermeasures_of_one_name_must_be_the_same(images, pixel, trained):
    sharper = countermeasure("sharpening")
    assert run(images, pixel, countermeasures=["sharpening", sharper]).planned == 4
    with pytest.raises(ValueError, match="countermeasures with different names"):
        run(images, pixel, countermeasures=[sharper, dataclasses.replace(sharper, centre=3)])


@dataclasses.dataclass(frozen=True)
class Namesake(HalfOfThem):
    """Copied from another one, whose name it still has."""


class Undecorated(Countermeasure):
    name, description = "plain", "a victim with something that is no field"

    def __init__(self, something):
        self.something = something


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ([HalfOfThem(), Namesake()], r"half as HalfOfThem\(\) and as Namesake\(\)"),
        ([Undecorated(1), Undecorated(2)], "different names, got plain"),
        ([type("Own", (HalfOfThem,), {"name": "none"})()], 'another name than "none"'),
    ],
)
def test_no_countermeasure_of_ones_own_is_left_out_in_silence(
    images, pixel, trained, chosen, message
):
    assert run(images, pixel, countermeasures=[HalfOfThem(), HalfOfThem()]).planned == 4
    trained.clear()
    with pytest.raises(ValueError, match=message):
        run(images, pixel, countermeasures=chosen)
    assert not trained


def looked_at(reads):
    """Items that are read besides, to see whether they are the same each time."""
    return [0, len(reads) // 2, len(reads) - 1]


def assert_read_once(reads):
    assert set(np.delete(reads, looked_at(reads)).tolist()) == {1}


def test_every_image_is_decoded_once(images, pixel):
    train, test = map(Counting, images)
    protected = ProtectedDataset(train, pixel)
    train.reads[:] = 0
    report = run(
        (protected, test), None, epochs=1, batch_size=32,
        countermeasures=["jpeg-10", "unprotected-20", "clean-part-only-20"],
    )  # fmt: skip
    assert len(report.cells) == 6
    assert_read_once(train.reads)
    assert_read_once(test.reads)


def test_what_is_held_out_takes_one_more_reading(pixel, trained):
    train = Counting(Shapes(size=200))
    half = ProtectedDataset(train, pixel, fraction=0.5)
    train.reads[:] = 0
    report = run((half, None), None)
    peeked = 64  # when the images to train on are wrapped
    reads = np.delete(train.reads, looked_at(train.reads))
    assert reads.min() == 2 and 0 <= 2 * len(reads) + peeked - reads.sum() <= 3
    assert report.dataset["fraction"] == 0.5
    assert report.change["share"] < run((train, None), pixel).change["share"]


def test_a_clean_victim_gets_the_images_that_were_read(images, pixel):
    data = read_audit_data(
        images[0], pixel, images[1], held_out=0.2, image_size=None, progress=False
    )  # fmt: skip
    clean = data.training_images(CLEAN, countermeasure(None))
    assert clean.images.data_ptr() == data.clean.images.data_ptr()
    assert torch.equal(clean.images, read_images(images[0]).images)
    assert clean.digest == read_images(images[0]).digest


@pytest.mark.parametrize("held", ["mine.txt", "audit.json"])
def test_a_folder_is_refused_before_anything_is_measured(
    held, images, pixel, tmp_path, monkeypatch
):
    (tmp_path / held).write_text('{"format": "unlearnable-audit"}')
    with monkeypatch.context() as patched:
        patched.setattr(AuditData, "examples", lambda self: pytest.fail("images were rendered"))
        patched.setattr(AuditData, "change", lambda self: pytest.fail("images were compared"))
        with pytest.raises((FileExistsError, ue.ArtefactError)):
            run(images, pixel, folder=tmp_path)


def test_cells_say_their_precision(images, pixel, tmp_path):
    report = run(images, pixel, countermeasures=[], epochs=1, precision="float32", folder=tmp_path)
    assert [cell.machine["precision"] for cell in report.cells] == ["float32"] * 2
    assert "threads, float32" in report.to_markdown() and "threads, float32" in report.to_html()
    other = dataclasses.replace(
        report.cells[1], machine=report.cells[1].machine | {"precision": "bf16"}
    )
    report = dataclasses.replace(report, cells=[report.cells[0], other])
    assert "threads, float32; " in report.to_markdown() and "threads, bf16" in report.to_html()


@pytest.mark.parametrize("name", ["unprotected-20", "clean-part-only-20", "half"])
def test_images_chosen_among_those_that_were_read_are_those_of_the_dataset(images, fit, name):
    counter = HalfOfThem() if name == "half" else countermeasure(name)
    train = Counting(images[0])
    given = ProtectedDataset(train, fit(train), fraction=0.7, seed=3)
    data = read_audit_data(
        given, None, images[1], held_out=0.2, image_size=None, progress=False
    )  # fmt: skip
    train.reads[:] = 0
    found = data.training_images(PROTECTED, counter)
    assert not train.reads.any()
    expected = read_images(counter.on_dataset(given))
    assert torch.equal(found.images, expected.images)
    assert torch.equal(found.labels, expected.labels)
    assert found.num_classes == expected.num_classes == 10


def test_grey_images_that_a_perturbation_colours_are_read_in_colour(fit, tensors):
    images, labels = tensors
    grey = images[:, :1].clone()
    keyed = fit((grey.expand(-1, 3, -1, -1).contiguous(), labels))
    data = read_audit_data(
        (grey, labels), keyed, tensors, held_out=0.2, image_size=None, progress=False
    )  # fmt: skip
    assert data.clean.images.shape == data.protected.images.shape == (20, 3, 8, 8)
    assert torch.equal(data.clean.images, grey.expand(-1, 3, -1, -1))


@dataclasses.dataclass(frozen=True)
class Others(Countermeasure):
    """A trainer who takes other images, and paints over them."""

    name = "others"
    description = "a victim that has other images"

    def on_dataset(self, dataset):
        return Shapes(size=24, seed=5)

    def on_images(self, images, labels):
        return images.fill_(0)


def test_a_countermeasure_with_images_of_its_own_counts_in_the_worst_case(images, pixel):
    """Those are read, and what the others train on is left as it was."""
    data = read_audit_data(
        images[0], pixel, images[1], held_out=0.2, image_size=None, progress=False
    )  # fmt: skip
    found = data.training_images(PROTECTED, Others())
    assert torch.equal(found.images, read_images(Shapes(size=24, seed=5)).images)
    before = data.clean.images.clone()
    cell = plan([Others()], ["tiny"], [0])[1]
    training = Training.checked(STANDARD, 1, 1, 8, None, "cpu", "float32")
    module.measure_cell(cell, data.clean, data.test, 1, training=training)
    assert torch.equal(data.clean.images, before)


def test_a_choice_of_images_counts_in_the_worst_case_unless_it_needs_clean_ones(
    images, pixel, trained, monkeypatch
):
    peaks = {"none": 0.2, "half": 0.8, "leak": 0.9}
    measure = module.measure_cell

    def chosen(planned, *args, **options):
        peak = peaks[planned.countermeasure.name] if planned.trained_on == PROTECTED else 0.95
        return dataclasses.replace(measure(planned, *args, **options), peak=peak)

    monkeypatch.setattr(module, "measure_cell", chosen)
    report = run(images, pixel, countermeasures=[HalfOfThem(), Leak()])
    assert len(report.cells) == 5 and (CLEAN, "half", "tiny", "seed 0") in trained
    assert report.worst().countermeasure == "half" and report.outcome() == "broken"
    assert [entry["needs_clean"] for entry in report.countermeasures] == [False, False, True]


def test_what_is_timed_is_what_the_countermeasure_says(images, pixel):
    data = read_audit_data(
        images[0], pixel, images[1], held_out=0.2, image_size=None, progress=False
    )  # fmt: skip
    asked = set()

    def measure(planned, train, test, epochs):
        asked.add(planned.countermeasure.name)
        return Cell(CLEAN, "none", "tiny", 0, 0.5, 0.5, 0.5, [0.5], 1.0)

    counters = [HalfOfThem(), FineTuning(), countermeasure("unprotected-20")]
    for counter in counters:
        probe(
            Clock([], {}), plan([counter], ["tiny"], [0]), data, measure, epochs=1, batch_size=8
        )  # fmt: skip
    assert asked == {"half", "none"}


def test_numbers_of_numpy_are_those_of_python(images, pixel, tmp_path):
    options = {"countermeasures": ["adversarial-training-4-steps-1"], "folder": tmp_path / "a"}
    first = run(images, pixel, epochs=1, seeds=[0], batch_size=32, peak_images=8, **options)
    kept = (tmp_path / "a" / "audit.json").read_bytes()
    own = AdversarialTraining(np.float64(4), steps=np.int64(1))
    again = run(
        images, pixel, epochs=np.int64(1), seeds=np.arange(1), batch_size=np.int32(32),
        peak_images=np.uint8(8), image_size=np.int64(32),
        **options | {"countermeasures": [own], "folder": tmp_path / "b"},
    )  # fmt: skip
    assert untimed(again).cells == untimed(first).cells
    assert json.loads((tmp_path / "b" / "audit.json").read_text())["cells"].keys() == (
        json.loads(kept)["cells"].keys()
    )
    assert type(own.parameters["radius"]) is float and type(own.parameters["steps"]) is int
    assert run(images, pixel, epochs=1, seeds=1, batch_size=32, peak_images=8, **options) == first


def test_the_clock_prefers_what_was_measured():
    none, jpeg = (PlannedCell(PROTECTED, countermeasure(n), "tiny", 0) for n in ("none", "jpeg-10"))
    clock = Clock([], {})
    clock.expect(none.kind, 10.0)
    clock.expect(jpeg.kind, 20.0)
    assert clock.left([none, jpeg, jpeg]) == 50
    clock.took(none, 5.0)  # twice as fast as expected, and so is the rest
    assert clock.left([none, jpeg]) == 15
    clock.took(jpeg, 30.0)
    assert clock.left([none, jpeg]) == 35
    assert clock.knows(none.kind) and not clock.knows(("x", "tiny"))


def test_the_estimate_tells_epochs_from_what_is_done_once(images, pixel):
    data = read_audit_data(
        images[0], pixel, images[1], held_out=0.2, image_size=None, progress=False
    )  # fmt: skip
    cells = plan([countermeasure(None), countermeasure("jpeg-10"), Leak()], ["tiny"], [0])
    asked = []

    def measure(planned, train, test, epochs):
        assert train.classes == test.classes == Shapes.classes
        asked.append((planned.trained_on, planned.countermeasure.name, len(train.labels), epochs))
        seconds = {"none": 0.5, "jpeg-10": 2.0}[planned.countermeasure.name] + epochs
        return Cell(CLEAN, "none", "tiny", 0, 0.5, 0.5, 0.5, [0.5], seconds)

    clock = Clock([], {})
    probe(clock, cells, data, measure, epochs=10, batch_size=16)
    assert {(kind, n) for kind, _, n, _ in asked} == {(CLEAN, 32)}
    # Twice as many images as were timed.
    assert clock.left([c for c in cells if c.trained_on == CLEAN]) == 2 * (0.5 + 10 + 2 + 10)
    assert clock.left(cells[-1:]) == 2 * (0.5 + 10)  # the trainer's choice of images takes no time


def test_the_estimate_of_updates_that_do_not_grow_with_the_images(images, pixel, monkeypatch):
    data = read_audit_data(
        images[0], pixel, images[1], held_out=0.2, image_size=None, progress=False
    )  # fmt: skip
    updates = []

    def learn(run, *args, epochs, batch_size, **options):
        updates.append(epochs * run.batches_per_epoch(batch_size))

    def measure(planned, train, test, epochs):
        pixels = torch.zeros(len(train.labels), 3, 2, 2, dtype=torch.uint8)
        planned.countermeasure.regression(pixels, torch.arange(len(train.labels)) % 10)
        return Cell(CLEAN, "none", "tiny", 0, 0.5, 0.5, 0.5, [0.5], updates[-1] + epochs)

    monkeypatch.setattr(projection, "train_surrogate", learn)
    counter = OrthogonalProjection(epochs=1, min_updates=64, batch_size=8)
    whole = plan([counter], ["tiny"], [0])[0]
    assert measure(whole, data.clean, data.test, 0).seconds == 64
    clock = Clock([], {})
    probe(clock, [whole], data, measure, epochs=10, batch_size=16)
    assert set(updates[1:]) == {32}  # on 32 of the 64 images
    assert clock.left([whole]) == 64 + 2 * 10
    assert OrthogonalProjection().for_timing(256, 50_000).epochs == 20
    assert OrthogonalProjection().for_timing(256, 256).epochs == 960


def test_what_is_timed_has_the_classes_of_all_images(fit):
    """Also where no image of a class is among those that are timed."""
    pixels = torch.randint(0, 256, (20, 3, 8, 8), generator=torch.Generator().manual_seed(0))
    pixels = pixels.to(torch.uint8)
    labels = [0, 2, *[0, 1] * 9]
    data = read_audit_data(
        (pixels, labels), fit((pixels, labels)), (pixels, [2] * 20), held_out=0.2,
        image_size=None, progress=False,
    )  # fmt: skip

    def measure(planned, train, test, epochs):
        assert train.num_classes == 3 and 2 not in train.labels and 2 in test.labels
        victim = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
        training = Training.checked(STANDARD, 1, 1, 8, None, "cpu", "float32")
        assert train_victims(train, test, victim, planned.countermeasure, training).losses
        return Cell(CLEAN, "none", "tiny", 0, 0.5, 0.5, 0.5, [0.5], 1.0)

    cells = plan([countermeasure(None)], ["tiny"], [0])
    clock = Clock([], {})
    probe(clock, cells, data, measure, epochs=1, batch_size=2)
    assert clock.knows(cells[0].kind)


def test_the_ledger_is_plain_json(images, pixel, trained, tmp_path):
    run(images, pixel, folder=tmp_path / "a")
    content = json.loads((tmp_path / "a" / "audit.json").read_text())
    assert content["format"] == "unlearnable-audit" and len(content["cells"]) == 6
    assert content["identity"]["perturbation"] == pixel.digest


def test_cells_keep_their_machine_and_those_of_another_version_are_refused(
    images, pixel, trained, tmp_path, monkeypatch
):
    folder = tmp_path / "a"
    run(images, pixel, countermeasures=[], folder=folder)
    here = module._machine(torch.device("cpu"))
    monkeypatch.setattr(module, "_machine", lambda place: here | {"device": "GPU <9>"})
    report = run(images, pixel, folder=folder)
    assert [cell.machine["device"] for cell in report.cells[1:3]] == [here["device"], "GPU <9>"]
    assert report.machines == [here, here | {"device": "GPU <9>"}]
    assert f"{here['threads']} threads; GPU" in report.to_markdown()
    assert report.to_markdown().count(f"torch {torch.__version__}") == 1
    assert "GPU &lt;9&gt;" in report.to_html() and ue.AuditReport.load(folder) == report
    content = json.loads((folder / "audit.json").read_text())
    for machine in ({"unlearnable": "0.0.1"}, None):
        changed = json.loads(json.dumps(content))
        cell = changed["cells"]["clean, jpeg-10, tiny, seed 0"]
        del cell["machine"]
        if machine is not None:
            cell["machine"] = machine
        kept = json.dumps(changed)
        (folder / "audit.json").write_text(kept)
        measured_by = "0.0.1" if machine else "an unknown version"
        with pytest.raises(ValueError, match=rf"{measured_by} .*jpeg-10.*--out"):
            run(images, pixel, folder=folder)
        assert (folder / "audit.json").read_text() == kept


def test_a_folder_in_use_or_damaged_is_refused(images, pixel, trained, tmp_path):
    folder = tmp_path / "a"
    run(images, pixel, folder=folder)
    with locked(folder, wait=False), pytest.raises(RuntimeError, match="no other process"):
        run(images, pixel, folder=folder)
    (folder / "audit.json").write_text('{"format": "unlearnable-audit"}')
    with pytest.raises(ue.ArtefactError, match=r"audit\.json"):
        run(images, pixel, folder=folder)
    (folder / "report.json").write_text("{}")
    with pytest.raises(ue.ArtefactError, match=r"report\.json"):
        ue.AuditReport.load(folder)


def test_a_countermeasure_that_cannot_choose_is_refused_before_any_training(monkeypatch):
    data = Shapes(size=20)
    perturbation = ue.OPS().fit(data, progress=False).perturbation_
    monkeypatch.setattr(module, "measure_cell", None)
    with pytest.raises(ValueError, match="leave one unprotected"):
        ue.audit(
            data, perturbation, data, victims="tiny", countermeasures=["none", Unprotected(0.5)],
            progress=False,
        )  # fmt: skip


def test_pairs_are_of_the_images_that_were_chosen():
    found = []

    @dataclasses.dataclass(frozen=True)
    class Reversed(Countermeasure):
        name = "reversed"
        description = "a victim that has pairs of some images"
        takes_pairs = True

        def on_dataset(self, dataset):
            return Subset(dataset, list(reversed(range(16))))

        def on_pairs(self, images, originals, labels, device):
            found.append((images.int() - originals.int()).abs().max().item())
            return images

    data = Shapes(size=20)
    perturbation = ue.RandomNoise().fit(data, progress=False).perturbation_
    ue.audit(
        data, perturbation, Shapes(train=False, size=20), victims="tiny", progress=False,
        countermeasures=[Reversed()], epochs=1, precision="float32",
    )  # fmt: skip
    assert 0 < max(found) <= 8
