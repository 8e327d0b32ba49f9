"""Masks that lower a perturbation where it would be seen: exact, learned through, and recorded."""

import itertools
import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F
from torch.utils.data import Subset
from torchvision.datasets import ImageFolder

import unlearnable as ue
from unlearnable.cli.main import main
from unlearnable.data.image import pixels_of
from unlearnable.datasets import Shapes
from unlearnable.engine.mask import Mask
from unlearnable.engine.pgd import pgd
from unlearnable.errors import ArtefactError
from unlearnable.perturbation.visibility import ONE, VISIBILITIES, Shown, VisibilityMask, with_mask
from unlearnable.protected import metrics
from unlearnable.protected.metrics import compare

MASKED = VISIBILITIES[:3]
QUIET = {"device": "cpu", "progress": False}
REDUCED = (1150, 1900)  # so large that it is seen at half its size
SIZES = [(20, 30), (7, 5), (1, 1), (61, 90), (64, 64)]


def photo(size=(60, 90), channels=3, seed=0):
    """Smooth on the left, texture on the right."""
    rng = np.random.default_rng(seed)
    across = np.linspace(60, 200, size[1])
    noise = rng.integers(-50, 51, (channels, *size)) * (np.arange(size[1]) >= size[1] // 2)
    return np.clip(across + noise, 0, 255).astype(np.uint8)


def artefact(rows, visibility, epsilon=8 / 255, norm="Linf"):
    """Class-wise rows as a perturbation."""
    config = {
        "method": "Test",
        "kind": "additive",
        "granularity": "class-wise",
        "epsilon": epsilon,
        "norm": norm,
        "image_shape": list(rows.shape[1:]),
        "classes": None,
        "num_classes": len(rows),
        "source": {"name": "Test", "images": 1},
        "preprocessing": {"fit": list(rows.shape[2:])},
    }
    return ue.Perturbation(rows.astype(np.int8), with_mask(config, visibility))


def extreme(size=(20, 30), channels=3, most=8):
    signs = np.random.default_rng(1).integers(0, 2, (1, channels, *size))
    return (2 * signs - 1) * most


def weights_of(pixels, level):
    height = pixels.shape[1]
    return VisibilityMask(level).on(pixels[None]).weights(slice(0, height))[0]


# --- the mask ------------------------------------------------------------------------------------


def test_known_weights_stay_the_same_bytes():
    def checksum(pixels, level):
        return zlib.crc32(weights_of(pixels, level).astype("<u2").tobytes())

    found = [checksum(photo(), level) for level in MASKED]
    assert found == [1308341831, 1773670264, 360663670]
    assert checksum(photo(REDUCED), "low") == 1922558341


@pytest.mark.parametrize("size", [*SIZES, REDUCED])
def test_weights_rise_with_the_level_and_end_at_one(size):
    pixels = photo(size)
    low, medium, high = (weights_of(pixels, level) for level in MASKED)
    assert low.shape == size and low.min() >= 1 and high.max() <= ONE
    assert (low <= medium).all() and (medium <= high).all()


@pytest.mark.parametrize("level", MASKED)
def test_smooth_areas_show_less_than_texture(level):
    weights = weights_of(photo(), level)
    smooth, texture = weights[:, 5:35], weights[:, 55:]
    assert smooth.max() < 0.6 * texture.mean()
    assert 8 * smooth.max() / ONE <= {"low": 1.5, "medium": 2.5, "high": 4.5}[level]


def test_beside_a_lone_edge_little_is_shown():
    edge = np.full((3, 40, 40), 90, np.uint8)
    edge[:, :, 20:] = 190
    assert weights_of(edge, "low").max() < ONE / 5 < weights_of(photo(), "low").max()


def test_in_smooth_areas_low_changes_no_value_by_more_than_a_level():
    for level in range(256):
        weights = weights_of(np.full((3, 9, 9), level, np.uint8), "low")
        assert 0.5 < 8 * weights.min() / ONE <= 8 * weights.max() / ONE < 1.5


def test_stripes_are_parts_of_the_whole():
    shown = VisibilityMask("low").on(photo(REDUCED)[None])
    whole = shown.weights(slice(0, 1150))
    for rows in (slice(0, 3), slice(3, 4), slice(333, 1150)):
        np.testing.assert_array_equal(shown.weights(rows), whole[:, rows])


def test_images_of_a_batch_are_masked_as_alone():
    images = np.stack([photo((32, 32), seed=seed) for seed in range(200)])
    together = VisibilityMask("low").on(images).weights(slice(0, 32))
    for index in (0, 99, 199):
        np.testing.assert_array_equal(together[index], weights_of(images[index], "low"))


def test_the_layout_in_memory_does_not_matter():
    pixels = photo(REDUCED)
    interleaved = np.ascontiguousarray(pixels.transpose(1, 2, 0)).transpose(2, 0, 1)
    np.testing.assert_array_equal(weights_of(interleaved, "low"), weights_of(pixels, "low"))


# --- the change ----------------------------------------------------------------------------------


@pytest.mark.parametrize("level", MASKED)
@pytest.mark.parametrize("size", [(20, 30), (61, 90), (40, 33), (13, 50), (7, 5)])
def test_no_pixel_changes_by_more_than_its_own_budget(size, level):
    pixels = photo(size)
    protected = artefact(extreme(), level).apply(pixels, 0, full_size=True)
    most = np.floor(8 * weights_of(pixels, level) / ONE + 0.5)
    change = np.abs(protected.astype(int) - pixels)
    assert (change <= most).all() and most.max() <= 8 and change.any()


@pytest.mark.parametrize("level", MASKED)
def test_at_the_learned_size_the_change_is_the_row_times_the_weight(level):
    pixels, rows = photo((20, 30)), np.random.default_rng(2).integers(-8, 9, (1, 3, 20, 30))
    exact = rows[0] * weights_of(pixels, level) / ONE
    expected = np.floor(exact + 0.5)
    for full_size in (False, True):
        protected = artefact(rows, level).apply(pixels, 0, full_size=full_size)
        np.testing.assert_array_equal(protected, np.clip(pixels + expected, 0, 255))


def test_levels_are_ordered_in_what_they_change():
    pixels = photo()
    changes = [
        np.abs(artefact(extreme(), level).apply(pixels, 0, full_size=True).astype(int) - pixels)
        for level in VISIBILITIES
    ]
    for less, more in itertools.pairwise(changes):
        assert (less <= more).all() and less.sum() < more.sum()


def test_a_row_of_the_norm_l2_only_shrinks():
    rows = np.random.default_rng(3).normal(0, 4, (1, 3, 20, 30)).round()
    epsilon = float(np.linalg.norm(rows)) / 255
    for size in ((20, 30), (61, 90)):
        pixels = photo(size)
        change = artefact(rows, "low", epsilon, "L2").apply(pixels, 0, full_size=True)
        norm = np.linalg.norm(change.astype(int) - pixels) / 255
        assert 0 < norm < 0.7 * epsilon * np.sqrt(np.prod(size) / 600)


@pytest.mark.parametrize("size", [(20, 30), (61, 90)])
def test_grey_photos_stay_grey(size):
    grey = np.repeat(photo(size, channels=1), 3, axis=0)
    rows = extreme()
    protected = artefact(rows, "high").apply(grey, 0, full_size=True)
    assert (protected == protected[:1]).all() and (protected != grey).any()
    coloured = artefact(rows, "full").apply(grey, 0, full_size=True)
    assert (coloured != coloured[:1]).any()  # as ever, without a mask
    from_one = artefact(rows, "high").apply(
        artefact(rows, "high").prepare(grey[:1], full_size=True), 0, full_size=True
    )
    np.testing.assert_array_equal(from_one, protected)


def test_a_batch_of_grey_and_coloured_images_is_changed_as_one_by_one():
    images = np.stack([photo((20, 30)), np.repeat(photo((20, 30), 1), 3, axis=0)])
    perturbation = artefact(extreme(), "medium")
    together = perturbation.apply_batch(images, [0, 0])
    for image, found in zip(images, together, strict=True):
        np.testing.assert_array_equal(perturbation.apply(image, 0), found)


def test_large_photos_do_not_overflow():
    pixels = photo((50, 70))
    perturbation = artefact(extreme(most=127), "high", 127 / 255)
    grey = np.repeat(photo((50, 70), 1), 3, axis=0)
    for image in (pixels, grey):
        change = perturbation.apply(image, 0, full_size=True).astype(int) - image
        exact = np.floor(127 * weights_of(image, "high") / ONE + 0.5)
        assert (np.abs(change) <= exact).all() and np.abs(change).max() > 60


def test_the_search_sees_what_is_published():
    images = np.stack([photo((20, 30)), np.repeat(photo((20, 30), 1), 3, axis=0)])
    rows = np.random.default_rng(4).integers(-127, 128, (2, 3, 20, 30)).astype(np.int8)
    for level in MASKED:
        mask = VisibilityMask(level)
        shown = mask.on(images)
        weights = torch.from_numpy(shown.weights(slice(0, 20)))[:, None].float() / ONE
        grey = torch.from_numpy(shown.grey)[:, None, None, None]
        found = 255 * Mask(weights, grey).change(torch.from_numpy(rows).float() / 255)
        expected = np.broadcast_to(mask.lower(images, rows), rows.shape)
        np.testing.assert_array_equal(found.numpy().round().astype(int), expected)


# --- the artefact --------------------------------------------------------------------------------


def test_it_is_recorded_and_read_again(tmp_path):
    masked = artefact(extreme(), "low")
    folder = masked.save_pretrained(tmp_path / "p")
    config = json.loads((folder / "config.json").read_text())
    assert config["format_version"] == 2
    assert config["visibility"] == {"level": "low", "mask": "jnd-1"}
    loaded = ue.Perturbation.from_pretrained(folder)
    assert loaded.digest == masked.digest and loaded.info()["visibility"] == "low (jnd-1)"
    assert "visibility low" in repr(loaded) and "jnd-1" in loaded._repr_html_()
    np.testing.assert_array_equal(
        loaded.apply(photo((20, 30)), 0), masked.apply(photo((20, 30)), 0)
    )


@pytest.mark.parametrize("visibility", [None, "full"])
def test_without_a_mask_nothing_is_recorded(visibility, tmp_path):
    plain = artefact(extreme(), visibility)
    folder = plain.save_pretrained(tmp_path / "p")
    config = json.loads((folder / "config.json").read_text())
    assert config["format_version"] == 1 and "visibility" not in config
    assert plain.digest == "0c62becdbae17b41945af639e5d9ff41" and "visibility" not in {
        *plain.info(),
        *repr(plain).split(),
    }
    assert plain.with_visibility("low").with_visibility("full").config == plain.config | {
        "strength": None
    }
    assert plain.with_visibility(visibility) is plain


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"format_version": 1}, "version 2 .*got 1, which no release"),
        ({"format_version": 3}, "version 2 .*got 3; a newer release"),
        ({"visibility": "low"}, "digest"),
        ({"visibility": {"level": "high", "mask": "jnd-1"}}, "digest"),
    ],
)
def test_edited_artefacts_are_refused(changed, message, tmp_path):
    folder = artefact(extreme(), "low").save_pretrained(tmp_path / "p")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changed))
    with pytest.raises(ArtefactError, match=message):
        ue.Perturbation.from_pretrained(folder)


