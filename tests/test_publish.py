"""Protected images on a Hub, with a card and alone; and the preview of a perturbation."""

import json
import shutil
import sys

import datasets
import huggingface_hub
import numpy as np
import pytest
import yaml
from hub_server import READER, WRITER, HubServer

import unlearnable as ue
from unlearnable.hub import client
from unlearnable.perturbation.preview import PREVIEW
from unlearnable.protected.export import huggingface
from unlearnable.protected.manifest import MARKER

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning"),  # the client's own
]

PARQUET = "data/train-00000-of-00001.parquet"


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    """A Hub for the client in this process, which read its environment when it was imported."""
    with (
        HubServer(tmp_path_factory.mktemp("store")) as server,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
        patch.setattr(huggingface_hub.constants, "ENDPOINT", server.url)
        yield server


@pytest.fixture
def server(running):
    yield running
    running.mend()
    running.repos.clear()


@pytest.fixture
def access(server):
    return {"endpoint": server.url, "token": WRITER}


@pytest.fixture(scope="module")
def protected(shapes, perturbation):
    return ue.ProtectedDataset(shapes, perturbation, fraction=0.5)


def pushed(protected, repo_id="owner/images", **options):
    return protected.push_to_hub(repo_id, progress=False, **options)


def front_of(text):
    return yaml.safe_load(text.split("---\n", 2)[1])


def images_of(dataset):
    return np.stack([np.asarray(row["image"]) for row in dataset]).transpose(0, 3, 1, 2)


def put(server, folder, repo_id, files):
    """A private repository with files of these names."""
    shutil.rmtree(folder, ignore_errors=True)
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    return server.put(repo_id, folder, private=True)


# --- there and back ------------------------------------------------------------------------------


def test_what_is_pushed_is_read_without_this_package(protected, server, access, tmp_path):
    done = pushed(protected, license="cc-by-4.0", **access)
    assert (
        done.repo_id == "owner/images" and done.commit == server.repos["owner/images"].refs["main"]
    )
    assert server.files("owner/images") == ["README.md", PARQUET, MARKER]
    assert server.repos["owner/images"].private
    folder = server.copy("owner/images", tmp_path / "copy")
    read = datasets.load_dataset(str(folder), split="train", cache_dir=str(tmp_path / "cache"))
    np.testing.assert_array_equal(images_of(read), protected.to_tensors()[0].numpy())
    assert read["label"][:] == protected.targets
    assert read.features["label"].names == protected.classes
    again = ue.from_hf(read)
    assert again.classes == protected.classes and again.targets == protected.targets
    card = huggingface_hub.DatasetCard(server.text("owner/images", "README.md"))
    assert card.data.license == "cc-by-4.0" and card.data.library_name == "unlearnable"
    assert 'load_dataset("owner/images", split="train")' in card.text
    assert "| share protected | 50% |" in card.text and "| budget | Linf 8/255 |" in card.text


def test_the_same_again_makes_no_commit_and_other_images_replace_the_files(
    protected, server, access, monkeypatch
):
    first = pushed(protected, **access)
    repo = server.repos["owner/images"]
    assert pushed(protected, **access) == first and len(repo.commits) == 2
    monkeypatch.setattr(huggingface, "PIECE_BYTES", 20_000)
    second = pushed(protected, **access)
    assert second.commit != first.commit and len(repo.commits) == 3
    names = [name for name in server.files("owner/images") if name.startswith("data/")]
    assert len(names) > 1 and PARQUET not in names


def test_nothing_that_helps_to_undo_it_goes_along(shapes, server, access):
    method = ue.RandomNoise(seed=987654321).fit(shapes, device="cpu", progress=False)
    protected = ue.ProtectedDataset(shapes, method.perturbation_, seed=123456789)
    pushed(protected, **access)
    written = "".join(server.text("owner/images", name) for name in ("README.md", MARKER))
    perturbation = method.perturbation_
    hidden = [perturbation.digest, perturbation.config["source"]["digest"], "perturbation_id"]
    hidden += ["987654321", "123456789", "Shapes", *(f"{key:x}" for key in perturbation.keys)]
    assert [secret for secret in hidden if secret in written] == []
    assert json.loads(server.text("owner/images", MARKER))["fraction"] == 1


def test_branches_and_pull_requests(protected, server, access):
    done = pushed(protected, branch="draft", commit_message="A draft", **access)
    repo = server.repos["owner/images"]
    assert repo.refs["draft"] == done.commit and server.files("owner/images") == []
    request = pushed(protected, create_pr=True, **access)
    assert repo.refs["refs/pr/1"] == request.commit and request.url.endswith("/discussions/1")
    with pytest.raises(ValueError, match="got both"):
        pushed(protected, branch="draft", create_pr=True, **access)


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["main", "branch", "pull request"])
def test_images_do_not_go_where_the_perturbation_is(
    where, protected, perturbation, server, access, monkeypatch
):
    options = {"main": {}, "branch": {"branch": "old"}, "pull request": {"create_pr": True}}[where]
    perturbation.push_to_hub("owner/both", **access, **options)
    commits = len(server.repos["owner/both"].commits)
    monkeypatch.setattr(type(protected), "export", None)  # found out before anything is written
    with pytest.raises(ue.HubError, match=r"has perturbation\.safetensors.*another repository"):
        pushed(protected, "owner/both", **access)
    assert len(server.repos["owner/both"].commits) == commits


