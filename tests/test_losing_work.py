"""What was learned is not lost: by another fit, by a full disk, by Ctrl-C, by SIGTERM."""

import contextlib
import errno
import os
import signal

import numpy as np
import pytest

import unlearnable as ue
from unlearnable.cli import rescue
from unlearnable.cli.main import main
from unlearnable.datasets import Shapes
from unlearnable.engine.checkpoint import STATE, Checkpoint
from unlearnable.engine.distributed import Group
from unlearnable.engine.interrupts import Deferred, sigterm_raises
from unlearnable.errors import Terminated
from unlearnable.methods.rem import REM
from unlearnable.protected.export import writing
from unlearnable.protected.export.encoding import Encoding

NOISE = ("--method", "randomnoise", "--quiet", "--device", "cpu")
HANGUP = getattr(signal, "SIGHUP", signal.SIGTERM)  # which Windows does not have
SEM = ("--preset", "demo", "--set", "train_steps=3", "steps=1", "--quiet", "--device", "cpu")


@pytest.fixture(autouse=True)
def terminal():
    """Tests may themselves run under nohup, whose processes ignore SIGHUP, as do all they start."""
    before = signal.signal(HANGUP, signal.SIG_DFL)
    yield
    signal.signal(HANGUP, before)


def run(capsys, *words):
    code = main([str(word) for word in words])
    return code, *capsys.readouterr()


def noise(dataset, **options):
    return ue.RandomNoise(**options).fit(dataset, device="cpu", progress=False)


