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
SHORT = {"surrogate": "tiny", "train_steps": 2, "batch_size": 16}
NEW = Shapes(size=12, seed=7)
FIELD = round(255 * ue.Lasting().field_epsilon)


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
    return fit(ue.Lasting.preset("demo", **SHORT))


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

    with pytest.raises(RuntimeError, match=r"run\.on_top\(\.\.\.\) as well of Bare.* got none"):
        fit(Bare())
    with pytest.raises(RuntimeError, match=r"no run\.on_top.* Surprise.*got shift and class-wise"):
        fit(Surprise())


def test_extend_learns_rows_and_keeps_what_lies_on_top(lasting, tmp_path):
    new = lasting.extend(NEW, progress=False)
    assert [part.name for part in new.parts] == ["additive", "additive"] and len(new) == 12
    assert np.array_equal(new.tensors["1.rows"], lasting.perturbation_.tensors["1.rows"])
    assert new.config["method"] == "Lasting" and new.config["source"]["images"] == 12
    assert ProtectedDataset(NEW, new).change().linf > 8
    both = Perturbation.concat([lasting.perturbation_, new])
    assert len(both) == 52 and both.config["method"] == "Lasting"
    together = torch.utils.data.ConcatDataset([Shapes(size=40), NEW])
    expected = [images(Shapes(size=40), lasting.perturbation_), images(NEW, new)]
    np.testing.assert_array_equal(images(together, both), np.concatenate(expected))
    loaded = Perturbation.from_pretrained(both.save_pretrained(tmp_path / "both"))
    assert loaded.digest == both.digest
    more = lasting.extend(Shapes(size=9, seed=8), progress=False)
    assert len(Perturbation.concat([both, more])) == 61


def test_rows_with_other_things_on_top_are_not_joined(lasting):
    p = lasting.perturbation_
    new = lasting.extend(NEW, progress=False)
    top = ue.SmoothFields(epsilon=FIELD / 255, seed=1)
    other = Perturbation.below(
        Perturbation.of_kind(new.parts[0].tensors, new.parts[0].config),
        fit(top).perturbation_.parts,
    )
    with pytest.raises(ValueError, match=r"same parts .* in number 1"):
        Perturbation.concat([p, other])
    with pytest.raises(ValueError, match=r"got Lasting \(additive\) \+ OPS \(pixel\) in number 1"):
        Perturbation.concat([p, new.then(fit(ue.OPS()).perturbation_)])
    rows = fit(ue.RandomNoise()).perturbation_
    with pytest.raises(ValueError, match="of kind 'stack' as number 1"):
        Perturbation.concat([rows, p])
    with pytest.raises(ValueError, match="different images"):
        Perturbation.concat([p, p])
    twice = p.then(rows)
    with pytest.raises(ValueError, match="same parts for any image"):
        Perturbation.concat([twice, twice])


def test_a_stack_of_stacks_names_each_method_once(lasting):
    p = lasting.perturbation_
    assert p.config["parameters"] == lasting.get_params() and p.config["seed"] == 0
    ops = fit(ue.OPS()).perturbation_
    for stack, name in ((p.then(ops), "Lasting + OPS"), (ops.then(p), "OPS + Lasting")):
        assert stack.info()["method"] == name and stack.config["parameters"] == {}
        assert len(stack.parts) == 3
    assert p.then(ops).with_visibility(None).digest == p.then(ops).digest


def test_a_card_has_its_parameters_once(lasting):
    p = lasting.perturbation_
    card = write_card(p.info(), p.config, "owner/p")
    assert card.count("## Parameters") == 1 and f"| field\\_epsilon | {FIELD}/255 |" in card
    assert card.count("@inproceedings") == 1 and f"Lasting, class-wise, Linf {FIELD}/255" in card
    assert "the image's content, regardless of order" in card


# --- Lasting -------------------------------------------------------------------------------------


