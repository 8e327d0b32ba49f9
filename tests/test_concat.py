"""Perturbation.concat: rows of several perturbations as one, and what does not belong together."""

import pickle

import numpy as np
import pytest
import torch
from torch.utils.data import ConcatDataset, Subset

import unlearnable as ue
from unlearnable import ArtefactError, Perturbation, ProtectedDataset, UnknownImageError
from unlearnable.data.cache import read_images
from unlearnable.data.fingerprint import image_key
from unlearnable.datasets import Shapes
from unlearnable.io.sharded_rows import JoinedRows

NEW = Shapes(size=12, seed=5)


@pytest.fixture(scope="module")
def method(shapes):
    return ue.RandomNoise().fit(shapes, device="cpu", progress=False)


@pytest.fixture(scope="module")
def parts(method):
    return [method.perturbation_, method.extend(NEW, device="cpu", progress=False)]


@pytest.fixture(scope="module")
def both(parts):
    return Perturbation.concat(parts)


def images(dataset, perturbation):
    return ProtectedDataset(dataset, perturbation).to_tensors()[0]


def with_config(perturbation, **changes):
    return Perturbation.of_kind(perturbation.tensors, perturbation.config | changes)


def test_both_datasets_are_protected_as_by_their_own(both, parts, shapes):
    expected = torch.cat([images(shapes, parts[0]), images(NEW, parts[1])])
    assert images(ConcatDataset([shapes, NEW]), both).equal(expected)
    assert images(shapes, both).equal(expected[:40])
    assert images(NEW, both).equal(expected[40:])
    mixed = Subset(ConcatDataset([NEW, shapes]), [0, 30, 11, 12])
    assert images(mixed, both).equal(expected[[40, 18, 51, 0]])
    with pytest.raises(UnknownImageError, match=r"Shapes \+ Shapes, 52 images"):
        both.find(shapes.data[0].transpose(2, 0, 1) ^ 1, 0)
    both.verify()


def test_the_config_says_where_rows_come_from(both, parts, shapes):
    assert len(both) == 52 and both.granularity == "sample-wise" and both.kind == "additive"
    source = both.config["source"]
    assert source == {
        "name": "Shapes + Shapes",
        "images": 52,
        "digest": read_images(ConcatDataset([shapes, NEW])).digest,
        "parts": [
            {"name": "Shapes", "images": 40, "perturbation": parts[0].digest},
            {"name": "Shapes", "images": 12, "perturbation": parts[1].digest},
        ],
    }
    for name in ("method", "parameters", "epsilon", "norm", "classes", "image_shape", "seed"):
        assert both.config[name] == parts[0].config[name]
    assert "52 images of 3x32x32" in repr(both) and both.info()["rows"] == 52


def test_what_differs_is_not_claimed(parts):
    one = with_config(parts[0], strength={"accuracy": 10.0}, classes=None)
    other = with_config(
        parts[1], seed=9, threads=64, parameters=parts[1].config["parameters"] | {"seed": 9}
    )
    config = Perturbation.concat([one, other]).config
    assert config["seed"] is config["threads"] is config["strength"] is None
    assert config["parameters"] == parts[0].config["parameters"] | {"seed": None}
    assert config["classes"] == parts[1].config["classes"]


def test_order_counts_and_parts_may_be_joined_already(both, parts):
    third = with_config(parts[0])
    tensors = {name: tensor.copy() for name, tensor in third.tensors.items()}
    tensors["keys"] += 1
    third = Perturbation.of_kind(tensors, third.config)
    nested = Perturbation.concat([both, third])
    assert len(nested) == 92 and len(nested.rows.parts) == 3
    assert [part["images"] for part in nested.config["source"]["parts"]] == [52, 40]
    np.testing.assert_array_equal(nested.rows[52:], third.rows)
    assert Perturbation.concat(parts[::-1]).digest != both.digest
    assert Perturbation.concat(iter(parts)).digest == both.digest
    assert Perturbation.concat(parts[:1]) is parts[0]
    with pytest.raises(ValueError, match="at least one perturbation, got none"):
        Perturbation.concat([])


