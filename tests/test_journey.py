"""``unlearnable protect photos out`` as somebody goes through it who knows no machine learning."""

import json
import logging
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import unlearnable as ue
from unlearnable.cli.main import main
from unlearnable.cli.stages import plain_words
from unlearnable.cli.unfinished import Unfinished, beside
from unlearnable.engine.checkpoint import Checkpoint
from unlearnable.engine.sizes import readable_size
from unlearnable.io.files import write_json
from unlearnable.photos import choice, costs
from unlearnable.photos import plan as plans
from unlearnable.protected.dataset import ProtectedDataset
from unlearnable.protected.export.encoding import Encoding

RNG = np.random.default_rng(0)
FEW = ["--set", "train_steps=2"]
NOISE = ["--method", "randomnoise"]


@pytest.fixture(autouse=True)
def measured(monkeypatch):
    """Nothing is timed: that takes longer than all else here."""
    learning = costs.Learning(1e-4, 32, 10**5)
    monkeypatch.setattr(choice, "measure_learning", lambda *_: learning)
    monkeypatch.setattr(plans, "measure_writing", lambda *_: costs.Writing(1.0, 10**8))


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """Two folders of photos of two sizes, beside the working directory's other files."""
    monkeypatch.chdir(tmp_path)
    for index in range(12):
        side = (32, 40)[index % 2]
        pixels = RNG.integers(0, 256, (32, side, 3), dtype=np.uint8)
        place = tmp_path / "photos" / ("cat", "dog")[index % 2 if index < 6 else index // 9]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(place / f"{index}.png")
    return tmp_path / "photos"


@pytest.fixture
def flat(photos):
    folder = photos.parent / "flat"
    folder.mkdir()
    for path in photos.rglob("*.png"):
        shutil.copy(path, folder)
    return folder


def run(capsys, caplog, *arguments):
    """Exit code, what is printed, and all that is said beside it."""
    caplog.clear()
    code = main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return code, out, "\n".join([err, *caplog.messages])


def test_one_command_plans_keeps_the_key_and_says_what_is_next(photos, tmp_path, capsys, caplog):
    code, out, said = run(capsys, caplog, "protect", "photos", "out", *FEW)
    assert code == 0, said
    assert "12 photos in 2 folders" in said and "untouched" in said and "GB of memory" in said
    assert "image generators" in said and "cannot be measured" in said
    assert "12 copies are in out" in out and "Keep it, and do not publish it" in out
    assert "unlearnable preview photos/cat/" in out and "unlearnable verify out out-key" in out
    assert "audit" not in out
    words = (said + out).lower()
    assert not any(word in words for word in ("surrogate", "image passes", "pgd", "epoch"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "out-key", "photos"]
    assert run(capsys, caplog, "verify", "out", "out-key", "--quiet")[0] == 0
    assert ue.SEM.from_pretrained("out-key").surrogate_ is not None
    assert not list((tmp_path / "out").glob("*key*"))


def test_experts_see_the_log():
    logger = logging.getLogger("unlearnable.engine.estimate")
    before = logger.isEnabledFor(logging.INFO)
    with plain_words(verbose=True):
        assert logger.isEnabledFor(logging.INFO) == before
    with plain_words(verbose=False):
        assert not logger.isEnabledFor(logging.INFO) and logger.isEnabledFor(logging.WARNING)
    assert logger.isEnabledFor(logging.INFO) == before


def test_json_is_for_scripts_alone(photos, capsys, caplog):
    code, out, _ = run(capsys, caplog, "protect", "photos", "out", *FEW, "--json")
    shown = json.loads(out)
    assert code == 0 and shown["key"] == "out-key" and shown["images"] == 12


def test_a_key_of_ones_own_place(photos, tmp_path, capsys, caplog):
    out = run(capsys, caplog, "protect", "photos", "out", *FEW, "--save-perturbation", "mine")[1]
    assert "unlearnable verify out mine" in out and not (tmp_path / "out-key").exists()


@pytest.mark.parametrize(
    ("out", "key"), [("out", "out-key"), ("a/out/", "a/out-key"), ("/x/out", "/x/out-key")]
)
def test_where_the_key_is(out, key):
    assert str(beside(out, "key")) == key


def test_a_flat_folder_has_flat_copies_of_the_same_names(flat, tmp_path, capsys, caplog):
    code, out, said = run(capsys, caplog, "protect", "flat", "out")
    assert code == 0, said
    assert "12 photos not sorted into folders" in said and "--others" in said
    names = sorted(path.name for path in flat.iterdir())
    assert sorted(path.name for path in (tmp_path / "out").glob("*.png")) == names
    assert not any(path.is_dir() for path in (tmp_path / "out").iterdir())
    assert "audit" not in out
    for originals in ([], ["--originals", "flat"]):
        assert run(capsys, caplog, "verify", "out", "out-key", *originals)[0] == 0
    photo = f"flat/{names[0]}"
    arguments = ("preview", photo, "--perturbation", "out-key", "--out", "p.png")
    assert run(capsys, caplog, *arguments)[0] == 0
    for arguments in (
        ("audit", "flat", "--perturbation", "out-key", "--quiet"),
        ("evaluate", "flat", "flat", "--victim", "tiny", "--image-size", 32, "--quiet"),
    ):
        code, _, said = run(capsys, caplog, *arguments)
        assert code == 1 and "at least two classes" in said
    code, _, said = run(capsys, caplog, "protect", "out", "again")
    assert code == 1 and "not protected yet" in said


def test_photos_that_would_have_one_name_in_a_flat_folder(flat, tmp_path, capsys, caplog):
    Image.open(flat / "0.png").convert("RGB").save(flat / "0.jpg")
    assert run(capsys, caplog, "protect", "flat", "out", "--quiet")[0] == 0
    assert (tmp_path / "out" / "0 (2).png").is_file() and (tmp_path / "out" / "0.png").is_file()
    assert run(capsys, caplog, "verify", "out", "out-key", "--originals", "flat")[0] == 0


@pytest.mark.parametrize(
    ("others", "said"),
    [
        ("flat", "got only the photos themselves"),
        ("nothing", "got 'nothing', which is no folder"),
        ("flat/0.png", "got 'flat/0.png', which is no folder"),
    ],
)
def test_others_that_are_no_others(flat, tmp_path, capsys, caplog, others, said):
    code, _, told = run(capsys, caplog, "protect", "flat", "out", "--others", others)
    assert code == 1 and said in told
    assert sorted(path.name for path in tmp_path.iterdir()) == ["flat", "photos"]


def test_sizes_on_the_disk_are_those_of_full_size(flat, capsys, caplog):
    assert "disk space" in run(capsys, caplog, "protect", "flat", "out")[2]
    options = ("--resize", "--image-size", "16")
    assert "disk space" not in run(capsys, caplog, "protect", "flat", "small", *options)[2]


def test_copies_in_place_of_the_key(flat, capsys, caplog):
    assert run(capsys, caplog, "protect", "flat", "out", "--quiet")[0] == 0
    code, _, said = run(capsys, caplog, "verify", "out-key", "out")
    assert code == 1 and "pass the folder of a saved perturbation (a key), such as out-key" in said


def test_others_get_no_copies(flat, photos, tmp_path, capsys, caplog):
    shutil.move(photos / "cat", tmp_path / "cats")
    arguments = ("protect", "cats", "out", "--others", "photos/dog", *FEW, "--quiet")
    code, out, said = run(capsys, caplog, *arguments)
    assert code == 0, said
    assert "other pictures" in said and "audit" not in out
    names = sorted(path.name for path in (tmp_path / "cats").iterdir())
    assert sorted(path.name for path in (tmp_path / "out").glob("*.png")) == names
    assert run(capsys, caplog, "verify", "out", "out-key", "--originals", "cats")[0] == 0
    code, _, said = run(capsys, caplog, "protect", "shapes:16", "o2", "--others", "cats")
    assert code == 1 and "--others only when learning from a folder of photos" in said


def test_ctrl_c_while_it_learns_and_the_same_again(photos, tmp_path, capsys, caplog, monkeypatch):
    arguments = ("protect", "photos", "out", "--set", "visits=1", "--quiet")
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "wanted", lambda self: (True, True))
        code, _, said = run(capsys, caplog, *arguments)
    assert code == 130 and "Run the same command again" in said and "out-unfinished" in said
    assert (tmp_path / "out-unfinished" / "plan.json").is_file()
    monkeypatch.setattr(plans, "Choice", None)  # nothing is planned again
    code, _, said = run(capsys, caplog, *arguments)
    assert code == 0 and "Continuing the work" in said
    assert not (tmp_path / "out-unfinished").exists()


def test_ctrl_c_while_it_writes_learns_nothing_again(photos, capsys, caplog, monkeypatch):
    arguments = ("protect", "photos", "out", *FEW, "--quiet")

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ProtectedDataset, "export", interrupt)
        code, _, said = run(capsys, caplog, *arguments)
    assert code == 130 and "Run the same command again to continue" in said
    passes = []
    monkeypatch.setattr(ue.SEM, "_search", lambda *_: passes.append(1))
    assert run(capsys, caplog, *arguments)[0] == 0 and not passes


