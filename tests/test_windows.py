"""What only Windows does, acted out: files that are open or mapped stay, and files have modes."""

import gc
import io
import os
import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from test_resuming import export
from torchvision.datasets import ImageFolder

import unlearnable as ue
from unlearnable.cli import terminal
from unlearnable.engine.checkpoint import load_tree, save_tree
from unlearnable.io import files
from unlearnable.methods import checkpoint_folder, fit_session, row_buffer
from unlearnable.methods.row_buffer import RowFile

OPENED = Path("/proc/self/fd")
linux = pytest.mark.skipif(not OPENED.is_dir(), reason="sees what is open in /proc")
BINARY = 1 << 30


def in_use(path):
    with Path("/proc/self/maps").open(encoding="utf-8", errors="surrogateescape") as maps:
        mapped = any(line.rstrip("\n").endswith(f" {path}") for line in maps)
    return mapped or any(os.path.realpath(handle) == path for handle in OPENED.iterdir())


class Texts(SimpleNamespace):
    """``os`` whose files are texts unless they are opened otherwise: lines end in two bytes."""

    name, O_BINARY = "nt", BINARY

    def __init__(self):
        super().__init__(found=set())

    def __getattr__(self, name):
        if name in ("pwrite", "posix_fallocate"):
            raise AttributeError(name)
        return getattr(os, name)

    def open(self, path, flags, mode=0o777):
        handle = os.open(path, flags & ~BINARY, mode)
        (self.found.discard if flags & BINARY else self.found.add)(handle)
        return handle

    def write(self, handle, data):
        os.write(handle, data.replace(b"\n", b"\r\n") if handle in self.found else data)
        return len(data)


