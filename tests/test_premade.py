"""Pre-made rows per image, computed for your images by a surrogate of the package."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.utils.data import Subset

import unlearnable as ue
from unlearnable.cli.main import main
from unlearnable.datasets import Shapes
from unlearnable.hub import catalogue
from unlearnable.methods.base import Method
from unlearnable.methods.premade import make_small, save_small, surrogate_digest

NAME = "shapes-sem"
STRENGTH = {"clean": [0.9], "protected": [0.2], "seeds": [0], "victim": "tiny"}


@pytest.fixture(scope="module")
def trainset():
    return Shapes(size=40)


@pytest.fixture(scope="module")
def fitted(trainset):
    return ue.SEM.preset("demo", train_steps=2, batch_size=16).fit(trainset, progress=False)


@pytest.fixture(scope="module")
def premade(fitted, trainset, tmp_path_factory):
    """A catalogue with one entry, and the method that it is of."""
    home = tmp_path_factory.mktemp("package")
    folder = home / "pretrained" / NAME
    method = ue.SEM.from_pretrained(fitted.save_pretrained(home / "fitted"))
    make_small(method, Subset(trainset, range(4)))
    method.perturbation_.config["strength"] = STRENGTH
    save_small(method, folder)
    info = method.perturbation_.info()
    fields = ("method", "image_shape", "epsilon", "norm", "bytes", "digest")
    entry = {field: info[field] for field in fields}
    entry |= {"name": NAME, "dataset": "Shapes", "images": 40}
    (home / "catalogue.json").write_text(
        json.dumps([entry | {"surrogate": surrogate_digest(folder)}])
    )
    return home / "catalogue.json", method


@pytest.fixture
def use(premade, monkeypatch, tmp_path):
    """The catalogue in place of the package's own, and an empty cache."""
    monkeypatch.setattr(catalogue, "FILE", premade[0])
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path / "home"))
    return premade[1]


def load(dataset, **options):
    return ue.Perturbation.from_pretrained(NAME, dataset=dataset, progress=False, **options)


def test_rows_are_those_that_the_method_makes_for_these_images(use, trainset):
    found, own = load(trainset), use.extend(trainset, progress=False)
    assert len(found) == len(trainset)
    assert np.array_equal(found.tensors["rows"][:], own.tensors["rows"][:])
    assert np.abs(found.tensors["rows"][:]).max() == 8


def test_every_image_of_the_dataset_is_covered(use, trainset):
    protected = ue.ProtectedDataset(trainset, load(trainset))
    clean = np.stack([np.asarray(image) for image, _ in trainset]).transpose(0, 3, 1, 2)
    changed = protected.to_tensors()[0].numpy() != clean
    assert changed.any((1, 2, 3)).all()


def test_rows_are_kept_and_not_computed_again(use, trainset, monkeypatch, tmp_path):
    first = load(trainset)
    assert first.folder is not None and first.folder.parent == tmp_path / "home" / "unlearnable"
    monkeypatch.setattr(Method, "extend", None)
    assert load(trainset).digest == first.digest


def test_a_cache_of_ones_own(use, trainset, tmp_path):
    assert load(trainset, cache_dir=tmp_path / "mine").folder.parent.parent == tmp_path / "mine"


def test_a_damaged_row_in_the_cache_is_made_anew(use, trainset):
    first = load(trainset)
    file = first.folder / "perturbation.safetensors"
    content = bytearray(file.read_bytes())
    content[-5000] ^= 1
    digest = first.digest
    file.write_bytes(content)
    assert load(trainset).digest == digest
    load(trainset).verify()


def test_a_cache_that_cannot_be_written_is_done_without(use, trainset, tmp_path, caplog):
    (tmp_path / "file").write_text("no folder")
    found = load(trainset, cache_dir=tmp_path / "file")
    assert found.folder is None and len(found) == len(trainset)
    assert "not cached" in caplog.text


def test_new_images_of_the_same_classes_get_rows(use):
    new = Shapes(size=12, seed=3)
    assert ue.ProtectedDataset(new, load(new)).change().psnr < 60


def test_some_of_the_images_get_rows_of_their_own(use, trainset):
    some = Subset(trainset, range(5, 15))
    found = load(some)
    assert len(found) == 10 and found.config["source"]["images"] == 10


