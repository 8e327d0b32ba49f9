"""What each method promises beyond the contract: its algorithm, exactly, and that it bites."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import unlearnable as ue
from unlearnable.datasets import Shapes
from unlearnable.engine.augment import CropFlip
from unlearnable.engine.run import Run
from unlearnable.engine.train import to_float
from unlearnable.methods.class_rows import ClassRows
from unlearnable.methods.row_buffer import RowBuffer, warn_if_zero


class Smooth(nn.Module):
    """A small network without kinks, so that gradients are the same however they are taken."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Flatten(), nn.LazyLinear(5))
        generator = torch.Generator().manual_seed(0)
        self(torch.rand(1, 3, 8, 8))
        with torch.no_grad():
            for weight in self.parameters():
                weight.normal_(std=0.3, generator=generator)

    def forward(self, images):
        return self.layers(images)


def smooth_for_shapes():
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10))


def smooth():
    with torch.random.fork_rng():
        return Smooth()


def make_run(**options):
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (16, 3, 8, 8), generator=generator, dtype=torch.uint8)
    rows = RowBuffer(tuple(images.shape), 8 / 255, "Linf", torch.device("cpu"))
    return Run(images, torch.arange(16) % 5, 5, rows=rows, **options)


def first_step_by_hand(method, run, model, index):
    """One search step from the same draws, by plain autograd over the whole expression."""
    samples = method.eot_samples
    images, labels = to_float(run.images[index]), run.labels[index]
    start = base_start(method, run, images)
    delta = start.clone().requires_grad_()
    copies = (images + delta).repeat_interleave(samples, dim=0)
    repeated = labels.repeat_interleave(samples)
    seen = CropFlip.draw(len(copies), run.rng("search crop"))(copies)
    offset = method._disturbance(run, model, seen.detach(), repeated).detach()
    F.cross_entropy(model(seen + offset), repeated).backward()
    moved = (start - method.step_size * delta.grad.sign()).clamp(-method.epsilon, method.epsilon)
    return (images + moved).clamp(0, 1) - images


def base_start(method, run, images):
    noise = run.rng("start").uniform(images.shape, -method.epsilon, method.epsilon)
    return (images + noise).clamp(0, 1) - images


@pytest.mark.parametrize("cls", [ue.REM, ue.SEM])
def test_the_gradient_through_augmentation_is_autograd_through_the_same_draws(cls):
    method = cls(smooth(), eot_samples=3, robust_steps=2)
    by_method, by_hand = make_run(), make_run()
    index = next(by_method.batches(1, 16))
    assert torch.equal(index, next(by_hand.batches(1, 16)))
    found = method._search(by_method, index, smooth(), steps=1)
    expected = first_step_by_hand(method, by_hand, smooth(), index)
    assert (found - expected).abs().max() < 1e-6
    assert (found - base_start(method, make_run_in_batch(), to_float(by_hand.images[index]))).any()


def make_run_in_batch():
    run = make_run()
    next(run.batches(1, 16))
    return run


def test_rem_differs_from_sem_in_the_disturbance_alone():
    run = make_run_in_batch()
    images, labels = torch.full((16, 3, 8, 8), 0.5), torch.arange(16) % 5
    model = smooth()

    def loss_at(method):
        return F.cross_entropy(
            model(images + method._disturbance(run, model, images, labels)), labels
        )

    rem, sem = ue.REM(model), ue.SEM(model)
    assert loss_at(rem) > loss_at(sem)
    for method in (rem, sem):
        disturbance = method._disturbance(run, model, images, labels)
        assert 0 < disturbance.abs().max() <= 4 / 255 + 1e-6


