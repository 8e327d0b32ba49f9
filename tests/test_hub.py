"""The Hub: the real client, in processes of its own, against a server on the loopback."""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hub_server import READER, WRITER, HubServer

import unlearnable as ue
from unlearnable.hub.catalogue import FILE, Pretrained
from unlearnable.methods.premade import surrogate_digest

pytestmark = pytest.mark.slow

TESTS = Path(__file__).parent
DATA = "perturbation.safetensors"


@pytest.fixture(scope="module")
def process():
    command = [sys.executable, str(TESTS / "hub_client.py")]
    hidden = ("HF_", "HUGGING", "XET_")
    env = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
    path = os.pathsep.join([str(Path(ue.__file__).parents[1]), env.get("PYTHONPATH", "")])
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=env | {"PYTHONPATH": path},
        text=True,
    ) as running:
        yield running
        running.stdin.close()


@pytest.fixture(scope="module")
def lfs_server(tmp_path_factory):
    with HubServer(tmp_path_factory.mktemp("store")) as running:
        yield running


@pytest.fixture(scope="module")
def xet_server(tmp_path_factory):
    with HubServer(tmp_path_factory.mktemp("store"), xet=True) as running:
        yield running


@pytest.fixture
def server(lfs_server):
    yield lfs_server
    lfs_server.mend()
    lfs_server.repos.clear()


@pytest.fixture
def client(process, tmp_path):
    """Runs code with the client against a server; returns what the code put into ``told``."""
    calls = []

    def call(server, code, home="home", **env):
        folder = tmp_path / f"call{len(calls)}"
        folder.mkdir()
        calls.append(folder)
        env = {
            "HF_HOME": str(tmp_path / home),
            "HF_ENDPOINT": server if isinstance(server, str) else server.url,
            "HF_HUB_DISABLE_XET": str(int(isinstance(server, str) or not server.xet)),
        } | env
        process.stdin.write(json.dumps({"code": code, "folder": str(folder), "env": env}) + "\n")
        process.stdin.flush()
        assert process.stdout.readline() == "done\n"
        output = (folder / "output.txt").read_text()
        told = json.loads((folder / "told.json").read_text())
        assert told is not None, output[-2000:]
        for path in (p for p in tmp_path.rglob("*") if p.is_file()):
            for token in (READER, WRITER):
                assert token.encode() not in path.read_bytes(), path
        return told

    return call


@pytest.fixture
def nowhere():
    """An address at which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


@pytest.fixture(scope="module")
def saved(perturbation, tmp_path_factory):
    return perturbation.save_pretrained(tmp_path_factory.mktemp("saved"))


def _described(perturbation):
    """What the catalogue says of it, without a name and a place."""
    info, source = perturbation.info(), perturbation.config["source"]
    fields = ("method", "image_shape", "epsilon", "norm", "bytes", "digest")
    return {field: info[field] for field in fields} | {
        "dataset": source["name"],
        "images": source["images"],
    }


def said(told, *words, error="HubError"):
    """That a call failed with one sentence that has these words in it."""
    assert told.get("error") == error, told
    assert "\n" not in told["message"]
    for word in words:
        assert word in told["message"], told["message"]


# --- There and back -------------------------------------------------------------------------------


@pytest.mark.parametrize("transport", ["lfs", "xet"])
def test_push_and_pull(transport, request, client, shapes, tmp_path):
    server = request.getfixturevalue(f"{transport}_server")
    method = ue.RandomNoise().fit(shapes, device="cpu", progress=False)
    folder, other = method.save_pretrained(tmp_path / "a"), tmp_path / "b"
    ue.RandomNoise(seed=1).fit(shapes, device="cpu", progress=False).perturbation_.save_pretrained(
        other
    )
    told = client(
        server,
        f"""
