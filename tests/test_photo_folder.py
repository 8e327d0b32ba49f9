"""Folders of class folders: what is read, what is refused, what is left out."""

import numpy as np
import pytest
from PIL import ExifTags, Image

from unlearnable.cli.main import main
from unlearnable.data.extensions import is_picture
from unlearnable.data.image_folder import open_folder, survey_folder
from unlearnable.data.photo import ON_WHITE, UPRIGHT


@pytest.fixture
def root(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("cat/0.png", "cat/1.JPG", "dog/0.png", "dog/deep/er/2.Png"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)).save(path)
    return tmp_path / "photos"


def refused(root, *said):
    with pytest.raises(ValueError, match="expected") as caught:
        survey_folder(open_folder(root))
    for text in said:
        assert str(text) in str(caught.value)


def test_nested_folders_and_endings_in_capitals_are_read(root):
    dataset = open_folder(root)
    assert dataset.classes == ["cat", "dog"] and sorted(dataset.targets) == [0, 0, 1, 1]
    survey = survey_folder(dataset)
    assert survey == (4, {(8, 6): 4}, {}, [])
    assert survey.learning_size is None and survey.summary() == []


def test_what_is_left_out_is_said(root):
    Image.new("RGB", (4, 4)).save(root / "loose.png")
    Image.new("RGB", (4, 4)).save(root / "cat" / "moving.gif")
    (root / "dog" / "new.JXL").write_bytes(b"...")
    (root / "dog" / "notes.txt").write_text("...")
    survey = survey_folder(open_folder(root))
    assert survey.photos == 4 and survey.left_out == [
        "cat/moving.gif",
        "dog/new.JXL",
        "dog/notes.txt",
        "loose.png",
    ]
    beside, unread, others = survey.summary()
    assert beside == "left out (not in a folder for their kind): 1 picture (loose.png)"
    assert "format not supported): 2 pictures (cat/moving.gif, dog/new.JXL)" in unread
    assert others == "left out (not photos): 1 file (dog/notes.txt)"


def test_raw_files_and_videos_that_are_left_out_are_said(root):
    (root / "cat" / "IMG_1.NEF").write_bytes(b"...")
    (root / "dog" / "clip.MP4").write_bytes(b"...")
    unread, videos, advice = survey_folder(open_folder(root)).summary()
    assert "1 picture (cat/IMG_1.NEF)" in unread
    assert videos == "left out (not photos): 1 video (dog/clip.MP4)"
    assert "export them as JPEG" in advice


def test_a_folder_without_classes_is_one_class(tmp_path):
    for name in ("b.png", "a.JPG", ".hidden.png", "notes.txt"):
        Image.new("RGB", (4, 4)).save(tmp_path / name, "png")
    dataset = open_folder(tmp_path)
    assert [path.rsplit("/")[-1] for path, _ in dataset.samples] == ["a.JPG", "b.png"]
    assert (dataset.classes, dataset.targets) == (["photos"], [0, 0])
    assert survey_folder(dataset).photos == 2


def test_photos_right_in_the_folder_and_in_one_more(tmp_path):
    (tmp_path / "old").mkdir()
    for name in ("0.png", "1.png"):
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    assert len(open_folder(tmp_path)) == 2  # with an empty folder
    Image.new("RGB", (4, 4)).save(tmp_path / "old" / "2.png")
    refused(tmp_path, "2 directly in it", tmp_path / "old")


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ([], "it is empty"),
        (["notes.txt", "list.csv"], "it holds list.csv, notes.txt; supported formats are .jpg"),
        (["DSC_1.NEF", "DSC_2.cr3"], "export them as JPEG"),
    ],
)
def test_a_folder_without_photos(tmp_path, files, said):
    for name in files:
        (tmp_path / name).write_bytes(b"0")
    refused(tmp_path, tmp_path, "found none in", said)


@pytest.mark.parametrize("content", [None, "0.gif", "notes.txt"])
def test_a_class_without_photos(root, content):
    (root / "empty").mkdir()
    if content:
        (root / "empty" / content).write_bytes(b"")
    refused(root, root / "empty", f"it holds {content}" if content else "it is empty")