def test_other_photos_begin_anew_while_it_writes(photos, tmp_path, capsys, caplog, monkeypatch):
    arguments = ("protect", "photos", "out", *FEW, "--quiet")

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ProtectedDataset, "export", interrupt)
        assert run(capsys, caplog, *arguments)[0] == 130
        (photos / "cat" / "0.png").unlink()
        assert run(capsys, caplog, *arguments)[0] == 130
    (photos / "cat" / "2.png").unlink()
    code, out, said = run(capsys, caplog, *arguments)
    assert code == 0 and "Starting over" in said and "10 copies are in out" in out
    assert run(capsys, caplog, "verify", "out", "out-key", "--originals", "photos")[0] == 0


@pytest.mark.parametrize("options", [[], ["--epsilon", "4/255"]])
def test_a_second_command_at_the_same_time_harms_nothing(photos, capsys, caplog, options):
    first = Unfinished("out", {}, [])
    with first.alone():
        plan = Path("out-unfinished", "plan.json")
        write_json(plan, {"format": "unlearnable-plan", "request": {}, "plan": {}})
        state = Path("out-unfinished", "learning", "checkpoint.json")
        state.parent.mkdir()
        state.write_text("{}")
        code, _, said = run(capsys, caplog, "protect", "photos", "out", *FEW, *options)
        assert code == 1 and "no other process is using, got out-unfinished" in said
        assert plan.is_file() and state.is_file() and not Path("out-key").exists()
    code, _, said = run(capsys, caplog, "protect", "photos", "out", *FEW, "--quiet")
    assert code == 0 and "Starting over" in said and not Path("out-unfinished").exists()


