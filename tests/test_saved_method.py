"""A fitted method's files: whole or not there, whatever its surrogate is."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest
import safetensors
import torch
from torch import nn

import unlearnable as ue
from unlearnable.datasets import Shapes
from unlearnable.engine import checkpoint as checkpoint_module
from unlearnable.engine.checkpoint import Checkpoint


class Full(OSError):
    pass


class Tied(nn.Module):
    """Two layers of one matrix."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(3 * 32 * 32, 10, bias=False)
        self.second = nn.Linear(3 * 32 * 32, 10, bias=False)
        self.second.weight = self.first.weight

    def forward(self, images):
        return self.first(images.flatten(1)) + self.second(images.flatten(1))


def fitted(seed):
    options = {"train_steps": 1, "batch_size": 16, "seed": seed}
    return ue.SEM.preset("demo", **options).fit(Shapes(size=16), progress=False)


def fail_at(monkeypatch, number):
    """Every way in which a save reaches the disk, and of them the one that fails."""
    calls = []

    def come():
        calls.append(None)
        if len(calls) == number:
            raise Full

    def failing(original, writes=lambda *args: True):
        def act(*args, **options):
            if writes(*args):
                come()
            return original(*args, **options)

        return act

    monkeypatch.setattr(os, "fsync", failing(os.fsync))
    monkeypatch.setattr(Path, "replace", failing(Path.replace))
    monkeypatch.setattr(Path, "open", failing(Path.open, lambda path, mode="r", *_: mode == "xb"))
    monkeypatch.setattr(checkpoint_module, "save_file", failing(checkpoint_module.save_file))


@pytest.mark.parametrize("replaced", [True, False], ids=["another one", "nothing"])
def test_a_save_that_fails_anywhere_leaves_what_was_there(replaced, tmp_path):
    old, new = fitted(0), fitted(1)
    folder, failures = tmp_path / "m", 0
    if replaced:
        old.save_pretrained(folder)
    while True:
        with pytest.MonkeyPatch.context() as patch:
            fail_at(patch, failures + 1)
            try:
                new.save_pretrained(folder)
                break
            except Full:
                failures += 1
        if replaced:
            loaded = ue.SEM.from_pretrained(folder)
            assert loaded.seed == 0 and loaded.perturbation_.digest == old.perturbation_.digest
            assert same_weights(loaded, old)
        assert files(folder) == (FILES if replaced else [])
    assert failures >= 6
    assert files(folder) == FILES
    assert same_weights(ue.SEM.from_pretrained(folder), new)
    # A method without a surrogate takes the earlier one's away.
    ue.RandomNoise().fit(Shapes(size=16), progress=False).save_pretrained(folder)
    assert files(folder) == [name for name in FILES if not name.startswith("surrogate")]


FILES = ["config.json", "method.json", "perturbation.safetensors", "surrogate.safetensors"]


def files(folder):
    return sorted(path.name for path in folder.iterdir() if path.name != ".unlearnable-lock")


def same_weights(method, other):
    found, expected = method.surrogate_.state_dict(), other.surrogate_.state_dict()
    return all(torch.equal(found[name], expected[name]) for name in expected)


def test_tied_weights_are_saved_and_come_back(tmp_path):
    method = ue.SEM(Tied(), train_steps=1, steps=1, batch_size=16)
    method.fit(Shapes(size=16), progress=False)
    folder = method.save_pretrained(tmp_path / "m")
    loaded = ue.SEM.from_pretrained(folder, surrogate=Tied())
    assert same_weights(loaded, method)
    assert loaded.surrogate_.first.weight is loaded.surrogate_.second.weight
    new = Shapes(size=8, seed=1)
    rows = [m.extend(new, progress=False).rows for m in (loaded, method)]
    assert np.array_equal(*rows)


def test_a_full_disk_is_an_os_error_also_of_the_surrogate(tmp_path, monkeypatch):
    def full(*args, **options):
        raise safetensors.SafetensorError("I/O error: No space left on device (os error 28)")

    method = fitted(0)
    monkeypatch.setattr(checkpoint_module, "save_file", full)
    with pytest.raises(OSError, match="No space left") as caught:
        method.save_pretrained(tmp_path / "m")
    assert caught.value.errno == errno.ENOSPC and files(tmp_path / "m") == []


@pytest.mark.parametrize("part", [lambda method: method, lambda method: method.perturbation_])
def test_what_a_killed_save_left_is_swept_by_the_next(part, tmp_path):
    other = ue.RandomNoise().fit(Shapes(size=16), progress=False)
    folder = fitted(0).save_pretrained(tmp_path / "m")
    for name in FILES[1:]:
        (folder / f".{name}.partial").touch()
        (folder / name).rename(folder / f".{name}.before")
    for name in ("..method.json.partial.partial", ".other.partial"):
        (folder / name).touch()
    part(other).save_pretrained(folder)
    expected = {".other.partial", "config.json", "perturbation.safetensors"}
    assert set(files(folder)) - {"method.json"} == expected


def test_every_file_is_readable_by_whom_the_umask_lets(tmp_path):
    old = os.umask(0o027)
    try:
        method = ue.PILNoise.preset("demo", train_epochs=1).fit(Shapes(size=24), progress=False)
        folder = method.save_pretrained(tmp_path / "m")
    finally:
        os.umask(old)
    modes = {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()}
    assert "surrogate.safetensors" in modes and set(modes.values()) == {0o640}


@pytest.mark.parametrize("kept", [False, True])
def test_a_checkpoint_wants_the_weights_of_a_network_only_where_they_are_kept(
    kept, shapes, tmp_path, monkeypatch
):
    def network(seed):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10))

    def fit(surrogate, **options):
        own = {"surrogate": surrogate, "pretrained_surrogate": kept}
        method = ue.SEM.preset("demo", **own, train_steps=2, batch_size=16)
        return method.fit(shapes, device="cpu", progress=False, **options).perturbation_

    whole = fit(network(0))
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "wanted", lambda self: (True, True))
        with pytest.raises(KeyboardInterrupt):
            fit(network(0), checkpoint=tmp_path / "c")
    if kept:
        with pytest.raises((ValueError, FileExistsError)):
            fit(network(1), checkpoint=tmp_path / "c")
    assert fit(network(0 if kept else 1), checkpoint=tmp_path / "c").digest == whole.digest


@pytest.mark.parametrize("name", ["owner/name", "cifar10-sem", Path("moved")])
def test_a_method_that_is_no_folder_is_not_looked_for_as_a_perturbation(
    tmp_path, monkeypatch, name
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError) as raised:
        ue.SEM.from_pretrained(name)
    said = str(raised.value)
    assert f"save_pretrained of a fitted SEM wrote, got {str(name)!r}, which does not" in said
    assert str(tmp_path) in said and "the Hub and pre-made names have no fitted methods" in said
