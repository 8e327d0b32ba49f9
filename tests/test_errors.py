"""What users get wrong is answered in one sentence that says what to do, before any work."""

import errno
import inspect
import io
import json
import os
import shutil
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import CIFAR10, ImageFolder

import unlearnable as ue
from unlearnable.cli import choices, terminal
from unlearnable.cli.main import main
from unlearnable.datasets import Shapes
from unlearnable.engine.device import pick_device
from unlearnable.engine.models import build_model, check_network
from unlearnable.io import files

NOISE = ("--method", "randomnoise", "--quiet", "--device", "cpu")


def run(capsys, *words):
    try:
        code = main([str(word) for word in words])
    except SystemExit as end:
        code = end.code
    return code, *capsys.readouterr()


def pixels(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def folder_of(path, seed=0):
    for index, image in enumerate(pixels(8, 8, 8, 3, seed=seed)):
        place = path / f"class{index % 2}"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / f"{index}.png")
    return path


def noise(dataset, **options):
    return ue.RandomNoise(**options).fit(dataset, device="cpu", progress=False)


# --- a protected copy is not protected again -----------------------------------------------------


class Arrays:
    """A dataset of somebody's own over the arrays of an export."""

    def __init__(self, folder):
        self.folder = folder
        with np.load(folder / "images.npz") as arrays:
            self.images, self.targets = arrays["images"], arrays["labels"].tolist()

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.images[index], self.targets[index]


class Listed(Arrays):
    """One that lists its files by a name of its own."""

    def __init__(self, folder):
        self.paths = sorted(folder.rglob("*.png"))

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        return Image.open(self.paths[index]).convert("RGB"), int(self.paths[index].parent.name[-1])


class Around(torch.utils.data.Dataset):
    """One around another dataset."""

    def __init__(self, inner):
        self.parts = {"all": inner}

    def __len__(self):
        return len(self.parts["all"])

    def __getitem__(self, index):
        return self.parts["all"][index]


class Table(Listed):
    """One that keeps files and labels together: in dicts, tuples or by index."""

    def __init__(self, folder, make):
        paths = sorted(folder.rglob("*.png"))
        self.rows = make([(str(path), int(path.parent.name[-1])) for path in paths])

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        row = self.rows[index]
        parts = row.values() if isinstance(row, dict) else row
        image, label = sorted(parts, key=lambda part: isinstance(part, int))
        return Image.open(image).convert("RGB"), label


@pytest.fixture
def originals(tmp_path):
    return ImageFolder(folder_of(tmp_path / "photos"))


@pytest.fixture
def export(originals, tmp_path):
    return noise(originals).protect(originals).export(tmp_path / "out", progress=False)


def refused(dataset, perturbation, marker):
    calls = [
        lambda: ue.LSP().fit(dataset, progress=False),
        lambda: ue.ProtectedDataset(dataset, perturbation),
        lambda: ue.ProtectedDataset(torch.utils.data.Subset(dataset, [1, 0]), perturbation),
    ]
    for call in calls:
        with pytest.raises(
            ValueError, match=r"not protected yet.*originals.*p\.then\(q\)"
        ) as caught:
            call()
        assert str(marker) in str(caught.value)


def test_an_export_of_images_is_refused(originals, export):
    fitted = noise(originals)
    for dataset in (ImageFolder(export), Listed(export)):
        refused(dataset, fitted.perturbation_, export / "unlearnable.json")
    with pytest.raises(ValueError, match="not protected yet"):
        fitted.extend(ImageFolder(export), progress=False)


@pytest.mark.parametrize(
    "make",
    [
        lambda rows: [{"label": label, "file": path} for path, label in rows],
        lambda rows: [(label, path) for path, label in rows],
        lambda rows: dict(enumerate(rows)),
    ],
)
def test_an_export_is_known_by_files_in_tables(make, originals, export, tmp_path):
    marker = export / "unlearnable.json"
    refused(Table(export, make), noise(originals).perturbation_, marker)
    assert len(noise(Table(tmp_path / "photos", make)).perturbation_) == 8