load = ue.Perturbation.from_pretrained
push = load({str(folder)!r}).push_to_hub
told["first"] = push("owner/noise", license="cc-by-4.0")
told["again"] = push("owner/noise", license="cc-by-4.0")
from huggingface_hub import HfApi
HfApi().create_tag("owner/noise", tag="v1", repo_type="dataset")
told["second"] = load({str(other)!r}).push_to_hub("owner/noise")
told["digests"] = [load("owner/noise").digest, load("owner/noise", revision="v1").digest]
told["folder"] = load("owner/noise", revision=told["first"].commit).folder
""",
        HF_TOKEN=WRITER,
    )
    repo = server.repos["owner/noise"]
    repo_id, commit, url = told["first"]
    assert repo_id == "owner/noise" and url == f"{server.url}/datasets/owner/noise/commit/{commit}"
    assert told["again"] == told["first"] and repo.private
    # Nobody reads half of it: data, config and card come with one commit, no surrogate with them.
    assert len(repo.commits) == 3 and repo.refs == {"main": told["second"][1], "v1": commit}
    mine = ["README.md", "config.json", DATA, "preview/preview.parquet"]
    assert server.files("owner/noise", "v1") == mine
    assert not (Path(told["folder"]) / "preview").exists(), "nobody needs it to protect"
    assert told["digests"] == [ue.Perturbation.from_pretrained(f).digest for f in (other, folder)]
    assert (Path(told["folder"]) / DATA).read_bytes() == (folder / DATA).read_bytes()
    assert 'license: "cc-by-4.0"' in server.text("owner/noise", "README.md", "v1")
    before = len(server.asked)
    told = client(
        server,
        f'told["p"] = repr(ue.Perturbation.from_pretrained("owner/noise", revision="{commit}"))',
    )
    assert "RandomNoise" in told["p"]
    # A commit in the cache: older clients ask whether it is there, and no more.
    assert all("/revision/" in asked for asked in server.asked[before:])


def test_cifar10_size_comes_back_byte_by_byte(xet_server, client, tmp_path):
    rng = np.random.default_rng(0)
    number = 50_000
    rows = rng.integers(-8, 9, (number, 3, 32, 32), np.int8)
    config = ue.RandomNoise().fit(
        ue.datasets.Shapes(size=10), device="cpu", progress=False
    ).perturbation_.config | {"source": {"name": "CIFAR10", "images": number, "digest": "0"}}
    keyed = {
        "keys": rng.integers(0, 1 << 63, number, np.uint64),
        "labels": np.arange(number) % 10,
        "thumbnails": rng.integers(0, 256, (number, 3, 4, 4), np.uint8),
    }
    folder = ue.Perturbation(rows, config, **keyed).save_pretrained(tmp_path / "large")
    told = client(
        xet_server,
        f"""
ue.Perturbation.from_pretrained({str(folder)!r}).push_to_hub("owner/large")
told["folder"] = ue.Perturbation.from_pretrained("owner/large").folder
""",
        HF_TOKEN=WRITER,
    )
    sent, came = (folder / DATA).read_bytes(), (Path(told["folder"]) / DATA).read_bytes()
    assert len(sent) > rows.nbytes and sent == came


def test_files_of_an_earlier_push_go_and_all_others_stay(server, client, saved, tmp_path):
    (tmp_path / "old").mkdir()
    for name in ("perturbation-00001-of-00002.safetensors", "perturbation.safetensors.index.json"):
        (tmp_path / "old" / name).write_bytes(b"old")
    for name in ("notes.md", "perturbation-notes.json"):
        (tmp_path / "old" / name).write_bytes(b"kept")
    server.put("owner/old", tmp_path / "old", private=True)
    mine = shutil.copytree(saved, tmp_path / "mine")
    for name in ("perturbation-of-mine.safetensors", "surrogate.safetensors", "README.md"):
        (mine / name).write_bytes(b"not for others")
    code = f'ue.Perturbation.from_pretrained({str(mine)!r}).push_to_hub("owner/old")'
    client(server, code, HF_TOKEN=WRITER)
    kept = ["notes.md", "perturbation-notes.json"]
    made = [DATA, "preview/preview.parquet"]
    assert server.files("owner/old") == ["README.md", "config.json", *kept, *made]
    assert "not for others" not in server.text("owner/old", "README.md")


def test_branches_and_pull_requests(server, client, saved):
    told = client(
        server,
        f"""
push = ue.Perturbation.from_pretrained({str(saved)!r}).push_to_hub
told["branch"] = push("owner/b", branch="draft", commit_message="A draft")
told["loaded"] = ue.Perturbation.from_pretrained("owner/b", revision="draft").digest
told["request"] = push("owner/b", create_pr=True)
told["both"] = attempt(push, "owner/b", branch="draft", create_pr=True)
""",
        HF_TOKEN=WRITER,
    )
    repo = server.repos["owner/b"]
    assert repo.refs["draft"] == told["branch"][1] and server.files("owner/b") == []
    assert told["loaded"] == ue.Perturbation.from_pretrained(saved).digest
    assert repo.refs["refs/pr/1"] == told["request"][1] and "/discussions/1" in told["request"][2]
    said(told["both"], "got both", error="ValueError")


# --- What is refused ------------------------------------------------------------------------------


RACE = f"""
from unlearnable.datasets import Shapes
from unlearnable.hub import client
dataset = Shapes(size=12)
method = ue.RandomNoise().fit(dataset, progress=False)
def after(function):
    def called(*args, **options):
        gave = function(*args, **options)
        if "other" not in told:
            told["other"] = None
            told["other"] = other()
        return gave
    return called