@pytest.mark.parametrize(
    "there",
    ["perturbation-00001-of-00002.safetensors", "old/perturbation.safetensors", "p.safetensors"],
)
def test_nor_where_a_part_of_one_is(there, protected, server, access, tmp_path):
    put(server, tmp_path / "there", "owner/both", [there, MARKER])
    with pytest.raises(ue.HubError, match="possibly their perturbation"):
        pushed(protected, "owner/both", **access)


@pytest.mark.parametrize(
    "there",
    [
        "data/train-00000-of-00001.parquet",
        "cat/0001.JPG",
        "train.tar",
        "images.npz",
        "train.tar.gz",
        "photos/a.avif",
        "images.npy",
        "data_batch_1.bin",
        "b.HEIC",
    ],
)
def test_nor_where_other_images_are(there, protected, server, access, tmp_path):
    put(server, tmp_path / "there", "owner/clean", [there, "README.md"])
    with pytest.raises(ue.HubError, match="may be the clean ones"):
        pushed(protected, "owner/clean", **access)
    assert len(server.repos["owner/clean"].commits) == 2


def test_clean_images_alone_are_not_pushed(protected, server, access):
    with pytest.raises(ValueError, match=r"expected protected images, got only clean .*fraction=0"):
        pushed(protected.with_fraction(0), "owner/new", **access)
    assert "owner/new" not in server.repos


def test_files_beside_protected_images_stay(protected, server, access, tmp_path):
    there = ["LICENSE.md", "data/test-00000-of-00001.parquet", MARKER]
    put(server, tmp_path / "there", "owner/images", there)
    pushed(protected, **access)
    assert server.files("owner/images") == sorted([*there, "README.md", PARQUET])


@pytest.mark.parametrize("format", ["ours", "png", "parquet", "of datasets"])
def test_a_perturbation_does_not_go_where_protected_images_are(
    format, protected, perturbation, server, access, tmp_path
):
    if format == "ours":
        pushed(protected, "owner/both", **access)
    elif format == "of datasets":
        put(server, tmp_path / "there", "owner/both", [PARQUET])
    else:
        folder = protected.export(tmp_path / "out", format, progress=False)
        server.put("owner/both", folder, private=True)
    commits = len(server.repos["owner/both"].commits)
    with pytest.raises(ue.HubError, match="only for a perturbation, got owner/both"):
        perturbation.push_to_hub("owner/both", **access)
    assert len(server.repos["owner/both"].commits) == commits


def test_the_hubs_refusals_come_before_the_images_are_written(
    protected, server, monkeypatch, tmp_path
):
    monkeypatch.setattr(type(protected), "export", None)
    server.put("owner/public", tmp_path, private=False)
    with pytest.raises(ue.HubError, match="public repository; pass private=False"):
        pushed(protected, "owner/public", endpoint=server.url, token=WRITER)
    with pytest.raises(ue.HubError, match=r"403.*does not allow you to write"):
        pushed(protected, "owner/new", endpoint=server.url, token=READER)
    with pytest.raises(ue.HubError, match="owner/name, got 'bare'"):
        pushed(protected, "bare", endpoint=server.url, token=WRITER)


def test_an_error_of_the_dataset_is_not_one_of_the_hub(protected, server, access, monkeypatch):
    def fail(*_, **__):
        raise OSError("No space left on device")

    monkeypatch.setattr(type(protected), "export", fail)
    with pytest.raises(OSError, match="No space left"):
        pushed(protected, **access)
    assert server.files("owner/images") == []


def test_a_hugging_face_dataset_below_is_never_pushed(perturbation, server, access, tmp_path):
    """It has a ``push_to_hub`` of its own, which would send clean images."""
    shapes = ue.datasets.Shapes(size=4)
    clean = datasets.Dataset.from_list(
        [{"image": image, "label": label} for image, label in shapes],
        features=datasets.Features(
            {"image": datasets.Image(), "label": datasets.ClassLabel(names=shapes.classes)}
        ),
    )
    protected = ue.RandomNoise().fit(clean, device="cpu", progress=False).protect(clean)
    pushed(protected, **access)
    folder = server.copy("owner/images", tmp_path / "copy")
    read = datasets.load_dataset(str(folder), split="train", cache_dir=str(tmp_path / "cache"))
    assert all((images_of(read) != images_of(clean)).any((1, 2, 3)))


# --- the preview of a perturbation ---------------------------------------------------------------


def test_the_viewer_finds_the_preview(perturbation, server, access, tmp_path):
    perturbation.push_to_hub("owner/p", **access)
    folder = server.copy("owner/p", tmp_path / "copy")
    read = datasets.load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))
    assert list(read) == ["preview"] and read["preview"].column_names == ["perturbation", "class"]
    first = read["preview"][0]
    assert first["class"] == perturbation.config["classes"][perturbation.labels.min()]
    assert first["perturbation"].size == (32, 32)
    front = front_of(server.text("owner/p", "README.md"))
    splits = front["dataset_info"]["splits"]
    assert splits[0]["num_examples"] == len(read["preview"]) == len(set(perturbation.labels))


def test_a_push_without_pyarrow_takes_an_earlier_preview_away(
    perturbation, server, access, monkeypatch
):
    perturbation.push_to_hub("owner/p", **access)
    assert PREVIEW in server.files("owner/p")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    perturbation.push_to_hub("owner/p", **access)
    assert server.files("owner/p") == ["README.md", "config.json", "perturbation.safetensors"]
    assert front_of(server.text("owner/p", "README.md"))["viewer"] is False


def test_the_marker_is_the_one_that_the_client_knows():
    assert client.IMAGES.marker == MARKER