def test_an_export_is_known_below_other_datasets(originals, export):
    perturbation, marker = noise(originals).perturbation_, export / "unlearnable.json"
    read = ImageFolder(export)
    for dataset in (Around(read), Around(torch.utils.data.Subset(Around(read), [0, 7]))):
        refused(dataset, perturbation, marker)
    assert len(noise(Around(originals)).perturbation_) == 8


def test_an_export_is_known_when_it_is_divided_renamed_or_linked(originals, export, tmp_path):
    perturbation = noise(originals).perturbation_
    (tmp_path / "link").mkdir()
    for name in ("class0", "class1"):
        (tmp_path / "link" / name).symlink_to(export / name)
    refused(ImageFolder(tmp_path / "link"), perturbation, export / "unlearnable.json")
    shutil.copytree(export / "class0", export / "train" / "class0")
    shutil.copytree(export / "class1", export / "train" / "class1")
    refused(ImageFolder(export / "train"), perturbation, export / "unlearnable.json")
    (export / "class0").rename(export / "train" / "others")
    refused(ImageFolder(export / "train"), perturbation, export / "unlearnable.json")


@pytest.mark.parametrize("format", ["npz", "cifar"])
def test_an_export_of_arrays_is_refused(format, cifar10_class, tmp_path):
    shapes = Shapes(size=16)
    fitted = noise(shapes)
    folder = fitted.protect(shapes).export(tmp_path / "out", format, progress=False)
    dataset = Arrays(folder) if format == "npz" else cifar10_class(str(folder))
    assert format == "npz" or isinstance(dataset, CIFAR10)
    refused(dataset, fitted.perturbation_, folder / "unlearnable.json")


def test_a_hugging_face_folder_of_an_export_is_refused(export, originals, tmp_path):
    datasets = pytest.importorskip("datasets")
    listed = [{"image": str(path), "label": 0} for path in sorted(export.rglob("*.png"))]
    dataset = datasets.Dataset.from_list(listed).cast_column("image", datasets.Image())
    with pytest.raises(ValueError, match=r"not protected yet.*out"):
        ue.LSP().fit(dataset, progress=False)


def test_tables_of_protected_images_are_refused_wherever_they_are_copied(originals, tmp_path):
    datasets = pytest.importorskip("datasets")
    perturbation = noise(originals).perturbation_
    protected = ue.ProtectedDataset(originals, perturbation, fraction=0.5)
    folder = protected.export(tmp_path / "out", "parquet", progress=False)
    read = datasets.load_dataset(str(folder), split="train", cache_dir=str(tmp_path / "cache"))
    read.save_to_disk(tmp_path / "saved")
    rows = read.with_transform(lambda batch: {"pixel_values": batch["image"], "labels": [0]})
    saved = datasets.load_from_disk(tmp_path / "saved")
    for dataset in (read, saved, protected.to_hf_dataset(), read.select([7, 3]), rows):
        refused(dataset, perturbation, "named unlearnable-protected-0000")
    for row, (image, label) in zip(saved, protected, strict=True):
        np.testing.assert_array_equal(np.asarray(row["image"]), np.asarray(image))
        assert row["label"] == label
    clean = ue.ProtectedDataset(originals, perturbation, fraction=0).to_hf_dataset()
    wrapped = ue.ProtectedDataset(clean, perturbation)
    rows = perturbation.tensors["rows"].transpose(0, 2, 3, 1).astype(int)
    for index in range(8):
        expected = (np.asarray(originals[index][0]) + rows[index]).clip(0, 255)
        np.testing.assert_array_equal(np.asarray(wrapped[index][0]), expected)


def test_no_export_is_tested_on(originals, export, tmp_path, capsys):
    options = {"epochs": 1, "seeds": 1, "device": "cpu", "progress": False}
    with pytest.raises(ValueError, match=r"clean test images.*listed in .*out/unlearnable\.json"):
        ue.evaluate(originals, ImageFolder(export), "tiny", **options)
    folder = noise(originals).save_pretrained(tmp_path / "p")
    words = ("--perturbation", folder, "--test", export, "--quick", "--device", "cpu")
    code, out, err = run(capsys, "audit", tmp_path / "photos", *words)
    assert (code, out) == (1, "") and "clean test images" in err


