import functools
import inspect
import json

import numpy as np
import pytest
from torchvision.datasets import ImageFolder

import unlearnable as ue
from unlearnable.cli import arguments, demo, measuring
from unlearnable.cli.main import main, make_parser
from unlearnable.datasets import Shapes
from unlearnable.engine.checkpoint import Checkpoint
from unlearnable.evaluation.audit import runner

QUICK = ["--preset", "demo", "--set", "train_steps=2", "--quiet"]


def run(capsys, *arguments):
    code = main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return code, out, err


@pytest.fixture
def photos(tmp_path):
    """A folder of class folders with photos of two sizes."""
    for index, (image, label) in enumerate(Shapes(size=24)):
        folder = tmp_path / "photos" / Shapes.classes[label]
        folder.mkdir(parents=True, exist_ok=True)
        image.resize((32 + 8 * (index % 2), 40)).save(folder / f"{index}.png")
    return tmp_path / "photos"


def test_fit_info_protect_evaluate(tmp_path, capsys):
    code, out, _ = run(capsys, "fit", "shapes:50", tmp_path / "p", *QUICK, "--json")
    assert code == 0 and json.loads(out)["method"] == "SEM"
    code, out, _ = run(capsys, "info", tmp_path / "p", "--json")
    assert code == 0 and json.loads(out)["epsilon"] == "8/255"
    assert json.loads(out)["config"]["parameters"]["train_steps"] == 2
    code, out, _ = run(capsys, "info", tmp_path / "p")
    assert code == 0 and "Linf" in out and "50 images" in out
    images = tmp_path / "images"
    arguments = ("protect", "shapes:50", images, "--perturbation", tmp_path / "p", "--quiet")
    code, out, _ = run(capsys, *arguments)
    assert code == 0
    written = ImageFolder(images)
    assert len(written) == 50
    code, _, err = run(capsys, *arguments)
    assert code == 1 and "--force" in err
    assert run(capsys, *arguments, "--force")[0] == 0
    code, out, _ = run(
        capsys, "evaluate", "shapes:50", "shapes:10", "--perturbation", tmp_path / "p",
        "--victim", "tiny", "--epochs", 1, "--seeds", 1, "--json", "--quiet",
    )  # fmt: skip
    assert code == 0 and len(json.loads(out)["last"]) == 1


def test_info_says_how_it_was_fitted(perturbation, tmp_path, capsys):
    reason = {"precision": "bf16", "precision_reason": "1.5 times as fast as float32"}
    names = ("device", "precision", "precision_reason")
    config = {n: v for n, v in perturbation.config.items() if n not in names}
    fitted = {"device": "cpu", "precision": "float32"}
    shown = {}
    for name, origin in {"plain": fitted, "reason": fitted | reason, "earlier": {}}.items():
        made = ue.Perturbation.of_kind(perturbation.tensors, config | origin)
        made.save_pretrained(tmp_path / name)
        code, out, _ = run(capsys, "info", tmp_path / name)
        summary = made.info()
        lines = dict(line.split(maxsplit=1) for line in out.splitlines())
        assert code == 0 and lines.keys() - origin.keys() == summary.keys()
        shown[name] = {name: lines[name] for name in origin}
    assert shown == {"plain": fitted, "reason": fitted | reason, "earlier": {}}


def test_audit_tries_countermeasures_and_reports(tmp_path, capsys):
    assert run(capsys, "fit", "shapes:50", tmp_path / "p", "--method", "ops", "--quiet")[0] == 0
    arguments = (
        "audit", "shapes:50", "--perturbation", tmp_path / "p", "--test", "shapes:20",
        "--countermeasures", "grayscale", "--epochs", 1, "--victims", "tiny", "--quiet",
        "--device", "cpu", "--out", tmp_path / "audit",
    )  # fmt: skip
    code, out, err = run(capsys, *arguments)
    assert code == 0, err
    assert str(tmp_path / "audit" / "report.html") in out and "grayscale" in out
    code, out, _ = run(capsys, *arguments, "--json")  # from what was kept
    shown = json.loads(out)
    assert code == 0 and len(shown["cells"]) == shown["planned"] == 4 and "examples" not in shown
    code, _, err = run(capsys, *arguments, "--countermeasures", "jpg")
    assert code == 1 and "jpeg-QUALITY" in err
    code, _, err = run(capsys, *arguments, "--epochs", 0)
    assert code == 1 and "epoch" in err


