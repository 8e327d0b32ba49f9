"""Files of other programs become perturbations, and nothing that they ask for is run."""

import argparse
import contextlib
import io
import itertools
import math
import pickle
import struct
import tracemalloc
import unicodedata
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.numpy import save as save_arrays
from safetensors.torch import save
from torch.utils.data import Subset
from torchvision.datasets import ImageFolder

import unlearnable as ue
from unlearnable import ArtefactError, ProtectedDataset, import_perturbation
from unlearnable.cli.main import main

SIZE, CLASSES = (8, 6), 3  # height, width
EIGHT = 8 / 255


class Arrays(torch.utils.data.Dataset):
    def __init__(self, data, targets):
        self.data, self.targets = data, list(targets)

    def __len__(self):
        return len(self.data)

    def __getitem__(self, index):
        return Image.fromarray(self.data[index]), self.targets[index]


@pytest.fixture(scope="module")
def dataset():
    data = np.random.default_rng(0).integers(0, 256, (20, *SIZE, 3), dtype=np.uint8)
    return Arrays(data, np.arange(20) % CLASSES)


@pytest.fixture(scope="module")
def rows():
    found = np.random.default_rng(1).integers(-8, 9, (20, 3, *SIZE), dtype=np.int8)
    found[:, 0, 0, 0] = 8
    return found


@pytest.fixture(scope="module")
def after(dataset, rows):
    """The whole protected images, uint8 NCHW."""
    clean = dataset.data.transpose(0, 3, 1, 2).astype(int)
    return np.clip(clean + rows, 0, 255).astype(np.uint8)


def load(path, dataset, **options):
    return import_perturbation(path, dataset, **{"method": "REM", "epsilon": EIGHT} | options)


def write(path, content):
    path.write_bytes(content)
    return path


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def npz(*parts, compress=False, **arrays):
    file = io.BytesIO()
    (np.savez_compressed if compress else np.savez)(file, *parts, **arrays)
    return file.getvalue()


def saved(value, zipped=True):
    file = io.BytesIO()
    torch.save(value, file, _use_new_zipfile_serialization=zipped)
    return file.getvalue()


def nhwc(array):
    return np.ascontiguousarray(array.transpose(0, 2, 3, 1))


def shuffled(rows):
    return np.random.default_rng(2).permutation(len(rows)).tolist()


def objects(rows):
    found = np.empty(len(rows), object)
    found[:] = list(rows)
    return found


DELTAS = {
    "REM and SEM": lambda r: pickle.dumps(r),
    "pickle 2": lambda r: pickle.dumps(r, protocol=2),
    "pickle 5": lambda r: pickle.dumps(r, protocol=5),
    "pickle, Fortran order": lambda r: pickle.dumps(np.asfortranarray(r)),
    "pickle 5, big-endian": lambda r: pickle.dumps((r / 255).astype(">f8"), protocol=5),
    "pickle of older numpy": lambda r: pickle.dumps(r, 3).replace(b"numpy._core", b"numpy.core"),
    "EM": lambda r: saved(torch.from_numpy(r / 255).float()),
    "EM, older torch": lambda r: saved(torch.from_numpy(r / 255).float(), zipped=False),
    "PIL": lambda r: saved({"noise": torch.from_numpy(r / 255).float(), "seed": torch.tensor(1)}),
    "half": lambda r: saved([torch.from_numpy(r / 255).half()]),
    "bfloat16": lambda r: saved(torch.from_numpy(r / 255).bfloat16()),
    "bfloat16 levels": lambda r: saved(torch.from_numpy(r).bfloat16()),
    "list of tensors": lambda r: saved(list(torch.from_numpy(r / 255).half())),
    "tuple of tensors NHWC": lambda r: saved(tuple(torch.from_numpy(nhwc(r / 255)).bfloat16())),
    "safetensors": lambda r: save({"noise": torch.from_numpy(r / 255).bfloat16()}),
    "safetensors by index": lambda r: save({f"{i}": torch.from_numpy(r[i]) for i in range(len(r))}),
    "list of batches": lambda r: saved(list(torch.from_numpy(r).split(6))),
    "dict by index": lambda r: saved({i: torch.from_numpy(r[i]) for i in shuffled(r)}),
    "dict by text": lambda r: saved({f"{i:05d}": torch.from_numpy(r[i]) for i in shuffled(r)}),
    "dict under a key": lambda r: saved(
        {"epoch": 3, "noise": {i: torch.from_numpy(r[i]) for i in shuffled(r)}, "eps": EIGHT}
    ),
    "list under two keys": lambda r: saved({"state": {"noise": list(torch.from_numpy(r))}}),
    "beside a network": lambda r: saved(
        {"model": torch.nn.Conv2d(3, 3, 3).state_dict(), "noise": torch.from_numpy(r)}
    ),
    "torch file of numpy's arrays": lambda r: saved({"noise": list(r), "seed": 1}),
    "pickled list": lambda r: pickle.dumps(list(r)),
    "pickled list, protocol 2": lambda r: pickle.dumps(list(r), protocol=2),
    "pickled list, protocol 5": lambda r: pickle.dumps(list(r / 255), protocol=5),
    "pickled list NHWC, seen as NCHW": lambda r: pickle.dumps(
        [image.transpose(2, 0, 1) for image in nhwc(r)], protocol=5
    ),
    "pickled tuple of batches": lambda r: pickle.dumps((r[:8], r[8:16], r[16:])),
    "pickled dict": lambda r: pickle.dumps({i: r[i] for i in shuffled(r)}),
    "pickled dict by numpy's integers": lambda r: pickle.dumps(
        {i: r[i] for i in np.array(shuffled(r))}
    ),
    "pickled dict in order": lambda r: pickle.dumps(OrderedDict(enumerate(r))),
    "pickled dict under a key": lambda r: pickle.dumps(
        {"noise": {str(i): r[i] for i in shuffled(r)}, "args": {"eps": 8 / 255, "name": "x"}}
    ),
    "pickled array of objects": lambda r: pickle.dumps(objects(r)),
    "npy of objects": lambda r: npy(objects(r)),
    "npy of a dict": lambda r: npy({"noise": r, "labels": np.arange(20)}),
    "npz of objects": lambda r: npz(compress=True, noise=objects(r), labels=np.arange(20)),
    "npz of arrays": lambda r: npz(**{f"arr_{i}": r[i] for i in shuffled(r)}),
    "npy levels": npy,
    "npy int16": lambda r: npy(r.astype(np.int16)),
    "npy float levels": lambda r: npy(r.astype(np.float32)),
    "npy units": lambda r: npy(r / 255),
    "npy Fortran": lambda r: npy(np.asfortranarray(r)),
    "npy NHWC": lambda r: npy(nhwc(r)),
    "npz": lambda r: npz(noise=r, labels=np.arange(20)),
    "npz compressed NHWC": lambda r: npz(compress=True, delta=nhwc(r / 255)),
}


@pytest.mark.parametrize("name", DELTAS)
def test_deltas_of_every_format(name, dataset, rows, after, tmp_path):
    found = load(write(tmp_path / "file", DELTAS[name](rows)), dataset)
    np.testing.assert_array_equal(found.rows, rows)
    assert repr(found) == "Perturbation(REM, sample-wise, Linf 8/255, 20 images of 3x8x6)"
    assert found.config["imported"]["file"] == "file"
    found.save_pretrained(tmp_path / "saved")
    again = ue.Perturbation.from_pretrained(tmp_path / "saved")
    order = [3, 0, 19, 7]
    shuffled = Arrays(dataset.data[order], [dataset.targets[place] for place in order])
    images, _ = ProtectedDataset(shuffled, again).to_tensors()
    np.testing.assert_array_equal(images.numpy(), after[order])


IMAGES = {
    "uint8 NCHW": lambda a: npy(a),
    "uint8 NHWC": lambda a: npy(nhwc(a)),
    "pickle": lambda a: pickle.dumps(a),
    "npz": lambda a: npz(
        compress=True, images=nhwc(a), labels=np.arange(20), classes=np.array(["a"])
    ),
    "tensor": lambda a: saved(torch.from_numpy(a)),
    "list of tensors": lambda a: saved(list(torch.from_numpy(a))),
    "dict of arrays NHWC": lambda a: pickle.dumps(dict(enumerate(nhwc(a)))),
}