def test_sem_without_a_robust_radius_is_plain_eot_error_minimisation():
    with_radius, without = ue.SEM(smooth()), ue.SEM(smooth(), robust_epsilon=0)
    run, model = make_run(), smooth()
    index = next(run.batches(1, 16))
    images, labels = to_float(run.images[index]), run.labels[index]
    assert not without._disturbance(run, model, images, labels).any()
    assert with_radius._disturbance(run, model, images, labels).any()
    assert without._search(make_run_in_batch(), index, model, steps=3).any()
    by_hand = make_run()
    next(by_hand.batches(1, 16))
    start = base_start(without, by_hand, images)
    delta = start.clone().requires_grad_()
    seen = CropFlip.draw(16 * 5, by_hand.rng("search crop"))(
        (images + delta).repeat_interleave(5, dim=0)
    )
    F.cross_entropy(model(seen), labels.repeat_interleave(5)).backward()
    moved = (start - without.step_size * delta.grad.sign()).clamp(-8 / 255, 8 / 255)
    expected = (images + moved).clamp(0, 1) - images
    found = without._search(make_run_in_batch(), index, model, steps=1)
    assert (found - expected).abs().max() < 1e-6


@pytest.mark.parametrize(("cls", "granularity"), [(ue.EM, "sample-wise"), (ue.EM, "class-wise")])
def test_em_lowers_the_loss_of_its_surrogate(cls, granularity):
    dataset = Shapes(size=64)
    method = cls.preset("demo", granularity=granularity, max_rounds=2, batch_size=32)
    with pytest.warns(UserWarning, match="max_rounds=2"):
        method.fit(dataset, progress=False)
    losses = [record["loss"] for record in method.history_]
    assert losses[-1] < losses[0]
    assert loss_of(method, method.protect(dataset)) < loss_of(method, dataset)


@pytest.mark.parametrize("cls", [ue.REM, ue.SEM])
@pytest.mark.slow
def test_rem_and_sem_lower_the_loss_of_their_surrogate(cls):
    dataset = Shapes(size=64)
    method = cls.preset("demo", train_steps=15, batch_size=32).fit(dataset, progress=False)
    assert loss_of(method, method.protect(dataset)) < loss_of(method, dataset)


@torch.no_grad()
def loss_of(method, dataset):
    images = np.stack([np.asarray(dataset[i][0]) for i in range(len(dataset))])
    images = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    return F.cross_entropy(method.surrogate_(images), torch.tensor(dataset.targets)).item()


def test_em_uses_negative_changes_as_much_as_positive_ones():
    method = ue.EM.preset("demo", stop_error=1.0).fit(Shapes(size=32), progress=False)
    rows = method.perturbation_.rows
    assert 0.4 < (rows < 0).sum() / (rows != 0).sum() < 0.6


def test_em_stops_when_the_error_is_low_enough():
    method = ue.EM.preset("demo", stop_error=1.0).fit(Shapes(size=16), progress=False)
    assert len(method.history_) == 1


def test_class_wise_em_moves_each_class_to_the_mean_of_its_images_steps():
    method = ue.EM(smooth(), granularity="class-wise")
    run, model = make_run(), smooth()
    index = next(run.batches(1, 16))
    rows = ClassRows(run)
    expected = method._descend(run, index, model, rows[index], 1)
    rows[index] = expected
    for label in range(5):
        mine = expected[run.labels[index] == label]
        assert torch.allclose(rows.by_class[label], mine.mean(0), atol=1e-6)
        assert torch.equal(rows[torch.tensor([label])][0], rows.by_class[label])


@pytest.mark.parametrize("cls", [ue.EM, ue.AUE])
def test_class_wise_rows_keep_what_a_white_image_has_no_room_for(cls):
    run = make_run_in_batch()
    run.images.fill_(255)
    start = torch.full((16, 3, 8, 8), 8 / 255)
    found = {}
    for granularity in ("sample-wise", "class-wise"):
        method = cls(smooth(), granularity=granularity, step_size=1 / 255)
        found[granularity] = method._descend(run, torch.arange(16), smooth(), start, 1)
    assert found["sample-wise"].max() <= 0
    levels = 255 * found["class-wise"]
    assert levels.min() > 6.99 and levels.max() < 8.01