@pytest.mark.parametrize(
    ("words", "tried"),
    [
        ([], None),  # what audit tries by default
        (["--countermeasures", "Strong", "adaptive"], ["strong", "adaptive"]),
        (["--quick"], measuring._QUICK["countermeasures"]),
        (["--quick", "--countermeasures", "JPEG10+Grayscale"], ["jpeg-10+grayscale"]),
    ],
)
def test_what_an_audit_tries_on_a_cpu(tmp_path, capsys, monkeypatch, words, tried):
    asked = {}

    @functools.wraps(runner.audit)
    def audit(*args, **options):
        asked.update(options)
        raise ValueError("asked")

    monkeypatch.setattr(runner, "audit", audit)
    assert run(capsys, "fit", "shapes:20", tmp_path / "p", "--method", "ops", "--quiet")[0] == 0
    arguments = ("audit", "shapes:20", "--perturbation", tmp_path / "p", "--device", "cpu")
    code, _, err = run(capsys, *arguments, *words)
    assert code == 1 and "asked" in err
    assert asked.get("countermeasures") == tried
    assert (asked["victims"], asked["epochs"]) == (["tiny"], 12)


def test_fit_says_where_the_time_went_and_writes_for_tensorboard(tmp_path, capsys):
    options = ("--profile", "--tensorboard", tmp_path / "board", "--checkpoint", tmp_path / "c")
    code, out, err = run(capsys, "fit", "shapes:50", tmp_path / "p", *QUICK, "--json", *options)
    assert code == 0, err
    shown = json.loads(out)
    assert all(shown[part].endswith("%)") for part in ("surrogate steps", "everything else"))
    assert [path.name.startswith("events") for path in (tmp_path / "board").iterdir()] == [True]
    assert not (tmp_path / "c").exists()


def test_ctrl_c_in_a_fit_says_how_to_go_on(tmp_path, capsys, monkeypatch):
    arguments = ("fit", "shapes:50", tmp_path / "p", *QUICK, "--checkpoint", tmp_path / "c")
    wanted = Checkpoint.wanted
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "wanted", lambda self: (True, True))
        code, _, err = run(capsys, *arguments)
    assert code == 130 and str(tmp_path / "c") in err and "to continue" in err
    assert Checkpoint.wanted is wanted
    assert run(capsys, *arguments)[0] == 0


def test_protect_keeps_the_size_of_photos(photos, tmp_path, capsys):
    arguments = ("protect", photos, tmp_path / "out", *QUICK, "--json")
    code, out, err = run(capsys, *arguments)
    assert code == 0, err
    written = ImageFolder(tmp_path / "out")
    assert [written.classes[label] for label in written.targets] == [
        ImageFolder(photos).classes[label] for label in ImageFolder(photos).targets
    ]
    assert {image.size for image, _ in written} == {(32, 40), (40, 40)}
    # Most of them are 32 pixels wide or no wider than 40: less than 224.
    shown = json.loads(out)
    assert "3x32x32" in shown["perturbation"] and shown["size"] == "as the photos"
    described = json.loads((tmp_path / "out" / "unlearnable.json").read_text())
    assert described["full_size"] is True


