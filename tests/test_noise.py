"""What is printed is said once, is true, and is this package's own."""

import json
import logging
import subprocess
import sys
import warnings

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import ImageFolder

import unlearnable as ue
from unlearnable.cli.main import main
from unlearnable.cli.terminal import own_words_only
from unlearnable.datasets import Shapes
from unlearnable.perturbation.card import words, write_card


def noise(dataset, **options):
    return ue.RandomNoise(**options).fit(dataset, device="cpu", progress=False)


def test_only_our_own_logs_are_at_info(capsys, monkeypatch):
    bare_root = logging.getLogger()
    level = bare_root.level
    monkeypatch.setattr(bare_root, "handlers", [])  # pytest's
    with own_words_only(debug=False):
        logging.getLogger("unlearnable.methods").info("ours")
        logging.getLogger("httpx").info("HTTP Request: GET …")
        logging.getLogger("httpx").warning("theirs")
    assert capsys.readouterr().err == "ours\ntheirs\n"
    with own_words_only(debug=True):
        logging.getLogger("httpx").info("HTTP Request: GET …")
    assert capsys.readouterr().err == "HTTP Request: GET …\n"
    assert bare_root.handlers == [] and bare_root.level == level
    assert logging.getLogger("unlearnable").level == logging.NOTSET


@pytest.mark.filterwarnings("default")
def test_warnings_of_ours_are_a_line_and_others_are_not_shown(capsys, tmp_path):
    before = warnings.showwarning
    with own_words_only(debug=False):
        warnings.warn("theirs", stacklevel=1)
        noise(Shapes(size=16), epsilon=1 / 255).protect(Shapes(size=16)).export(
            tmp_path / "out", progress=False
        )
    assert capsys.readouterr().err.startswith("unlearnable: there are no images of ")
    assert warnings.showwarning is before
    with own_words_only(debug=True), warnings.catch_warnings():
        warnings.simplefilter("always")
        shown = []
        warnings.showwarning = lambda *args, **options: shown.append(str(args[0]))
        warnings.warn("theirs", stacklevel=1)
    assert shown == ["theirs"]


def test_names_that_would_steer_the_terminal_are_escaped(capsys, tmp_path):
    made = noise(Shapes(size=16)).perturbation_
    made.config["method"] = "x\x1b]0;title\x07\nstrength     100 %"
    folder = made.save_pretrained(tmp_path / "p")
    assert main(["info", str(folder)]) == 0
    out = capsys.readouterr().out
    assert "x\\x1b]0;title\\x07\\nstrength" in out and out.count("\nstrength") == 1
    assert main(["info", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["method"] == made.config["method"]
    assert main(["info", str(tmp_path / "\x1b[2Jé\udcff")]) == 1
    assert "\\x1b[2Jé" in (err := capsys.readouterr().err) and "\x1b" not in err


@pytest.mark.slow
def test_a_command_prints_no_source_lines(tmp_path):
    command = [sys.executable, "-W", "default", "-m", "unlearnable", "protect", "shapes:16"]
    del command[1:3]  # as users type it
    options = ["out", "--method", "randomnoise", "--quiet", "--device", "cpu"]
    found = subprocess.run([*command, *options], cwd=tmp_path, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    lines = found.stderr.splitlines()
    assert [line for line in lines if ".py:" in line or "warnings.warn" in line] == []
    assert lines[-1].startswith("unlearnable: there are no images of ")


def test_verify_names_each_file_once(tmp_path):
    rng = np.random.default_rng(0)
    for index in range(8):
        folder = tmp_path / "photos" / f"class{index % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        level = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        image = Image.fromarray(level).resize((16, 16))
        image.save(folder / f"{index}.png")
    photos = ImageFolder(tmp_path / "photos")
    fitted = noise(photos)
    out = fitted.protect(photos).export(tmp_path / "out", progress=False)
    clean, edited, recompressed, gone, *_ = sorted(out.rglob("*.png"))
    clean.write_bytes((tmp_path / "photos" / "class0" / "0.png").read_bytes())
    with Image.open(edited) as image:
        image.point(lambda level: level // 2).save(edited)
    with Image.open(recompressed) as image:
        image.save(recompressed.with_suffix(".jpg"), quality=50)
    recompressed.unlink()
    gone.unlink()
    found = ue.verify(out, fitted.perturbation_, progress=False)
    text = str(found)
    for path in (clean, edited, recompressed, gone):
        stem = path.relative_to(out).with_suffix("").as_posix()
        assert sum(stem in line for line in text.splitlines()) == 1, text
    assert "missing" in text and f"\n  {gone.relative_to(out).as_posix()}\n" in text
    names = {path.relative_to(out).as_posix() for path in (clean, edited, recompressed, gone)}
    assert set(found.missing) == names  # no protected copy is there of any


def test_one_seed_is_not_called_none():
    strength = {"victim": "tiny", "epochs": 12, "seeds": [0], "clean": [0.9], "protected": [0.1]}
    assert "seed 0" in words(strength) and "seeds" not in words(strength)
    assert words({"seeds": [0, 1]}) == "seeds 0, 1"
    perturbation = noise(Shapes(size=16)).perturbation_
    config = perturbation.config | {"strength": strength}
    card = write_card(perturbation.info(), config, "owner/name")
    assert "| seed | 0 |" in card and "| seeds |" not in card


@pytest.mark.parametrize("seeds", [0, [], -1])
def test_no_seeds_are_refused(seeds, tensors, capsys):
    with pytest.raises(ValueError, match=r"expected (seeds|at least one seed)"):
        ue.evaluate(tensors, tensors, "tiny", epochs=1, seeds=seeds, device="cpu")
    with pytest.raises(ValueError, match=r"expected (seeds|at least one seed)"):
        ue.audit(tensors, None, tensors, seeds=seeds)


def test_no_seeds_are_refused_on_the_command_line(capsys):
    assert main(["evaluate", "shapes:16", "shapes:16", "--seeds", "0"]) == 1
    assert "expected seeds to be an integer >= 1, got 0" in capsys.readouterr().err


class Split(Shapes):
    """Images that say which split they are of."""

    def __init__(self, **attributes):
        super().__init__(size=16, seed=9)
        vars(self).update(attributes)


@pytest.mark.parametrize(
    ("attributes", "said"),
    [({"train": False}, "train=False"), ({"train": True, "split": "test"}, "split='test'")],
)
def test_a_test_split_stays_clean(attributes, said):
    fitted = noise(Shapes(size=16))
    with pytest.raises(ue.UnknownImageError, match=said) as caught:
        fitted.protect(Split(**attributes))
    assert "stay clean" in str(caught.value) and "extend" not in str(caught.value)


def test_new_training_images_are_extended_to():
    with pytest.raises(ue.UnknownImageError, match=r"method\.extend\(dataset\)") as caught:
        noise(Shapes(size=16)).protect(Split(train=True))
    assert "use test and validation images without protection" in str(caught.value)


def test_json_of_a_command_is_nothing_else(capsys, tmp_path):
    words = ["fit", "shapes:16", str(tmp_path / "p"), "--method", "lsp", "--json", "--quiet"]
    assert main(words) == 0
    assert json.loads(capsys.readouterr().out)["method"] == "LSP"
