"""The artefact's files: shards and their index, what a save replaces, verify, versions."""

import contextlib
import errno
import hashlib
import json
import os
import pickle
import tracemalloc
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from torch.utils.data import DataLoader
from torchvision.transforms import PILToTensor

from unlearnable import ArtefactError, Perturbation, ProtectedDataset, RandomNoise
from unlearnable.datasets import Shapes
from unlearnable.io.json import parse_json
from unlearnable.io.safetensors import header_of
from unlearnable.io.sharded_rows import JoinedRows
from unlearnable.perturbation import config as config_module
from unlearnable.perturbation import serialization
from unlearnable.perturbation.serialization import digest_of
from unlearnable.perturbation.shards import MAX_SHARDS

ROW = 3 * 32 * 32
INDEX = "perturbation.safetensors.index.json"
DATA = "perturbation.safetensors"
SHARDS = [f"perturbation-0000{n}-of-00003.safetensors" for n in (1, 2, 3)]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def flip(path, place, bit=1):
    content = bytearray(path.read_bytes())
    content[place] ^= bit
    path.write_bytes(content)


@pytest.fixture
def sharded(perturbation, tmp_path):
    """15, 15 and 10 rows."""
    return perturbation.save_pretrained(tmp_path / "sharded", max_shard_size=15 * ROW + 1)


# --- joined rows ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def joined():
    array = np.random.default_rng(0).integers(-8, 9, (12, 2, 3, 4)).astype(np.int8)
    return JoinedRows([array[:5], JoinedRows([array[5:6], array[6:]])]), array


@pytest.mark.parametrize(
    "index",
    [
        0, 4, 5, 11, -1, -12, np.int64(6), np.array(7), slice(None), slice(3, 9, 2),
        slice(9, 2, -3), [11, 0, 5, 5], np.array([[1, 6], [-1, 4]]), np.arange(12) % 3 == 0,
        slice(0, 0), [], [7], [-1], np.array([[[3]]]),
    ],
    ids=str,
)  # fmt: skip
def test_joined_rows_are_read_like_an_array(index, joined):
    rows, array = joined
    index = np.array(index, int) if isinstance(index, list) and not index else index
    found = rows[index]
    assert found.dtype == np.int8 and found.shape == array[index].shape
    np.testing.assert_array_equal(found, array[index])


def test_joined_rows_tell_their_shape_and_views_are_not_copied(joined):
    rows, array = joined
    assert (len(rows), rows.shape, rows.ndim, rows.nbytes) == (12, (12, 2, 3, 4), 4, 12 * 24)
    assert len(rows.parts) == 3
    assert np.shares_memory(rows[7], array) and not np.shares_memory(rows[7:8], array)
    np.testing.assert_array_equal(np.asarray(rows), array)
    assert np.asarray(rows, np.int16).dtype == np.int16
    assert [row.tobytes() for row in rows] == [row.tobytes() for row in array]
    part = rows.between(4, 7)
    assert np.shares_memory(part[0], array)
    np.testing.assert_array_equal(np.asarray(part), array[4:7])


@pytest.mark.parametrize(
    "index", [12, -13, [12], [-13], [0, 12], np.zeros(11, bool), (0, 1)], ids=str
)
def test_joined_rows_end(index, joined):
    with pytest.raises(IndexError):
        joined[0][index]


def test_rows_of_other_shapes_are_not_joined(joined):
    _, array = joined
    for wrong in ([], [array, array[:, :1]], [array.astype(np.int16)], [array[0]]):
        with pytest.raises(ValueError, match="int8 rows of one shape"):
            JoinedRows(wrong)


# --- shards --------------------------------------------------------------------------------------


def test_rows_larger_than_a_shard_are_divided(perturbation, sharded):
    assert names(sharded) == ["config.json", *SHARDS, INDEX]
    index = json.loads((sharded / INDEX).read_text())
    assert index == {
        "format": "unlearnable-perturbation-index",
        "format_version": 1,
        "total_bytes": perturbation.nbytes,
        "shards": [
            {"file": SHARDS[0], "rows": {"rows": [0, 15]}},
            {"file": SHARDS[1], "rows": {"rows": [15, 30]}},
            {"file": SHARDS[2], "rows": {"rows": [30, 40]}},
        ],
    }
    found = [load_file(sharded / name) for name in SHARDS]  # as others read them
    assert [sorted(tensors) for tensors in found] == [sorted(perturbation.tensors), *[["rows"]] * 2]
    np.testing.assert_array_equal(np.concatenate([t["rows"] for t in found]), perturbation.rows)