def test_other_options_or_photos_begin_anew(photos, tmp_path, capsys, caplog, monkeypatch):
    arguments = ("protect", "photos", "out", *FEW, "--quiet")
    for change in (lambda: ["--epsilon", "4/255"], lambda: (photos / "cat" / "0.png").unlink()):
        with monkeypatch.context() as patch:
            patch.setattr(Checkpoint, "wanted", lambda self: (True, True))
            assert run(capsys, caplog, *arguments)[0] == 130
        code, _, said = run(capsys, caplog, *arguments, *(change() or []))
        assert code == 0 and "Starting over" in said
        shutil.rmtree(tmp_path / "out")
        shutil.rmtree(tmp_path / "out-key")


def test_a_folder_in_place_of_unfinished_work_is_left_alone(photos, tmp_path, capsys, caplog):
    mine = tmp_path / "out-unfinished"
    mine.mkdir()
    (mine / "diary.txt").write_text("mine")
    code, _, said = run(capsys, caplog, "protect", "photos", "out", *FEW)
    assert code == 1 and "move it away" in said and (mine / "diary.txt").is_file()


def test_a_key_of_other_photos_is_not_replaced(photos, flat, tmp_path, capsys, caplog):
    assert run(capsys, caplog, "protect", "photos", "out", *FEW, "--quiet")[0] == 0
    before = (tmp_path / "out-key" / "config.json").read_bytes()
    shutil.rmtree(tmp_path / "out")
    (flat / "0.png").unlink()
    code, _, said = run(capsys, caplog, "protect", "flat", "out", "--method", "randomnoise")
    assert code == 1 and "out-key" in said
    assert (tmp_path / "out-key" / "config.json").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["protect", "phtos", "out"], "'phtos', which does not exist"),
        (["protect", "photos/cat/0.png", "out"], "got the file photos/cat/0.png"),
        (["protect", "photos", "photos/out"], "originals are never overwritten"),
        (["protect", "photos", "out", "--save-perturbation", "out/key"], "separate"),
        (["protect", "photos", "out", "--set", "stpes=3"], "did you mean"),
        (["protect", "photos/cat", "out", "--method", "sem"], "photos in two folders or more"),
    ],
)
def test_mistakes_are_explained_before_the_work(photos, capsys, caplog, arguments, said):
    code, out, told = run(capsys, caplog, *arguments)
    assert code == 1 and out == "" and said in told