def test_protect_keeps_what_it_learned_if_asked(photos, tmp_path, capsys):
    kept = tmp_path / "kept"
    arguments = ("protect", photos, tmp_path / "out", *QUICK, "--save-perturbation", kept)
    code, _, err = run(capsys, *arguments)
    assert code == 0, err
    assert run(capsys, "verify", tmp_path / "out", kept)[0] == 0
    assert ue.SEM.from_pretrained(kept).surrogate_ is not None
    # A folder that holds other things is refused before the work.
    arguments = ("protect", photos, tmp_path / "o2", *QUICK, "--save-perturbation")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a.txt").write_text("a")
    code, _, err = run(capsys, *arguments, tmp_path / "mine")
    assert code == 1 and "--force" in err and not (tmp_path / "o2").exists()
    # So is one among the images, clean or protected, whatever else is asked for.
    for place in (photos, photos / "kept", tmp_path / "o2", tmp_path / "o2" / "kept"):
        code, _, err = run(capsys, *arguments, place, "--force")
        assert code == 1 and "separate from the images' folder" in err
        assert not (tmp_path / "o2").exists() and not (photos / "kept").exists()
    code, _, err = run(capsys, "fit", photos, photos / "kept", *QUICK, "--force")
    assert code == 1 and "separate" in err and not (photos / "kept").exists()
    code, _, err = run(
        capsys, "protect", photos, tmp_path / "o2", "--perturbation", kept,
        "--save-perturbation", tmp_path / "again",
    )  # fmt: skip
    assert code == 1 and "expected no --save-perturbation" in err
    arguments = ("protect", photos, tmp_path / "o2", "--perturbation", kept)
    code, _, err = run(capsys, *arguments, "--epsilon", "0")
    assert code == 1 and "expected no --epsilon with" in err


def test_resize_gives_copies_of_the_size_that_is_learned_at(photos, tmp_path, capsys):
    arguments = ("protect", photos, tmp_path / "out", *QUICK, "--json")
    code, _, err = run(capsys, *arguments, "--image-size", 24, "--resize", "--epsilon", "4/255")
    assert code == 0, err
    assert {image.size for image, _ in ImageFolder(tmp_path / "out")} == {(24, 24)}


def test_arrays_are_of_the_size_that_is_learned_at(photos, tmp_path, capsys):
    options = ("--method", "randomnoise", "--format", "npz", "--quiet")
    code, _, err = run(capsys, "protect", photos, tmp_path / "out", *options)
    assert code == 0, err
    with np.load(tmp_path / "out" / "images.npz") as arrays:
        assert arrays["images"].shape == (24, 32, 32, 3)


def test_pixels_are_for_the_learned_size_alone(photos, tmp_path, capsys):
    arguments = ("protect", photos, tmp_path / "out", "--method", "ops", "--quiet")
    code, _, err = run(capsys, *arguments)
    assert code == 1 and "--resize" in err and not (tmp_path / "out").exists()
    code, _, err = run(capsys, *arguments, "--resize")
    assert code == 0, err


@pytest.mark.parametrize("command", ["fit", "protect"])
def test_bad_photos_are_all_named_before_the_work(command, photos, tmp_path, capsys):
    bad = sorted(photos.rglob("*.png"))[:2]
    bad[0].write_bytes(bad[0].read_bytes()[:200])
    bad[1].write_text("no photo")
    code, out, err = run(capsys, command, photos, tmp_path / "out", *QUICK)
    assert code == 1 and out == "" and "24 photos, got 22 and 2 bad files" in err
    assert all(str(path) in err for path in bad)
    assert not (tmp_path / "out").exists()