@pytest.mark.parametrize("name", IMAGES)
def test_whole_images_of_every_format(name, dataset, after, tmp_path):
    found = load(write(tmp_path / "file", IMAGES[name](after)), dataset)
    np.testing.assert_array_equal(ProtectedDataset(dataset, found).to_tensors()[0].numpy(), after)
    assert found.config["imported"]["format"] == "images"


@pytest.mark.parametrize("scale", [1, 255])
def test_whole_images_of_floats_are_said_to_be_images(scale, dataset, after, tmp_path):
    path = write(tmp_path / "file", npy((after / scale).astype(np.float32)))
    found = load(path, dataset, format="images")
    np.testing.assert_array_equal(ProtectedDataset(dataset, found).to_tensors()[0].numpy(), after)


@pytest.mark.parametrize("name", ["{}.png", "{:05d}.png", "class/{}.png", "{}.webp"])
def test_folder_of_images_by_index(name, dataset, after, tmp_path):
    (tmp_path / "images" / "class").mkdir(parents=True)
    options = {"lossless": True, "exact": True} if name.endswith("webp") else {}
    for index, image in enumerate(nhwc(after)):
        Image.fromarray(image).save(tmp_path / "images" / name.format(index), **options)
    (tmp_path / "images" / "notes.txt").write_text("mine")
    found = load(tmp_path / "images", dataset)
    np.testing.assert_array_equal(ProtectedDataset(dataset, found).to_tensors()[0].numpy(), after)


@pytest.mark.parametrize("format", ["png", "npz"])
def test_own_exports_come_back(format, dataset, rows, after, tmp_path):
    protected = ProtectedDataset(dataset, load(write(tmp_path / "f", npy(rows)), dataset))
    folder = protected.export(tmp_path / "out", format)
    found = load(folder if format == "png" else folder / "images.npz", dataset)
    np.testing.assert_array_equal(ProtectedDataset(dataset, found).to_tensors()[0].numpy(), after)


@pytest.mark.parametrize("make", [npy, pickle.dumps, lambda r: saved(torch.from_numpy(r) / 255)])
def test_class_wise(make, dataset, rows, tmp_path):
    path = write(tmp_path / "file", make(rows[:CLASSES]))
    with pytest.raises(ValueError, match='pass granularity="class-wise"'):
        load(path, dataset)
    found = load(path, dataset, granularity="class-wise")
    assert found.granularity == "class-wise" and not found.keyed
    np.testing.assert_array_equal(found.rows, rows[:CLASSES])


def test_as_many_images_as_classes_have_to_be_told_apart(dataset, rows, tmp_path):
    few = Arrays(dataset.data[:CLASSES], range(CLASSES))
    path = write(tmp_path / "file", npy(rows[:CLASSES]))
    with pytest.raises(ValueError, match='"sample-wise" or "class-wise"'):
        load(path, few)
    assert load(path, few, granularity="sample-wise").keyed
    assert not load(path, few, granularity="class-wise").keyed


@pytest.mark.parametrize("shape", [(20, *SIZE), (20, 1, *SIZE), (20, *SIZE, 1)])
def test_grey(shape, dataset, rows, tmp_path):
    grey = Arrays(dataset.data[..., 0], dataset.targets)
    found = load(write(tmp_path / "file", npy(rows[:, 0].reshape(shape))), grey)
    np.testing.assert_array_equal(found.rows, rows[:, :1])


def test_images_of_varying_size(varying_folder, tmp_path):
    path = write(tmp_path / "file", npy(np.ones((4, 3, 8, 8), np.int8)))
    with pytest.raises(ValueError, match="image_size"):
        load(path, varying_folder)
    found = load(path, varying_folder, image_size=8)
    assert found.fit_size == (8, 8)
    assert ProtectedDataset(varying_folder, found).change().linf == 1


# --- lists and dicts, parts, classes, budgets ----------------------------------------------------


@pytest.mark.parametrize("make", [saved, pickle.dumps])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: {i + 1: r[i] for i in range(20)}, "indices 0 to 19 .* got 20 without 0; number"),
        (lambda r: {i: r[i % 20] for i in range(22) if i not in (3, 5)}, "got 20 without 3, 5;"),
        (lambda r: {i: r[i] for i in range(19)}, r"got \(19, 3, 8, 6\)"),
        (lambda r: {0: r[0], "00": r[1]}, "two with the same index"),
        (lambda r: list(r[:19]), r"got \(19, 3, 8, 6\)"),
        (lambda r: [*r[:19], r[0][:, :4]], r"of one shape .*\(3, 4, 6\) for 19"),
        (lambda r: [r, r], r"got \(2, 20, 3, 8, 6\)"),
        (lambda r: {"a": list(r), "b": r}, "2 among a, b"),
        (lambda r: [(row, 1) for row in r], "0 among 0, 1, 2, 3, 4, …"),
    ],
)
def test_lists_and_dicts_that_do_not_fit(make, change, message, dataset, rows, tmp_path):
    value = change(torch.from_numpy(rows) if make is saved else rows)
    with pytest.raises(ValueError, match=message):
        load(write(tmp_path / "file", make(value)), dataset)


def test_types_are_not_mixed(dataset, rows, tmp_path):
    mixed = [*torch.from_numpy(rows[:19]), torch.from_numpy(rows[19] / 255)]
    with pytest.raises(ValueError, match=r"one type .*torch\.float64 and torch\.int8"):
        load(write(tmp_path / "file", saved(mixed)), dataset)


def test_missing_index_names_what_is_missing_in_an_npz(dataset, rows, tmp_path):
    path = write(tmp_path / "file", npz(**{f"arr_{i}": rows[i] for i in range(20) if i != 7}))
    with pytest.raises(ValueError, match="without 7"):
        load(path, dataset)


def parts(folder, rows, name, ends=(0, 7, 14, 20), make=npy):
    folder.mkdir(exist_ok=True)
    return [
        write(folder / name(start, end), make(rows[start:end]))
        for start, end in itertools.pairwise(ends)
    ]


def test_seps_files_are_joined_in_numeric_order(dataset, after, tmp_path):
    floats = (after / 255).astype(np.float32)  # as SEP writes them
    ends = [*range(0, 20, 2), 20]
    spread = [
        f"eps2-1_iter30_sp{5000 * i:05d}-{5000 * i + 5000:05d}_ts0.9{9 - i}.npy" for i in range(10)
    ]
    found = parts(tmp_path / "train_30", floats, lambda start, _: spread[start // 2], ends)
    for path in (tmp_path / "train_30", found[::-1], [str(part) for part in found]):
        loaded = load(path, dataset, format="images")
        images = ProtectedDataset(dataset, loaded).to_tensors()[0].numpy()
        np.testing.assert_array_equal(images, after)
    assert loaded.config["imported"] == {"file": spread[0], "format": "images", "parts": 10}


@pytest.mark.parametrize("make", [npy, pickle.dumps, lambda r: saved(list(torch.from_numpy(r)))])
def test_part_10_comes_after_part_9(make, dataset, rows, tmp_path):
    found = parts(tmp_path / "p", rows, lambda start, _: f"part_{start}.npy", range(21), make)
    (tmp_path / "p" / "._part_0.npy").write_bytes(b"of macOS")
    (tmp_path / "p" / "log.txt").write_text("...")
    for path in (tmp_path / "p", sorted(found)):
        np.testing.assert_array_equal(load(path, dataset).rows, rows)


def test_files_without_numbers_keep_the_order_that_they_are_given_in(dataset, rows, tmp_path):
    one, other = parts(tmp_path, rows, lambda start, _: f"{'ab'[start > 0]}.npy", (0, 8, 20))
    np.testing.assert_array_equal(load([one, other], dataset).rows, rows)
    with pytest.raises(ValueError, match=r"differ only in their numbers.* got a\.npy and b\.npy"):
        load(tmp_path, dataset)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"p0": slice(0, 8), "p1": slice(8, 19)}, "20 images or 3 classes, got 19 rows in all"),
        ({"p0": slice(0, 8), "p00": slice(8, 20)}, "parts with different numbers"),
        ({"p0": slice(0, 8), "p1": slice(0, 20, 10)}, "got 10 rows in all"),
        ({"p0": slice(0, 20), "p1": slice(0, 20)}, "got 40 rows in all"),
    ],
)
def test_parts_that_do_not_fit(files, message, dataset, rows, tmp_path):
    for file, part in files.items():
        write(tmp_path / f"{file}.npy", npy(rows[part]))
    with pytest.raises(ValueError, match=message):
        load(tmp_path, dataset)