@pytest.mark.parametrize(
    "stated",
    [
        {"level": "low", "mask": "jnd-2"},
        {"level": "full", "mask": "jnd-1"},
        {"level": "low", "mask": "jnd-1", "more": 1},
        {"level": ["low"], "mask": "jnd-1"},
        {"level": "low"},
        "low",
        1,
    ],
)
def test_masks_that_no_release_has_made_are_refused(stated):
    plain = artefact(extreme(), None)
    with pytest.raises(ValueError, match=r"one of the levels .* a newer release"):
        ue.Perturbation.of_kind(plain.tensors, plain.config | {"visibility": stated})


def test_a_readers_version_1_does_not_know_the_mask(tmp_path):
    folder = artefact(extreme(), None).save_pretrained(tmp_path / "p")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"format_version": 2}))
    with pytest.raises(ArtefactError, match="got 2"):
        ue.Perturbation.from_pretrained(folder)


def test_parts_of_a_stack_keep_their_own(tmp_path):
    first, second = artefact(extreme(), "low"), artefact(extreme(most=4), None, 4 / 255)
    stack = first.then(second)
    assert "visibility" not in stack.config
    pixels = photo((20, 30))
    expected = second.apply(first.apply(pixels, 0), 0)
    np.testing.assert_array_equal(stack.apply(pixels, (0, 0)), expected)
    folder = stack.save_pretrained(tmp_path / "p")
    assert json.loads((folder / "config.json").read_text())["format_version"] == 2
    assert ue.Perturbation.from_pretrained(folder).digest == stack.digest
    assert {part.mask.level for part in stack.with_visibility("high").parts} == {"high"}