def test_a_sharded_artefact_does_the_same(perturbation, sharded, shapes, tmp_path):
    loaded = Perturbation.from_pretrained(sharded)
    assert isinstance(loaded.rows, JoinedRows) and loaded.rows.shape == perturbation.rows.shape
    np.testing.assert_array_equal(np.asarray(loaded.rows), perturbation.rows)
    assert loaded.digest == perturbation.digest and repr(loaded) == repr(perturbation)
    assert loaded.info() == perturbation.info() and "<img" in loaded._repr_html_()
    expected = ProtectedDataset(shapes, perturbation).to_tensors()[0]
    assert ProtectedDataset(shapes, loaded).to_tensors()[0].equal(expected)
    loaded.verify()
    whole = loaded.save_pretrained(tmp_path / "whole")
    assert names(whole) == ["config.json", "perturbation.safetensors"]
    assert files(whole) == files(perturbation.save_pretrained(tmp_path / "direct"))


def test_sharded_rows_are_mapped_not_read(sharded):
    for part in Perturbation.from_pretrained(sharded).rows.parts:
        base = part
        while type(base) is np.ndarray:
            base = base.base
        assert isinstance(base, np.memmap) and base.mode == "r"


def test_shards_of_one_row_and_shards_that_are_just_full(perturbation, class_wise, tmp_path):
    for size, count in ((1, 40), (ROW, 40), (20 * ROW, 2), (40 * ROW - 1, 2), (40 * ROW, 1)):
        folder = perturbation.save_pretrained(tmp_path / "p", max_shard_size=size)
        assert len(list(folder.glob("*.safetensors"))) == count
        assert Perturbation.from_pretrained(folder).digest == perturbation.digest
    folder = class_wise.save_pretrained(tmp_path / "c", max_shard_size=4 * ROW)
    assert len(list(folder.glob("*.safetensors"))) == 3
    np.testing.assert_array_equal(
        np.asarray(Perturbation.from_pretrained(folder).rows), class_wise.rows
    )
    for wrong in (0, 100.5, True):
        with pytest.raises(ValueError, match=f"max_shard_size to be an integer >= 1, got {wrong}"):
            perturbation.save_pretrained(tmp_path / "p", max_shard_size=wrong)
    perturbation.save_pretrained(tmp_path / "q", max_shard_size=np.int64(15 * ROW))
    assert INDEX in names(tmp_path / "q")


def test_more_shards_than_can_be_open_are_refused(class_wise, tmp_path):
    changes = {"image_shape": [1, 1, 1], "classes": None, "num_classes": MAX_SHARDS + 1}
    rows = np.zeros((MAX_SHARDS + 1, 1, 1, 1), np.int8)
    many = Perturbation(rows, class_wise.config | changes)
    with pytest.raises(ValueError, match=r"at most 500 shards, got 501"):
        many.save_pretrained(tmp_path / "p", max_shard_size=1)
    assert not any((tmp_path / "p").iterdir())


def test_a_sharded_stack(perturbation, class_wise, shapes, tmp_path):
    stack = perturbation.then(class_wise)
    folder = stack.save_pretrained(tmp_path / "p", max_shard_size=16 * ROW)
    shards = json.loads((folder / INDEX).read_text())["shards"]
    assert [shard["rows"] for shard in shards] == [
        {"0.rows": [0, 16]},
        {"0.rows": [16, 32]},
        {"0.rows": [32, 40], "1.rows": [0, 8]},
        {"1.rows": [8, 10]},
    ]
    loaded = Perturbation.from_pretrained(folder)
    loaded.verify()
    expected = ProtectedDataset(shapes, stack).to_tensors()[0]
    assert loaded.digest == stack.digest
    assert ProtectedDataset(shapes, loaded).to_tensors()[0].equal(expected)
    again = Perturbation.from_pretrained(sharded_twice := loaded.save_pretrained(folder))
    assert again.digest == stack.digest and INDEX not in names(sharded_twice)


def test_sharded_ones_travel_as_their_path(perturbation, sharded):
    content = pickle.dumps(Perturbation.from_pretrained(sharded))
    assert len(content) < 5_000
    again = pickle.loads(content)
    np.testing.assert_array_equal(np.asarray(again.rows), perturbation.rows)


def test_workers_read_a_sharded_artefact(sharded):
    loaded = Perturbation.from_pretrained(sharded)
    dataset = ProtectedDataset(Shapes(size=40, transform=PILToTensor()), loaded)
    loaders = [DataLoader(dataset, batch_size=20, num_workers=n) for n in (0, 1)]
    for one, other in zip(*loaders, strict=True):
        assert one[0].equal(other[0])