def test_its_rows_are_those_of_sem_with_its_draws(lasting):
    sem = ue.SEM.preset("demo", **SHORT, augment=ue.Lasting().augment)
    p = lasting.perturbation_
    assert np.asarray(p.tensors["0.rows"]).tobytes() == fit(sem).perturbation_.rows.tobytes()
    fields = fit(ue.SmoothFields(epsilon=ue.Lasting().field_epsilon)).perturbation_
    np.testing.assert_array_equal(p.tensors["1.rows"], fields.rows)


def test_its_draws_are_its_own_and_none_are_kept(tmp_path):
    one, other = ue.Lasting(), ue.Lasting()
    assert one.augment["grayscale"] > 0 and one.augment == other.augment
    assert one.augment is not other.augment
    assert repr(one) == "Lasting()" and "augment=None" in repr(ue.Lasting(augment=None))
    method = fit(ue.Lasting.preset("demo", **SHORT, augment=None))
    method.save_pretrained(tmp_path / "m")
    assert ue.Lasting.from_pretrained(tmp_path / "m").augment is None
    sem = fit(ue.SEM.preset("demo", **SHORT)).perturbation_
    assert np.asarray(method.perturbation_.tensors["0.rows"]).tobytes() == sem.rows.tobytes()


@pytest.mark.parametrize("levels", [8, 12, 16, 25])
def test_the_size_of_its_field_is_a_parameter(levels):
    method = ue.Lasting.preset("demo", **SHORT | {"train_steps": 0}, field_epsilon=levels / 255)
    found = fit(method).protect(Shapes(size=40)).change()
    assert levels < found.linf <= levels + 8
    assert method.perturbation_.parts[1].config["epsilon"] == levels / 255


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"field_epsilon": 25}, r"field_epsilon up to 127 / 255.* did you mean 25 / 255"),
        ({"field_epsilon": 0}, "field_epsilon > 0"),
        ({"augment": {"grey": 1}}, "augment to name some of"),
    ],
)
def test_bad_parameters_are_explained(wrong, message):
    with pytest.raises(ValueError, match=message):
        fit(ue.Lasting.preset("demo", **SHORT, **wrong))


def test_rows_and_fields_are_lowered_by_a_mask():
    method = fit(ue.Lasting.preset("demo", **SHORT), visibility="low")
    assert [part.mask.level for part in method.perturbation_.parts] == ["low", "low"]
    dataset = Shapes(size=40)
    low = ProtectedDataset(dataset, method.perturbation_).change()
    full = ProtectedDataset(dataset, method.perturbation_.with_visibility("full")).change()
    assert low.mean < 0.7 * full.mean and low.psnr > full.psnr + 3
    assert method.perturbation_.with_visibility("low").digest == method.perturbation_.digest
    new = method.extend(NEW, progress=False)
    assert [part.mask.level for part in new.parts] == ["low", "low"]
    full = method.perturbation_.with_visibility("full")
    assert [part.mask for part in full.parts] == [None, None]
    assert full.config["method"] == "Lasting"


def test_a_mask_that_leaves_no_row_is_warned_of_whatever_the_tint():
    smooth = [np.full((16, 16, 3), 120 + index, np.uint8) for index in range(6)]
    dataset = [(Image.fromarray(image), index % 2) for index, image in enumerate(smooth)]
    with pytest.warns(UserWarning, match="changes nothing in 6 of 6 images at this visibility"):
        fit(Topped(epsilon=2 / 255), dataset, visibility="low")


def test_one_class_is_refused_and_many_are_told_apart():
    pixels = torch.zeros(130, 3, 16, 16, dtype=torch.uint8)
    one = torch.utils.data.TensorDataset(pixels, torch.zeros(130, dtype=torch.long))
    with pytest.raises(ValueError, match="at least two classes"):
        fit(ue.Lasting.preset("demo", **SHORT), one)
    many = torch.utils.data.TensorDataset(pixels, torch.arange(130))
    p = fit(ue.Lasting.preset("demo", **SHORT | {"train_steps": 1}), many).perturbation_
    assert len(np.unique(p.tensors["1.rows"], axis=0)) == 130


