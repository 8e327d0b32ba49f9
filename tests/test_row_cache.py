"""Rows that are computed once, and read again from a temporary file."""

import multiprocessing
import os

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import unlearnable as ue
from unlearnable.data.fingerprint import image_keys
from unlearnable.datasets import Shapes
from unlearnable.perturbation.kinds import row_cache
from unlearnable.perturbation.kinds.row_cache import RowCache

SHAPE = (1, 4, 5)
SIZE = 20
pytestmark = pytest.mark.skipif(not hasattr(os, "pread"), reason="only where pread is")


class Computed:
    """Rows that follow from class and key, and a record of those that were asked for."""

    def __init__(self):
        self.keys = []

    def __call__(self, labels, keys):
        self.keys += keys.tolist()
        rows = (labels[:, None] * 7 + keys[:, None].astype(np.int64) + np.arange(SIZE)) % 127
        return rows.astype(np.int8).reshape(-1, *SHAPE)


def ask(cache, *pairs):
    labels, keys = np.array(pairs, dtype=np.int64).T
    return cache.rows(labels, keys.astype(np.uint64))


def expected(*pairs):
    labels, keys = np.array(pairs, dtype=np.int64).T
    return Computed()(labels, keys.astype(np.uint64))


def test_each_row_is_computed_once_and_comes_back_the_same():
    computed = Computed()
    cache = RowCache(SHAPE, computed)
    pairs = [(0, 5), (3, 9), (1, 1 << 62)]
    for wanted in (pairs, pairs[::-1], pairs[1:]):
        np.testing.assert_array_equal(ask(cache, *wanted), expected(*wanted))
    assert computed.keys == [5, 9, 1 << 62]


def test_the_key_zero_of_class_zero_is_not_taken_for_an_empty_place():
    computed = Computed()
    cache = RowCache(SHAPE, computed)
    for _ in range(2):
        np.testing.assert_array_equal(ask(cache, (0, 0)), expected((0, 0)))
    assert computed.keys == [0]


def test_the_same_key_in_another_class_is_another_row():
    cache = RowCache(SHAPE, Computed())
    for pair in [(0, 5), (1, 5), (0, 5), (1, 5)]:
        np.testing.assert_array_equal(ask(cache, pair), expected(pair))


def test_rows_that_share_their_places_are_right_however_often_they_replace_one_another(monkeypatch):
    monkeypatch.setattr(row_cache, "_MOST", 3 * (SIZE + 20))
    computed = Computed()
    cache = RowCache(SHAPE, computed)
    pairs = [(n % 3, n << 30) for n in range(11)]
    for _ in range(3):
        np.testing.assert_array_equal(ask(cache, *pairs), expected(*pairs))
    assert len(computed.keys) > 11


def test_a_row_that_is_half_written_is_computed_again():
    computed = Computed()
    cache = RowCache(SHAPE, computed)
    ask(cache, (2, 0))
    os.pwrite(cache._file.fileno(), b"\x55", 25)  # inside of the first record's row
    np.testing.assert_array_equal(ask(cache, (2, 0)), expected((2, 0)))
    assert computed.keys == [0, 0]
    np.testing.assert_array_equal(ask(cache, (2, 0)), expected((2, 0)))
    assert computed.keys == [0, 0]


def test_a_full_disk_only_costs_time(monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    computed = Computed()
    cache = RowCache(SHAPE, computed)
    ask(cache, (1, 1))
    monkeypatch.setattr(os, "pwrite", full)
    for _ in range(2):
        np.testing.assert_array_equal(ask(cache, (1, 1), (2, 2)), expected((1, 1), (2, 2)))
    assert computed.keys == [1, 2, 1, 2]


def test_rows_larger_than_the_file_may_be_are_computed(monkeypatch):
    monkeypatch.setattr(row_cache, "_MOST", SIZE)
    computed = Computed()
    cache = RowCache(SHAPE, computed)
    for _ in range(2):
        np.testing.assert_array_equal(ask(cache, (1, 1)), expected((1, 1)))
    assert computed.keys == [1, 1]


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork")
def test_forked_workers_find_what_others_computed():
    computed = Computed()
    cache = RowCache(SHAPE, computed)
    worker = multiprocessing.get_context("fork").Process(target=ask, args=(cache, (1, 3)))
    worker.start()
    worker.join()
    np.testing.assert_array_equal(ask(cache, (1, 3)), expected((1, 3)))
    assert computed.keys == []


@pytest.mark.parametrize("method", [ue.AR, ue.LSP])
def test_every_epoch_of_a_loader_gives_the_rows_that_are_computed(method):
    dataset = Shapes(size=24)
    protected = method().fit(dataset, progress=False).protect(dataset)
    kind = protected.perturbation._kind
    clean = dataset.data.transpose(0, 3, 1, 2)
    rows = kind.levels(np.array(dataset.targets), np.array(image_keys(clean), np.uint64))
    expected = torch.from_numpy((clean.astype(np.int16) + rows).clip(0, 255).astype(np.uint8))
    loader = DataLoader(protected.without_transforms(), 8, collate_fn=list)
    for epoch in range(2):
        if epoch:
            kind._cache._compute = None
        images = [np.asarray(image) for batch in loader for image, _ in batch]
        assert torch.equal(torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2), expected)