def test_opening_reads_no_rows(perturbation, sharded):
    for name in SHARDS[1:]:  # the header stays, and the rows are gone
        content = (sharded / name).read_bytes()
        header = 8 + int.from_bytes(content[:8], "little")
        (sharded / name).write_bytes(content[:header] + bytes(len(content) - header))
    loaded = Perturbation.from_pretrained(sharded)
    assert loaded.digest == perturbation.digest
    with pytest.raises(ArtefactError, match=r"40 rows .* bytes in 15, 16, 17, 18, 19 and"):
        loaded.verify()


def test_the_documented_reader_reads_what_is_written(perturbation, sharded, shapes, tmp_path):
    page = (Path(__file__).parents[1] / "docs/reference/format.md").read_text(encoding="utf-8")
    found = {}
    exec(page.split("```python\n")[1].split("```")[0], found)
    for folder in (sharded, perturbation.save_pretrained(tmp_path / "single")):
        config, tensors = found["read"](folder)
        assert (
            config["digest"] == perturbation.digest
            and tensors.keys() == perturbation.tensors.keys()
        )
        np.testing.assert_array_equal(tensors["rows"], perturbation.rows)
    pixels = shapes.data[7].transpose(2, 0, 1)
    np.testing.assert_array_equal(
        found["protect"](pixels, tensors["rows"][7]), perturbation.apply(pixels, 7)
    )


def test_the_documented_digest_and_keys_by_hand(perturbation, class_wise, shapes):
    stack = class_wise.then(perturbation)
    for one in (perturbation, class_wise, stack):
        digest = hashlib.blake2b(digest_size=16)
        for name in sorted(one.tensors):
            tensor = one.tensors[name]
            if name.endswith("rows"):
                continue
            if name not in ("checksums", "keys", "labels", "thumbnails"):
                digest.update(f"{name} {tensor.dtype.str} {tensor.shape}".encode())
            digest.update(tensor.tobytes())
        digest.update(json.dumps(one.config, sort_keys=True).encode())
        assert digest.hexdigest() == one.digest
    image = shapes.data[3]  # (H, W, RGB)
    key = hashlib.blake2b(np.array([32, 32], "<u4").tobytes() + image.tobytes(), digest_size=8)
    assert int.from_bytes(key.digest(), "little") == perturbation.keys[3]
    for row, checksum in zip(perturbation.rows, perturbation.tensors["checksums"], strict=True):
        assert zlib.crc32(row.tobytes()) == checksum


# --- what a save replaces ------------------------------------------------------------------------


@pytest.mark.parametrize("before", [1, 10 * ROW, 15 * ROW, 40 * ROW])
@pytest.mark.parametrize("after", [15 * ROW, 40 * ROW])
def test_stale_files_of_an_earlier_save_are_removed(before, after, perturbation, tmp_path):
    folder = perturbation.save_pretrained(tmp_path / "p", max_shard_size=before)
    other = Perturbation(
        -perturbation.rows,
        perturbation.config,
        **{name: perturbation.tensors[name] for name in ("keys", "labels", "thumbnails")},
    )
    other.save_pretrained(folder, max_shard_size=after)
    expected = ["config.json", *SHARDS, INDEX]
    assert names(folder) == (expected if after < 40 * ROW else [expected[0], INDEX[:-11]])
    loaded = Perturbation.from_pretrained(folder)
    assert loaded.digest == other.digest
    loaded.verify()


def test_a_sharded_one_saved_over_itself(perturbation, sharded):
    loaded = Perturbation.from_pretrained(sharded)
    before = files(sharded)
    loaded.save_pretrained(sharded, max_shard_size=15 * ROW)
    assert files(sharded) == before
    loaded.save_pretrained(sharded, max_shard_size=7 * ROW)
    np.testing.assert_array_equal(np.asarray(loaded.rows), perturbation.rows)  # of removed files


def fail(real, number):
    """A function whose call of this number finds the disk full."""
    calls = []

    def call(*args):
        calls.append(args)
        if len(calls) == number:
            if isinstance(args[0], Path) and len(args) == 3:
                args[0].write_bytes(b"a part")
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*args)

    return call


FAILURES = [
    *(("write_tensors", number) for number in (1, 2, 3)),
    *(("write_json", number) for number in (1, 2)),
    *(("replace", number) for number in range(1, 10)),
]


