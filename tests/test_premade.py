"""Pre-made rows per image, computed for your images by a surrogate of the package."""

import json
import shlex
import shutil

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch.utils.data import Subset

import unlearnable as ue
from unlearnable.cli.main import main
from unlearnable.datasets import Shapes
from unlearnable.hub import catalogue
from unlearnable.io.files import locked
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


def test_rows_of_another_version_are_named_and_stay(use, trainset, monkeypatch, caplog):
    before = load(trainset).folder
    monkeypatch.setattr("unlearnable.methods.premade.__version__", "0.0")
    now = load(trainset).folder
    assert now != before and now.parent == before.parent
    assert [str(before) in record.getMessage() for record in caplog.records] == [True]
    assert "another version" in caplog.text and "delete it to free" in caplog.text
    load(trainset)
    load(Subset(trainset, range(5)))
    assert len(caplog.records) == 1
    ue.Perturbation.from_pretrained(before).verify()


@pytest.mark.parametrize("setting", [torch.float64, torch.bfloat16, "meta"])
def test_the_callers_defaults_of_torch_do_not_decide_the_rows(use, trainset, tmp_path, setting):
    usual = load(trainset)
    change, before = torch.set_default_device, None
    if isinstance(setting, torch.dtype):
        change, before = torch.set_default_dtype, torch.float32
    change(setting)
    try:
        found = load(trainset, cache_dir=tmp_path / "other")
    finally:
        change(before)
    assert found.digest == usual.digest


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
    file = folder / "surrogate.safetensors"
    with safe_open(file, "pt") as opened:
        mark = opened.metadata()
    state = load_file(file)
    name = next(name for name in state if name.endswith(":scale"))
    save_file(state | {name: state[name][:-1]}, file, mark)
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


def test_what_cannot_be_cached_is_still_pulled_to_its_folder(use, tmp_path, capsys, caplog):
    (tmp_path / "home").write_text("no folder")
    code, out, err = run(
        capsys, "pull", NAME, tmp_path / "kept", "--dataset", "shapes:40", "--quiet"
    )
    assert code == 0 and "not cached" in caplog.text, err
    digest = ue.Perturbation.from_pretrained(tmp_path / "kept").digest
    assert digest in out and str(tmp_path / "kept") in out


