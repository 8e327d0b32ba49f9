"""Which files of a folder are protected."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import ImageFolder

import unlearnable as ue
from unlearnable.data.fingerprint import image_key
from unlearnable.data.image import pixels_of, to_pil
from unlearnable.data.raw import RawDataset
from unlearnable.datasets import Shapes
from unlearnable.protected.manifest import Seal
from unlearnable.protected.verify import verify

FILES = "unlearnable-files.csv"


def smooth(size, seed):
    """A picture that survives JPEG: large patches."""
    patches = np.random.default_rng(seed).integers(40, 216, (3, 4, 3), dtype=np.uint8)
    return Image.fromarray(patches).resize(size, Image.Resampling.BILINEAR)


@pytest.fixture
def photos(tmp_path):
    """Eight photos of three sizes and two classes."""
    for index in range(8):
        folder = tmp_path / "photos" / f"class{index % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        smooth([(24, 32), (32, 24), (40, 40)][index % 3], index).save(folder / f"{index}.png")
    return ImageFolder(tmp_path / "photos")


KINDS = {
    "sample-wise": ue.RandomNoise(),
    "class-wise": ue.RandomNoise(granularity="class-wise"),
    "convolution": ue.ClassConvolution(),
    "shift": ue.ColourShift(),
    "rows and shift": ue.DUNE.preset(
        "demo", surrogate="tiny-resnet", train_epochs=1, checkpoints=1, steps=1
    ),
    "gratings and fields": ue.Lasting(),
}


@pytest.fixture(params=KINDS)
def artefact(request, photos):
    method = KINDS[request.param]
    return method.fit(photos, device="cpu", image_size=16, progress=False).perturbation_


def export(photos, artefact, folder, **options):
    protected = ue.ProtectedDataset(photos, artefact, **options)
    return protected.export(folder, progress=False)


def check(*arguments):
    return verify(*arguments, progress=False)


@pytest.mark.parametrize("full_size", [False, True])
@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("notes", [True, False])
def test_an_export_is_wholly_protected(photos, artefact, tmp_path, full_size, given, notes):
    folder = export(photos, artefact, tmp_path / "out", full_size=full_size)
    if not notes:
        for name in ("unlearnable.json", FILES):
            (folder / name).unlink()
    found = check(folder, artefact, *([photos] if given else []))
    assert found.whole == (given or notes)
    if found.whole:
        assert found.counts == {"protected": 8, "clean": 0, "changed": 0, "unknown": 0}
        assert str(found).startswith("All 8 pictures are protected.") and not found.missing
    else:
        assert found.counts["protected"] == 0 and "pass the originals" in str(found)
        assert str(found).startswith("NOT all pictures are protected: 0 of 8 are.")


@pytest.mark.parametrize("given", [False, True])
def test_every_kind_of_file_is_told_apart(photos, artefact, tmp_path, given):
    folder = export(photos, artefact, tmp_path / "out", full_size=True)
    clean, recompressed, moved, gone, *_ = sorted(folder.rglob("*.png"))
    clean.write_bytes(Path(photos.samples[int(clean.stem)][0]).read_bytes())
    with Image.open(recompressed) as image:
        image.save(recompressed.with_suffix(".jpg"), quality=50)
    recompressed.unlink()
    moved = moved.rename(folder / "class1" / "renamed.png")
    gone.unlink()
    smooth((20, 20), 99).save(folder / "class0" / "foreign.png")
    (folder / "class0" / "broken.jpg").write_bytes(b"")
    (folder / "notes.txt").write_text("...")
    found = check(folder, artefact, *([photos] if given else []))
    named = {file.partition("/")[2]: status for file, status in found.files.items()}
    assert named.pop(clean.name) == "clean"
    assert named.pop(recompressed.with_suffix(".jpg").name) == "changed"
    assert named.pop("foreign.png") == named.pop("broken.jpg") == "unknown"
    assert set(named.values()) == {"protected"} and "renamed.png" in named
    assert not found.whole and found.others == ["notes.txt"]
    names = {f"{path.parent.name}/{path.name}" for path in (clean, recompressed, gone)}
    assert set(found.missing) == names
    shown = json.loads(json.dumps(found.to_dict()))
    assert shown["changed"] == 1 and shown["unknown"] == 2 and shown["protected"] == 5
    lines = str(found).splitlines()
    assert lines[0] == "NOT all pictures are protected: 5 of 9 are."
    kinds = [line for line in lines if line.endswith(":")]
    assert [kind.split(",")[0].split(":")[0] for kind in kinds] == [
        "1 clean", "1 changed since the copy was written", "2 unknown", "1 missing",
        "1 other file",
    ]  # fmt: skip
    assert "  notes.txt" in lines and lines[-1].startswith("Replace them with the copies")


@pytest.mark.parametrize("lossy", [False, True])
@pytest.mark.parametrize("given", [False, True])
def test_a_class_folder_of_an_export_is_checked_by_its_list(
    photos, artefact, tmp_path, monkeypatch, given, lossy
):
    options = {"format": "jpeg", "quality": 90} if lossy else {}
    protected = ue.ProtectedDataset(photos, artefact, full_size=True)
    folder = protected.export(tmp_path / "out", progress=False, **options)
    ending = ".jpg" if lossy else ".png"
    (folder / "class0" / f"0{ending}").unlink()
    (folder / "class1" / f"1{ending}").unlink()
    for at, place in ((folder, folder / "class0"), (folder, "class0"), (folder / "class0", ".")):
        monkeypatch.chdir(at)
        found = check(place, artefact, *([photos] if given else []))
        assert found.whole and found.missing == [f"0{ending}"]
        assert list(found.files) == [f"{name}{ending}" for name in (2, 4, 6)]
        if lossy and given:
            assert set(found.lossy["files"]) == set(found.files)


def test_without_a_list_a_copy_is_not_said_to_be_edited(photos, artefact, tmp_path):
    folder = export(photos, artefact, tmp_path / "out", full_size=True)
    (folder / "class0").rename(tmp_path / "published")
    found = check(tmp_path / "published", artefact)
    assert not found.whole and not found.counts["protected"]
    assert "edited" not in str(found).replace("protected or edited", "")
    assert "the key alone" in str(found) and "pass the originals" in str(found)
    assert check(tmp_path / "published", artefact, photos).whole


def test_unprotected_shares_are_found(photos, artefact, tmp_path):
    folder = export(photos, artefact, tmp_path / "out", fraction=0.5, full_size=True)
    for originals in ([], [photos]):
        found = check(folder, artefact, *originals)
        assert found.counts == {"protected": 4, "clean": 4, "changed": 0, "unknown": 0}
        assert "4 clean pictures are as written: 50% of the pictures were to be" in str(found)
    folder = export(photos, artefact, tmp_path / "small", fraction=0.5)
    assert check(folder, artefact).counts["clean"] == 4  # resized, and still clean


def test_copies_whose_originals_are_not_given(photos, artefact, tmp_path):
    folder = export(photos, artefact, tmp_path / "out")
    Path(photos.samples[0][0]).unlink()
    found = check(folder, artefact, ImageFolder(photos.root))
    assert found.counts["protected"] == 7 and not found.whole
    assert "1 picture is as it was written, but its original is not among those" in str(found)
    assert "are as they were written, but" not in found.basis
    assert check(folder, artefact).whole


def test_notes_of_another_perturbation_prove_nothing(photos, artefact, tmp_path):
    folder = export(photos, artefact, tmp_path / "out", full_size=True)
    other = ue.RandomNoise(seed=5).fit(photos, device="cpu", image_size=16, progress=False)
    found = check(folder, other.perturbation_)
    assert found.counts["protected"] == 0 and "another one" in str(found)
    if artefact.kind == "additive":
        assert found.counts["changed"] == 8  # they look like its images
    assert check(folder, other.perturbation_, photos).counts["protected"] == 0


def test_originals_themselves_are_clean(photos, tmp_path):
    method = ue.RandomNoise().fit(photos, device="cpu", image_size=16, progress=False)
    found = check(photos.root, method.perturbation_)
    assert found.counts["clean"] == 8 and not found.whole


def test_originals_that_do_not_belong_to_it(photos, tmp_path):
    method = ue.RandomNoise().fit(photos, device="cpu", image_size=16, progress=False)
    folder = export(photos, method.perturbation_, tmp_path / "out")
    images = [np.asarray(image) // 2 for image, _ in photos]
    with pytest.raises(ue.UnknownImageError):
        check(folder, method.perturbation_, (images, photos.targets))


def test_stacks(photos, tmp_path):
    fits = [
        ue.RandomNoise(granularity=granularity).fit(
            photos, device="cpu", image_size=16, progress=False
        )
        for granularity in ("sample-wise", "class-wise")
    ]
    stack = fits[0].perturbation_.then(fits[1].perturbation_)
    folder = export(photos, stack, tmp_path / "out", full_size=True)
    assert check(folder, stack).whole and check(folder, stack, photos).whole
    assert check(photos.root, stack).counts["clean"] == 8
    below = export(photos, fits[0].perturbation_, tmp_path / "below", full_size=True)
    assert check(below, stack, photos).counts["protected"] == 0


@pytest.mark.parametrize("full_size", [False, True])
@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("granularity", ["sample-wise", "class-wise"])
def test_rows_of_zeros_protect_nothing(photos, tmp_path, full_size, given, granularity):
    method = ue.RandomNoise(granularity=granularity)
    made = method.fit(photos, device="cpu", image_size=16, progress=False).perturbation_
    rows = made.rows.copy()
    rows[0] = 0
    if granularity == "class-wise":
        artefact, still = ue.Perturbation(rows, made.config), 4
    else:
        extra = {"keys": made.keys, "labels": made.labels}
        thumbnails = made.tensors["thumbnails"]
        artefact, still = ue.Perturbation(rows, made.config, **extra, thumbnails=thumbnails), 7
    with pytest.warns(UserWarning, match=f"{8 - still} of 8 copies .* not protected.*class0/0.png"):
        folder = export(photos, artefact, tmp_path / "out", full_size=full_size)
    found = check(folder, artefact, *([photos] if given else []))
    assert found.counts == {"protected": still, "clean": 8 - still, "changed": 0, "unknown": 0}
    assert not found.whole and not found.missing
    assert "as written: the key changes no pixel there" in str(found)


def test_an_original_is_clean_whatever_an_older_export_says(photos, tmp_path):
    """Its key is that of a protected file in a list that was made where nothing was compared."""
    artefact = ue.RandomNoise().fit(photos, device="cpu", image_size=16, progress=False)
    artefact = artefact.perturbation_
    folder = export(photos, artefact, tmp_path / "out", full_size=True)
    seal, original = Seal(artefact), Path(photos.samples[0][0])
    (folder / "class0" / "0.png").write_bytes(original.read_bytes())
    key = int(artefact.keys[0])
    header, first, *rest = (folder / FILES).read_text().splitlines()
    file, sealed = first.split(",")[0], seal.key(key)
    state = seal.state(file, sealed, protected=True)
    first = ",".join([file, sealed, state, seal.origin(key)])
    (folder / FILES).write_text("\n".join([header, first, *rest]))
    assert check(folder, artefact).counts["clean"] == 1


def test_pixels_by_the_originals(photos, tmp_path):
    pixels = ue.OPS().fit(photos, device="cpu", image_size=16, progress=False).perturbation_
    folder = export(photos, pixels, tmp_path / "out")
    for name in ("unlearnable.json", FILES):
        (folder / name).unlink()
    assert check(folder, pixels, photos).whole


def test_images_of_one_size(tmp_path):
    dataset = Shapes(size=20)
    perturbation = ue.RandomNoise().fit(dataset, device="cpu", progress=False).perturbation_
    folder = export(dataset, perturbation, tmp_path / "out")
    assert check(folder, perturbation).whole and check(folder, perturbation, dataset).whole
    to_pil(RawDataset(dataset)[3].pixels).save(next(folder.rglob("03.png")))
    assert check(folder, perturbation).counts["clean"] == 1


def test_linked_folders_are_looked_into(photos, artefact, tmp_path):
    folder = export(photos, artefact, tmp_path / "out", full_size=True)
    (tmp_path / "outside" / "deep").mkdir(parents=True)
    smooth((20, 20), 99).save(tmp_path / "outside" / "deep" / "foreign.png")
    (folder / "class0" / "more").symlink_to(tmp_path / "outside")
    found = check(folder, artefact)
    assert found.files["class0/more/deep/foreign.png"] == "unknown" and not found.whole


def test_links_in_a_circle_are_looked_into_once(photos, artefact, tmp_path):
    folder = export(photos, artefact, tmp_path / "out", full_size=True)
    (folder / "class0" / "all").symlink_to(folder)
    (folder / "class0" / "other").symlink_to(folder / "class1")
    (folder / "class1" / "other").symlink_to(folder / "class0")
    found = check(folder, artefact)
    assert found.whole and found.counts["protected"] == 8
    assert {Path(file).parent.name for file in found.files} == {"class0", "class1"}


def test_folders_that_cannot_be_verified(photos, artefact, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        check(tmp_path / "nowhere", artefact)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="found none"):
        check(tmp_path / "empty", artefact)
    arrays = ue.ProtectedDataset(photos, artefact).export(tmp_path / "arrays", "npz")
    with pytest.raises(ValueError, match="only exports as png, webp or jpeg can be verified"):
        check(arrays, artefact)


@pytest.mark.parametrize("damage", ["", "file,key\n", "file,key,state,origin\na,b,c,d\n"])
def test_damaged_notes_are_refused(photos, tmp_path, damage):
    method = ue.RandomNoise().fit(photos, device="cpu", image_size=16, progress=False)
    folder = export(photos, method.perturbation_, tmp_path / "out")
    (folder / FILES).write_text(damage)
    with pytest.raises(ValueError, match="as written by an export"):
        check(folder, method.perturbation_)


@pytest.mark.parametrize("version", [1, 3, None])
def test_notes_of_another_version_are_refused(photos, tmp_path, version):
    method = ue.RandomNoise().fit(photos, device="cpu", image_size=16, progress=False)
    folder = export(photos, method.perturbation_, tmp_path / "out")
    described = json.loads((folder / "unlearnable.json").read_text())
    (folder / "unlearnable.json").write_text(json.dumps(described | {"format_version": version}))
    with pytest.raises(ValueError, match=rf"format_version 2, got {version}.*or delete both"):
        check(folder, method.perturbation_)


def test_nobody_can_list_a_clean_file_as_protected(photos, tmp_path):
    """Not without the perturbation, that is: rows cannot be moved from file to file either."""
    method = ue.RandomNoise().fit(photos, device="cpu", image_size=16, progress=False)
    folder = export(photos, method.perturbation_, tmp_path / "out", fraction=0.5)
    seal = Seal(method.perturbation_)
    header, *rows = (folder / FILES).read_text().splitlines()
    split = [row.split(",") for row in rows]
    shares = [state == seal.state(f, key, protected=True) for f, key, state, _ in split]
    assert sum(shares) == 4
    split[shares.index(False)][2] = split[shares.index(True)][2]
    (folder / FILES).write_text("\n".join([header, *map(",".join, split)]))
    with pytest.raises(ValueError, match="expected the state of"):
        check(folder, method.perturbation_)


def test_seals_are_the_artefacts_own(photos, tmp_path):
    first, other = (
        ue.RandomNoise(seed=seed)
        .fit(photos, device="cpu", image_size=16, progress=False)
        .perturbation_
        for seed in (0, 1)
    )
    first.save_pretrained(tmp_path / "p")
    again = Seal(ue.Perturbation.from_pretrained(str(tmp_path / "p")))
    one = Seal(first)
    assert one.perturbation_id == again.perturbation_id != Seal(other).perturbation_id
    assert one.key(5) == again.key(5) != Seal(other).key(5)
    assert len({one.key(5), one.origin(5), one.key(6)}) == 3
    assert first.digest not in (one.perturbation_id, one._secret.hex())


def test_the_list_of_files_tells_keys_alone(photos, tmp_path):
    method = ue.RandomNoise().fit(photos, device="cpu", image_size=16, progress=False)
    folder = export(photos, method.perturbation_, tmp_path / "out", full_size=True)
    header, *rows = (folder / FILES).read_text().splitlines()
    assert header == "file,key,state,origin" and len(rows) == 8
    seal = Seal(method.perturbation_)
    hashes = set()
    for row, clean in zip(rows, method.perturbation_.keys.tolist(), strict=True):
        file, key, state, origin = row.split(",")
        with Image.open(folder / file) as image:
            assert key == seal.key(image_key(pixels_of(image)))
        assert origin == seal.origin(clean) and state == seal.state(file, key, protected=True)
        hashes |= {key, state, origin}
    assert len(hashes) == 24 and {len(sealed) for sealed in hashes} == {16}
    assert str(photos.root) not in (folder / FILES).read_text()
    assert str(photos.root) not in (folder / "unlearnable.json").read_text()


def test_anything_else_than_a_perturbation_is_refused(photos, artefact, tmp_path):
    out = export(photos, artefact, tmp_path / "out")
    with pytest.raises(TypeError, match="expected a Perturbation, got str"):
        verify(out, str(tmp_path / "key"))


def test_a_list_that_was_cut_at_the_end_of_a_line_is_damaged(photos, artefact, tmp_path):
    out = export(photos, artefact, tmp_path / "out")
    lines = (out / FILES).read_text().splitlines(keepends=True)
    (out / FILES).write_text("".join(lines[:5]))
    with pytest.raises(ValueError, match="all 8 images in the list of files, got 4"):
        verify(out, artefact, progress=False)


LOSSY = [
    {},
    [],
    {"format": "jpeg", "quality": 95, "share_left": 1e9},
    {"format": "jpeg", "quality": 95, "share_left": -0.1},
    {"format": "jpeg", "quality": [], "share_left": 0.5},
    {"format": None, "quality": 95, "share_left": 0.5},
]


@pytest.mark.parametrize("stated", LOSSY, ids=str)
def test_what_is_stated_of_a_lossy_export_is_checked(stated, photos, tmp_path):
    artefact = KINDS["sample-wise"].fit(photos, device="cpu", image_size=16, progress=False)
    artefact = artefact.perturbation_
    out = ue.ProtectedDataset(photos, artefact).export(
        tmp_path / "out", "jpeg", quality=95, progress=False
    )
    assert verify(out, artefact, progress=False).whole
    marker = out / "unlearnable.json"
    described = json.loads(marker.read_text())
    marker.write_text(json.dumps(described | {"lossy": stated}))
    with pytest.raises(ValueError, match="a quality and the share left"):
        verify(out, artefact, progress=False)
    marker.write_text("[" * 200_000)
    with pytest.raises(ValueError, match="as written by an export"):
        verify(out, artefact, progress=False)
    marker.write_text(json.dumps(described))
    with (out / FILES).open("a") as file:
        file.write("a" * 200_000)
    with pytest.raises(ValueError, match="as written by an export"):
        verify(out, artefact, progress=False)


def test_a_document_beside_the_copies_is_no_unprotected_picture(photos, tmp_path):
    artefact = ue.RandomNoise().fit(photos, image_size=16, progress=False).perturbation_
    folder = export(photos, artefact, tmp_path / "out")
    for name in ("licence.pdf", "clip.mpg"):
        (folder / name).write_bytes(b"...")
    found = check(folder, artefact)
    assert found.whole and found.others == ["clip.mpg", "licence.pdf"]
    (folder / "raw.pef").write_bytes(b"...")
    assert check(folder, artefact).files["raw.pef"] == "unknown"


@pytest.mark.parametrize("ending", ["png", "apart.png", "webp", "tif"])
def test_every_frame_must_be_protected(photos, tmp_path, ending):
    noise = ue.RandomNoise().fit(photos, device="cpu", image_size=16, progress=False)
    folder = export(photos, noise.perturbation_, tmp_path / "out", full_size=True)
    copies = {path.name: path for path in sorted(folder.rglob("[0-9].png"))}
    first, same, other = (Image.open(copies[f"{n}.png"]).convert("RGB") for n in (0, 0, 3))
    original = Image.open(photos.samples[3][0]).convert("RGB")
    options = {"webp": {"lossless": True}, "apart.png": {"default_image": True}}.get(ending, {})
    path = folder / f"0.{ending}"
    for frames, status in (
        ([same, other], "protected"),
        ([same, original], "clean"),
        ([same, Image.new("RGB", first.size, "red")], "changed"),
    ):
        first.save(path, save_all=True, append_images=frames, **options)
        found = check(folder, noise.perturbation_, photos)
        assert found.files[path.name] == status and found.whole == (status == "protected")
