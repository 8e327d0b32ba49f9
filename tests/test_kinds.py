"""Every kind of perturbation: applied, stacked, saved, pickled, refused where it is not sound."""

import html.parser
import json
import pickle

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader
from torchvision.transforms import PILToTensor

import unlearnable as ue
from unlearnable import ArtefactError, Perturbation, ProtectedDataset, UnknownImageError
from unlearnable.data.fingerprint import image_key
from unlearnable.datasets import Shapes
from unlearnable.io.safetensors import map_tensors, write_tensors
from unlearnable.perturbation.config import version_of
from unlearnable.perturbation.kinds.additive import Additive
from unlearnable.perturbation.kinds.generators import autoregress, levels, normals
from unlearnable.perturbation.quantize import UNIT
from unlearnable.perturbation.serialization import digest_of
from unlearnable.protected.manifest import Seal

KINDS = {
    "pixel": lambda: ue.OPS(pixels=2),
    "convolution": ue.ClassConvolution,
    "lsp": ue.LSP,
    "ar": ue.AR,
    "shift": ue.ColourShift,
}
ALL = [*KINDS, "stack"]

DRAWN = [-0.49542236328125, -1.1805419921875, 0.620452880859375, -0.4081268310546875]
ROW = [-2, 8, 0, 7, -4, 10]


@pytest.fixture(scope="module")
def made(shapes):
    fitted = {n: make().fit(shapes, progress=False).perturbation_ for n, make in KINDS.items()}
    noise = ue.RandomNoise().fit(shapes, progress=False).perturbation_
    return fitted | {"additive": noise, "stack": noise.then(fitted["pixel"])}


def images(dataset, perturbation):
    return ProtectedDataset(dataset, perturbation).to_tensors()[0].numpy()


def chw(dataset, index):
    return dataset.data[index].transpose(2, 0, 1)


def test_the_kinds_are_what_they_say(made):
    assert {name: p.kind for name, p in made.items()} == {
        "pixel": "pixel", "convolution": "convolution", "lsp": "procedural", "ar": "procedural",
        "shift": "shift", "additive": "additive", "stack": "stack",
    }  # fmt: skip
    for name in ALL:
        assert made[name].by_class and made[name].keyed is (name == "stack")
        with pytest.raises(AttributeError, match="no rows"):
            made[name].rows  # noqa: B018


# --- what they do to an image --------------------------------------------------------------------


def test_pixels_are_overwritten_and_nothing_else(made, shapes):
    pixel = made["pixel"]
    for index in range(5):
        clean, label = chw(shapes, index), shapes.targets[index]
        expected = clean.copy()
        for (row, column), colour in zip(
            pixel.tensors["positions"][label], pixel.tensors["colours"][label], strict=True
        ):
            expected[:, row, column] = colour
        found = pixel.apply(clean, pixel.find(clean, label))
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_array_equal(clean, chw(shapes, index))