def test_parts_of_two_types(dataset, rows, tmp_path):
    write(tmp_path / "0.npy", npy(rows[:8]))
    write(tmp_path / "1.npy", npy(rows[8:] / 255))
    with pytest.raises(ValueError, match=r"parts of one type and shape, got int8 .* float64"):
        load(tmp_path, dataset)
    with pytest.raises(ValueError, match="at least one file"):
        load([], dataset)
    with pytest.raises(FileNotFoundError, match=r"2\.npy"):
        load([tmp_path / "0.npy", tmp_path / "2.npy"], dataset)
    with pytest.raises(ValueError, match="pass a folder without other paths"):
        load([tmp_path / "0.npy", tmp_path], dataset)


@pytest.mark.parametrize(
    "given", [[1, 2, 0], np.array([1, 2, 0]), {"c": 0, "a": 1, "b": 2}, {2: 0, 0: 1, 1: 2}]
)
def test_noise_of_another_class(given, dataset, rows, tmp_path):
    named = Arrays(dataset.data, dataset.targets)
    named.classes = ["a", "b", "c"]
    path = write(tmp_path / "file", saved(torch.from_numpy(rows[:CLASSES] / 255)))
    found = load(path, named, class_to_row=given)
    assert found.granularity == "class-wise"
    assert found.config["imported"]["class_to_row"] == [1, 2, 0]
    labels = np.array(dataset.targets)
    applied = dataset.data.transpose(0, 3, 1, 2) + rows[(labels + 1) % 3].astype(int)
    images = ProtectedDataset(named, found).to_tensors()[0].numpy()
    np.testing.assert_array_equal(images, applied.clip(0, 255))


def test_rows_of_more_and_of_fewer_classes(dataset, rows, tmp_path):
    path = write(tmp_path / "file", npy(rows[:7]))
    np.testing.assert_array_equal(load(path, dataset, class_to_row=[6, 0, 6]).rows, rows[[6, 0, 6]])
    write(tmp_path / "p0.npy", npy(rows[:4]))
    write(tmp_path / "p1.npy", npy(rows[4:7]))
    both = [tmp_path / "p1.npy", tmp_path / "p0.npy"]
    np.testing.assert_array_equal(load(both, dataset, class_to_row=[5, 0, 1]).rows, rows[[5, 0, 1]])


def test_rows_per_image_are_not_taken_for_those_of_classes(dataset, rows, tmp_path):
    path = write(tmp_path / "file", npy(rows))
    with pytest.raises(ValueError, match="rows of classes with class_to_row, got"):
        load(path, dataset, class_to_row=[1, 2, 0])
    found = load(path, dataset, class_to_row=[1, 2, 0], granularity="class-wise")
    np.testing.assert_array_equal(found.rows, rows[[1, 2, 0]])


@pytest.mark.parametrize(
    ("given", "options", "message"),
    [
        ([1, 2], {}, "row for each of 3 classes, got 2"),
        ([1, 2, 3], {}, "name rows from 0 to 2, got 3"),
        ([1, 2, -1], {}, "row in class_to_row"),
        ([1, 2, 1.5], {}, "row in class_to_row"),
        ({"cat": 1}, {}, "class name of the dataset, or each index, as a key"),
        ([1, 2, 0], {"granularity": "sample-wise"}, "only with class-wise rows"),
    ],
)
def test_class_to_row_that_does_not_fit(given, options, message, dataset, rows, tmp_path):
    path = write(tmp_path / "file", npy(rows[:CLASSES]))
    with pytest.raises(ValueError, match=message):
        load(path, dataset, class_to_row=given, **options)


def test_class_to_row_by_names_that_occur_twice(dataset, rows, tmp_path):
    named = Arrays(dataset.data, dataset.targets)
    named.classes = ["crane", "crane", "maillot"]
    path = write(tmp_path / "file", npy(rows[:CLASSES]))
    with pytest.raises(ValueError, match="names that occur twice"):
        load(path, named, class_to_row={"crane": 1, "maillot": 0})
    found = load(path, named, class_to_row={0: 1, 1: 2, 2: 0})
    np.testing.assert_array_equal(found.rows, rows[[1, 2, 0]])


def truncated(dataset, rows):
    """As uint8 by ``(images * 255).astype(uint8)``, which cuts off what comes after the comma."""
    clean = dataset.data.transpose(0, 3, 1, 2).astype(np.float32) / 255
    noise = rows.astype(np.float32) / 255 - np.float32(1e-4)
    return ((clean + noise).clip(0, 1) * 255).astype(np.uint8)


def test_images_that_were_truncated_beyond_their_budget_are_clipped_to_it(dataset, rows, tmp_path):
    clean = dataset.data.transpose(0, 3, 1, 2).astype(int)
    images = truncated(dataset, rows)
    beyond = (np.abs(images - clean).max(axis=(1, 2, 3)) > 8).sum()
    assert beyond > 10
    path = write(tmp_path / "file", npy(images))
    with pytest.warns(UserWarning, match=f"{beyond} of 20 rows reach 9/255, .*epsilon=9/255"):
        found = load(path, dataset)
    after = ProtectedDataset(dataset, found).to_tensors()[0].numpy()
    np.testing.assert_array_equal(after, images.astype(int).clip(clean - 8, clean + 8))
    whole = load(path, dataset, epsilon=9 / 255)  # without a warning
    after = ProtectedDataset(dataset, whole).to_tensors()[0].numpy()
    np.testing.assert_array_equal(after, images)


@pytest.mark.parametrize("change", [-2, 1])
def test_what_truncation_does_not_explain_is_refused(change, dataset, after, rows, tmp_path):
    images = np.clip(after.astype(int) + change * (rows == np.sign(change) * 8), 0, 255)
    path = write(tmp_path / "file", npy(images.astype(np.uint8)))
    with pytest.raises(
        ValueError, match=rf"{8 + abs(change)}/255 in row .*epsilon={8 + abs(change)}/255"
    ):
        load(path, dataset)


def test_levels_beyond_the_budget_are_not_clipped_but_for_rounding(dataset, rows, tmp_path):
    path = write(tmp_path / "file", npy(np.where(rows == -8, -9, rows).astype(np.int8)))
    with pytest.raises(ValueError, match=r"largest 9/255 .*epsilon=9/255 \(--epsilon"):
        load(path, dataset)
    path = write(tmp_path / "rounded", npy(rows))  # 7.65 levels, rounded
    with pytest.warns(UserWarning, match=r"20 of 20 rows reach 8/255, at most one level beyond"):
        found = load(path, dataset, epsilon=0.03)
    np.testing.assert_array_equal(found.rows, rows.clip(-7, 7))


def test_the_epsilon_that_an_error_names_fits(dataset, tmp_path):
    delta = np.random.default_rng(0).standard_normal((20, 3, *SIZE)) / 100
    path = write(tmp_path / "file", npy(delta))
    with pytest.raises(ValueError, match="would fit") as refused:
        load(path, dataset, epsilon=0.05, norm="L2")
    fits = float(str(refused.value).split("epsilon=")[1].split()[0])
    assert load(path, dataset, epsilon=fits, norm="L2").config["epsilon"] == fits