def test_a_folder_of_its_name_is_not_pulled_onto_itself(
    use, trainset, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    load(trainset).save_pretrained(NAME)
    kept = ue.Perturbation.from_pretrained(tmp_path / NAME).digest
    options = ("--dataset", "shapes:30", "--force", "--quiet")
    code, _, err = run(capsys, "pull", NAME, NAME, *options)
    assert code == 1 and f"other than {NAME}" in err and "choose another folder" in err
    assert ue.Perturbation.from_pretrained(tmp_path / NAME).digest == kept


def test_commands_without_images_say_what_to_pass(use, tmp_path, capsys):
    code, _, err = run(capsys, "pull", NAME, tmp_path / "kept")
    assert code == 1 and "--dataset" in err
    code, out, _ = run(capsys, "info", NAME)
    assert code == 0 and "computed" in out
    code, out, _ = run(capsys, "list")
    assert code == 0 and out.startswith(NAME)


def renamed(dataset, names):
    """The same images and labels, in classes of other names."""
    items = [{"image": image, "class": label} for image, label in dataset]
    return ue.from_items(items, image="image", label="class", classes=names)


def test_rows_are_of_the_class_that_a_label_names(use, trainset, tmp_path):
    names, cache = trainset.classes, tmp_path / "cache"
    reversed_, right = renamed(trainset, names[::-1]), renamed(trainset, names)
    other = load(reversed_, cache_dir=cache)
    assert other.config["strength"] is None  # of other rows
    found = load(right, cache_dir=cache)
    assert found.config["strength"] == STRENGTH
    labels = [label for _, label in trainset]
    assert found.tensors["labels"].tolist() == labels
    assert other.tensors["labels"].tolist() == [len(names) - 1 - label for label in labels]
    unnamed = load(list(trainset), cache_dir=cache)
    assert np.array_equal(unnamed.tensors["rows"][:], found.tensors["rows"][:])
    assert not np.array_equal(other.tensors["rows"][:], found.tensors["rows"][:])


@pytest.mark.parametrize("names", [[f"x{n}" for n in range(10)], [f"x{n}" for n in range(12)]])
def test_other_classes_are_refused_also_where_rows_are_cached(use, trainset, names):
    load(trainset)
    with pytest.raises(ValueError, match="classes"):
        load(renamed(trainset, names))


def test_more_classes_are_refused_where_they_have_no_names(use, trainset):
    with pytest.raises(ValueError, match="expected 10 classes, got 11"):
        load([(image, label + 1) for image, label in trainset])


def test_rows_of_other_images_in_the_place_are_not_taken(use, trainset):
    some = load(Subset(trainset, range(10)))
    whole = load(trainset)
    shutil.rmtree(whole.folder)
    shutil.copytree(some.folder, whole.folder)
    assert len(load(trainset)) == len(trainset)


def test_clusters_are_not_taken_for_classes(use, trainset):
    load(trainset)
    with pytest.raises(ValueError, match="numbered at random"):
        load(ue.clusters(trainset, 5))
    with pytest.raises(ValueError, match="numbered at random"):
        use.extend(ue.clusters(trainset, 5), progress=False)


def test_grey_images_are_told_from_images_of_another_size(use, trainset):
    with pytest.raises(ValueError, match=r'convert\("RGB"\)'):
        load([(image.convert("L"), label) for image, label in trainset])


def test_a_cache_that_is_read_only_is_read(use, trainset, monkeypatch):
    load(trainset)

    def refused(*_, **__):
        raise PermissionError("read-only")

    monkeypatch.setattr("unlearnable.methods.premade.make_folder", refused)
    monkeypatch.setattr(Method, "extend", None)
    assert len(load(trainset)) == len(trainset)


def test_a_cache_that_cannot_be_read_is_done_without(use, trainset, monkeypatch, caplog):
    digest = load(trainset).digest

    def refused(*_, **__):
        raise PermissionError("of somebody else")

    monkeypatch.setattr(ue.Perturbation, "verify", refused)
    monkeypatch.setattr(ue.Perturbation, "save_pretrained", refused)
    assert load(trainset).digest == digest
    assert "not cached" in caplog.text


def test_rows_are_made_while_another_process_makes_others(use, trainset):
    cache = load(Subset(trainset, range(3))).folder.parent
    with locked(cache, wait=False):  # as earlier releases did
        assert len(load(Subset(trainset, range(4)))) == 4
    held = next(path for path in (cache / ".locks").iterdir() if path.is_dir())
    with locked(held, wait=False):
        assert len(load(Subset(trainset, range(5)))) == 5


def test_its_strength_is_known_before_rows_are_made(use, trainset, capsys):
    (entry,) = ue.list_pretrained()
    assert entry.strength == STRENGTH
    code, out, _ = run(capsys, "info", NAME)
    assert code == 0 and "protected 0.2" in out


@pytest.fixture
def photos(tmp_path):
    dataset = Shapes(size=200)
    for number in [dataset.targets.index(label) for label in range(10)]:
        image, label = dataset[number]
        folder = tmp_path / "photos" / dataset.classes[label]
        folder.mkdir(parents=True, exist_ok=True)
        image.save(folder / f"{number}.png")
    return tmp_path / "photos"


@pytest.mark.parametrize("cached", [True, False])
def test_commands_that_are_named_after_protecting_photos_work(
    use, photos, monkeypatch, tmp_path, capsys, cached
):
    if not cached:
        (tmp_path / "file").write_text("no folder")
        monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path / "file"))
    monkeypatch.chdir(tmp_path)
    code, out, err = run(capsys, "protect", photos, "out", "--perturbation", NAME, "--quiet")
    assert code == 0, err
    named = [
        line.partition("unlearnable ")[2] for line in out.splitlines() if "unlearnable " in line
    ]
    assert [command.split()[0] for command in named] == ["preview", "verify"]
    for command in named:
        code, out, err = run(capsys, *shlex.split(command))
        assert code == 0, err
    assert "All 10 pictures are protected" in out


def test_a_folder_that_hides_it_is_named(use, photos, trainset, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    code, _, err = run(capsys, "protect", photos, f"./{NAME}/", "--perturbation", NAME)
    assert code == 1 and "folder with a name of its own" in err
    assert not (tmp_path / NAME).exists()
    (tmp_path / NAME).mkdir()
    with pytest.raises(FileNotFoundError, match="rename this folder"):
        load(trainset)
    (tmp_path / NAME / "perturbation.safetensors").touch()
    with pytest.raises(ue.ArtefactError, match=r"config\.json"):
        load(trainset)


def test_verifying_by_its_name_needs_the_originals(use, photos, tmp_path, capsys):
    assert (
        run(capsys, "protect", photos, tmp_path / "out", "--perturbation", NAME, "--quiet")[0] == 0
    )
    code, _, err = run(capsys, "verify", tmp_path / "out", NAME)
    assert code == 1 and "expected --originals with shapes-sem" in err
    assert run(capsys, "verify", tmp_path / "out", NAME, "--originals", photos)[0] == 0
