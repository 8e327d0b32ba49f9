"""Clusters of similar images in place of classes."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

import unlearnable as ue
from unlearnable.cli.main import main
from unlearnable.data import clusters as clustering
from unlearnable.data.image_folder import open_folder, survey_folder
from unlearnable.datasets import Shapes
from unlearnable.engine.kmeans import kmeans, nearest
from unlearnable.engine.models import build_model
from unlearnable.photos.plan import Plan, plan_photos

OPTIONS = {"network": build_model("tiny", 10), "device": "cpu", "progress": False}
EM = {"max_rounds": 1, "round_steps": 1, "steps": 1, "stop_error": 1.0, "batch_size": 8}


class Colours:
    """Dark, middling and bright images in turn, whose labels say nothing of that."""

    classes = ("left", "right")

    def __init__(self, count=24, seed=0):
        noise = np.random.default_rng(seed).integers(0, 40, (count, 16, 16, 3))
        self.kinds = [index % 3 for index in range(count)]
        levels = np.array([0, 100, 200])[self.kinds][:, None, None, None]
        self.images = (levels + noise).astype(np.uint8)
        self.targets = [index % 2 for index in range(count)]

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.images[index], self.targets[index]


# --- k-means -------------------------------------------------------------------------------------


def test_points_apart_are_found_whatever_the_seed():
    generator = torch.Generator().manual_seed(0)
    middles = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    points = middles.repeat(20, 1) + torch.randn(60, 2, generator=generator)
    state = torch.get_rng_state()
    for seed in range(5):
        labels, centres = kmeans(points, 3, seed=seed)
        assert labels.tolist() == [0, 1, 2] * 20
        torch.testing.assert_close(centres, points.view(20, 3, 2).mean(0))
    assert torch.equal(torch.get_rng_state(), state)


def test_every_point_is_with_its_nearest_centre_and_centres_are_means():
    points = torch.rand(80, 4, generator=torch.Generator().manual_seed(1))
    labels, centres = kmeans(points, 7, seed=3)
    again, _ = kmeans(points, 7, seed=3)
    assert torch.equal(labels, again) and sorted(set(labels.tolist())) == list(range(7))
    for index, point in enumerate(points):
        distances = [(point - centre).square().sum().item() for centre in centres]
        assert distances[labels[index]] == pytest.approx(min(distances))
    for cluster, centre in enumerate(centres):
        torch.testing.assert_close(centre, points[labels == cluster].mean(0))
    assert torch.equal(nearest(points, centres), labels)


def test_there_are_no_more_clusters_than_different_points():
    points = torch.tensor([[0.0], [1.0], [0.0], [1.0]])
    assert kmeans(points, 2, seed=0)[0].tolist() == [0, 1, 0, 1]
    with pytest.raises(ValueError, match="different points"):
        kmeans(points, 3, seed=0)


# --- datasets ------------------------------------------------------------------------------------


def test_similar_images_are_in_one_cluster_whatever_their_labels():
    dataset = Colours()
    found = ue.clusters(dataset, 3, **OPTIONS)
    assert found.targets == dataset.kinds and len(found) == 24
    image, cluster = found[5]
    assert np.array_equal(image, dataset.images[5]) and cluster == 2
    assert found.base is dataset and found.centres.shape == (3, 384)
    new = found.assign(Colours(9, seed=4))
    assert new.targets == [0, 1, 2] * 3 and torch.equal(new.centres, found.centres)


def test_rows_of_clusters_protect_the_images_themselves_with_their_own_labels():
    dataset = Colours()
    found = ue.clusters(dataset, 3, **OPTIONS)
    method = ue.EM("tiny", **EM).fit(found, device="cpu", progress=False)
    assert method.perturbation_.labels.tolist() == found.targets
    shuffled = torch.utils.data.Subset(dataset, list(range(23, -1, -1)))
    protected = method.protect(shuffled)
    rows = np.asarray(method.perturbation_.rows).astype(int)
    for place, index in enumerate(range(23, -1, -1)):
        image, label = protected[place]
        clean = dataset.images[index].astype(int)
        expected = np.clip(clean + rows[index].transpose(1, 2, 0), 0, 255)
        assert np.array_equal(image, expected) and label == dataset.targets[index]


def test_datasets_without_labels_are_sorted_too():
    dataset = Colours()
    bare = ue.from_items([image for image, _ in dataset], image=None, label=None)
    found = ue.clusters(bare, 3, **OPTIONS)
    assert found.targets == dataset.kinds
    method = ue.EM("tiny", **EM).fit(found, device="cpu", progress=False)
    assert len(method.protect(bare)) == 24


@pytest.mark.parametrize(
    "method",
    [ue.EM("tiny", granularity="class-wise", **EM), ue.LSP(), ue.OPS(), ue.DUNE.preset("demo")],
)
def test_methods_that_go_by_classes_refuse_clusters(method):
    found = ue.clusters(Colours(), 3, **OPTIONS)
    for dataset in (found, torch.utils.data.Subset(found, range(12))):
        with pytest.raises(ValueError, match="does not reveal its cluster"):
            method.fit(dataset, progress=False)


def test_new_images_are_extended_only_in_clusters_that_were_learned():
    found = ue.clusters(Colours(), 3, **OPTIONS)
    method = ue.EM("tiny", **EM).fit(found, device="cpu", progress=False)
    new = Colours(9, seed=4)
    with pytest.raises(ValueError, match=r"clustered\.assign\(new_images\)"):
        method.extend(new, progress=False)
    rows = method.extend(found.assign(new), device="cpu", progress=False)
    assert rows.labels.tolist() == new.kinds


def test_what_cannot_be_sorted_is_refused():
    with pytest.raises(ValueError, match="count"):
        ue.clusters(Colours(), 1, **OPTIONS)
    same = [(np.zeros((16, 16, 3), np.uint8), 0)] * 5
    with pytest.raises(ValueError, match="request fewer clusters"):
        ue.clusters(same, 3, **OPTIONS)
    with pytest.raises(ValueError, match="ImageNet weights"):
        ue.clusters(Shapes(size=8), 2, network="tiny")


# --- photos --------------------------------------------------------------------------------------


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """A flat folder of dark and bright photos, and a small network to look at them with."""
    monkeypatch.setattr(clustering, "check_pretrained", lambda name: None)
    small = lambda name, channels: build_model("tiny", 10, channels)
    monkeypatch.setattr(clustering, "pretrained_network", small)
    folder, rng = tmp_path / "photos", np.random.default_rng(0)
    folder.mkdir()
    for index in range(16):
        pixels = 180 * (index % 2) + rng.integers(0, 40, (40, 48, 3))
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{index:02}.png")
    return folder


def test_a_flat_folder_is_learned_in_groups_and_kept_without_them(photos):
    dataset = open_folder(str(photos))
    options = {"params": {"visits": 1.0}, "device": "cpu", "image_size": 32}
    plan = plan_photos(dataset, survey_folder(dataset), clusters=2, **options)
    assert plan.groups == [0, 1] * 8 and plan.classes == {"group 1": 8, "group 2": 8}
    said = " ".join(plan.sentences())
    assert "sorted into 2 groups of similar ones" in said
    assert "as long as their kinds resemble these groups" in said
    again = Plan.from_dict(json.loads(json.dumps(plan.to_dict())), dataset)
    assert again.sentences() == plan.sentences() and again.both.targets == plan.both.targets
    method = plan.fit(dataset, device="cpu", progress=False)
    assert method.perturbation_.config["classes"] == dataset.classes
    assert set(method.perturbation_.labels.tolist()) == {0} and method.surrogate_ is None


def test_the_command_line_writes_copies_of_sorted_photos(photos, tmp_path, capsys):
    out = str(tmp_path / "out")
    command = ["protect", str(photos), out, "--clusters", "2", "--image-size", "32", "--json"]
    quick = ["--method", "em", "--set", "max_rounds=1", "stop_error=1.0", "--device", "cpu"]
    assert main([*command, *quick, "--preset", "demo", "--quiet"]) == 0
    assert json.loads(capsys.readouterr().out)["images"] == 16
    assert main(["verify", out, f"{out}-key", "--quiet"]) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--clusters", "1"], "at least 2 groups"),
        (["--clusters", "2", "--method", "lsp"], "learns a change for each photo with --clusters"),
        (["--clusters", "2", "--others", "OTHERS"], "either --clusters or --others"),
        (["--clusters", "2", "--perturbation", "key"], "expected no --clusters"),
    ],
)
def test_what_goes_with_no_groups_is_refused(options, message, photos, tmp_path, capsys):
    others = tmp_path / "others"
    others.mkdir()
    Image.new("RGB", (40, 40)).save(others / "a.png")
    options = [str(others) if option == "OTHERS" else option for option in options]
    assert main(["protect", str(photos), str(tmp_path / "out"), *options, "--quiet"]) == 1
    assert message in capsys.readouterr().err


def test_class_folders_are_not_sorted_again(photos, tmp_path, capsys):
    for name in ("cats", "dogs"):
        (tmp_path / "kinds" / name).mkdir(parents=True)
        Image.new("RGB", (40, 40)).save(tmp_path / "kinds" / name / "a.png")
    command = ["protect", str(tmp_path / "kinds"), str(tmp_path / "out"), "--clusters", "2"]
    assert main([*command, "--quiet"]) == 1
    assert "omit --clusters" in capsys.readouterr().err
    assert main(["protect", "shapes", str(tmp_path / "out"), "--clusters", "2", "--quiet"]) == 1
    assert "only when learning from a folder of photos" in capsys.readouterr().err