def test_what_is_no_protected_copy_is_taken(originals, export, tmp_path):
    clean = noise(originals).protect(originals, fraction=0)
    unprotected = ImageFolder(clean.export(tmp_path / "clean", progress=False))
    assert len(noise(unprotected).perturbation_) == 8
    folder_of(tmp_path / "more", seed=3)
    for name in ("class0", "class1"):  # the export is whole beside them
        shutil.copytree(tmp_path / "more" / name, export / "mine" / f"my-{name}")
    assert len(noise(ImageFolder(export / "mine")).perturbation_) == 8
    assert noise(originals).protect(originals)[0][1] == 0  # and the originals still are


def test_an_export_is_still_evaluated_and_verified(originals, export, tmp_path, capsys):
    fitted = noise(originals)
    found = ue.verify(export, fitted.perturbation_, progress=False)
    assert found.whole and found.counts["protected"] == 8
    options = {"epochs": 1, "seeds": 1, "device": "cpu", "progress": False}
    result = ue.evaluate(ImageFolder(export), originals, "tiny", **options)
    assert len(result.last) == 1


def test_the_command_line_refuses_an_export_before_the_work(export, tmp_path, capsys):
    fitted = noise(ImageFolder(tmp_path / "photos")).save_pretrained(tmp_path / "p")
    for words in (
        ("fit", export, tmp_path / "q", *NOISE),
        ("protect", export, tmp_path / "again", *NOISE),
        ("protect", export, tmp_path / "again", "--perturbation", fitted, "--quiet"),
    ):
        code, out, err = run(capsys, *words)
        assert (code, out) == (1, "") and "not protected yet" in err and "unlearnable.json" in err
    assert not (tmp_path / "q").exists() and not (tmp_path / "again").exists()


# --- images and items ----------------------------------------------------------------------------


def images_of(height, width):
    return torch.from_numpy(pixels(16, 3, height, width)), torch.arange(16) % 2


@pytest.mark.parametrize("size", [(1, 1), (5, 7), (3, 200)])
@pytest.mark.parametrize("method", ue.METHODS)
def test_images_too_small_for_a_method_are_refused_with_the_size_that_does(method, size):
    data, made = images_of(*size), method.preset("demo")
    takes_any = ("RandomNoise", "PILNoise", "LSP", "OPS", "ClassConvolution", "ColourShift")
    takes_any += ("SmoothFields",)
    if method.__name__ in takes_any and size != (1, 1):
        assert made.kind in ("additive", "procedural", "pixel", "convolution", "shift")
        return
    if method.__name__ in ("RandomNoise", "PILNoise", "LSP", "ColourShift", "SmoothFields"):
        return
    with pytest.raises(ValueError, match=r"image_size=") as caught:
        made.fit(data, device="cpu", progress=False)
    text = str(caught.value)
    assert text.startswith("expected") and f"{size[0]}" in text and "image_size=" in text


@pytest.mark.parametrize(
    "method",
    [ue.RandomNoise, ue.LSP, ue.OPS, ue.ClassConvolution, ue.ColourShift, ue.SmoothFields],
)
def test_methods_that_take_any_size_protect_it(method):
    data = images_of(3, 50)
    protected = method().fit(data, device="cpu", progress=False).protect(data)
    assert protected[0][0].shape == (3, 3, 50)
    assert any((protected[i][0] != data[0][i]).any() for i in range(16))


@pytest.mark.parametrize(
    ("name", "side"), [("tiny", 8), ("resnet9", 16), ("tiny-resnet", 2), ("vgg16", 16)]
)
def test_a_network_says_which_size_it_takes(name, side):
    network = build_model(name, 2)
    with pytest.raises(
        ValueError, match=rf"victim for images of 1x1 .* at least {side} pixels a side: pass"
    ):
        check_network(network, (3, 1, 1), 2, role="victim")
    check_network(network, (3, side, side), 2)


def test_a_missing_image_is_named_by_its_row():
    images = [Image.fromarray(image) for image in pixels(6, 8, 8, 3)]
    images[4] = None
    with pytest.raises(ValueError, match=r"got None for image 4; exclude such items"):
        noise((images, [0, 1] * 3))


