"""Large copies that are written in threads while the next photos are read."""

import threading

import pytest
from test_resuming import COUNT, export, killed, photo, saved, staging, tree
from torchvision.datasets import ImageFolder

import unlearnable as ue
from unlearnable.protected.export import writing
from unlearnable.protected.export.encoding import Encoding

SIDES = (512, 24, 520, 512, 512, 24)
LARGE = sum(side >= 512 for side in SIDES)
assert len(SIDES) == COUNT and saved


@pytest.fixture
def photos(tmp_path):
    for index, side in enumerate(SIDES):
        photo(tmp_path / "photos" / "ab"[index % 2] / f"{index}.jpg", index, side)
    return ImageFolder(tmp_path / "photos")


@pytest.fixture
def protected(photos):
    method = ue.RandomNoise(granularity="class-wise")
    return method.fit(photos, image_size=8, progress=False).protect(photos, full_size=True)


@pytest.fixture
def threads(monkeypatch):
    """The file and the thread of each save."""
    found, save = [], Encoding.save

    def noting(self, image, path, info):
        found.append((path.name, threading.current_thread().name))
        save(self, image, path, info)

    monkeypatch.setattr(Encoding, "save", noting)
    return found


def alive():
    return [thread for thread in threading.enumerate() if thread.name.startswith("copies")]


def test_only_large_png_files_are_written_in_a_thread(protected, tmp_path, threads, monkeypatch):
    beside = tree(protected.export(tmp_path / "beside", progress=False))
    apart = [name for name, thread in threads if thread.startswith("copies")]
    assert len(apart) == LARGE and len(threads) == COUNT and not alive()
    assert {name.partition(".")[0] for name in apart} == {"0", "2", "3", "4"}
    threads.clear()
    protected.export(tmp_path / "jpeg", "jpeg", quality=95, progress=False)
    monkeypatch.setattr(writing, "BESIDE", range(0))
    assert tree(protected.export(tmp_path / "alone", progress=False)) == beside
    assert {thread for _, thread in threads} == {threading.current_thread().name}


def test_the_next_photo_is_read_while_a_large_copy_is_written(protected, tmp_path, monkeypatch):
    read, save = threading.Event(), Encoding.save
    images = protected.perturbation.apply_batch
    calls = []

    def counting(*args, **options):
        calls.append(args)
        if len(calls) == 2:
            read.set()
        return images(*args, **options)

    def waiting(self, image, path, info):
        assert read.wait(60)
        save(self, image, path, info)

    monkeypatch.setattr(protected.perturbation, "apply_batch", counting)
    monkeypatch.setattr(Encoding, "save", waiting)
    protected.export(tmp_path / "out", progress=False)
    assert len(calls) == COUNT


def test_a_kill_repeats_one_large_copy_at_most(protected, tmp_path, threads):
    expected = tree(protected.export(tmp_path / "whole", progress=False))
    threads.clear()
    killed(protected, tmp_path / "out", 3)
    assert tree(export(protected, tmp_path / "out")) == expected
    assert len(threads) <= COUNT - 3 + 1


def test_an_error_of_the_thread_is_raised_and_what_is_finished_is_kept(
    protected, tmp_path, monkeypatch
):
    calls, save = [], Encoding.save

    def failing(self, image, path, info):
        calls.append(path)
        if len(calls) == 4:
            raise OSError(28, "No space left on device", str(path))
        save(self, image, path, info)

    with monkeypatch.context() as patch:
        patch.setattr(Encoding, "save", failing)
        with pytest.raises(OSError, match=r"enough room at .*out"):
            export(protected, tmp_path / "out")
    assert not alive() and not (tmp_path / "out").exists()
    finished = (staging(tmp_path / "out") / "journal.jsonl").read_text().splitlines()
    assert len(finished) in (3, 4), "the other thread may finish one more"
    export(protected, tmp_path / "out")


def test_a_listener_that_stops_an_export_waits_for_its_thread(protected, tmp_path):
    def stop(share):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        protected.export(tmp_path / "out", progress=stop)
    assert not alive() and not list(tmp_path.glob("*out*"))
