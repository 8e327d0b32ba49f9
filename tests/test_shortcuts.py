"""OPS, ClassConvolution, LSP and AR: each computes exactly what its paper says."""

import itertools

import numpy as np
import pytest
import torch

import unlearnable as ue
from unlearnable.datasets import Shapes
from unlearnable.engine.run import Run
from unlearnable.methods.ar import _filter, _left, _moments
from unlearnable.perturbation.kinds.generators import GENERATORS, MARGIN, autoregress
from unlearnable.perturbation.quantize import UNIT

METHODS = [ue.OPS, ue.ClassConvolution, ue.LSP, ue.AR]


def random_set(classes, shape, each=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (classes * each, *shape), dtype=torch.uint8, generator=generator)
    return images, [index % classes for index in range(classes * each)]


def fit(method, dataset):
    return method.fit(dataset, progress=False).perturbation_


@pytest.mark.parametrize("classes", [2, 7, 100])
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (3, 64, 48)])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.slow
def test_any_number_of_classes_and_any_shape(method, classes, shape):
    dataset = random_set(classes, shape)
    fitted = method().fit(dataset, progress=False)
    protected = fitted.protect(dataset).to_tensors()[0]
    assert protected.shape == dataset[0].shape
    change = (protected.int() - dataset[0].int()).flatten(1)
    assert change.any(1).float().mean() > 0.9
    if method in (ue.LSP, ue.AR):
        norms = 255 * fitted.perturbation_.config["epsilon"]
        assert change.float().norm(dim=1).max() <= norms + 0.5 * change.shape[1] ** 0.5
    if method is ue.OPS:
        places = fitted.perturbation_.tensors["positions"].reshape(-1, 2)
        assert len(np.unique(places, axis=0)) == classes
        assert (change.reshape(len(change), shape[0], -1).any(1).sum(1) <= 1).all()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", [(3, 1, 1), (1, 2, 9), (1, 1, 5)])
def test_tiny_images_work_or_are_refused_with_a_reason(method, shape):
    dataset = random_set(7, shape)
    try:
        fitted = method().fit(dataset, progress=False)
    except ValueError as error:
        assert "expected" in str(error) and "got" in str(error)
    else:
        assert fitted.protect(dataset).to_tensors()[0].shape == dataset[0].shape


@pytest.mark.parametrize(
    ("method", "wrong", "message"),
    [
        (ue.OPS, {"pixels": 0}, "pixels"),
        (ue.OPS, {"pixels": 1.5}, "pixels"),
        (ue.ClassConvolution, {"kernel_size": 4}, "odd"),
        (ue.ClassConvolution, {"kernel_size": 1}, "odd"),
        (ue.ClassConvolution, {"kernel_size": 99}, "kernel_size=99"),
        (ue.ClassConvolution, {"blur": 0}, "blur"),
        (ue.ClassConvolution, {"normalize": "mean"}, "max"),
        (ue.LSP, {"cell": 0}, "cell"),
        (ue.LSP, {"separation": 0}, "separation"),
        (ue.LSP, {"cell": 32}, "smaller cells"),
        (ue.LSP, {"epsilon": 0}, "epsilon > 0"),
        (ue.LSP, {"epsilon": 8 / 255}, r"at least 0\.109 for images of 3x32x32.*1\.3 by default"),
        (
            ue.AR,
            {"epsilon": 8 / 255},
            r"at least 0\.109 .*L2.* \(1 by default\), and 0\.0314",
        ),
        (ue.AR, {"distance": 0}, "distance"),
        (ue.AR, {"epsilon": -1}, "epsilon > 0"),
    ],
)
def test_bad_parameters_are_explained(method, wrong, message, shapes):
    with pytest.raises(ValueError, match=message):
        method(**wrong).fit(shapes, progress=False)


# --- OPS -----------------------------------------------------------------------------------------


def brute_force(images, labels, classes, pixels):
    """The search as the paper has it, one position and colour at a time."""
    taken, found = set(), []
    _, channels, height, width = images.shape
    for label in range(classes):
        own = images[labels == label].astype(float) / 255
        scored = []
        for row, column in itertools.product(range(height), range(width)):
            if (row, column) in taken:
                continue
            best = max(
                (score(np.abs(np.array(v) - own[:, :, row, column]).sum(1)), v)
                for v in itertools.product((0, 1), repeat=channels)
            )
            scored.append((best[0], (row, column), best[1]))
        scored.sort(key=lambda entry: -entry[0])
        taken |= {place for _, place, _ in scored[:pixels]}
        found.append([(place, colour) for _, place, colour in scored[:pixels]])
    return found


def score(distances):
    return distances.mean() / distances.var()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("pixels", [1, 3])