@pytest.mark.parametrize("method", [ue.OPS(), ue.ClassConvolution(), ue.ColourShift()], ids=repr)
def test_what_has_no_rows_refuses(method):
    shapes = Shapes(size=20)
    with pytest.raises(ValueError, match=r"expected no visibility with .*--visibility full"):
        method.fit(shapes, visibility="low", **QUIET)
    perturbation = method.fit(shapes, visibility="full", **QUIET).perturbation_
    with pytest.raises(ValueError, match=r"no visibility with kind .* no rows"):
        perturbation.with_visibility("low")


def test_a_mask_that_leaves_nothing_is_warned_of():
    smooth = [np.full((16, 16, 3), 120 + index, np.uint8) for index in range(6)]
    dataset = [(Image.fromarray(image), index % 2) for index, image in enumerate(smooth)]
    method = ue.RandomNoise(epsilon=2 / 255)
    with pytest.warns(UserWarning, match="changes nothing in 6 of 6 images at this visibility"):
        method.fit(dataset, visibility="low", **QUIET)
    assert method.fit(dataset, visibility="high", **QUIET).protect(dataset).change().linf == 1


def test_an_unknown_level_is_refused():
    with pytest.raises(ValueError, match=r"'low', 'medium', 'high', 'full'.*got 'lowest'"):
        ue.RandomNoise().fit(Shapes(size=8), visibility="lowest", **QUIET)


