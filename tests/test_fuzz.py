"""Mutated artefacts: whatever the bytes, an error of ours, or the very same perturbation."""

import copy
import json
import os
import pickle
import random
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import safetensors

import unlearnable as ue
from unlearnable import ArtefactError, Perturbation
from unlearnable.io.json import parse_json
from unlearnable.io.safetensors import map_tensors, write_tensors
from unlearnable.perturbation.config import parse_config, version_of
from unlearnable.perturbation.serialization import assemble, digest_of
from unlearnable.perturbation.shards import read_tensors

pytestmark = pytest.mark.slow

SIDE, HERE = 8, Path("fuzzed")
INDEX = "perturbation.safetensors.index.json"
VALUES = [
    None, True, False, 0, 1, -1, 3, 255, 1 << 31, 1 << 63, -(1 << 70), 10**300, 0.5, -0.0, 1e308,
    "", "a", "../../../etc/passwd", "/etc/passwd", "file:///etc/passwd", "\x00", "é", "x" * 5_000,
    "rows", "__import__('os').system('x')", "additive", "pixel", "stack", "L2", [], [[]], {}, [0],
    [3, 8, 8], [3, 1 << 14, 1 << 14], [1 << 20] * 3, [-1, -1], [True, True], {"fit": [8, 8]},
    {"a": {"b": []}},
]  # fmt: skip
TEXTS = [
    b"NaN", b"-Infinity", b"1e999", b"-1e999", b"9" * 5_000, b"[" * 100_000, b'{"a":' * 50_000,
    b"\xff\xfe", b"\xef\xbb\xbf", b"\x00", b'"\\ud800"', b"//", b",", b'"', b"}", b"[]]", b"1e5",
]  # fmt: skip