def test_a_missing_image_in_a_hugging_face_column_is_named_by_its_row():
    datasets = pytest.importorskip("datasets")
    images = [Image.fromarray(image) for image in pixels(6, 8, 8, 3)]
    images[2] = None
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    dataset = datasets.Dataset.from_dict({"image": images, "label": [0, 1] * 3}, features=features)
    with pytest.raises(ValueError, match=r"got None for image 2"):
        noise(dataset)
    kept = dataset.filter(lambda row: row["image"] is not None)
    assert len(noise(kept).perturbation_) == 5


# --- names and numbers ---------------------------------------------------------------------------


class Mine(ue.SEM):
    """A class of somebody's own."""


@pytest.mark.parametrize(
    ("cls", "name", "near"),
    [
        (ue.SEM, "eps", "epsilon"),
        (Mine, "eps", "epsilon"),
        (ue.AR, "radius", "epsilon"),
        (ue.EM, "alpha", "step_size"),
        (ue.TAP, "num_steps", "steps"),
        (ue.REM, "robust_epsilom", "robust_epsilon"),
        (ue.HYPO, "Seed", "seed"),
    ],
)
def test_an_unknown_parameter_is_answered_in_the_users_own_class(cls, name, near):
    sentence = rf"^{cls.__name__} has no parameter '{name}'; did you mean '{near}'\?"
    with pytest.raises(TypeError, match=sentence):
        cls(**{name: 1})
    with pytest.raises(TypeError, match=sentence):
        cls.preset("demo", **{name: 1})
    with pytest.raises(ValueError, match=f"parameters of {cls.__name__}.*did you mean '{near}'"):
        cls().set_params(**{name: 1})


@pytest.mark.parametrize("given", ["my-key", ue.SEM(), [1]])
def test_what_is_no_perturbation_is_refused(given, shapes, perturbation):
    expected = f"expected a Perturbation, got {type(given).__name__}"
    with pytest.raises(TypeError, match=rf"{expected} .*from_pretrained\(…\).* perturbation_"):
        ue.ProtectedDataset(shapes, given)
    with pytest.raises(TypeError, match=expected):
        ue.audit(shapes, given, shapes)
    with pytest.raises(TypeError, match=expected):
        perturbation.then(given)


def test_what_is_no_folder_of_a_key_is_refused_without_asking_the_hub(tmp_path, capsys):
    photos = folder_of(tmp_path / "photos")
    code, out, err = run(capsys, "verify", tmp_path, photos)
    assert (code, out) == (1, "")
    assert f"expected config.json in {photos}, found none; pass the folder of a saved" in err
    key = noise(ImageFolder(photos)).perturbation_.save_pretrained(tmp_path / "key")
    for name in (key / "config.json", str(key / "perturbation.safetensors")):
        with pytest.raises(FileNotFoundError, match=f"got the file {name}; pass the folder that"):
            ue.Perturbation.from_pretrained(name)


def test_an_argument_of_fit_is_called_that():
    with pytest.raises(TypeError, match=r"SEM has no parameter 'device'; pass it to fit"):
        ue.SEM(device="cpu")


def test_the_signature_is_that_of_the_parameters():
    assert list(inspect.signature(Mine).parameters)[:3] == ["surrogate", "epsilon", "norm"]
    assert Mine("tiny", epsilon=0.02).get_params()["epsilon"] == 0.02


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--set", "eps=8/255"], "SEM has no parameter 'eps'; did you mean 'epsilon'?"),
        (["--method", "semm"], "got 'semm'; did you mean 'sem'?"),
        (["--epsilon", "abc"], "--epsilon: expected a number such as 8/255 or 0.1, got 'abc'"),
        (["--set", "epsilon=abc"], "expected epsilon to be a finite number, got 'abc'"),
        (["--epsilon", "-8/255"], "expected epsilon > 0, got -0.03"),
        (["--epsilon", "-1e-3"], "expected epsilon > 0, got -0.001"),
        (["--epsilon", "-.5"], "expected epsilon > 0, got -0.5"),
        (["--set", "step_size=-1/255"], "expected step_size above 0, got -0.0039"),
        (["--surrogate", "resnet81"], "got 'resnet81'; did you mean 'resnet18'?"),
        (["--device", "cuda:7"], "expected a device that this machine has, got 'cuda:7'"),
        (["--device", "gpu"], "expected a device such as"),
        (["--preset", "quick"], "--preset: expected one of paper, fast, demo, got 'quick'"),
    ],
)
def test_a_wrong_word_is_one_sentence(words, message, tmp_path, capsys):
    code, out, err = run(capsys, "fit", "shapes:16", tmp_path / "p", *words)
    assert code in (1, 2) and out == "" and message in err
    assert err.count("\n") == 1 and err.startswith("unlearnable: ") and "usage" not in err
    assert not (tmp_path / "p").exists()


