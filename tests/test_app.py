"""What the app does with what is dropped, without a browser."""

import asyncio
import os
import re
import sys
import threading
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unlearnable import RandomNoise
from unlearnable.photos.app import intake, start, words
from unlearnable.photos.app.intake import Dropped, collect
from unlearnable.photos.app.local import OnlyThisPage
from unlearnable.photos.app.visit import Done, Step, Stopped, Visit, _Teller, stop_all


def photo(path, seed=0, size=(40, 32)):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def dropped(folder, *names):
    """Files as a browser sends them: each somewhere, with its name."""
    return [
        Dropped(photo(folder / f"{n}{Path(name).suffix}", n), name) for n, name in enumerate(names)
    ]


def below(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("names", "kept"),
    [
        (["b.png", "a (1).jpg"], ["a (1).jpg", "b.png"]),
        (["holiday/b.png", "holiday/a.png"], ["a.png", "b.png"]),
        (["p/cats/a.png", "p/dogs/a.png"], ["cats/a.png", "dogs/a.png"]),
        (["cats/a.png", "dogs/2021/b.png"], ["cats/a.png", "dogs/2021/b.png"]),
        (["a.png", "a.png"], ["a (2).png", "a.png"]),
        (["cats\\a.png", "dogs\\b.png"], ["cats/a.png", "dogs/b.png"]),
        (["日本.png", "naïve & co.png"], ["naïve & co.png", "日本.png"]),
        (["a.png", "._a.png", ".DS_Store.png", "__MACOSX/a.png"], ["a.png"]),
    ],
)
def test_photos_keep_their_names_and_class_folders(names, kept, tmp_path):
    found = collect(dropped(tmp_path / "in", *names), tmp_path / "out")
    assert below(found.folder) == kept
    assert found.photos == len(kept)


def test_no_name_leads_out_of_the_folder(tmp_path):
    names = ["../../a.png", "/b.png", "..\\c.png", "./d.png", "e\0.png"]
    found = collect(dropped(tmp_path / "in", *names), tmp_path / "deep" / "out")
    assert below(found.folder) == ["a.png", "b.png", "c.png", "d.png", "e_.png"]
    assert below(tmp_path / "deep") == [f"out/{name}" for name in below(found.folder)]


def test_an_archive_is_unpacked_with_its_class_folders(tmp_path):
    with zipfile.ZipFile(tmp_path / "x", "w") as archive:
        for n, name in enumerate(
            ["photos/cats/a.png", "photos/dogs/b.png", "__MACOSX/photos/._a.png"]
        ):
            archive.write(photo(tmp_path / f"{n}.png", n), name)
    found = collect([Dropped(tmp_path / "x", "photos.ZIP")], tmp_path / "out")
    assert below(tmp_path / "out") == ["cats/a.png", "dogs/b.png"] and found.photos == 2
    assert not (tmp_path / "out-unpacked").exists()


def test_an_archive_larger_than_the_disk_is_refused(tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "x", "w") as archive:
        archive.writestr("a.png", bytes(100))
    monkeypatch.setattr(intake, "_SPARE", 1 << 62)
    with pytest.raises(ValueError, match=r"^x needs more disk space than is free"):
        collect([Dropped(tmp_path / "x", "x.zip")], tmp_path / "out")


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (
            ["notes.txt"],
            "There are no photos among the files you dropped. Left out because they are not "
            "photos: notes",
        ),
        (["a.cr2"], "their format is not supported: a.cr2. Save them as JPEG or PNG."),
        ([], "There are no photos"),
        (["cats/a.png", "b.png"], "Some photos are in folders and some are not (b.png), so"),
    ],
)
def test_what_cannot_be_used_is_said_in_a_sentence(names, said, tmp_path):
    files = []
    for n, name in enumerate(names):
        (tmp_path / str(n)).write_bytes(b"x")
        files.append(Dropped(tmp_path / str(n), name))
    with pytest.raises(ValueError, match="(?s)" + re.escape(said)):
        collect(files, tmp_path / "out")


def test_a_damaged_archive_is_said_in_a_sentence(tmp_path):
    (tmp_path / "x").write_bytes(b"PK nothing")
    with pytest.raises(ValueError, match=r"^holiday.zip cannot be unpacked: it is damaged. Unpack"):
        collect([Dropped(tmp_path / "x", "holiday.zip")], tmp_path / "out")


