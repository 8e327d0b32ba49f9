"""Exports that were killed are continued; how often photos are read, and how many are held."""

import json
import logging
import os
import threading
import time
import weakref
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import ImageFolder

import unlearnable as ue
from unlearnable.cli.main import main
from unlearnable.data import many_photos
from unlearnable.io.files import locked
from unlearnable.perturbation.perturbation import Perturbation
from unlearnable.protected.dataset import ProtectedDataset
from unlearnable.protected.export.encoding import Encoding

COUNT = 6


def photo(path, seed, side=24, quality=90):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side + 4, 3), np.uint8)
    Image.fromarray(pixels).save(path, quality=quality)


@pytest.fixture
def photos(tmp_path):
    for index in range(COUNT):
        photo(tmp_path / "photos" / "ab"[index % 2] / f"{index}.jpg", index)
    return ImageFolder(tmp_path / "photos")


@pytest.fixture
def protected(photos):
    method = ue.RandomNoise(granularity="class-wise")
    return method.fit(photos, image_size=8, progress=False).protect(photos, full_size=True)


def tree(folder):
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def export(protected, folder, format="png", **options):
    return protected.export(folder, format, resume=True, progress=False, **options)


@pytest.fixture
def saved(monkeypatch):
    """Names of the files that are written, in order."""
    names, save = [], Encoding.save

    def counting(self, image, path, info):
        names.append(path.name)
        save(self, image, path, info)

    monkeypatch.setattr(Encoding, "save", counting)
    return names


def killed(protected, folder, after, format="png", **options):
    """Exports in a process of its own, which dies in the middle of a file after some whole ones."""
    child = os.fork()
    if not child:
        save, calls = Encoding.save, []

        def dying(self, image, path, info):
            calls.append(path)
            save(self, image, path, info)
            if len(calls) > after:
                path.write_bytes(path.read_bytes()[:-9])
                os._exit(9)

        Encoding.save = dying
        try:
            export(protected, folder, format, **options)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


def staging(folder):
    (found,) = folder.parent.glob(f".{folder.name}.unfinished-*")
    return found


@pytest.mark.parametrize(("format", "quality"), [("png", None), ("webp", None), ("jpeg", 95)])
def test_a_killed_export_is_continued(protected, tmp_path, saved, format, quality):
    expected = tree(protected.export(tmp_path / "whole", format, quality=quality, progress=False))
    saved.clear()
    killed(protected, tmp_path / "out", 4, format, quality=quality)
    assert not (tmp_path / "out").exists() and staging(tmp_path / "out").is_dir()
    assert tree(export(protected, tmp_path / "out", format, quality=quality)) == expected
    assert len(saved) == COUNT - 4  # the one in the middle and the rest
    assert not list(tmp_path.glob(".*"))


def test_it_says_how_many_it_takes_over(protected, tmp_path, caplog):
    killed(protected, tmp_path / "out", 4)
    with caplog.at_level(logging.INFO, "unlearnable"):
        export(protected, tmp_path / "out")
    assert "4 of 6 copies were already finished by an earlier run" in caplog.text


def test_a_killed_export_into_an_empty_folder_is_continued(protected, tmp_path, saved):
    (tmp_path / "out").mkdir()
    killed(protected, tmp_path / "out", 4)
    folder = export(protected, tmp_path / "out")
    assert len(saved) == 2 and not list(folder.glob(".*")) and len(ImageFolder(folder)) == COUNT


def test_a_changed_original_is_written_anew(protected, tmp_path, saved):
    killed(protected, tmp_path / "out", 4)
    photo(tmp_path / "photos" / "a" / "0.jpg", 100)
    folder = export(protected, tmp_path / "out")
    assert sorted(saved) == ["0.png", "3.png", "5.png"]
    assert tree(folder) == tree(protected.export(tmp_path / "whole", progress=False))