def test_negative_fractions_are_numbers(tmp_path, capsys):
    for share in ("-0.5", "-1/2", "-.5"):
        code, _, err = run(capsys, "protect", "shapes:16", tmp_path / "o", "--fraction", share)
        assert code == 1 and "expected --fraction from 0 to 1, got -0.5" in err


def test_names_are_read_whatever_their_case(tmp_path, capsys):
    for name in ("RandomNoise", "RANDOMNOISE", "random-noise", "random_noise"):
        words = ("fit", "Shapes:16", tmp_path / name, "--method", name, "--preset", "Demo")
        code, out, err = run(capsys, *words, "--granularity", "Sample_wise", "--quiet", "--json")
        assert code == 0, err
        assert json.loads(out)["method"] == "RandomNoise"
    read = choices.network_name
    assert [read(n) for n in ("ResNet18", "VIT_small", "torchvision:ResNet50", "own")] == [
        "resnet18", "vit-small", "torchvision:resnet50", "own",
    ]  # fmt: skip
    names = [choices.countermeasure_name(n) for n in ("JPEG-10", "Fine_Tuning", "Bit-Depth-3")]
    assert names == ["jpeg-10", "fine-tuning", "bit-depth-3"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["evalute", "a", "b"], "got 'evalute'; did you mean 'evaluate'?"),
        (["fit", "cifra10:data", "p"], "got 'cifra10:data'; did you mean 'cifar10'?"),
        (["fit", "shape", "p"], "got 'shape'; did you mean 'shapes'?"),
        (["info", "cifar10-opps"], "; did you mean 'cifar10-ops'?"),
        (["protect", "shapes:4", "p", "--format", "pgn"], "got 'pgn'; did you mean 'png'?"),
        (
            ["fit", "shapes:16", "p", "--surrogate", "resnet34"],
            "got 'resnet34'; did you mean 'torchvision:resnet34'?",
        ),
        (
            ["fit", "shapes:16", "p", "--surrogate", "torchvision:efficientnet-b0"],
            "got 'torchvision:efficientnet-b0'; did you mean 'torchvision:efficientnet_b0'?",
        ),
    ],
)
def test_names_of_all_kinds_have_a_near_one(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code, out, err = run(capsys, *words)
    assert code in (1, 2) and out == "" and message in err and list(tmp_path.iterdir()) == []


def test_in_python_a_near_name_is_suggested(tensors):
    options = {"epochs": 1, "seeds": 1, "device": "cpu"}
    with pytest.raises(ValueError, match=r"got 'ResNet18'; did you mean 'resnet18'\?"):
        ue.evaluate(tensors, tensors, victim="ResNet18", **options)
    with pytest.raises(ValueError, match=r"got 'JPEG-10'; did you mean 'jpeg-10'\?"):
        ue.evaluate(tensors, tensors, "tiny", countermeasure="JPEG-10", **options)
    with pytest.raises(ValueError, match=r"got 'Fast'; did you mean 'fast'\?"):
        ue.SEM.preset("Fast")
    with pytest.raises(ValueError, match=r"or a torch module, got 5$"):
        ue.SEM(surrogate=5).fit(tensors)


def test_options_of_set_add_up(tmp_path, capsys):
    words = ("--method", "lsp", "--set", "cell=4", "--set", "separation=5", "--quiet", "--json")
    assert run(capsys, "fit", "shapes:16", tmp_path / "p", *words)[0] == 0
    parameters = json.loads((tmp_path / "p" / "config.json").read_text())["parameters"]
    assert (parameters["cell"], parameters["separation"]) == (4, 5)


@pytest.mark.parametrize("device", ["cuda", "cuda:0", "cuda:7", 3])
def test_a_gpu_that_is_not_there_is_refused(device, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=r"torch finds no CUDA GPU here: pass device=\"cpu\""):
        pick_device(device)
    assert pick_device("auto") == torch.device("cpu")


def test_a_number_beyond_the_gpus_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ValueError, match=r"got 'cuda:7'; torch finds 2 CUDA GPUs here, cuda:0 to"):
        pick_device("cuda:7")
    assert pick_device("cuda:1") == torch.device("cuda:1")