# --- what does not fit ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda r: r[:19], {}, r"N the 20 images or 3 classes of the dataset, got \(19,"),
        (lambda r: r[:, :1], {}, r"got \(20, 1, 8, 6\)"),
        (lambda r: r.transpose(0, 1, 3, 2), {}, r"got \(20, 3, 6, 8\)"),
        (lambda r: r[0], {}, r"got \(3, 8, 6\)"),
        (lambda r: r, {"granularity": "class-wise"}, "expected 3 class-wise rows, got 20"),
        (lambda r: r, {"epsilon": 4 / 255}, r"Linf 4/255, got 20 of 20 .* largest 8/255 in row 0"),
        (lambda r: r / 255, {"epsilon": 7.9 / 255}, r"largest 8/255 in row 0"),
        (lambda r: r.astype(float) * 2, {}, r"largest 16/255"),
        (lambda r: r / 10, {}, 'values up to 0.8; pass format="levels", "unit"'),
        (lambda r: r / 8, {}, "values up to 1; pass"),
        (lambda r: r / 10, {"format": "unit"}, r"largest 204/255"),
        (lambda r: r * np.nan, {}, "finite"),
        (lambda r: r * 0, {}, "change nothing"),
        (lambda r: r / 255, {"format": "levels"}, "change nothing"),
        (lambda r: r, {"format": "unit"}, "expected levels in an array of int8, got format='unit'"),
        (lambda r: r, {"format": "images"}, "expected levels in an array of int8"),
        (
            lambda r: r.astype(np.uint8),
            {"format": "levels"},
            "expected images in an array of uint8",
        ),
        (lambda r: r.astype(np.uint8)[:3], {"granularity": "class-wise"}, "one per image"),
        (lambda r: r.astype(int), {"format": "images"}, "from -8 to 8"),
        (lambda r: (r + 100).astype(np.uint8), {}, "images were made from, in the same order"),
        (lambda r: r.astype(bool), {}, "of type bool"),
        (lambda r: r.astype(complex), {}, "of type complex128"),
        (lambda r: r.astype(str), {}, "of type <U4"),
        (lambda r: r, {"epsilon": 8}, r"did you mean 8 / 255\?"),
        (lambda r: r, {"norm": "L1"}, "norm"),
        (lambda r: r, {"format": "png"}, "format"),
        (lambda r: r, {"granularity": "each"}, "granularity"),
    ],
)
def test_what_does_not_fit_is_refused(change, options, message, dataset, rows, tmp_path):
    with pytest.raises(ValueError, match=message):
        load(write(tmp_path / "file", npy(change(rows))), dataset, **options)


def test_one_row_beyond_the_budget_is_named(dataset, rows, tmp_path):
    changed = rows.copy()
    changed[13, 2, 1, 1] = -9
    changed[17, 2, 1, 1] = -128
    with pytest.raises(ValueError, match=r"got 2 of 20 beyond it, the largest 128/255 in row 17"):
        load(write(tmp_path / "file", npy(changed)), dataset)


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_the_lowest_integer_is_beyond_any_budget(norm, dataset, rows, tmp_path):
    changed = rows.astype(np.int64)
    changed[4, 0, 0, 0] = np.iinfo(np.int64).min
    with pytest.raises(ValueError, match=r"1 of 20 beyond it, .* in row 4"):
        load(
            write(tmp_path / "file", npy(changed)),
            dataset,
            norm=norm,
            epsilon=0.49 if norm == "Linf" else 9,
        )


def test_floats_of_unclear_unit_are_taken_as_said(dataset, rows, tmp_path):
    path = write(tmp_path / "file", npy(rows / 8))
    found = load(path, dataset, format="levels", epsilon=1 / 255)
    with pytest.raises(ValueError, match="at least 1 / 255"):
        load(path, dataset, format="levels", epsilon=0.5 / 255)
    np.testing.assert_array_equal(found.rows, np.rint(rows / 8))


def test_l2(dataset, tmp_path):
    rng = np.random.default_rng(0)
    delta = rng.standard_normal((20, 3, *SIZE))
    delta *= 0.5 / np.linalg.norm(delta.reshape(20, -1), axis=1)[:, None, None, None]
    floats = write(tmp_path / "floats", npy(delta))
    found = load(floats, dataset, epsilon=0.5, norm="L2")
    levels = np.rint(delta * 255).astype(np.int8)
    np.testing.assert_array_equal(found.rows, levels)
    whole = write(tmp_path / "whole", npy(levels))
    np.testing.assert_array_equal(load(whole, dataset, epsilon=0.5, norm="L2").rows, levels)
    for path in (floats, whole):
        with pytest.raises(ValueError, match=r"L2 0\.4, got 20 of 20 beyond it, the largest 0\.5"):
            load(path, dataset, epsilon=0.4, norm="L2")
    far = write(tmp_path / "far", npy(levels.astype(np.int16) * 20))
    with pytest.raises(ValueError, match="up to 127 levels"):
        load(far, dataset, epsilon=50, norm="L2")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (None, "expected 20 images in .*, got 19 and none for image 3"),
        ("20.png", "got 21"),
        ("003.png", "expected one image per index"),
        ("3.jpg", "JPEG"),
        ("cat.png", "named by their index, got cat|named by their index in"),
        ("³.png", "named by their index"),
        ("3.PNG", "expected one image per index"),
    ],
)
def test_folder_that_does_not_fit(name, message, dataset, after, tmp_path):
    for index, image in enumerate(nhwc(after)):
        Image.fromarray(image).save(tmp_path / f"{index}.png")
    if name is None:
        (tmp_path / "3.png").unlink()
    else:
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(ValueError, match=message):
        load(tmp_path, dataset)


def test_image_that_does_not_fit(dataset, after, tmp_path):
    for index, image in enumerate(nhwc(after)):
        Image.fromarray(image).save(tmp_path / f"{index}.png")
    with pytest.raises(ValueError, match="protected images"):
        load(tmp_path, dataset, format="levels")
    with pytest.raises(ValueError, match=r"1 channels at .*0\.png, got 3"):
        load(tmp_path, Arrays(dataset.data[..., 0], dataset.targets))
    Image.new("RGB", (6, 9)).save(tmp_path / "7.png")
    with pytest.raises(ValueError, match=r"image of 6x8 with 3 channels at .*7\.png, got 6x9"):
        load(tmp_path, dataset)
    (tmp_path / "7.png").write_bytes(b"no image")
    with pytest.raises(ArtefactError, match=r"7\.png"):
        load(tmp_path, dataset)


def test_several_arrays_are_not_guessed_between(dataset, rows, tmp_path):
    for content in (
        npz(a=rows, b=rows),
        saved({"a": torch.from_numpy(rows)} | {"b": torch.ones(1, 1, 1)}),
    ):
        with pytest.raises(ValueError, match="2 among a"):
            load(write(tmp_path / "file", content), dataset)
    with pytest.raises(ValueError, match="got 0 among labels"):
        load(write(tmp_path / "file", npz(labels=np.arange(20))), dataset)


