"""Plans for folders of photos: what is chosen by what it costs, and what is said of it."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import unlearnable as ue
from unlearnable.data.image_folder import open_folder, survey_folder
from unlearnable.photos import choice, costs
from unlearnable.photos import plan as plans
from unlearnable.photos.others import joined
from unlearnable.photos.plan import Plan, plan_photos

RNG = np.random.default_rng(0)


def folder(path, count, classes=("cat", "dog"), size=(40, 40)):
    for index in range(count):
        place = path / classes[index % len(classes)] if classes else path
        place.mkdir(parents=True, exist_ok=True)
        pixels = RNG.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(place / f"{index}.png")
    return path


@pytest.fixture
def photos(tmp_path):
    return open_folder(folder(tmp_path / "photos", 12))


def planned(monkeypatch, dataset, *, seconds, photos=None, side=400, **options):
    """A plan where a pass at 224 pixels takes so many seconds; ``side`` is that of photos."""
    count = photos or len(dataset)
    monkeypatch.setattr(
        choice,
        "measure_learning",
        lambda network, *_: costs.Learning(seconds * (10 if network == "resnet9" else 1), 224, 1),
    )
    monkeypatch.setattr(plans, "measure_writing", lambda *_: costs.Writing(1.0, 10**8))
    survey = survey_folder(dataset)._replace(photos=count, sizes={(side, side + 8): count})
    if photos is not None:
        monkeypatch.setattr(type(dataset), "__len__", lambda self: count)
    return plan_photos(dataset, survey, **options)


@pytest.mark.parametrize(("count", "most"), [(100, 300), (1000, 1800)])
@pytest.mark.parametrize("seconds", [1e-5, 0.01, 0.03, 0.1])
def test_what_is_chosen_ends_in_time(monkeypatch, photos, count, most, seconds):
    plan = planned(monkeypatch, photos, photos=count, seconds=seconds)
    assert plan.seconds <= most
    assert type(plan.method) is ue.SEM and plan.images == count


def test_slower_machines_search_less_and_then_learn_smaller(monkeypatch, photos):
    found = [planned(monkeypatch, photos, photos=100, seconds=s) for s in (1e-5, 0.01, 0.02, 0.1)]
    assert [plan.method.surrogate for plan in found] == ["resnet9", "tiny", "tiny", "tiny"]
    visits = [plan.method.visits for plan in found]
    assert visits[0] == 60 > visits[1] > visits[2] >= 24
    assert [plan.image_size for plan in found] == sorted(
        (plan.image_size for plan in found), reverse=True
    )
    assert found[0].image_size == 224 > found[-1].image_size


def test_few_photos_are_learned_in_small_batches(monkeypatch, photos):
    steps = {}
    for count in (16, 100, 1000, 5000):
        method = planned(monkeypatch, photos, photos=count, seconds=0.005).method
        steps[count] = method._updates(count)
        searched = count if method.search_images is None else min(count, method.search_images)
        assert searched == min(count, 2000)
    assert min(steps.values()) >= 30 and steps[100] >= 100


def test_what_was_said_wins(monkeypatch, photos):
    plan = planned(monkeypatch, photos, seconds=0.01, params={"epsilon": 4 / 255, "visits": 3.0})
    assert plan.method.epsilon == 4 / 255 and plan.method.visits == 3
    plan = planned(monkeypatch, photos, seconds=0.01, method=ue.SEM, preset="demo")
    assert plan.method.get_params() == ue.SEM.preset("demo").get_params()
    plan = planned(monkeypatch, photos, seconds=0.01, method=ue.EM, image_size=48)
    assert type(plan.method) is ue.EM and plan.image_size == 48
    plan = planned(monkeypatch, photos, seconds=0.01, visibility="high")
    assert plan.visibility == "high" and "up to 4 of 255" in "\n".join(plan.sentences())
    method = ue.SEM.preset("demo", visits=2.0)
    assert planned(monkeypatch, photos, seconds=0.01, method=method).method is method


def test_photos_of_one_small_size_are_learned_as_they_are(photos):
    plan = plan_photos(photos, survey_folder(photos), method=ue.RandomNoise)
    assert plan.image_size is None
    assert plan.fit(photos, progress=False).perturbation_.config["preprocessing"] is None


def test_a_plan_is_measured_and_fits(photos):
    plan = plan_photos(photos, survey_folder(photos), params={"visits": 1.0}, device="cpu")
    assert 0 < plan.seconds < 300 and plan.memory > 10**8
    shares = []
    method = plan.fit(photos, progress=shares.append)
    assert method is plan.method and len(method.perturbation_) == 12
    assert method.perturbation_.config["visibility"]["level"] == "low"
    assert shares == sorted(shares) and shares[0] > 0 and shares[-1] <= 1
    again = Plan.from_dict(json.loads(json.dumps(plan.to_dict())), photos)
    assert again.to_dict() == plan.to_dict() and again.classes == {"cat": 6, "dog": 6}


def test_damaged_photos_are_all_named_by_the_plan(photos):
    bad = [path for path, _ in photos.samples[:2]]
    for path in bad:
        Path(path).write_bytes(Path(path).read_bytes()[:-2000])
    survey = survey_folder(photos, decode=False)
    with pytest.raises(ValueError, match="2 bad files") as caught:
        plan_photos(photos, survey, params={"visits": 60.0}, image_size=40)
    assert all(path in str(caught.value) for path in bad)


def test_levels_are_said_where_they_are_known(monkeypatch, photos):
    usual = planned(monkeypatch, photos, seconds=0.01).sentences()[1]
    assert "at most 1 of 255 brightness levels" in usual
    for options in ({"params": {"epsilon": 4 / 255}}, {"method": ue.LSP}):
        said = planned(monkeypatch, photos, seconds=0.01, **options).sentences()[1]
        assert said.endswith("such as sky or skin, pixels change least.")


def test_what_is_computed_is_not_called_learned(monkeypatch, photos):
    said = planned(monkeypatch, photos, seconds=0.01, method=ue.LSP).sentences()[2]
    assert "is computed" in said and "learn" not in said and "network" not in said


def test_one_kind_gets_what_is_computed(tmp_path):
    for classes in ((), ("me",)):
        dataset = open_folder(folder(tmp_path / str(len(classes)), 3, classes))
        plan = plan_photos(dataset, survey_folder(dataset))
        assert type(plan.method) is ue.LSP
        said = "\n".join(plan.sentences())
        assert "--others" in said and "cannot be measured" in said
        assert len(plan.fit(dataset, progress=False).protect(dataset)) == 3


def test_others_are_learned_against_and_not_kept(tmp_path):
    dataset = open_folder(folder(tmp_path / "mine", 9, ()))
    others = open_folder(folder(tmp_path / "others", 9, ()))
    options = {"params": {"visits": 1.0}, "device": "cpu", "others": others}
    plan = plan_photos(dataset, survey_folder(dataset), **options)
    assert type(plan.method) is ue.SEM and "9 other pictures" in plan.sentences()[0]
    method = plan.fit(dataset, progress=False)
    learned = method.perturbation_
    assert len(learned) == 9 and learned.config["classes"] == ["photos"]
    assert method.surrogate_ is None and learned.config["source"]["images"] == 9
    assert len(method.protect(dataset)) == 9
    with pytest.raises(ue.UnknownImageError):
        method.protect(others)
    with pytest.raises(ValueError, match="LSP, which learns nothing"):
        plan_photos(dataset, survey_folder(dataset), method=ue.LSP, others=others)


def test_of_many_others_some_are_taken(tmp_path):
    mine = open_folder(folder(tmp_path / "mine", 40, ("others",)))
    others = open_folder(folder(tmp_path / "others", 200, ("a", "others"), size=(4, 4)))
    both = joined(mine, others)
    assert len(both) == 40 + 80 and len(both.samples) == len(both.targets)
    assert both.classes == ["others", "a", "other others"] and set(both.targets) == {0, 1, 2}
    assert len(mine) == 40 and mine.classes == ["others"]


def test_photos_among_the_others_are_left_out(tmp_path):
    mine = open_folder(folder(tmp_path / "mine", 6, ()))
    others = folder(tmp_path / "others", 9, (), size=(9, 9))
    for path, _ in mine.samples:
        shutil.copy(path, others / f"copy-{Path(path).name}")
    both = joined(mine, open_folder(others))
    assert len(both) == 6 + 9 and not any("copy-" in path for path, _ in both.samples)


def test_few_photos_make_small_batches(monkeypatch, photos):
    learning = costs.Learning(1e-4, 64, 10**8)
    monkeypatch.setattr(choice, "measure_learning", lambda *_: learning)
    monkeypatch.setattr(choice, "_TINY", 0)  # so little work is not estimated otherwise
    few, many = (
        choice.Choice(torch.utils.data.Subset(photos, [0] * count), [64], 1e9, "cpu", "float32")
        for count in (2, 12)
    )
    method = ue.SEM.preset("demo")
    assert method.batch_size > 12
    assert few.of_size(method).memory < 0.5 * many.of_size(method).memory


def test_the_plan_in_words(monkeypatch, photos):
    said = planned(monkeypatch, photos, photos=100, seconds=0.01).sentences()
    assert "cat, dog" in said[0] and "untouched" in said[1]
    assert (
        "reduced to 224 pixels" in said[2]
        and "min to learn" in said[2]
        and "GB of memory" in said[2]
    )
    assert any("image generators" in line for line in said)
    assert "cannot be measured with so few photos" in said[-1]
    text = "\n".join(said).lower()
    assert not any(word in text for word in ("surrogate", "pgd", "epoch", "batch"))


def test_noise_is_not_called_a_protection(photos):
    plan = plan_photos(photos, survey_folder(photos), method=ue.RandomNoise)
    assert "does not protect" in plan.sentences()[-1]


def test_enough_photos_can_be_measured(monkeypatch, photos):
    monkeypatch.setattr(plans, "_classes", lambda dataset: {"cat": 100, "dog": 110})
    plan = planned(monkeypatch, photos, photos=210, seconds=0.02)
    assert not any("cannot be measured" in line for line in plan.sentences())


def test_unknown_times_are_said_to_be(photos):
    plan = Plan(ue.SEM(), 32, "low", 2, math.nan, 10**9, {"cat": 1, "dog": 1})
    assert "how long it takes is not known" in plan.sentences()[2]
    assert math.isnan(Plan.from_dict(plan.to_dict(), photos).seconds)