@pytest.mark.parametrize("size", [1 << 30, 15 * 3072], ids=["one file", "shards"])
def test_rows_of_files_stay_there_until_they_are_saved_together(size, both, parts, tmp_path):
    folders = [
        part.save_pretrained(tmp_path / str(number), max_shard_size=size)
        for number, part in enumerate(parts)
    ]
    loaded = Perturbation.concat([Perturbation.from_pretrained(folder) for folder in folders])
    assert isinstance(loaded.rows, JoinedRows) and loaded.digest == both.digest
    for part in loaded.rows.parts:
        base = part
        while type(base) is np.ndarray:
            base = base.base
        assert isinstance(base, np.memmap)
    whole = Perturbation.from_pretrained(loaded.save_pretrained(tmp_path / "whole"))
    assert whole.digest == both.digest and isinstance(whole.rows, np.ndarray)
    np.testing.assert_array_equal(whole.rows, np.asarray(both.rows))


@pytest.mark.parametrize("loaded", [False, True])
def test_a_joined_one_is_pickled_with_its_rows(loaded, both, parts, tmp_path):
    one = both
    if loaded:
        folders = [p.save_pretrained(tmp_path / p.digest) for p in parts]
        one = Perturbation.concat([Perturbation.from_pretrained(folder) for folder in folders])
    again = pickle.loads(pickle.dumps(one))
    assert again.digest == both.digest
    np.testing.assert_array_equal(np.asarray(again.rows), np.asarray(both.rows))


def test_a_damaged_row_stays_found(parts, tmp_path):
    folder = parts[1].save_pretrained(tmp_path)
    path = folder / "perturbation.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    both = Perturbation.concat([parts[0], Perturbation.from_pretrained(folder)])
    with pytest.raises(ArtefactError, match="bytes in 51;"):
        both.verify()


def test_equal_images_with_other_labels_belong_together(shapes):
    def fit(data):
        return ue.RandomNoise().fit(data, device="cpu", progress=False).perturbation_

    image, other = torch.zeros(1, 3, 8, 8, dtype=torch.uint8), torch.ones(1, 3, 8, 8).byte()
    one = fit((torch.cat([image, image, other]), [0, 0, 1]))  # a duplicate of its own is none
    two = fit((torch.cat([image, other * 2]), [1, 0]))
    both = Perturbation.concat([one, two])
    pixels = image[0].numpy()
    assert image_key(pixels) == both.keys[0] == both.keys[3]
    assert [both.find(pixels, label) for label in (0, 1)] == [0, 3]


# --- refusals ------------------------------------------------------------------------------------


def test_the_same_image_twice_is_refused(parts, both):
    with pytest.raises(ValueError, match=r"different images, got 40 images .*numbers \[0, 2\]"):
        Perturbation.concat([*parts, parts[0]])
    with pytest.raises(ValueError, match=r"got 12 images .*numbers \[0, 1\]"):
        Perturbation.concat([both, parts[1]])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "EM"}, "method 'RandomNoise', as in the first .*'EM' in number 1"),
        ({"epsilon": 4 / 255}, r"epsilon 0\.031.* got 0\.0156.* in number 1"),
        ({"norm": "L2"}, "norm 'Linf', as in the first perturbation, got 'L2'"),
        ({"preprocessing": {"fit": [32, 32]}}, "preprocessing None"),
        ({"num_classes": 11, "classes": None}, "num_classes 10, .* got 11"),
        ({"classes": list("abcdefghij")}, "classes .* everywhere, got .'a', 'b'"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_other_promises_are_refused(change, message, parts):
    with pytest.raises(ValueError, match=message):
        Perturbation.concat([parts[0], with_config(parts[1], **change)])


def test_other_shapes_and_kinds_are_refused(parts, class_wise, tensors):
    fits = {"device": "cpu", "progress": False}
    smaller = ue.RandomNoise().fit(tensors, **fits).perturbation_
    with pytest.raises(ValueError, match=r"image_shape \[3, 32, 32\], .* got \[3, 8, 8\]"):
        Perturbation.concat([parts[0], smaller])
    with pytest.raises(ValueError, match=r"sample-wise .* class-wise .* 'additive' as number 1"):
        Perturbation.concat([parts[0], class_wise])
    pixels = ue.OPS().fit(NEW, **fits).perturbation_
    for other in (pixels, parts[0].then(pixels)):
        with pytest.raises(ValueError, match=f"kind {other.kind!r} as number 0"):
            Perturbation.concat([other, parts[0]])