def test_fit_plans_likewise(photos, tmp_path, capsys, caplog):
    code, out, said = run(capsys, caplog, "fit", "photos", "key", *FEW)
    assert code == 0 and "12 photos in 2 folders" in said and "SEM" in out
    assert "It takes about" in said and "write the copies" not in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["key", "photos"]


def test_fit_of_what_learns_nothing_takes_some_time(photos, capsys, caplog):
    said = run(capsys, caplog, "fit", "photos", "key", "--method", "lasting")[2]
    assert "It takes about 1 s and" in said and "write the copies" not in said


def test_a_weak_result_is_said(photos, capsys, caplog, monkeypatch):
    arguments = ("protect", "photos", "out", "--set", "visits=1", "--quiet")
    monkeypatch.setattr("unlearnable.photos.words._WEAK", 2.0)
    out = run(capsys, caplog, *arguments)[1]
    assert "The protection may be weak" in out


# --- read by somebody who knows no machine learning -----------------------------------------------

JARGON = (
    "row", "rows", "epsilon", "surrogate", "victim", "victims", "class", "classes", "budget", "eot",
    "checkpoint", "artefact", "linf", "psnr", "ssim", "dataset", "perturbation(", "1 photos",
    "1 copies", "1 files", "none", "nan", "traceback", "errno",
)  # fmt: skip


def plain(text):
    """The text, where none of its words is one of ours and no line is said twice."""
    words = re.findall(r"[\w-]+\(?", text.lower())
    said = " ".join(words)
    found = [word for word in JARGON if (word in said if " " in word else word in words)]
    assert not found, (found, text)
    lines = [line for line in text.splitlines() if line.strip()]
    assert len(lines) == len(set(lines)), text
    return text


def test_the_whole_journey_is_in_plain_words(photos, flat, capsys, caplog):
    (photos / "cat" / "clip.mp4").write_bytes(b"0")
    (flat.parent / "others").mkdir()
    Image.effect_noise((32, 40), 90).convert("RGB").save(flat.parent / "others" / "noise.png")
    for command in (
        ("protect", "photos", "out", *FEW),
        ("verify", "out", "out-key"),
        ("verify", "out", "out-key", "--originals", "photos", "--quiet"),
        ("preview", "photos/cat/0.png"),
        ("preview", "photos/cat/0.png", "--perturbation", "out-key"),
        ("protect", "photos", "o2", "--perturbation", "out-key", "--quiet"),
        ("protect", "flat", "o3", "--format", "jpeg", "--quality", "95", "--quiet"),
        ("protect", "flat", "o4", "--others", "others", *FEW, "--quiet"),
    ):
        code, out, said = run(capsys, caplog, *command)
        assert code == 0, said
        plain(f"{said}\n{out}")