@pytest.mark.parametrize("harm", ["cut", "gone", "other"])
def test_a_finished_file_that_is_not_whole_is_written_anew(protected, tmp_path, saved, harm):
    killed(protected, tmp_path / "out", 4)
    files = staging(tmp_path / "out") / "files" / "a"
    if harm == "gone":
        (files / "0.png").unlink()
    else:
        whole = (files / "0.png").read_bytes()
        other = (files / "2.png").read_bytes()
        (files / "0.png").write_bytes(whole[:-1] if harm == "cut" else other)
    folder = export(protected, tmp_path / "out")
    assert sorted(saved) == ["0.png", "3.png", "5.png"]
    assert tree(folder) == tree(protected.export(tmp_path / "whole", progress=False))


def test_what_else_lies_among_them_is_not_published(protected, tmp_path):
    killed(protected, tmp_path / "out", 4)
    files = staging(tmp_path / "out") / "files"
    photo(files / "c" / "clean.jpg", 0)
    folder = export(protected, tmp_path / "out")
    assert sorted(path.name for path in folder.iterdir() if path.is_dir()) == ["a", "b"]


def test_a_torn_line_of_the_journal_is_passed_over(protected, tmp_path, saved):
    killed(protected, tmp_path / "out", 4)
    journal = staging(tmp_path / "out") / "journal.jsonl"
    journal.write_bytes(journal.read_bytes()[:-20])
    export(protected, tmp_path / "out")
    assert len(saved) == 3


@pytest.mark.parametrize("options", [{"metadata": True}, {"format": "webp"}])
def test_what_other_options_have_left_is_deleted(protected, tmp_path, saved, options, caplog):
    killed(protected, tmp_path / "out", 4)
    with caplog.at_level(logging.INFO, "unlearnable"):
        export(protected, tmp_path / "out", **options)
    assert len(saved) == COUNT and not list(tmp_path.glob(".*"))
    assert "other settings" in caplog.text


def test_another_perturbation_takes_nothing_over(photos, protected, tmp_path, saved):
    killed(protected, tmp_path / "out", 4)
    other = ue.RandomNoise(granularity="class-wise", seed=1)
    other.fit(photos, image_size=8, progress=False)
    export(other.protect(photos, full_size=True), tmp_path / "out")
    assert len(saved) == COUNT and not list(tmp_path.glob(".*"))


def test_two_at_once_are_refused(protected, tmp_path):
    killed(protected, tmp_path / "out", 4)
    with locked(staging(tmp_path / "out"), wait=False):
        with pytest.raises(RuntimeError, match="no other process"):
            export(protected, tmp_path / "out")
        export(protected, tmp_path / "out", "webp")  # which leaves the other one alone
    assert staging(tmp_path / "out").is_dir()


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_an_interrupt_or_a_full_disk_keeps_what_is_finished(
    protected, tmp_path, monkeypatch, caplog, error
):
    save, calls = Encoding.save, []

    def failing(self, *arguments):
        calls.append(arguments)
        if len(calls) == 4:
            raise error
        save(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Encoding, "save", failing)
        with pytest.raises(type(error)) as raised:
            export(protected, tmp_path / "out")
    assert "which was deleted" not in str(raised.value)
    assert f"are kept in {staging(tmp_path / 'out')}" in caplog.text
    calls.clear()
    monkeypatch.setattr(Encoding, "save", lambda *parts: (calls.append(parts), save(*parts)))
    export(protected, tmp_path / "out")
    assert len(calls) == COUNT - 3