def test_a_method_of_ones_own_says_that_it_takes_the_mask():
    class Own(ue.RandomNoise):
        masked = False

    with pytest.raises(ValueError, match="cannot be learned under a visibility mask"):
        Own().fit(Shapes(size=8), visibility="low", **QUIET)


def test_rows_of_two_visibilities_are_not_joined():
    first = ue.RandomNoise().fit(Subset(Shapes(size=16), range(8)), **QUIET).perturbation_
    other = ue.RandomNoise().fit(Subset(Shapes(size=16), range(8, 16)), visibility="low", **QUIET)
    with pytest.raises(ValueError, match="visibility None, as in the first"):
        ue.Perturbation.concat([first, other.perturbation_])


# --- learning ------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_the_search_lowers_the_loss_of_published_images_within_each_pixels_box(norm):
    pixels = np.stack([photo((20, 30)), np.repeat(photo((20, 30), 1), 3, axis=0)])
    images, target = torch.from_numpy(pixels).float() / 255, torch.rand(2, 3, 20, 30)
    shown = VisibilityMask("medium").on(pixels)
    mask = Mask(
        torch.from_numpy(shown.weights(slice(0, 20)))[:, None].float() / ONE,
        torch.from_numpy(shown.grey)[:, None, None, None],
    )
    epsilon = 8 / 255 if norm == "Linf" else 1.0

    def loss(perturbed):
        return ((perturbed - target) ** 2).sum()

    seen = []
    rows = pgd(
        lambda x: seen.append(x.detach()) or loss(x), images, torch.zeros_like(images),
        epsilon=epsilon, step_size=epsilon / 4, steps=6, norm=norm, mask=mask,
    )  # fmt: skip
    size = rows.abs().amax() if norm == "Linf" else rows.flatten(1).norm(dim=1).amax()
    assert size <= epsilon + 1e-6
    changes = 255 * (seen[-1] - images)
    assert torch.allclose(changes, changes.round(), atol=1e-3) and changes.any()
    if norm == "Linf":
        assert (changes.abs() <= (8 * mask.weights + 0.5).floor() + 1e-3).all()
    assert (changes[1] - changes[1, :1]).abs().max() < 1e-3  # grey
    assert loss((images + mask.change(rows)).clamp(0, 1)) < loss(images)