def test_a_single_photo_is_no_photos(photos, tmp_path, capsys, caplog):
    (tmp_path / "one").mkdir()
    shutil.copy(photos / "cat" / "0.png", tmp_path / "one")
    _, out, said = run(capsys, caplog, "protect", "one", "out of one")
    assert "1 photo not sorted into folders" in plain(said)
    assert "1 copy is in 'out of one', under the photo's own name." in out
    assert "verify 'out of one' 'out of one-key'" in out
    out = run(capsys, caplog, "verify", "out of one", "out of one-key")[1]
    assert "The only picture is protected." in plain(out)
    Image.open(tmp_path / "out of one" / "0.png").save(tmp_path / "out of one" / "0.jpg", quality=5)
    (tmp_path / "out of one" / "0.png").unlink()
    code, out, _ = run(capsys, caplog, "verify", "out of one", "out of one-key")
    assert code == 1 and "The only picture is NOT protected." in plain(out) and "1 changed" in out


def test_what_became_of_copies_is_plain(photos, tmp_path, capsys, caplog):
    run(capsys, caplog, "protect", "photos", "out", *NOISE, "--quiet")
    first, second, *_ = sorted((tmp_path / "out" / "cat").iterdir())
    first.unlink()
    shutil.copy(photos / "cat" / second.name, second)
    code, out, _ = run(capsys, caplog, "verify", "out", "out-key")
    assert code == 1 and "NOT all pictures are protected: 10 of 11 are." in plain(out)
    assert "1 clean, without protection:" in out and "1 missing:" in out
    assert "Replace them with the copies as they were written" in out


def test_an_interrupted_command_is_not_explained_twice(photos, capsys, caplog, monkeypatch):
    arguments = ("protect", "photos", "out", *FEW, "--quiet")
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "wanted", lambda self: (True, True))
        _, _, said = run(capsys, caplog, *arguments)
    assert "It does not stop" in plain(said)
    _, _, said = run(capsys, caplog, *arguments)
    assert "Continuing the work" in said and "12 photos" in said
    assert "It does not stop" not in plain(said)


def test_what_fails_before_the_learning_leaves_nothing(flat, tmp_path, capsys, caplog):
    path = flat / "0.png"
    path.write_bytes(path.read_bytes()[:-2000])
    code, _, said = run(capsys, caplog, "protect", "flat", "out", "--quiet")
    assert code == 1 and "a damaged one: flat/0.png; replace it" in plain(said)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["flat", "photos"]


@pytest.mark.parametrize(
    ("options", "kept"), [([], "out-unfinished"), (["--checkpoint", "mine"], "mine")]
)
def test_a_full_disk_while_it_writes_loses_nothing(
    photos, capsys, caplog, monkeypatch, options, kept
):
    arguments = ("protect", "photos", "out", *FEW, "--quiet", *options)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Encoding, "save", full)
        code, _, said = run(capsys, caplog, *arguments)
    assert code == 1 and "free some space there" in plain(said)
    assert f"What has been learned so far is kept in {kept}: run the same command" in said
    monkeypatch.setattr(ue.SEM, "_search", None)
    assert run(capsys, caplog, *arguments)[0] == 0