def test_no_file(dataset, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load(tmp_path / "nowhere", dataset)
    with pytest.raises(ArtefactError, match="empty"):
        load(write(tmp_path / "file", b""), dataset)


# --- what is hostile -----------------------------------------------------------------------------

# Pickles put together opcode by opcode, so that they can hold what no dump would write.

BIG = b"\x8a\x06" + struct.pack("<Q", 1 << 40)[:6]
CLAIM = struct.pack("<Q", 1 << 40)


def program(*parts, protocol=2):
    return b"\x80" + bytes([protocol]) + b"".join(parts) + b"."


def text(value):
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def name(module, attribute):
    return f"c{module}\n{attribute}\n".encode()


def call(function, *arguments):
    return function + b"(" + b"".join(arguments) + b"tR"


CORE = np.zeros(1).__reduce__()[0].__module__  # numpy._core.multiarray, and another name before 2
RECONSTRUCT, NDARRAY = name(CORE, "_reconstruct"), name("numpy", "ndarray")
EMPTY = call(RECONSTRUCT, NDARRAY, b"K\x00\x85", b"C\x01b")
INT8 = call(name("numpy", "dtype"), text("i1"), b"\x89\x88") + (
    b"(K\x03" + text("|") + b"NNN" + b"J\xff\xff\xff\xff" * 2 + b"K\x00tb"
)


def array_of(data, shape=b"(K\x14K\x03K\x08K\x06t", dtype=INT8):
    return EMPTY + b"(K\x01" + shape + dtype + b"\x89" + data + b"tb"


NESTED = b")" + b"q\x00h\x00\x86" * 45  # a tuple whose hash or repr visits 2^45 others


def zeros(count):
    return b"B" + struct.pack("<I", count) + bytes(count)


def with_calls(marker):
    """Pickles that write the file ``marker`` when they are loaded as pickles are."""
    code, shell = f"__import__('pathlib').Path({str(marker)!r}).touch()", f"touch {marker}"
    system = call(name("os", "system"), text(shell))
    evaluate = call(name("builtins", "eval"), text(code))
    imported = call(name("builtins", "__import__"), text("os"))
    objects = (
        EMPTY
        + b"(K\x01K\x01\x85"
        + (
            call(name("numpy", "dtype"), text("O"), b"\x89\x88")
            + b"(K\x03"
            + text("|")
            + b"NNN"
            + b"J\xff\xff\xff\xff" * 2
            + b"K\x3ftb"
        )
        + b"\x89]("
        + evaluate
        + b"etb"
    )
    return {
        "os.system": program(system),
        "eval": program(evaluate),
        "exec": program(call(name("builtins", "exec"), text(code))),
        "getattr chain": program(
            call(call(name("builtins", "getattr"), imported, text("system")), text(shell))
        ),
        "dotted name": program(
            call(text("unlearnable.data.cache") + text("os.system") + b"\x93", text(shell)),
            protocol=4,
        ),
        "instance": b"(S'" + shell.encode() + b"'\nios\nsystem\n.",
        "object": program(b"(" + name("os", "system") + text(shell) + b"o"),
        "as the bytes of an array": program(array_of(evaluate + b"0" + zeros(20 * 144))),
        "as the shape of an array": program(
            array_of(zeros(20 * 144), shape=evaluate + b"0(K\x14K\x03K\x08K\x06t")
        ),
        "as the type of an array": program(array_of(zeros(20 * 144), dtype=system + b"0" + INT8)),
        "before an array": program(system, b"0", array_of(zeros(20 * 144))),
        "in an array of objects": program(objects),
        "in a dict": program(b"}" + text("rows") + evaluate + b"s"),
    }  # fmt: skip


OTHERS = {
    "ndarray of any size": program(call(NDARRAY, BIG)),
    "numpy.load": program(call(name("numpy", "load"), text("somewhere"))),
    "attribute of a stand-in": program(RECONSTRUCT, b"}" + text("__code__") + b"Nsb"),
    "state of a stand-in": program(name("numpy", "dtype"), b"NNK\x01\x87b"),
    "new object": program(name("numpy", "dtype"), text("i1"), b"\x85\x81"),
    "persistent id": program(text("a"), b"Q"),
    "extension": program(b"\x82\x01"),
    "extension of two bytes": program(b"\x83\x01\x01"),
    "extension of four bytes": program(b"\x84\x01\x01\x01\x01"),
    "twice the same": program(array_of(zeros(20 * 144)), b"20"),
    "nested key": b"\x80\x04})" + b"2\x86" * 90 + b"Ns.",
    "nested key by memo": program(b"}", NESTED, b"Ns"),
    "nested member": program(b"\x8f(", NESTED, b"\x90", protocol=4),
    "nested member of a frozen set": program(b"(", NESTED, b"\x91", protocol=4),
    "set": program(b"\x8f", protocol=4),
    "nested shape": program(array_of(zeros(20 * 144), shape=NESTED)),
    "nested byte order": program(
        array_of(zeros(20 * 144), dtype=INT8.replace(text("|"), NESTED))
    ),
    "nested order": program(
        call(name("numpy._core.numeric", "_frombuffer"), zeros(9), INT8, b"K\x09\x85", NESTED)
    ),
    "long name": program(name("a" * 10_000, "b")),
    "name in a dict": program(b"}" + text("n") + NDARRAY + b"s"),
    "name beside an array": program(b"](", array_of(zeros(20 * 144)), NDARRAY, b"e"),
    "list in lists": program(b"]" * 9, array_of(zeros(20 * 144)), b"a" * 9),
    "a list many times in many lists": program(
        b"]q\x00", *[b"0](" + bytes([104, i]) * 100 + bytes([101, 113, i + 1]) for i in range(3)]
    ),
    "itself": program(b"]q\x00h\x00a"),
    "key of a dict that is an array": program(b"}", array_of(zeros(20 * 144)), b"Ns"),
    "marks that are not there": program(b"te"),
    "encoding": program(call(name("_codecs", "encode"), text("ab"), text("rot13"))),
    "subclass": program(call(RECONSTRUCT, name("numpy", "dtype"), b"K\x00\x85", b"C\x01b")),
    "claimed shape": program(call(RECONSTRUCT, NDARRAY, BIG + b"\x85", b"C\x01b")),
    "claimed count": program(array_of(zeros(9), shape=b"(" + BIG + b"K\x03K\x08K\x06t")),
    "claimed bytes": program(b"\x8e" + CLAIM + b"abc", protocol=4),
    "claimed bytearray": program(b"\x96" + CLAIM + b"abc", protocol=5),
    "claimed text": program(b"\x8d" + CLAIM + b"abc", protocol=4),
    "claimed frame": program(b"\x95" + CLAIM + b"abc", protocol=4),
    "claimed memo": program(b"Nr\xff\xff\xff\x7f"),
    "many opcodes": program(b"N0" * 100_000, b"N"),
    "deep": program(b"N", b"\x85" * 100_000),
    "far memo": program(b"Np2147483647\n"),
    "many calls": program(EMPTY + b"0", *[call(NDARRAY, BIG) + b"0"] * 100, b"N"),
    "a name": program(NDARRAY),
    "attribute of a name": program(NDARRAY, b"N}" + text("name") + text("os.system") + b"s\x86b"),
    "call of a call": program(call(EMPTY, b"K\x01")),
    "bytes of a call": program(array_of(call(NDARRAY, BIG))),
    "type of a call": program(array_of(zeros(20 * 144), dtype=EMPTY)),
    "encoded number": program(array_of(call(name("_codecs", "encode"), b"K\x05", text("latin1")))),
    "shape of a name": program(array_of(zeros(20 * 144), shape=NDARRAY)),
    "state of a type": program(
        array_of(zeros(20 * 144), dtype=call(name("numpy", "dtype"), text("i1")) + b"(K\x03tb")
    ),
    "buffer": program(b"\x97", protocol=5),
    "next to the end": program(array_of(zeros(20 * 144)), b"K\x01"),
    "other module": program(call(name("numpy.core.multiarray", "ndarray"), BIG)),
    "submodule": program(call(name("numpy._core", "multiarray._reconstruct"), NDARRAY)),
    "nothing": program(b"N"),
    "no program": b"import os\nos.system('true')\n",
    "no state": program(EMPTY),
    "no end": program(array_of(zeros(20 * 144)))[:-1],
    "count below zero": program(array_of(b"C\x00", shape=b"(J\xff\xff\xff\xffK\x03K\x08K\x06t")),
    "count that is no number": program(array_of(zeros(20 * 144), shape=b"(" + text("20") + b"t")),
    "true as a count": program(array_of(zeros(144), shape=b"(\x88K\x03K\x08K\x06t")),
    "fewer bytes": program(array_of(zeros(20 * 144 - 1))),
    "no bytes": program(array_of(b"N")),
}  # fmt: skip


def test_the_parts_make_what_numpy_reads(dataset, tmp_path):
    content = program(array_of(b"B" + struct.pack("<I", 2880) + b"\x01" * 2880))
    np.testing.assert_array_equal(pickle.loads(content), np.ones((20, 3, *SIZE), np.int8))
    assert (load(write(tmp_path / "file", content), dataset).rows == 1).all()


@pytest.mark.parametrize("case", with_calls("marker"))
def test_a_pickle_that_calls_is_refused_and_does_not_run(case, dataset, tmp_path):
    marker = tmp_path / "marker"
    content = with_calls(marker)[case]
    with pytest.raises(ArtefactError, match="none of its code was run"):
        load(write(tmp_path / "file", content), dataset)
    assert not marker.exists()
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as made:
        made.writestr("archive/data.pkl", content)
        made.writestr("archive/version", "3\n")
        made.writestr("archive/byteorder", "little")
    legacy = saved(torch.zeros(1), zipped=False)[:15] + content
    assert legacy.startswith(b"\x80\x02\x8a\nl\xfc")
    for other in (archive.getvalue(), legacy):
        with pytest.raises(ArtefactError, match="torch file that contains only tensors"):
            load(write(tmp_path / "file", other), dataset)
    assert not marker.exists()
    with contextlib.suppress(pickle.UnpicklingError, TypeError, ValueError):  # after the call
        pickle.loads(content)
    assert marker.exists(), "this would not have run anyway"


@pytest.mark.parametrize("case", OTHERS)
def test_a_pickle_of_anything_else_is_refused(case, dataset, tmp_path):
    path = write(tmp_path / "file", OTHERS[case])
    load_it = pytest.raises(ArtefactError, match=r"pickle of only a NumPy array|complete array")
    tracemalloc.start()
    try:
        with load_it as refused:
            load(path, dataset)
        assert len(str(refused.value)) < 1000
        assert tracemalloc.get_traced_memory()[1] < 20 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("axes", [(0, 2, 3, 1), (0, 1, 3, 2)])
def test_an_array_that_lies_otherwise_is_read_rightly_or_refused(axes, fit, tmp_path):
    rows = np.random.default_rng(1).integers(-8, 9, (20, 3, 8, 8), dtype=np.int8)
    images = Arrays(np.zeros((20, 8, 8, 3), np.uint8), np.arange(20) % CLASSES)
    other = np.ascontiguousarray(rows.transpose(axes)).transpose(np.argsort(axes))
    path = write(tmp_path / "file", pickle.dumps(other, protocol=5))
    try:
        found = load(path, images)
    except ArtefactError:
        assert axes == (0, 1, 3, 2)
    else:
        np.testing.assert_array_equal(found.rows, rows)


@pytest.mark.parametrize("dtype", ["O", "V4", "S4", "U1", "b1", "c8", "M8", "i3", "", "i1,i1"])
def test_a_pickled_array_of_another_type_is_refused(dtype, dataset, tmp_path):
    other = INT8.replace(text("i1"), text(dtype))
    path = write(tmp_path / "file", program(array_of(zeros(20 * 144), dtype=other)))
    with pytest.raises(ValueError, match="integers or floats"):
        load(path, dataset)


def header(shape, descr="|i1", version=1):
    text = repr({"descr": descr, "fortran_order": False, "shape": shape}).encode() + b"\n"
    size = struct.pack("<H" if version == 1 else "<I", len(text))
    return b"\x93NUMPY" + bytes([version, 0]) + size + text


def archive_of(name, content, method=zipfile.ZIP_STORED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        archive.writestr(name, content)
    return file.getvalue()


def hostile_arrays():
    objects = np.empty((20, 3, *SIZE), object)
    shape = (20, 3, *SIZE)
    bomb = b"\x93NUMPY\x02\x00" + struct.pack("<I", 1 << 28) + b" " * (1 << 20)
    tensors = torch.zeros(shape, dtype=torch.int8)
    return {
        "object npy": npy(objects),
        "object npz": npz(a=objects),
        "claimed count": header((1 << 40, 3, *SIZE)) + bytes(9),
        "claimed size": header(shape) + bytes(9),
        "claimed size in npz": archive_of("a.npy", header(shape) + bytes(9)),
        "claimed count in npz": archive_of("a.npy", header((1 << 40, 3, *SIZE))),
        "claimed header": bomb,
        "claimed header in npz": archive_of("a.npy", bomb, zipfile.ZIP_DEFLATED),
        "code as header": b"\x93NUMPY\x01\x00\x10\x00__import__('os')",
        "nested header": b"\x93NUMPY\x01\x00\x00\x20" + b"(" * 0x2000,
        "other version": header(shape, version=2) + bytes(20 * 144),
        "no archive": b"PK\x03\x04" + bytes(40),
        "empty archive": b"PK\x05\x06" + bytes(18),
        "truncated npz": npz(a=np.zeros(shape, np.int8))[:-200],
        "truncated tensor": saved(tensors)[:-200],
        "truncated old tensor": saved(tensors, zipped=False)[:-200],
        "deflated tensor": archive_of("a/data.pkl", bytes(1 << 20), zipfile.ZIP_DEFLATED),
        "expanded tensor": saved(torch.zeros(1, dtype=torch.int8).expand(1 << 40, 3, *SIZE)),
        "sparse tensor": saved(torch.zeros(shape).to_sparse()),
        "meta tensor": saved(torch.empty(shape, device="meta")),
        "complex tensor": saved(torch.zeros(shape, dtype=torch.complex64)),
        "module": saved(torch.nn.Linear(2, 2)),
        "state dict": saved(torch.nn.Linear(2, 2).state_dict()),
        "number": saved(5),
    }


@pytest.mark.parametrize("case", hostile_arrays())
def test_hostile_arrays_and_tensors_are_refused(case, dataset, tmp_path):
    path = write(tmp_path / "file", hostile_arrays()[case])
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="expected"):
            load(path, dataset)
        assert tracemalloc.get_traced_memory()[1] < 20 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("case", ["REM and SEM", "pickle 2", "EM", "EM, older torch", "npz"])
def test_a_damaged_file_is_read_rightly_or_refused(case, dataset, rows, tmp_path):
    whole = DELTAS[case](rows)
    rng = np.random.default_rng(0)
    for number in range(45):
        changed = bytearray(whole)
        if number % 3 == 0:
            del changed[int(rng.integers(len(whole))) :]
        else:
            place = int(rng.integers(min(len(whole), 400) if number % 3 == 1 else len(whole)))
            changed[place] ^= 1 << int(rng.integers(8))
        try:
            found = load(write(tmp_path / "file", bytes(changed)), dataset)
        except ValueError:
            continue
        assert found.rows.shape == rows.shape and np.abs(found.rows.astype(int)).max() <= 8


@pytest.mark.parametrize("kind", [np.float64, np.array, torch.tensor])
def test_an_epsilon_of_any_type(kind, dataset, rows, tmp_path):
    path = write(tmp_path / "file", npy(rows))
    found = load(path, dataset, epsilon=kind(EIGHT))
    assert type(found.config["epsilon"]) is float
    if kind is not torch.tensor:  # which is a float32
        assert found.digest == load(path, dataset).digest


@pytest.mark.parametrize("epsilon", [True, None, "8/255", float("nan"), np.True_])
def test_an_epsilon_that_is_no_number(epsilon, dataset, rows, tmp_path):
    with pytest.raises(ValueError, match="epsilon to be a finite number"):
        load(write(tmp_path / "file", npy(rows)), dataset, epsilon=epsilon)


# --- command line --------------------------------------------------------------------------------


def test_command_line(tmp_path, capsys):
    rows = np.random.default_rng(0).integers(-8, 9, (20, 3, 32, 32), dtype=np.int8)
    path = write(tmp_path / "rem.pkl", pickle.dumps(rows))
    arguments = ["import", str(path), "shapes:20", str(tmp_path / "p"), "--method", "REM"]
    assert main([*arguments, "--epsilon", "4/255"]) == 1
    assert "the largest 8/255" in capsys.readouterr().err
    assert not (tmp_path / "p").exists()
    assert main([*arguments, "--epsilon", "8/255", "--format", "levels"]) == 0
    assert "REM" in capsys.readouterr().out
    np.testing.assert_array_equal(ue.Perturbation.from_pretrained(tmp_path / "p").rows, rows)
    assert main([*arguments, "--epsilon", "8/255"]) == 0, "a folder of ours is written again"


def test_parts_and_classes_on_the_command_line(tmp_path):
    rows = np.random.default_rng(0).integers(-8, 9, (20, 3, 32, 32), dtype=np.int8)
    found = [write(tmp_path / f"part_{i}.npy", npy(rows[2 * i : 2 * i + 2])) for i in range(10)]
    options = ["--method", "SEP", "--epsilon", "8/255"]
    out = tmp_path / "p"
    assert main(["import", *map(str, found[::-1]), "shapes:20", str(out), *options]) == 0
    np.testing.assert_array_equal(ue.Perturbation.from_pretrained(out).rows, rows)
    classes = [str((index + 1) % 10) for index in range(10)]
    noise = str(write(tmp_path / "noise.npy", npy(rows[:10])))
    arguments = ["import", noise, "shapes:20", str(tmp_path / "q"), *options]
    assert main([*arguments, "--class-to-row", *classes]) == 0
    shifted = ue.Perturbation.from_pretrained(tmp_path / "q")
    np.testing.assert_array_equal(shifted.rows, np.roll(rows[:10], -1, axis=0))


@pytest.mark.parametrize("dtype", [np.uint64, np.bool_, np.complex64])
def test_safetensors_of_other_types_are_refused_as_other_files_are(dtype, dataset, tmp_path):
    try:
        content = save_arrays({"x": np.ones((20, 3, *SIZE), dtype)})
    except SafetensorError:
        pytest.skip("this version of safetensors writes no such files")
    path = write(tmp_path / "rows", content)
    with pytest.raises(ValueError, match="integers or floats"):
        load(path, dataset)


def test_integers_of_small_norm_are_not_excused_by_rounding(dataset, tmp_path):
    rows = np.random.default_rng(0).choice([-1, 1], (20, 3, *SIZE)).astype(np.int8)
    norm = math.sqrt(rows[0].size) / 255
    path = write(tmp_path / "rows", npy(rows))
    assert load(path, dataset, epsilon=norm, norm="L2").rows.any()
    with pytest.raises(ValueError, match="20 of 20 beyond it"):
        load(path, dataset, epsilon=norm / 2, norm="L2")


def test_an_array_of_objects_that_unpacks_to_far_more_than_its_file_is_refused(dataset, tmp_path):
    header = io.BytesIO()
    described = {"descr": "|O", "fortran_order": False, "shape": ()}
    np.lib.format.write_array_header_1_0(header, described)
    path = tmp_path / "rows.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", header.getvalue() + b"\x80\x04\x8e" + bytes(1 << 24))
    with pytest.raises(ArtefactError, match="unpacks to at most"):
        load(path, dataset)