# --- DUNE ----------------------------------------------------------------------------------------


def test_its_rows_are_those_of_sep_and_its_colours_those_of_the_swarm():
    short = {"surrogate": "tiny", "train_epochs": 2, "checkpoints": 2, "batch_size": 16}
    swarm = {"particles": 3, "iterations": 2, "class_images": 3}
    dune = fit(ue.DUNE.preset("demo", **short, **swarm, steps=2))
    sep = ue.SEP.preset("demo", **short, epsilon=8 / 255, step_size=0.5 / 255, steps=2, shift=3)
    p = dune.perturbation_
    assert np.asarray(p.tensors["0.rows"]).tobytes() == fit(sep).perturbation_.rows.tobytes()
    shift = fit(ue.ColourShift.preset("demo", search="swarm", **short, **swarm)).perturbation_
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
    options = {"params": {"visits": 1.0}, "device": "cpu", "method": ue.Lasting}
    plan = plan_photos(photos, survey_folder(photos), **options)
    assert type(plan.method) is ue.Lasting and plan.method.batch_size == 24
    said = plan.sentences()[1]
    assert f"by up to {FIELD} of 255 brightness" in said and "least in smooth areas" in said
    open_to_see = plan_photos(photos, survey_folder(photos), visibility="full", **options)
    assert open_to_see.sentences()[1].endswith("skin, where it shows.")
    again = Plan.from_dict(json.loads(json.dumps(plan.to_dict())), photos)
    assert again.to_dict() == plan.to_dict()
    assert plan.fit(photos, progress=False).perturbation_.parts[0].mask.level == "low"


def test_photos_told_apart_from_others_keep_their_own_rows_and_colours(folder, tmp_path):
    photos = open_folder(folder / "class0")
    others = open_folder(folder / "class1")
    options = {"params": {"visits": 1.0}, "device": "cpu", "method": ue.Lasting}
    plan = plan_photos(photos, survey_folder(photos), others=others, **options)
    learned = plan.fit(photos, progress=False).perturbation_
    assert len(learned) == len(photos) == 5 and learned.config["method"] == "Lasting"
    assert len(learned.tensors["1.rows"]) == 1
    assert learned.config["classes"] == ["photos"] == learned.parts[1].config["classes"]
    found = ProtectedDataset(photos, learned, full_size=True)
    assert all((pixels_of(found[i][0]) != pixels_of(photos[i][0])).any() for i in range(5))


def test_fit_protect_and_verify_on_the_command_line(folder, tmp_path, capsys):
    out, kept = str(tmp_path / "out"), str(tmp_path / "kept")
    few = ["--method", "lasting", "--set", "visits=1", "--quiet"]
    command = ["protect", str(folder), out, *few, "--save-perturbation", kept, "--json"]
    assert main(command) == 0
    shown = json.loads(capsys.readouterr().out)
    assert "Lasting, sample-wise, additive + additive" in shown["perturbation"]
    assert main(["verify", out, kept, "--quiet"]) == 0
    for (before, _), (after, _) in zip(ImageFolder(folder), ImageFolder(out), strict=True):
        change = pixels_of(after).astype(int) - pixels_of(before)
        assert 0 < np.abs(change).max() <= FIELD + 8 and before.size == after.size
    with Image.open(f"{out}/class1/grey.png") as grey:
        assert grey.mode == "L"
    assert main(["fit", "shapes:24", str(tmp_path / "fit"), *few[:2], "--preset", "demo",
                 "--set", "train_steps=1", "--quiet"]) == 0  # fmt: skip
    assert len(ue.Lasting.from_pretrained(tmp_path / "fit").perturbation_) == 24
    capsys.readouterr()
    assert main(["info", str(tmp_path / "fit")]) == 0
    assert f"Lasting, class-wise, Linf {FIELD}/255" in capsys.readouterr().out
