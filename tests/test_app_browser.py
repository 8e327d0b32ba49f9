"""The app as a person uses it: a real browser, a real drop, the slider and the downloads."""

import functools
import http.server
import json
import os
import re
import signal
import subprocess
import sys
import threading
import zipfile
from pathlib import Path
from types import SimpleNamespace

import browsing
import numpy as np
import pytest
from browsing import until
from PIL import Image

pytestmark = pytest.mark.slow
SIZE = (1500, 600)  # of a photo wider than the page
# The command, with a note of every address beyond this machine that Python asks for.
GUARDED = """
import sys
here = ("127.0.0.1", "localhost", "::1", "0.0.0.0", None, "")
def watch(event, args):
    if event in ("socket.connect", "socket.sendto", "socket.getaddrinfo"):
        address = args[0] if event == "socket.getaddrinfo" else args[1]
        host = address[0] if isinstance(address, tuple) else address
        unix = event != "socket.getaddrinfo" and not isinstance(address, tuple)
        if not unix and host not in here:
            with open(sys.argv[1], "a") as file:
                print(event, address, file=file)
sys.addaudithook(watch)
from unlearnable.cli.main import main
sys.exit(main(["app", "--no-browser", "--json"]))
"""
IN_THE_WAY = "http://127.0.0.1:9"  # a proxy that answers nothing


def lacking(what):
    """Skips the tests, or fails where a browser is required."""
    if os.environ.get("UNLEARNABLE_BROWSER", "0") not in ("", "0"):
        pytest.fail(f"UNLEARNABLE_BROWSER is set, and there is no {what}")
    pytest.skip(f"there is no {what}")


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    for module in ("selenium", "gradio"):
        try:
            __import__(module)
        except ImportError:
            lacking(module)
    if None in browsing.programs():
        lacking("chromium with chromedriver")
    found = browsing.open_browser(tmp_path_factory.mktemp("profile"))
    yield found
    found.quit()


def photo(path, seed, size=(64, 48)):
    """A smooth generated photo."""
    path.parent.mkdir(parents=True, exist_ok=True)
    small = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    Image.fromarray(small).resize(size, Image.Resampling.BICUBIC).save(path)
    return path


@pytest.fixture(scope="module")
def seen(browser, tmp_path_factory):
    """The whole way, once: what there was to see at each step."""
    folder, temporary = tmp_path_factory.mktemp("way"), tmp_path_factory.mktemp("temporary")
    outside, seen = folder / "outside.txt", SimpleNamespace()
    environment = {**os.environ, "TMPDIR": str(temporary), "OMP_NUM_THREADS": "1"}
    environment |= dict.fromkeys(("http_proxy", "https_proxy", "all_proxy"), IN_THE_WAY)
    for name in ("NO_PROXY", "no_proxy"):
        environment.pop(name, None)
    command = [sys.executable, "-c", GUARDED, str(outside)]
    with (folder / "errors.txt").open("w") as errors:
        app = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment
        )
    try:
        said = ""
        while said.count("}") == 0:
            line = app.stdout.readline()
            assert line, (folder / "errors.txt").read_text()
            said += line
        seen.url = json.loads(said)["url"]
        walk(browsing.Page(browser, seen.url), folder, seen)
        strange(browser, temporary, folder, seen)
    finally:
        app.send_signal(signal.SIGTERM)
        app.wait(browsing.PATIENCE)
        app.stdout.close()
    seen.left = [path for path in temporary.rglob("*") if "unlearnable" in path.name]
    seen.outside = outside.read_text() if outside.exists() else ""
    seen.errors = (folder / "errors.txt").read_text()
    return seen