def files(folder):
    return {p.name: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def full(*args, **options):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


# --- perturbations and protected images apart ----------------------------------------------------


@pytest.mark.parametrize("place", ["p", "p/images", "."])
def test_images_are_not_exported_to_where_their_perturbation_is(place, tmp_path, capsys):
    folder = noise(Shapes(size=16)).save_pretrained(tmp_path / "p")
    before = files(tmp_path)
    words = ("--perturbation", folder, "--force", "--quiet")
    code, out, err = run(capsys, "protect", "shapes:16", tmp_path / place, *words)
    assert (code, out) == (1, "") and f"separate from the perturbation's, {folder}" in err
    protected = ue.ProtectedDataset(Shapes(size=16), ue.Perturbation.from_pretrained(folder))
    with pytest.raises(ValueError, match="can remove the perturbation from the images"):
        protected.export(tmp_path / place, force=True, progress=False)
    assert files(tmp_path) == before


@pytest.mark.parametrize("place", ["out", "out/p"])
def test_perturbations_are_not_saved_where_protected_images_are(place, tmp_path, capsys):
    shapes = Shapes(size=16)
    noise(shapes).protect(shapes).export(tmp_path / "out", progress=False)
    before = files(tmp_path)
    code, out, err = run(capsys, "fit", "shapes:16", tmp_path / place, *NOISE, "--force")
    assert (code, out) == (1, "") and "away from protected images" in err
    assert files(tmp_path) == before


def test_a_file_on_the_way_to_an_export_is_found_before_the_fit(tmp_path, monkeypatch, capsys):
    (tmp_path / "notes").write_text("mine")
    monkeypatch.setattr(ue.RandomNoise, "fit", None)
    code, _, err = run(capsys, "protect", "shapes:16", tmp_path / "notes" / "out", *NOISE)
    assert code == 1 and f"got the file {tmp_path / 'notes'};" in err


def test_a_folder_that_takes_no_export_is_found_before_the_fit(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(ue.RandomNoise, "fit", None)
    monkeypatch.setattr(os, "access", lambda *_, **__: False)  # root may write anywhere
    code, _, err = run(capsys, "protect", "shapes:16", tmp_path / "a" / "out", *NOISE)
    assert code == 1 and f"could not write to {tmp_path}: Permission denied" in err


# --- a perturbation of other images --------------------------------------------------------------


def test_a_perturbation_of_other_images_is_replaced_only_by_force(tmp_path):
    first, second = noise(Shapes(size=16)), noise(Shapes(size=16, seed=5))
    for part in (lambda method: method, lambda method: method.perturbation_):
        folder = part(first).save_pretrained(tmp_path / "p")
        before = files(folder)
        with pytest.raises(FileExistsError, match=r"got .*p with RandomNoise of 16 other images"):
            part(second).save_pretrained(folder)
        assert files(folder) == before
        part(second).save_pretrained(folder, force=True)
        loaded = ue.Perturbation.from_pretrained(folder)
        assert loaded.digest == second.perturbation_.digest
        part(first).save_pretrained(folder, force=True)


def test_one_of_the_same_images_is_replaced(tmp_path):
    folder = noise(Shapes(size=16)).save_pretrained(tmp_path / "p")
    other = noise(Shapes(size=16), seed=3, granularity="class-wise")
    other.save_pretrained(folder)
    assert ue.Perturbation.from_pretrained(folder).digest == other.perturbation_.digest


def test_one_that_copies_need_is_not_replaced_by_another(tmp_path, capsys, monkeypatch):
    key, words = tmp_path / "key", ("shapes:16", tmp_path / "out", "--save-perturbation")
    assert run(capsys, "protect", *words, key, *NOISE)[0] == 0
    before, same = files(key), ue.Perturbation.from_pretrained(key)
    other = noise(Shapes(size=16), seed=3)
    for made in (other, other.perturbation_, noise(Shapes(size=16)).perturbation_.then(same)):
        with pytest.raises(FileExistsError, match=r"copies listed in .*out\.csv"):
            made.save_pretrained(key)
    with monkeypatch.context() as patch:
        patch.setattr(ue.RandomNoise, "_learn", full)  # is not reached
        for command in (
            ("fit", "shapes:16", key),
            ("protect", "shapes:16", tmp_path / "more", "--save-perturbation", key),
        ):
            code, out, err = run(capsys, *command, *NOISE, "--set", "seed=3")
            assert (code, out) == (1, "") and "out.csv" in err and "--force" in err
    assert files(key) == before
    same.save_pretrained(key)  # no other one
    words = ("protect", "shapes:16", tmp_path / "more", "--save-perturbation", key)
    assert run(capsys, *words, *NOISE)[0] == 0  # learned again, the same
    assert run(capsys, "verify", tmp_path / "out", key)[0] == 0
    other.save_pretrained(key, force=True)
    assert ue.Perturbation.from_pretrained(key).digest == other.perturbation_.digest


def test_rows_of_more_images_replace_those_that_they_hold(tmp_path):
    first, more = (noise(Shapes(size=16, seed=seed)).perturbation_ for seed in (0, 5))
    folder = first.save_pretrained(tmp_path / "p")
    joined = ue.Perturbation.concat([first, more])
    joined.save_pretrained(folder)
    assert len(ue.Perturbation.from_pretrained(folder)) == 32
    with pytest.raises(FileExistsError, match="of 32 other images"):
        first.save_pretrained(folder)


def test_one_that_cannot_be_read_is_not_replaced_either(tmp_path):
    folder = noise(Shapes(size=16)).save_pretrained(tmp_path / "p")
    text = (folder / "config.json").read_text()
    (folder / "config.json").write_text(text.replace('"format_version": 1', '"format_version": 9'))
    with pytest.raises(FileExistsError, match=r"one that cannot be read \(expected format version"):
        noise(Shapes(size=16)).save_pretrained(folder)


def test_the_command_line_refuses_before_the_work(tmp_path, capsys, monkeypatch):
    folder = noise(Shapes(size=16, seed=5)).save_pretrained(tmp_path / "p")
    before = files(folder)
    with monkeypatch.context() as patch:
        patch.setattr(ue.RandomNoise, "_learn", full)  # is not reached
        for words in (
            ("fit", "shapes:16", folder),
            ("protect", "shapes:16", tmp_path / "out", "--save-perturbation", folder),
        ):
            code, out, err = run(capsys, *words, *NOISE)
            assert (code, out) == (1, "") and "16 other images" in err and "--force" in err
    part = noise(Shapes(size=12)).save_pretrained(tmp_path / "part")  # all among the new images
    with monkeypatch.context() as patch:
        patch.setattr(ue.LSP, "_learn", full)  # which gives no rows to hold them
        words = ("--method", "lsp", "--quiet", "--device", "cpu")
        code, _, err = run(capsys, "fit", "shapes:16", part, *words)
    assert code == 1 and "12 other images" in err
    assert run(capsys, "fit", "shapes:16", part, *NOISE)[0] == 0
    code, _, err = run(capsys, "pull", "cifar10-ops", folder, "--quiet")
    assert code == 1 and "16 other images" in err
    assert files(folder) == before and not (tmp_path / "out").exists()
    assert run(capsys, "fit", "shapes:16", folder, *NOISE, "--force")[0] == 0
    assert run(capsys, "fit", "shapes:16", folder, *NOISE)[0] == 0  # the same images again


# --- a full disk at the save ---------------------------------------------------------------------


def test_what_was_learned_is_kept_elsewhere(tmp_path, capsys, monkeypatch):
    save, asked = ue.RandomNoise.save_pretrained, tmp_path / "p"

    def full_there(self, folder, **options):
        return full() if str(folder) == str(asked) else save(self, folder, **options)

    monkeypatch.setattr(ue.RandomNoise, "save_pretrained", full_there)
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr(rescue.tempfile, "gettempdir", lambda: str(tmp_path / "scratch"))
    code, out, err = run(capsys, "fit", "shapes:16", asked, *NOISE)
    assert (code, out) == (1, "") and "No space left" in err
    (kept,) = (tmp_path / "scratch").iterdir()
    assert f"kept in {kept}" in err or "what was learned is kept" in err or kept.is_dir()
    loaded = ue.RandomNoise.from_pretrained(kept).perturbation_
    assert loaded.digest == noise(Shapes(size=16)).perturbation_.digest


def test_a_checkpoint_keeps_it(tmp_path, capsys, monkeypatch):
    words = ("fit", "shapes:16", tmp_path / "p", *SEM, "--checkpoint", tmp_path / "c")
    with monkeypatch.context() as patch:
        patch.setattr(ue.SEM, "save_pretrained", full)
        assert run(capsys, *words)[0] == 1
    monkeypatch.setattr(REM, "_search", full)  # nothing is searched again
    code, _, err = run(capsys, *words)
    assert code == 0, err
    assert not (tmp_path / "c").exists()


def test_a_failed_export_does_not_lose_the_fit(tmp_path, capsys, monkeypatch, caplog):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(rescue.tempfile, "gettempdir", lambda: str(scratch))
    monkeypatch.setattr(Encoding, "save", full)
    code, _, err = run(capsys, "protect", "shapes:16", tmp_path / "out", *NOISE)
    assert (code == 1 and f"bytes at {tmp_path / 'out'}" in err) or "enough room" in err
    (kept,) = scratch.iterdir()
    assert f"kept in {kept}" in caplog.text
    assert [p.name for p in tmp_path.iterdir()] == ["scratch"]  # no partial folder
    words = ("--save-perturbation", tmp_path / "p")
    assert run(capsys, "protect", "shapes:16", tmp_path / "out", *NOISE, *words)[0] == 1
    assert f"what was learned is saved in {tmp_path / 'p'}" in caplog.text
    assert len(ue.Perturbation.from_pretrained(tmp_path / "p")) == 16


def test_where_nothing_takes_it_that_is_said(tmp_path, capsys, monkeypatch, caplog):
    monkeypatch.setattr(ue.RandomNoise, "save_pretrained", full)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(rescue.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(rescue.Path, "home", lambda: tmp_path)
    assert run(capsys, "fit", "shapes:16", tmp_path / "p", *NOISE)[0] == 1
    assert "what was learned is lost" in caplog.text and "--checkpoint FOLDER" in caplog.text
    assert not list(tmp_path.glob("unlearnable-kept-*"))


def test_a_method_keeps_what_it_learned_after_a_failed_save(tmp_path, monkeypatch):
    method = noise(Shapes(size=16))
    before = method.perturbation_.rows.tobytes()
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            method.save_pretrained(tmp_path / "p")
    assert method.perturbation_.rows.tobytes() == before
    method.save_pretrained(tmp_path / "p")
    assert np.array_equal(
        ue.Perturbation.from_pretrained(tmp_path / "p").rows, method.perturbation_.rows
    )


# --- Ctrl-C and SIGTERM --------------------------------------------------------------------------


def sends(number, function, at):
    """The function, during whose call number ``at`` a signal comes."""
    calls = []

    def called(*args, **options):
        calls.append(args)
        if len(calls) == at:
            signal.raise_signal(number)
        return function(*args, **options)

    return called


@pytest.mark.parametrize(
    ("number", "status", "word"),
    [
        (signal.SIGTERM, 143, "terminated"),
        (HANGUP, 143, "terminated"),
        (signal.SIGINT, 130, "interrupted"),
    ],
)
def test_a_fit_with_a_checkpoint_is_kept_and_continued(
    number, status, word, tmp_path, capsys, monkeypatch
):
    expected = run(capsys, "fit", "shapes:16", tmp_path / "whole", *SEM)
    assert expected[0] == 0
    words = ("fit", "shapes:16", tmp_path / "p", *SEM, "--checkpoint", tmp_path / "c")
    numbers = (signal.SIGINT, signal.SIGTERM, HANGUP)
    handlers = [signal.getsignal(n) for n in numbers]
    with monkeypatch.context() as patch:
        patch.setattr(REM, "_search", sends(number, REM._search, 2))
        code, out, err = run(capsys, *words)
    assert (code, out) == (status, "") and f"unlearnable: {word}; the work so far is kept" in err
    assert str(tmp_path / "c") in err and "to continue" in err
    assert [signal.getsignal(n) for n in numbers] == handlers
    assert (tmp_path / "c" / "state.safetensors").is_file() and not (tmp_path / "p").exists()
    assert run(capsys, *words)[0] == 0
    digests = [ue.Perturbation.from_pretrained(tmp_path / n).rows.tobytes() for n in ("p", "whole")]
    assert digests[0] == digests[1]


@pytest.mark.parametrize(
    ("number", "status", "word"),
    [(signal.SIGTERM, 143, "terminated"), (signal.SIGINT, 130, "interrupted")],
)
def test_a_fit_without_one_says_what_to_pass_next_time(
    number, status, word, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(REM, "_search", sends(number, REM._search, 1))
    code, out, err = run(capsys, "fit", "shapes:16", tmp_path / "p", *SEM)
    assert (code, out) == (status, "")
    assert f"unlearnable: {word} after " in err and "--checkpoint FOLDER" in err
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_in_python_has_words_too(monkeypatch, tmp_path):
    small = {"train_steps": 3, "steps": 1}
    with monkeypatch.context() as patch:
        patch.setattr(REM, "_search", sends(signal.SIGINT, REM._search, 1))
        with pytest.raises(KeyboardInterrupt, match=r"nothing was kept; pass checkpoint="):
            ue.SEM.preset("demo", **small).fit(Shapes(size=16), device="cpu", progress=False)
    options = {"device": "cpu", "progress": False, "checkpoint": tmp_path / "c"}
    for words in ("before the first checkpoint in", "is kept: run the same again"):
        monkeypatch.setattr(
            "unlearnable.methods.fit_session.read_images", sends(signal.SIGINT, full, 1)
        )
        with pytest.raises(KeyboardInterrupt, match=words):
            ue.SEM.preset("demo", **small).fit(Shapes(size=16), **options)
        (tmp_path / "c").mkdir(exist_ok=True)
        (tmp_path / "c" / STATE).touch()  # for the second time, of an earlier call


def test_an_interrupt_after_the_last_step_keeps_the_checkpoint(tmp_path, monkeypatch):
    method = ue.RandomNoise()
    options = {"device": "cpu", "progress": False, "checkpoint": tmp_path / "c"}
    with monkeypatch.context() as patch:
        warned = sends(signal.SIGINT, ue.RandomNoise._warn_if_zero, 1)
        patch.setattr(ue.RandomNoise, "_warn_if_zero", warned)
        with pytest.raises(KeyboardInterrupt, match="to continue"):
            method.fit(Shapes(size=16), **options)
    assert (tmp_path / "c" / "state.safetensors").is_file()
    monkeypatch.setattr(ue.RandomNoise, "passes", lambda *args: 0)
    method.fit(Shapes(size=16), **options)
    assert method.perturbation_.digest == noise(Shapes(size=16)).perturbation_.digest


def test_an_export_that_is_terminated_leaves_nothing(tmp_path, capsys, monkeypatch):
    folder = noise(Shapes(size=16)).save_pretrained(tmp_path / "p")
    monkeypatch.setattr(writing, "to_pil", sends(signal.SIGTERM, writing.to_pil, 3))
    words = ("protect", "shapes:16", tmp_path / "out", "--perturbation", folder, "--quiet")
    code, out, err = run(capsys, *words)
    assert (code, out, err) == (143, "", "unlearnable: terminated\n")
    assert [p.name for p in tmp_path.iterdir()] == ["p"]


def test_no_program_but_the_command_line_is_touched():
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL

    def own(number, frame):
        raise AssertionError

    try:
        signal.signal(signal.SIGTERM, own)
        with sigterm_raises(), Deferred():
            assert signal.getsignal(signal.SIGTERM) is own
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with Deferred():
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


@pytest.mark.skipif(not hasattr(os, "forkpty"), reason="needs terminals of Unix")
def test_a_closed_terminal_is_written_to_no_more():
    process, terminal = os.forkpty()
    if not process:
        with contextlib.suppress(BaseException), sigterm_raises():
            try:
                os.write(1, b"ready")
                signal.pause()
            finally:
                os.write(2, b"of a bar")  # an error where the terminal is gone
                os._exit(7)
        os._exit(8)
    assert os.read(terminal, 5) == b"ready"
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 7


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="Windows does not have it")
def test_nohup_is_respected():
    handler = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with sigterm_raises(), Deferred():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, handler)


def test_an_ignored_ctrl_c_stays_ignored():
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Deferred() as deferred:
            signal.raise_signal(signal.SIGINT)
        assert deferred.kind is None and signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, handler)


def test_sigterm_counts_once():
    with sigterm_raises():
        with pytest.raises(Terminated):
            signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)  # of torchrun, after the cluster's own
        with Deferred() as deferred:
            signal.raise_signal(signal.SIGTERM)
        assert deferred.kind is Terminated
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_processes_agree_on_what_came():
    class Other(Group):
        def max(self, value):
            return max(value, 3)  # another process got SIGTERM

    checkpoint = Checkpoint(None, None, Other(1, 2))
    saved = []
    with pytest.raises(Terminated, match="terminated; the work so far is kept"):
        checkpoint.after_step(lambda: saved.append(1))
    assert saved == [1]


def test_several_processes_may_get_one_ctrl_c_twice():
    with Deferred(grace=60) as deferred:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
    assert deferred.kind is KeyboardInterrupt