def push(content):
    return attempt(content.push_to_hub, "owner/race", token="{WRITER}")
"""


def test_images_are_refused_where_their_perturbation_came_meanwhile(server, client):
    code = """
other = lambda: push(method.perturbation_)
ue.ProtectedDataset.export = after(ue.ProtectedDataset.export)
told["images"] = push(method.protect(dataset))
"""
    told = client(server, RACE + code)
    assert "gave" in told["other"]
    said(told["images"], "owner/race, which has perturbation.safetensors")
    assert not any(name.startswith("data/") for name in server.files("owner/race"))


def test_of_two_pushes_at_once_one_is_refused(server, client):
    code = """
first = method.perturbation_.save_pretrained("few", max_shard_size=9999)
first, second = ue.Perturbation.from_pretrained(first), method.perturbation_
other = lambda: push(second)
client._check_apart = after(client._check_apart)
told["first"] = push(first)
"""
    told = client(server, RACE + code)
    assert "gave" in told["other"]
    said(told["first"], "owner/race was changed by somebody else meanwhile; try again")
    names = [name for name in server.files("owner/race") if name.endswith(".safetensors")]
    assert names == [DATA]


def test_what_cannot_be_read(server, client, saved, tmp_path):
    server.put("owner/open", saved)
    server.put("owner/private", saved, private=True)
    server.put("owner/gated", saved)
    server.repos["owner/gated"].gated = True
    (tmp_path / "partial").mkdir()
    (tmp_path / "partial" / "data.csv").write_text("1")
    server.put("owner/other", tmp_path / "partial")
    (tmp_path / "partial" / "config.json").write_bytes((saved / "config.json").read_bytes())
    server.put("owner/partial", tmp_path / "partial")
    told = client(
        server,
        f"""
load = ue.Perturbation.from_pretrained
for name in ("owner/missing", "owner/private", "owner/gated", "owner/other", "owner/partial"):
    told[name] = attempt(load, name)
told["revision"] = attempt(load, "owner/open", revision="v9")
told["token"] = attempt(load, "owner/open", token="hf_" + "wrong" * 5)
told["reader"] = attempt(load, "owner/private", token={READER[:9]!r} + {READER[9:]!r})
told["owner"] = repr(load("owner/private", token={WRITER[:9]!r} + {WRITER[9:]!r} + "\\n"))
told["odd"] = attempt(load, "owner/open", token="hf_" + "wrong" * 5 + "\\nwrong")
""",
    )
    for name in ("owner/missing", "owner/private", "reader"):
        said(told[name], told[name]["message"] and "check the name", "hf auth login")
        assert told[name]["cause"] == "RepositoryNotFoundError"
    said(told["owner/gated"], "gated", f"{server.url}/datasets/owner/gated")
    said(told["owner/other"], "found no config.json", "owner/other")
    said(told["owner/partial"], DATA, "owner/partial", "force_download", error="ArtefactError")
    said(told["revision"], "'v9'", "owner/open")
    said(told["token"], "401", "invalid", "hf auth login")
    assert told["odd"]["error"] == "HubError"
    assert "wrongwrong" not in json.dumps(told)
    assert "RandomNoise" in told["owner"]


def test_what_cannot_be_written(server, client, saved):
    server.put("owner/public", saved)
    server.put("owner/hidden", saved, private=True)
    told = client(
        server,
        f"""
import warnings

push = ue.Perturbation.from_pretrained({str(saved)!r}).push_to_hub
reader, writer = {READER[:9]!r} + {READER[9:]!r}, {WRITER[:9]!r} + {WRITER[9:]!r}
told["nobody"] = attempt(push, "owner/x")
told["none"] = attempt(push, "owner/x", token=True)
told["reader"] = attempt(push, "owner/x", token=reader)
told["public"] = attempt(push, "owner/public", token=writer)
told["name"] = attempt(push, "owner/a/b", token=writer)
told["bare"] = attempt(push, "bare", token=writer)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    told["shown"] = push("owner/public", token=writer, private=False)
    told["hidden"] = push("owner/hidden", token=writer, private=False)