def walk(page, folder, seen):
    """From a first mistake to both downloads."""
    browser = page.browser
    pets = folder / "pets"
    photo(pets / "cats" / "1.png", 3)
    whole = photo(pets / "dogs" / "broken.jpg", 4)
    whole.write_bytes(whole.read_bytes()[:200])
    page.drop(pets)
    seen.mistake = page.wait_for_plan()
    seen.start_then = page.find("#start").is_enabled()
    page.open()
    files = [photo(folder / "flat" / "IMG (1).png", 1, SIZE), photo(folder / "flat" / "Ä.png", 2)]
    (folder / "flat" / "notes.txt").write_text("no photo")
    page.drop(files[0])
    seen.first_plan = page.wait_for_plan()
    page.drop(files[1], folder / "flat" / "notes.txt")  # in addition
    until(lambda: page.text("#plan").startswith("2 photos"), "both photos")
    seen.plan = page.wait_for_plan()
    page.protect()
    seen.before = page.pictures()
    page.slide(-150)
    seen.slid = until(lambda: page.pictures()[1][2] != seen.before[1][2] and page.pictures(), "it")
    page.click("#zoom label:nth-of-type(2)")
    seen.full = until(lambda: page.pictures()[0][1] == SIZE[0] and page.pictures(), "1:1")
    saved = folder / "downloads"
    where = {"behavior": "allow", "downloadPath": str(saved)}
    browser.execute_cdp_cmd("Browser.setDownloadBehavior", where)
    for name, file in {"copies": "protected-photos.zip", "key": "private-key.zip"}.items():
        page.click(f"#{name}")
        until((saved / file).is_file, file)
        with zipfile.ZipFile(saved / file) as archive:
            setattr(seen, name, archive.namelist())
            archive.extractall(folder / name)
    original = np.asarray(Image.open(files[0]), int)
    copy = next((folder / "copies").rglob("IMG (1).png"))
    seen.change = np.abs(np.asarray(Image.open(copy).convert("RGB"), int) - original).mean()
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    sent = [m["params"]["request"]["url"] for m in messages if m["method"].endswith("BeSent")]
    seen.requests = sent
    names = "return performance.getEntries().map(entry => entry.name)"
    seen.entries = [name for name in browser.execute_script(names) if "://" in name]


def strange(browser, temporary, folder, seen):
    """What another page, in the same browser, gets of the app."""
    (folder / "other").mkdir()
    (folder / "other" / "index.html").write_text("<title>another page</title>")
    handler = functools.partial(Quiet, directory=folder / "other")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    before = sorted(temporary.rglob("*"))
    browser.get(f"http://127.0.0.1:{server.server_port}/index.html")
    seen.strange = browser.execute_async_script(
        """
        const [url, done] = arguments;
        const form = new FormData();
        form.append("files", new File(["x"], "strange.png"));
        const post = { method: "POST", mode: "no-cors", body: form };
        Promise.allSettled([fetch(url + "config"), fetch(url + "gradio_api/upload", post)])
          .then((all) => done(all.map((one) => (one.value ?? one).status)));
        """,
        seen.url,
    )
    seen.sent_here = [path for path in sorted(temporary.rglob("*")) if path not in before]
    server.shutdown()
    server.server_close()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


def test_a_damaged_photo_is_named_in_a_sentence_and_nothing_can_be_started(seen):
    assert (
        "damaged one: dogs/broken.jpg" in seen.mistake
    )  # the folders of what was dropped are kept
    assert "Traceback" not in seen.mistake and "/tmp" not in seen.mistake
    assert not seen.start_then


def test_the_plan_is_said_before_the_work(seen):
    assert seen.first_plan.startswith("1 photo\n")
    assert seen.plan.splitlines()[0].startswith("2 photos")
    assert re.search(r"\b(second|minute)s?\b", seen.plan)
    assert "looks untouched" in seen.plan
    assert "Left out because they are not photos: notes.txt." in seen.plan


def test_the_slider_shows_both_sides_and_slides(seen):
    assert [side[0] for side in seen.before] == [SIZE[0], SIZE[0]]
    assert seen.before[0][1] < SIZE[0]
    assert seen.slid[1][2] != seen.before[1][2]


def test_photos_can_be_seen_pixel_by_pixel(seen):
    assert [side[1] for side in seen.full] == [SIZE[0], SIZE[0]]


def test_copies_and_key_are_downloaded_apart(seen):
    assert sorted(Path(name).name for name in seen.copies) == ["IMG (1).png", "Ä.png"]
    assert {"README.txt", "perturbation/config.json"} <= set(seen.key)
    assert not any(name.endswith(".png") for name in seen.key)
    assert 0 < seen.change < 8


def test_the_page_asks_no_other_host(seen):
    others = [
        url
        for url in seen.requests + seen.entries
        if url.startswith(("http", "ws")) and not url.startswith(seen.url)
    ]
    assert sum(url.startswith(seen.url) for url in seen.requests) > 10 and others == []


def test_the_program_asks_no_other_host(seen):
    assert seen.outside == ""


def test_another_page_can_neither_read_nor_send(seen):
    assert seen.strange == [403, 0]  # the status of a refusal, and of what it may not see
    assert seen.sent_here == []


def test_nothing_is_left_behind(seen):
    assert seen.left == []
    assert "Traceback" not in seen.errors