def test_new_photos_need_a_command_of_their_own(photos, capsys, caplog):
    run(capsys, caplog, "protect", "photos", "out", *NOISE, "--quiet")
    Image.effect_noise((32, 32), 90).convert("RGB").save(photos / "cat" / "new.png")
    code, _, said = run(capsys, caplog, "protect", "photos", "out", *NOISE, "--quiet")
    assert code == 1 and "which already contains files" in plain(said)
    arguments = ("protect", "photos", "o2", "--perturbation", "out-key", "--quiet")
    code, _, said = run(capsys, caplog, *arguments)
    assert code == 1 and "got new or edited ones among them" in plain(said)
    assert "a separate folder" in plain(said)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["protect", "photos", "out", "--visibilty", "low"], "did you mean '--visibility'?"),
        (["protect", "my", "photos", "out"], "names with spaces need quotes"),
        (["protect", "photos"], "missing argument: OUT (see"),
        (["protect"], "missing arguments: PHOTOS, OUT (see"),
        ([], "missing argument: COMMAND (see unlearnable --help)"),
        (["protect", "photos", "out", "--format", "jpeg"], "expected --quality with --format jpeg"),
        (["protect", "photos", "out", "--image-size", "0"], "side or (height, width)"),
        (["protect", "photos", "out", "--epsilon", "8"], "did you mean 8 / 255?"),
        (["verify", "photos", "no-key"], "got 'no-key', which does not exist"),
        (["verify", "nowhere", "no-key"], "got 'no-key', which does not exist"),
        (["preview", "photos"], "got the folder photos; pass one of its photos"),
        (["preview", "photos/no.png"], "got photos/no.png, which does not exist"),
    ],
)
def test_mistyped_commands_are_explained(photos, tmp_path, capsys, caplog, arguments, said):
    try:
        code, out, told = run(capsys, caplog, *arguments)
    except SystemExit as ended:
        code, (out, told) = ended.code, capsys.readouterr()
    assert code in (1, 2) and out == "" and said in told
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photos"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["protect", "photos", "out", "--image-size", "20000"], "up to 1,024 pixels"),
        (["protect", "photos", "out", "--image-size", "32", "1025"], "got 1,025; leave it out"),
        (["fit", "photos", "key", "--image-size", "2000"], "the copies have the photos' own size"),
        (["protect", "shapes:40", "out", "--image-size", "5000"], "up to 4,096 pixels a side"),
        (["protect", "photos", "out", "--format", "jpeg", "--quality", "0"], "from 1 to 100"),
        (["protect", "photos", "out", "--format", "jpeg", "--quality", "101"], "from 1 to 100"),
        (["protect", "photos", "out", "--format", "webp", "--quality", "-3"], "from 1 to 100"),
        (["protect", "photos", "out", "--resize", "0"], "takes no value"),
        (["protect", "photos", "out", "--resize", "-5"], "takes no value"),
        (["protect", "photos", "out", "--resize=0"], "--resize: expected no value, got '0'"),
        (["protect", "photos", "out", "--epsilon", "0"], "epsilon > 0"),
        (["protect", "photos", "out", "--epsilon", "-8/255"], "epsilon > 0"),
        (["protect", "photos", "out", "--epsilon", "1/1000"], "at least 1 / 255"),
        (["protect", "flat", "out", "--clusters", "13"], "than the 12 photos, got 13"),
        (["protect", "flat", "out", "--clusters", "1"], "at least 2 groups"),
        (["preview", "photos/cat/0.png", "--epsilon", "8"], "did you mean 8/255?"),
        (["preview", "photos/cat/0.png", "--epsilon", "0"], "from 1/255 to 127/255"),
        (["preview", "photos/cat/0.png", "--out", "no/p.png"], "could not write to no"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(flat, tmp_path, capsys, caplog, arguments, said):
    try:
        code, out, told = run(capsys, caplog, *arguments)
    except SystemExit as ended:
        code, (out, told) = ended.code, capsys.readouterr()
    assert code in (1, 2) and out == "" and said in told
    assert sorted(path.name for path in tmp_path.iterdir()) == ["flat", "photos"]


def test_a_preview_replaces_only_a_preview(photos, tmp_path, capsys, caplog):
    photo, other = sorted(photos.glob("cat/*.png"))[:2]
    before = other.read_bytes()
    code, out, said = run(capsys, caplog, "preview", photo, "--out", other)
    assert (code, out) == (1, "") and f"an earlier preview to write to, got {other}, which" in said
    assert other.read_bytes() == before
    for epsilon in ("8/255", "16/255"):
        assert run(capsys, caplog, "preview", photo, "--epsilon", epsilon)[0] == 0
    first = (tmp_path / "preview.png").read_bytes()
    assert run(capsys, caplog, "preview", photo)[0] == 0
    assert (tmp_path / "preview.png").read_bytes() != first


def test_a_key_of_other_folders_is_explained_by_folders(flat, tmp_path, capsys, caplog):
    assert run(capsys, caplog, "protect", "photos", "out", "--method", "lsp", "--quiet")[0] == 0
    arguments = ("protect", "flat", "o2", "--perturbation", "out-key", "--quiet")
    code, out, said = run(capsys, caplog, *arguments)
    assert code == 1 and out == ""
    assert "photos in the folders that out-key was made for, cat, dog" in plain(said)
    assert not (tmp_path / "o2").exists()


@pytest.mark.parametrize("command", ["protect", "verify", "preview", "app"])
def test_help_keeps_what_experts_want_apart(command, capsys):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    for_all, _, experts = capsys.readouterr().out.partition("for experts:")
    assert "--json" in experts and "-h, --help" in for_all
    words = re.findall(r"[\w-]+", for_all.partition("options:")[2].lower())
    assert not {"epsilon", "surrogate", "row", "budget", "checkpoint", "class"} & set(words)


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (0, "0 bytes"), (820, "820 bytes"), (81_920, "82 kB"), (999_400, "999 kB"),
        (999_600, "1.0 MB"), (1_095_992, "1.1 MB"), (23e7, "230 MB"), (12e9, "12 GB"),
        (3e15, "3,000 TB"),
    ],
)  # fmt: skip
def test_sizes_are_said_for_people(count, said):
    assert readable_size(count) == said