def places(value):
    """Every (container, key) in a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in list(items):
        yield value, key
        if isinstance(inner, (dict, list)):
            yield from places(inner)


def mutated_value(value, rng):
    """A copy in which one thing is missing, another thing, at another place, or one more."""
    value = copy.deepcopy(value)
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        found = list(places(value))
        if not found:
            break
        container, key = rng.choice(found)
        what = rng.randrange(5)
        if what == 0:
            del container[key]
        elif what == 1 and isinstance(container[key], (int, float)):
            container[key] += rng.choice((-1, 1, 256, 1 << 40, -0.5))
        elif what == 2:
            other, place = rng.choice(found)
            container[key] = copy.deepcopy(other.get(place) if isinstance(other, dict) else other)
        elif what == 3 and isinstance(container, dict):
            container[rng.choice(("rows", "kind", "more", "0", ""))] = copy.deepcopy(
                rng.choice(VALUES)
            )
        else:
            container[key] = copy.deepcopy(rng.choice(VALUES))
    return value


def mutated_bytes(data, rng):
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8))):
        place = rng.randrange(len(data) + 1)
        end = min(len(data), place + rng.choice((1, 4, 40)))
        what = rng.randrange(6)
        if what == 0 and place < len(data):
            data[place] ^= 1 << rng.randrange(8)
        elif what == 1:
            del data[place:]
        elif what == 2:
            del data[place:end]
        elif what == 3:
            data[place:place] = data[place:end]
        elif what == 4:
            data[place:end] = rng.choice(TEXTS)
        else:  # a name that occurs twice
            data[1:1] = b'"kind": "pixel", '
    return bytes(data)


def mutated_json(value, rng):
    if rng.random() < 0.5:
        return json.dumps(mutated_value(value, rng)).encode()
    return mutated_bytes(json.dumps(value).encode(), rng)


@pytest.fixture(scope="module")
def made():
    images = np.random.default_rng(0).integers(0, 256, (12, 3, SIDE, SIDE), dtype=np.uint8)
    data = [(image.transpose(1, 2, 0), index % 3) for index, image in enumerate(images)]
    methods = (ue.RandomNoise(), ue.OPS(), ue.LSP(cell=3), ue.AR(), ue.ClassConvolution())
    fitted = [m.fit(data, device="cpu", progress=False).perturbation_ for m in methods]
    shift = ue.ColourShift().fit(data, device="cpu", progress=False).perturbation_
    return images, [*fitted, fitted[0].then(fitted[1]).then(fitted[3]), shift]


def test_6500_configs(made):
    images, perturbations = made
    rng, accepted = random.Random(0), 0
    for number in range(6_500):
        one = perturbations[number % len(perturbations)]
        version = version_of(one.config)
        described = {"format": "unlearnable-perturbation", "format_version": version} | one.config
        data = mutated_json(described, rng)
        try:
            config = parse_config(parse_json(data, HERE), HERE)
            # As an author does who means harm: the digest is right.
            config["digest"] = digest_of(one.tensors, config)
            kind = assemble(one.tensors, config, HERE)
        except ArtefactError:
            continue
        accepted += 1
        found = Perturbation.of_kind(kind.tensors, kind.config)
        assert json.loads(json.dumps(found.info())) == found.info() and repr(found)
        if kind.shape[1] * kind.shape[2] > 64 * 64:
            continue  # sound, and for images that would take long
        for index in (0, 7):
            pixels = found.prepare(images[index])
            pixels = np.resize(pixels, (3, *kind.shape[1:]))  # images such as it is for
            try:
                after = found.apply(pixels, found.find(images[index], index % 3, index))
            except ArtefactError:
                continue
            assert after.shape == pixels.shape and after.dtype == np.uint8
            if one.kind == "additive":
                np.testing.assert_array_equal(after, one.apply(images[index], index))
    assert 500 < accepted < 5_000  # both ways are taken


def test_2000_headers(tmp_path):
    tensors = {
        "rows": np.arange(-20, 20, dtype=np.int8).reshape(2, 4, 5),
        "keys": np.arange(7, dtype=np.uint64),
        "more": np.arange(4, dtype=np.uint32),
    }
    write_tensors(tmp_path / "file", tensors, "x")
    content = (tmp_path / "file").read_bytes()
    length = int.from_bytes(content[:8], "little")
    header, body = json.loads(content[8 : 8 + length]), content[8 + length :]
    rng, accepted, path = random.Random(1), 0, tmp_path / "mutated"
    for number in range(2_000):
        if number % 4 == 0:
            data = mutated_bytes(content, rng)
        else:
            data = mutated_json(header, rng)
            stated = len(data) if rng.random() < 0.9 else rng.choice((0, 1, 1 << 40, (1 << 64) - 1))
            data = stated.to_bytes(8, "little") + data + body
        path.write_bytes(data)
        try:
            found = map_tensors(path)
        except ArtefactError:
            continue
        accepted += 1
        theirs = dict(safetensors.deserialize(data))  # the library's own reading
        assert found.keys() == {name for name, tensor in theirs.items() if tensor["data"]}
        for name, tensor in found.items():
            assert theirs[name]["shape"] == list(tensor.shape)
            assert theirs[name]["data"] == tensor.tobytes()
    assert 50 < accepted < 1_500


def test_1500_indexes(made, tmp_path):
    made[1][0].save_pretrained(tmp_path, max_shard_size=3 * 3 * SIDE * SIDE)
    index = json.loads((tmp_path / INDEX).read_text())
    rng, accepted = random.Random(2), 0
    for _ in range(1_500):
        data = mutated_json(index, rng)
        (tmp_path / INDEX).write_bytes(data)
        try:
            found = read_tensors(tmp_path)
        except ArtefactError:
            continue
        accepted += 1
        np.testing.assert_array_equal(np.asarray(found["rows"]), made[1][0].rows)
    assert 50 < accepted < 1_000


@pytest.mark.parametrize("size", [1 << 30, 5 * 3 * SIDE * SIDE], ids=["one file", "shards"])
def test_200_damaged_folders(size, made, tmp_path):
    images, perturbations = made
    one = perturbations[0]
    folder = one.save_pretrained(tmp_path / "p", max_shard_size=size)
    paths = sorted(folder.glob("*.safetensors"))
    expected = [one.apply(image, row) for row, image in enumerate(images)]
    rng, opened, refused = random.Random(3), 0, 0
    for number in range(100):
        path = rng.choice(paths)
        before = path.read_bytes()
        damaged = bytearray(before)
        if number % 4 == 0:
            del damaged[rng.randrange(len(damaged)) :]
        elif number % 4 == 1:
            damaged[rng.randrange(len(damaged)) :] = rng.randbytes(rng.randrange(1, 300))
        else:
            for _ in range(rng.choice((1, 3))):
                damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        try:
            loaded = Perturbation.from_pretrained(folder)
        except ArtefactError:
            refused += 1
        else:
            opened += 1
            wrong = 0
            for row, image in enumerate(images):
                try:
                    after = loaded.apply(image, loaded.find(image, row % 3, row))
                except ArtefactError:
                    wrong += 1
                else:
                    np.testing.assert_array_equal(after, expected[row])
            if wrong:
                with pytest.raises(ArtefactError):
                    loaded.verify()
            else:
                loaded.verify()
        path.write_bytes(before)
    assert opened > 10 and refused > 10


def test_60_damaged_configs_and_indexes_in_folders(made, tmp_path):
    one = made[1][0]
    folder = one.save_pretrained(tmp_path / "p", max_shard_size=5 * 3 * SIDE * SIDE)
    rng = random.Random(4)
    for number in range(60):
        path = folder / (INDEX if number % 2 else "config.json")
        before = path.read_bytes()
        path.write_bytes(mutated_bytes(before, rng))
        try:
            loaded = Perturbation.from_pretrained(folder)
        except ArtefactError:
            pass
        else:
            assert loaded.config == one.config
            np.testing.assert_array_equal(np.asarray(loaded.rows), one.rows)
        path.write_bytes(before)


def test_a_pickle_is_not_a_perturbation(tmp_path):
    """Nothing in a folder is executed, whatever it is called."""

    class Harm:
        def __reduce__(self):
            return (Path(tmp_path / "harm").touch, ())

    for name in ("config.json", "perturbation.safetensors", INDEX):
        (tmp_path / name).write_bytes(pickle.dumps(Harm()))
    with pytest.raises(ArtefactError):
        Perturbation.from_pretrained(tmp_path)
    assert not (tmp_path / "harm").exists()


HOSTILE = {
    "dimensions": {"rows": {"dtype": "I8", "shape": [1 << 60] * 9, "data_offsets": [0, 4]}},
    "huge": {"rows": {"dtype": "I8", "shape": [1 << 60, 4], "data_offsets": [0, 1 << 62]}},
    "beyond": {"rows": {"dtype": "I8", "shape": [8], "data_offsets": [0, 8]}},
    "negative": {"rows": {"dtype": "I8", "shape": [-4], "data_offsets": [4, 0]}},
    "overlap": {
        "a": {"dtype": "I8", "shape": [4], "data_offsets": [0, 4]},
        "b": {"dtype": "I8", "shape": [2], "data_offsets": [2, 4]},
    },
    "gap": {"a": {"dtype": "I8", "shape": [3], "data_offsets": [1, 4]}},
    "gap and overlap": {
        "a": {"dtype": "I8", "shape": [2], "data_offsets": [0, 2]},
        "b": {"dtype": "I8", "shape": [2], "data_offsets": [0, 2]},
    },
    "left over": {"a": {"dtype": "I8", "shape": [3], "data_offsets": [0, 3]}},
    "float": {"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}},
    "list": [],
    "number": {"a": 1},
}  # fmt: skip


@pytest.mark.parametrize("header", HOSTILE.values(), ids=HOSTILE)
def test_hostile_headers(header, tmp_path):
    data = json.dumps(header).encode()
    path = tmp_path / "file"
    path.write_bytes(len(data).to_bytes(8, "little") + data + bytes(4))
    with pytest.raises(ArtefactError, match="complete safetensors file"):
        map_tensors(path)


@pytest.mark.parametrize("length", [0, 1, 3, (1 << 24) + 1, 1 << 63, (1 << 64) - 1])
def test_hostile_header_lengths(length, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(length.to_bytes(8, "little") + b"{}" + b" " * 100)
    os.truncate(path, 1 << 30)  # sparse
    tracemalloc.start()
    try:
        with pytest.raises(ArtefactError, match="complete safetensors file"):
            map_tensors(path)
        assert tracemalloc.get_traced_memory()[1] < 100 << 20
    finally:
        tracemalloc.stop()


def test_many_dimensions(tmp_path):
    """More than numpy has."""
    header = {"rows": {"dtype": "I8", "shape": [1] * 100, "data_offsets": [0, 1]}}
    data = json.dumps(header).encode()
    (tmp_path / "file").write_bytes(len(data).to_bytes(8, "little") + data + bytes(1))
    with pytest.raises(ArtefactError, match="complete safetensors file"):
        map_tensors(tmp_path / "file")