@pytest.mark.parametrize(
    ("cls", "options"),
    [
        (ue.EM, {"max_rounds": 4, "stop_error": 1e-9, "steps": 1}),
        (ue.SEM, {"train_steps": 40, "steps": 1, "final_steps": 0}),
    ],
)
@pytest.mark.slow
def test_new_images_get_rows_as_large_as_those_that_a_fit_adds_up(cls, options):
    dataset = Shapes(size=32)
    method = cls.preset("demo", **options, step_size=2 / 255, batch_size=32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        learned = method.fit(dataset, progress=False).perturbation_.rows
    extended = method.extend(Shapes(size=16, seed=1), progress=False).rows
    assert np.abs(extended).max() == 8
    assert np.abs(extended).mean() > 0.8 * np.abs(learned).mean()


@pytest.mark.parametrize(("cls", "share"), [(ue.TAP, 20), (ue.HYPO, 10)])
def test_steps_are_a_share_of_the_budget(cls, share):
    rows = []
    for step_size in (None, 4 / 255 / share):
        run, model = make_run_in_batch(), smooth()
        method = cls(model, epsilon=4 / 255, step_size=step_size, steps=2)
        rows.append(method._perturb(run, torch.arange(16), model))
    assert torch.equal(*rows) and rows[0].any()


@pytest.mark.parametrize("cls", [ue.REM, ue.SEM])
@pytest.mark.parametrize("robust_epsilon", [0, 4 / 255])
def test_the_stated_number_of_image_passes_is_the_number_made(cls, robust_epsilon):
    method = cls(
        "tiny",
        steps=2,
        robust_steps=3,
        eot_samples=2,
        train_steps=2,
        final_steps=3,
        robust_epsilon=robust_epsilon,
        batch_size=8,
    ).fit(Shapes(size=20), progress=False)
    assert method.perturbation_.config["history"]["passes"] == method.passes(20)


@pytest.mark.parametrize("batch_size", [1, 12, 100])
def test_a_batch_counts_as_the_images_that_it_has(batch_size):
    sem = ue.SEM("tiny", steps=1, eot_samples=1, train_steps=2, batch_size=batch_size)
    sem.fit(Shapes(size=20), progress=False)
    assert sem.perturbation_.config["history"]["passes"] == sem.passes(20)
    em = ue.EM("tiny", steps=1, round_steps=2, max_rounds=1, stop_error=1.0, batch_size=batch_size)
    em.fit(Shapes(size=20), progress=False)
    assert 10 * em.perturbation_.config["history"]["passes"] == em.passes(20)


def test_the_papers_schedules_need_the_passes_that_are_documented():
    assert ue.SEM().passes(50_000) == pytest.approx(41.5e6, rel=0.01)
    assert ue.REM().passes(50_000) == pytest.approx(386e6, rel=0.01)
    assert ue.SEM.preset("fast").passes(50_000) < ue.SEM().passes(50_000) / 20


def test_images_that_training_left_out_may_move_as_far_as_the_others():
    method = ue.SEM.preset(
        "fast", surrogate="tiny", search_images=16, batch_size=16, final_steps=1, step_size=2 / 255
    ).fit(Shapes(size=40), progress=False)
    largest = abs(method.perturbation_.rows[:]).max(axis=(1, 2, 3))
    assert largest.min() >= 7
    assert method.perturbation_.config["history"]["passes"] == method.passes(40)


@pytest.mark.parametrize("images", [20, 90])
def test_visits_of_a_part_of_the_images_and_one_sweep_for_all(images):
    method = ue.SEM.preset("fast", surrogate="tiny", search_images=32, visits=2, batch_size=16)
    method.fit(Shapes(size=images), progress=False)
    assert method.history_[-1]["step"] == 2 * min(32, images) // 16
    assert method.perturbation_.rows.any(axis=(1, 2, 3)).all()
    assert method.perturbation_.config["history"]["passes"] == method.passes(images)
    em = ue.EM("tiny", search_images=32, steps=2, max_rounds=1, stop_error=1.0, batch_size=16)
    em.fit(Shapes(size=images), progress=False)
    assert em.perturbation_.rows.any(axis=(1, 2, 3)).all()
    at_last = 20 * images if images > 32 else 0
    round_passes = 10 * 16 + 3 * min(32, images)
    assert em.perturbation_.config["history"]["passes"] == round_passes + at_last
    assert em.passes(images) == 10 * round_passes + at_last
    steps = ue.SEM.preset("fast", train_steps=3, surrogate="tiny", search_images=32, batch_size=16)
    assert steps.fit(Shapes(size=images), progress=False).history_[-1]["step"] == 3


def test_the_last_sweep_reaches_images_that_no_full_batch_holds():
    # 43 images in batches of 40: three are in no batch of any single epoch.
    method = ue.SEM.preset("demo", train_steps=1, batch_size=40).fit(
        Shapes(size=43), progress=False
    )
    assert method.perturbation_.rows.any(axis=(1, 2, 3)).all()


@pytest.mark.parametrize("cls", [ue.REM, ue.SEM])
@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"final_steps": 0}, "final_steps >= 1 without warm_start=True"),
        (
            {"final_steps": 0, "warm_start": True, "search_images": 16},
            "final_steps >= 1 with search_images",
        ),
        ({"steps": 0}, "steps to be an integer >= 1, got 0"),
        ({"steps": 0, "final_steps": 5}, "steps to be an integer >= 1, got 0"),
        ({"steps": 0, "warm_start": True}, "steps to be an integer >= 1, got 0"),
    ],
)
def test_searches_without_a_step_are_refused(cls, parameters, message):
    with pytest.raises(ValueError, match=message):
        cls("tiny", **parameters).fit(Shapes(size=16), progress=False)


