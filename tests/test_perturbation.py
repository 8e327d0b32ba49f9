"""The artefact: rounding, files, refusals, pickles."""

import errno
import html.parser
import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from unlearnable import ArtefactError, Perturbation, RandomNoise, UnknownImageError
from unlearnable.data.fingerprint import THUMBNAIL_TOLERANCE, thumbnail
from unlearnable.perturbation import serialization
from unlearnable.perturbation.quantize import quantize
from unlearnable.perturbation.summary import format_epsilon

CONFIG, TENSORS = "config.json", "perturbation.safetensors"


def files(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def assert_equal(one, other):
    assert one.config == other.config and one.digest == other.digest
    assert one.tensors.keys() == other.tensors.keys()
    for name, tensor in one.tensors.items():
        assert tensor.dtype == other.tensors[name].dtype
        np.testing.assert_array_equal(tensor, other.tensors[name])


@pytest.fixture
def saved(perturbation, tmp_path):
    return perturbation.save_pretrained(tmp_path / "saved")


@pytest.fixture
def other(perturbation):
    """Another perturbation of the same images."""
    tensors = {name: perturbation.tensors[name] for name in ("keys", "labels", "thumbnails")}
    return Perturbation(-perturbation.rows, perturbation.config | {"seed": 1}, **tensors)


def edit(folder, **changes):
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(config | changes))


def rows_offset(folder):
    """Where the bytes of the rows begin in the file."""
    content = (folder / TENSORS).read_bytes()
    length = int.from_bytes(content[:8], "little")
    return 8 + length + json.loads(content[8 : 8 + length])["rows"]["data_offsets"][0]


# --- saved and loaded ----------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["perturbation", "class_wise"])
def test_loaded_equals_saved(which, request, tmp_path):
    one = request.getfixturevalue(which)
    folder = one.save_pretrained(tmp_path / "deep" / "folder")
    assert folder == tmp_path / "deep" / "folder"
    assert sorted(files(folder)) == [CONFIG, TENSORS]
    assert_equal(Perturbation.from_pretrained(folder), one)
    assert_equal(Perturbation.from_pretrained(str(folder)), one)


def test_files_are_readable_by_others(perturbation, saved):
    tensors = load_file(saved / TENSORS)
    assert sorted(tensors) == ["checksums", "keys", "labels", "rows", "thumbnails"]
    np.testing.assert_array_equal(tensors["rows"], perturbation.rows)
    config = json.loads((saved / CONFIG).read_text())
    assert config["format"] == "unlearnable-perturbation" and config["format_version"] == 1
    assert config["method"] == "RandomNoise" and config["digest"] == perturbation.digest


def test_config_is_plain_json_from_the_start(shapes, fit):
    perturbation = fit(shapes, seed=np.int64(3), epsilon=np.float32(8 / 255))
    assert type(perturbation.config["seed"]) is int
    assert perturbation.config == json.loads(json.dumps(perturbation.config))


def test_same_seed_same_bytes(shapes, perturbation, saved, fit, tmp_path):
    again = fit(shapes)
    assert files(again.save_pretrained(tmp_path / "again")) == files(saved)
    assert fit(shapes, seed=1).digest != perturbation.digest


def test_rows_are_mapped_not_read(saved):
    rows = Perturbation.from_pretrained(saved).rows
    base = rows
    while type(base) is np.ndarray:
        base = base.base
    assert isinstance(base, np.memmap) and base.mode == "r"
    assert not rows.flags.writeable


def test_saving_a_loaded_artefact_over_itself(perturbation, saved):
    loaded = Perturbation.from_pretrained(saved)
    before = files(saved)
    loaded.save_pretrained(saved)
    assert files(saved) == before
    assert_equal(loaded, perturbation)


def test_saving_over_an_earlier_artefact_replaces_it(perturbation, other, saved):
    earlier = Perturbation.from_pretrained(saved)
    other.save_pretrained(saved)
    assert_equal(Perturbation.from_pretrained(saved), other)
    assert_equal(earlier, perturbation)  # still mapped to the file it was loaded from
    assert sorted(files(saved)) == [CONFIG, TENSORS]


# --- what it tells -------------------------------------------------------------------------------