@pytest.mark.parametrize(
    "name",
    [
        *(".ipynb_checkpoints", "__MACOSX", "cat/@eaDir", "dog/.thumbnails", "dog/deep/.x"),
        *("lost+found", "System Volume Information"),
    ],
)
def test_hidden_folders_and_those_of_other_programs_are_left_out(root, name):
    (root / name).mkdir()
    Image.new("RGB", (4, 4)).save(root / name / "0.png")
    dataset = open_folder(root)
    assert dataset.classes == ["cat", "dog"] and dataset.class_to_idx == {"cat": 0, "dog": 1}
    survey = survey_folder(dataset)
    assert survey == (4, {(8, 6): 4}, {}, [f"{name}/0.png"])
    assert survey.summary() == [
        f"left out (hidden or left by other programs): 1 file ({name}/0.png)"
    ]


HIDDEN = (
    *("._cat", ".DS_Store", "Thumbs.db", "cat/._0.png", "cat/.hidden.jpg", "cat/.DS_Store"),
    *("cat/Thumbs.db", "cat/desktop.ini", "dog/deep/._er", "dog/deep/er/._2.Png"),
)


def hide(root):
    for name in HIDDEN:
        (root / name).write_bytes(b"of macOS or Windows")


def test_hidden_files_are_left_out_and_counted(root):
    before = open_folder(root).samples
    hide(root)
    dataset = open_folder(root)
    assert dataset.samples == before
    survey = survey_folder(dataset)
    assert survey.photos == 4 and survey.left_out == sorted(HIDDEN)
    (said,) = survey.summary()
    assert "hidden" in said and "10 files" in said and ".DS_Store" in said


def test_a_class_of_hidden_photos_alone(root):
    (root / "empty").mkdir()
    Image.new("RGB", (4, 4)).save(root / "empty" / ".0.png")
    refused(root, root / "empty", "it is empty")


def test_hidden_classes_alone(tmp_path):
    (tmp_path / ".cat").mkdir()
    refused(tmp_path, tmp_path, "found none in", "it is empty")


def test_a_folder_below_a_hidden_one_is_read(root, tmp_path):
    (tmp_path / ".cache").mkdir()
    moved = root.rename(tmp_path / ".cache" / "photos")
    assert survey_folder(open_folder(moved)) == (4, {(8, 6): 4}, {}, [])


def test_hidden_files_on_the_command_line(root, tmp_path, capsys):
    hide(root)
    options = ["--method", "randomnoise", "--preset", "demo", "--quiet"]
    out, kept = tmp_path / "out", tmp_path / "kept"
    arguments = ["protect", str(root), str(out), "--save-perturbation", str(kept)]
    assert main([*arguments, *options, "--json"]) == 0
    assert "10 files" in capsys.readouterr().out
    assert len(list(out.rglob("*.png"))) == 4
    (out / "cat" / "._0.png").write_bytes(b"of macOS")
    (out / ".DS_Store").write_bytes(b"of macOS")
    for originals in ([], ["--originals", str(root)]):
        assert main(["verify", str(out), str(kept), "--quiet", *originals]) == 0
        said = capsys.readouterr().out
        assert "All 4 pictures are protected" in said and "\n  cat/._0.png\n" in said
    Image.new("RGB", (8, 6)).save(out / "cat" / ".unprotected.png")
    assert main(["verify", str(out), str(kept), "--quiet"]) == 1, "it is published, too"
    assert "\n  cat/.unprotected.png\n" in capsys.readouterr().out


def test_links_in_a_circle(root):
    (root / "cat" / "again").symlink_to(root)
    refused(root, root / "cat" / "again", "remove it")


def test_links_to_one_another(root):
    (root / "cat" / "dogs").symlink_to(root / "dog")
    (root / "dog" / "cats").symlink_to(root / "cat")
    refused(root, root / "cat" / "dogs" / "cats", "leads back to itself", "remove it")


