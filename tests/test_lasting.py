"""Parts on top of rows, and the methods that have one: Lasting and DUNE."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import ImageFolder

import unlearnable as ue
from unlearnable import Perturbation, ProtectedDataset
from unlearnable.cli.main import main
from unlearnable.data.image import pixels_of
from unlearnable.data.image_folder import open_folder, survey_folder
from unlearnable.datasets import Shapes
from unlearnable.perturbation.card import write_card
from unlearnable.photos.plan import Plan, plan_photos

QUIET = {"device": "cpu", "precision": "float32", "progress": False}
SHORT = {"train_epochs": 2, "checkpoints": 2, "batch_size": 16, "surrogate": "tiny"}
SWARM = {"particles": 3, "iterations": 2, "class_images": 3}
NEW = Shapes(size=12, seed=7)
FIELD, GRATING = 12, 20


class Topped(ue.RandomNoise):
    """Random rows, and whatever is laid on top of them."""

    kind = "stack"

    def _learn(self, run):
        super()._learn(run)
        colours = torch.linspace(-1, 1, 3 * run.num_classes).reshape(-1, 3) / 5
        run.on_top("shift", colours=colours, epsilon=12 / 255)
        rows = torch.full((run.num_classes, *run.images.shape[1:]), 1.0)
        run.on_top("class-wise", rows=rows, epsilon=2 / 255)


def fit(method, dataset=None, **options):
    return method.fit(dataset or Shapes(size=40), **QUIET, **options)


def images(dataset, perturbation):
    return ProtectedDataset(dataset, perturbation).to_tensors()[0].numpy()


@pytest.fixture(scope="module")
def lasting():
    return fit(ue.Lasting())


@pytest.fixture(scope="module")
def dune():
    return fit(ue.DUNE.preset("demo", **SHORT, **SWARM, steps=2))


# --- on top --------------------------------------------------------------------------------------


@pytest.mark.parametrize("granularity", ["sample-wise", "class-wise"])
def test_what_lies_on_top_is_done_after_the_rows_and_keeps_its_own_budget(granularity):
    dataset = Shapes(size=40)
    p = fit(Topped(granularity=granularity)).perturbation_
    alone = fit(ue.RandomNoise(granularity=granularity)).perturbation_
    assert [part.name for part in p.parts] == ["additive", "shift", "additive"]
    assert np.asarray(p.parts[0].tensors["rows"]).tobytes() == alone.rows.tobytes()
    colours = p.tensors["1.colours"].astype(int)
    assert colours.min() == -12 and colours.max() == 12 and np.abs(p.tensors["2.rows"]).max() == 2
    assert p.info()["parts"] == [
        f"Topped, {granularity}, Linf 8/255",
        "Topped, class-wise, Linf 12/255",
        "Topped, class-wise, Linf 2/255",
    ]
    assert p.info()["method"] == p.config["method"] == "Topped" and p.granularity == granularity
    labels = np.array(dataset.targets)
    expected = images(dataset, alone).astype(int) + colours[labels][:, :, None, None]
    expected = np.clip(np.clip(expected, 0, 255) + 2, 0, 255)
    np.testing.assert_array_equal(images(dataset, p), expected)


def test_what_was_promised_has_to_be_laid_there():
    class Bare(Topped):
        def _learn(self, run):
            ue.RandomNoise._learn(self, run)

    class Surprise(Topped):
        kind = "additive"

    with pytest.raises(RuntimeError, match=r"run\.on_top\(\.\.\.\) as well in Bare.* got none"):
        fit(Bare())
    with pytest.raises(RuntimeError, match=r"no run\.on_top.* Surprise.*got shift and class-wise"):
        fit(Surprise())


def test_extend_learns_rows_and_keeps_what_lies_on_top(dune, tmp_path):
    new = dune.extend(NEW, progress=False)
    assert [part.name for part in new.parts] == ["additive", "shift"] and len(new) == 12
    assert np.array_equal(new.tensors["1.colours"], dune.perturbation_.tensors["1.colours"])
    assert new.config["method"] == "DUNE" and new.config["source"]["images"] == 12
    assert ProtectedDataset(NEW, new).change().linf > 8
    both = Perturbation.concat([dune.perturbation_, new])
    assert len(both) == 52 and both.config["method"] == "DUNE"
    together = torch.utils.data.ConcatDataset([Shapes(size=40), NEW])
    expected = [images(Shapes(size=40), dune.perturbation_), images(NEW, new)]
    np.testing.assert_array_equal(images(together, both), np.concatenate(expected))
    loaded = Perturbation.from_pretrained(both.save_pretrained(tmp_path / "both"))
    assert loaded.digest == both.digest
    more = dune.extend(Shapes(size=9, seed=8), progress=False)
    assert len(Perturbation.concat([both, more])) == 61


def test_rows_with_other_things_on_top_are_not_joined(dune):
    p = dune.perturbation_
    new = dune.extend(NEW, progress=False)
    top = ue.ColourShift(epsilon=ue.DUNE().colour_epsilon, seed=1)
    other = Perturbation.below(
        Perturbation.of_kind(new.parts[0].tensors, new.parts[0].config),
        fit(top).perturbation_.parts,
    )
    with pytest.raises(ValueError, match=r"same parts .* in number 1"):
        Perturbation.concat([p, other])
    with pytest.raises(ValueError, match=r"got DUNE \(shift\) \+ OPS \(pixel\) in number 1"):
        Perturbation.concat([p, new.then(fit(ue.OPS()).perturbation_)])
    rows = fit(ue.RandomNoise()).perturbation_
    with pytest.raises(ValueError, match="of kind 'stack' as number 1"):
        Perturbation.concat([rows, p])
    with pytest.raises(ValueError, match="different images"):
        Perturbation.concat([p, p])
    twice = p.then(rows)
    with pytest.raises(ValueError, match="same parts for any image"):
        Perturbation.concat([twice, twice])


@pytest.mark.parametrize("name", ["lasting", "dune"])
def test_a_stack_of_stacks_names_each_method_once(name, request):
    method = request.getfixturevalue(name)
    p, name = method.perturbation_, type(method).__name__
    assert p.config["parameters"] == method._identity["parameters"] and p.config["seed"] == 0
    ops = fit(ue.OPS()).perturbation_
    for stack, names in ((p.then(ops), f"{name} + OPS"), (ops.then(p), f"OPS + {name}")):
        assert stack.info()["method"] == names and stack.config["parameters"] == {}
        assert len(stack.parts) == 3
    assert p.then(ops).with_visibility(None).digest == p.then(ops).digest


def test_a_card_has_its_parameters_once(lasting):
    p = lasting.perturbation_
    card = write_card(p.info(), p.config, "owner/p")
    assert card.count("## Parameters") == 1 and f"| field\\_epsilon | {FIELD}/255 |" in card
    assert card.count("@inproceedings") == 1 and f"Lasting, class-wise, Linf {FIELD}/255" in card


# --- Lasting -------------------------------------------------------------------------------------


def test_it_is_gratings_of_a_larger_budget_and_smooth_fields(lasting):
    p = lasting.perturbation_
    budget = GRATING / 255 * (3 * 32 * 32) ** 0.5
    gratings = fit(ue.Gratings(epsilon=budget)).perturbation_
    fields = fit(ue.SmoothFields(epsilon=FIELD / 255)).perturbation_
    assert [part.name for part in p.parts] == ["procedural", "additive"]
    np.testing.assert_array_equal(p.tensors["0.steps"], gratings.tensors["steps"])
    np.testing.assert_array_equal(p.tensors["1.rows"], fields.rows)
    for dataset in (Shapes(size=40), NEW):  # images that it was not fitted on, too
        np.testing.assert_array_equal(images(dataset, p), images(dataset, gratings.then(fields)))
    assert np.abs(p.parts[0].levels(np.zeros(9, int), np.arange(9, dtype=np.uint64))).min() == 20


def test_it_trains_nothing_and_is_saved_and_loaded(lasting, tmp_path):
    assert lasting.surrogate_ is None and lasting.passes(1000) == 0
    assert all(repr(ue.Lasting.preset(name)) == "Lasting()" for name in ue.Lasting.presets)
    lasting.save_pretrained(tmp_path / "m")
    loaded = ue.Lasting.from_pretrained(tmp_path / "m")
    assert loaded.perturbation_.digest == lasting.perturbation_.digest
    with pytest.raises(ValueError, match="covers new images of known classes"):
        lasting.extend(NEW, progress=False)


def test_rows_of_another_method_go_below_it(lasting):
    rows = fit(ue.RandomNoise()).perturbation_
    stack = rows.then(lasting.perturbation_)
    assert [part.name for part in stack.parts] == ["additive", "procedural", "additive"]
    below = images(Shapes(size=40), rows).astype(int)
    assert (np.abs(images(Shapes(size=40), stack) - below) > 0).mean() > 0.9


@pytest.mark.parametrize("levels", [8, 12, 16, 25])
def test_the_size_of_its_field_is_a_parameter(levels):
    method = fit(ue.Lasting(field_epsilon=levels / 255))
    found = method.protect(Shapes(size=40)).change()
    assert levels < found.linf <= levels + GRATING
    assert method.perturbation_.parts[1].config["epsilon"] == levels / 255


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"field_epsilon": 25}, r"field_epsilon up to 127 / 255.* did you mean 25 / 255"),
        ({"field_epsilon": 0}, "field_epsilon > 0"),
        ({"epsilon": 0.1}, "epsilon of at least 0.109"),
        ({"least_cycles": 9}, "least_cycles of at most most_cycles=5"),
    ],
)
def test_bad_parameters_are_explained(wrong, message):
    with pytest.raises(ValueError, match=message):
        fit(ue.Lasting(**wrong))


def test_rows_and_fields_are_lowered_by_a_mask():
    method = fit(ue.Lasting(), visibility="low")
    assert [part.mask.level for part in method.perturbation_.parts] == ["low", "low"]
    dataset = Shapes(size=40)
    low = ProtectedDataset(dataset, method.perturbation_).change()
    full = ProtectedDataset(dataset, method.perturbation_.with_visibility("full")).change()
    assert low.mean < 0.7 * full.mean and low.psnr > full.psnr + 3
    assert method.perturbation_.with_visibility("low").digest == method.perturbation_.digest
    full = method.perturbation_.with_visibility("full")
    assert [part.mask for part in full.parts] == [None, None]
    assert full.config["method"] == "Lasting"


def test_a_mask_that_leaves_no_row_is_warned_of_whatever_the_tint():
    smooth = [np.full((16, 16, 3), 120 + index, np.uint8) for index in range(6)]
    dataset = [(Image.fromarray(image), index % 2) for index, image in enumerate(smooth)]
    with pytest.warns(UserWarning, match="changes nothing in 6 of 6 images at this visibility"):
        fit(Topped(epsilon=2 / 255), dataset, visibility="low")


def test_one_class_gets_one_and_many_are_told_apart():
    pixels = torch.zeros(130, 3, 32, 32, dtype=torch.uint8)
    one = torch.utils.data.TensorDataset(pixels, torch.zeros(130, dtype=torch.long))
    assert len(fit(ue.Lasting(), one).perturbation_.tensors["1.rows"]) == 1
    many = torch.utils.data.TensorDataset(pixels, torch.arange(130))
    p = fit(ue.Lasting(), many).perturbation_
    assert len(np.unique(p.tensors["1.rows"], axis=0)) == 130
    assert len(np.unique(p.tensors["0.steps"], axis=0)) == 130


# --- DUNE ----------------------------------------------------------------------------------------


def test_its_rows_are_those_of_sep_and_its_colours_those_of_the_swarm(dune):
    sep = ue.SEP.preset("demo", **SHORT, epsilon=8 / 255, step_size=0.5 / 255, steps=2, shift=3)
    p = dune.perturbation_
    assert np.asarray(p.tensors["0.rows"]).tobytes() == fit(sep).perturbation_.rows.tobytes()
    shift = fit(ue.ColourShift.preset("demo", search="swarm", **SHORT, **SWARM)).perturbation_
    np.testing.assert_array_equal(p.tensors["1.colours"], shift.tensors["colours"])
    assert p.config["history"]["passes"] <= dune.passes(40) <= 1.1 * p.config["history"]["passes"]


def test_three_classes_are_enough():
    pixels = torch.randint(0, 256, (24, 3, 16, 16), dtype=torch.uint8)
    dataset = torch.utils.data.TensorDataset(pixels, torch.arange(24) % 3)
    short = {"train_epochs": 1, "checkpoints": 1, "steps": 1, "iterations": 1, "batch_size": 8}
    assert fit(ue.DUNE.preset("demo", **short), dataset).protect(dataset).change().linf > 1


# --- as users use them ---------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for index in range(10):
        place = tmp_path / "photos" / f"class{index % 2}"
        place.mkdir(parents=True, exist_ok=True)
        size = [(24, 32), (40, 30)][index % 3 > 1]
        Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)).save(place / f"{index}.png")
    Image.fromarray(rng.integers(0, 256, (24, 24), np.uint8)).save(place / "grey.png")
    return tmp_path / "photos"


def test_photos_are_planned_and_fitted(folder):
    photos = open_folder(folder)
    options = {"device": "cpu", "method": ue.Lasting}
    plan = plan_photos(photos, survey_folder(photos), **options)
    assert type(plan.method) is ue.Lasting
    said = plan.sentences()[1]
    most = int(FIELD + 1.125**2 * GRATING)  # checks overshoot where they are enlarged
    assert f"by up to about {most} of 255 brightness levels, least" in said
    open_to_see = plan_photos(photos, survey_folder(photos), visibility="full", **options)
    assert open_to_see.sentences()[1].endswith("where it shows.")
    again = Plan.from_dict(json.loads(json.dumps(plan.to_dict())), photos)
    assert again.to_dict() == plan.to_dict()
    assert plan.fit(photos, progress=False).perturbation_.parts[0].mask.level == "low"


def test_large_photos_change_by_about_as_much_as_the_plan_says(tmp_path):
    for index in range(10):
        place = tmp_path / "photos" / f"class{index}"
        place.mkdir(parents=True)
        Image.new("RGB", (500, 400), (128, 128, 128)).save(place / "grey.png")
    photos = open_folder(tmp_path / "photos")
    options = {"device": "cpu", "method": ue.Lasting, "visibility": "full"}
    plan = plan_photos(photos, survey_folder(photos), **options)
    said = int(plan.sentences()[1].partition("up to about ")[2].split()[0])
    made = plan.fit(photos, progress=False).perturbation_
    protected = ue.ProtectedDataset(photos, made, full_size=True)
    most = max(abs(np.asarray(image, int) - 128).max() for image, _ in protected)
    assert said > FIELD + GRATING and most <= said + 4


def test_others_are_nothing_to_it_and_rows_of_dune_keep_what_lies_on_top(folder):
    photos = open_folder(folder / "class0")
    others = open_folder(folder / "class1")
    options = {"device": "cpu", "others": others}
    with pytest.raises(ValueError, match="such as sem, got Lasting, which learns nothing from"):
        plan_photos(photos, survey_folder(photos), method=ue.Lasting, **options)
    params = SHORT | SWARM | {"steps": 4, "step_size": 2 / 255}
    plan = plan_photos(photos, survey_folder(photos), method=ue.DUNE, params=params, **options)
    learned = plan.fit(photos, progress=False).perturbation_
    assert len(learned) == len(photos) == 5 and learned.config["method"] == "DUNE"
    assert len(learned.tensors["1.colours"]) == 1
    assert learned.config["classes"] == ["photos"] == learned.parts[1].config["classes"]
    found = ProtectedDataset(photos, learned, full_size=True)
    assert all((pixels_of(found[i][0]) != pixels_of(photos[i][0])).any() for i in range(5))


def test_fit_protect_and_verify_on_the_command_line(folder, tmp_path, capsys):
    out, kept = str(tmp_path / "out"), str(tmp_path / "kept")
    few = ["--method", "lasting", "--quiet"]
    command = ["protect", str(folder), out, *few, "--save-perturbation", kept, "--json"]
    assert main(command) == 0
    shown = json.loads(capsys.readouterr().out)
    assert "Lasting, sample-wise, procedural + additive" in shown["perturbation"]
    assert main(["verify", out, kept, "--quiet"]) == 0
    for (before, _), (after, _) in zip(ImageFolder(folder), ImageFolder(out), strict=True):
        # Enlarging rounds the edges of stripes, and overshoots beside them.
        change = pixels_of(after).astype(int) - pixels_of(before)
        assert 0 < np.abs(change).max() <= 1.15 * (FIELD + GRATING) and before.size == after.size
    with Image.open(f"{out}/class1/grey.png") as grey:
        assert grey.mode == "L"
    assert main(["fit", "shapes:24", str(tmp_path / "fit"), *few]) == 0
    assert len(ue.Lasting.from_pretrained(tmp_path / "fit").perturbation_) == 10
    capsys.readouterr()
    assert main(["info", str(tmp_path / "fit")]) == 0
    assert f"Lasting, class-wise, Linf {FIELD}/255" in capsys.readouterr().out