def test_info(perturbation):
    assert perturbation.info() == {
        "method": "RandomNoise",
        "granularity": "sample-wise",
        "epsilon": "8/255",
        "norm": "Linf",
        "rows": 40,
        "image_shape": [3, 32, 32],
        "classes": 10,
        "dataset": "Shapes (40 images)",
        "bytes": 40 * (3 * 32 * 32 + 8 + 8 + 48 + 4),
        "digest": perturbation.digest,
        "strength": "not measured",
    }


def test_repr(perturbation, class_wise):
    assert repr(perturbation) == (
        "Perturbation(RandomNoise, sample-wise, Linf 8/255, 40 images of 3x32x32)"
    )
    assert repr(class_wise) == (
        "Perturbation(RandomNoise, class-wise, Linf 8/255, 10 classes of 3x32x32)"
    )


@pytest.mark.parametrize(
    ("epsilon", "text"), [(8 / 255, "8/255"), (0.5 / 255, "0.5/255"), (0.03, "7.65/255")]
)
def test_epsilon_is_written_as_in_the_literature(epsilon, text):
    assert format_epsilon(epsilon) == text


def test_html_escapes_names(perturbation):
    config = perturbation.config | {"method": "<script>alert(1)</script>"}
    config["source"] = perturbation.config["source"] | {"name": "a & <b>"}
    tensors = {name: perturbation.tensors[name] for name in ("keys", "labels", "thumbnails")}
    page = Perturbation(perturbation.rows, config, **tensors)._repr_html_()
    tags, texts = set(), []
    parser = html.parser.HTMLParser()
    parser.handle_starttag = lambda tag, attributes: tags.add(tag)
    parser.handle_data = texts.append
    parser.feed(page)
    assert tags == {"img", "table", "tr", "th", "td"}
    assert "<script>alert(1)</script>" in texts and "a & <b> (40 images)" in texts


def test_html_of_grey_rows(tensors, fit):
    assert "<img" in fit((tensors[0][:, :1], tensors[1]))._repr_html_()


def test_digest_follows_every_part(perturbation):
    parts = {name: perturbation.tensors[name] for name in ("keys", "labels", "thumbnails")}
    same = Perturbation(perturbation.rows.copy(), perturbation.config, **parts)
    assert same.digest == perturbation.digest
    digests = {perturbation.digest}
    for name in ("rows", *parts):
        changed = {"rows": perturbation.rows, **parts}
        changed[name] = changed[name].copy()
        changed[name].flat[-1] ^= 1
        digests.add(Perturbation(config=perturbation.config, **changed).digest)
    config = perturbation.config | {"seed": 1}
    digests.add(Perturbation(perturbation.rows, config, **parts).digest)
    assert len(digests) == 6


def test_device_and_precision_need_not_be_known(perturbation, tmp_path):
    """Artefacts of earlier releases lack them."""
    config = {n: v for n, v in perturbation.config.items() if n not in ("device", "precision")}
    new = config | {"device": "cpu", "precision": "float32"}
    digests = set()
    for name, own in (("old", config), ("new", new)):
        one = Perturbation.of_kind(perturbation.tensors, own)
        loaded = Perturbation.from_pretrained(one.save_pretrained(tmp_path / name))
        assert loaded.config == own
        digests.add(loaded.digest)
    assert len(digests) == 2


def test_wrong_rows_are_refused(perturbation, class_wise):
    parts = {name: perturbation.tensors[name] for name in ("keys", "labels", "thumbnails")}
    with pytest.raises(ValueError, match="int8 rows"):
        Perturbation(perturbation.rows.astype(np.float32), perturbation.config, **parts)
    with pytest.raises(ValueError, match="expected keys, labels and thumbnails"):
        Perturbation(perturbation.rows, perturbation.config)
    with pytest.raises(ValueError, match="each of 10 classes, got 9"):
        Perturbation(class_wise.rows[:9], class_wise.config)


# --- damaged files -------------------------------------------------------------------------------


@pytest.mark.parametrize("kept", [0, 4, 100, 5_000, -1])
def test_truncated_tensors(saved, kept):
    content = (saved / TENSORS).read_bytes()
    (saved / TENSORS).write_bytes(content[:kept])
    with pytest.raises(ArtefactError, match="complete safetensors file"):
        Perturbation.from_pretrained(saved)


