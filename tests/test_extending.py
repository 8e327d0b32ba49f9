"""Rows for new images whose making was stopped are continued, and are the same in the end."""

import errno
import logging
import os
import shutil
import signal

import numpy as np
import pytest

import unlearnable as ue
from unlearnable.datasets import Shapes
from unlearnable.methods.sem import SEM

BATCHES = 3


class Killed(Exception):
    """The process ended without a word."""


@pytest.fixture(scope="module")
def new():
    return Shapes(size=40, seed=5)


@pytest.fixture(scope="module")
def method():
    made = ue.SEM.preset("demo", train_steps=2, batch_size=16)
    return made.fit(Shapes(size=40), device="cpu", progress=False)


@pytest.fixture
def before(monkeypatch):
    """A function to be called before a batch; returns how often rows were made since."""

    def counted(number, act):
        calls, perturb = [], SEM._perturb

        def make(self, *arguments):
            calls.append(0)
            if len(calls) == number:
                act()
            return perturb(self, *arguments)

        monkeypatch.setattr(SEM, "_perturb", make)
        return calls

    return counted


def fail(error):
    def act():
        raise error

    return act


def fail_with_full_disk(*arguments):
    raise OSError(errno.ENOSPC, "No space left on device")


def extend(method, new, folder=None, every=0, **options):
    return method.extend(
        new, device="cpu", progress=False, checkpoint=folder, checkpoint_every=every, **options
    )


def rows(perturbation):
    return np.array(perturbation.tensors["rows"])


@pytest.mark.parametrize("stopped", range(1, BATCHES + 1))
def test_what_was_killed_is_continued_with_the_same_bytes(
    method, new, tmp_path, before, monkeypatch, stopped
):
    whole, folder = extend(method, new), tmp_path / "checkpoint"
    before(stopped, fail(Killed()))
    with pytest.raises(Killed):
        extend(method, new, folder)
    monkeypatch.undo()
    calls = before(0, None)
    found = extend(method, new, folder)
    assert len(calls) == BATCHES + 1 - stopped
    assert found.digest == whole.digest and np.array_equal(rows(found), rows(whole))
    assert not folder.exists()


def test_an_interrupt_waits_for_the_batch_and_says_how_to_continue(method, new, tmp_path, before):
    folder = tmp_path / "checkpoint"
    calls = before(2, lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt, match=r"interrupted; .* run the same again .*checkpoint"):
        extend(method, new, folder, every=float("inf"))
    assert len(calls) == 2
    extend(method, new, folder)
    assert len(calls) == BATCHES


def test_an_interrupt_without_a_checkpoint_says_that_nothing_was_kept(method, new, before):
    before(2, fail(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt, match="interrupted, and nothing was kept; pass checkp"):
        extend(method, new)


@pytest.mark.parametrize(
    ("stopped", "said"),
    [(1, "before the first checkpoint in .*checkpoint; start again"), (2, "checkpoint 1 is kept")],
)
def test_a_second_interrupt_comes_at_once_and_says_what_is_kept(
    method, new, tmp_path, before, stopped, said
):
    before(stopped, lambda: [os.kill(os.getpid(), signal.SIGINT) for _ in range(2)])
    with pytest.raises(KeyboardInterrupt, match=said):
        extend(method, new, tmp_path / "checkpoint")


def test_rows_that_are_complete_need_no_room_on_the_disk(method, new, tmp_path, monkeypatch):
    from unlearnable.methods import row_buffer

    whole, forever = extend(method, new), float("inf")
    monkeypatch.setattr(row_buffer, "_write", fail_with_full_disk)
    assert extend(method, new, tmp_path / "extend", every=forever).digest == whole.digest
    again = ue.SEM(**method.get_params())
    options = {"checkpoint": tmp_path / "fit", "checkpoint_every": forever}
    again.fit(Shapes(size=40), device="cpu", progress=False, **options)
    assert again.perturbation_.digest == method.perturbation_.digest
    assert not list(tmp_path.iterdir())


def test_finished_rows_can_be_kept(method, new, tmp_path, before):
    folder = tmp_path / "checkpoint"
    calls = before(0, None)
    whole = extend(method, new, folder, every=float("inf"), keep_checkpoint=True)
    again = extend(method, new, folder)
    assert again.digest == whole.digest and len(calls) == BATCHES
    assert not folder.exists()


def test_finished_rows_that_cannot_be_kept_are_not_lost(method, new, tmp_path, monkeypatch, caplog):
    from unlearnable.methods import row_buffer

    monkeypatch.setattr(row_buffer, "_write", fail_with_full_disk)
    found = extend(method, new, tmp_path / "c", every=float("inf"), keep_checkpoint=True)
    assert len(found) == len(new) and "not kept in the checkpoint" in caplog.text


def test_a_checkpoint_of_other_images_or_of_a_fit_is_refused(method, new, tmp_path, before):
    folder = tmp_path / "checkpoint"
    before(2, fail(Killed()))
    with pytest.raises(Killed):
        extend(method, new, folder)
    with pytest.raises(ValueError, match=r"checkpoint of the same fit .*dataset"):
        extend(method, Shapes(size=40, seed=6), folder)
    with pytest.raises(ValueError, match="checkpoint of the same fit"):
        ue.SEM(**method.get_params()).fit(new, device="cpu", progress=False, checkpoint=folder)
    with pytest.raises(ValueError, match=r"checkpoint of the same fit .*precision"):
        extend(method, new, folder, precision="bf16")


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"checkpoint": 3}, TypeError),
        ({"checkpoint_every": -1}, ValueError),
        ({"checkpoint_every": "often"}, ValueError),
    ],
)
def test_wrong_options_are_refused_before_the_work(method, new, before, options, error):
    calls = before(0, None)
    with pytest.raises(error, match="checkpoint"):
        method.extend(new, progress=False, **options)
    assert not calls