@pytest.mark.parametrize(("what", "number"), FAILURES)
def test_a_full_disk_leaves_what_was_there(
    what, number, perturbation, class_wise, tmp_path, monkeypatch
):
    folder = class_wise.save_pretrained(tmp_path / "p", max_shard_size=5 * ROW)
    before = files(folder)
    place = Path if what == "replace" else serialization
    with monkeypatch.context() as patch:
        patch.setattr(place, what, fail(getattr(place, what), number))
        with pytest.raises(OSError, match="No space left"):
            perturbation.save_pretrained(folder, max_shard_size=15 * ROW)
    assert files(folder) == before
    perturbation.save_pretrained(folder, max_shard_size=15 * ROW)
    assert names(folder) == ["config.json", *SHARDS, INDEX]


def test_what_a_killed_save_left_is_removed_by_the_next(perturbation, tmp_path):
    folder = perturbation.save_pretrained(tmp_path / "p")
    (folder / f".{SHARDS[1]}.partial").write_bytes(b"half")
    (folder / f".{INDEX}.before").write_bytes(b"old")
    (folder / ".perturbation.notes").write_bytes(b"mine")
    perturbation.save_pretrained(folder)
    assert names(folder) == [".perturbation.notes", "config.json", "perturbation.safetensors"]


# --- damage --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*SHARDS, INDEX])
def test_a_missing_shard(name, sharded):
    (sharded / name).unlink()
    with pytest.raises(ArtefactError, match=f"expected {name} .*found none"):
        Perturbation.from_pretrained(sharded)


@pytest.mark.parametrize("kept", [0, 5, 200, -1])
@pytest.mark.parametrize("name", SHARDS)
def test_a_truncated_shard(name, kept, sharded):
    (sharded / name).write_bytes((sharded / name).read_bytes()[:kept])
    with pytest.raises(ArtefactError, match=f"complete safetensors file at .*{name}"):
        Perturbation.from_pretrained(sharded)


def test_shards_beside_a_single_file(perturbation, sharded, tmp_path):
    single = perturbation.save_pretrained(tmp_path / "single") / "perturbation.safetensors"
    (sharded / single.name).write_bytes(single.read_bytes())
    with pytest.raises(ArtefactError, match=f"found {single.name} of another one"):
        Perturbation.from_pretrained(sharded)


def test_shards_beside_a_single_file_that_no_index_names(perturbation, sharded, tmp_path):
    folder = perturbation.save_pretrained(tmp_path / "single")
    secret = tmp_path / "secret"
    secret.write_bytes(b"mine")
    (folder / SHARDS[1]).symlink_to(secret)
    with pytest.raises(ArtefactError, match=f"found {SHARDS[1]} of another one"):
        Perturbation.from_pretrained(folder)
    (sharded / "perturbation-00004-of-00004.safetensors").write_bytes(b"")
    with pytest.raises(ArtefactError, match="found perturbation-00004"):
        Perturbation.from_pretrained(sharded)


def test_all_processes_may_save_into_one_folder(perturbation, sharded, tmp_path):
    ones = [perturbation, Perturbation.from_pretrained(sharded)] * 4
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda one: one.save_pretrained(tmp_path / "p"), ones))
    Perturbation.from_pretrained(tmp_path / "p").verify()
    assert names(tmp_path / "p") == ["config.json", "perturbation.safetensors"]


def test_a_folder_is_looked_at_only_when_no_other_process_saves_into_it(
    perturbation, tmp_path, monkeypatch
):
    """Halfway through another one's save its tensors lie there, and no config yet."""
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "perturbation.safetensors").write_bytes(b"of another process")
    enter = serialization.locked

    @contextlib.contextmanager
    def once_it_is_done(folder, *, wait):
        with enter(folder, wait=wait):
            (folder / "perturbation.safetensors").unlink()
            yield

    monkeypatch.setattr(serialization, "locked", once_it_is_done)
    perturbation.save_pretrained(tmp_path / "p")
    assert names(tmp_path / "p") == ["config.json", "perturbation.safetensors"]


def test_what_a_killed_first_save_leaves_is_in_nobodys_way(perturbation, tmp_path):
    folder = tmp_path / "p"
    folder.mkdir()
    for name in (".perturbation.safetensors.partial", ".config.json.partial"):
        (folder / name).write_bytes(b"half")
    perturbation.save_pretrained(folder)
    assert names(folder) == ["config.json", "perturbation.safetensors"]
    (tmp_path / "q").mkdir()
    (tmp_path / "q" / ".mine").write_bytes(b"")
    with pytest.raises(FileExistsError):
        perturbation.save_pretrained(tmp_path / "q")
    assert names(tmp_path / "q") == [".mine"]