told["stays"] = [str(w.message) for w in caught if "stays so" in str(w.message)]
""",
    )
    assert "owner/x" not in server.repos
    said(told["nobody"], "401", "hf auth login")
    said(told["none"], "hf auth login")
    said(told["reader"], "403", "does not allow you to write")
    said(told["public"], "existing public repository", "private=False")
    said(told["name"], "owner/name", "owner/a/b")
    said(told["bare"], "owner/name", "'bare'")
    assert told["shown"][1] == server.repos["owner/public"].refs["main"]
    assert told["hidden"][1] == server.repos["owner/hidden"].refs["main"]
    assert server.repos["owner/hidden"].private and len(told["stays"]) == 1
    assert told["stays"][0].startswith("owner/hidden is private")


def test_a_measured_strength_is_pushed_without_a_copy_of_the_rows(server, client, saved, tmp_path):
    told = client(
        server,
        f"""
import contextlib, tempfile
p = ue.Perturbation.from_pretrained({str(saved)!r})
p.config["strength"] = {{"victim": "tiny", "accuracy": 0.12}}
made = tempfile.TemporaryDirectory
tempfile.TemporaryDirectory = lambda: contextlib.nullcontext("/dev/null/no-place-for-a-copy")
p.push_to_hub("owner/p", token={WRITER[:9]!r} + {WRITER[9:]!r})
tempfile.TemporaryDirectory = made
told["strength"] = ue.Perturbation.from_pretrained(
    "owner/p", token={WRITER[:9]!r} + {WRITER[9:]!r}
).config["strength"]
""",
    )
    assert told["strength"] == {"victim": "tiny", "accuracy": 0.12}


def test_a_folder_without_write_permission(server, client, saved, tmp_path):
    server.put("owner/p", saved)
    (tmp_path / "file").write_text("")
    told = client(
        server,
        f"""
place = {str(tmp_path / "file" / "cache")!r}
told["p"] = attempt(ue.Perturbation.from_pretrained, "owner/p", cache_dir=place)
""",
    )
    said(told["p"], str(tmp_path / "file"), "check the cache", "cache_dir=")


def test_a_failing_server_and_tokens_in_its_answers(server, client, saved):
    server.put("owner/p", saved)
    server.fail, server.echo = 403, True
    told = client(
        server,
        f"""
told["load"] = attempt(ue.Perturbation.from_pretrained, "owner/p", revision="0" * 40)
told["push"] = attempt(ue.Perturbation.from_pretrained({str(saved)!r}).push_to_hub, "owner/p")
""",
        HF_TOKEN=WRITER,
    )
    said(told["push"], "403", "Bearer hf_…")
    assert told["push"]["cause"] is None and told["load"]["error"] == "HubError"
    assert WRITER not in json.dumps(told)
    server.mend()
    server.fail = 500
    told = client(
        server,
        f"""
told["push"] = attempt(ue.Perturbation.from_pretrained({str(saved)!r}).push_to_hub, "owner/p")
""",
        HF_TOKEN=WRITER,
    )
    said(told["push"], "500", "the server is unwell", "try again later")


def test_an_upload_that_breaks_off_leaves_what_was_there(server, client, saved):
    server.put("owner/p", saved)
    before = server.repos["owner/p"].refs["main"]
    server.fail, server.failing = 413, "/commit/"
    code = f"""
