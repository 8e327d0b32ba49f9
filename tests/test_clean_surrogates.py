"""TAP, SEP and HYPO: what they promise of surrogates that were trained on clean images."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import unlearnable as ue
from unlearnable.datasets import Shapes
from unlearnable.engine.checkpoint import Checkpoint
from unlearnable.engine.distributed import Group
from unlearnable.engine.models import Ensemble, build_model
from unlearnable.engine.pgd import gradient, project, target_classes, variance_reduced
from unlearnable.engine.run import Run
from unlearnable.engine.sampler import images_per_epoch
from unlearnable.engine.train import to_float
from unlearnable.methods.row_buffer import RowBuffer

METHODS = [ue.TAP, ue.SEP, ue.HYPO]
BIG_STEPS = {"steps": 10, "step_size": 5 / 255, "batch_size": 16, "train_epochs": 8}

EVERYTHING = {
    "checkpoints": 2,
    "feature_alignment": True,
    "variance_reduction": True,
    "inner_steps": 3,
}


def smooth(classes=5, channels=3):
    """A small network without kinks, the same every time."""
    model = nn.Sequential(
        nn.Conv2d(channels, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(144, classes)
    )
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(std=0.3, generator=generator)
    return model


def ensemble(size=3, features=None):
    made = Ensemble(smooth(), size, features)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for weight in made.parameters():
            weight.normal_(std=0.3, generator=generator)
    return made


def make_run(count=16, epsilon=8 / 255):
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (count, 3, 8, 8), generator=generator, dtype=torch.uint8)
    rows = RowBuffer(tuple(images.shape), epsilon, "Linf", torch.device("cpu"))
    return Run(images, torch.arange(count) % 5, 5, rows=rows)


def in_a_batch(run):
    return run, next(run.batches(1, 16))


class Noise:
    """Random images of any shape, with every class."""

    def __init__(self, classes, shape, size=24):
        rng = np.random.default_rng(0)
        self.images = rng.integers(0, 256, (size, *shape), dtype=np.uint8)
        self.labels = [i * classes // size for i in range(size)]
        self.classes = [str(label) for label in range(classes)]

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.images[index], self.labels[index]


class Easy(Noise):
    """A faint colour for each of ten classes, learned within seconds and as easily changed."""

    def __init__(self, size=160):
        super().__init__(10, (16, 16, 3), size)
        colours = np.array([[k % 3, k // 3 % 3, k // 9] for k in range(10)]) - 1
        images = 128 + 24 * colours[self.labels][:, None, None]
        images = images + np.random.default_rng(1).integers(-16, 17, (size, 16, 16, 3))
        self.images = images.astype(np.uint8)
        self.targets = self.labels


@torch.no_grad()
def logits_of(method, dataset):
    images = np.stack([np.asarray(dataset[i][0]) for i in range(len(dataset))])
    return method.surrogate_(torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255)


def rate_of(method, dataset, targets):
    return (logits_of(method, dataset).argmax(1) == targets).float().mean().item()


# Behaviour


@pytest.mark.parametrize(
    ("cls", "options", "shift"),
    [
        (ue.TAP, {"restarts": 1}, 1),
        (ue.TAP, {"restarts": 2, "shift": 3}, 3),
        (ue.SEP, {"checkpoints": 2}, 5),
        (ue.SEP, {"checkpoints": 2, "shift": -1}, 9),
        (ue.SEP, {"checkpoints": 2, "feature_alignment": True}, 5),
        (ue.SEP, {"checkpoints": 2, "variance_reduction": True, "inner_steps": 3}, 5),
        (ue.SEP, EVERYTHING, 5),
    ],
)
@pytest.mark.slow
def test_the_surrogate_takes_perturbed_images_for_the_target_class(cls, options, shift):
    dataset = Easy()
    method = cls("tiny", epsilon=24 / 255, **BIG_STEPS, **options)
    protected = method.fit(dataset, progress=False).protect(dataset)
    targets = (torch.tensor(dataset.targets) + shift) % 10
    assert rate_of(method, protected, targets) > rate_of(method, dataset, targets) + 0.15


@pytest.mark.parametrize("cls", [ue.TAP, ue.SEP])
def test_a_pretrained_surrogate_can_be_trained_gently(cls):
    """Its weights move as far as the learning rate lets them; the default is not recorded."""
    given = smooth(10)
    small = {
        "steps": 1, "batch_size": 16, "train_epochs": 1, "pretrained_surrogate": True,
        "checkpoints": 1, "restarts": 1,
    }  # fmt: skip
    small = {name: value for name, value in small.items() if hasattr(cls, name)}
    data = Noise(10, (8, 8, 3))

    def moved(**options):
        method = cls(given, **small, **options).fit(data, device="cpu", progress=False)
        found = method.surrogate_.state_dict().values()  # of SEP, those of its only checkpoint
        pairs = zip(found, given.state_dict().values(), strict=True)
        return sum((new - old).norm() for new, old in pairs), method.perturbation_.config

    (usual, plain), (same, named), (gentle, other) = (
        moved(**options) for options in ({}, {"learning_rate": 0.1}, {"learning_rate": 0.001})
    )
    assert usual == same and 0 < gentle < usual / 20
    assert "learning_rate" not in plain["parameters"] and plain == named
    assert other["parameters"]["learning_rate"] == 0.001
    with pytest.raises(ValueError, match="learning_rate"):
        cls(learning_rate=0)._validate()


def test_untargeted_tap_moves_images_away_from_their_own_class():
    dataset = Easy()
    method = ue.TAP("tiny", targeted=False, restarts=1, **BIG_STEPS)
    protected = method.fit(dataset, progress=False).protect(dataset)
    labels = torch.tensor(dataset.targets)
    loss = [F.cross_entropy(logits_of(method, data), labels) for data in (dataset, protected)]
    assert loss[1] > 2 * loss[0]


def test_hypo_lowers_the_loss_of_its_surrogate():
    dataset = Easy()
    method = ue.HYPO("tiny", robust_steps=2, **(BIG_STEPS | {"train_epochs": 3}))
    protected = method.fit(dataset, progress=False).protect(dataset)
    labels = torch.tensor(dataset.targets)
    loss = [F.cross_entropy(logits_of(method, data), labels) for data in (dataset, protected)]
    assert loss[1] < 0.75 * loss[0]


# Exactness


def test_the_variance_reduced_gradient_is_the_ensembles_in_expectation():
    members, labels = ensemble(), torch.arange(4)
    generator = torch.Generator().manual_seed(4)
    images = torch.rand(4, 3, 8, 8, generator=generator)
    step = {"epsilon": 2 / 255, "step_size": 1 / 255}

    def slope(k, x):
        return gradient(lambda x: F.cross_entropy(members(x, k), labels, reduction="sum"), x)

    def mean(x):
        return torch.stack([slope(k, x) for k in range(3)]).mean(0)

    found = [
        variance_reduced(slope, 3, drawn, images, images, **step)
        for drawn in itertools.product(range(3), repeat=2)
    ]
    # The first inner gradient is the mean itself, so that all ways agree on where they go next.
    moved = images + project(-step["step_size"] * mean(images).sign(), images, step["epsilon"])
    expected = mean(images) + mean(moved)
    assert torch.allclose(torch.stack(found).mean(0), expected, atol=1e-5)
    assert not torch.allclose(found[0], found[1], atol=1e-5)
    plain = slope(0, moved) + mean(images)
    assert not torch.allclose(plain, expected, atol=1e-3)


def test_a_step_of_sep_follows_the_mean_gradient_of_all_checkpoints():
    method, members = ue.SEP(smooth(), steps=1), ensemble(30)
    run, index = in_a_batch(make_run())
    found = method._perturb(run, index, members)
    images, targets = to_float(run.images[index]), (run.labels[index] + 2) % 5
    leaf = images.clone().requires_grad_()
    sum(F.cross_entropy(network(leaf), targets) for network in members.members).backward()
    expected = project(-leaf.grad.sign() / 255, images, 2 / 255)
    assert ((found - expected).abs() < 1e-6).float().mean() > 0.999


def test_feature_alignment_uses_each_checkpoints_own_mean_features():
    dataset = Noise(5, (8, 8, 3), size=20)
    method = ue.SEP(smooth(), steps=1, train_epochs=2, checkpoints=2, feature_alignment=True)
    method.fit(dataset, progress=False)
    members, labels = method.surrogate_, torch.tensor(dataset.labels)
    images = torch.from_numpy(dataset.images).permute(0, 3, 1, 2).float() / 255
    assert members.features.shape == (2, 5, 144)
    leaf = images.clone().requires_grad_()
    loss = 0
    for k, network in enumerate(members.members):
        features = network[:3](images)
        for label in range(5):
            expected = features[labels == label].mean(0)
            assert torch.allclose(members.features[k, label], expected, atol=1e-5)
        targets = members.features[k, (labels + 2) % 5].detach()
        loss = loss + ((network[:3](leaf) - targets) ** 2).sum()
    loss.backward()
    assert not torch.allclose(members.features[0], members.features[1], atol=1e-3)
    expected = project(-leaf.grad.sign() / 255, images, 2 / 255)
    rows = torch.from_numpy(method.perturbation_.rows).float() / 255
    assert ((rows - expected).abs() < 1e-6).float().mean() > 0.999


def test_checkpoints_are_equally_spaced_and_the_last_is_the_trained_surrogate():
    dataset = Noise(5, (8, 8, 3), size=20)
    options = {"steps": 1, "batch_size": 8, "train_epochs": 4}
    every = ue.SEP(smooth(), checkpoints=4, **options).fit(dataset, progress=False).surrogate_
    second = ue.SEP(smooth(), checkpoints=2, **options).fit(dataset, progress=False).surrogate_
    last = ue.SEP(smooth(), checkpoints=1, **options).fit(dataset, progress=False).surrogate_
    weight = [network[0].weight for network in every.members]
    assert torch.equal(second.members[0][0].weight, weight[1])
    assert torch.equal(second.members[1][0].weight, weight[3])
    assert torch.equal(last.members[0][0].weight, weight[3])
    assert not torch.equal(weight[0], weight[1])
    images = torch.rand(2, 3, 8, 8)
    mean = torch.stack([network(images) for network in every.members]).mean(0)
    assert torch.allclose(every(images), mean) and torch.equal(
        every(images, 1), every.members[1](images)
    )


@pytest.mark.parametrize("targeted", [True, False])
def test_the_best_restart_is_never_worse_than_any(targeted):
    method, model = ue.TAP(smooth(), restarts=4, steps=3, targeted=targeted), smooth()
    (run, index), (again, _) = in_a_batch(make_run()), in_a_batch(make_run())
    best = method._perturb(run, index, model)
    restarts = [method._restart(again, index, model) for _ in range(4)]
    losses = torch.stack([method._loss(again, index, model, delta) for delta in restarts])
    assert torch.equal(method._loss(run, index, model, best), losses.min(0).values)
    assert len(set(losses.argmin(0).tolist())) > 1
    for image, winner in enumerate(losses.argmin(0).tolist()):
        assert torch.equal(best[image], restarts[winner][image])


def test_restarts_are_compared_by_the_loss_of_the_whole_image():
    run, index = in_a_batch(make_run())
    model, delta = smooth(), torch.full((16, 3, 8, 8), 2 / 255)
    logits = model(to_float(run.images[index]) + delta)
    labels = run.labels[index]
    found = ue.TAP(smooth())._loss(run, index, model, delta)
    assert torch.allclose(found, F.cross_entropy(logits, (labels + 1) % 5, reduction="none"))
    found = ue.TAP(smooth(), targeted=False)._loss(run, index, model, delta)
    assert torch.allclose(found, -F.cross_entropy(logits, labels, reduction="none"))


def test_hypo_starts_from_the_clean_image():
    run, index = in_a_batch(make_run())
    assert not ue.HYPO(smooth(), steps=0)._perturb(run, index, smooth()).any()


@pytest.mark.parametrize(("size", "batch_size"), [(20, 8), (43, 16), (5, 8), (64, 100)])
@pytest.mark.parametrize(
    "method",
    [
        ue.TAP("tiny", steps=2, restarts=3, train_epochs=2),
        ue.SEP("tiny", steps=2, train_epochs=2, checkpoints=2),
        ue.SEP("tiny", steps=2, train_epochs=2, checkpoints=2, feature_alignment=True, shift=1),
        ue.SEP("tiny", steps=2, train_epochs=3, checkpoints=2, variance_reduction=True),
        ue.HYPO("tiny", steps=2, robust_steps=3, train_epochs=2),
        ue.HYPO("tiny", steps=2, robust_epsilon=0, train_epochs=2),
    ],
    ids=repr,
)
def test_the_stated_number_of_image_passes_is_the_number_made(method, size, batch_size):
    method = type(method)(**(method.get_params() | {"batch_size": batch_size}))
    method.fit(Noise(3, (8, 8, 3), size), progress=False)
    assert method.perturbation_.config["history"]["passes"] == method.passes(size)


def test_the_papers_schedules_need_the_passes_that_are_documented():
    epoch = images_per_epoch(50_000, 128)
    assert epoch == 390 * 128
    assert ue.TAP().passes(50_000) == 40 * epoch + 50_000 * 8 * 251
    assert ue.SEP().passes(50_000) == 120 * epoch + 50_000 * 30 * 30
    both = ue.SEP(feature_alignment=True, variance_reduction=True)
    assert both.passes(50_000) == 120 * epoch + 50_000 * (30 * (15 + 16) + 15)
    assert ue.HYPO().passes(50_000) == 10 * epoch * 11 + 50_000 * 100
    for cls in METHODS:
        assert cls.preset("fast").passes(50_000) < cls().passes(50_000) / 4
        assert 90_000 < cls.preset("demo").passes(3000) < 160_000


# Everywhere


@pytest.mark.parametrize("classes", [2, 7, 100])
@pytest.mark.parametrize("shape", [(8, 8, 3), (12, 20), (9, 16, 1)])
@pytest.mark.parametrize("cls", METHODS)
def test_any_number_of_classes_and_shape_of_images(cls, classes, shape):
    dataset = Noise(classes, shape, size=max(20, classes))
    options = {"train_epochs": 1, "steps": 1, "batch_size": 32}
    options |= {"checkpoints": 1, "feature_alignment": True} if cls is ue.SEP else {}
    method = cls("tiny", **options).fit(dataset, progress=False)
    assert method.perturbation_.rows.any() and method.perturbation_.config["num_classes"] == classes


@pytest.mark.parametrize("extras", [{}, {"feature_alignment": True}, {"variance_reduction": True}])
@pytest.mark.parametrize("cls", METHODS)
def test_a_process_without_images_in_a_batch_is_fine(cls, extras):
    if extras and cls is not ue.SEP:
        return
    run = Run(make_run(9).images, torch.arange(9) % 5, 5, group=Group(1, 2))
    *_, empty = run.sweep(8)  # the second process has no image of the last batch
    model = smooth()
    if cls is ue.SEP:
        model = ensemble(2, torch.ones(2, 5, 144) if "feature_alignment" in extras else None)
        extras = extras | {"checkpoints": 2}
    assert cls(smooth(), steps=2, **extras)._perturb(run, empty, model).shape == (0, 3, 8, 8)


def test_sep_extends_with_its_checkpoints_after_a_reload(tmp_path):
    dataset, new = Easy(40), Easy(24)
    options = {"steps": 2, "batch_size": 16, "train_epochs": 2, "checkpoints": 2}
    for extras in ({"feature_alignment": True}, {"variance_reduction": True, "inner_steps": 3}):
        method = ue.SEP("tiny", **options, **extras).fit(dataset, progress=False)
        rows = method.extend(new, progress=False).rows
        folder = method.save_pretrained(tmp_path / str(len(extras)))
        loaded = ue.SEP.from_pretrained(folder)
        assert rows.any() and loaded.extend(new, progress=False).rows.tobytes() == rows.tobytes()
    module = build_model("tiny", 10, seed=9)
    method = ue.SEP(module, **options).fit(dataset, progress=False)
    folder = method.save_pretrained(tmp_path / "module")
    loaded = ue.SEP.from_pretrained(folder, surrogate=module)
    rows = method.extend(new, progress=False).rows
    assert loaded.extend(new, progress=False).rows.tobytes() == rows.tobytes()


@pytest.mark.parametrize(
    "extras",
    [
        {"feature_alignment": True},
        {"variance_reduction": True},
        {"feature_alignment": True, "variance_reduction": True},
    ],
)
@pytest.mark.slow
def test_sep_with_extensions_goes_on_to_the_same_bytes(extras, tmp_path, monkeypatch):
    options = {"steps": 1, "inner_steps": 2, "batch_size": 16, "train_epochs": 2, "checkpoints": 2}

    def fit(**place):
        return ue.SEP("tiny", **options, **extras).fit(Easy(40), progress=False, **place)

    expected, after_step = fit().perturbation_.rows.tobytes(), Checkpoint.after_step
    place = {"checkpoint": tmp_path / "c", "checkpoint_every": 0}
    left, interruptions = [0], 0

    def interrupted(self, save):
        after_step(self, save)
        left[0] -= 1
        if not left[0]:
            raise ConnectionError

    monkeypatch.setattr(Checkpoint, "after_step", interrupted)
    while True:
        left[0] = 1  # after every single step
        try:
            found = fit(**place)
            break
        except ConnectionError:
            interruptions += 1
    assert found.perturbation_.rows.tobytes() == expected and interruptions >= 9


# Refusals


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"checkpoints": 5, "train_epochs": 4}, "at most as many checkpoints"),
        ({"checkpoints": 0}, "checkpoints"),
        ({"variance_reduction": True, "inner_steps": 0}, "inner_steps"),
        ({"shift": 10, "train_epochs": 1, "checkpoints": 1}, "another class"),
        ({"shift": 1.5}, "shift"),
        ({"train_epochs": -1}, "train_epochs"),
    ],
)
def test_sep_explains_bad_parameters(options, message):
    with pytest.raises(ValueError, match=message):
        ue.SEP("tiny", **options).fit(Shapes(size=20), progress=False)


def test_feature_alignment_needs_a_linear_layer_and_images_of_the_target():
    options = {"train_epochs": 1, "checkpoints": 1, "steps": 1, "feature_alignment": True}
    convolution = nn.Sequential(nn.Conv2d(3, 5, 8), nn.Flatten())
    dataset = Noise(5, (8, 8, 3))
    with pytest.raises(ValueError, match="Linear layer"):
        ue.SEP(convolution, **options).fit(dataset, progress=False)
    ue.SEP(convolution, **(options | {"feature_alignment": False})).fit(dataset, progress=False)
    few = Noise(5, (8, 8, 3))
    few.labels = [min(label, 2) for label in few.labels]
    with pytest.raises(ValueError, match="none of class 3"):
        ue.SEP(smooth(), **options).fit(few, progress=False)
    few.classes, few.labels = list("abcdef"), [2 * label for label in few.labels]
    method = ue.SEP(smooth(6), shift=2, **options).fit(few, progress=False)
    assert method.perturbation_.rows.any()
    few.labels = [1] * len(few.labels)  # new images of a class that had none, as had its target
    with pytest.raises(ValueError, match="none of class 3"):
        method.extend(few, progress=False)


def test_the_target_class_goes_round_for_any_number_of_classes():
    labels = torch.arange(7)
    assert target_classes(labels, 3, 7).tolist() == [3, 4, 5, 6, 0, 1, 2]
    assert target_classes(labels, -1, 7).tolist() == [6, 0, 1, 2, 3, 4, 5]
    for shift in (0, 7, -14):
        with pytest.raises(ValueError, match="another class"):
            target_classes(labels, shift, 7)
    with pytest.raises(ValueError, match="another class"):
        ue.TAP("tiny", shift=2, train_epochs=1).fit(Noise(2, (8, 8, 3)), progress=False)