def test_ops_equals_brute_force(channels, pixels):
    images, labels = random_set(4, (channels, 5, 6), each=9)
    p = fit(ue.OPS(pixels=pixels, batch_size=8), (images, labels))
    expected = brute_force(images.numpy(), np.array(labels), 4, pixels)
    for label in range(4):
        found = zip(p.tensors["positions"][label], p.tensors["colours"][label], strict=True)
        assert [(tuple(place), tuple(colour // 255)) for place, colour in found] == expected[label]


def test_ops_prefers_the_farthest_colour_where_a_position_never_changes():
    images, labels = random_set(2, (1, 4, 4), each=6)
    images[:, 0, 1, 2], images[:, 0, 3, 3] = 40, 5
    p = fit(ue.OPS(), (images, labels))
    assert p.tensors["positions"].tolist() == [[[3, 3]], [[1, 2]]]
    assert p.tensors["colours"].tolist() == [[[255]], [[255]]]


def test_ops_leaves_the_best_positions_to_classes_that_have_images():
    images, _ = random_set(3, (3, 4, 4), each=4)
    full = fit(ue.OPS(), (images, [1, 2] * 6)).tensors["positions"]
    assert full.shape == (3, 1, 2) and len(np.unique(full[:, 0], axis=0)) == 3
    shifted = fit(ue.OPS(), (images, [0, 1] * 6)).tensors["positions"]
    np.testing.assert_array_equal(full[1:], shifted)


def test_ops_refuses_more_pixels_than_there_are_positions():
    with pytest.raises(ValueError, match="at most 16 pixels"):
        ue.OPS(pixels=6).fit(random_set(3, (3, 4, 4)), progress=False)


@pytest.mark.parametrize(
    ("method", "classes", "least"), [(ue.OPS(), 10, 4), (ue.OPS(pixels=2), 5, 4), (ue.AR(), 2, 8)]
)
def test_images_that_are_too_small_are_told_the_size_that_suffices(method, classes, least):
    small = random_set(classes, (3, 3, 3))
    with pytest.raises(ValueError, match=f"pass image_size={least} or more"):
        method.fit(small, progress=False)
    method.fit(small, image_size=least, progress=False)


# --- ClassConvolution ----------------------------------------------------------------------------


def test_kernels_are_random_blurs_with_one_full_weight(shapes):
    kernels = fit(ue.ClassConvolution(blur=0.2), shapes).tensors["kernels"] / UNIT
    assert kernels.shape == (10, 3, 3)
    assert ((kernels == 1).sum((1, 2)) == 1).all()
    others = kernels[kernels != 1]
    assert others.min() >= 0 and 0.18 < others.max() <= 0.2 and 0.08 < others.mean() < 0.12
    assert len({kernel.tobytes() for kernel in kernels}) == 10


def test_the_sum_keeps_the_brightness_where_the_maximum_does_not():
    dark = torch.randint(20, 60, (20, 3, 32, 32), dtype=torch.uint8), [0, 1] * 10
    means = {}
    for normalize in ("max", "sum"):
        method = ue.ClassConvolution(normalize=normalize).fit(dark, progress=False)
        means[normalize] = method.protect(dark).to_tensors()[0].float().mean()
    clean = dark[0].float().mean()
    assert abs(means["sum"] / clean - 1) < 0.1 and means["max"] > 3 * clean


# --- LSP -----------------------------------------------------------------------------------------


def rows_of(perturbation, each, classes):
    labels = np.repeat(np.arange(classes), each)
    keys = np.arange(len(labels), dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    return perturbation._kind.levels(labels, keys), labels


@pytest.mark.parametrize(("classes", "shape"), [(10, (3, 32, 32)), (100, (1, 28, 28))])
def test_lsp_rows_are_linearly_separable(classes, shape):
    p = fit(ue.LSP(), random_set(classes, shape))
    rows, labels = rows_of(p, 100, classes)
    flat = np.c_[rows.reshape(len(rows), -1), np.full(len(rows), 10)].astype(float)
    train = np.arange(len(rows)) % 2 == 0
    weights = np.linalg.lstsq(flat[train], 2.0 * np.eye(classes)[labels[train]] - 1, rcond=None)[0]
    accuracy = ((flat[~train] @ weights).argmax(1) == labels[~train]).mean()
    assert accuracy > 0.99


def test_lsp_rows_are_flat_cells_of_the_stated_norm():
    p = fit(ue.LSP(cell=8), random_set(5, (3, 32, 40)))
    rows, _ = rows_of(p, 20, 5)
    cells = rows.reshape(100, 3, 4, 8, 5, 8)
    assert (cells == cells[:, :, :, :1, :, :1]).all()
    assert p.config["epsilon"] == pytest.approx(6 / 255 * np.sqrt(3 * 32 * 40))
    fields = GENERATORS["lsp-1"].fields(
        p.tensors, p.config["settings"], (3, 32, 40), np.arange(5), np.arange(5, dtype=np.uint64)
    )
    scaled = fields / np.linalg.norm(fields.reshape(5, -1), axis=1)[:, None, None, None]
    exact = 255 * p.config["epsilon"] * scaled
    found = p._kind.levels(np.arange(5), np.arange(5, dtype=np.uint64))
    assert np.abs(found - exact).max() <= 0.5 + 1e-3
    small = fit(ue.LSP(epsilon=0.5), Shapes(size=20))
    norms = np.linalg.norm(rows_of(small, 10, 10)[0].reshape(100, -1).astype(float), axis=1) / 255
    assert np.abs(norms - 0.5).max() < 0.05


def test_lsp_values_have_the_means_and_mixing_that_were_drawn():
    p = fit(ue.LSP(), random_set(3, (1, 16, 16)))
    settings, labels = p.config["settings"], np.ones(20_000, np.int64)
    keys = np.arange(20_000, dtype=np.uint64)
    fields = GENERATORS["lsp-1"].fields(p.tensors, settings, (1, 16, 16), labels, keys)
    values = fields[:, :, ::4, ::4].reshape(-1, 16) / UNIT**2
    mixing = p.tensors["mixing"][1] / UNIT
    assert np.abs(values.mean(0) - p.tensors["centres"][1] / UNIT).max() < 0.1
    assert set(np.abs(p.tensors["centres"]).ravel()) == {10 * UNIT}
    assert np.abs(np.cov(values.T) - mixing.T @ mixing).max() < 0.5


# --- AR ------------------------------------------------------------------------------------------


def test_ar_fields_obey_their_recursion():
    rng = np.random.default_rng(0)
    coefficients = rng.normal(size=(6, 3, 3)) / 4
    start = rng.normal(size=(6, 9, 14))
    fields = autoregress(coefficients, start)
    by_hand = start.copy()
    for row, column in itertools.product(range(2, 9), range(2, 14)):
        window = by_hand[:, row - 2 : row + 1, column - 2 : column + 1].copy()
        window[:, 2, 2] = 0
        by_hand[:, row, column] = (coefficients * window).sum((1, 2))
    np.testing.assert_allclose(fields, by_hand, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (3, 64, 48)])
def test_ar_rows_obey_the_recursion_of_their_class_alone(shape):
    p = fit(ue.AR(), random_set(10, shape))
    labels = np.arange(10)
    keys = np.arange(10, dtype=np.uint64)
    fields = GENERATORS["ar-1"].fields(p.tensors, p.config["settings"], shape, labels, keys)
    assert fields.shape == (10, *shape) and np.isfinite(fields).all()
    filters = np.stack([_filter(window / UNIT) for window in p.tensors["coefficients"]])
    loudness = np.sqrt((fields**2).mean((2, 3)))
    left = np.array(
        [
            _left(filters, _moments(f / n[:, None, None]))
            for f, n in zip(fields, loudness, strict=True)
        ]
    )
    assert np.diag(left).max() < 1e-6
    assert left[~np.eye(10, dtype=bool)].min() > 0.1
    rows = p._kind.levels(labels, keys)
    exact = (
        255
        * p.config["epsilon"]
        * fields
        / np.linalg.norm(fields.reshape(10, -1), axis=1)[:, None, None, None]
    )
    assert np.abs(rows - exact.clip(-127, 127)).max() <= 0.5 + 1e-3


def test_ar_budgets_are_those_of_the_paper():
    assert ue.AR()._budget((3, 32, 32)) == (1.0, "L2")
    assert ue.AR()._budget((3, 96, 96)) == (pytest.approx(3.0), "L2")
    assert ue.AR(epsilon=0.7)._budget((3, 96, 96)) == (0.7, "L2")


@pytest.mark.parametrize("classes", [10, 100, 200])
@pytest.mark.slow
def test_ar_finds_processes_that_are_finite_and_sum_to_one(classes):
    images = torch.zeros((classes, 3, 32, 32), dtype=torch.uint8)
    method = ue.AR(seed=3)
    found = method._search(Run(images, torch.arange(classes), classes, seed=3))
    coefficients = found["coefficients"]
    assert coefficients.shape == (classes, 3, 3, 3) and not coefficients[..., 2, 2].any()
    assert (coefficients.sum((2, 3)) - 1).abs().max() < 1e-3
    assert len({window.numpy().tobytes() for window in coefficients}) == classes
    if classes == 10:
        again = method._search(Run(images, torch.arange(classes), classes, seed=3))
        assert torch.equal(again["coefficients"], coefficients)


@pytest.mark.slow
def test_ar_rows_never_fail_over_many_images():
    p = fit(ue.AR(), random_set(100, (3, 32, 32)))
    rows, _ = rows_of(p, 20, 100)
    norms = np.linalg.norm(rows.reshape(len(rows), -1).astype(float), axis=1) / 255
    assert (norms > 0.8).all() and (norms < 1.1).all()


def test_a_start_is_dropped_with_its_margin():
    assert MARGIN >= 2