push = ue.Perturbation.from_pretrained({str(saved)!r}).push_to_hub
told["p"] = attempt(push, "owner/%s", private=False)
"""
    said(client(server, code % "p", HF_TOKEN=WRITER)["p"], "413", "owner/p")
    said(client(server, code % "new", HF_TOKEN=WRITER)["p"], "413", "owner/new")
    assert server.repos["owner/p"].refs["main"] == before and server.files("owner/new") == []
    server.mend()
    commit = client(server, code % "new", HF_TOKEN=WRITER)["p"]["gave"][1]
    assert server.repos["owner/new"].refs["main"] == commit
    assert DATA in server.files("owner/new")


# --- Networks and disks that fail -----------------------------------------------------------------


def test_offline(server, client, saved, nowhere):
    server.put("owner/p", saved)
    load = 'told["p"] = attempt(lambda: repr(ue.Perturbation.from_pretrained("owner/p"%s)))'
    asked = len(server.asked)
    said(client(server, load % ", local_files_only=True")["p"], "local_files_only", "it once")
    said(client(server, load % "", HF_HUB_OFFLINE="1")["p"], "HF_HUB_OFFLINE", "download it once")
    assert len(server.asked) == asked
    push = f"p = ue.Perturbation.from_pretrained({str(saved)!r}); "
    push += 'told["p"] = attempt(p.push_to_hub, "owner/p")'
    said(client(server, push, HF_HUB_OFFLINE="1", HF_TOKEN=WRITER)["p"], "because HF_HUB_OFFLINE")
    assert "gave" in client(server, load % "")["p"]
    asked = len(server.asked)
    assert "gave" in client(server, load % ", local_files_only=True")["p"]
    assert "gave" in client(server, load % "", HF_HUB_OFFLINE="1")["p"]
    assert len(server.asked) == asked
    # A dead server is no obstacle to what is in the cache.
    assert "gave" in client(nowhere, load % "")["p"]


def test_a_dead_server(client, saved, nowhere):
    told = client(
        nowhere,
        f"""
told["load"] = attempt(ue.Perturbation.from_pretrained, "owner/p")
told["push"] = attempt(ue.Perturbation.from_pretrained({str(saved)!r}).push_to_hub, "owner/p")
""",
        HF_TOKEN=WRITER,
    )
    said(told["load"], f"could not reach {nowhere}", "not in the cache")
    said(told["push"], "could not send owner/p", nowhere, "try again")
    assert told["push"]["cause"] is not None


def test_an_interrupted_download_leaves_nothing_and_goes_on_later(server, client, saved, tmp_path):
    server.put("owner/p", saved)
    server.cut = 1000
    load = 'told["p"] = attempt(lambda: ue.Perturbation.from_pretrained("owner/p").digest)'
    told = client(server, load)
    said(told["p"], "could not get owner/p", "try again")
    assert not list((tmp_path / "home").rglob(DATA))
    server.mend()
    assert client(server, load)["p"] == {"gave": ue.Perturbation.from_pretrained(saved).digest}


def test_damage_on_the_way_is_found_before_use(server, client, saved, perturbation):
    server.put("owner/p", saved)
    content = (saved / DATA).read_bytes()
    server.damage = content.index(perturbation.rows[39].tobytes())
    load = 'told["p"] = attempt(lambda: ue.Perturbation.from_pretrained("owner/p"%s).digest)'
    words = ("39", "checksum", "owner/p", "force_download")
    said(client(server, load % "")["p"], *words, error="ArtefactError")
    server.mend()
    said(client(server, load % "")["p"], *words, error="ArtefactError")  # still in the cache
    good = {"gave": ue.Perturbation.from_pretrained(saved).digest}
    assert client(server, load % ", force_download=True")["p"] == good
    assert client(server, load % "")["p"] == good


def test_a_full_disk(server, client, saved):
    server.put("owner/p", saved)
    told = client(
        server,
        """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
told["p"] = attempt(ue.Perturbation.from_pretrained, "owner/p")
""",
    )
    said(told["p"], "disk is full", "cache_dir")


# --- The catalogue and the command line -----------------------------------------------------------


@pytest.fixture
def use_catalogue(tmp_path):
    """Code that puts a catalogue of these entries in place of the package's own."""

    def use(*entries):
        file = tmp_path / "catalogue" / "catalogue.json"
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(entries))
        return f"from pathlib import Path; ue.hub.catalogue.FILE = Path({str(file)!r})\n"

    return use


def test_names_of_the_catalogue(server, client, saved, tmp_path, use_catalogue):
    described = _described(ue.Perturbation.from_pretrained(saved))
    commit = server.put("owner/p", saved)
    pinned = {"name": "there", "repo": "owner/p", "commit": commit} | described
    code = use_catalogue(
        pinned,
        pinned | {"name": "edited", "digest": "0" * 32},
        described | {"name": "shipped"},
        described | {"name": "not-built"},
    )
    shutil.copytree(saved, tmp_path / "catalogue" / "pretrained" / "shipped")
    told = client(
        server,
        code
        + """
load = ue.Perturbation.from_pretrained
told["names"] = [(entry.name, entry.where) for entry in ue.list_pretrained()]
told["same"] = [load(name).digest for name in ("there", "shipped")]
told["edited"] = attempt(load, "edited")
told["revision"] = attempt(load, "there", revision="main")
told["unknown"] = attempt(load, "cifar11")
""",
    )
    at = f"owner/p@{commit}"
    assert told["names"] == [["there", at], ["edited", at], ["shipped", "package"]]
    assert told["same"] == [described["digest"]] * 2
    said(told["edited"], "0" * 32, described["digest"], error="ArtefactError")
    said(told["revision"], "no revision", error="ValueError")
    said(told["unknown"], "'unlearnable list'", "cifar11", error="FileNotFoundError")