def test_verify(photos, tmp_path, capsys):
    (photos / "loose.gif").touch()
    quiet = ("--method", "randomnoise", "--quiet")
    code, out, _ = run(capsys, "fit", photos, tmp_path / "p", *quiet)
    assert code == 0 and "left out" in out and "loose.gif" in out
    arguments = ("--perturbation", tmp_path / "p", "--quiet")
    assert run(capsys, "protect", photos, tmp_path / "out", *arguments)[0] == 0
    for originals in ((), ("--originals", photos)):
        arguments = ("verify", tmp_path / "out", tmp_path / "p", "--quiet", *originals)
        code, out, err = run(capsys, *arguments)
        assert code == 0 and out.startswith("All 24 pictures are protected."), err
    path = sorted((tmp_path / "out").rglob("*.png"))[0]
    path.write_bytes(sorted(photos.rglob("*.png"))[0].read_bytes())
    code, out, _ = run(capsys, *arguments, "--json")
    assert code == 1
    shown = json.loads(out)
    assert shown["clean"] == 1 and shown["protected"] == 23 and not shown["whole"]
    assert shown["files"][path.relative_to(tmp_path / "out").as_posix()] == "clean"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fit", "nowhere", "out"], "'nowhere', which does not exist"),
        (["fit", "cifar10:nowhere", "out"], "cifar10:nowhere: expected the original files below"),
        (["fit", "shapes:16", "out", "--epsilon", "8"], "8 / 255"),
        (["fit", "shapes:16", "out", "--epsilon", "-1/255"], "expected epsilon > 0, got -0.0039"),
        (["fit", "shapes:16", "out", "--set", "epsilon=-1/255"], "expected epsilon > 0"),
        (["fit", "shapes:16", "out", "--image-size", "0"], "expected image_size"),
        (["fit", "shapes:x", "out"], "shapes:N to be an integer >= 1, got 'x'"),
        (["fit", "shapes:16", "out", "--set", "alpha=2"], "train_steps"),
        (["fit", "shapes:16", "out", "--set", "alpha"], "NAME=VALUE"),
        (["info", "nowhere"], "nowhere"),
        (["verify", "images", "nowhere"], "nowhere"),
        (["protect", "shapes:16", "out", "--keep-gps"], "--keep-metadata"),
        (["protect", "shapes:16", "out", "--keep-metadata", "--format", "npz"], "png, webp"),
        (["protect", "shapes:16", "out", "--method", "randomnoise", "--format", "jpg"], "jpeg"),
        (["protect", "shapes:16", "out", "--fraction", "-1/2"], "--fraction from 0 to 1, got -0.5"),
        (["evaluate", "shapes:16", "shapes:8", "--epochs", "0", "--victim", "tiny"], "epoch"),
        (["evaluate", "shapes:16", "shapes:8", "--seeds", "0", "--victim", "tiny"], "seed"),
    ],
)
def test_errors_are_one_line_and_exit_code_1(arguments, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = run(capsys, *arguments, "--quiet")
    assert code == 1 and out == "" and message in err and "Traceback" not in err
    assert not (tmp_path / "out").exists()


def test_usage_errors_exit_with_2(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["fit"])
    assert caught.value.code == 2
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0 and ue.__version__ in capsys.readouterr().out


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (["--epsilon", "abc"], "--epsilon: expected a number such as 8/255 or 0.1, got 'abc'"),
        (["--epsilon", "1/0"], "--epsilon: expected a number such as 8/255 or 0.1, got '1/0'"),
        (["--fraction", "nan"], "--fraction: expected a number such as"),
        (["--checkpoint-every", "soon"], "--checkpoint-every: expected a number such as"),
        (["--seed", "1.5"], "--seed: invalid int value: '1.5'"),
        (["--image-size", "big"], "--image-size: invalid int value: 'big'"),
    ],
)
def test_what_is_no_number_is_a_usage_error(option, message, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["protect", "shapes:16", "out", *option])
    assert caught.value.code == 2 and message in capsys.readouterr().err


def test_a_wrong_fraction_is_refused_before_the_fit(tmp_path, capsys):
    arguments = ("protect", "shapes:16", tmp_path / "out", *QUICK)
    options = ("--save-perturbation", tmp_path / "kept", "--fraction", 2)
    code, _, err = run(capsys, *arguments, *options)
    assert code == 1 and "expected --fraction from 0 to 1, got 2" in err
    assert not (tmp_path / "kept").exists()


class Unforeseen(Exception):
    pass


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (ValueError("expected x"), "unlearnable: expected x"),
        (KeyError("x"), "unlearnable: KeyError: 'x'; pass --debug to see where"),
        (Unforeseen("odd"), "unlearnable: Unforeseen: odd; pass --debug to see where"),
        (AssertionError(), "unlearnable: AssertionError; pass --debug to see where"),
        (ValueError(), "unlearnable: ValueError; pass --debug to see where"),
    ],
)
def test_debug_shows_where_an_error_arose(error, sentence, capsys, monkeypatch):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(ue.Perturbation, "from_pretrained", fail)
    assert run(capsys, "info", "x") == (1, "", sentence + "\n")
    monkeypatch.setenv("UNLEARNABLE_DEBUG", "0")
    assert run(capsys, "info", "x") == (1, "", sentence + "\n")
    shown = [run(capsys, "info", "x", "--debug")]
    monkeypatch.setenv("UNLEARNABLE_DEBUG", "1")
    shown.append(run(capsys, "info", "x"))
    for code, out, err in shown:
        assert code == 1 and out == ""
        assert err.startswith("Traceback") and "in fail" in err
        assert err.splitlines()[-1] == sentence.removesuffix("; pass --debug to see where")