@pytest.mark.parametrize(
    "method",
    [
        ue.EM("tiny", steps=1, step_size=0.5 / 255),
        ue.EM("tiny", steps=0),
        ue.AUE("tiny", steps=2, step_size=0.25 / 255),
        ue.REM("tiny", steps=1, step_size=0.4 / 255, warm_start=True),
        ue.SEM("tiny", steps=2, step_size=0.2 / 255, warm_start=True),
    ],
)
def test_steps_that_rounding_undoes_are_refused(method):
    with pytest.raises(ValueError, match=r"half a pixel level, 0\.5 / 255, got \d \* 0"):
        method.fit(Shapes(size=16), progress=False)


@pytest.mark.parametrize(
    "method",
    [
        ue.EM("tiny", norm="L2", epsilon=1.0),
        ue.AUE.preset("demo", norm="L2", epsilon=1.0),
        ue.SEM.preset("demo", norm="L2", epsilon=1.0),
    ],
)
def test_l2_steps_that_rounding_undoes_are_refused_before_anything_is_made(method, tmp_path):
    needed = r"half a pixel level, 0\.109 for the norm L2 and 3,072 values, got .* step_size="
    with pytest.raises(ValueError, match=needed):
        method.fit(Shapes(size=16), checkpoint=tmp_path / "state", progress=False)
    assert not any(tmp_path.iterdir())


def test_l2_steps_that_are_not_undone_are_taken():
    least = 0.5 / 255 * (3 * 32 * 32) ** 0.5
    for cls in (ue.EM, ue.AUE):
        cls(norm="L2", epsilon=1.0, steps=1, step_size=1.01 * least)._check_moves((3, 32, 32))
        with pytest.raises(ValueError, match="half a pixel level"):
            cls(norm="L2", steps=1, step_size=0.99 * least)._check_moves((3, 32, 32))
    method = ue.AUE.preset("demo", norm="L2", epsilon=1.0, step_size=0.25, train_epochs=1)
    assert method.fit(Shapes(size=16), progress=False).perturbation_.rows.any(axis=(1, 2, 3)).all()