@pytest.mark.parametrize("granularity", ["sample-wise", "class-wise"])
def test_the_loss_after_a_fit_is_that_of_the_published_images(granularity):
    shapes = Shapes(size=64)
    method = ue.EM.preset("demo", granularity=granularity, stop_error=1.0)
    method.fit(shapes, visibility="high", **QUIET)
    images, labels = method.protect(shapes).to_tensors()
    with torch.no_grad():
        logits = method.surrogate_(images.float() / 255)
    wrong = (logits.argmax(1) != labels).float().mean()
    assert float(wrong) == pytest.approx(method.history_[-1]["error"], abs=1 / 64)
    if granularity == "sample-wise":
        clean = torch.from_numpy(shapes.data).permute(0, 3, 1, 2).float() / 255
        before = F.cross_entropy(method.surrogate_(clean), labels)
        assert F.cross_entropy(logits, labels) < before


@pytest.mark.parametrize(
    "method",
    [
        ue.RandomNoise(),
        ue.RandomNoise(granularity="class-wise"),
        ue.LSP(),
        ue.AR(),
        ue.EM.preset("demo", max_rounds=1, stop_error=1.0),
        ue.SEM.preset("demo", train_steps=2),
        ue.REM.preset("demo", train_steps=1),
        ue.TAP.preset("demo", train_epochs=1, steps=2),
        ue.SEP.preset("demo", train_epochs=2, checkpoints=2, steps=2, epsilon=8 / 255),
        ue.SEP.preset(
            "demo", train_epochs=2, checkpoints=2, steps=1, epsilon=8 / 255, step_size=8 / 255,
            feature_alignment=True, variance_reduction=True, inner_steps=2,
        ),
        ue.HYPO.preset("demo", train_epochs=1, steps=2),
        ue.AUE.preset("demo", train_epochs=1),
        ue.AAP.preset("demo", train_epochs=1, steps=2),
        ue.MIUE.preset("demo", train_epochs=1),
        ue.PILNoise.preset("demo", train_epochs=1, steps=2),
    ],
    ids=lambda method: f"{type(method).__name__}-{method.granularity}",
)  # fmt: skip
def test_every_method_with_rows_learns_through_the_mask(method):
    shapes = Shapes(size=60)
    protected = method.fit(shapes, visibility="low", **QUIET).protect(shapes)
    assert method.perturbation_.config["visibility"]["level"] == "low"
    for index in (0, 7):
        clean, found = pixels_of(shapes[index][0]), pixels_of(protected[index][0])
        change = np.abs(found.astype(int) - clean)
        most = 127 if method.perturbation_.config["norm"] == "L2" else 8
        assert (change <= np.floor(most * weights_of(clean, "low") / ONE + 0.5)).all()
        assert change.any()


def test_extending_goes_through_the_mask_too():
    shapes = Shapes(size=80)
    old, new = Subset(shapes, range(40)), Subset(shapes, range(40, 80))
    method = ue.SEM.preset("demo", train_steps=2).fit(old, visibility="low", **QUIET)
    more = method.extend(new, **QUIET)
    assert more.config["visibility"] == {"level": "low", "mask": "jnd-1"}
    joined = ue.Perturbation.concat([method.perturbation_, more])
    change = ue.ProtectedDataset(shapes, joined).change(80)
    assert 0 < change.mean < ue.ProtectedDataset(shapes, joined.with_visibility(None)).change().mean


class Interrupted(Exception):
    pass


def test_a_resumed_fit_ends_with_the_same_bytes_and_only_at_the_same_visibility(tmp_path):
    shapes, folder = Shapes(size=16), tmp_path / "checkpoint"
    short = {"max_rounds": 2, "stop_error": 1e-9, "round_steps": 2, "steps": 2, "batch_size": 8}

    def method():
        return ue.EM.preset("demo", step_size=4 / 255, **short)

    with pytest.warns(UserWarning, match="EM ended"):
        whole = method().fit(shapes, visibility="low", **QUIET).perturbation_

    def stop(record):
        raise Interrupted

    options = {"checkpoint": folder, "checkpoint_every": 0}
    with pytest.raises(Interrupted):
        method().fit(shapes, visibility="low", callback=stop, **options, **QUIET)
    for other in (None, "high"):
        with pytest.raises(ValueError, match="visibility"):
            method().fit(shapes, visibility=other, **options, **QUIET)
    with pytest.warns(UserWarning, match="EM ended"):
        resumed = method().fit(shapes, visibility="low", **options, **QUIET).perturbation_
    assert resumed.digest == whole.digest