@pytest.mark.parametrize("device", ["nonsense", "cpu:x", None, ""])
def test_what_is_no_device_is_refused(device):
    with pytest.raises(ValueError, match='expected a device such as "auto", "cpu", "cuda"'):
        pick_device(device)


def test_a_device_that_does_not_compute_is_refused():
    with pytest.raises(ValueError, match="torch cannot compute on 'meta' here"):
        noise_on = ue.RandomNoise()
        noise_on.fit(Shapes(size=16), device="meta", progress=False)


# --- writing -------------------------------------------------------------------------------------


def full(*args, **options):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_is_told_with_path_and_size(tmp_path, monkeypatch):
    monkeypatch.setattr(files.os, "fsync", full)
    perturbation = noise(Shapes(size=16)).perturbation_
    with pytest.raises(OSError, match=r"expected room for [\d.]+ kB at .*No space left") as caught:
        perturbation.save_pretrained(tmp_path / "p")
    assert caught.value.errno == errno.ENOSPC and str(tmp_path / "p") in str(caught.value)
    assert "Errno" not in str(caught.value) and "free some space" in str(caught.value)


@pytest.mark.parametrize("number", [errno.EFBIG, errno.EDQUOT])
def test_a_limit_on_files_is_told_whatever_is_free(number, tmp_path):
    with pytest.raises(files.WriteError) as raised, files.writing(tmp_path, needed=84_000):
        raise OSError(number, os.strerror(number))
    said = str(raised.value)
    assert f"could not write a file of 84 kB to {tmp_path}: {os.strerror(number)};" in said
    assert "free" not in said and raised.value.errno == number


def test_other_errors_of_writing_name_the_place_too(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=rf"could not write to {tmp_path}/file/p: Not a directory"):
        noise(Shapes(size=16)).perturbation_.save_pretrained(tmp_path / "file" / "p")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            FileNotFoundError(errno.ENOENT, "No such file or directory", "x"),
            "x: No such file or di",
        ),
        (OSError(errno.ENOSPC, "No space left on device"), " are free at "),
        (OSError("expected x"), "expected x"),
        (AssertionError(), "AssertionError; pass --debug to see where"),
    ],
)
def test_errors_of_the_system_are_sentences(error, said):
    text = terminal.sentence(error, debug=False)
    assert said in text and "Errno" not in text


def test_a_reader_that_goes_away_is_no_error(monkeypatch, capsys):
    class Closed(io.StringIO):
        def write(self, text):
            raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    monkeypatch.setattr(sys, "stdout", Closed())
    assert main(["list"]) == 141
    assert capsys.readouterr().err == ""


def test_a_result_that_cannot_be_printed_is_an_error(monkeypatch, capsys):
    class Full(io.StringIO):
        write = full

    monkeypatch.setattr(sys, "stdout", Full())
    assert main(["list"]) == 1
    expected = "unlearnable: could not write to standard output: No space left on device\n"
    assert capsys.readouterr().err == expected


# --- file names that are not Unicode -------------------------------------------------------------

BYTES = os.fsdecode(b"caf\xe9")  # Latin-1 on a system of UTF-8


@pytest.fixture
def latin(tmp_path):
    try:
        (tmp_path / BYTES).mkdir()
    except OSError:
        pytest.skip("this file system takes Unicode only")
    for index, image in enumerate(pixels(8, 8, 8, 3)):
        place = tmp_path / BYTES / (BYTES if index % 2 else "a")
        place.mkdir(exist_ok=True)
        Image.fromarray(image).save(place / f"{BYTES}{index}.png")
    return tmp_path / BYTES