def test_links_of_three_folders_outside(root, tmp_path):
    for name, target in (("x", "y"), ("y", "z"), ("z", "x")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "next").symlink_to(tmp_path / target)
    (root / "cat" / "x").symlink_to(tmp_path / "x")
    refused(root, root / "cat" / "x" / "next" / "next" / "next", "remove it")


def test_two_links_to_one_folder_are_no_circle(root, tmp_path):
    (tmp_path / "outside").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "outside" / "9.png")
    for name in ("cat", "dog"):
        (root / name / "more").symlink_to(tmp_path / "outside")
    assert survey_folder(open_folder(root)).sizes == {(8, 6): 4, (4, 4): 2}


def test_links_out_of_the_tree_are_followed(root, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    Image.new("RGB", (4, 4)).save(outside / "9.png")
    (root / "cat" / "more").symlink_to(outside)
    (root / "dog" / "9.png").symlink_to(outside / "9.png")
    assert survey_folder(open_folder(root)).sizes == {(8, 6): 4, (4, 4): 2}


def test_all_bad_files_are_listed_at_once(root):
    good = (root / "cat" / "0.png").read_bytes()
    (root / "cat" / "short.png").write_bytes(good[: len(good) // 2])
    (root / "cat" / "text.png").write_bytes(b"no picture")
    (root / "dog" / "gone.jpg").symlink_to(root / "nowhere.jpg")
    Image.new("I;16", (4, 4)).save(root / "dog" / "deep.png")
    names = ("cat/short.png", "cat/text.png", "dog/gone.jpg", "dog/deep.png")
    refused(root, "8 photos, got 4 and 4 bad files", "I;16", *(root / name for name in names))


def test_many_bad_files_are_counted(root):
    for index in range(25):
        (root / "cat" / f"bad{index}.jpg").write_bytes(b"")
    refused(root, "4 and 25 bad files", "and 5 more")


def test_jpeg_that_was_cut_short(root):
    path = root / "cat" / "big.jpg"
    pixels = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 4])
    refused(root, path)


def test_what_reading_does_is_counted(root):
    Image.new("RGBA", (6, 8)).save(root / "cat" / "clear.png")
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 8
    Image.new("RGB", (6, 8)).save(root / "dog" / "turned.jpg", exif=exif)
    survey = survey_folder(open_folder(root))
    assert survey.notes == {ON_WHITE: 1, UPRIGHT: 1}
    assert survey.sizes == {(8, 6): 5, (6, 8): 1}  # upright
    assert survey.summary() == [f"{ON_WHITE}: 1 of 6 photos", f"{UPRIGHT}: 1 of 6 photos"]


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ({(300, 400): 3}, None),
        ({(3000, 4000): 3}, 224),
        ({(3000, 4000): 3, (4000, 3000): 1}, 224),
        ({(60, 90): 3, (40, 50): 1, (500, 500): 1}, 60),
    ],
)
def test_size_to_learn_at(root, sizes, expected):
    survey = survey_folder(open_folder(root))._replace(sizes=sizes)
    assert survey.learning_size == expected


def test_names_of_pictures(tmp_path):
    names = ["a.JPG", "a.heic", "a.gif", "a.nef", "a.PEF", "a.avif", "a.hif", "a.psd", "a.eps"]
    assert all(is_picture(tmp_path / name) for name in names)
    others = ["a.txt", "a", "a.json", "licence.pdf", "clip.mpg", "clip.MPEG", "a.h5", "a.grib"]
    assert not any(is_picture(tmp_path / name) for name in others)


def test_documents_videos_and_raw_files_are_told_apart(root):
    for name in ("licence.pdf", "clip.mpg", "clip.webm", "raw.pef", "raw.GPR"):
        (root / "cat" / name).write_bytes(b"...")
    said = "; ".join(survey_folder(open_folder(root)).summary())
    assert "left out (format not supported): 2 pictures (cat/raw.GPR, cat/raw.pef)" in said
    assert "left out (not photos): 2 videos (cat/clip.mpg, cat/clip.webm)" in said
    assert "left out (not photos): 1 file (cat/licence.pdf)" in said and "raw converter" in said