@pytest.fixture
def kept(monkeypatch):
    """A file that is open or mapped is neither deleted nor moved."""
    monkeypatch.setattr(files, "os", Texts())
    unlink = os.unlink

    def checked(path):
        own = Path(path).name.startswith(".filelock-")  # with which it tries the file system
        if Path(path).is_file() and not own and in_use(os.path.realpath(path)):
            raise PermissionError(13, "it is being used by another process", str(path))

    def refusing(path, *, dir_fd=None):
        checked(path if dir_fd is None else OPENED / str(dir_fd) / path)
        unlink(path, dir_fd=dir_fd)

    def before(act):
        def acting(self, *args, **options):
            for path in (self, *args):
                checked(path)
            return act(self, *args, **options)

        return acting

    monkeypatch.setattr(os, "unlink", refusing)
    for name in ("unlink", "rename", "replace"):
        monkeypatch.setattr(Path, name, before(getattr(Path, name)))


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """The folder for temporary files, empty."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    return tmp_path / "temporary"


def noise(dataset, **options):
    method = ue.RandomNoise(epsilon=16 / 255)
    return method.fit(dataset, device="cpu", progress=False, **options).perturbation_


@linux
def test_a_fit_with_a_checkpoint_ends_and_leaves_nothing(kept, shapes, tmp_path):
    found = noise(shapes, checkpoint=tmp_path / "c", checkpoint_every=0)
    assert found.digest == noise(shapes).digest
    assert not (tmp_path / "c").exists()


@linux
def test_a_checkpoint_that_was_read_can_be_replaced(kept, tmp_path):
    tree = {"state": [torch.arange(8.0), {"momentum": torch.ones(2, 3)}]}
    save_tree(tmp_path / "state", tree)
    found = load_tree(tmp_path / "state")
    save_tree(tmp_path / "state", tree)
    assert torch.equal(found["state"][0], tree["state"][0])


@linux
@pytest.mark.parametrize("checkpoint", [False, True])
def test_what_a_fit_maps_goes_when_it_is_no_longer_mapped(
    kept, shapes, temporary, tmp_path, monkeypatch, checkpoint
):
    monkeypatch.setattr(fit_session, "_ROWS_IN_MEMORY", 0)
    found = noise(shapes, resident=False, checkpoint=tmp_path / "c" if checkpoint else None)
    assert found.digest == noise(shapes).digest
    found.verify()
    folder = found.folder
    gc.collect()
    assert folder.is_dir() and [path for path in temporary.iterdir() if path != folder] == []
    del found
    gc.collect()
    assert not folder.exists() and not any(path.is_file() for path in tmp_path.rglob("*"))


def test_a_checkpoint_that_cannot_be_deleted_loses_no_fit(shapes, tmp_path, monkeypatch, caplog):
    def refused(path):
        raise PermissionError(13, "it is being used by another process", str(path))

    monkeypatch.setattr(checkpoint_folder, "delete", refused)
    assert noise(shapes, checkpoint=tmp_path / "c").digest == noise(shapes).digest
    assert str(tmp_path / "c") in caplog.text and (tmp_path / "c").is_dir()


def test_rows_and_their_journal_are_no_texts(tmp_path, monkeypatch):
    monkeypatch.setattr(row_buffer, "os", Texts())
    monkeypatch.setattr(row_buffer, "_BINARY", BINARY)
    before = np.full((12, 1, 2, 2), ord("\n"), np.int8)
    file = RowFile(tmp_path / "rows", before.shape)
    file.write(np.arange(12), before)
    file.start_journal(1)
    assert np.array_equal(file.rows, before)
    file.write(np.arange(12), before + 1)
    file.close()
    again = RowFile(tmp_path / "rows", before.shape)
    again.roll_back(1)
    assert np.array_equal(again.rows, before)
    again.close()


@linux
def test_a_loaded_perturbation_is_saved_over_its_own_files(kept, shapes, tmp_path):
    noise(shapes).save_pretrained(tmp_path / "key")
    loaded = ue.Perturbation.from_pretrained(tmp_path / "key")
    loaded.save_pretrained(tmp_path / "key")
    loaded.with_visibility("low").save_pretrained(tmp_path / "key")
    again = ue.Perturbation.from_pretrained(tmp_path / "key")
    again.verify()
    assert again.config["visibility"]["level"] == "low"
    assert len(list((tmp_path / "key").iterdir())) == 2


@linux
def test_files_of_a_perturbation_that_is_loaded_are_not_replaced_by_others(kept, shapes, tmp_path):
    folder = noise(shapes).save_pretrained(tmp_path / "key")
    protected = ue.ProtectedDataset(shapes, ue.Perturbation.from_pretrained(folder))
    other = ue.RandomNoise(seed=1).fit(shapes, device="cpu", progress=False).perturbation_
    with pytest.raises(OSError, match=r"not in use.*delete the loaded perturbation") as caught:
        other.save_pretrained(folder)
    del caught
    assert ue.Perturbation.from_pretrained(folder).digest == noise(shapes).digest
    del protected
    other.save_pretrained(folder)
    assert ue.Perturbation.from_pretrained(folder).digest == other.digest


@linux
def test_an_export_that_can_be_continued_leaves_nothing(kept, shapes, tmp_path):
    for index in range(4):
        folder = tmp_path / "photos" / "ab"[index % 2]
        folder.mkdir(parents=True, exist_ok=True)
        shapes[index][0].save(folder / f"{index}.png")
    photos = ImageFolder(tmp_path / "photos")
    protected = ue.RandomNoise().fit(photos, device="cpu", progress=False).protect(photos)
    export(protected, tmp_path / "out")
    assert not list(tmp_path.glob(".out*"))


def test_checkpoints_are_read_in_the_encoding_that_they_were_written_in(tmp_path, monkeypatch):
    monkeypatch.setattr(io, "text_encoding", lambda encoding, level=2: encoding or "cp1252")
    described = {"format": "unlearnable-checkpoint", "what": "Größe"}
    for _ in range(2):
        with checkpoint_folder.claimed_checkpoint(tmp_path / "c", described, None):
            (tmp_path / "c" / "once-1").touch()


@pytest.mark.parametrize(
    ("system", "path", "typed"),
    [
        ("posix", "/my/photos", "/my/photos"),
        ("posix", "/my photos", "'/my photos'"),
        ("nt", r"C:\my\photos-1.0", r"C:\my\photos-1.0"),
        ("nt", r"C:\my photos", r'"C:\my photos"'),
        ("nt", r"C:\a&b", r'"C:\a&b"'),
        ("nt", "C:\\my photos\\", '"C:\\my photos\\\\"'),
    ],
)
def test_paths_in_commands_are_quoted_as_the_shell_wants_it(monkeypatch, system, path, typed):
    monkeypatch.setattr(terminal, "os", SimpleNamespace(name=system))
    assert terminal.quoted(path) == typed