@pytest.mark.parametrize("format", ["png", "npz", "webdataset", "parquet"])
def test_folders_whose_names_are_not_unicode_are_exported(format, latin, tmp_path):
    if format == "parquet":
        pytest.importorskip("datasets")
    photos = ImageFolder(latin)
    protected = noise(photos).protect(photos)
    folder = protected.export(latin / ".." / f"{BYTES}-out", format, progress=False)
    assert (folder / "unlearnable.json").is_file()
    assert len(json.loads((folder / "unlearnable.json").read_text())["files"]) > 0


def test_the_command_line_takes_names_that_are_not_unicode(latin, tmp_path, capsys):
    out, saved = tmp_path / f"{BYTES}-out", tmp_path / f"{BYTES}-p"
    for words in (
        ("fit", latin, saved, *NOISE),
        ("fit", latin, saved, *NOISE, "--checkpoint", tmp_path / f"{BYTES}-c", "--json"),
        ("protect", latin, out, "--perturbation", saved, "--quiet"),
        ("verify", out, saved, "--quiet"),
        ("verify", out, saved, "--quiet", "--json"),
        ("verify", out, saved, "--originals", latin, "--quiet"),
        ("info", saved, "--json"),
    ):
        code, _, err = run(capsys, *words)
        assert code == 0, err
    path = sorted(out.rglob("*.png"))[0]
    path.rename(path.with_name(f"{BYTES}.png"))
    Image.new("RGB", (8, 8)).save(path.with_name(f"{BYTES}-black.png"))
    code, shown, err = run(capsys, "verify", out, saved, "--quiet")
    assert code == 1 and "-black.png" in shown and err == ""


def test_a_terminal_of_another_encoding_gets_escapes(latin, monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="strict")
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    assert main(["verify", str(latin), str(latin / "none…")]) == 1
    sys.stderr.flush()
    shown = sys.stderr.buffer.getvalue().decode("ascii")
    assert "caf\\udce9" in shown and "none\\u2026" in shown
    assert (stream.errors, sys.stderr.errors) == ("strict", "strict")


def test_help_reaches_a_terminal_of_another_encoding(monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="latin-1", errors="strict")
    monkeypatch.setattr(sys, "stdout", stream)
    with pytest.raises(SystemExit) as ended:
        main(["protect", "--help"])
    stream.flush()
    assert ended.value.code == 0 and stream.errors == "strict"
    assert "--perturbation" in stream.buffer.getvalue().decode("latin-1")


def load_bgr(path):
    return np.ascontiguousarray(np.asarray(Image.open(path).convert("RGB"))[..., ::-1])


def load_rgb(path):
    return np.asarray(Image.open(path).convert("RGB"))


@pytest.mark.parametrize("format", ["png", "npz"])
def test_photos_that_a_loader_gives_in_bgr_are_not_exported_with_red_as_blue(tmp_path, format):
    rng = np.random.default_rng(0)
    for index in range(6):
        folder = tmp_path / "photos" / "ab"[index % 2]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.jpg", quality=95)
    for loader in (load_bgr, load_rgb):
        dataset = ImageFolder(str(tmp_path / "photos"), loader=loader)
        protected = ue.RandomNoise().fit(dataset, progress=False).protect(dataset)
        image, _ = protected[0]
        row = protected.perturbation.rows[0].transpose(1, 2, 0)
        expected = (dataset[0][0].astype(np.int16) + row).clip(0, 255)
        assert np.array_equal(image, expected)  # in a training loop the order is the user's own
        if loader is load_bgr:
            with pytest.raises(ValueError, match=r"in RGB, got .*\.jpg in BGR.*COLOR_BGR2RGB"):
                protected.export(tmp_path / "out", format, progress=False)
            assert not (tmp_path / "out").exists()
            pytest.importorskip("datasets")
            with pytest.raises(ValueError, match="in BGR"):
                protected.to_hf_dataset()
        else:
            protected.export(tmp_path / "out", format, progress=False)