@pytest.mark.parametrize("cls", [ue.REM, ue.SEM])
def test_l2_steps_that_leave_rows_as_random_as_they_start_are_refused(cls):
    images = Shapes(size=16)
    with pytest.raises(ValueError, match=r"half of epsilon=1 .* 10 \* 0\.00627: .* step_size="):
        cls("tiny", norm="L2", epsilon=1.0).fit(images, progress=False)
    enough = {"norm": "L2", "epsilon": 1.0, "steps": 2, "step_size": 0.25}
    with pytest.raises(ValueError, match=r"2 \* 0\.2: .* final_step_size="):
        cls("tiny", **enough, final_step_size=0.2).fit(images, progress=False)
    with pytest.raises(ValueError, match=r"1 \* 0\.25: .* step_size="):
        cls("tiny", **enough, final_steps=1).fit(images, progress=False)
    few = {"train_steps": 1, "eot_samples": 1, "robust_steps": 1}
    assert cls("tiny", **enough, **few).fit(images, progress=False).perturbation_.rows.any()


def test_the_default_step_of_aue_reaches_the_next_level():
    assert ue.AUE()._step_size == ue.AUE(granularity="class-wise")._step_size == 8 / 255 / 10
    assert ue.AUE(epsilon=1 / 255, granularity="class-wise")._step_size == 1 / 255 / 10
    method = ue.AUE("tiny", epsilon=1 / 255, train_epochs=1)
    assert method.fit(Shapes(size=16), progress=False).perturbation_.rows.any(axis=(1, 2, 3)).all()


def test_steps_that_are_not_undone_are_taken():
    for method in (
        ue.EM(steps=1, step_size=0.51 / 255),
        ue.EM(step_size=0.1 / 255, granularity="class-wise"),  # not rounded before the end
        ue.AUE(step_size=0.1 / 255, granularity="class-wise"),
        ue.REM(steps=1, step_size=0.4 / 255),  # from random starts
        *(cls.preset(name) for cls in (ue.EM, ue.AUE, ue.REM, ue.SEM) for name in cls.presets),
    ):
        method._check_moves((3, 32, 32))


@pytest.mark.parametrize("granularity", ["sample-wise", "class-wise"])
def test_rows_that_are_all_zero_are_warned_of(granularity):
    options = {"granularity": granularity, "round_steps": 1, "max_rounds": 1, "stop_error": 1.0}
    method = ue.EM(Still(), **options)
    dataset = Shapes(size=16)
    count = 16 if granularity == "sample-wise" else len(set(dataset.targets))
    with pytest.warns(
        UserWarning, match=f"EM left {count} of {count} rows all zero.*not protected"
    ):
        method.fit(dataset, progress=False)
    if granularity == "sample-wise":
        with pytest.warns(UserWarning, match="left 8 of 8 rows all zero"):
            method.extend(Shapes(size=8), progress=False)


@pytest.mark.parametrize(("zero", "warned"), [(400, False), (500, True), (999, True)])
def test_half_of_the_rows_at_zero_are_warned_of(zero, warned):
    rows = np.zeros((1000, 1, 2, 2), dtype=np.int8)
    rows[zero:, 0, 1, 1] = -1
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn_if_zero("EM", rows)
    messages = [str(warning.message) for warning in caught]
    assert bool(messages) is warned
    assert not warned or messages[0].startswith(f"EM left {zero} of 1,000 rows all zero")


def test_classes_without_images_are_not_warned_of():
    few = [(image, label) for image, label in Shapes(size=40) if label < 4]
    method = ue.AUE.preset("demo", granularity="class-wise", train_epochs=1)
    method.fit(Named(few), progress=False)
    assert method.perturbation_.rows.any(axis=(1, 2, 3)).sum() == 4


class Named(list):
    """Pairs with the names of all classes."""

    classes = Shapes.classes