def test_strength_is_stated_for_the_images_it_was_measured_on_alone(use, trainset):
    assert load(trainset).config["strength"] == STRENGTH
    assert load(Subset(trainset, range(10))).config["strength"] is None


def test_without_images_it_is_said_what_to_pass(use):
    with pytest.raises(ValueError, match=r"dataset=trainset\), or unlearnable pull shapes-sem OUT"):
        ue.Perturbation.from_pretrained(NAME)


def test_a_dataset_is_not_used_where_nothing_is_computed(trainset):
    with_dataset = ue.Perturbation.from_pretrained("cifar10-ops", dataset=trainset)
    assert with_dataset.digest == ue.Perturbation.from_pretrained("cifar10-ops").digest


@pytest.mark.parametrize("side", [24, 48])
def test_images_of_another_size_are_refused(use, side):
    with pytest.raises(ValueError, match="shape"):
        load(Shapes(size=8, side=side))


def test_images_of_other_classes_are_refused(use):
    renamed = Shapes(size=8)
    renamed.classes = [f"other {name}" for name in renamed.classes]
    renamed.class_to_idx = {name: index for index, name in enumerate(renamed.classes)}
    with pytest.raises(ValueError, match="class"):
        load(renamed)


def test_a_revision_is_refused_with_a_dataset_too(use, trainset):
    with pytest.raises(ValueError, match="only a repository"):
        load(trainset, revision="v1")


def test_a_damaged_surrogate_is_refused(premade, trainset, monkeypatch, tmp_path):
    shutil.copytree(premade[0].parent, tmp_path / "package")
    monkeypatch.setattr(catalogue, "FILE", tmp_path / "package" / "catalogue.json")
    file = tmp_path / "package" / "pretrained" / NAME / "surrogate.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(ue.ArtefactError, match="reinstall the package"):
        load(trainset, cache_dir=tmp_path / "cache")


def test_the_surrogate_takes_a_quarter_of_the_room(premade, fitted, trainset):
    file = premade[0].parent / "pretrained" / NAME / "surrogate.safetensors"
    weights = sum(weight.numel() for weight in fitted.surrogate_.state_dict().values())
    assert file.stat().st_size < 1.1 * weights


def test_a_surrogate_whose_scales_are_damaged_is_refused(premade, trainset, tmp_path):
    folder = tmp_path / "damaged"
    shutil.copytree(premade[0].parent / "pretrained" / NAME, folder)
    state = load_file(folder / "surrogate.safetensors")
    name = next(name for name in state if name.endswith(":scale"))
    save_file(state | {name: state[name][:-1]}, folder / "surrogate.safetensors")
    with pytest.raises(ue.ArtefactError, match=r"could not read .*scales for"):
        ue.SEM.from_pretrained(folder)


def test_its_weights_are_those_that_were_kept(premade, use):
    loaded = ue.SEM.from_pretrained(premade[0].parent / "pretrained" / NAME).surrogate_
    for name, weight in loaded.state_dict().items():
        assert torch.equal(weight, use.surrogate_.state_dict()[name])
        assert weight.dtype in (torch.float32, torch.int64)


def run(capsys, *arguments):
    code = main([str(argument) for argument in arguments])
    return code, *capsys.readouterr()


def test_commands_take_its_name(use, trainset, tmp_path, capsys):
    code, _, err = run(
        capsys, "protect", "shapes:40", tmp_path / "out", "--perturbation", NAME, "--quiet"
    )
    assert code == 0, err
    code, _, err = run(capsys, "pull", NAME, tmp_path / "kept", "--dataset", "shapes:40", "--quiet")
    assert code == 0, err
    pulled = ue.Perturbation.from_pretrained(tmp_path / "kept")
    assert pulled.digest == load(trainset).digest
    assert ue.verify(tmp_path / "out", pulled, trainset, progress=False).whole


def test_commands_without_images_say_what_to_pass(use, tmp_path, capsys):
    code, _, err = run(capsys, "pull", NAME, tmp_path / "kept")
    assert code == 1 and "--dataset" in err
    code, out, _ = run(capsys, "info", NAME)
    assert code == 0 and "computed" in out
    code, out, _ = run(capsys, "list")
    assert code == 0 and out.startswith(NAME)