def test_flipped_byte_in_rows_is_found_when_that_row_is_read(perturbation, saved, shapes):
    content = bytearray((saved / TENSORS).read_bytes())
    content[rows_offset(saved) + 7 * 3 * 32 * 32 + 100] ^= 4
    (saved / TENSORS).write_bytes(content)
    loaded = Perturbation.from_pretrained(saved)
    pixels = shapes.data[0].transpose(2, 0, 1)
    for row in (6, 8):
        np.testing.assert_array_equal(loaded.apply(pixels, row), perturbation.apply(pixels, row))
    with pytest.raises(ArtefactError, match=r"row 7 to match its checksum.*saved"):
        loaded.apply(pixels, 7)


def test_flipped_byte_anywhere_else_never_goes_unnoticed(perturbation, saved):
    content = (saved / TENSORS).read_bytes()
    start = rows_offset(saved)
    rows = range(start, start + perturbation.rows.nbytes)
    noticed = 0
    for place in range(0, len(content), 1 if len(content) < 3_000 else 37):
        if place in rows:
            continue
        damaged = bytearray(content)
        damaged[place] ^= 1
        (saved / TENSORS).write_bytes(damaged)
        try:
            loaded = Perturbation.from_pretrained(saved)
        except ArtefactError:
            noticed += 1
        else:  # a byte of the header that says nothing
            assert place < start
            assert_equal(loaded, perturbation)
    assert noticed > 50


@pytest.mark.parametrize("name", [CONFIG, TENSORS])
def test_missing_file(saved, name):
    (saved / name).unlink()
    with pytest.raises(ArtefactError, match=f"expected {name} in .*found none"):
        Perturbation.from_pretrained(saved)


def test_missing_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        Perturbation.from_pretrained(tmp_path / "nowhere")


@pytest.mark.parametrize(
    "change", [{"epsilon": 4 / 255}, {"digest": "0" * 32}, {"num_classes": 9}, {"extra": 1}]
)
def test_edited_config(saved, change):
    edit(saved, **change)
    with pytest.raises(ArtefactError, match="edited"):
        Perturbation.from_pretrained(saved)


def test_tensors_of_another_artefact(other, saved, tmp_path):
    shutil.copy(other.save_pretrained(tmp_path / "other") / TENSORS, saved / TENSORS)
    with pytest.raises(ArtefactError, match="belongs to another"):
        Perturbation.from_pretrained(saved)


def test_class_wise_tensors_with_a_sample_wise_config(class_wise, saved, tmp_path):
    shutil.copy(class_wise.save_pretrained(tmp_path / "other") / TENSORS, saved / TENSORS)
    with pytest.raises(ArtefactError, match="'keys', 'labels', 'thumbnails'"):
        Perturbation.from_pretrained(saved)


def test_future_format(saved):
    edit(saved, format_version=2)
    with pytest.raises(ArtefactError, match=r"version 1 .*got 2.*pip install -U"):
        Perturbation.from_pretrained(saved)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[]", b"7", b'{"format": "other"}'])
def test_other_content_in_the_config(saved, content):
    (saved / CONFIG).write_bytes(content)
    with pytest.raises(ArtefactError, match=CONFIG):
        Perturbation.from_pretrained(saved)


# --- nothing is lost when writing ----------------------------------------------------------------