@pytest.mark.parametrize("count", ["-1", "True", "0"])
def test_counts_that_are_no_numbers_of_rows(count, dataset, tmp_path):
    header = f"{{'descr': '|i1', 'fortran_order': False, 'shape': ({count}, 3, 8, 6), }}"
    header += " " * ((64 - (len(header) + 11) % 64) % 64) + "\n"
    content = b"\x93NUMPY\x01\0" + len(header).to_bytes(2, "little") + header.encode()
    path = write(tmp_path / "rows", content + bytes(5000))
    with pytest.raises(ValueError, match=r"with N from 1 to"):
        load(path, dataset, class_to_row=[0] * CLASSES)


def test_an_empty_part_is_named(dataset, after, tmp_path):
    whole, empty = write(tmp_path / "p0", npy(after)), write(tmp_path / "p1", npy(after[:0]))
    with pytest.raises(ValueError, match=r"got \(0, "):
        load([whole, empty], dataset)


@pytest.mark.parametrize("wrong", [None, 5, np.zeros((20, 3, *SIZE), np.int8)], ids=type)
def test_what_is_no_path_is_refused(wrong, dataset):
    with pytest.raises(TypeError, match="expected the path of a file or a folder"):
        load(wrong, dataset)


def test_a_name_that_no_file_can_have(dataset):
    for name in ("", "a" * 5000):
        with pytest.raises(FileNotFoundError, match="which does not exist"):
            load(name, dataset)