def test_streamed_images_are_masked_as_resident_ones():
    shapes = Shapes(size=24)

    def fitted(resident):
        method = ue.SEM.preset("demo", train_steps=1)
        return method.fit(shapes, visibility="low", resident=resident, **QUIET).perturbation_

    assert fitted(True).digest == fitted(False).digest


def test_a_fit_without_visibility_is_the_fit_that_it_was():
    shapes = Shapes(size=24)
    digests = {
        ue.SEM.preset("demo", train_steps=1).fit(shapes, **options, **QUIET).perturbation_.digest
        for options in ({}, {"visibility": None}, {"visibility": "full"})
    }
    assert len(digests) == 1


# --- folders of photos ---------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    """Two classes of photos, the first of each grey."""
    for index in range(4):
        path = tmp_path / "photos" / f"class{index % 2}" / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = photo((40, 50 + index), seed=index)
        image = Image.fromarray(pixels.transpose(1, 2, 0))
        (image.convert("L") if index < 2 else image).save(path)
    return tmp_path / "photos"


def test_grey_files_are_exported_as_grey_and_verified(folder, tmp_path):
    photos = ImageFolder(folder)
    method = ue.RandomNoise().fit(photos, image_size=16, visibility="low", **QUIET)
    protected = method.protect(photos, full_size=True)
    out = protected.export(tmp_path / "out", progress=False)
    modes = []
    for index, (original, _) in enumerate(photos.samples):
        (path,) = out.rglob(Path(original).name)
        with Image.open(path) as image:
            modes.append(image.mode)
            found = pixels_of(image.convert("RGB"))
        np.testing.assert_array_equal(found, pixels_of(protected[index][0]))
    assert sorted(modes) == ["L", "L", "RGB", "RGB"]
    for originals in (None, photos):
        assert ue.verify(out, method.perturbation_, originals, progress=False).whole


def test_a_share_of_photos_is_protected_and_the_rest_untouched(folder):
    photos = ImageFolder(folder)
    method = ue.LSP().fit(photos, image_size=16, visibility="medium", **QUIET)
    protected = method.protect(photos, fraction=0.5, full_size=True)
    same = [pixels_of(protected[i][0]) == pixels_of(photos[i][0]) for i in range(4)]
    assert sorted(bool(found.all()) for found in same) == [False, False, True, True]


@pytest.mark.parametrize(
    ("options", "level"),
    [
        ([], "low"),
        (["--visibility", "high"], "high"),
        (["--visibility", "full"], None),
        (["--method", "classconvolution"], None),
        (["--method", "colourshift"], None),
    ],
)
def test_the_command_line_protects_photos_at_low(folder, tmp_path, options, level, capsys):
    out, kept = str(tmp_path / "out"), str(tmp_path / "kept")
    command = ["protect", str(folder), out, "--quiet", "--json", "--save-perturbation", kept]
    assert main([*command, "--method", "randomnoise", *options]) == 0
    found = ue.Perturbation.from_pretrained(kept).config.get("visibility")
    assert (found or {}).get("level") == level
    shown = json.loads(capsys.readouterr().out)
    assert (f"visibility {level}" in shown["perturbation"]) == (level is not None)
    assert main(["verify", out, kept, "--quiet"]) == 0


def test_named_datasets_are_protected_in_full(tmp_path):
    kept = tmp_path / "kept"
    assert main(["fit", "shapes:16", str(kept), "--method", "randomnoise", "--quiet"]) == 0
    assert "visibility" not in ue.Perturbation.from_pretrained(kept).config


def test_a_ready_perturbation_has_its_own_visibility(folder, tmp_path, capsys):
    kept = tmp_path / "kept"
    ue.RandomNoise().fit(ImageFolder(folder), image_size=16, **QUIET).save_pretrained(kept)
    command = ["protect", str(folder), str(tmp_path / "out"), "--perturbation", str(kept)]
    assert main([*command, "--visibility", "low", "--quiet"]) == 1
    assert "expected no --visibility with --perturbation" in capsys.readouterr().err