@pytest.mark.parametrize("normalize", ["max", "sum"])
@pytest.mark.parametrize("size", [3, 5])
def test_convolution_equals_a_direct_depthwise_one(normalize, size, shapes):
    method = ue.ClassConvolution(kernel_size=size, normalize=normalize)
    p = method.fit(shapes, progress=False).perturbation_
    for index in range(6):
        label = shapes.targets[index]
        kernel = torch.from_numpy(p.tensors["kernels"][label] / UNIT)
        clean = torch.from_numpy(chw(shapes, index).copy()).double()
        weight = kernel.expand(3, 1, size, size)
        direct = torch.nn.functional.conv2d(clean[None], weight, padding=size // 2, groups=3)[0]
        direct = direct / direct.max() * 255 if normalize == "max" else direct / kernel.sum()
        found = p.apply(chw(shapes, index), label)
        assert np.abs(found - direct.numpy()).max() <= 0.5 + 1e-9
        if normalize == "max":
            assert found.max() == 255


@pytest.mark.parametrize("normalize", ["max", "sum"])
@pytest.mark.parametrize("most", [2, UNIT, 64 * UNIT])
def test_convolutions_are_rounded_as_whole_numbers_are(normalize, most, shapes):
    rng = np.random.default_rng(most)
    p = ue.ClassConvolution(normalize=normalize).fit(shapes, progress=False).perturbation_
    kernels = rng.integers(0, most + 1, (10, 7, 7))
    kernels[:, 3, 3] = most
    p = Perturbation.of_kind({"kernels": kernels}, p.config)
    image = rng.integers(0, 256, (3, 32, 32), dtype=np.uint8)
    padded = np.pad(image.astype(object), ((0, 0), (3, 3), (3, 3)))
    for label in range(10):
        total = np.zeros(image.shape, object)
        for down, right in np.ndindex(7, 7):
            seen = padded[:, down : down + 32, right : right + 32]
            total += int(kernels[label, down, right]) * seen
        above, below = (255, total.max()) if normalize == "max" else (1, int(kernels[label].sum()))
        expected = (2 * above * total + below) // (2 * below)
        np.testing.assert_array_equal(p.apply(image, label), expected.astype(np.uint8))


def test_a_black_image_stays_black_under_a_convolution(made):
    black = np.zeros((3, 32, 32), np.uint8)
    for label in range(10):
        assert not made["convolution"].apply(black, label).any()


@pytest.mark.parametrize("name", ["lsp", "ar"])
def test_procedural_rows_follow_from_class_and_image_alone(name, made, shapes):
    p = made[name]
    clean, grey = chw(shapes, 3), np.full((3, 32, 32), 128, np.uint8)
    assert p.find(clean, 4, 3) == (4, image_key(clean)) == p.find(clean, 4)
    rows = {p.apply(grey, (label, key)).tobytes() for label in (0, 1) for key in (5, 6, 2**64 - 1)}
    assert len(rows) == 6
    batch = p.parts[0].levels(np.array([1, 0]), np.array([6, 5], np.uint64))
    np.testing.assert_array_equal(p.apply(grey, (1, 6)), 128 + batch[0].astype(int))
    np.testing.assert_array_equal(p.apply(grey, (0, 5)), 128 + batch[1].astype(int))


def test_draws_and_rows_are_these_for_ever():
    drawn = normals(7, np.array([2]), np.array([3], np.uint64), 200_000)[0] / UNIT
    assert drawn[:4].tolist() == DRAWN
    assert abs(drawn.mean()) < 0.01 and abs(drawn.std() - 1) < 0.01
    assert abs((drawn**3).mean()) < 0.03 and abs((drawn**4).mean() - 2.9) < 0.1
    other = normals(7, np.array([2, 3]), np.array([4, 3], np.uint64), 5_000) / UNIT
    assert np.abs(np.corrcoef([drawn[:5_000], *other]) - np.eye(3)).max() < 0.05
    coefficients = np.array([[[0.5, -0.25, 0.125], [0.25, 0.5, -0.5], [0.25, 0.125, 0]]])
    start = normals(1, np.array([0]), np.array([0], np.uint64), 36).reshape(1, 6, 6) / UNIT
    row = levels(autoregress(coefficients, start)[:, None], 0.1)
    assert row[0, 0, 5].tolist() == ROW


def test_levels_have_the_norm_before_rounding_and_refuse_what_explodes():
    fields = np.random.default_rng(0).normal(size=(4, 3, 16, 16)) * [
        [[[1e-9]]],
        [[[1]]],
        [[[1e5]]],
        [[[3]]],
    ]
    rows = levels(fields, 1.5)
    exact = 255 * 1.5 * fields / np.linalg.norm(fields.reshape(4, -1), axis=1)[:, None, None, None]
    assert np.abs(rows - exact).max() <= 0.5 + 1e-3
    assert not levels(np.zeros((1, 1, 4, 4)), 1.0).any()
    many = np.random.default_rng(1).normal(size=(90, 3, 16, 16))  # more than are done at once
    alone = [levels(field[None], 1.5)[0] for field in many]
    np.testing.assert_array_equal(levels(many, 1.5), alone)
    for bad in (np.inf, np.nan):
        fields[1, 0, 0, 0] = bad
        with pytest.raises(ValueError, match="finite"):
            levels(fields, 1.0)


@pytest.mark.parametrize("name", list(KINDS))
def test_grey_images_in_colour_get_the_same(name):
    grey = (torch.randint(0, 256, (12, 1, 12, 16), dtype=torch.uint8), [0, 1, 2] * 4)
    p = KINDS[name]().fit(grey, progress=False).perturbation_
    expected = images(grey, p)
    colour = (grey[0].repeat(1, 3, 1, 1), grey[1])
    found = images(colour, p)
    assert all(np.array_equal(found[:, [channel]], expected) for channel in range(3))
    if name == "shift":  # it has no size
        return
    with pytest.raises(ValueError, match=r"\(1, 12, 16\).*got \(1, 16, 12\)"):
        p.apply(np.zeros((1, 16, 12), np.uint8), p.find(np.zeros((1, 16, 12), np.uint8), 0))


@pytest.mark.parametrize("name", list(KINDS))
def test_new_images_need_no_fit_and_unknown_classes_are_refused(name, made, shapes):
    new = Shapes(size=12, seed=8)
    assert (images(new, made[name]) != new.data.transpose(0, 3, 1, 2)).any()
    for label in (-1, 10):
        with pytest.raises(UnknownImageError, match=f"below 10, got {label}"):
            made[name].find(chw(shapes, 0), label)
    with pytest.raises(ValueError, match="10 classes, got 11"):
        ProtectedDataset((torch.zeros(11, 3, 32, 32, dtype=torch.uint8), range(11)), made[name])
    with pytest.raises(ValueError, match='kind "additive"'):
        ProtectedDataset(shapes, made[name], align="index")


# --- stacks --------------------------------------------------------------------------------------


def test_a_stack_applies_one_after_the_other(made, shapes):
    stack = made["stack"]
    below = images(shapes, made["additive"])
    expected = [
        made["pixel"].apply(below[index], label) for index, label in enumerate(shapes.targets)
    ]
    np.testing.assert_array_equal(images(shapes, stack), expected)
    with pytest.raises(UnknownImageError, match="fitted on"):
        ProtectedDataset(Shapes(size=40, seed=9), stack)
    with pytest.raises(ValueError, match='kind "additive"'):
        ProtectedDataset(shapes, stack, align="index")


def test_cifar10_s_is_a_shortcut_learned_on_what_lies_below(shapes):
    below = ue.RandomNoise().fit(shapes, progress=False)
    above = ue.OPS().fit(below.protect(shapes), progress=False)
    stack = below.perturbation_.then(above.perturbation_)
    twice = images(list(below.protect(shapes)), above.perturbation_)
    np.testing.assert_array_equal(images(shapes, stack), twice)


@pytest.mark.parametrize("fitted_on", ["clean", "below"])
def test_rows_above_are_found_by_the_clean_image(fitted_on, shapes):
    below = ue.RandomNoise(epsilon=4 / 255).fit(shapes, progress=False)
    data = below.protect(shapes) if fitted_on == "below" else shapes
    above = ue.RandomNoise(seed=1).fit(data, progress=False).perturbation_
    stack = below.perturbation_.then(above)
    order = [7, 3, 3, 30]
    part = torch.utils.data.Subset(shapes, order)
    first = images(shapes, below.perturbation_).astype(int)
    expected = np.clip(first + above.rows, 0, 255)[order]
    np.testing.assert_array_equal(images(part, stack), expected)


def test_stacks_of_stacks_are_flat_and_report_their_parts(made, shapes):
    stack = made["stack"].then(made["lsp"].then(made["convolution"]))
    kinds = [part["kind"] for part in stack.config["parts"]]
    assert kinds == ["additive", "pixel", "procedural", "convolution"]
    expected = images(shapes, made["stack"])
    lsp, convolution = made["lsp"], made["convolution"]
    for index, label in enumerate(shapes.targets):
        row = lsp.find(chw(shapes, index), label)  # by the clean image
        after = convolution.apply(lsp.apply(expected[index], row), label)
        np.testing.assert_array_equal(
            stack.apply(chw(shapes, index), stack.find(chw(shapes, index), label)), after
        )
    info = stack.info()
    assert info["method"] == "RandomNoise + OPS + LSP + ClassConvolution"
    assert info["kind"] == "stack" and info["epsilon"] is None
    assert info["parts"] == [
        "RandomNoise, sample-wise, Linf 8/255",
        "OPS, class-wise, 2 pixels",
        "LSP, sample-wise, L2 1.304",
        "ClassConvolution, class-wise, 3x3 kernels",
    ]
    assert repr(made["stack"]) == (
        "Perturbation(RandomNoise + OPS, sample-wise, additive + pixel, 40 images of 3x32x32)"
    )


def test_stacks_of_other_images_are_refused(made, tensors):
    other = ue.OPS().fit(tensors, progress=False).perturbation_
    with pytest.raises(ValueError, match="image_shape"):
        made["additive"].then(other)
    images_ = torch.zeros(4, 3, 32, 32, dtype=torch.uint8)
    fewer = ue.ClassConvolution().fit((images_, [0, 1, 2, 2]), progress=False).perturbation_
    with pytest.raises(ValueError, match="num_classes"):
        made["additive"].then(fewer)


def test_wrapping_twice_points_to_stacks(made, shapes):
    with pytest.raises(ValueError, match=r"p\.then\(q\)"):
        ProtectedDataset(ProtectedDataset(shapes, made["additive"]), made["pixel"])


def test_a_resized_stack(varying_folder):
    below = ue.RandomNoise().fit(varying_folder, image_size=(6, 5), progress=False)
    above = ue.OPS().fit(below.protect(varying_folder), progress=False).perturbation_
    stack = below.perturbation_.then(above)
    protected = ProtectedDataset(varying_folder, stack)
    assert protected.to_tensors()[0].shape == (4, 3, 6, 5)
    assert protected.change().images == 4


# --- saved, pickled, shown -----------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_saved_and_pickled_ones_do_the_same(name, made, shapes, tmp_path):
    p = made[name]
    expected = images(shapes, p)
    folder = p.save_pretrained(tmp_path / "p")
    loaded = Perturbation.from_pretrained(folder)
    copies = [loaded, pickle.loads(pickle.dumps(p)), pickle.loads(pickle.dumps(loaded))]
    for copy in copies:
        assert copy.digest == p.digest and copy.config == p.config and repr(copy) == repr(p)
        assert {n: t.dtype for n, t in copy.tensors.items()} == {
            n: t.dtype for n, t in p.tensors.items()
        }
        np.testing.assert_array_equal(images(shapes, copy), expected)
    assert loaded.save_pretrained(folder) == folder
    assert Perturbation.from_pretrained(folder).digest == p.digest


@pytest.mark.parametrize("name", ALL)
def test_worker_processes_do_the_same(name, made):
    dataset = ProtectedDataset(Shapes(size=40, transform=PILToTensor()), made[name])
    loaders = [DataLoader(dataset, batch_size=20, num_workers=n) for n in (0, 1)]
    for one, other in zip(*loaders, strict=True):
        assert torch.equal(one[0], other[0])


@pytest.mark.parametrize("name", ALL)
def test_they_tell_what_they_are(name, made):
    info, tags = made[name].info(), set()
    assert info["kind"] == made[name].kind and info["bytes"] == made[name].nbytes
    assert json.loads(json.dumps(info)) == info
    parser = html.parser.HTMLParser()
    parser.handle_starttag = lambda tag, attributes: tags.add(tag)
    parser.feed(made[name]._repr_html_())
    assert tags == {"img", "table", "tr", "th", "td"}
    assert repr(made[name]).startswith(f"Perturbation({info['method']}, {info['granularity']}, ")


@pytest.mark.parametrize("name", ALL)
def test_exports_say_what_was_done(name, made, shapes, tmp_path):
    folder = ProtectedDataset(shapes, made[name]).export(tmp_path / "out", progress=False)
    described = json.loads((folder / "unlearnable.json").read_text())
    assert described["perturbation_id"] == Seal(made[name]).perturbation_id
    assert (described["epsilon"] is None) is (name not in ("lsp", "ar", "shift"))


def test_digests_follow_every_tensor_and_the_kind(made):
    for name in ALL:
        p = made[name]
        digests = {p.digest}
        for tensor in p.tensors:
            if tensor.endswith("rows"):
                continue
            changed = {n: t.copy() for n, t in p.tensors.items()}
            changed[tensor].flat[0] ^= 1
            digests.add(Perturbation.of_kind(changed, p.config).digest)
        assert len(digests) == 1 + sum(not n.endswith("rows") for n in p.tensors)


# --- change --------------------------------------------------------------------------------------


def test_change_of_one_pixel_and_of_none(shapes, made):
    change = ProtectedDataset(shapes, made["pixel"]).change()
    assert change.images == 40 and change.l0 <= 2 and change.linf > 100
    assert 20 < change.psnr < 50 and 0.9 < change.ssim < 1
    nothing = ProtectedDataset(shapes, made["pixel"], fraction=0).change(7)
    assert nothing == (7, 0, 0.0, 0.0, np.inf, pytest.approx(1), 0.0, 0.0)
    assert "dB" in str(change)
    with pytest.raises(ValueError, match="images to be an integer >= 1"):
        ProtectedDataset(shapes, made["pixel"]).change(0)


def test_change_is_computed_from_its_definitions(made, shapes):
    dataset = ProtectedDataset(shapes, made["additive"])
    differences = images(shapes, made["additive"]).astype(int) - shapes.data.transpose(0, 3, 1, 2)
    change = dataset.change(1000)
    assert change.linf == np.abs(differences).max() == 8
    norms = np.linalg.norm(differences.reshape(40, -1), axis=1) / 255
    assert change.l2 == pytest.approx(norms.mean())
    assert change.l0 == pytest.approx(differences.any(axis=1).sum(axis=(1, 2)).mean())
    assert change.psnr == pytest.approx(10 * np.log10(255**2 / (differences**2).mean()))
    assert change.mean == pytest.approx(np.abs(differences).mean())
    assert change.share == pytest.approx(differences.any(axis=1).mean())


def test_change_by_class_is_exact_on_known_changes():
    """Class 0 gains 2 levels everywhere, class 1 loses 5 in one value, class 2 has no image."""
    rows = np.zeros((3, 3, 4, 4), np.int8)
    rows[0], rows[1, 2, 3, 3] = 2, -5
    config = {
        "method": "test", "parameters": {}, "kind": "additive", "granularity": "class-wise",
        "epsilon": 5 / 255, "norm": "Linf", "image_shape": [3, 4, 4], "classes": None,
        "num_classes": 3, "source": {"name": "x", "images": 3, "digest": ""},
        "preprocessing": None, "seed": 0, "threads": 1, "versions": {}, "history": {},
        "strength": None,
    }  # fmt: skip
    pixels = torch.full((3, 3, 4, 4), 100, dtype=torch.uint8)
    dataset = ProtectedDataset((pixels, [1, 0, 1]), Perturbation(rows, config))
    changes = dataset.change_by_class()
    assert list(changes) == [0, 1]
    assert changes[0][:4] == (1, 2, pytest.approx(2 * 48**0.5 / 255), 16.0)
    assert changes[0][4] == pytest.approx(10 * np.log10(255**2 / 4))
    assert changes[0][6:] == (2.0, 1.0)
    assert changes[1][:4] == (2, 5, pytest.approx(5 / 255), 1.0)
    assert changes[1][4] == pytest.approx(10 * np.log10(255**2 / (25 / 48)))
    assert changes[1][6:] == (pytest.approx(5 / 48), 1 / 16)
    assert changes[1].ssim < 1 and dataset.change_by_class(1)[1].images == 1
    overall = dataset.change()
    assert overall.linf == 5 and overall.share == pytest.approx((1 + 2 / 16) / 3)
    with pytest.raises(ValueError, match="images to be an integer >= 1"):
        dataset.change_by_class(0)


# --- hostile artefacts ---------------------------------------------------------------------------


def forge(perturbation, folder, change):
    """An artefact with a sound digest and whatever else a hostile author writes."""
    perturbation.save_pretrained(folder)
    described = json.loads((folder / "config.json").read_text())
    tensors = {n: t.copy() for n, t in map_tensors(folder / "perturbation.safetensors").items()}
    change(described, tensors)
    write_tensors(folder / "perturbation.safetensors", tensors, "x")
    config = {n: v for n, v in described.items() if n not in ("format", "format_version", "digest")}
    described["digest"] = digest_of(map_tensors(folder / "perturbation.safetensors"), config)
    described["format_version"] = version_of(config)
    (folder / "config.json").write_text(json.dumps(described))


def put(name, value):
    return lambda config, tensors: config.__setitem__(name, value)


def setting(name, value):
    return lambda config, tensors: config["settings"].__setitem__(name, value)


def tensor(name, make):
    return lambda config, tensors: tensors.__setitem__(name, make(tensors[name]))


def part(name, value):
    return lambda config, tensors: config["parts"][0].__setitem__(name, value)


HOSTILE = [
    *((name, put("kind", kind)) for name in ALL for kind in ("additive", "exec", None, ["pixel"])),
    *(
        (name, put(field, value))
        for name in ("pixel", "ar", "stack")
        for field, value in [
            ("image_shape", [3, 1 << 40, 32]), ("image_shape", [3, 32]), ("image_shape", "3x32x32"),
            ("image_shape", [2, 32, 32]), ("num_classes", 0), ("num_classes", True),
            ("num_classes", 11), ("classes", ["a"]), ("classes", 3), ("granularity", "wise"),
            ("preprocessing", {"fit": [1 << 40, 2]}), ("preprocessing", [1]), ("source", None),
            ("method", None), ("norm", "L1"), ("source", {"images": 4}),
            ("epsilon", "8/255"), ("epsilon", -1), ("settings", [1]),
        ]
    ),
    ("pixel", tensor("positions", lambda t: t + 32)),
    ("pixel", tensor("positions", lambda t: t - 32)),
    ("pixel", tensor("positions", lambda t: t[:, :1])),
    ("pixel", tensor("positions", lambda t: t.reshape(-1))),
    ("pixel", tensor("positions", lambda t: t.astype(np.uint64))),
    ("pixel", tensor("colours", lambda t: t.astype(np.int64))),
    ("pixel", lambda config, tensors: tensors.pop("colours")),
    ("pixel", lambda config, tensors: tensors.__setitem__("more", np.zeros(3, np.int8))),
    ("convolution", tensor("kernels", lambda t: t * 0)),
    ("convolution", tensor("kernels", lambda t: t.reshape(-1)[0])),
    ("pixel", tensor("positions", lambda t: t.reshape(-1)[0])),
    ("convolution", tensor("kernels", lambda t: -t)),
    ("convolution", tensor("kernels", lambda t: np.full((10, 255, 255), 64 * UNIT))),
    ("convolution", tensor("kernels", lambda t: t + (1 << 60))),
    ("convolution", tensor("kernels", lambda t: t[:, :, :2])),
    ("convolution", tensor("kernels", lambda t: t[:, :2, :2].copy())),
    ("convolution", setting("normalize", "eval")),
    ("lsp", setting("generator", "__import__")),
    ("lsp", setting("generator", [])),
    ("lsp", setting("cell", 0)),
    ("lsp", setting("cell", "8")),
    ("lsp", setting("cell", 16)),
    ("lsp", setting("seed", "0")),
    ("lsp", tensor("mixing", lambda t: t + (1 << 60))),
    ("lsp", put("epsilon", None)),
    ("lsp", put("settings", {})),
    ("ar", setting("generator", "ar-2")),
    ("ar", tensor("coefficients", lambda t: t[:, :, :2])),
    ("ar", tensor("coefficients", lambda t: t + (1 << 62))),
    ("ar", lambda config, tensors: config.pop("settings")),
    ("shift", put("epsilon", 24 / 255)),
    ("shift", put("norm", "L2")),
    ("shift", put("visibility", {"level": "low", "mask": "jnd-1"})),
    ("shift", tensor("colours", lambda t: t.astype(np.int64))),
    ("shift", tensor("colours", lambda t: t[:, :1].copy())),
    ("shift", tensor("colours", lambda t: t[:3])),
    ("shift", tensor("colours", lambda t: np.full_like(t, -128))),
    ("shift", lambda config, tensors: tensors.pop("colours")),
    ("stack", put("parts", [])),
    ("stack", put("parts", [1, 2])),
    ("stack", put("parts", None)),
    ("stack", part("kind", "stack")),
    ("stack", part("kind", "pixel")),
    ("stack", part("num_classes", 3)),
    ("stack", part("image_shape", [3, 16, 16])),
    ("stack", lambda config, tensors: tensors.pop("0.keys")),
    ("stack", tensor("0.rows", lambda t: t.reshape(40, 3, 16, 64))),
    ("stack", tensor("1.colours", lambda t: t[:3])),
]  # fmt: skip


@pytest.mark.parametrize("name", ALL)
def test_a_forgery_that_changes_nothing_is_read(name, made, shapes, tmp_path):
    forge(made[name], tmp_path / "p", lambda config, tensors: None)
    p = Perturbation.from_pretrained(tmp_path / "p")
    np.testing.assert_array_equal(images(shapes, p), images(shapes, made[name]))


@pytest.mark.parametrize(("name", "change"), HOSTILE)
def test_hostile_artefacts_are_refused(name, change, made, tmp_path):
    forge(made[name], tmp_path / "p", change)
    with pytest.raises(ArtefactError, match=r"valid perturbation.*expected|valid perturbation.*'"):
        Perturbation.from_pretrained(tmp_path / "p")


def test_a_process_that_explodes_is_found_when_it_is_run(made, shapes, tmp_path):
    forge(made["ar"], tmp_path / "p", tensor("coefficients", lambda t: t * 0 + 60 * UNIT))
    p = Perturbation.from_pretrained(tmp_path / "p")
    huge = ue.AR().fit((torch.zeros(4, 1, 96, 96, dtype=torch.uint8), [0, 1, 0, 1]), progress=False)
    exploding = {"coefficients": huge.perturbation_.tensors["coefficients"] * 0 + 64 * UNIT}
    q = Perturbation.of_kind(exploding, huge.perturbation_.config)
    with pytest.raises(ArtefactError, match="finite"):
        q.apply(np.zeros((1, 96, 96), np.uint8), (0, 1))
    assert images(shapes, p).dtype == np.uint8  # large, but not too large to be scaled


@pytest.mark.parametrize("name", ALL)
def test_edited_bytes_are_found(name, made, shapes, tmp_path):
    folder = made[name].save_pretrained(tmp_path / "p")
    path = folder / "perturbation.safetensors"
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    with pytest.raises(ArtefactError):
        ProtectedDataset(shapes, Perturbation.from_pretrained(folder)).to_tensors()


def test_only_images_that_are_not_found_pay_for_the_parts_below(shapes, monkeypatch):
    below = ue.RandomNoise(epsilon=4 / 255).fit(shapes, progress=False)
    subset = torch.utils.data.Subset
    halves = [subset(shapes, range(20)), subset(below.protect(shapes), range(20, 40))]
    fits = [ue.RandomNoise(seed=1).fit(half, progress=False).perturbation_ for half in halves]
    stack = below.perturbation_.then(Perturbation.concat(fits))
    seen, apply = [], Additive.apply
    monkeypatch.setattr(Additive, "apply", lambda *args: seen.append(len(args[1])) or apply(*args))
    pixels = np.stack([np.asarray(shapes[i][0]).transpose(2, 0, 1) for i in (30, 3, 21, 19)])
    labels = [shapes[i][1] for i in (30, 3, 21, 19)]
    for indices in (None, [30, 3, 21, 19]):
        found = stack._kind.find(pixels, labels, indices)
        assert found == [(30, 30), (3, 3), (21, 21), (19, 19)]
    assert seen == [2, 2]


def test_a_stack_of_fits_on_other_devices_names_none(made):
    first = made["additive"]
    other = Perturbation.of_kind(first.tensors, first.config | {"device": "cuda"})
    config = first.then(other).config
    assert config["device"] is None and config["precision"] == first.config["precision"]
    assert [part["device"] for part in config["parts"]] == ["cpu", "cuda"]