def test_class_to_row_of_another_kind(dataset, rows, tmp_path):
    path = write(tmp_path / "rows", npy(rows))
    for wrong in (1, "012"):
        with pytest.raises(TypeError, match="expected class_to_row to be a list"):
            load(path, dataset, class_to_row=wrong)


# --- names of files and classes ------------------------------------------------------------------


@pytest.fixture(scope="module")
def photos(dataset, tmp_path_factory):
    """The images as class folders, in another order than the dataset's."""
    folder = tmp_path_factory.mktemp("photos")
    for index, (pixels, label) in enumerate(zip(dataset.data, dataset.targets, strict=True)):
        path = folder / "abc"[label] / f"n_{index * 7 % 20}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(path)
    return ImageFolder(folder)


@pytest.fixture(scope="module")
def files(photos):
    return [Path(path).relative_to(photos.root).as_posix() for path, _ in photos.samples]


SPELLINGS = {
    "from the folder on": str,
    "alone": lambda file: file[2:],
    "without ending": lambda file: file[:-4],
    "alone without ending": lambda file: file[2:-4],
    "with another ending": lambda file: f"{file[:-4]}.JPEG",
    "of another machine": lambda file: f"/home/x/train/{file}",
    "of Windows": lambda file: f"C:\\train\\{file[0]}\\{file[2:]}",
}
CONTAINERS = {
    "pickle": pickle.dumps,
    "torch": lambda found: saved({k: torch.from_numpy(v) for k, v in found.items()}),
    "npz": lambda found: npz(**found),
    "safetensors": save_arrays,
    "under a key": lambda found: pickle.dumps({"noise": found, "eps": np.float32(EIGHT)}),
    "NHWC": lambda found: pickle.dumps({k: v.transpose(1, 2, 0) for k, v in found.items()}),
    "rows of one": lambda found: pickle.dumps({k: v[None] for k, v in found.items()}),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_arrays_by_the_names_of_files(spelling, photos, files, rows, tmp_path):
    found = {SPELLINGS[spelling](files[index]): rows[index] for index in shuffled(rows)}
    path = write(tmp_path / "file", pickle.dumps(found))
    np.testing.assert_array_equal(load(path, photos).rows, rows)
    some = shuffled(rows)[:12]
    found = {SPELLINGS[spelling](files[index]): rows[index] for index in sorted(some)}
    path = write(tmp_path / "file", pickle.dumps(found))
    np.testing.assert_array_equal(load(path, Subset(photos, some)).rows, rows[some])


@pytest.mark.parametrize("container", CONTAINERS)
def test_any_file_of_arrays_by_names(container, photos, files, rows, tmp_path):
    found = {files[index]: np.ascontiguousarray(rows[index]) for index in shuffled(rows)}
    path = write(tmp_path / "file", CONTAINERS[container](found))
    np.testing.assert_array_equal(load(path, photos).rows, rows)


@pytest.mark.parametrize("granularity", ["sample-wise", "class-wise"])
def test_names_that_macos_spells_otherwise(granularity, rows, tmp_path):
    for letter in "éü":
        (tmp_path / "photos" / letter).mkdir(parents=True)
        pixels = np.full((*SIZE, 3), ord(letter), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / letter / f"file {letter}.png")
    photos = ImageFolder(tmp_path / "photos")
    start = "file " * (granularity == "sample-wise")
    names = [unicodedata.normalize("NFD", start + letter) for letter in "üé"]
    path = write(tmp_path / "file", pickle.dumps(dict(zip(names, rows[[1, 0]], strict=True))))
    np.testing.assert_array_equal(load(path, photos, granularity=granularity).rows, rows[:2])


def changed_names(files, rows):
    found = dict(zip(files, rows, strict=True))
    return {
        "got none for a/n_0.png;": {k: v for k, v in found.items() if k != "a/n_0.png"},
        "arrays of other names: a/other.png;": found | {"a/other.png": rows[0]},
        "'a/n_0.png' and 'a/n_0' for a/n_0.png": found | {"a/n_0": rows[0]},
        "none for b/n_.*: c/n_": {k.replace("b/", "c/"): v for k, v in found.items()},
        "names of all its files, such as a/n_0.png, got xa/": {f"x{k}": found[k] for k in found},
        "one row for each file": {k: v[None] for k, v in found.items()}
        | {files[0]: rows[:2], files[1]: rows[:0]},
    }


@pytest.mark.parametrize("number", range(6))
def test_names_that_are_not_those_of_all_files(number, photos, files, rows, tmp_path):
    message, found = list(changed_names(files, rows).items())[number]
    with pytest.raises(ValueError, match=message):
        load(write(tmp_path / "file", pickle.dumps(found)), photos)


def test_names_without_files_say_what_is_needed(dataset, files, rows, tmp_path):
    found = dict(zip(files, rows, strict=True))
    for content in (pickle.dumps(found), npz(**found)):
        with pytest.raises(ValueError, match=r"\(it lists none\), got a/.*numpy\.save"):
            load(write(tmp_path / "file", content), dataset)


def test_a_name_of_several_files_is_refused(rows, tmp_path):
    data = np.random.default_rng(0).integers(0, 256, (2, *SIZE, 3), dtype=np.uint8)
    for name, pixels in zip("ab", data, strict=True):
        (tmp_path / "photos" / name).mkdir(parents=True)
        Image.fromarray(pixels).save(tmp_path / "photos" / name / "1.png")
    photos = ImageFolder(tmp_path / "photos")
    path = write(tmp_path / "file", pickle.dumps({"1.png": rows[0], "x/1.png": rows[1]}))
    with pytest.raises(ValueError, match="several files"):
        load(path, photos, granularity="sample-wise")
    path = write(tmp_path / "file", pickle.dumps({"b/1.png": rows[0], "x/a/1.png": rows[1]}))
    found = load(path, photos, granularity="sample-wise")
    np.testing.assert_array_equal(found.rows, rows[[1, 0]])


def test_indices_that_are_also_names_of_files_in_another_order(dataset, rows, tmp_path):
    for index, pixels in enumerate(dataset.data):
        (tmp_path / "photos" / "ab"[index % 2]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "photos" / "ab"[index % 2] / f"{index:02}.png")
    photos = ImageFolder(tmp_path / "photos")
    order = [*range(0, 20, 2), *range(1, 20, 2)]
    for found in ({f"{i:02}.png": rows[i] for i in range(20)}, dict(enumerate(rows[order]))):
        path = write(tmp_path / "file", pickle.dumps(found))
        np.testing.assert_array_equal(load(path, photos).rows, rows[order])
    (tmp_path / "parts").mkdir()
    for index in range(20):
        np.save(tmp_path / "parts" / f"{index:02}.npy", rows[index])
    both = {f"{index:02}": rows[index] for index in range(20)}
    for path in (
        write(tmp_path / "file", pickle.dumps(both)),
        write(tmp_path / "file.npz", npz(**both)),
        tmp_path / "parts",
    ):
        with pytest.raises(ValueError, match="either indices or names of files, got '00'"):
            load(path, photos)
        np.testing.assert_array_equal(load(path, dataset).rows, rows)


def test_a_file_per_image_is_found_by_its_name(photos, files, rows, tmp_path):
    # Sorted as numbers, n_2 would come before n_10, and so before the file that ImageFolder has.
    for name, row in zip(files, rows, strict=True):
        np.save(tmp_path / f"{name[2:-4]}.npy", row)
    np.testing.assert_array_equal(load(tmp_path, photos).rows, rows)
    (tmp_path / "n_0.npy").rename(tmp_path / "n_77.npy")
    with pytest.raises(ValueError, match=r"none for a/n_0\.png"):
        load(tmp_path, photos)
    (tmp_path / "deep").mkdir()
    for path in list(tmp_path.glob("*.npy")):
        path.rename(tmp_path / "deep" / path.name)
    with pytest.raises(ValueError, match="in folders below it, such as"):
        load(tmp_path, photos)


def test_a_folder_of_images_with_the_names_of_the_datasets(photos, files, after, tmp_path):
    order = [int(Path(file).stem[2:]) * 3 % 20 for file in files]  # 7 * 3 = 1 mod 20
    for name, index in zip(files, order, strict=True):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(after[index].transpose(1, 2, 0)).save(path)
    protected = ProtectedDataset(photos, load(tmp_path, photos))
    np.testing.assert_array_equal(protected.to_tensors()[0].numpy(), after[order])
    (tmp_path / files[0]).unlink()
    with pytest.raises(ValueError, match=rf"none for {files[0]}"):
        load(tmp_path, photos)


def test_rows_of_classes_by_their_names(photos, rows, tmp_path):
    path = write(tmp_path / "file", pickle.dumps({name: rows["abc".index(name)] for name in "cab"}))
    np.testing.assert_array_equal(load(path, photos, granularity="class-wise").rows, rows[:3])
    path = write(tmp_path / "file", pickle.dumps(dict.fromkeys("ca", rows[0])))
    with pytest.raises(ValueError, match="got none for b"):
        load(path, photos, granularity="class-wise")


def test_files_that_are_named_as_classes_are(photos, rows, tmp_path):
    for name, row in zip("abc", rows, strict=False):
        np.save(tmp_path / f"{name}.npy", row)
    found = load([tmp_path / f"{name}.npy" for name in "cab"], photos, granularity="class-wise")
    np.testing.assert_array_equal(found.rows, rows[:3])


class Named(Arrays):
    classes = ("a", "b", "c")


def by_class(dataset, rows):
    return [rows[np.array(dataset.targets) == label] for label in range(CLASSES)]


def test_rows_of_images_by_the_names_of_their_classes(dataset, rows, tmp_path):
    named = Named(dataset.data, dataset.targets)
    found = dict(zip("abc", by_class(dataset, rows), strict=True))
    for content in (pickle.dumps({name: found[name] for name in "cab"}), npz(**found)):
        np.testing.assert_array_equal(load(write(tmp_path / "f", content), named).rows, rows)
    other = found | {"a": found["a"][1:], "c": np.concatenate([found["c"], rows[:1]])}
    with pytest.raises(ValueError, match=r"each of the 7 images of a .*, got 6"):
        load(write(tmp_path / "f", pickle.dumps(other)), named)


def test_rows_of_each_class_are_not_joined_as_if_they_were_in_order(
    dataset, photos, rows, tmp_path
):
    parts = by_class(dataset, rows)
    tensors = list(map(torch.from_numpy, parts))
    for content in (pickle.dumps(parts), saved(dict(enumerate(tensors))), npz(*parts)):
        with pytest.raises(ValueError, match="may be those of each class"):
            load(write(tmp_path / "file", content), dataset)
    parts = [rows[:7], rows[7:14], rows[14:]]  # the same numbers, but in the dataset's order
    found = load(write(tmp_path / "file", pickle.dumps(parts)), photos)
    np.testing.assert_array_equal(found.rows, rows)


@pytest.mark.parametrize("names", [["class_0", "class_1", "class_2"], ["of a", "of b", "of c"]])
def test_files_of_each_class_are_not_joined_as_if_they_were_in_order(
    names, dataset, rows, tmp_path
):
    found = [tmp_path / f"{name}.npy" for name in names]
    for path, part in zip(found, by_class(dataset, rows), strict=True):
        np.save(path, part)
    with pytest.raises(ValueError, match="as many rows as the classes have images"):
        load(found, Named(dataset.data, dataset.targets))


def test_labels_in_another_order_are_reported(dataset, rows, tmp_path):
    order, ours = shuffled(rows), np.array(dataset.targets)
    theirs = ours[order]
    for labels, reported in ((ours, False), (theirs, True)):
        for content in (
            saved((torch.from_numpy(rows), torch.from_numpy(labels))),
            pickle.dumps({"noise": rows, "y": labels.tolist(), "index": np.arange(20)}),
            npz(noise=rows, labels=labels),
        ):
            warned = pytest.warns(UserWarning, match="rows are in another order")
            with warned if reported else contextlib.nullcontext():
                load(write(tmp_path / "file", content), dataset)


@pytest.mark.parametrize("std", [0.25, 0.3])
def test_normalised_images_are_not_taken_for_levels(std, dataset, after, tmp_path):
    images = ((after / 255 - 0.5) / std).astype(np.float32)
    path = write(tmp_path / "file", npy(images))
    with pytest.raises(ValueError, match="normalised images"):
        load(path, dataset)
    load(path, dataset, format="levels")
    np.save(path.with_suffix(".npy"), images * std + 0.5)
    protected = ProtectedDataset(dataset, load(path.with_suffix(".npy"), dataset, format="images"))
    np.testing.assert_array_equal(protected.to_tensors()[0].numpy(), after)


def test_what_else_a_torch_file_names_is_said(dataset, rows, tmp_path):
    content = saved({"noise": torch.from_numpy(rows), "args": argparse.Namespace(eps=8)})
    with pytest.raises(ArtefactError, match=r"it names argparse\.Namespace; none of its code"):
        load(write(tmp_path / "file", content), dataset)


def test_a_pointer_in_place_of_a_large_file_is_named(dataset, rows, tmp_path):
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"
    with pytest.raises(ArtefactError, match="pointer of Git LFS to it; run 'git lfs pull'"):
        load(write(tmp_path / "em.pt", pointer), dataset)
    folder = load(write(tmp_path / "file", npy(rows)), dataset).save_pretrained(tmp_path / "saved")
    write(folder / "perturbation.safetensors", pointer)
    with pytest.raises(ArtefactError, match="pointer of Git LFS to it; run 'git lfs pull'"):
        ue.Perturbation.from_pretrained(folder)


def test_names_in_a_file_do_not_reach_the_terminal_as_they_are(dataset, rows, tmp_path):
    one = {f"\x1b[31m\n{index}": row for index, row in enumerate(rows)}
    for found in (one, {f"\x1b[31m\n{index}": rows for index in range(2)}):
        with pytest.raises(ValueError, match=r"\[31m 0") as refused:
            load(write(tmp_path / "file", pickle.dumps(found)), dataset)
        assert str(refused.value).isprintable()