# --- preview -------------------------------------------------------------------------------------


def test_preview_shows_each_visibility_in_one_picture(folder, tmp_path, capsys):
    out = tmp_path / "preview.png"
    source = folder / "class0" / "2.png"
    assert main(["preview", str(source), "--out", str(out), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert list(shown) == ["picture", "shown", *VISIBILITIES] and "stand-in" in shown["shown"]
    psnr = [float(shown[name].split("PSNR ")[1].split()[0]) for name in VISIBILITIES]
    assert psnr == sorted(psnr, reverse=True) and psnr[0] > psnr[-1] + 3
    with Image.open(out) as image:
        picture = np.asarray(image)
    assert len(picture) > 4 * 40 and picture.shape[1] > 3 * 52
    # The photo at 1:1, as it is, below the first caption.
    before = np.asarray(Image.open(source))
    np.testing.assert_array_equal(picture[60:100, 8:60], before)
    after, change = picture[60:100, 68:120].astype(int), picture[60:100, 128:180]
    assert 0 < np.abs(after - before).max() <= 8
    np.testing.assert_array_equal(change, np.clip(128 + 8 * (after - before), 0, 255))


def test_preview_measures_no_similarity_that_nobody_sees(folder, tmp_path, capsys, monkeypatch):
    def never(*args):
        raise AssertionError("SSIM was measured")

    source, out = str(folder / "class0" / "2.png"), str(tmp_path / "preview.png")
    before = photo((20, 30), seed=1)
    whole = compare(before, 255 - before)
    monkeypatch.setattr(metrics, "_similarity", never)
    assert main(["preview", source, "--out", out]) == 0
    assert "brightness levels on average" in capsys.readouterr().out
    few = compare(before, 255 - before, similarity=False)
    assert np.isnan(few.ssim) and not np.isnan(whole.ssim)
    assert few._replace(ssim=whole.ssim) == whole


def test_preview_shows_a_saved_perturbation(folder, tmp_path, capsys):
    kept = tmp_path / "kept"
    method = ue.RandomNoise().fit(ImageFolder(folder), image_size=16, **QUIET)
    method.save_pretrained(kept)
    out = tmp_path / "p.png"
    command = ["preview", "--perturbation", str(kept), "--out", str(out)]
    assert main([*command, str(folder / "class0" / "2.png")]) == 0
    assert "what kept holds for this photo" in capsys.readouterr().out
    Image.fromarray(photo((30, 30), seed=9).transpose(1, 2, 0)).save(tmp_path / "other.png")
    assert main([*command, str(tmp_path / "other.png")]) == 0
    assert "its first photo, because it was not made for this one" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--out", "p.jpg"], "end in .png"),
        (["--epsilon", "0"], "1/255 to 127/255"),
        (["--epsilon", "8"], "1/255 to 127/255"),
    ],
)
def test_preview_refuses_in_words(folder, options, message, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert main(["preview", str(folder / "class0" / "2.png"), *options]) == 1
    assert message in capsys.readouterr().err and not list(tmp_path.glob("*.png"))


def test_preview_never_overwrites_the_photo(folder, capsys):
    source = folder / "class0" / "2.png"
    before = source.read_bytes()
    assert main(["preview", str(source), "--out", str(source)]) == 1
    assert "the photo's own file" in capsys.readouterr().err and source.read_bytes() == before


def test_preview_replaces_nothing_but_previews(folder, capsys, tmp_path):
    source, out = folder / "class0" / "2.png", tmp_path / "preview.png"
    assert main(["preview", str(source), "--out", str(out)]) == 0
    assert main(["preview", str(source), "--out", str(out)]) == 0
    for content in (source.read_bytes(), b"no picture"):
        out.write_bytes(content)
        assert main(["preview", str(source), "--out", str(out)]) == 1
        assert "choose another name with --out" in capsys.readouterr().err
        assert out.read_bytes() == content


def test_shown_of_no_images_is_empty():
    shown = Shown(np.zeros((0, 3, 8, 8), np.uint8), (5, 64))
    assert shown.weights(slice(0, 8)).shape == (0, 8, 8) and shown.grey.shape == (0,)