@pytest.mark.parametrize("name", [".perturbation.safetensors.partial", ".config.json.partial"])
def test_saving_follows_no_link_out_of_the_folder(perturbation, tmp_path, name):
    folder = perturbation.save_pretrained(tmp_path / "p")
    victim = tmp_path / "victim"
    victim.write_bytes(b"mine")
    (folder / name).symlink_to(victim)
    Perturbation.from_pretrained(folder).save_pretrained(folder)
    assert victim.read_bytes() == b"mine" and not (folder / DATA).is_symlink()
    Perturbation.from_pretrained(folder).verify()


def test_what_could_not_be_read_again_is_not_saved(perturbation, tmp_path):
    folder = perturbation.save_pretrained(tmp_path / "p")
    before = files(folder)
    loaded = Perturbation.from_pretrained(folder)
    loaded.config["epsilon"] = "8/255"
    with pytest.raises(ValueError, match="epsilon='8/255'"):
        loaded.save_pretrained(folder)
    assert files(folder) == before
    # What the file says beside the config is no part of it.
    config = json.loads((folder / "config.json").read_text())
    rows, tensors = perturbation.rows, perturbation.tensors
    keyed = {name: tensors[name] for name in ("keys", "labels", "thumbnails")}
    again = Perturbation(rows, config, **keyed)
    again.save_pretrained(tmp_path / "again")
    assert files(tmp_path / "again") == before
    nothing = {name: tensor[:0] for name, tensor in keyed.items()}
    with pytest.raises(ValueError, match="at least one row"):
        Perturbation(rows[:0], config, **nothing)


def test_exchanged_shards_serve_no_wrong_row(sharded, shapes):
    one, two = ((sharded / name).read_bytes() for name in SHARDS[1:])
    index = json.loads((sharded / INDEX).read_text())
    (sharded / SHARDS[1]).write_bytes(two)
    (sharded / SHARDS[2]).write_bytes(one)
    with pytest.raises(ArtefactError, match=r"\[15, 25\].*to match the files, got .*\[15, 30\]"):
        Perturbation.from_pretrained(sharded)
    index["shards"][1]["rows"], index["shards"][2]["rows"] = {"rows": [15, 25]}, {"rows": [25, 40]}
    (sharded / INDEX).write_text(json.dumps(index))
    loaded = Perturbation.from_pretrained(sharded)
    pixels = shapes.data[0].transpose(2, 0, 1)
    for row in range(15, 40):
        with pytest.raises(ArtefactError, match="checksum"):
            loaded.apply(pixels, row)


def index_with(change):
    def make(index):
        change(index)
        return json.dumps(index)

    return make


INDEXES = {
    "no json": lambda index: "{",
    "list": lambda index: "[]",
    "nothing": lambda index: "{}",
    "format": index_with(lambda i: i.update(format="unlearnable-perturbation")),
    "version": index_with(lambda i: i.update(format_version=2)),
    "bool version": index_with(lambda i: i.update(format_version=True)),
    "no shards": index_with(lambda i: i.update(shards=[])),
    "many shards": index_with(lambda i: i.update(shards=i["shards"] * 400)),
    "fewer": index_with(lambda i: i["shards"].pop()),
    "order": index_with(lambda i: i["shards"].reverse()),
    "path": index_with(lambda i: i["shards"][0].update(file="../" + SHARDS[0])),
    "absolute": index_with(lambda i: i["shards"][0].update(file="/etc/passwd")),
    "url": index_with(lambda i: i["shards"][0].update(file="file:///etc/passwd")),
    "other name": index_with(lambda i: i["shards"][0].update(file="config.json")),
    "no name": index_with(lambda i: i["shards"][0].pop("file")),
    "gap": index_with(lambda i: i["shards"][1].update(rows={"rows": [16, 30]})),
    "overlap": index_with(lambda i: i["shards"][1].update(rows={"rows": [14, 30]})),
    "backwards": index_with(lambda i: i["shards"][1].update(rows={"rows": [15, 15]})),
    "negative": index_with(lambda i: i["shards"][0].update(rows={"rows": [-15, 0]})),
    "bool": index_with(lambda i: i["shards"][0].update(rows={"rows": [False, 15]})),
    "float": index_with(lambda i: i["shards"][0].update(rows={"rows": [0, 15.0]})),
    "huge": index_with(lambda i: i["shards"][2].update(rows={"rows": [30, 1 << 70]})),
    "too many": index_with(lambda i: i["shards"][2].update(rows={"rows": [30, 1 << 40]})),
    "no rows": index_with(lambda i: i["shards"][2].update(rows={})),
    "keys": index_with(lambda i: i["shards"][0].update(rows={"keys": [0, 15]})),
    "other rows": index_with(lambda i: i["shards"][1].update(rows={"0.rows": [0, 15]})),
    "not all": index_with(lambda i: (i["shards"].pop(), i["shards"].pop())),
    "twice": lambda index: json.dumps(index).replace('"shards"', '"shards": [], "shards"'),
    "nan": lambda index: json.dumps(index | {"more": float("nan")}),
    "deep": lambda index: '{"a":' * 5_000 + "1" + "}" * 5_000,
}  # fmt: skip