@pytest.mark.parametrize(
    "wrong",
    [{"commit": "main"}, {"commit": "a" * 39}, {"repo": "p"}, {"repo": None}, {"name": "../p"}],
)
def test_entries_are_pinned(wrong, perturbation):
    entry = {"name": "p", "repo": "owner/p", "commit": "a" * 40} | _described(perturbation)
    assert Pretrained(**entry).where == "owner/p@" + "a" * 40
    with pytest.raises(ValueError, match="expected"):
        Pretrained(**entry | wrong)


def _method_of(entry):
    cls = next(method for method in ue.METHODS if method.__name__ == entry.method)
    return cls.from_pretrained(entry.folder)


def test_what_is_shipped_is_what_the_catalogue_says():
    for entry in ue.list_pretrained():
        if entry.surrogate is not None:
            method = _method_of(entry)
            assert surrogate_digest(entry.folder) == entry.surrogate
            size = sum(path.stat().st_size for path in entry.folder.iterdir())
            own = {"images": method.perturbation_.config["source"]["images"], "bytes": size}
            described = _described(method.perturbation_) | own | {"surrogate": entry.surrogate}
            assert entry == Pretrained(name=entry.name, **described)
        elif entry.repo is None:
            loaded = ue.Perturbation.from_pretrained(entry.name)
            loaded.verify()
            assert entry == Pretrained(name=entry.name, **_described(loaded))
    folders = {path.name for path in (FILE.parent / "pretrained").glob("*") if path.is_dir()}
    assert folders == {entry.name for entry in ue.list_pretrained() if entry.repo is None}


def test_paths_are_never_asked_of_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys.modules["unlearnable.hub"], "client", None, raising=False)
    monkeypatch.setitem(sys.modules, "unlearnable.hub.client", None)
    for name in (tmp_path / "x", Path("a/b"), "./a/b", "../a", "/a/b", "a/b/c", "~/a", "x", ""):
        with pytest.raises(FileNotFoundError, match="expected a folder"):
            ue.Perturbation.from_pretrained(name)


def test_command_line(server, client, saved, tmp_path, use_catalogue):
    described = _described(ue.Perturbation.from_pretrained(saved))
    server.put("owner/open", saved)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("keep")
    told = client(
        server,
        use_catalogue({"name": "there", "repo": "owner/open", "commit": "a" * 40} | described)
        + f"""
import contextlib, io, json
def run(*arguments):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.main([str(a) for a in arguments])
    return code, out.getvalue(), err.getvalue()
told["push"] = run("push", {str(saved)!r}, "owner/new", "--license", "mit", "--json", "--quiet")
told["pull"] = run("pull", "owner/new", {str(tmp_path / "out")!r}, "--json", "--quiet")
told["cached"] = run("pull", "owner/open")
told["info"] = run("info", "owner/open")
told["mine"] = run("pull", "owner/open", {str(tmp_path / "mine")!r})
told["missing"] = run("pull", "owner/missing")
told["list"] = run("list")
told["json"] = run("list", "--json")
""",
        HF_TOKEN=WRITER,
    )
    code, out, _ = told["push"]
    assert code == 0, told["push"]
    assert json.loads(out)["commit"] == server.repos["owner/new"].refs["main"]
    code, out, _ = told["pull"]
    assert code == 0, told["pull"]
    assert json.loads(out)["folder"] == str(tmp_path / "out")
    assert (tmp_path / "out" / DATA).read_bytes() == (saved / DATA).read_bytes()
    assert 'license: "mit"' in (tmp_path / "out" / "README.md").read_text()
    assert told["cached"][0] == told["info"][0] == 0, told
    assert "snapshots" in told["cached"][1]
    assert told["mine"][0] == 1 and "--force" in told["mine"][2]
    assert told["missing"][0] == 1 and told["missing"][2].startswith("unlearnable: found no")
    listed = "there  RandomNoise  Shapes  Linf 8/255  126 kB  owner/open@"
    assert told["list"][1].startswith(listed)
    assert json.loads(told["json"][1])[0]["where"] == "owner/open@" + "a" * 40