@pytest.mark.parametrize("how", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_an_archive_with_damaged_content_is_said_in_a_sentence(how, tmp_path):
    with zipfile.ZipFile(tmp_path / "x", "w", how) as archive:
        archive.write(photo(tmp_path / "a.png"), "a.png")
    content = bytearray((tmp_path / "x").read_bytes())
    content[60:160] = bytes(255 - value for value in content[60:160])
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(ValueError, match=r"^holiday.zip cannot be unpacked: it is damaged. Unpack"):
        collect([Dropped(tmp_path / "x", "holiday.zip")], tmp_path / "out")


def test_heic_without_the_extra_is_left_out_with_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(intake, "photo_extensions", lambda: (".png",))
    found = collect(dropped(tmp_path / "in", "a.png"), tmp_path / "out")
    assert found.left_out == []
    (tmp_path / "b").write_bytes(b"x")
    files = [*dropped(tmp_path / "in", "a.png"), Dropped(tmp_path / "b", "IMG_1.HEIC")]
    (said,) = collect(files, tmp_path / "out2").left_out
    assert "IMG_1.HEIC" in said and "pip install 'unlearnable[heic]'" in said


def finished(visit, format="png"):
    *steps, done = visit.protect(format)
    assert isinstance(done, Done) and all(isinstance(step, Step) for step in steps)
    return done, [step.text for step in steps]


@pytest.fixture
def visit(tmp_path):
    visit = Visit(tmp_path)
    yield visit
    visit.close()
    assert not visit.folder.exists()


def test_flat_photos_become_an_archive_of_copies_and_a_key_apart(visit, tmp_path):
    names = ["IMG_1.JPG", "IMG_2.png", "Ä (3).png"]
    found = visit.look(dropped(tmp_path / "in", *names), [], "low")
    assert found.facts == ["3 photos", "less than a minute", "looks untouched"]
    assert found.notes == [] and not any("--" in text for text in found.sentences)
    done, said = finished(visit)
    assert [text.partition(",")[0] for text in said[:2]] == [
        "Learning the change",
        "Writing the copies",
    ]
    with zipfile.ZipFile(done.copies) as archive:
        assert (
            sorted(archive.namelist())
            == ["IMG_1.png", "IMG_2.png", "Ä (3).png"]
            == sorted(done.names)
        )
    with zipfile.ZipFile(done.key) as archive:
        kept = archive.namelist()
        assert "do not publish it" in archive.read("README.txt").decode()
        archive.extractall(tmp_path / "key")
    assert "perturbation/config.json" in kept and "notes/unlearnable-files.csv" in kept
    before, after, width = visit.pair(done.names.index("IMG_2.png"))
    clean, protected = (
        np.asarray(Image.open(path).convert("RGB"), int) for path in (before, after)
    )
    assert width == clean.shape[1] == 40
    assert 0 < abs(protected - clean).mean() < 8


def test_copies_verify_with_what_is_in_the_key(visit, tmp_path):
    from unlearnable import Perturbation, verify

    visit.look(dropped(tmp_path / "in", "a.png", "b.png"), [], "low")
    done, _ = finished(visit)
    with zipfile.ZipFile(done.copies) as archive:
        archive.extractall(tmp_path / "copies")
    with zipfile.ZipFile(done.key) as archive:
        archive.extractall(tmp_path / "key")
    for note in (tmp_path / "key" / "notes").iterdir():
        note.rename(tmp_path / "copies" / note.name)
    found = verify(
        tmp_path / "copies", Perturbation.from_pretrained(tmp_path / "key" / "perturbation")
    )
    assert found.whole and found.files.keys() == set(done.names)


class Planned:
    """A plan whose method changes no pixel of photos of the first kind."""

    seconds, writing = 60.0, 1.0

    def fit(self, dataset, progress):
        self.method = RandomNoise(granularity="class-wise").fit(dataset, image_size=32)
        self.method.history_ = [{"accuracy": 0.25}]
        made = self.method.perturbation_
        rows = made.rows.copy()
        rows[0] = 0
        self.method.perturbation_ = type(made)(rows, made.config)
        return self.method


@pytest.mark.filterwarnings("ignore:2 of 4 copies", "ignore:only .* of the change is left")
@pytest.mark.parametrize("format", ["png", "jpeg"])
def test_what_is_wrong_with_the_copies_is_said(visit, tmp_path, format):
    for n in range(4):
        smooth = Image.linear_gradient("L").resize((64, 48)).rotate(40 * n).convert("RGB")
        smooth.save(tmp_path / f"{n}.jpg", quality=4)
    names = ["a/0.jpg", "a/1.jpg", "b/2.jpg", "b/3.jpg"]
    visit.look([Dropped(tmp_path / f"{n}.jpg", name) for n, name in enumerate(names)], [], "low")
    visit._plan = Planned()
    done, _ = finished(visit, format)
    bare, *lossy, weak = done.cautions
    assert "2 of 4 copies are not protected" in bare and done.names[0] in bare
    assert "do not publish them" in bare.lower() and done.names[3] not in bare
    assert weak.startswith("The protection may be weak") and weak.endswith("More photos help.")
    assert ["hardly protected" in text for text in lossy] == [True] * (format == "jpeg")


def test_copies_that_are_as_they_should_be_need_no_caution():
    assert words.cautions([], 3, None) == words.cautions([], 3, 0.5) == []
    (one,) = words.cautions(["a.png"], 3, 0.9)
    assert "1 of 3 copies is not protected" in one and "publish it" in one
    (many,) = words.cautions(list("abcdefg"), 9, None)
    assert "a, b, c, d, e, …" in many


class Endless:
    """A plan that never comes to an end."""

    seconds, writing = 60.0, 1.0

    def fit(self, dataset, progress):
        while True:
            progress(0.5)
            time.sleep(0.001)


def test_work_ends_where_it_is_stopped(visit, tmp_path):
    visit.look(dropped(tmp_path / "in", "a.png", "b.png"), [], "low")
    visit._plan = Endless()
    steps = visit.protect("png")
    assert next(steps) == Step("Learning the change, about a minute left")
    visit.stop()
    with pytest.raises(Stopped) as stopped:
        list(steps)
    assert visit.say(stopped.value) == "Stopped. Nothing was kept."


def test_a_second_window_says_that_it_waits_and_can_be_stopped(visit, tmp_path):
    files, second = dropped(tmp_path / "in", "a.png", "b.png"), Visit(tmp_path)
    for one in (visit, second):
        one.look(files, [], "low")
    visit._plan = Endless()
    steps, waiting = visit.protect("png"), second.protect("png")
    next(steps)
    assert next(waiting) == Step("Waiting for the photos in another window")
    second.stop()
    with pytest.raises(Stopped):
        list(waiting)
    waiting = second.protect("png")
    assert "Waiting" in next(waiting).text
    visit.stop()
    with pytest.raises(Stopped):
        list(steps)
    assert isinstance(list(waiting)[-1], Done)
    second.close()


def test_all_work_ends_with_the_program(visit, tmp_path):
    visit.look(dropped(tmp_path / "in", "a.png", "b.png"), [], "low")
    visit._plan = Endless()
    steps = visit.protect("png")
    next(steps)
    stop_all()
    with pytest.raises(Stopped):
        list(steps)
    assert not visit._busy.locked()


def test_what_is_dropped_meanwhile_stops_the_work(visit, tmp_path):
    files = dropped(tmp_path / "in", "a.png", "b.png")
    visit.look(files, [], "low")
    visit._plan = Endless()
    steps = visit.protect("png")
    next(steps)
    assert visit.look(files[:1], [], "low").facts[0] == "1 photo"
    with pytest.raises(Stopped):
        list(steps)


def test_a_damaged_photo_is_named_and_no_folder_is(visit, tmp_path):
    files = dropped(tmp_path / "in", "a.png", "b.png")
    files[0].path.write_bytes(files[0].path.read_bytes()[:60])
    (tmp_path / "in" / "c").write_bytes(b"no photo")
    with pytest.raises(ValueError) as error:
        visit.look([*files, Dropped(tmp_path / "in" / "c", "c.jpg")], [], "low")
    said = visit.say(error.value)
    assert "a.png" in said and "c.jpg" in said and "b.png" not in said
    assert str(tmp_path) not in said and os.sep not in said
    assert visit.look(files[1:], [], "low").facts[0] == "1 photo"


def test_unforeseen_errors_are_sentences_too(tmp_path):
    assert words.plain(KeyError("x"), tmp_path).startswith("Something unexpected went wrong")
    assert "disk is full" in words.plain(OSError(28, "No space left on device"), tmp_path)
    assert "ran out of memory" in words.plain(MemoryError(), tmp_path)


def answer(**headers):
    """The status and the headers with which a request is answered."""
    sent = []

    async def app(scope, receive, send):
        await send(
            {"type": "http.response.start", "status": 200, "headers": [(b"cache-control", b"x")]}
        )
        await send({"type": "http.response.body", "body": b""})

    async def send(message):
        sent.append(message)

    path, method, kind = (
        headers.pop(n, d) for n, d in (("path", "/x"), ("method", "POST"), ("type", "http"))
    )
    pairs = [(n.replace("_", "-").encode(), v.encode()) for n, v in headers.items()]
    scope = {"type": kind, "method": method, "path": path, "headers": pairs}
    asyncio.run(OnlyThisPage(app)(scope, None, send))
    return sent[0]["status"], dict(sent[0]["headers"])


OURS = "127.0.0.1:7860"


@pytest.mark.parametrize(
    "headers",
    [
        {"host": OURS},
        {"host": "localhost:7860"},
        {"host": OURS, "origin": f"http://{OURS}", "sec_fetch_site": "same-origin"},
        {"host": OURS, "sec_fetch_site": "none"},
        {
            "host": OURS,
            "sec_fetch_site": "cross-site",
            "sec_fetch_mode": "navigate",
            "method": "GET",
            "path": "/",
        },
    ],
)
def test_the_page_itself_and_links_to_it_are_answered(headers):
    status, sent = answer(**headers)
    assert status == 200
    assert sent[b"cache-control"] == b"no-store"
    assert b"default-src 'self'" in sent[b"content-security-policy"]
    assert b"frame-ancestors 'none'" in sent[b"content-security-policy"]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"host": "evil.example:7860"},
        {"host": "127.0.0.1.evil.example"},
        {"host": "evil.example", "origin": "http://evil.example", "sec_fetch_site": "same-origin"},
        {"host": OURS, "origin": "https://evil.example"},
        {"host": OURS, "origin": "null"},
        {"host": OURS, "origin": "http://127.0.0.1:8000"},
        {"host": OURS, "origin": "http://localhost:7860"},
        {"host": OURS, "sec_fetch_site": "cross-site"},
        {"host": OURS, "sec_fetch_site": "same-site"},
        {"host": OURS, "sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate"},
        {
            "host": OURS,
            "sec_fetch_site": "cross-site",
            "sec_fetch_mode": "no-cors",
            "method": "GET",
            "path": "/",
        },
        {"host": OURS, "method": "GET", "path": "/gradio_api/file=https://evil.example/x"},
        {"host": OURS, "method": "GET", "path": "/gradio_api/proxy=https://evil.example/x"},
    ],
)
def test_other_pages_and_other_names_are_refused(headers):
    assert answer(**headers)[0] == 403