def test_the_same_folder_written_in_another_way_is_continued(
    photos, tmp_path, capsys, caplog, monkeypatch
):
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "wanted", lambda self: (True, True))
        assert run(capsys, caplog, "protect", "photos", "out", *FEW, "--quiet")[0] == 130
    monkeypatch.setattr(plans, "Choice", None)  # nothing is planned again
    for number, written in enumerate(["photos/", "./photos", str(photos), "."]):
        with monkeypatch.context() as patch:
            if written == ".":
                patch.chdir(photos)
            if number < 3:
                patch.setattr(Checkpoint, "wanted", lambda self: (True, True))
            out = tmp_path / "out"
            code, _, said = run(capsys, caplog, "protect", written, out, *FEW, "--quiet")
        assert "Starting over" not in said
        assert code == (130 if number < 3 else 0), said


@pytest.mark.parametrize("method", ["lasting", "lsp", "randomnoise"])
def test_all_damaged_photos_are_named_where_nothing_is_learned(method, photos, capsys, caplog):
    for name in ("cat/0.png", "dog/1.png"):
        content = (photos / name).read_bytes()
        (photos / name).write_bytes(content[: len(content) // 2])
    code, _, said = run(capsys, caplog, "protect", "photos", "out", "--method", method)
    assert code == 1 and "expected 12 photos, got 10 and 2 bad files" in said
    assert "cat/0.png" in said and "dog/1.png" in said
    assert not Path("out").exists()


def test_a_panorama_too_wide_for_the_format_is_refused_before_the_work(photos, capsys, caplog):
    Image.new("RGB", (17_000, 8)).save(photos / "cat" / "wide.png")
    code, _, said = run(capsys, caplog, "protect", "photos", "out", *NOISE, "--format", "webp")
    assert code == 1 and "got one of 17,000x8; use the format png" in plain(said)
    assert not Path("out-key").exists() and not Path("out-unfinished").exists()
    arguments = ("protect", "photos", "out", *NOISE, "--format", "webp", "--resize", "--quiet")
    assert run(capsys, caplog, *arguments, "--image-size", "32")[0] == 0


def test_a_key_that_copies_need_is_not_replaced_by_one_of_more_photos(photos, capsys, caplog):
    assert run(capsys, caplog, "protect", "photos", "out", *NOISE, "--quiet")[0] == 0
    Path("out").rename("published")
    Image.effect_noise((32, 32), 90).convert("RGB").save(photos / "cat" / "new.png")
    arguments = ("protect", "photos", "out", *NOISE, "--quiet")
    code, _, said = run(capsys, caplog, *arguments)
    assert code == 1 and "12 other images" in plain(said) and "--force" in said
    assert run(capsys, caplog, "verify", "published", "out-key", "--quiet")[0] == 0
    assert run(capsys, caplog, *arguments, "--force")[0] == 0