@pytest.mark.parametrize("make", INDEXES.values(), ids=INDEXES)
def test_an_unsound_index_is_refused(make, sharded):
    (sharded / INDEX).write_text(make(json.loads((sharded / INDEX).read_text())))
    with pytest.raises(ArtefactError):
        Perturbation.from_pretrained(sharded)


# --- verify --------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["perturbation", "class_wise"])
def test_a_sound_one_is_verified(which, request, tmp_path):
    one = request.getfixturevalue(which)
    one.verify()
    Perturbation.from_pretrained(one.save_pretrained(tmp_path / "p")).verify()


def test_damaged_rows_are_named(perturbation, sharded):
    for name, row in ((SHARDS[1], 0), (SHARDS[2], 9)):
        start = (sharded / name).stat().st_size - (15 if name == SHARDS[1] else 10) * ROW
        flip(sharded / name, start + row * ROW + 5)
    loaded = Perturbation.from_pretrained(sharded)
    with pytest.raises(ArtefactError, match=r"all 40 rows .*sharded.* bytes in 15, 39; download"):
        loaded.verify()


def test_damaged_rows_in_memory_and_in_a_stack_are_named(perturbation, class_wise):
    tensors = {name: tensor.copy() for name, tensor in perturbation.tensors.items()}
    tensors["rows"][3, 0, 0, 0] ^= 1
    damaged = Perturbation.of_kind(tensors, perturbation.config)
    with pytest.raises(ArtefactError, match=r"40 rows of the perturbation .* in 3;"):
        damaged.verify()
    with pytest.raises(ArtefactError, match=r"40 1\.rows of"):
        class_wise.then(damaged).verify()


def test_verify_finds_that_the_folder_was_changed(perturbation, class_wise, tmp_path):
    loaded = Perturbation.from_pretrained(perturbation.save_pretrained(tmp_path / "p"))
    class_wise.save_pretrained(tmp_path / "p")
    with pytest.raises(ArtefactError, match="expected the digest"):
        loaded.verify()


# --- versions and what JSON does not have --------------------------------------------------------


def at_version(folder, version):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"format_version": version}))


def test_an_older_version_names_the_release_that_reads_it(sharded, monkeypatch):
    monkeypatch.setattr(config_module, "FORMAT_VERSION", 3)
    monkeypatch.setattr(config_module, "LAST_READERS", {1: "0.4.2"})
    with pytest.raises(ArtefactError, match=r"version 3 .*got 1; release 0\.4\.2 .*able==0\.4\.2"):
        Perturbation.from_pretrained(sharded)
    at_version(sharded, 2)
    with pytest.raises(ArtefactError, match="no release writes"):
        Perturbation.from_pretrained(sharded)


@pytest.mark.parametrize("version", [0, -1, True, 1.0, "1", None, [1], 1e300])
def test_versions_that_never_were(version, sharded):
    at_version(sharded, version)
    with pytest.raises(ArtefactError, match=r"version 1 .*no release writes"):
        Perturbation.from_pretrained(sharded)


def test_numbers_that_json_does_not_have_are_kept_as_text(perturbation, class_wise, tmp_path):
    tensors = perturbation.tensors
    config = perturbation.config | {"history": [1.5, float("nan"), float("-inf")]}
    one = Perturbation.of_kind(tensors, config)
    assert one.config["history"] == [1.5, "NaN", "-Infinity"]
    one.config["strength"] = {"accuracy": float("inf")}  # by hand, after it was made
    loaded = Perturbation.from_pretrained(one.save_pretrained(tmp_path / "p"))
    assert loaded.config["strength"] == {"accuracy": "Infinity"}
    with pytest.raises(ValueError, match="epsilon='NaN'"):
        Perturbation.of_kind(tensors, config | {"epsilon": float("nan")})


def test_names_that_are_no_unicode_are_kept(class_wise, tmp_path):
    names = [os.fsdecode(b"caf\xe9"), "caf\\xe9", "猫", *"abcdefg"]
    one = Perturbation.of_kind(class_wise.tensors, class_wise.config | {"classes": names})
    loaded = Perturbation.from_pretrained(one.save_pretrained(tmp_path / "p"))
    assert loaded.config["classes"] == names and loaded.digest == one.digest
    assert "猫" in (tmp_path / "p" / "config.json").read_text(encoding="utf-8")