def test_a_failure_before_anything_is_finished_leaves_nothing(protected, tmp_path, monkeypatch):
    monkeypatch.setattr(Encoding, "save", lambda *parts: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        export(protected, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


def test_the_journal_names_no_original(protected, tmp_path):
    killed(protected, tmp_path / "out", 4)
    text = (staging(tmp_path / "out") / "journal.jsonl").read_text()
    assert len(text.splitlines()) == 4
    assert ".jpg" not in text and str(tmp_path) not in text


# --- what is measured on the way -----------------------------------------------------------------


def reads(monkeypatch):
    """Counters of the photos that are opened and decoded."""
    opened, decoded, open_file = Counter(), Counter(), Image.open

    def counting(path, *arguments, **options):
        image = open_file(path, *arguments, **options)
        name, prepare = Path(path).name, image.load_prepare
        opened[name] += 1
        image.load_prepare = lambda: (decoded.update([name]), prepare())
        return image

    monkeypatch.setattr(Image, "open", counting)
    return opened, decoded


def test_the_change_is_measured_while_copies_are_written(photos, protected, tmp_path, monkeypatch):
    expected = protected.change(4)
    killed(protected, tmp_path / "out", 4, measure=4)
    export(protected, tmp_path / "out", measure=4)
    opened, _ = reads(monkeypatch)
    assert protected.change(4) == expected and not opened
    assert protected.with_fraction(0).change(4).linf == 0


def test_protecting_reads_each_photo_twice(photos, tmp_path, monkeypatch, capsys):
    names = [Path(path).name for path, _ in photos.samples]
    words = ("--method", "randomnoise", "--image-size", "8", "--quiet")
    opened, decoded = reads(monkeypatch)
    assert main(["protect", str(photos.root), str(tmp_path / "out"), *words]) == 0
    # To learn and to write; and its size is looked at before. Of each class one is tried first.
    others = [name for name in names if name not in ("0.jpg", "1.jpg")]
    assert [decoded[name] for name in others] == [2] * len(others)
    assert [opened[name] for name in others] == [3] * len(others)


def test_rows_of_classes_need_no_photo_to_be_found(photos, protected, monkeypatch):
    opened, _ = reads(monkeypatch)
    ProtectedDataset(photos, protected.perturbation, full_size=True)
    assert not opened


def test_several_damaged_photos_are_named_before_anything_is_learned(photos):
    bad = [photos.samples[place][0] for place in (1, 4)]
    for path in bad:
        data = Path(path).read_bytes()
        Path(path).write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match="2 bad files") as raised:
        ue.RandomNoise().fit(photos, image_size=8, progress=False)
    assert all(path in str(raised.value) for path in bad)


# --- how many photos are held -------------------------------------------------------------------


@pytest.mark.parametrize("format", ["png", "webp"])
def test_no_pixels_are_held_while_a_large_photo_is_encoded(tmp_path, monkeypatch, format):
    for index in range(3):
        photo(tmp_path / "photos" / "a" / f"{index}.jpg", index, side=320)
    photos = ImageFolder(tmp_path / "photos")
    method = ue.RandomNoise(granularity="class-wise").fit(photos, image_size=8, progress=False)
    held, counts = [], []
    apply, save = Perturbation.apply_batch, Encoding.save

    def applying(self, images, rows, **options):
        changed = apply(self, images, rows, **options)
        held.extend(map(weakref.ref, (images, changed)))
        return changed

    def saving(self, *parts):
        counts.append(sum(ref() is not None for ref in held))
        save(self, *parts)

    monkeypatch.setattr(Perturbation, "apply_batch", applying)
    monkeypatch.setattr(Encoding, "save", saving)
    export(method.protect(photos, full_size=True), tmp_path / "out", format)
    assert counts == [0, 0, 0]


def test_few_large_photos_are_decoded_at_once(monkeypatch):
    monkeypatch.setattr(many_photos, "_TOGETHER", 100)
    inside, most = [], []

    def work(side):
        with many_photos.few_at_once((side, 10)):
            inside.append(side)
            most.append(list(inside))
            time.sleep(0.001)
            inside.remove(side)

    threads = [threading.Thread(target=work, args=(side,)) for side in [5, 5, 50, 5, 4, 5, 50, 5]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(len(now) == 1 or sum(now) <= 10 for now in most)


def test_the_list_of_files_is_that_of_an_export_in_one_go(protected, tmp_path):
    whole = protected.export(tmp_path / "whole", progress=False)
    killed(protected, tmp_path / "out", 2)
    folder = export(protected, tmp_path / "out")
    one, other = (json.loads((at / "unlearnable.json").read_text()) for at in (whole, folder))
    assert one == other
    assert ue.verify(folder, protected.perturbation, progress=False).whole