# Pre-made rows


@pytest.fixture
def premade(method, tmp_path, monkeypatch):
    """A function that loads rows of this method as pre-made ones, whose cache is a folder."""
    from unlearnable.hub.catalogue import Pretrained
    from unlearnable.methods import premade

    monkeypatch.setattr(premade, "_fitted", lambda entry: method)
    monkeypatch.setattr(premade, "_EVERY", 0.0)
    entry = Pretrained.__new__(Pretrained)
    for name in ("name", "digest", "surrogate"):
        object.__setattr__(entry, name, name)

    def load(dataset):
        return premade.rows_for(entry, dataset, progress=False, cache_dir=tmp_path / "cache")

    return load


def test_pre_made_rows_that_were_interrupted_are_continued(method, new, premade, before):
    calls = before(3, lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt, match=r"are kept: run the same again to continue$"):
        premade(new)
    found = premade(new)
    assert len(calls) == BATCHES
    assert np.array_equal(rows(found), rows(extend(method, new)))
    assert sorted(path.name for path in found.folder.parent.iterdir()) == [
        ".locks",
        found.folder.name,
    ]


@pytest.mark.parametrize("step", ["from_fit", "save_pretrained"])
def test_pre_made_rows_that_are_complete_are_not_made_again(
    new, premade, before, monkeypatch, step
):
    calls = before(0, None)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(ue.Perturbation, step, lambda *_, **__: fail(KeyboardInterrupt())())
        premade(new)
    assert len(premade(new)) == len(new)
    assert len(calls) == BATCHES


def test_pre_made_rows_are_cached_where_their_checkpoint_takes_the_room(
    method, new, premade, monkeypatch, tmp_path
):
    save = ue.Perturbation.save_pretrained

    def save_if_there_is_room(self, *arguments, **options):
        if list((tmp_path / "cache").rglob("*-checkpoint")):
            fail_with_full_disk()
        return save(self, *arguments, **options)

    monkeypatch.setattr(ue.Perturbation, "save_pretrained", save_if_there_is_room)
    assert premade(new).folder is not None


def test_pre_made_rows_that_were_interrupted_without_a_cache_are_lost(
    new, premade, before, tmp_path
):
    (tmp_path / "cache").write_text("no folder")
    before(2, fail(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt, match=r"interrupted; nothing was kept$"):
        premade(new)


def file_in_its_place(folder):
    shutil.rmtree(folder)
    folder.write_text("no folder")


def other_precision(folder):
    path = folder / "checkpoint.json"
    path.write_text(path.read_text().replace('"precision": "', '"precision": "another '))


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "state.safetensors").write_bytes(b""),
        lambda folder: (folder / "state.safetensors").write_bytes(
            (folder / "state.safetensors").read_bytes().replace(b"path", b'pa"h', 1)
        ),
        lambda folder: (folder / "checkpoint.json").write_bytes(b""),
        lambda folder: (folder / "rows.bin").unlink(),
        other_precision,
        file_in_its_place,
    ],
)
def test_pre_made_rows_that_cannot_be_continued_begin_again(
    method, new, premade, before, tmp_path, damage, caplog
):
    calls = before(3, lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        premade(new)
    damage(next((tmp_path / "cache").rglob("*-checkpoint")))
    with caplog.at_level(logging.WARNING):
        found = premade(new)
    assert "begin again" in caplog.text and len(calls) == 3 + BATCHES
    assert np.array_equal(rows(found), rows(extend(method, new)))
    assert not list((tmp_path / "cache").rglob("*-checkpoint"))


@pytest.fixture
def full_disk(monkeypatch):
    """Room for the file of rows, but none for what is written to it."""
    from unlearnable.methods import row_buffer

    monkeypatch.setattr(row_buffer, "_write", fail_with_full_disk)


def test_a_full_disk_does_not_prevent_pre_made_rows(new, premade, full_disk, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        assert len(premade(new)) == len(new)
    assert "not kept meanwhile" in caplog.text
    assert not list((tmp_path / "cache").rglob("*-checkpoint"))  # takes room, and is no more needed


def test_an_interrupt_on_a_full_disk_does_not_ask_for_a_checkpoint(new, premade, full_disk, before):
    before(3, fail(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt, match=r"^interrupted; nothing was kept$"):
        premade(new)


def test_an_image_that_cannot_be_read_is_no_full_disk(new, premade, before):
    calls = before(1, fail(OSError(errno.EIO, "Input/output error", "photo.png")))
    with pytest.raises(OSError, match=r"photo\.png"):
        premade(new)
    assert len(calls) == 1