def test_without_gradio_it_is_said_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.delitem(sys.modules, "unlearnable.photos.app.page", raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(ImportError, match=r"pip install 'unlearnable\[app\]'"), start.serving(None):
        pass
    assert list(tmp_path.iterdir()) == []


def test_folders_that_killed_runs_left_are_deleted_and_those_in_use_are_not(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / "unlearnable-app-killed").mkdir()
    photo(tmp_path / "unlearnable-app-killed" / "a.png")
    with start._own_folder() as used:
        with start._own_folder() as other:
            assert used.is_dir() and other.is_dir()
            assert {used, other} == set(tmp_path.iterdir())
        assert used.is_dir()
    assert list(tmp_path.iterdir()) == []


def test_progress_says_how_long_it_still_takes(monkeypatch):
    now = iter([0.0, 0.2, 60.0, 90.0])
    monkeypatch.setattr("time.monotonic", lambda: next(now))
    steps = []
    told = _Teller(steps.append, threading.Event())
    told.begin("Learning", 120)
    for share in (0.01, 0.5, 0.9):
        told(share)
    assert steps == [
        Step("Learning, about 2 minutes left", None),
        Step("Learning, about a minute left", 0.5),
        Step("Learning, less than a minute left", 0.9),
    ]


def test_time_that_is_left_is_said_in_minutes():
    assert words.time_left(20) == "less than a minute left"
    assert words.time_left(70) == "about a minute left"
    assert words.time_left(400) == "about 7 minutes left"
    assert words.time_left(float("nan")) == ""


def test_names_in_an_archive_may_be_utf8_without_a_mark(tmp_path):
    with zipfile.ZipFile(tmp_path / "x", "w") as archive:
        for number, name in enumerate(["日本/é.png", "cats/ü.png"]):
            content = photo(tmp_path / f"{number}.png", number).read_bytes()
            archive.writestr(zipfile.ZipInfo(name), content)
    unmarked = bytearray((tmp_path / "x").read_bytes())
    for mark, place in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        at = unmarked.find(mark)
        while at >= 0:
            unmarked[at + place + 1] &= ~0x08 & 0xFF
            at = unmarked.find(mark, at + 4)
    (tmp_path / "x").write_bytes(unmarked)
    with zipfile.ZipFile(tmp_path / "x") as archive:
        assert not any(member.flag_bits & 0x800 for member in archive.infolist())
    collect([Dropped(tmp_path / "x", "photos.zip")], tmp_path / "out")
    assert below(tmp_path / "out") == ["cats/ü.png", "日本/é.png"]


@pytest.mark.parametrize(
    "host", ["[", "[::1", "evil.example@127.0.0.1", "127.0.0.1:", "127.0.0.1:x"]
)
def test_a_host_that_is_none_is_refused(host):
    assert answer(host=host)[0] == 403


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1"])
def test_other_ways_to_write_our_own_host(host):
    assert answer(host=host)[0] == 200