@pytest.mark.parametrize(
    ("command", "function", "missing"),
    [
        (["fit", "a", "b"], ue.Method.fit, {"keep_checkpoint", "callback", "resident"}),
        (["protect", "a", "b"], ue.ProtectedDataset.export, {"mapping", "measure", "resume"}),
        (["evaluate", "a", "b"], ue.evaluate, {"batch_size", "peak_images"}),
        (
            ["audit", "a", "--perturbation", "b"],
            ue.audit,
            {"batch_size", "peak_images", "held_out"},
        ),
        (["import", "a", "b", "c", "--method=m", "--epsilon=0"], ue.import_perturbation, set()),
        (["push", "a", "b"], ue.Perturbation.push_to_hub, {"token", "endpoint"}),
        (
            ["pull", "a"],
            ue.Perturbation.from_pretrained,
            {"token", "cache_dir", "local_files_only", "endpoint"},
        ),
        (["demo"], demo.run_demo, {"size", "epochs"}),
    ],
)
def test_options_reach_the_arguments_that_they_are_named_like(command, function, missing):
    parameters = inspect.signature(function).parameters.values()
    names = {p.name for p in parameters if p.kind is p.KEYWORD_ONLY}
    args = make_parser().parse_args(command)
    assert arguments.chosen(args, function) == {n: getattr(args, n) for n in names - missing}


def test_ctrl_c_exits_with_130(capsys, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(ue.Perturbation, "from_pretrained", interrupt)
    assert run(capsys, "info", "x")[0] == 130


def test_checkpoints_may_be_kept_only_when_a_fit_is_stopped(tmp_path, capsys):
    options = ("--checkpoint", tmp_path / "c", "--checkpoint-every", "inf")
    code, _, err = run(capsys, "fit", "shapes:16", tmp_path / "out", *QUICK, *options)
    assert code == 0, err


def test_values_are_read_as_typed():
    assert arguments.parse_value("8/255") == 8 / 255
    assert [arguments.parse_value(text) for text in ("5", "0.5", "true", "null", "tiny")] == [
        5, 0.5, True, None, "tiny",
    ]  # fmt: skip


def test_the_demo_writes_what_it_says(tmp_path, capsys, monkeypatch):
    quick = functools.partial(demo.run_demo, size=7, epochs=1, train_steps=2)
    monkeypatch.setattr(demo, "run_demo", quick)
    code, out, err = run(capsys, "demo", "--out", tmp_path / "demo", "--quiet")
    assert code == 0, err
    assert "random noise" in out and "peak" in out
    result = json.loads((tmp_path / "demo" / "result.json").read_text())
    assert set(result["victims"]) == {"clean", "random noise", "SEM"}
    audit = out.splitlines()[-1].split()
    assert audit[:4] == ["unlearnable", "audit", "shapes", "--perturbation"]
    assert audit[4] == str(tmp_path / "demo" / "sem")
    for file in result["files"]:
        assert (tmp_path / "demo" / file).exists() and str(tmp_path / "demo" / file) in out
    loaded = ue.Perturbation.from_pretrained(tmp_path / "demo" / "sem")
    assert loaded.config["strength"]["protected"] == result["victims"]["SEM"]["last"]
    assert run(capsys, "demo", "--out", tmp_path / "demo", "--quiet")[0] == 0  # ours: replaced
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a.txt").write_text("keep")
    code, _, err = run(capsys, "demo", "--out", tmp_path / "mine", "--quiet")
    assert code == 1 and "--force" in err
    assert np.array_equal([p.name for p in (tmp_path / "mine").iterdir()], ["a.txt"])