def test_folder_with_other_files_is_refused(perturbation, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    (tmp_path / CONFIG).write_text('{"model_type": "bert"}')
    before = files(tmp_path)
    with pytest.raises(FileExistsError, match="force=True"):
        perturbation.save_pretrained(tmp_path)
    assert files(tmp_path) == before


def test_force_writes_beside_other_files(perturbation, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    perturbation.save_pretrained(tmp_path, force=True)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"
    assert_equal(Perturbation.from_pretrained(tmp_path), perturbation)


def test_file_instead_of_a_folder(perturbation, tmp_path):
    (tmp_path / "file").write_text("content")
    with pytest.raises(NotADirectoryError):
        perturbation.save_pretrained(tmp_path / "file", force=True)
    assert (tmp_path / "file").read_text() == "content"


def full(*args, **kwargs):
    raise OSError(errno.ENOSPC, "No space left on device")


def full_after_a_part(path, tensors, kind):
    Path(path).write_bytes(b"a part")
    full()


def full_config(path, content):
    full()


def fail_replace(number):
    """A Path.replace whose call of this number fails."""
    calls = []
    replace = Path.replace

    def replace_or_fail(self, target):
        calls.append(self)
        if len(calls) == number:
            full()
        return replace(self, target)

    return replace_or_fail


FAILURES = {
    "tensors": lambda: (serialization, "write_tensors", full_after_a_part),
    "config": lambda: (serialization, "write_json", full_config),
    "first rename": lambda: (Path, "replace", fail_replace(1)),
    "second rename": lambda: (Path, "replace", fail_replace(2)),
}
OVERWRITING = FAILURES | {"third rename": lambda: (Path, "replace", fail_replace(3))}


@pytest.mark.parametrize("failure", OVERWRITING.values(), ids=OVERWRITING)
def test_full_disk_leaves_the_old_artefact_as_it_was(
    failure, perturbation, other, saved, monkeypatch
):
    before = files(saved)
    with monkeypatch.context() as patch:
        patch.setattr(*failure())
        with pytest.raises(OSError, match="No space left"):
            other.save_pretrained(saved)
    assert files(saved) == before
    assert_equal(Perturbation.from_pretrained(saved), perturbation)


@pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES)
def test_full_disk_leaves_nothing_half_written(failure, perturbation, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(*failure())
        with pytest.raises(OSError, match="No space left"):
            perturbation.save_pretrained(tmp_path / "new")
    assert files(tmp_path) == {}
    perturbation.save_pretrained(tmp_path / "new")  # and without force it works now
    assert_equal(Perturbation.from_pretrained(tmp_path / "new"), perturbation)


def test_failed_write_keeps_a_foreign_file_of_the_same_name(perturbation, tmp_path, monkeypatch):
    (tmp_path / TENSORS).write_text("somebody's")
    with monkeypatch.context() as patch:
        patch.setattr(serialization, "write_tensors", full_after_a_part)
        with pytest.raises(OSError, match="No space left"):
            perturbation.save_pretrained(tmp_path, force=True)
    assert files(tmp_path) == {TENSORS: b"somebody's"}


# --- rounding ------------------------------------------------------------------------------------


def test_linf_rounds_to_the_nearest_level():
    levels = torch.tensor([2.9, -2.9, 2.4, -2.4, 0.6, -0.6, 7.6]).view(1, 1, 1, -1)
    assert quantize(levels / 255, 8 / 255, "Linf").flatten().tolist() == [3, -3, 2, -2, 1, -1, 8]


@pytest.mark.parametrize("epsilon", [8 / 255, 1 / 255, 0.03, 7.999 / 255, 0.5 / 255, 127 / 255])
def test_linf_stays_within_the_budget_for_all_values(epsilon):
    delta = torch.linspace(-2 * epsilon, 2 * epsilon, 4001).view(1, 1, 1, -1)
    levels = quantize(delta, epsilon, "Linf")
    assert levels.dtype == torch.int8
    assert levels.abs().max() / 255 <= epsilon + 1e-9
    assert levels.max() == -levels.min() == int(epsilon * 255 + 1e-6)  # and uses all of it
    inside = delta.abs() <= (levels.max() / 255)
    assert ((levels / 255 - delta).abs()[inside] <= 0.5 / 255 + 1e-6).all()


@pytest.mark.parametrize("whole", [1, 4, 8, 16, 32, 100, 127])
def test_whole_budgets_are_not_cut_by_float_division(whole):
    delta = torch.full((1, 1, 1, 1), whole / 255)
    assert quantize(delta, whole / 255, "Linf").item() == whole


@pytest.mark.parametrize("epsilon", [0.5, 1.0, 3.0])
def test_l2_stays_within_the_documented_bound(epsilon):
    generator = torch.Generator().manual_seed(0)
    delta = torch.randn(8, 3, 16, 16, generator=generator)
    levels = quantize(delta, epsilon, "L2").float()
    count = delta[0].numel()
    norms = torch.linalg.vector_norm(levels, dim=(1, 2, 3))
    assert (norms <= 255 * epsilon + 0.5 * count**0.5).all()
    exact = 255 * epsilon * delta / torch.linalg.vector_norm(delta, dim=(1, 2, 3), keepdim=True)
    error = torch.linalg.vector_norm(levels - exact, dim=(1, 2, 3))
    assert ((levels - exact).abs() <= 0.5 + 1e-3).all()
    assert (error <= 0.33 * count**0.5).all()


def test_l2_leaves_what_is_inside_the_budget_alone_and_zero_zero():
    delta = torch.zeros(2, 3, 4, 4)
    delta[0, 0, 0, 0] = 5 / 255
    levels = quantize(delta, 1.0, "L2")
    assert levels[0, 0, 0, 0] == 5 and levels.count_nonzero() == 1


def test_fitted_rows_keep_an_odd_budget(shapes, fit):
    rows = fit(shapes, epsilon=0.03).rows
    assert np.abs(rows).max() == 7


# --- finding and applying ------------------------------------------------------------------------


def test_apply_adds_and_clips(perturbation):
    row = perturbation.rows[0].astype(int)
    for value in (0, 3, 128, 252, 255):
        pixels = np.full((3, 32, 32), value, np.uint8)
        expected = np.minimum(np.maximum(value + row, 0), 255)
        np.testing.assert_array_equal(perturbation.apply(pixels, 0), expected)
        assert (pixels == value).all()


@pytest.mark.parametrize("shape", [(3, 32, 31), (3, 16, 16), (1, 32, 32)])
def test_apply_refuses_other_shapes(perturbation, shape):
    with pytest.raises(ValueError, match=r"\(3, 32, 32\).*got"):
        perturbation.apply(np.zeros(shape, np.uint8), 0)


def test_find_tries_the_index_then_the_key(perturbation, shapes):
    pixels = shapes.data[5].transpose(2, 0, 1)
    for index in (5, None, 0, 39, 40, 1_000_000):
        assert perturbation.find(pixels, shapes.targets[5], index) == 5
    with pytest.raises(UnknownImageError, match=r"Shapes, 40 images.*at index 3"):
        perturbation.find(pixels ^ 1, 0, 3)


def test_class_wise_rows_go_by_label(class_wise, shapes):
    pixels = shapes.data[5].transpose(2, 0, 1)
    assert class_wise.find(pixels ^ 1, 7, 2) == 7
    for label in (-1, 10):
        with pytest.raises(UnknownImageError, match=f"below 10, got {label}"):
            class_wise.find(pixels, label)


@pytest.mark.parametrize(
    ("apart", "alike"), [(THUMBNAIL_TOLERANCE, True), (THUMBNAIL_TOLERANCE + 1, False)]
)
def test_thumbnails_of_one_image_differ_by_the_tolerance_at_most(
    apart, alike, perturbation, shapes
):
    pixels = shapes.data[0].transpose(2, 0, 1)
    own = thumbnail(pixels)
    parts = {name: perturbation.tensors[name].copy() for name in ("keys", "labels", "thumbnails")}
    parts["thumbnails"][0] = np.where(own < 128, own + apart, own - apart)
    assert (
        Perturbation(perturbation.rows, perturbation.config, **parts).resembles(pixels, 0) is alike
    )


# --- pickles -------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["perturbation", "class_wise"])
def test_pickle_of_one_in_memory(which, request, shapes):
    one = request.getfixturevalue(which)
    again = pickle.loads(pickle.dumps(one))
    assert_equal(again, one)
    pixels = shapes.data[5].transpose(2, 0, 1)
    assert again.find(pixels, shapes.targets[5]) == one.find(pixels, shapes.targets[5])


def test_pickle_of_a_loaded_one_is_its_path(perturbation, saved, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    loaded = Perturbation.from_pretrained(saved.relative_to(tmp_path))
    content = pickle.dumps(loaded)
    assert len(content) < 5_000 < perturbation.rows.nbytes
    monkeypatch.chdir("/")
    assert_equal(pickle.loads(content), perturbation)


def test_pickle_of_a_loaded_one_refuses_what_was_written_there_since(other, saved):
    content = pickle.dumps(Perturbation.from_pretrained(saved))
    other.save_pretrained(saved)
    with pytest.raises(ArtefactError, match="unchanged since it was loaded"):
        pickle.loads(content)


def test_method_saves_the_same_artefact(shapes, perturbation, tmp_path):
    method = RandomNoise().fit(shapes, device="cpu", progress=False)
    assert_equal(Perturbation.from_pretrained(method.save_pretrained(tmp_path / "m")), perturbation)