class Still(nn.Linear):
    """The same answer for every image, whatever is learned: no slope to go down."""

    def __init__(self):
        super().__init__(3 * 32 * 32, 10)

    def forward(self, images):
        return 0 * super().forward(images.flatten(1))


def test_no_last_sweep_leaves_warm_rows_as_they_are():
    dataset = Shapes(size=16)
    method = ue.SEM.preset("demo", train_steps=2, batch_size=16, final_steps=0)
    rows = method.fit(dataset, progress=False).perturbation_.rows
    assert rows.any(axis=(1, 2, 3)).all()
    # New images have no rows that could be left as they are.
    extended = method.extend(Shapes(size=8, seed=1), progress=False).rows
    assert extended.any(axis=(1, 2, 3)).all()


def test_warm_starts_go_on_from_the_stored_rows():
    method = ue.SEM(smooth(), warm_start=True)
    run = make_run_in_batch()
    index = torch.arange(16)
    run.rows[index] = torch.full((16, 3, 8, 8), 3 / 255)
    found = method._search(run, index, smooth(), steps=0)
    images = to_float(run.images)
    assert torch.allclose(found, (images + 3 / 255).clamp(0, 1) - images, atol=1e-6)


def test_one_level_is_the_least_budget():
    rows = ue.RandomNoise(epsilon=1 / 255).fit(Shapes(size=8), progress=False).perturbation_.rows
    assert set(np.unique(rows)) == {-1, 0, 1}
    ue.RandomNoise(epsilon=0.9 / 255, norm="L2")._validate()
    ue.REM(robust_epsilon=0.5 / 255, step_size=0.3 / 255)._validate()  # these are not rounded


def test_random_noise_is_uniform_within_the_budget():
    rows = ue.RandomNoise().fit(Shapes(size=64), progress=False).perturbation_.rows
    shares = np.bincount(rows.ravel() + 8, minlength=17) / rows.size
    assert np.allclose(shares[1:-1], 1 / 16, atol=0.01)
    l2 = ue.RandomNoise(epsilon=1.0, norm="L2").fit(Shapes(size=8), progress=False)
    norms = np.linalg.norm(l2.perturbation_.rows.reshape(8, -1) / 255.0, axis=1)
    assert norms.max() <= 1 + 0.5 / 255 * np.sqrt(3 * 32 * 32) and norms.min() > 0.9


def test_a_pretrained_surrogate_keeps_its_weights():
    kept = ue.SEM(smooth(), pretrained_surrogate=True, train_steps=0, steps=1, batch_size=8)
    fresh = ue.SEM(smooth(), train_steps=0, steps=1, batch_size=8)
    dataset = [(image, label % 5) for image, label in zip(*tiny_pairs(), strict=True)]
    for method, same in ((kept, True), (fresh, False)):
        method.fit(dataset, progress=False)
        equal = torch.equal(method.surrogate_.layers[0].weight, smooth().layers[0].weight)
        assert equal is same


def tiny_pairs():
    return list(make_run().images), list(range(16))


def test_a_short_fit_says_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ue.SEM.preset("demo", train_steps=1).fit(Shapes(size=16), progress=False)


def test_a_fit_that_fails_leaves_nothing_that_looks_fitted():
    method = ue.RandomNoise().fit(Shapes(size=16), progress=False)

    def fail(run):
        raise RuntimeError("inside the algorithm")

    method._learn = fail
    with pytest.raises(RuntimeError, match="inside"):
        method.fit(Shapes(size=16), progress=False)
    with pytest.raises(ue.NotFittedError):
        method.protect(Shapes(size=16))


def test_callback_sees_every_record():
    seen = []
    method = ue.SEM(smooth_for_shapes(), warm_start=True, steps=1, eot_samples=1, train_steps=60)
    method.fit(Shapes(size=16), progress=False, callback=seen.append)
    assert seen == method.history_ and [record["step"] for record in seen] == [50, 60]