def test_a_config_that_could_not_be_read_again_is_refused(class_wise):
    deep = []
    for _ in range(40):
        deep = [deep]
    for bad, message in ((deep, "nested"), (["x" * (1 << 24)], "size")):
        with pytest.raises(ValueError, match=message):
            Perturbation.of_kind(class_wise.tensors, class_wise.config | {"history": bad})


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes are a Unix thing")
def test_a_pipe_in_place_of_a_file_does_not_hang(sharded):
    for name in ("config.json", SHARDS[1], INDEX):
        content = (sharded / name).read_bytes()
        (sharded / name).unlink()
        os.mkfifo(sharded / name)
        with pytest.raises(ArtefactError, match="found none"):
            Perturbation.from_pretrained(sharded)
        (sharded / name).unlink()
        (sharded / name).write_bytes(content)


def test_a_sparse_artefact_of_20_gb_is_opened_and_read_in_little_memory(perturbation, tmp_path):
    count, side = 6_500, 1024
    checksum = zlib.crc32(bytes(3 * side * side))
    small = {
        "keys": np.arange(count, dtype=np.uint64),
        "labels": np.zeros(count, np.int64),
        "checksums": np.full(count, checksum, np.uint32),
        "thumbnails": np.zeros((count, 3, 4, 4), np.uint8),
    }
    rows = np.broadcast_to(np.int8(0), (count, 3, side, side))
    config = perturbation.config | {"image_shape": [3, side, side]}
    described = config | {"format": "unlearnable-perturbation", "format_version": 1}
    described["digest"] = digest_of(small, config)
    (tmp_path / "config.json").write_text(json.dumps(described))
    with (tmp_path / "perturbation.safetensors").open("wb") as file:
        file.write(header_of(small | {"rows": rows}, "x"))
        file.writelines(small.values())
        file.truncate(file.tell() + rows.nbytes)
    assert (tmp_path / "perturbation.safetensors").stat().st_size > 20_000_000_000
    pixels = np.full((3, side, side), 7, np.uint8)
    tracemalloc.start()
    try:
        loaded = Perturbation.from_pretrained(tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
        np.testing.assert_array_equal(loaded.apply(pixels, 6_123), pixels)
        assert tracemalloc.get_traced_memory()[1] < 50 << 20
    finally:
        tracemalloc.stop()
    assert loaded.rows.shape == rows.shape


@pytest.mark.parametrize("rows", [{}, {"rows": [40, 40]}])
def test_a_shard_without_rows_is_refused(rows, sharded):
    index = json.loads((sharded / INDEX).read_text())
    last = {name: np.zeros((0, 3, 32, 32), np.int8) for name in rows}
    for number, name in enumerate(SHARDS, 1):
        (sharded / name).rename(sharded / f"perturbation-0000{number}-of-00004.safetensors")
        index["shards"][number - 1]["file"] = f"perturbation-0000{number}-of-00004.safetensors"
    name = "perturbation-00004-of-00004.safetensors"
    save_file(last, sharded / name)
    index["shards"].append({"file": name, "rows": rows})
    (sharded / INDEX).write_text(json.dumps(index))
    with pytest.raises(ArtefactError, match="expected rows in every shard, found none in"):
        Perturbation.from_pretrained(sharded)


def test_a_name_that_occurs_twice_is_told():
    with pytest.raises(ArtefactError, match="'kind' occurs twice"):
        parse_json(b'{"kind": 1, "other": 2, "kind": 1}', "a file")


# --- What comes between --------------------------------------------------------------------------


@pytest.mark.parametrize(("shards", "rows", "renames"), [(1, 1, 4), (3, 1, 8), (1, 0, 2)])
def test_an_interrupt_after_any_rename_leaves_the_old_or_the_new_one(
    shards, rows, renames, shapes, perturbation, tmp_path, monkeypatch
):
    size = {"max_shard_size": 15 * ROW + 1} if shards == 3 else {}
    other = perturbation.with_visibility("low")  # whose rows stay where they are
    if rows:
        other = RandomNoise(seed=9).fit(shapes, device="cpu", progress=False).perturbation_
    rename, count = Path.replace, 0
    for stop in range(1, 20):
        folder = perturbation.save_pretrained(tmp_path / str(stop))
        count = 0

        def replace(self, target, stop=stop):
            nonlocal count
            moved = rename(self, target)
            count += 1
            if count == stop:
                raise KeyboardInterrupt
            return moved

        monkeypatch.setattr(Path, "replace", replace)
        interrupted = False
        try:
            other.save_pretrained(folder, **size)
        except KeyboardInterrupt:
            interrupted = True
        monkeypatch.setattr(Path, "replace", rename)
        loaded = Perturbation.from_pretrained(folder)
        loaded.verify()
        assert loaded.digest in (perturbation.digest, other.digest)
        other.save_pretrained(folder, **size)
        assert Perturbation.from_pretrained(folder).digest == other.digest
        assert not any(name.startswith(".") for name in names(folder))
        if not interrupted:
            break
    assert not interrupted and stop == renames + 1


def test_a_perturbation_is_not_saved_into_protected_images_nor_they_into_its_folder(
    shapes, perturbation, tmp_path
):
    protected = ProtectedDataset(shapes, perturbation)
    export = protected.export(tmp_path / "export", progress=False)
    for place in (export / "key", export / "deep" / "key"):
        with pytest.raises(ValueError, match="apart from protected images"):
            perturbation.save_pretrained(place)
    with pytest.raises(ValueError, match="apart from protected images"):
        perturbation.save_pretrained(export, force=True)
    key = perturbation.save_pretrained(tmp_path / "key")
    perturbation.save_pretrained(tmp_path / "around" / "deep" / "key")
    for place in (key, key / "images", tmp_path / "around"):
        with pytest.raises(ValueError, match=r"separate from any perturbation's"):
            protected.export(place, force=True, progress=False)
    assert not (key / "unlearnable.json").exists()
    protected.export(tmp_path / "around-it", progress=False)


@pytest.mark.parametrize("name", ["config.json", "unlearnable.json"])
def test_deeply_nested_json_is_of_no_perturbation_and_of_no_export(
    name, shapes, perturbation, tmp_path
):
    (tmp_path / name).write_text("[" * 200_000)
    with pytest.raises(FileExistsError, match="with other files in it"):
        perturbation.save_pretrained(tmp_path)
    perturbation.save_pretrained(tmp_path / "p")
    with pytest.raises(FileExistsError, match=r"expected a (new or empty )?folder"):
        ProtectedDataset(shapes, perturbation).export(tmp_path, progress=False)


EDITED = [
    {"parts": 5},
    {"parameters": [1]},
    {"epsilon": True},
]


@pytest.mark.parametrize("edit", EDITED, ids=str)
def test_a_config_of_other_values_is_refused(edit, perturbation):
    with pytest.raises(ValueError, match="expected a valid config"):
        Perturbation.of_kind(perturbation.tensors, perturbation.config | edit)


@pytest.mark.parametrize("change", [-1, 10])
def test_labels_beyond_the_classes_are_refused(change, perturbation):
    tensors = {**perturbation.tensors, "labels": perturbation.labels + change}
    with pytest.raises(ValueError, match="expected labels from 0 to 9"):
        Perturbation.of_kind(tensors, perturbation.config)


def test_rows_beyond_the_stated_budget_are_found(shapes, perturbation, tmp_path):
    levels = round(perturbation.config["epsilon"] * 255)
    config = perturbation.config | {"epsilon": (levels - 1) / 255}
    wrong = Perturbation.of_kind(perturbation.tensors, config)
    folder = wrong.save_pretrained(tmp_path / "p")
    for one in (wrong, Perturbation.from_pretrained(folder)):
        with pytest.raises(ArtefactError, match=f"budget of {levels - 1} levels, got {levels}"):
            one.verify()
    with pytest.raises(ArtefactError, match=r"0\.rows"):
        wrong.then(perturbation).verify()
    perturbation.then(perturbation).verify()


@pytest.mark.parametrize("name", ["a" * 300, "a\0b"])
def test_names_that_no_folder_can_have(name, shapes, perturbation, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises((OSError, ValueError), match=r"could not write|expected the path"):
        perturbation.save_pretrained(name)
    with pytest.raises(FileNotFoundError, match="which does not exist"):
        Perturbation.from_pretrained(name)
    if "\0" not in name:
        with pytest.raises(OSError, match="could not write to"):
            ProtectedDataset(shapes, perturbation).export(name)


def test_anything_else_than_a_perturbation_is_named(perturbation, tmp_path):
    assert Perturbation.concat(perturbation) is perturbation
    for wrong in (None, "a path", tmp_path):
        with pytest.raises(TypeError, match="expected a Perturbation, got"):
            Perturbation.concat([perturbation, wrong])
        with pytest.raises(TypeError, match="expected a Perturbation, got"):
            perturbation.then(wrong)
    with pytest.raises(ValueError, match="expected a config with"):
        Perturbation(perturbation.rows, {})
