"""The photo journey in a process of its own: Ctrl-C, full disks and folders without permission."""

import ctypes
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.slow
COUNT = 24
DROP_CAPABILITY = 24  # of prctl
OVERRIDES = (1, 2)  # capabilities of root to write, and to read and search, everywhere
PATIENCE = 1800  # seconds, on a machine with much else to do
COMPUTED = ["--method", "lsp"]
LEARNED = ["--method", "sem", "--preset", "demo", "--image-size", "16", "--set", "train_steps=40"]
LEARNED += ["visits=1", "--checkpoint-every", "0", "--verbose"]
LIBC = ctypes.CDLL(None)  # loaded before a process is forked


@pytest.fixture
def photos(tmp_path):
    draws = np.random.default_rng(0)
    for index in range(COUNT):
        place = tmp_path / "photos" / ("cat", "dog")[index % 2]
        place.mkdir(parents=True, exist_ok=True)
        pixels = draws.integers(0, 256, (480, 640, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(place / f"{index}.jpg", quality=50)
    return tmp_path / "photos"


def start(folder, *arguments, limit=None):
    """The command; with a ``limit``, no file of more bytes can be written."""

    def prepare():
        signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background
        if sys.platform == "linux" and os.geteuid() == 0:  # permissions are to hold for root, too
            for capability in OVERRIDES:
                assert LIBC.prctl(DROP_CAPABILITY, capability, 0, 0, 0) == 0
        if limit is not None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    command = [sys.executable, "-m", "unlearnable", *arguments]
    path = str(Path(__file__).parent.parent)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, cwd=folder, env=environment, preexec_fn=prepare, **streams)


def end(process):
    said, _ = process.communicate(timeout=PATIENCE)
    return process.returncode, said


def interrupt(process, when):
    """Ctrl-C as soon as something is there."""
    stop = time.monotonic() + PATIENCE
    while not when():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < stop
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    return end(process)


def copies(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*.png")}


def stamps(folder):
    return {path.name: path.stat().st_mtime_ns for path in folder.rglob("*.png")}


def whole(tmp_path):
    """What is left after the command has finished, and that the copies are right."""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "out-key", "photos"]
    assert len(copies(tmp_path / "out")) == COUNT
    code, said = end(start(tmp_path, "verify", "out", "out-key", "--quiet"))
    assert code == 0, said


def test_ctrl_c_while_it_writes_loses_at_most_one_photos_work(photos, tmp_path):
    arguments = ("protect", "photos", "out", "--quiet", *COMPUTED)

    def staged():
        return {k: v for at in tmp_path.glob(".out.unfinished-*") for k, v in stamps(at).items()}

    code, said = interrupt(start(tmp_path, *arguments), lambda: len(staged()) >= 5)
    kept = staged()
    assert code == 130 and "Traceback" not in said, said
    assert re.search(r"interrupted.*same command", said), said
    assert 4 <= len(kept) < COUNT and not (tmp_path / "out").exists()
    code, said = end(start(tmp_path, *arguments))
    assert code == 0, said
    found = stamps(tmp_path / "out")
    assert sum(found[name] != stamp for name, stamp in kept.items()) <= 1
    whole(tmp_path)


def test_ctrl_c_while_it_learns_and_the_same_again(photos, tmp_path):
    arguments = ("protect", "photos", "out", "--quiet", *LEARNED)
    state = tmp_path / "out-unfinished" / "learning" / "state.safetensors"
    code, said = interrupt(start(tmp_path, *arguments), state.exists)
    assert code == 130 and "Traceback" not in said, said
    assert "interrupted" in said and "out-unfinished" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out-unfinished", "photos"]
    code, said = end(start(tmp_path, *arguments))
    assert code == 0 and "Traceback" not in said, said
    whole(tmp_path)


def test_a_file_that_is_too_large_for_the_disk_is_an_error_and_leaves_no_half_written_copy(
    photos, tmp_path
):
    arguments = ("protect", "photos", "out", "--quiet", *COMPUTED)
    code, said = end(start(tmp_path, *arguments, limit=200_000))
    assert code == 1 and "Traceback" not in said, said
    assert "File too large; choose another folder" in said and "same command" in said
    assert not (tmp_path / "out").exists() and not list(tmp_path.rglob("*.png"))
    code, said = end(start(tmp_path, *arguments))
    assert code == 0, said
    whole(tmp_path)


@pytest.fixture
def locked(tmp_path):
    """A folder without permission to write."""
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o555)
    return folder


@pytest.mark.parametrize(
    "arguments",
    [
        ("protect", "photos", "{}/out", *COMPUTED),
        ("protect", "photos", "out", "--save-perturbation", "{}/key", *COMPUTED),
        ("protect", "photos", "out", "--checkpoint", "{}/state", *LEARNED),
        ("preview", "photos/cat/0.jpg", "--out", "{}/p.png"),
    ],
    ids=("copies", "key", "checkpoint", "preview"),
)
def test_without_permission_nothing_is_learned_and_nothing_left(
    photos, tmp_path, locked, arguments
):
    words = [word.format(locked) for word in arguments]
    code, said = end(start(tmp_path, *words, "--quiet"))
    assert code == 1 and "Traceback" not in said, said
    assert f"could not write to {locked}" in said and "choose another folder" in said
    shutil.rmtree(photos)
    assert [path for path in tmp_path.iterdir() if path != locked] == []


def test_photos_without_permission_are_named(photos, tmp_path):
    photo = photos / "cat" / "0.jpg"
    photo.chmod(0)
    code, said = end(start(tmp_path, "protect", "photos", "out", "--quiet", *COMPUTED))
    assert code == 1 and "photos/cat/0.jpg: Permission denied" in said
    assert "Errno" not in said and not (tmp_path / "out").exists()


def test_folders_without_permission_are_named_unless_no_photos_are_looked_for_there(
    photos, tmp_path
):
    arguments = ("protect", "photos", "out", "--quiet", *COMPUTED)
    for name in ("cat/deep", "lost+found"):
        (photos / name).mkdir(mode=0)
    code, said = end(start(tmp_path, *arguments))
    assert code == 1 and "photos/cat/deep: Permission denied" in said
    (photos / "cat" / "deep").rmdir()
    code, said = end(start(tmp_path, *arguments))
    assert code == 0, said
    whole(tmp_path)
